//! XA: databases prepare their local transactions, and commit or roll back together.
//!
//! The caller uses [`XaBuilder::run`]. A service that holds a database uses [`Phase::of`] to tell what a call asks of it,
//! and [`Dialect`] for the statements; they must run on one connection, up to and including [`Dialect::prepare`].

use super::answer::Reply;
use super::call::{BranchIds, Outgoing, Reading};
use super::error::{Done, Error};
use super::options::{Options, option_setters};
use super::tcc::two_phases;
use super::wire::{Branch, Trans};
use super::{Client, Payload};
use crate::branch_call::{BranchCall, op};
use crate::branch_error::BranchError;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

/// An XA transaction before it begins.
///
/// ```no_run
/// # async fn run(client: rushline::client::Client) -> Result<(), rushline::client::Error> {
/// use serde_json::json;
///
/// client
///     .xa(client.new_gid().await?)
///     .run(|xa| async move {
///         xa.call_branch("http://bank-a/out", &json!({ "amount": 30 })).await?;
///         xa.call_branch("http://bank-b/in", &json!({ "amount": 30 })).await?;
///         Ok(())
///     })
///     .await?;
/// # Ok(()) }
/// ```
#[must_use = "nothing happens before run"]
#[derive(Debug, Clone)]
pub struct XaBuilder {
    client: Client,
    gid: String,
    options: Options,
}

impl XaBuilder {
    pub(crate) fn new(client: Client, gid: String) -> Self {
        Self { client, gid, options: Options::default() }
    }

    option_setters!();

    /// Begins, runs `first`, then has everything committed (`Ok`) or rolled back (any error).
    pub async fn run<T, F, Fut>(self, first: F) -> Result<Done<T>, Error>
    where
        F: FnOnce(Xa) -> Fut,
        Fut: Future<Output = Result<T, BranchError>>,
    {
        let trans = Trans { gid: self.gid, trans_type: "xa", options: self.options, ..Trans::default() };
        let xa = Xa {
            client: self.client.clone(),
            gid: trans.gid.clone(),
            ids: Arc::new(Mutex::new(BranchIds::below(""))),
            options: Arc::new(trans.options.clone()),
        };
        two_phases(&self.client, trans, || first(xa)).await
    }
}

/// An XA transaction under way. Cheap to clone; the clones count their branches together.
#[derive(Debug, Clone)]
pub struct Xa {
    client: Client,
    gid: String,
    ids: Arc<Mutex<BranchIds>>,
    options: Arc<Options>,
}

impl Xa {
    pub fn gid(&self) -> &str {
        &self.gid
    }

    /// Has a branch do its work and prepare it. The same URL is called for the second phase.
    pub async fn call_branch(&self, url: impl AsRef<str>, payload: impl Into<Payload>) -> Result<Reply, BranchError> {
        let branch_id = self.ids.lock().unwrap_or_else(PoisonError::into_inner).next()?;
        let mut call = BranchCall::new("xa", &self.gid, branch_id, op::ACTION)?;
        call.coordinator = Some(self.client.address());
        call.phase2_url = Some(url.as_ref().to_owned());
        let outgoing = Outgoing {
            call: &call,
            url: url.as_ref(),
            payload: payload.into(),
            headers: self.options.headers(),
            reading: Reading::Lenient,
            timeout: self.client.timeout(),
        };
        self.client.call_branch(outgoing).await
    }
}

/// What a call asks of an XA branch. `xid` names its local transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Begin, leave the barrier, work, [`register`](Client::register_xa_branch), prepare.
    Work { xid: String },
    /// Commit what was prepared. It may have been committed already; that is a success.
    Commit { xid: String },
    /// Roll back what was prepared. It may never have been; that is a success, and the barrier must say `rollback` then.
    Rollback { xid: String },
}

