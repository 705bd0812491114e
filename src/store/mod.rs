//! Redis: the one place where state lives. Everything that spells a key, names a script or reads a reply is in here.
//!
//! [`keys`] spells the keys; [`scripts`] holds `lua/`; [`redis`] is the whole of it, be it one server or many: [`place`]
//! reads the URL, `topology` knows which server has what, [`server`] keeps the connections to one and watches over its
//! identity, [`lane`] is a connection as all others use it, [`connection`] one to one server; [`orders`], [`notices`] and [`sales`] are the scripts as typed
//! functions; [`witness`] is what this node was told and acknowledged, [`meet`] compares it with what Redis has, [`repair`]
//! brings back what is lost; [`memory`] says when Redis is too full to take on more; [`known`] reads for memory answers; [`frame`] is the form of an order inside a
//! stream entry; [`promise`] says what this Redis can promise; [`embedded`] runs a private one; [`dtms`] is the store of another dtm server, for its import.

mod again;
mod alerts;
pub mod changes;
mod clock;
pub mod connection;
mod counted;
pub mod dtms;
pub mod embedded;
pub mod frame;
pub mod hooks;
pub mod keys;
pub mod known;
pub mod kv;
pub mod lane;
pub mod lost;
pub mod meet;
pub mod memory;
pub mod nodes;
pub mod notices;
pub mod orders;
pub mod place;
mod prepared;
pub mod promise;
pub mod redis;
pub mod repair;
pub mod reservations;
pub mod returns;
pub mod sales;
pub mod scripts;
pub mod search;
pub mod server;
pub mod spread;
mod topology;
pub mod trans;
pub mod trans_drain;
pub mod trans_form;
pub mod trans_writer;
pub mod transfer;
pub mod witness;

/// A fault between us and Redis. Outcomes (sold out, limit reached …) are values, never one of these.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No answer. The step may or may not have happened; asking again with the same key or gid finds out.
    #[error("Redis did not answer: {0}")]
    NoAnswer(String),
    /// A definite no before anything was written: out of memory, disk full, loading, read-only. Retry later.
    #[error("Redis refused, and changed nothing: {code}: {message}")]
    Refused { code: String, message: String },
    /// The replicas or the disk did not confirm in time. The step has happened; asking again with the same key finds it.
    #[error("written, but not as durable as promised: {0}")]
    NotDurable(String),
    #[error("there is no such sale")]
    NoSale,
    /// Redis has lost what it had acknowledged; nothing is sold until that is repaired. Nothing was taken.
    #[error("fenced: Redis has changes up to number {}, and this node was told of number {}", .0.found, .0.told)]
    Fenced(witness::Fence),
    /// What may be taken on has filled the share of Redis's memory that it may have. Nothing was taken.
    #[error("Redis uses {used} bytes of memory, and new orders may fill it up to {budget}")]
    MemoryShort { used: u64, budget: u64 },
    /// The setting `redis.url`, or a file that goes with it, cannot be used. Never shows the URL: it holds a password.
    #[error("the URL {0}")]
    Url(String),
    /// lua/ and store/ disagree, or somebody else wrote into our keys: never the caller's doing.
    #[error("`{what}` answered what no one expects: {reply}")]
    Unexpected { what: &'static str, reply: String },
}

impl From<::redis::RedisError> for Error {
    fn from(error: ::redis::RedisError) -> Self {
        match error.code() {
            Some("NOSALE") => Error::NoSale,
            // Law L10: these answers say that the command was not executed.
            Some(
                code @ ("OOM" | "MISCONF" | "LOADING" | "READONLY" | "NOREPLICAS" | "NOSCRIPT" | "BUSY" | "TRYAGAIN"
                | "CLUSTERDOWN" | "MOVED" | "ASK" | "MASTERDOWN" | "NOPERM" | "NOAUTH" | "WRONGPASS"),
            ) => Error::Refused { code: code.into(), message: error.detail().unwrap_or_default().into() },
            Some(_) => Error::Unexpected { what: "Redis", reply: error.to_string() },
            None => Error::NoAnswer(error.to_string()),
        }
    }
}
