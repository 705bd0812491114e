//! Reading a body within its bounds of size and time.

use super::{BODY_BYTES_MAX, Failed, json};
use axum::body::Bytes;
use axum::response::Response;
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::time::Duration;

/// A body that is too long is read and thrown away up to here: whoever is still sending does not read an answer, and a
/// connection that just closes looks like a server that is down.
const DISCARDED_MAX: usize = 8 * BODY_BYTES_MAX;

/// The body, or the answer to a bad one. One that trickles in holds a connection as well as a head does: both get
/// `within`.
pub async fn read(body: Incoming, within: Duration) -> Result<Bytes, Response> {
    match tokio::time::timeout(within, collect(body)).await {
        Ok(Ok(Some(bytes))) => Ok(bytes),
        Ok(Ok(None)) => {
            let text = format!("body: may have {BODY_BYTES_MAX} bytes at most; nothing was taken");
            Err(refuse(StatusCode::PAYLOAD_TOO_LARGE, &text))
        }
        Ok(Err(error)) => Err(refuse(StatusCode::BAD_REQUEST, &format!("body: broke off: {error}; nothing was taken"))),
        Err(_) => {
            let text = "body: did not come within the time for it (setting http.header_timeout_ms); nothing was taken";
            Err(refuse(StatusCode::REQUEST_TIMEOUT, text))
        }
    }
}

fn refuse(status: StatusCode, message: &str) -> Response {
    json(status, &Failed { dtm_result: None, message })
}

/// `None`: it is too long.
async fn collect(mut body: Incoming) -> Result<Option<Bytes>, hyper::Error> {
    let mut first = Bytes::new();
    let mut whole = Vec::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        length += data.len();
        if length > DISCARDED_MAX {
            return Ok(None);
        }
        if length > BODY_BYTES_MAX {
            (first, whole) = Default::default();
        } else if first.is_empty() && whole.is_empty() {
            first = data; // mostly the only one
        } else {
            if whole.is_empty() {
                whole.extend_from_slice(&std::mem::take(&mut first));
            }
            whole.extend_from_slice(&data);
        }
    }
    match length > BODY_BYTES_MAX {
        true => Ok(None),
        false if whole.is_empty() => Ok(Some(first)),
        false => Ok(Some(whole.into())),
    }
}
