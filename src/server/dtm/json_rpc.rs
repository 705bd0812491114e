//! `POST /api/json-rpc`: JSON-RPC 2.0 as dtm speaks it. One object a request; the id must be a string.

use super::operations::{self, Refused};
use super::{gid, json};
use crate::domain::trace::TraceContext;
use crate::domain::trans::{Class, RegisterBranch, TransRequest};
use crate::server::App;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::borrow::Cow;

/// Longest part of a bad request that is said again; dtm says all of it.
const SHOWN_BYTES_MAX: usize = 1024;

const PARSE_ERROR: i64 = -32700;
const INVALID_REQUEST: i64 = -32600;
const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;
const INTERNAL: i64 = -32603;
const FAILURE: i64 = -32901;
/// In the range that is left to servers.
const DENIED: i64 = -32001;

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(default, borrow)]
    jsonrpc: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    params: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct Answer<'a> {
    error: Option<Problem>,
    id: &'a str,
    jsonrpc: &'static str,
    result: Value,
}

#[derive(Serialize)]
struct Problem {
    code: i64,
    message: String,
}

/// The transaction that a good request is about: what [`answer`] reads before it does anything.
pub fn decode(body: &[u8]) -> Option<TransRequest> {
    let request: Request<'_> = serde_json::from_slice(body).ok()?;
    TransRequest::from_json(request.params?.get().as_bytes()).ok()
}

pub async fn answer(app: &App, body: &[u8], trace: Option<TraceContext>) -> Response {
    let unreadable = |what: &str| {
        let problem = Problem { code: PARSE_ERROR, message: format!("Parse json error: {what}") };
        word(StatusCode::BAD_REQUEST, "", Err(problem))
    };
    // serde takes a list for a struct too; here it would be a batch, which dtm does not know.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return unreadable("a request is one JSON object");
    }
    let request: Request<'_> = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return unreadable(&error.to_string()),
    };
    let id = request.id.as_deref().unwrap_or_default();
    if id.is_empty() || request.jsonrpc.as_deref() != Some("2.0") {
        let text = String::from_utf8_lossy(body);
        let text = text.trim();
        let shown = &text[..text.floor_char_boundary(SHOWN_BYTES_MAX)];
        let problem = Problem { code: INVALID_REQUEST, message: format!("Bad json request: {shown}") };
        return word(StatusCode::OK, id, Err(problem));
    }
    let params = request.params.map_or("{}", RawValue::get).as_bytes();
    let result = match request.method.as_deref().unwrap_or_default() {
        "newGid" => Ok(json!({ "gid": gid::new() })),
        "prepare" => prepare(app, params, trace).await,
        "submit" => submit(app, params, trace).await,
        "abort" => abort(app, params).await,
        "registerBranch" => register(app, params).await,
        method => {
            let shown = &method[..method.floor_char_boundary(SHOWN_BYTES_MAX)];
            let problem = Problem { code: METHOD_NOT_FOUND, message: format!("Method not found: {shown}") };
            return word(StatusCode::OK, id, Err(problem));
        }
    };
    word(StatusCode::OK, id, result.map_err(|refused| problem(&refused)))
}

fn word(status: StatusCode, id: &str, result: Result<Value, Problem>) -> Response {
    let (error, result) = match result {
        Ok(result) => (None, result),
        Err(problem) => (Some(problem), json!({})),
    };
    json(status, &Answer { error, id, jsonrpc: "2.0", result })
}

/// For whoever may not.
pub fn denied(status: StatusCode, message: &str) -> Response {
    word(status, "", Err(Problem { code: DENIED, message: message.to_owned() }))
}

fn problem(refused: &Refused) -> Problem {
    let code = match refused.class() {
        Some(Class::Failure) => FAILURE,
        Some(Class::Invalid) => INVALID_PARAMS,
        Some(Class::Ongoing | Class::Other) | None => INTERNAL,
    };
    Problem { code, message: refused.to_string() }
}

async fn prepare(app: &App, params: &[u8], trace: Option<TraceContext>) -> Result<Value, Refused> {
    operations::prepare(&app.driver, TransRequest { trace, ..TransRequest::from_json(params)? }).await?;
    Ok(Value::Null)
}

async fn submit(app: &App, params: &[u8], trace: Option<TraceContext>) -> Result<Value, Refused> {
    operations::submit(&app.driver, TransRequest { trace, ..TransRequest::from_json(params)? }).await?;
    Ok(Value::Null)
}

async fn abort(app: &App, params: &[u8]) -> Result<Value, Refused> {
    operations::abort(&app.driver, TransRequest::from_json(params)?).await?;
    Ok(Value::Null)
}

async fn register(app: &App, params: &[u8]) -> Result<Value, Refused> {
    operations::register_branch(&app.driver, RegisterBranch::from_json(params)?).await?;
    Ok(Value::Null)
}
