//! Bounds of what a client may send, each named and refused with the field's name.

use super::global::StepUrls;
use super::status::{Protocol, TransType};
use super::{msg, saga, workflow};
use crate::domain::ids::Invalid;
use bytes::Bytes;
use std::collections::BTreeMap;

/// Most steps of one msg or saga.
pub const STEPS_MAX: usize = 256;
/// Most rows of one transaction, subscribers of topics and registered branches included.
pub const BRANCHES_MAX: usize = 1024;
/// Longest URL, in bytes (dtm's SQL stores: 1024).
pub const URL_BYTES_MAX: usize = 2048;
/// Longest branch id, in bytes: dtm's column.
pub const BRANCH_ID_BYTES_MAX: usize = 128;
/// Largest body of one branch; records have to travel whole.
pub const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;
/// Largest sum of all bodies of one request.
pub const PAYLOADS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest sum of all bodies of a transaction that registers branches: its record is written whole, and MongoDB takes
/// 16 MiB.
pub const REGISTERED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Largest custom data or workflow result, in bytes.
pub const CUSTOM_DATA_BYTES_MAX: usize = 1024 * 1024;
/// Longest time any option may name: a year.
pub const SECONDS_MAX: u64 = 366 * 24 * 3600;
/// Longest time that one call may be given: an hour. A pass lasts as long as its calls.
pub const REQUEST_TIMEOUT_S_MAX: u64 = 3600;
/// A retry limit is spent without waiting; more would be a siege of the branch.
pub const RETRY_LIMIT_MAX: u64 = 10_000;
/// Most branch headers, and most bytes of them all: they travel with every call.
pub const HEADERS_MAX: usize = 64;
pub const HEADERS_BYTES_MAX: usize = 16 * 1024;

/// Headers that say how a request is cut, where it goes, or what proxies do with it: the coordinator's own to set. A client
/// that could would write a second request into the first, or reach another host than the one that was checked (T03).
const FRAMING: [&str; 13] = [
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Headers by which a caller says who it is.
pub const CREDENTIALS: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];

/// May a transaction have it sent along? `credentials`: those too.
pub fn is_own_header(name: &str, credentials: bool) -> bool {
    let is = |other: &&str| name.eq_ignore_ascii_case(other);
    !FRAMING.iter().any(&is) && (credentials || !CREDENTIALS.iter().any(is))
}

pub fn range(field: &'static str, value: i64, max: u64) -> Result<u64, Invalid> {
    let value = u64::try_from(value).ok().filter(|value| *value <= max);
    value.ok_or_else(|| Invalid::new(field, format!("must be 0 to {max}")))
}

pub fn seconds(field: &'static str, value: i64) -> Result<u64, Invalid> {
    range(field, value, SECONDS_MAX)
}

/// An address: an URL, or a gRPC target with its method. Whether it can be reached only the call can tell.
pub fn url(field: &'static str, text: &str) -> Result<(), Invalid> {
    if text.len() > URL_BYTES_MAX {
        return Err(Invalid::new(field, format!("may have {URL_BYTES_MAX} bytes at most, got {}", text.len())));
    }
    if text.chars().any(|c| c.is_control() || c == ' ') {
        return Err(Invalid::new(field, "may have neither spaces nor control characters"));
    }
    Ok(())
}

pub fn bytes(field: &'static str, length: usize, max: usize) -> Result<(), Invalid> {
    match length > max {
        true => Err(Invalid::new(field, format!("may have {max} bytes at most, got {length}"))),
        false => Ok(()),
    }
}

pub fn headers(headers: &BTreeMap<String, String>) -> Result<(), Invalid> {
    let field = "branch_headers";
    if headers.len() > HEADERS_MAX {
        return Err(Invalid::new(field, format!("may be {HEADERS_MAX} at most, got {}", headers.len())));
    }
    bytes(field, headers.iter().map(|(name, value)| name.len() + value.len()).sum(), HEADERS_BYTES_MAX)?;
    for (name, value) in headers {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || !name.bytes().all(token) {
            return Err(Invalid::new(field, format!("has a name that no header can have: {name:?}")));
        }
        if !is_own_header(name, true) {
            return Err(Invalid::new(field, format!("may not have {name}, which says how a request is sent")));
        }
        if value.chars().any(|c| c.is_control() && c != '\t') {
            return Err(Invalid::new(field, format!("{name} has a control character in its value")));
        }
    }
    Ok(())
}

/// The body of a JSON-RPC branch becomes its `params`, with the transaction's own added: an object, or nothing. dtm takes
/// anything and then fails for ever.
pub fn params(field: &'static str, protocol: Protocol, payload: &Bytes) -> Result<(), Invalid> {
    let is_object = || serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(payload).is_ok();
    if protocol != Protocol::JsonRpc || matches!(payload.as_ref(), b"" | b"null") || is_object() {
        return Ok(());
    }
    Err(Invalid::new(field, "must be a JSON object where the protocol is json-rpc: it becomes the params of the call"))
}

pub fn steps(steps: &[StepUrls], payloads: &[Bytes]) -> Result<(), Invalid> {
    if steps.len() > STEPS_MAX {
        return Err(Invalid::new("steps", format!("may be {STEPS_MAX} at most, got {}", steps.len())));
    }
    // dtm: index out of range.
    if payloads.len() != steps.len() {
        let rule = format!("must be one for each of the {} steps, got {}", steps.len(), payloads.len());
        return Err(Invalid::new("payloads", rule));
    }
    for step in steps {
        url("action", &step.action)?;
        url("compensate", &step.compensate)?;
    }
    for payload in payloads {
        bytes("payloads", payload.len(), PAYLOAD_BYTES_MAX)?;
    }
    bytes("payloads", payloads.iter().map(Bytes::len).sum(), PAYLOADS_BYTES_MAX)
}

/// dtm finds bad custom data when it processes the transaction, and then panics over it for ever.
pub fn custom_data(trans_type: TransType, text: &str, steps: usize) -> Result<(), Invalid> {
    bytes("custom_data", text.len(), CUSTOM_DATA_BYTES_MAX)?;
    match trans_type {
        TransType::Msg => msg::Delay::parse(text).map(drop),
        TransType::Saga => saga::Order::parse(text, steps).map(drop),
        TransType::Workflow => workflow::Input::parse(text).map(drop),
        TransType::Tcc | TransType::Xa => Ok(()),
    }
}

pub fn branch_id(text: &str) -> Result<(), Invalid> {
    if text.is_empty() || text.len() > BRANCH_ID_BYTES_MAX || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Invalid::new(
            "branch_id",
            format!("must be 1 to {BRANCH_ID_BYTES_MAX} visible ASCII characters, without spaces"),
        ));
    }
    Ok(())
}

/// A text cut to `max` bytes, at a character's border. For reasons: a long one must not stop a rollback.
pub fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}
