//! Workflows: a function that the coordinator has continued until it ends, whatever dies meanwhile.
//!
//! The function runs here. What each of its steps came to is kept by the coordinator; when the process dies, the
//! coordinator calls back, the function runs again from the top, and steps that ended are not run but read back. So the
//! function must take its steps in the same order every time, and do nothing outside of them that matters.
//!
//! [`Workflows`] knows the functions by name, [`Workflow`] is one run, [`Branch`] one step of it.

mod branch;
mod grpc;
mod run;

pub use branch::{Branch, Step};
pub use grpc::WorkflowServer;
pub use run::Workflow;

use super::Client;
use super::error::Error;
use crate::branch_call::BranchCall;
use crate::branch_error::BranchError;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::StatusCode;
use run::Settings;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

type Handler = Arc<dyn Fn(Workflow, Bytes) -> BoxFuture<'static, Result<Bytes, BranchError>> + Send + Sync>;

/// The workflows that this process can run, by name. Cheap to clone once all are registered.
///
/// ```no_run
/// # async fn run(client: rushline::client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use rushline::client::Bytes;
///
/// let workflows = client.workflows("http://me:8080/workflows").register("transfer", |wf, input| async move {
///     let amount: u32 = serde_json::from_slice(&input)?;
///     wf.branch()?
///         .on_rollback(move |step| async move { step.post("http://bank-a/out-undo", &amount).await.map(|_| ()) })
///         .post("http://bank-a/out", &amount)
///         .await?;
///     wf.branch()?.post("http://bank-b/in", &amount).await?;
///     Ok(Bytes::from_static(b"done"))
/// })?;
///
/// let result = workflows.execute("transfer", client.new_gid().await?, "30").await?;
/// # let (query, body) = ("", Bytes::new());
/// // And in the handler of POST /workflows, so that what was interrupted goes on:
/// let (status, body) = workflows.resume(query, body).await;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Workflows {
    client: Client,
    callback: String,
    handlers: HashMap<String, Handler>,
    settings: Settings,
}

impl fmt::Debug for Workflows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workflows").field("callback", &self.callback).field("names", &self.handlers.keys()).finish()
    }
}

impl Workflows {
    pub(crate) fn new(client: Client, callback: String) -> Self {
        Self { client, callback, handlers: HashMap::new(), settings: Settings::default() }
    }

    /// Makes a function known. It must stay known under this name until all its runs have ended.
    pub fn register<F, Fut>(mut self, name: impl Into<String>, handler: F) -> Result<Self, Error>
    where
        F: Fn(Workflow, Bytes) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Bytes, BranchError>> + Send + 'static,
    {
        let name = name.into();
        if name.is_empty() || self.handlers.contains_key(&name) {
            return Err(Error::invalid(format!("a workflow `{name}` is registered already, or its name is empty")));
        }
        let handler: Handler = Arc::new(move |workflow, input| Box::pin(handler(workflow, input)));
        self.handlers.insert(name, handler);
        Ok(self)
    }

    /// How long after its begin, or its last try, an unfinished run is called back; whole seconds, rounded up.
    pub fn retry_interval(mut self, interval: Duration) -> Self {
        self.settings.options.retry_interval = super::options::seconds(interval);
        self
    }

    /// For calls that the steps make; see [`Branch::post`].
    pub fn branch_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.options.branch_headers.insert(name.into(), value.into());
        self
    }

    /// Keeps the rollback of the step that itself failed. For steps whose failure may hide that they happened.
    pub fn compensate_failed_branch(mut self) -> Self {
        self.settings.compensate_failed = true;
        self
    }

    /// Runs a workflow, or goes on with it, or reads its result back: the gid says which.
    ///
    /// [`Error::Failure`]: it is rolled back. [`Error::Interrupted`]: it will be continued by a callback.
    pub async fn execute(&self, name: &str, gid: impl Into<String>, input: impl Into<Bytes>) -> Result<Bytes, Error> {
        let handler = self.handlers.get(name).ok_or_else(|| {
            Error::invalid(format!("there is no workflow `{name}`; register it before anything is executed or resumed"))
        })?;
        run::execute(&self.client, &self.callback, &self.settings, name, handler, gid.into(), input.into()).await
    }

    /// For the handler of the callback URL: goes on with the run that the coordinator names.
    pub async fn resume(&self, query: &str, body: impl Into<Bytes>) -> (StatusCode, String) {
        let resumed = match BranchCall::from_query(query) {
            Ok(call) => self.resume_call(&call, body.into()).await,
            Err(error) => Err(error.into()),
        };
        super::answer(resumed)
    }

    /// Goes on with the run that `call` names, however it came in.
    ///
    /// A run that is rolled back has ended well for the coordinator, so that is a success too.
    pub async fn resume_call(&self, call: &BranchCall, input: Bytes) -> Result<(), BranchError> {
        match self.execute(&call.op, call.gid.as_str(), input).await {
            Ok(_) | Err(Error::Failure { .. }) => Ok(()),
            Err(Error::Interrupted { cause: BranchError::Ongoing(reason), .. }) => Err(BranchError::Ongoing(reason)),
            Err(error) => Err(error.into()),
        }
    }
}
