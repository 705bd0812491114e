//! One call of a webhook. A redirect is no success and is not followed.

use super::signature::sign;
use crate::dial::dial;
use crate::domain::webhook::Webhook;
use crate::store::hooks::Hook;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Request, StatusCode};
use http_body_util::Full;
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
    let url = url::Url::parse(&webhook.url).map_err(|error| error.to_string())?;
    let host = url.host_str().ok_or("its URL names no host")?;
    let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let path = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
    let port = url.port_or_known_default().ok_or("its URL names no port")?;
    // The time of this try: a receiver refuses old ones, so that a call that was listened to cannot be played back.
    let timestamp_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let request = Request::post(path)
        .header(HOST, authority)
        .header(CONTENT_TYPE, "application/json")
        .header("webhook-id", &hook.id)
        .header("webhook-timestamp", timestamp_s)
        .header("webhook-signature", sign(&key, &hook.id, timestamp_s, hook.body.as_bytes()))
        .body(Full::new(Bytes::from(hook.body.clone())))
        .map_err(|error| error.to_string())?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let mut sender = dial(host, port, url.scheme() == "https").await?;
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    Ok(answer.status())
}
