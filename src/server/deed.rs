//! The operators' log: what was done by hand, by whom, why, and how it came out. One line each, of the target
//! `rushline::operator`, whatever level the rest of the log has.
//!
//! The line is begun where the request comes in; handlers add what only they know, and it is written when the answer is
//! there. Changes of a sale are in its own log too (`store/changes.rs`), which stays with the sale.

use super::entry::OPERATOR;
use crate::access::rules::Rule;
use axum::extract::FromRequestParts;
use axum::response::Response;
use http::HeaderMap;
use http::request::Parts;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

/// Longest text of a field.
const TEXT_BYTES_MAX: usize = 500;

/// One deed, as far as it is known. Clones are of the same.
#[derive(Clone, Default)]
pub struct Deed(Option<Arc<Mutex<Told>>>);

struct Told {
    what: String,
    target: String,
    who: String,
    reason: String,
    request_id: String,
    peer: SocketAddr,
}

impl Deed {
    pub fn new(rule: &Rule, method: &str, path: &str, place: &str, peer: SocketAddr) -> Self {
        // A route that there is not is named as it was asked for.
        let what = if rule.path.starts_with('/') { rule.path } else { path };
        Self(Some(Arc::new(Mutex::new(Told {
            what: bounded(&format!("{method} {what}")),
            target: bounded(place),
            who: String::new(),
            reason: String::new(),
            request_id: String::new(),
            peer,
        }))))
    }

    fn change(&self, change: impl FnOnce(&mut Told)) {
        if let Some(Ok(mut told)) = self.0.as_ref().map(|told| told.lock()) {
            change(&mut told);
        }
    }

    /// Whom the header names: a token's bearer, or where there are no tokens whoever they say they are.
    pub fn by(&mut self, headers: &HeaderMap) {
        let who = headers.get(OPERATOR).and_then(|who| std::str::from_utf8(who.as_bytes()).ok()).unwrap_or_default();
        self.by_name(who);
    }

    pub fn by_name(&mut self, who: &str) {
        self.change(|told| told.who = bounded(who));
    }

    /// What it is about: a sale, a gid, a topic.
    pub fn target(&self, target: &str) {
        self.change(|told| told.target = bounded(target));
    }

    /// What its caller says of it.
    pub fn note(&self, reason: Option<&str>, request_id: Option<&str>) {
        self.change(|told| {
            told.reason = bounded(reason.unwrap_or_default());
            told.request_id = bounded(request_id.unwrap_or_default());
        });
    }

    /// Writes the line. `outcome` is a status: of HTTP, or of gRPC.
    pub fn log(&self, outcome: &str) {
        self.change(|told| {
            tracing::info!(
                target: "rushline::operator",
                who = told.who,
                what = told.what,
                on = told.target,
                reason = told.reason,
                request_id = told.request_id,
                outcome,
                peer = %told.peer,
                "by hand"
            );
        });
    }

    /// The outcome as the answer has it.
    pub fn log_answer(&self, response: &Response) {
        match response.headers().get("grpc-status").and_then(|status| status.to_str().ok()) {
            Some(status) => self.log(&format!("grpc {status}")),
            None => self.log(response.status().as_str()),
        }
    }
}

/// One line, not too long: it may be anybody's text.
fn bounded(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].replace(char::is_control, " ")
}

/// A handler's deed; where a request came in otherwise, one that goes nowhere.
impl<S: Sync> FromRequestParts<S> for Deed {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}
