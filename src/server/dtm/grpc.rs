//! `dtmgimp.Dtm`: dtm's interface over gRPC. Translates to [`operations`] and [`topics`], and the outcome to a status.
//!
//! The codes that mean something to dtm's clients are ABORTED (a definite no) and FAILED_PRECONDITION (not over yet).
//! Transactions that come in here are of protocol `grpc`: a URL that does not begin with `http` is a gRPC branch.

use super::operations::{self, Refused};
use super::{BODY_BYTES_MAX, gid, topics, trace_of};
use crate::domain::ids::Invalid;
use crate::domain::trans::{Class, Global, Protocol, Refusal, RegisterBranch, TransRequest, TransType};
use crate::proto::dtmgimp::dtm_server::{Dtm, DtmServer};
use crate::proto::dtmgimp::{
    DtmBranchRequest, DtmGidReply, DtmProgress, DtmProgressesReply, DtmRequest, DtmTopicRequest, DtmTransaction,
};
use crate::server::App;
use crate::server::deed::Deed;
use crate::store;
use serde_json::Value;
use std::sync::Arc;
use tonic::{Code, Request, Response, Status};

/// Longest text of a status. It travels in a header, percent-encoded, and clients take 16 KiB of headers.
const MESSAGE_BYTES_MAX: usize = 4_096;

type Answer<T> = Result<Response<T>, Status>;

pub struct Door {
    app: Arc<App>,
}

/// The service, for the routes of a port.
pub fn service(app: Arc<App>) -> DtmServer<Door> {
    DtmServer::new(Door { app }).max_decoding_message_size(BODY_BYTES_MAX)
}

#[tonic::async_trait]
impl Dtm for Door {
    async fn new_gid(&self, _: Request<()>) -> Answer<DtmGidReply> {
        Ok(Response::new(DtmGidReply { gid: gid::new() }))
    }

    async fn submit(&self, request: Request<DtmRequest>) -> Answer<()> {
        let request = read_call(request)?;
        done(operations::submit(&self.app.driver, request).await)
    }

    async fn prepare(&self, request: Request<DtmRequest>) -> Answer<()> {
        let request = read_call(request)?;
        done(operations::prepare(&self.app.driver, request).await)
    }

    async fn abort(&self, request: Request<DtmRequest>) -> Answer<()> {
        let request = read_call(request)?;
        done(operations::abort(&self.app.driver, request).await)
    }

    async fn register_branch(&self, request: Request<DtmBranchRequest>) -> Answer<()> {
        let request = request.into_inner();
        let register = RegisterBranch {
            gid: request.gid,
            trans_type: request.trans_type,
            branch_id: request.branch_id,
            data: request.busi_payload,
            fields: request.data.into_iter().collect(),
        };
        done(operations::register_branch(&self.app.driver, register).await)
    }

    async fn prepare_workflow(&self, request: Request<DtmRequest>) -> Answer<DtmProgressesReply> {
        let request = read_call(request)?;
        match operations::prepare_workflow(&self.app.driver, request).await {
            Ok(global) => Ok(Response::new(progresses(global))),
            Err(refused) => Err(status(&refused)),
        }
    }

    async fn subscribe(&self, request: Request<DtmTopicRequest>) -> Answer<()> {
        let deed = deed_of(&request);
        let DtmTopicRequest { topic, url, remark } = request.into_inner();
        deed.target(&topic);
        topic_done(topics::subscribe(&self.app.driver, &topic, &url, &remark).await)
    }

    async fn unsubscribe(&self, request: Request<DtmTopicRequest>) -> Answer<()> {
        let deed = deed_of(&request);
        let DtmTopicRequest { topic, url, .. } = request.into_inner();
        deed.target(&topic);
        topic_done(topics::unsubscribe(&self.app.driver, &topic, &url).await)
    }

    async fn delete_topic(&self, request: Request<DtmTopicRequest>) -> Answer<()> {
        let deed = deed_of(&request);
        let topic = request.into_inner().topic;
        deed.target(&topic);
        topic_done(topics::delete(&self.app.driver, &topic).await)
    }
}

/// Topics are the operators'.
fn deed_of<T>(request: &Request<T>) -> Deed {
    request.extensions().get().cloned().unwrap_or_default()
}

/// As [`read`], with the trace that the call belongs to.
fn read_call(request: Request<DtmRequest>) -> Result<TransRequest, Status> {
    let (metadata, _, message) = request.into_parts();
    let trace = trace_of(&metadata.into_headers());
    Ok(TransRequest { trace, ..read(message).map_err(invalid)? })
}

