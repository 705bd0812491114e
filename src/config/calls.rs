//! The kinds of value that only calls of services have.

use super::kind::{Kind, Wrong};
use crate::dial::reach::{DEFAULT, Reach};
use serde_json::Value;

/// Who may be called: a list of words.
pub struct CallList;

impl Kind<Reach> for CallList {
    fn default(&self) -> Reach {
        Reach::default()
    }

    fn read(&self, text: &str) -> Result<Reach, Wrong> {
        let hint = Some(format!("for example {DEFAULT}, or https://*.shop.example:443 10.0.0.0/8:8000-8999"));
        Reach::parse(text).map_err(|what| Wrong { what, hint })
    }

    fn show(&self, value: &Reach) -> Value {
        value.to_string().into()
    }

    fn allowed(&self) -> String {
        "words with spaces between them: loopback, private, public, ADDRESS, ADDRESS/BITS, NAME, *.NAME; each may have \
         http://, https://, grpc://, grpcs:// or etcd:// before it and :PORT or :FROM-TO behind it"
            .into()
    }
}

/// Whether transactions may bring credentials for the services they call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credentials {
    /// As long as this server listens on loopback addresses only.
    Auto,
    Pass,
    Refuse,
}

impl Credentials {
    pub(super) const WORDS: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("pass", Self::Pass), ("refuse", Self::Refuse)];
}
