//! The kinds of value that only the registry has, and dtm's names for its settings.

use super::kind::{Kind, Wrong};
use super::secret_url::SecretUrl;
use super::table::Unwritten;
use crate::registry::target;
use serde_json::Value;

/// dtm's block in the file, and what its keys are here.
pub const DTM_SECTION: &str = "MicroService";
pub const DTM_KEYS: [(&str, &str); 3] =
    [("Driver", "registry.driver"), ("Target", "registry.target"), ("EndPoint", "registry.endpoint")];

/// In what form entries are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistryDriver {
    /// Not at all.
    None,
    GoZero,
}

impl RegistryDriver {
    pub(super) const WORDS: &'static [(&'static str, Self)] =
        &[("dtm-driver-gozero", Self::GoZero), ("default", Self::None)];
}

/// Where to register, or nowhere. May hold a password.
pub struct RegistryTarget;

const EXAMPLE: &str = "etcd://127.0.0.1:2379/dtmservice";

impl Kind<Option<SecretUrl>> for RegistryTarget {
    fn default(&self) -> Option<SecretUrl> {
        None
    }

    fn read(&self, text: &str) -> Result<Option<SecretUrl>, Wrong> {
        // dtm's sample has the line with nothing behind it.
        if text.is_empty() {
            return Ok(None);
        }
        let bad = |what: String| Wrong { what, hint: Some(format!("for example {EXAMPLE}")) };
        if !text.contains("://") {
            return Err(bad("must be a URL".into())); // never shown: what is no URL may still be a password
        }
        match target::registration(text) {
            Ok(_) => Ok(Some(SecretUrl::new(text))),
            Err(error) => Err(bad(format!("is not usable: {error}"))),
        }
    }

    fn show(&self, value: &Option<SecretUrl>) -> Value {
        value.as_ref().map_or(Value::Null, |url| url.to_string().into())
    }

    fn allowed(&self) -> String {
        "etcd://HOST:PORT,HOST:PORT/NAME, with ?user=U&password=P where the etcd wants an account".into()
    }

    fn unwritten(&self) -> Option<Unwritten> {
        Some(Unwritten { meaning: "this server is not registered", example: EXAMPLE })
    }
}

/// `HOST:PORT`, as others reach it.
pub struct HostPort;

impl Kind<String> for HostPort {
    fn default(&self) -> String {
        String::new() // never seen: it stands in an `Optional`
    }

    fn read(&self, text: &str) -> Result<String, Wrong> {
        if target::is_address(text) { Ok(text.to_owned()) } else { Err(Wrong::got("must be HOST:PORT", text)) }
    }

    fn show(&self, value: &String) -> Value {
        value.as_str().into()
    }

    fn allowed(&self) -> String {
        "HOST:PORT, such as 10.1.2.3:36790".into()
    }
}

/// A value that may be left out.
pub struct Optional<K> {
    pub kind: K,
    /// What it is then.
    pub unset: &'static str,
    pub example: &'static str,
}

impl<T, K: Kind<T>> Kind<Option<T>> for Optional<K> {
    fn default(&self) -> Option<T> {
        None
    }

    fn read(&self, text: &str) -> Result<Option<T>, Wrong> {
        if text.is_empty() { Ok(None) } else { self.kind.read(text).map(Some) }
    }

    fn show(&self, value: &Option<T>) -> Value {
        value.as_ref().map_or(Value::Null, |value| self.kind.show(value))
    }

    fn allowed(&self) -> String {
        self.kind.allowed()
    }

    fn unwritten(&self) -> Option<Unwritten> {
        Some(Unwritten { meaning: self.unset, example: self.example })
    }
}