/// The transaction that a message is about.
pub fn read(request: DtmRequest) -> Result<TransRequest, Invalid> {
    let (steps, old_payloads) = TransRequest::steps_from_json(&request.steps)?;
    let mut payloads = request.bin_payloads;
    payloads.extend(old_payloads);
    let options = request.trans_options.unwrap_or_default();
    // dtm has no field for it here, so there a concurrent message can only come by HTTP.
    let concurrent = request.trans_type == TransType::Msg.as_str() && asks_for_concurrency(&request.customed_data);
    Ok(TransRequest {
        gid: request.gid,
        trans_type: request.trans_type,
        steps,
        payloads,
        query_prepared: request.query_prepared,
        protocol: Protocol::Grpc.as_str().to_owned(),
        custom_data: request.customed_data,
        rollback_reason: request.rollback_reason,
        req_extra: request.req_extra.into_iter().collect(),
        wait_result: options.wait_result,
        timeout_to_fail: options.timeout_to_fail,
        request_timeout: options.request_timeout,
        retry_interval: options.retry_interval,
        retry_limit: options.retry_limit,
        branch_headers: options.branch_headers.into_iter().collect(),
        concurrent,
        trace: None,
    })
}

/// `{"concurrent":true}`. What is no JSON is for the rules to refuse.
fn asks_for_concurrency(custom_data: &str) -> bool {
    serde_json::from_str(custom_data).is_ok_and(|value: Value| value["concurrent"] == true)
}

/// With the result, which dtm forgets: a finished workflow that is run again then has nothing to return.
fn progresses(global: Global) -> DtmProgressesReply {
    let progresses = global.branches.into_iter().map(|branch| DtmProgress {
        status: branch.status.as_str().to_owned(),
        bin_data: branch.payload,
        branch_id: branch.branch_id,
        op: branch.op.as_str().to_owned(),
    });
    DtmProgressesReply {
        progresses: progresses.collect(),
        transaction: Some(DtmTransaction {
            gid: global.gid.to_string(),
            status: global.status.as_str().to_owned(),
            rollback_reason: global.rollback_reason,
            result: global.result,
        }),
    }
}

fn done(result: Result<(), Refused>) -> Answer<()> {
    result.map(Response::new).map_err(|refused| status(&refused))
}

/// dtm returns these errors where it panics over the others.
fn topic_done(result: Result<(), Refused>) -> Answer<()> {
    result.map(Response::new).map_err(|refused| match refused {
        Refused::Refusal(Refusal::StorageNotFound) => Status::unknown(refused.to_string()),
        refused => status(&refused),
    })
}

fn invalid(invalid: Invalid) -> Status {
    status(&invalid.into())
}

fn status(refused: &Refused) -> Status {
    let code = match (refused, refused.class()) {
        // Every call may be repeated, and some clients do so by themselves on this one.
        (Refused::Store(store::Error::NoAnswer(_) | store::Error::Refused { .. } | store::Error::NotDurable(_)), _) => {
            Code::Unavailable
        }
        // What dtm panics over.
        (Refused::Refusal(Refusal::NotFound(_) | Refusal::StorageNotFound | Refusal::TopicNotFound), _) => {
            Code::Internal
        }
        (_, Some(Class::Failure)) => Code::Aborted,
        (_, Some(Class::Ongoing)) => Code::FailedPrecondition,
        (_, Some(Class::Invalid)) => Code::InvalidArgument,
        (_, Some(Class::Other)) => Code::Unknown,
        (_, None) => Code::Unimplemented,
    };
    let text = refused.to_string();
    Status::new(code, &text[..text.floor_char_boundary(MESSAGE_BYTES_MAX)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_the_code_that_clients_go_by() {
        let code = |refusal: Refusal| status(&refusal.into()).code();
        assert_eq!(code(Refusal::WaitNotSuccess), Code::Aborted);
        assert_eq!(code(Refusal::Ongoing("wait".into())), Code::FailedPrecondition);
        assert_eq!(code(Refusal::UniqueKeyConflict), Code::Unknown);
        assert_eq!(code(Refusal::TopicNotFound), Code::Internal);
        assert_eq!(code(Invalid::new("gid", "is wrong").into()), Code::InvalidArgument);
        assert_eq!(topic_done(Err(Refusal::StorageNotFound.into())).unwrap_err().code(), Code::Unknown);
        let unreachable = Refused::Store(store::Error::NoAnswer("gone".into()));
        assert_eq!(status(&unreachable).code(), Code::Unavailable);
        let long = status(&Refusal::Reason("é".repeat(10_000)).into());
        assert!(long.message().len() <= MESSAGE_BYTES_MAX, "{}", long.message().len());
    }

    #[test]
    fn a_message_may_ask_for_concurrency_in_its_custom_data() {
        let read = |trans_type: &str, custom_data: &str| {
            let (trans_type, customed_data) = (trans_type.to_owned(), custom_data.to_owned());
            read(DtmRequest { trans_type, customed_data, ..Default::default() }).unwrap().concurrent
        };
        assert!(read("msg", r#"{"delay":1,"concurrent":true}"#));
        assert!(!read("saga", r#"{"concurrent":true}"#), "a saga reads it where it always did");
        assert!(!read("msg", "") && !read("msg", "{") && !read("msg", r#"{"concurrent":1}"#));
    }
}
