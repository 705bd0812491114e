//! A branch over JSON-RPC 2.0. Unlike dtm, the codes of the answer are honoured (its comparison never matches, so a
//! refusal was called again for ever).

use super::hosts::{Error, Request};
use super::{Context, http};
use crate::domain::trans::{BranchResult, CallSpec};
use ::http::{Method, StatusCode};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

const FAILURE: i64 = -32901;
const ONGOING: i64 = -32902;

/// The payload's object with the transaction's parameters in it. No payload is an empty object.
pub fn request(context: &Context, spec: &CallSpec, url: &str) -> Result<Request, String> {
    let mut params: Map<String, Value> = match spec.payload.as_ref() {
        b"" | b"null" => Map::new(),
        payload => serde_json::from_slice(payload)
            .map_err(|error| format!("the payload of a JSON-RPC branch must be a JSON object: {error}"))?,
    };
    params.insert("gid".into(), context.gid.as_str().into());
    params.insert("trans_type".into(), context.trans_type.as_str().into());
    params.insert("branch_id".into(), spec.branch_id.as_str().into());
    params.insert("op".into(), spec.op.as_str().into());
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let method = url::form_urlencoded::parse(query.as_bytes())
        .find(|(name, _)| name == "method")
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default();
    // The id is of no use to us, one answer comes per call; it must be there, or it would be a notification.
    let id = format!("{}-{}-{}", context.gid, spec.branch_id, spec.op);
    let body = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
    Ok(Request {
        method: Method::POST,
        query: String::new(),
        headers: context.headers.clone(),
        body: serde_json::to_vec(&body).expect("it is JSON already").into(),
    })
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    error: Option<Problem>,
}

#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
}

pub fn result(answer: Result<(StatusCode, Bytes), Error>) -> BranchResult {
    let (status, body) = match answer {
        Ok(answer) => answer,
        Err(error @ Error::NoTurn(_)) => return BranchResult::NotCalled(error.to_string()),
        Err(error) => return BranchResult::Unknown(error.to_string()),
    };
    // The codes first: they are exact, the words may stand in any text.
    match serde_json::from_slice::<Answer>(&body) {
        Ok(Answer { error: Some(problem) }) if problem.code == FAILURE => BranchResult::Failure(problem.message),
        Ok(Answer { error: Some(problem) }) if problem.code == ONGOING => BranchResult::Ongoing,
        Ok(Answer { error: Some(problem) }) => match http::read(status, &body) {
            BranchResult::Success => BranchResult::Unknown(format!("{} {}", problem.code, problem.message)),
            other => other,
        },
        _ => http::read(status, &body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_count() {
        let read = |body: &str| result(Ok((StatusCode::OK, Bytes::copy_from_slice(body.as_bytes()))));
        assert_eq!(read(r#"{"jsonrpc":"2.0","id":"1","result":{}}"#), BranchResult::Success);
        assert_eq!(read(r#"{"error":null,"result":{}}"#), BranchResult::Success);
        assert_eq!(read(r#"{"error":{"code":-32901,"message":"no"}}"#), BranchResult::Failure("no".into()));
        assert_eq!(read(r#"{"error":{"code":-32902,"message":"wait"}}"#), BranchResult::Ongoing);
        assert!(matches!(read(r#"{"error":{"code":-32603,"message":"x"}}"#), BranchResult::Unknown(_)));
        assert!(matches!(read(r#"{"error":{"code":-32603,"message":"FAILURE"}}"#), BranchResult::Failure(_)));
    }
}
