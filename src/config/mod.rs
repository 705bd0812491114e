//! Every setting of the program, listed once, in [`settings`]; all else here follows from that list.
//!
//! A setting `redis.url` is the flag `--redis-url`, the variable `RUSHLINE_REDIS_URL`, and `url` under `redis` in the
//! YAML file, read in that order; what none of them names has its default. [`resolve`] does the reading and keeps
//! where each value came from. A key or a value that is not understood stops the start: a typing error that is
//! passed over in silence is found during the sale.
//!
//! The rest of the library sees only [`Config`], plain typed values that tests build with `Config::default()`.
//! Nothing here opens a connection or prints, and no password leaves [`SecretUrl`] but by `expose`.

mod file;
mod kind;
mod problem;
mod resolve;
mod sample;
mod secret_url;
mod settings;
mod suggest;
mod table;
#[cfg(test)]
mod tests;

pub use kind::{LogFormat, LogLevel, RewriteAfterLoad};
pub use problem::{Error, Problem};
pub use resolve::{Origin, Resolved, Sources, resolve};
pub use sample::sample;
pub use secret_url::{SecretUrl, redact};
pub use settings::*;
pub use suggest::closest;
pub use table::Setting;

impl Config {
    /// Where records go: the setting, or else a SQLite file in the data directory.
    pub fn records_url(&self) -> SecretUrl {
        self.records
            .url
            .clone()
            .unwrap_or_else(|| SecretUrl::new(format!("sqlite:{}", self.data_dir.join("orders.db").display())))
    }
}
