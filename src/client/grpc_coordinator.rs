//! The coordinator's calls over gRPC: the same as [`super::coordinator`] says over HTTP.

use super::Client;
use super::coordinator::Verb;
use super::error::Error;
use super::wire::{Branch, Progress, ProgressTransaction, Progresses, Trans};
use crate::proto::dtmgimp as proto;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::HeaderMap;
use proto::dtm_client::DtmClient;
use std::future::Future;
use std::time::Duration;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

impl Client {
    fn dtm(&self, server: &str) -> Result<DtmClient<Channel>, Error> {
        self.grpc_pool().channel(server).map(DtmClient::new)
    }

    fn request<M>(&self, message: M, timeout: Duration) -> Request<M> {
        let mut request = Request::new(message);
        *request.metadata_mut() = MetadataMap::from_headers(self.authorized(HeaderMap::new()));
        request.set_timeout(timeout);
        request
    }

    pub(crate) async fn grpc_new_gid(&self, server: &str) -> Result<String, Error> {
        let mut dtm = self.dtm(server)?;
        let reply = heard(server, self.timeout(), dtm.new_gid(self.request((), self.timeout()))).await?;
        Ok(reply.gid)
    }

    pub(crate) async fn grpc_tell(
        &self,
        server: &str,
        verb: Verb,
        trans: &Trans,
        timeout: Duration,
    ) -> Result<(), Error> {
        let mut dtm = self.dtm(server)?;
        let request = self.request(to_proto(trans)?, timeout);
        match verb {
            Verb::Prepare => heard(server, timeout, dtm.prepare(request)).await,
            Verb::Submit => heard(server, timeout, dtm.submit(request)).await,
            Verb::Abort => heard(server, timeout, dtm.abort(request)).await,
        }
    }

    pub(crate) async fn grpc_register(&self, server: &str, branch: &Branch) -> Result<(), Error> {
        let mut dtm = self.dtm(server)?;
        let message = proto::DtmBranchRequest {
            gid: branch.gid.clone(),
            trans_type: branch.trans_type.to_owned(),
            branch_id: branch.branch_id.clone(),
            op: String::new(), // it travels among the data, as dtm's own client has it
            data: branch.fields.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
            busi_payload: branch.data.clone(),
        };
        heard(server, self.timeout(), dtm.register_branch(self.request(message, self.timeout()))).await
    }

    pub(crate) async fn grpc_prepare_workflow(&self, server: &str, trans: &Trans) -> Result<Progresses, Error> {
        let mut dtm = self.dtm(server)?;
        let request = self.request(to_proto(trans)?, self.timeout());
        let reply = heard(server, self.timeout(), dtm.prepare_workflow(request)).await?;
        let transaction = reply.transaction.unwrap_or_default();
        let result = BASE64.decode(&transaction.result).map_err(|error| Error::Unexpected {
            code: "OK".into(),
            message: format!("a stored result that is no base64: {error}"),
        })?;
        Ok(Progresses {
            transaction: ProgressTransaction {
                status: transaction.status,
                rollback_reason: transaction.rollback_reason,
                result: result.into(),
            },
            progresses: reply.progresses.into_iter().map(from_proto).collect(),
        })
    }

    pub(crate) async fn grpc_topic(
        &self,
        server: &str,
        verb: &'static str,
        topic: &str,
        url: &str,
        remark: &str,
    ) -> Result<(), Error> {
        let mut dtm = self.dtm(server)?;
        let message = proto::DtmTopicRequest { topic: topic.into(), url: url.into(), remark: remark.into() };
        let request = self.request(message, self.timeout());
        match verb {
            "Subscribe" => heard(server, self.timeout(), dtm.subscribe(request)).await,
            "Unsubscribe" => heard(server, self.timeout(), dtm.unsubscribe(request)).await,
            _ => heard(server, self.timeout(), dtm.delete_topic(request)).await,
        }
    }
}

async fn heard<M>(
    server: &str,
    timeout: Duration,
    call: impl Future<Output = Result<Response<M>, Status>>,
) -> Result<M, Error> {
    match tokio::time::timeout(timeout, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(meaning(server, &status)),
        Err(_) => Err(Error::Unreachable {
            url: server.to_owned(),
            cause: format!("no answer within {} ms", timeout.as_millis()),
        }),
    }
}

fn meaning(server: &str, status: &Status) -> Error {
    let message = status.message().to_owned();
    match status.code() {
        Code::Aborted => Error::Refused(message),
        Code::InvalidArgument => Error::Invalid(message),
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => {
            Error::Unreachable { url: server.to_owned(), cause: message }
        }
        code => Error::Unexpected { code: format!("{code:?}"), message },
    }
}

fn to_proto(trans: &Trans) -> Result<proto::DtmRequest, Error> {
    let options = &trans.options;
    Ok(proto::DtmRequest {
        gid: trans.gid.clone(),
        trans_type: trans.trans_type.to_owned(),
        trans_options: Some(proto::DtmTransOptions {
            wait_result: options.wait_result,
            timeout_to_fail: options.timeout_to_fail,
            retry_interval: options.retry_interval,
            branch_headers: options.branch_headers.clone().into_iter().collect(),
            request_timeout: options.request_timeout,
            retry_limit: options.retry_limit,
        }),
        customed_data: trans.custom_data.clone(),
        bin_payloads: trans.payloads.clone(),
        query_prepared: trans.query_prepared.clone(),
        steps: serde_json::to_string(&trans.steps).map_err(Error::invalid)?,
        req_extra: trans.req_extra.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
        rollback_reason: trans.rollback_reason.clone(),
    })
}

fn from_proto(progress: proto::DtmProgress) -> Progress {
    Progress { branch_id: progress.branch_id, op: progress.op, status: progress.status, data: progress.bin_data }
}
