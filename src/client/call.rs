//! Calls of branches that the client makes itself: a try, an XA action, a step of a workflow, its own check-back.

use super::answer::{self, Reply};
use super::error::Error;
use super::grpc::Target;
use super::http;
use super::{Client, Payload};
use crate::branch_call::BranchCall;
use crate::branch_error::BranchError;
use ::http::{HeaderMap, HeaderName, HeaderValue, Method};
use std::time::Duration;
use tonic::metadata::MetadataMap;

/// How an HTTP answer is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// By the status, and by old words in the body.
    Lenient,
    /// By the status alone.
    Status,
}

pub(crate) struct Outgoing<'a> {
    pub call: &'a BranchCall,
    pub url: &'a str,
    pub payload: Payload,
    /// The transaction's `branch_headers`.
    pub headers: HeaderMap,
    pub reading: Reading,
    pub timeout: Duration,
}

impl Client {
    pub(crate) async fn call_branch(&self, outgoing: Outgoing<'_>) -> Result<Reply, BranchError> {
        if outgoing.url.is_empty() {
            return Ok(Reply::default()); // nothing to do is done
        }
        if outgoing.url.starts_with("http://") || outgoing.url.starts_with("https://") {
            self.call_http(outgoing).await
        } else {
            self.call_grpc(outgoing).await
        }
    }

    async fn call_http(&self, outgoing: Outgoing<'_>) -> Result<Reply, BranchError> {
        let mut url = http::parse(outgoing.url)?;
        url.query_pairs_mut().extend_pairs(identity(outgoing.call));
        let body = outgoing.payload.into_bytes()?;
        let checks_back = outgoing.call.op == crate::branch_call::op::MSG;
        let method = if checks_back { Method::GET } else { Method::POST };
        let answer = self.http_pool().send(method, &url, outgoing.headers, body, outgoing.timeout).await?;
        match outgoing.reading {
            Reading::Lenient => answer::read_answer(answer.status, answer.body),
            Reading::Status => answer::read_status(answer.status, answer.body),
        }
    }

    async fn call_grpc(&self, outgoing: Outgoing<'_>) -> Result<Reply, BranchError> {
        let target = Target::parse(outgoing.url)?;
        let mut headers = outgoing.headers;
        for (name, value) in identity(outgoing.call) {
            headers.insert(HeaderName::try_from(format!("dtm-{name}"))?, metadata(name, value)?);
        }
        let message = outgoing.payload.into_bytes()?;
        let metadata = MetadataMap::from_headers(headers);
        let reply = self.grpc_pool().unary(target.server, target.method, metadata, message, outgoing.timeout).await?;
        Ok(Reply::new(reply))
    }
}

fn metadata(name: &str, value: &str) -> Result<HeaderValue, Error> {
    HeaderValue::try_from(value).map_err(|_| Error::invalid(format!("{name} `{value}` cannot travel as gRPC metadata")))
}

/// The parts of an identity by their names on the wire.
fn identity(call: &BranchCall) -> Vec<(&'static str, &str)> {
    let mut pairs = vec![
        ("gid", call.gid.as_str()),
        ("trans_type", &call.trans_type),
        ("branch_id", &call.branch_id),
        ("op", &call.op),
    ];
    pairs.extend(call.coordinator.as_deref().map(|address| ("dtm", address)));
    pairs.extend(call.phase2_url.as_deref().map(|url| ("phase2_url", url)));
    pairs
}

/// Branch ids under one parent: two digits each, as dtm counts.
#[derive(Debug)]
pub(crate) struct BranchIds {
    parent: String,
    last: u32,
}

/// dtm's limits.
const CHILDREN_MAX: u32 = 99;
const PARENT_BYTES_MAX: usize = 20;

impl BranchIds {
    pub fn below(parent: impl Into<String>) -> Self {
        Self { parent: parent.into(), last: 0 }
    }

    pub fn next(&mut self) -> Result<String, Error> {
        if self.last >= CHILDREN_MAX {
            return Err(Error::invalid(format!("a transaction has {CHILDREN_MAX} branches at most")));
        }
        if self.parent.len() >= PARENT_BYTES_MAX {
            return Err(Error::invalid("branches are nested too deep"));
        }
        self.last += 1;
        Ok(format!("{}{:02}", self.parent, self.last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_are_counted_as_dtm_counts() {
        let mut ids = BranchIds::below("02");
        assert_eq!((ids.next().unwrap(), ids.next().unwrap()), ("0201".into(), "0202".into()));
        let mut many = BranchIds::below("");
        for _ in 0..99 {
            many.next().unwrap();
        }
        assert!(many.next().is_err());
        assert!(BranchIds::below("01020304050607080910").next().is_err());
    }
}
