//! One step of a workflow, and what is to be done about it at the end.

use super::run::Workflow;
use crate::branch_call::{BranchCall, op};
use crate::branch_error::BranchError;
use crate::client::answer::Reply;
use crate::client::call::{Outgoing, Reading};
use crate::client::{Client, Payload};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::future::Future;

pub(super) struct Callback {
    pub branch_id: String,
    pub op: &'static str,
    pub work: Box<dyn FnOnce(Step) -> BoxFuture<'static, Result<(), BranchError>> + Send>,
}

/// One step, not run yet. Say what undoes it before it is run: it may happen even if its answer is lost.
#[must_use = "nothing happens before it is run"]
pub struct Branch {
    workflow: Workflow,
    id: String,
}

impl Branch {
    pub(super) fn new(workflow: Workflow, id: String) -> Self {
        Self { workflow, id }
    }

    pub fn branch_id(&self) -> &str {
        &self.id
    }

    /// Done if the workflow fails: what undoes this step. It may be asked to undo what never happened.
    pub fn on_rollback<F, Fut>(self, work: F) -> Self
    where
        F: FnOnce(Step) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), BranchError>> + Send + 'static,
    {
        self.on(op::ROLLBACK, work)
    }

    /// Done if the workflow succeeds: TCC's confirm.
    pub fn on_commit<F, Fut>(self, work: F) -> Self
    where
        F: FnOnce(Step) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), BranchError>> + Send + 'static,
    {
        self.on(op::COMMIT, work)
    }

    /// TCC's word for [`Branch::on_rollback`].
    pub fn on_cancel<F, Fut>(self, work: F) -> Self
    where
        F: FnOnce(Step) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), BranchError>> + Send + 'static,
    {
        self.on_rollback(work)
    }

    fn on<F, Fut>(self, op: &'static str, work: F) -> Self
    where
        F: FnOnce(Step) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), BranchError>> + Send + 'static,
    {
        let work = Box::new(move |step| -> BoxFuture<'static, _> { Box::pin(work(step)) });
        self.workflow.run.add_callback(Callback { branch_id: self.id.clone(), op, work });
        self
    }

    /// Runs the step here; the bytes that it returns are kept. [`Step::call`] is the identity for its barrier.
    pub async fn run<F, Fut>(self, work: F) -> Result<Bytes, BranchError>
    where
        F: FnOnce(Step) -> Fut,
        Fut: Future<Output = Result<Bytes, BranchError>>,
    {
        let step = Step::new(&self.workflow, &self.id, op::ACTION)?;
        let run = &self.workflow.run;
        let result = run.recorded(&self.id, op::ACTION, || work(step)).await;
        if matches!(&result, Err(BranchError::Failure(_))) && !run.settings.compensate_failed {
            run.drop_rollback(&self.id); // it refused, so there is nothing to undo
        }
        result
    }

    /// Posts to an HTTP service; its answer is kept. 409 is a failure, 425 ongoing, 200 a success.
    pub async fn post(self, url: impl Into<String>, payload: impl Into<Payload>) -> Result<Reply, BranchError> {
        let (url, payload) = (url.into(), payload.into());
        let reply = self.run(|step| async move { step.post(url, payload).await.map(Reply::into_bytes) }).await?;
        Ok(Reply::new(reply))
    }

    /// Calls a gRPC method (`HOST:PORT/package.Service/Method`); its answer is kept.
    pub async fn call<M>(self, method: impl Into<String>, message: &impl prost::Message) -> Result<M, BranchError>
    where
        M: prost::Message + Default,
    {
        self.post(method, Payload::message(message)).await?.message()
    }
}

/// A step that is being run, or its end: who it is, and calls in its name.
#[derive(Clone)]
pub struct Step {
    client: Client,
    call: BranchCall,
    headers: http::HeaderMap,
}

impl Step {
    pub(crate) fn new(workflow: &Workflow, branch_id: &str, op: &str) -> Result<Self, BranchError> {
        let run = &workflow.run;
        let call = BranchCall::new("workflow", &run.gid, branch_id, op)?;
        Ok(Self { client: run.client.clone(), call, headers: run.settings.options.headers() })
    }

    /// The identity of this step, for its barrier.
    pub fn call(&self) -> &BranchCall {
        &self.call
    }

    /// Calls a service in this step's name: HTTP, or a gRPC method with [`Payload::message`].
    pub async fn post(&self, url: impl AsRef<str>, payload: impl Into<Payload>) -> Result<Reply, BranchError> {
        let outgoing = Outgoing {
            call: &self.call,
            url: url.as_ref(),
            payload: payload.into(),
            headers: self.headers.clone(),
            reading: Reading::Status,
            timeout: self.client.timeout(),
        };
        self.client.call_branch(outgoing).await
    }
}
