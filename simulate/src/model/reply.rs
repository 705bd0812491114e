//! Replies, in the driver's own type: the product reads them as if they had come over a socket.

use redis::Value;

pub fn text(bytes: impl AsRef<[u8]>) -> Value {
    Value::BulkString(bytes.as_ref().to_vec())
}

pub fn maybe(bytes: Option<impl AsRef<[u8]>>) -> Value {
    bytes.map_or(Value::Nil, text)
}

pub fn count(number: usize) -> Value {
    Value::Int(i64::try_from(number).expect("nothing here is that large"))
}

/// `CODE message`, as Redis says what it refuses.
pub fn error(message: &str) -> Value {
    let line = message.replace(['\r', '\n'], " ");
    redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).expect("an error is one line")
}

/// The message of an error reply, with its code.
pub fn message_of(value: &Value) -> Option<String> {
    match value {
        Value::ServerError(error) => Some(
            error.details().map_or_else(|| error.code().to_owned(), |details| format!("{} {details}", error.code())),
        ),
        _ => None,
    }
}

/// Why a command was refused.
pub type Refused = String;

pub const WRONG_TYPE: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";
pub const SYNTAX: &str = "ERR syntax error";
pub const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";
pub const NOT_A_FLOAT: &str = "ERR value is not a valid float";
