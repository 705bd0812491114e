//! The doors for services that speak dtm: HTTP under `/api/dtmsvr`, JSON-RPC at `/api/json-rpc`, gRPC in [`grpc`].
//!
//! All translate to [`operations`]. Paths, words and statuses are dtm's, also where others would be better: SDKs of
//! six languages go by them. Where this differs, it is in what is malformed (400 instead of a panic's 500).

mod body;
mod gid;
pub mod grpc;
mod http;
pub mod json_rpc;
pub mod lookup;
pub mod operations;
mod topics;
mod view;

use super::App;
use super::deed::Deed;
use crate::domain::trace::TraceContext;
use ::http::header::{CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE};
use ::http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use operations::Refused;
use serde::Serialize;
use std::sync::Arc;

/// Longest body: steps with their payloads, 256 at most.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Everything below `/api/`.
pub async fn answer(app: &Arc<App>, request: Request<Incoming>) -> Response {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    if path.len() > 1 && path.ends_with('/') {
        return redirect(&head.method, path.trim_end_matches('/'), head.uri.query());
    }
    let body = match body::read(body, app.settings.header_timeout).await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    let query = head.uri.query().unwrap_or_default();
    let deed = head.extensions.get::<Deed>().cloned().unwrap_or_default();
    let trace = || trace_of(&head.headers);
    match path {
        "/api/ping" => json(StatusCode::OK, &serde_json::json!({ "msg": "pong" })),
        "/api/json-rpc" if head.method == Method::POST => Box::pin(json_rpc::answer(app, &body, trace())).await,
        _ => match path.strip_prefix("/api/dtmsvr/") {
            Some(route) => http::answer(app, &head.method, route, query, &deed, &body, trace()).await,
            None => not_found(),
        },
    }
}

/// The trace that a call belongs to.
fn trace_of(headers: &HeaderMap) -> Option<TraceContext> {
    let parent = headers.get("traceparent")?;
    TraceContext::read(parent.as_bytes(), headers.get("tracestate").map(HeaderValue::as_bytes))
}

/// As dtm's router does it.
fn redirect(method: &Method, path: &str, query: Option<&str>) -> Response {
    let status = if method == Method::GET { StatusCode::MOVED_PERMANENTLY } else { StatusCode::TEMPORARY_REDIRECT };
    let location = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    (status, [(LOCATION, location)]).into_response()
}

fn not_found() -> Response {
    (StatusCode::NOT_FOUND, [(CONTENT_TYPE, "text/plain")], "404 page not found").into_response()
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    answer_of(status, serde_json::to_vec(body).expect("an answer is plain data").into())
}

/// An answer whose body is JSON already.
fn answer_of(status: StatusCode, body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    response
}

/// The body of an answer that is not good.
#[derive(Serialize)]
struct Failed<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    dtm_result: Option<&'static str>,
    message: &'a str,
}

fn refused(refused: &Refused) -> Response {
    let (status, dtm_result) = refused.status();
    json(status, &Failed { dtm_result, message: &refused.to_string() })
}

/// Whoever may not, in the words of the door that they came to. Nothing of the body was read, so a JSON-RPC answer has no id.
pub fn denied(status: StatusCode, path: &str, detail: &str) -> Response {
    let mut response = match path {
        "/api/json-rpc" => json_rpc::denied(status, detail),
        _ => json(status, &Failed { dtm_result: None, message: detail }),
    };
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"rushline\""));
    }
    response
}

/// The same for doors that are ours.
pub fn refused_as_problem(refused: Refused) -> super::problem::Problem {
    use super::problem::Problem;
    match refused {
        Refused::Store(error) => error.into(),
        Refused::Refusal(refusal) => Problem::new(StatusCode::CONFLICT, "refused", refusal.to_string()),
        Refused::NotYet(what) => Problem::new(StatusCode::NOT_IMPLEMENTED, "not_yet", what),
        Refused::Other(what) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", what).retry_after(2),
    }
}

/// A parameter of a query string; the first of that name.
fn parameter(query: &str, name: &str) -> Option<String> {
    url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}
