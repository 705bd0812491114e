//! A branch over HTTP: dtm's request and dtm's reading of the answer.

use super::Context;
use super::hosts::{Error, Request};
use crate::domain::trans::{BranchResult, CallSpec, TransType};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use std::sync::{Arc, LazyLock};

/// What every call has; a transaction's own headers may override it.
pub fn headers() -> Arc<HeaderMap> {
    static HEADERS: LazyLock<Arc<HeaderMap>> = LazyLock::new(|| {
        let json = HeaderValue::from_static("application/json");
        let agent = HeaderValue::from_static(concat!("rushline/", env!("CARGO_PKG_VERSION")));
        Arc::new(HeaderMap::from_iter([(CONTENT_TYPE, json.clone()), (ACCEPT, json), (USER_AGENT, agent)]))
    });
    HEADERS.clone()
}

/// A call without a payload is a GET, unless it is a database's second phase or a workflow's callback: these handlers
/// take a POST.
pub fn request(context: &Context, spec: &CallSpec) -> Request {
    let post = !spec.payload.is_empty() || matches!(context.trans_type, TransType::Xa | TransType::Workflow);
    let identity = [
        ("branch_id=", spec.branch_id.as_str()),
        ("&gid=", context.gid.as_str()),
        ("&op=", &spec.op),
        ("&trans_type=", context.trans_type.as_str()),
    ];
    let mut query = String::with_capacity(128);
    for (name, value) in identity {
        query.push_str(name);
        query.extend(url::form_urlencoded::byte_serialize(value.as_bytes()));
    }
    Request {
        method: if post { Method::POST } else { Method::GET },
        query,
        headers: context.headers.clone(),
        body: spec.payload.clone(),
    }
}

pub fn result(answer: Result<(StatusCode, Bytes), Error>) -> BranchResult {
    match answer {
        Ok((status, body)) => read(status, &body),
        Err(error @ Error::NoTurn(_)) => BranchResult::NotCalled(error.to_string()),
        Err(error) => BranchResult::Unknown(error.to_string()),
    }
}

/// First match wins; the words in the body are from before dtm gave the statuses a meaning.
pub fn read(status: StatusCode, body: &[u8]) -> BranchResult {
    let text = || String::from_utf8_lossy(body).trim_end().to_owned();
    if status == StatusCode::TOO_EARLY || contains(body, b"ONGOING") {
        return BranchResult::Ongoing;
    }
    if status == StatusCode::CONFLICT || contains(body, b"FAILURE") {
        return BranchResult::Failure(text());
    }
    if status != StatusCode::OK {
        return BranchResult::Unknown(format!("{status}: {}", text()));
    }
    BranchResult::Success
}

fn contains(body: &[u8], word: &[u8]) -> bool {
    body.windows(word.len()).any(|window| window == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_as_dtm_reads_it() {
        let read = |status: u16, body: &str| read(StatusCode::from_u16(status).unwrap(), body.as_bytes());
        assert_eq!(read(200, ""), BranchResult::Success);
        assert_eq!(read(200, "{\"dtm_result\":\"SUCCESS\"}"), BranchResult::Success);
        assert_eq!(read(425, ""), BranchResult::Ongoing);
        assert_eq!(read(200, "ONGOING FAILURE"), BranchResult::Ongoing);
        assert_eq!(read(409, "no stock"), BranchResult::Failure("no stock".into()));
        assert_eq!(read(500, "x FAILURE"), BranchResult::Failure("x FAILURE".into()));
        for status in [201, 204, 400, 404, 500, 503] {
            assert!(matches!(read(status, ""), BranchResult::Unknown(_)), "{status}");
        }
    }
}
