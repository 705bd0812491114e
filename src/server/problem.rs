//! Every refusal and fault that leaves by HTTP: RFC 9457 problem documents with a stable `code`.

use crate::domain::ids::Invalid;
use crate::sale::Refusal;
use crate::store;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http_body_util::Full;
use serde::Serialize;
use std::sync::LazyLock;

/// A problem, before it is written. `detail` says what happened, what state things are in, and what to do.
#[derive(Debug, Clone)]
pub struct Problem {
    pub status: StatusCode,
    pub code: &'static str,
    pub detail: String,
    /// The JSON field or header that is wrong.
    pub field: Option<String>,
    pub retry_after_s: Option<u64>,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    code: &'a str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
}

impl Problem {
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), field: None, retry_after_s: None }
    }

    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    pub fn unknown_sale(name: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "unknown_sale",
            format!("there is no sale `{name}`; GET /v1/sales lists those there are"),
        )
    }

    pub fn unknown_order(gid: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "unknown_order",
            format!("there is no order `{gid}`, neither in Redis nor in the records"),
        )
    }

    pub fn records_away(error: &dyn std::fmt::Display) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "records_unavailable",
            format!("the records cannot be read at present ({error}); selling goes on, finished orders wait in Redis"),
        )
        .retry_after(2)
    }

    pub fn body(&self) -> Vec<u8> {
        let document = Document {
            r#type: format!("urn:rushline:{}", self.code),
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            code: self.code,
            detail: &self.detail,
            field: self.field.as_deref(),
        };
        serde_json::to_vec(&document).expect("a problem is plain data")
    }

    /// For the hot path, which speaks hyper.
    pub fn response(&self) -> http::Response<Full<Bytes>> {
        self.response_with(Bytes::from(self.body()))
    }

    fn response_with(&self, body: Bytes) -> http::Response<Full<Bytes>> {
        let mut response = http::Response::new(Full::new(body));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"rushline\""));
        }
        response
    }
}

/// The answer to most requests of a flash sale: after the last unit it must cost as little as can be, so its body is
/// written once.
pub fn refusal_response(refusal: Refusal) -> http::Response<Full<Bytes>> {
    static WRITTEN: LazyLock<[(Problem, Bytes); Refusal::ALL.len()]> = LazyLock::new(|| {
        Refusal::ALL.map(|refusal| {
            let problem = Problem::from(refusal);
            let body = Bytes::from(problem.body());
            (problem, body)
        })
    });
    let (problem, body) = &WRITTEN[refusal as usize];
    problem.response_with(body.clone())
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.response().map(axum::body::Body::new)
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_order", invalid.to_string()).field(invalid.field)
    }
}

/// Redis does not answer, or says no: in every case the buyer may ask again with the same key.
impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        let unavailable =
            |code, detail: String| Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).retry_after(1);
        match &error {
            store::Error::NoAnswer(cause) => unavailable(
                "redis_unavailable",
                format!(
                    "Redis did not answer ({cause}); it is not known if this happened. Ask again with the same Idempotency-Key: it happens once"
                ),
            ),
            store::Error::Refused { code, message } => unavailable(
                "redis_refused",
                format!("Redis refused, and nothing was changed: {code} {message}. Ask again later"),
            ),
            store::Error::NotDurable(cause) => unavailable(
                "not_durable",
                format!(
                    "not confirmed as durable as this sale promises: {cause}. Ask again with the same Idempotency-Key for the answer"
                ),
            ),
            store::Error::Fenced(fence) => Self::new(StatusCode::LOCKED, "fenced", fenced(fence)).retry_after(5),
            store::Error::MemoryShort { used, budget } => unavailable(
                "redis_memory",
                format!(
                    "Redis uses {used} bytes of memory, and new work may fill it up to {budget}; nothing was taken. What is under way goes on and makes room: ask again later"
                ),
            ),
            store::Error::NoSale => Self::new(StatusCode::NOT_FOUND, "unknown_sale", "there is no such sale"),
            store::Error::Unexpected { .. } | store::Error::Url(_) => {
                tracing::error!(%error, "a bug, or a foreign hand in our keys");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "internal",
                    "an internal error; the log of this server says more",
                )
            }
        }
    }
}

/// What happened, for whoever has to do with a fenced sale.
fn fenced(fence: &store::witness::Fence) -> String {
    let found = match (fence.since_ms, fence.found) {
        (0, 0) => "Redis knows nothing of this sale any more".to_owned(),
        (_, found) => format!(
            "Redis came back with the first {found} of at least {} changes that it had acknowledged",
            fence.told
        ),
    };
    format!(
        "{found}, so nothing is sold until that is repaired; nothing was taken. Operators: `rushline repair SALE` brings back what is lost and opens the sale. Buyers: ask again later with the same Idempotency-Key"
    )
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let (status, detail) = match refusal {
            Refusal::SoldOut => (
                StatusCode::CONFLICT,
                "not enough units are left; nothing was taken. Units of refused orders come back",
            ),
            Refusal::LimitReached => {
                (StatusCode::CONFLICT, "this buyer's limit in this sale would be exceeded; nothing was taken")
            }
            Refusal::NotOpen => (StatusCode::TOO_EARLY, "the sale has not opened yet"),
            Refusal::Closed => (StatusCode::GONE, "the sale is closed"),
            Refusal::Paused => (StatusCode::LOCKED, "the sale is paused; nothing was taken"),
            Refusal::UnknownSku => (StatusCode::NOT_FOUND, "the sale has no such SKU; nothing was taken"),
            Refusal::KeyReused => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "this Idempotency-Key came with another order before; a new order needs a new key",
            ),
            Refusal::QueueFull => {
                (StatusCode::TOO_MANY_REQUESTS, "too many requests wait for this sale; nothing was taken")
            }
            Refusal::BacklogFull => {
                (StatusCode::TOO_MANY_REQUESTS, "the order service cannot keep up; nothing was taken. Ask again soon")
            }
        };
        let problem = Self::new(status, refusal.code(), detail);
        match refusal {
            Refusal::Paused | Refusal::QueueFull | Refusal::BacklogFull => problem.retry_after(1),
            _ => problem,
        }
    }
}
