//! Two-phase messages: a local part, and calls that are made if and only if it happened.

use super::call::{Outgoing, Reading};
use super::coordinator::Verb;
use super::error::{Done, Error, Outcome};
use super::options::{Options, option_setters, seconds};
use super::wire::{Step, Trans};
use super::{Client, Payload};
use crate::branch_call::{BranchCall, op};
use crate::branch_error::BranchError;
use std::future::Future;
use std::time::Duration;

/// The branch id of the message's own, local part.
const OWN: &str = "00";

/// A message being put together.
///
/// ```no_run
/// # async fn run(client: rushline::client::Client) -> Result<(), rushline::client::Error> {
/// use serde_json::json;
///
/// let done = client
///     .msg(client.new_gid().await?)
///     .step("http://stock/take", &json!({ "sku": "a", "quantity": 1 }))
///     .do_and_submit("http://orders/query-prepared", |call| async move {
///         // Write the order, with a barrier made from `call`, in one database transaction.
///         # let _ = call;
///         Ok(42)
///     })
///     .await?;
/// println!("order {:?}; its stock will be taken", done.value);
/// # Ok(()) }
/// ```
#[must_use = "nothing happens before submit"]
#[derive(Debug, Clone)]
pub struct Msg {
    client: Client,
    gid: String,
    steps: Vec<Step>,
    payloads: Vec<Payload>,
    concurrent: bool,
    delay: Duration,
    options: Options,
}

impl Msg {
    pub(crate) fn new(client: Client, gid: String) -> Self {
        Self {
            client,
            gid,
            steps: Vec::new(),
            payloads: Vec::new(),
            concurrent: false,
            delay: Duration::ZERO,
            options: Options::default(),
        }
    }

    /// One more call: an HTTP URL, or a gRPC method (`HOST:PORT/package.Service/Method`).
    pub fn step(mut self, action: impl Into<String>, payload: impl Into<Payload>) -> Self {
        self.steps.push(Step { action: action.into(), compensate: None });
        self.payloads.push(payload.into());
        self
    }

    /// A call of everybody who has subscribed to this topic by the time the message is stored.
    pub fn topic(self, topic: impl AsRef<str>, payload: impl Into<Payload>) -> Self {
        self.step(format!("topic://{}", topic.as_ref()), payload)
    }

    /// Nothing is called until this long after the message was stored; whole seconds, rounded up.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// All steps at once. gRPC has no word for this among dtm's; there it goes along in the message's custom data.
    pub fn concurrent(mut self) -> Self {
        self.concurrent = true;
        self
    }

    option_setters!();

    /// A message without a local part: it is carried out, whatever happens.
    pub async fn submit(self) -> Result<Outcome, Error> {
        let client = self.client.clone();
        client.submit(&self.into_trans(String::new())?).await
    }

    /// Stores the message, undecided. If neither [`Prepared::submit`] nor [`Prepared::abort`] follows within
    /// `timeout_to_fail`, the coordinator asks `query_prepared`.
    pub async fn prepare(self, query_prepared: impl Into<String>) -> Result<Prepared, Error> {
        let query_prepared = query_prepared.into();
        if query_prepared.is_empty() {
            // The coordinator would take it for granted that the local part happened.
            return Err(Error::invalid("a prepared message needs a URL to be asked back at"));
        }
        let client = self.client.clone();
        let trans = self.into_trans(query_prepared)?;
        client.tell(Verb::Prepare, &trans).await?;
        Ok(Prepared { client, trans })
    }

    /// Prepares, runs `local`, and submits or aborts by what came of it.
    ///
    /// `local` is given the identity for its barrier, which must be written in the same local transaction as the rest;
    /// `query_prepared` is answered by the same barrier. What `local` returns decides:
    ///
    /// - `Ok`: the message is submitted.
    /// - [`BranchError::Failure`]: it is aborted, and this is [`Error::Failure`].
    /// - any other error may have come after the commit, so `query_prepared` is asked at once: if it says that the local
    ///   part happened, the message is submitted, and the value is `None`.
    pub async fn do_and_submit<T, F, Fut>(
        self,
        query_prepared: impl Into<String>,
        local: F,
    ) -> Result<Done<Option<T>>, Error>
    where
        F: FnOnce(BranchCall) -> Fut,
        Fut: Future<Output = Result<T, BranchError>>,
    {
        let prepared = self.prepare(query_prepared).await?;
        let call = prepared.call()?;
        match local(call).await {
            Ok(value) => prepared.submit_done(Some(value)).await,
            Err(BranchError::Failure(reason)) => prepared.abort_with(reason).await,
            Err(unclear) => match prepared.check_back().await {
                Ok(()) => prepared.submit_done(None).await,
                Err(BranchError::Failure(_)) => prepared.abort_with(unclear.to_string()).await,
                Err(_) => Err(Error::Undecided { gid: prepared.trans.gid, cause: unclear.to_string() }),
            },
        }
    }

    fn into_trans(self, query_prepared: String) -> Result<Trans, Error> {
        let mut custom = serde_json::Map::new();
        if self.delay > Duration::ZERO {
            custom.insert("delay".into(), seconds(self.delay).into());
        }
        if self.concurrent {
            custom.insert("concurrent".into(), true.into());
        }
        Ok(Trans {
            gid: self.gid,
            trans_type: "msg",
            steps: self.steps,
            payloads: self.payloads.into_iter().map(Payload::into_bytes).collect::<Result<_, _>>()?,
            query_prepared,
            custom_data: if custom.is_empty() { String::new() } else { serde_json::Value::Object(custom).to_string() },
            concurrent: self.concurrent,
            options: self.options,
            ..Trans::default()
        })
    }
}

/// A message that the coordinator has, and that is undecided.
#[must_use = "undecided until it is submitted or aborted, or its time is up"]
#[derive(Debug)]
pub struct Prepared {
    client: Client,
    trans: Trans,
}

impl Prepared {
    /// The identity of the local part, for its barrier.
    pub fn call(&self) -> Result<BranchCall, Error> {
        BranchCall::new("msg", &self.trans.gid, OWN, op::MSG).map_err(Error::invalid)
    }

    /// The local part happened: the steps are carried out.
    pub async fn submit(&self) -> Result<Outcome, Error> {
        self.client.submit(&self.trans).await
    }

    /// The local part did not happen, and will not.
    pub async fn abort(&self) -> Result<(), Error> {
        self.client.tell(Verb::Abort, &self.trans).await
    }

    /// Asks as the coordinator would.
    async fn check_back(&self) -> Result<(), BranchError> {
        let outgoing = Outgoing {
            call: &self.call()?,
            url: &self.trans.query_prepared,
            payload: Payload::empty(),
            headers: self.trans.options.headers(),
            reading: Reading::Lenient,
            timeout: self.client.timeout(),
        };
        self.client.call_branch(outgoing).await.map(|_| ())
    }

    async fn submit_done<T>(self, value: Option<T>) -> Result<Done<Option<T>>, Error> {
        match self.submit().await {
            Ok(outcome) => Ok(Done { outcome, value }),
            Err(cause @ (Error::Unreachable { .. } | Error::Unexpected { .. })) => {
                Err(Error::Unconfirmed { gid: self.trans.gid, cause: Box::new(cause) })
            }
            Err(error) => Err(error),
        }
    }

    async fn abort_with<T>(self, reason: String) -> Result<T, Error> {
        // Unheard, it is found out by the check-back.
        let _ = self.abort().await;
        Err(Error::Failure { reason })
    }
}
