//! XA: databases prepare their local transactions, and commit or roll back together.
//!
//! The caller uses [`XaBuilder::run`]. A service that holds a database handles both phases with `barrier::xa::branch`
//! (feature `barrier-sql`), and registers with [`Client::register_xa_branch`].

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

impl Client {
    /// In an XA branch, after the work and before it is prepared: has the second phase called.
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
