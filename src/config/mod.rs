//! Every setting of the program, listed once, in [`settings`]; all else here follows from that list.
//!
//! A setting `redis.url` is the flag `--redis-url`, the variable `RUSHLINE_REDIS_URL`, and `url` under `redis` in the
//! YAML file, read in that order; what none of them names has its default. [`resolve`] does the reading and keeps
//! where each value came from. A key or a value that is not understood stops the start: a typing error that is
//! passed over in silence is found during the sale.
//!
//! The rest of the library sees only [`Config`], plain typed values that tests build with `Config::default()`.
//! Nothing here opens a connection or prints, and no password leaves [`SecretUrl`] but by `expose`.

mod calls;
mod file;
mod kind;
mod problem;
mod registry;
mod resolve;
mod sample;
mod secret;
mod secret_url;
mod settings;
mod suggest;
mod table;
mod telemetry;
#[cfg(test)]
mod tests;
mod tokens;

pub use calls::Credentials;
pub use kind::{LogFormat, LogLevel, Repair, RewriteAfterLoad};
pub use problem::{Error, Problem};
pub use registry::RegistryDriver;
pub use resolve::{Origin, Resolved, Sources, resolve, resolve_text};
pub use sample::sample;
pub use secret::Secret;
pub use secret_url::{SecretUrl, redact};
pub use settings::*;
pub use suggest::closest;
pub use table::Setting;
pub use telemetry::{AttentionThen, OtlpProtocol};

use std::net::SocketAddr;

impl Config {
    /// Where records go: the setting, or else a SQLite file in the data directory.
    pub fn records_url(&self) -> SecretUrl {
        self.records
            .url
            .clone()
            .unwrap_or_else(|| SecretUrl::new(format!("sqlite:{}", self.data_dir.join("orders.db").display())))
    }

    /// May transactions bring credentials for the services they call?
    pub fn passes_credentials(&self) -> bool {
        match self.calls.credentials {
            Credentials::Pass => true,
            Credentials::Refuse => false,
            Credentials::Auto => self.http.listen.ip().is_loopback() && self.grpc_listen().ip().is_loopback(),
        }
    }

    /// Where to listen for gRPC: the setting, or else the port after that of HTTP, as dtm's two are. 0 takes a free one.
    pub fn grpc_listen(&self) -> SocketAddr {
        let http = self.http.listen;
        let port = if http.port() == 0 { 0 } else { http.port().checked_add(1).unwrap_or(0) };
        self.grpc.listen.unwrap_or(SocketAddr::new(http.ip(), port))
    }
}