impl Phase {
    pub fn of(call: &BranchCall) -> Result<Self, Error> {
        let xid = format!("{}-{}", call.gid, call.branch_id);
        if xid.contains(['\'', '\\']) || xid.chars().any(char::is_control) {
            // It has to be written into a statement: XA takes no parameters.
            return Err(Error::invalid("a gid with quotes, backslashes or control characters names no XA transaction"));
        }
        match call.op.as_str() {
            op::ACTION => Ok(Phase::Work { xid }),
            op::COMMIT => Ok(Phase::Commit { xid }),
            op::ROLLBACK => Ok(Phase::Rollback { xid }),
            other => Err(Error::invalid(format!("`{other}` is nothing that an XA branch is asked"))),
        }
    }
}

/// The statements of a database, for an `xid` out of [`Phase`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// MySQL and MariaDB.
    MySql,
    /// PostgreSQL; its `max_prepared_transactions` must be above 0.
    Postgres,
}

impl Dialect {
    pub fn begin(self, xid: &str) -> String {
        match self {
            Dialect::MySql => format!("XA START '{xid}'"),
            Dialect::Postgres => "BEGIN".to_owned(),
        }
    }

    /// After the work, whether it went well or not.
    pub fn end(self, xid: &str) -> Option<String> {
        match self {
            Dialect::MySql => Some(format!("XA END '{xid}'")),
            Dialect::Postgres => None,
        }
    }

    pub fn prepare(self, xid: &str) -> String {
        match self {
            Dialect::MySql => format!("XA PREPARE '{xid}'"),
            Dialect::Postgres => format!("PREPARE TRANSACTION '{xid}'"),
        }
    }

    /// In place of `prepare`, when the work failed.
    pub fn give_up(self, xid: &str) -> String {
        match self {
            Dialect::MySql => format!("XA ROLLBACK '{xid}'"),
            Dialect::Postgres => "ROLLBACK".to_owned(),
        }
    }

    /// Second phase, on any connection.
    pub fn commit(self, xid: &str) -> String {
        match self {
            Dialect::MySql => format!("XA COMMIT '{xid}'"),
            Dialect::Postgres => format!("COMMIT PREPARED '{xid}'"),
        }
    }

    /// Second phase, on any connection.
    pub fn rollback(self, xid: &str) -> String {
        match self {
            Dialect::MySql => format!("XA ROLLBACK '{xid}'"),
            Dialect::Postgres => format!("ROLLBACK PREPARED '{xid}'"),
        }
    }

    /// An error of the second phase that says: there is no such transaction any more, so all is done.
    pub fn is_gone(self, message: &str) -> bool {
        match self {
            Dialect::MySql => message.contains("XAER_NOTA"),
            Dialect::Postgres => message.contains("does not exist"),
        }
    }
}

impl Client {
    /// In an XA branch, after the work and before [`Dialect::prepare`]: has the second phase called.
    ///
    /// An error means that the transaction is over, or that nobody knows: give up then.
    pub async fn register_xa_branch(&self, call: &BranchCall) -> Result<(), Error> {
        let Some(url) = call.phase2_url.clone() else {
            return Err(Error::invalid("the call names no `phase2_url`: it is not the first phase of an XA branch"));
        };
        let branch = Branch {
            gid: call.gid.clone(),
            trans_type: "xa",
            branch_id: call.branch_id.clone(),
            data: bytes::Bytes::new(),
            fields: BTreeMap::from([("url", url)]),
        };
        self.register(&branch).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_says_which_phase_it_is() {
        let phase = |gid: &str, op: &str| Phase::of(&BranchCall::new("xa", gid, "01", op).unwrap());
        assert_eq!(phase("g", "action").unwrap(), Phase::Work { xid: "g-01".into() });
        assert_eq!(phase("g", "rollback").unwrap(), Phase::Rollback { xid: "g-01".into() });
        assert!(phase("g", "confirm").is_err());
        assert!(phase("g' OR 1", "commit").is_err(), "it would end the text in the statement");
    }
}
