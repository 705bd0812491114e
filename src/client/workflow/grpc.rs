//! The callback over gRPC: [`Workflows`] as the service that the coordinator calls.

use super::Workflows;
use crate::branch_call::BranchCall;
use crate::branch_error::BranchError;
use crate::proto::workflow::WorkflowData;
use crate::proto::workflow::workflow_server::Workflow as Service;
pub use crate::proto::workflow::workflow_server::WorkflowServer;
use tonic::{Request, Response, Status};

/// `WorkflowServer::new(workflows)` is a service for tonic's `Server` or `Routes`.
#[tonic::async_trait]
impl Service for Workflows {
    async fn execute(&self, request: Request<WorkflowData>) -> Result<Response<()>, Status> {
        let (metadata, _, data) = request.into_parts();
        let call = BranchCall::from_headers(&metadata.into_headers()).map_err(BranchError::from)?;
        self.resume_call(&call, data.data).await?;
        Ok(Response::new(()))
    }
}
