//! One call of a webhook. A redirect is no success and is not followed.

use super::signature::sign;
use crate::domain::webhook::Webhook;
use crate::http1::{self, Address, Request};
use crate::store::hooks::Hook;
use http::StatusCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longest time one call may take, from connecting to the head of the answer. The body is not read.
const CALL_TIME_MAX: Duration = Duration::from_secs(10);

/// The error says why it is to be called again.
pub async fn call(webhook: &Webhook, hook: &Hook) -> Result<(), String> {
    let key = webhook.key().ok_or("its secret has another form")?;
    send(&webhook.url, Some(&key), &hook.id, &hook.body).await
}

/// As [`call`], of any message by JSON; signed if there is a key.
pub async fn send(url: &str, key: Option<&[u8]>, id: &str, body: &str) -> Result<(), String> {
    let answered = tokio::time::timeout(CALL_TIME_MAX, post(url, key, id, body.as_bytes())).await;
    match answered.unwrap_or_else(|_| Err(format!("no answer within {} s", CALL_TIME_MAX.as_secs())))? {
        status if status.is_success() => Ok(()),
        status => Err(format!("status {status}")),
    }
}

async fn post(url: &str, key: Option<&[u8]>, id: &str, body: &[u8]) -> Result<StatusCode, String> {
    let address = Address::parse(url).ok_or("its URL is none to call")?;
    // The time of this try: a receiver refuses old ones, so that a call that was listened to cannot be played back.
    let timestamp_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut request = Request::new("POST", &address, &address.path)
        .field("content-type", b"application/json")
        .field("webhook-id", id.as_bytes())
        .field("webhook-timestamp", timestamp_s.to_string().as_bytes());
    if let Some(key) = key {
        request = request.field("webhook-signature", sign(key, id, timestamp_s, body).as_bytes());
    }
    http1::connect(&address).await?.status(&request.with_body(body)).await.map_err(|error| error.to_string())
}
