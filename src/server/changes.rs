//! Changes of a sale: who asks for one and why, and the log of those that were made.

use super::deed::Deed;
use super::entry::OPERATOR;
use super::problem::Problem;
use super::wire::{ChangeView, ChangesPage, time};
use super::{App, json};
use crate::config::redact;
use crate::domain::change::{CHANGES_MAX, Note};
use crate::domain::ids::Invalid;
use crate::sale::open::Open;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// Changes of one page unless `limit` says otherwise.
pub const PAGE_DEFAULT: usize = 100;

fn invalid(code: &'static str, invalid: Invalid) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, invalid.to_string()).field(invalid.field)
}

/// Who changes it, by the header, and why, by the body.
pub fn note(code: &'static str, headers: &HeaderMap, reason: Option<&str>) -> Result<Note, Problem> {
    let who = match headers.get(OPERATOR).map(|value| std::str::from_utf8(value.as_bytes())) {
        Some(Ok(who)) => who,
        None => "",
        Some(Err(_)) => return Err(invalid(code, Invalid::new("Rushline-Operator", "must be UTF-8"))),
    };
    Note::new(who, reason.unwrap_or_default()).map_err(|error| invalid(code, error))
}

/// Why something is done to an order or a transaction by hand.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ByHand {
    reason: Option<String>,
}

/// What came of it.
#[derive(Serialize)]
pub struct Done {
    pub gid: String,
    pub status: &'static str,
}

/// Who does something by hand and why: the body may be empty. It is told to the operators' log.
pub fn by_hand(headers: &HeaderMap, deed: &Deed, body: &[u8]) -> Result<Note, Problem> {
    const CODE: &str = "invalid_request";
    let request: ByHand = json::parse(if body.is_empty() { b"{}" } else { body }, CODE)?;
    deed.note(request.reason.as_deref(), None);
    note(CODE, headers, request.reason.as_deref())
}

/// What a change asks for, for the log: the body without what is noted beside it, and without secrets.
pub fn what(body: &[u8]) -> String {
    let mut fields: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    fields.remove("request_id");
    fields.remove("reason");
    if let Some(Value::String(url)) = fields.get_mut("webhook").and_then(|webhook| webhook.get_mut("url")) {
        *url = redact(url);
    }
    if let Some(secret) = fields.get_mut("webhook").and_then(|webhook| webhook.get_mut("secret")) {
        *secret = Value::from("***");
    }
    Value::from(fields).to_string()
}

/// `GET /v1/sales/{sale}/changes[?limit=N]`: newest first.
pub async fn page(app: &App, open: &Open, query: Option<&str>) -> Result<ChangesPage, Problem> {
    let wrong = |field: &str, rule: String| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_query", format!("{field}: {rule}")).field(field)
    };
    let mut limit = PAGE_DEFAULT;
    for (key, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        match key.as_ref() {
            "limit" => limit = limit_of(&value)?,
            other => return Err(wrong(other, "is not a parameter of this page: limit".into())),
        }
    }
    last(app, open, limit).await
}

/// How many changes are asked for.
pub fn limit_of(text: &str) -> Result<usize, Problem> {
    text.parse().ok().filter(|limit| (1..=CHANGES_MAX).contains(limit)).ok_or_else(|| {
        let rule = format!("limit: must be 1 to {CHANGES_MAX}, got `{text}`");
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_query", rule).field("limit")
    })
}

/// The last so many, newest first.
pub async fn last(app: &App, open: &Open, limit: usize) -> Result<ChangesPage, Problem> {
    let changes = app.node.redis.changes(&open.head(), limit).await?;
    let view = |change: crate::domain::change::Change| ChangeView {
        at: time(Some(change.at_ms)),
        kind: change.kind,
        change: RawValue::from_string(change.what).ok(),
        units: change.units,
        who: change.note.who,
        why: change.note.why,
        request_id: change.request_id,
    };
    Ok(ChangesPage { changes: changes.into_iter().map(view).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_shows_what_was_asked_and_no_secret() {
        let body =
            br#"{"status":"paused","request_id":"r","reason":"x","webhook":{"url":"http://h/","secret":"whsec_A"}}"#;
        let shown: Value = serde_json::from_str(&what(body)).unwrap();
        assert_eq!(shown, serde_json::json!({"status": "paused", "webhook": {"url": "http://h/", "secret": "***"}}));
    }
}
