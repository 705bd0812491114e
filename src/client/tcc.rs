//! TCC: every branch is tried now, and confirmed or cancelled later, all alike.

use super::answer::Reply;
use super::call::{BranchIds, Outgoing, Reading};
use super::coordinator::Verb;
use super::error::{Done, Error};
use super::options::{Options, option_setters};
use super::wire::{Branch, Trans};
use super::{Client, Payload};
use crate::branch_call::{BranchCall, op};
use crate::branch_error::BranchError;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

/// A TCC transaction before it begins.
///
/// ```no_run
/// # async fn run(client: rushline::client::Client) -> Result<(), rushline::client::Error> {
/// use serde_json::json;
///
/// let seats = json!({ "seats": 2 });
/// client
///     .tcc(client.new_gid().await?)
///     .run(|tcc| async move {
///         tcc.call_branch("http://hotel/try", "http://hotel/confirm", "http://hotel/cancel", &seats).await?;
///         tcc.call_branch("http://train/try", "http://train/confirm", "http://train/cancel", &seats).await?;
///         Ok(())
///     })
///     .await?;
/// # Ok(()) }
/// ```
#[must_use = "nothing happens before run"]
#[derive(Debug, Clone)]
pub struct TccBuilder {
    client: Client,
    gid: String,
    options: Options,
}

impl TccBuilder {
    pub(crate) fn new(client: Client, gid: String) -> Self {
        Self { client, gid, options: Options::default() }
    }

    option_setters!();

    /// Begins, runs `tries`, then has everything confirmed (`Ok`) or cancelled (any error).
    ///
    /// If this process dies, or drops the future, everything is cancelled after `timeout_to_fail`.
    pub async fn run<T, F, Fut>(self, tries: F) -> Result<Done<T>, Error>
    where
        F: FnOnce(Tcc) -> Fut,
        Fut: Future<Output = Result<T, BranchError>>,
    {
        let trans = Trans { gid: self.gid, trans_type: "tcc", options: self.options, ..Trans::default() };
        let tcc = Tcc::new(self.client.clone(), &trans.gid, "", trans.options.clone());
        two_phases(&self.client, trans, || tries(tcc)).await
    }
}

/// Prepare; then submit or abort, by what `first` comes to. The same for TCC and XA.
pub(crate) async fn two_phases<T, Fut>(
    client: &Client,
    mut trans: Trans,
    first: impl FnOnce() -> Fut,
) -> Result<Done<T>, Error>
where
    Fut: Future<Output = Result<T, BranchError>>,
{
    client.tell(Verb::Prepare, &trans).await?;
    match first().await {
        Ok(value) => match client.submit(&trans).await {
            Ok(outcome) => Ok(Done { outcome, value }),
            // No abort after it: the submit may have arrived.
            Err(cause @ (Error::Unreachable { .. } | Error::Unexpected { .. })) => {
                Err(Error::Unconfirmed { gid: trans.gid, cause: Box::new(cause) })
            }
            Err(error) => Err(error),
        },
        Err(error) => {
            trans.rollback_reason = error.to_string();
            // Unheard, it is rolled back when its time is up.
            let _ = client.tell(Verb::Abort, &trans).await;
            Err(Error::Failure { reason: trans.rollback_reason })
        }
    }
}

/// A TCC transaction under way. Cheap to clone; the clones count their branches together.
#[derive(Debug, Clone)]
pub struct Tcc {
    client: Client,
    gid: String,
    ids: Arc<Mutex<BranchIds>>,
    options: Arc<Options>,
}

impl Tcc {
    fn new(client: Client, gid: &str, parent: &str, options: Options) -> Self {
        let ids = Arc::new(Mutex::new(BranchIds::below(parent)));
        Self { client, gid: gid.to_owned(), ids, options: Arc::new(options) }
    }

    /// Inside a try: further branches of the same transaction, below the one that is being tried.
    ///
    /// Only a try can have them; it is the one call that the client makes, and that names the coordinator.
    pub fn nested(client: &Client, call: &BranchCall) -> Result<Self, Error> {
        if call.trans_type != "tcc" || call.op != op::TRY {
            return Err(Error::invalid(format!("{} of {} is no try", call.op, call.trans_type)));
        }
        Ok(Self::new(client.clone(), &call.gid, &call.branch_id, Options::default()))
    }

    pub fn gid(&self) -> &str {
        &self.gid
    }

    /// Registers a branch, so that it is confirmed or cancelled whatever happens from here on, and tries it.
    ///
    /// An error is to be returned from the closure, so that everything is cancelled.
    pub async fn call_branch(
        &self,
        r#try: impl AsRef<str>,
        confirm: impl Into<String>,
        cancel: impl Into<String>,
        payload: impl Into<Payload>,
    ) -> Result<Reply, BranchError> {
        let payload = payload.into();
        let branch_id = self.ids.lock().unwrap_or_else(PoisonError::into_inner).next()?;
        let branch = Branch {
            gid: self.gid.clone(),
            trans_type: "tcc",
            branch_id: branch_id.clone(),
            data: payload.clone().into_bytes()?,
            fields: BTreeMap::from([("confirm", confirm.into()), ("cancel", cancel.into())]),
        };
        self.client.register(&branch).await?;
        let mut call = BranchCall::new("tcc", &self.gid, branch_id, op::TRY)?;
        call.coordinator = Some(self.client.address());
        let outgoing = Outgoing {
            call: &call,
            url: r#try.as_ref(),
            payload,
            headers: self.options.headers(),
            reading: Reading::Lenient,
            timeout: self.client.timeout(),
        };
        self.client.call_branch(outgoing).await
    }
}
