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
    let answered = tokio::time::timeout(CALL_TIME_MAX, post(webhook, hook)).await;
    match answered.unwrap_or_else(|_| Err(format!("no answer within {} s", CALL_TIME_MAX.as_secs())))? {
        status if status.is_success() => Ok(()),
        status => Err(format!("status {status}")),
    }
}

async fn post(webhook: &Webhook, hook: &Hook) -> Result<StatusCode, String> {
    let key = webhook.key().ok_or("its secret has another form")?;
    let address = Address::parse(&webhook.url).ok_or("its URL is none to call")?;
    // The time of this try: a receiver refuses old ones, so that a call that was listened to cannot be played back.
    let timestamp_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let request = Request::new("POST", &address, &address.path)
        .field("content-type", b"application/json")
        .field("webhook-id", hook.id.as_bytes())
        .field("webhook-timestamp", timestamp_s.to_string().as_bytes())
        .field("webhook-signature", sign(&key, &hook.id, timestamp_s, hook.body.as_bytes()).as_bytes())
        .with_body(hook.body.as_bytes());
    http1::connect(&address).await?.status(&request).await.map_err(|error| error.to_string())
}
