//! The kinds of value that only traces and attention have.

use super::kind::{Kind, Wrong};
use serde_json::Value;

/// What is spoken to a collector of spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtlpProtocol {
    Grpc,
    /// Protobuf over HTTP.
    Http,
}

impl OtlpProtocol {
    pub(super) const WORDS: &'static [(&'static str, Self)] = &[("grpc", Self::Grpc), ("http", Self::Http)];
}

/// What happens to a transaction that needs attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttentionThen {
    /// It is called again, at the longest delay.
    GoOn,
    /// It is called again when somebody says so.
    Stop,
}

impl AttentionThen {
    pub(super) const WORDS: &'static [(&'static str, Self)] = &[("go_on", Self::GoOn), ("stop", Self::Stop)];
}

/// A part of all, 0 to 1, with this default.
pub struct Share(pub f64);

impl Kind<f64> for Share {
    fn default(&self) -> f64 {
        self.0
    }

    fn read(&self, text: &str) -> Result<f64, Wrong> {
        let number = text.trim().parse::<f64>().map_err(|_| Wrong::got("must be a number", text))?;
        if (0.0..=1.0).contains(&number) { Ok(number) } else { Err(Wrong::got("is out of range", text)) }
    }

    fn show(&self, value: &f64) -> Value {
        (*value).into()
    }

    fn allowed(&self) -> String {
        "0 to 1".into()
    }
}
