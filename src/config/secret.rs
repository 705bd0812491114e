//! Texts that are secret as a whole, and are never shown.

use super::kind::{Kind, Wrong};
use super::table::Unwritten;
use crate::domain::webhook::Webhook;
use serde_json::Value;
use std::fmt;

/// `Debug`, `Display` and `config show` have `***` in its place.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

const SHOWN: &str = "***";
/// Says what it is when it is read.
const EXAMPLE: &str = "whsec_YW4tZXhhbXBsZS1pcy1uby1zZWNyZXQtYXQtYWxs";

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// As it was given, for whoever signs with it. Never for a log, an error or an answer.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SHOWN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SHOWN)
    }
}

/// What signs a webhook, in the form of Standard Webhooks; or nothing.
pub struct SigningSecret;

impl Kind<Option<Secret>> for SigningSecret {
    fn default(&self) -> Option<Secret> {
        None
    }

    fn read(&self, text: &str) -> Result<Option<Secret>, Wrong> {
        if text.is_empty() {
            return Ok(None);
        }
        match Webhook::key_of(text) {
            Some(_) => Ok(Some(Secret::new(text))),
            // The words must not repeat the secret.
            None => Err(Wrong { what: "is no secret of that form".into(), hint: None }),
        }
    }

    fn show(&self, value: &Option<Secret>) -> Value {
        value.as_ref().map_or(Value::Null, |_| SHOWN.into())
    }

    fn allowed(&self) -> String {
        "whsec_ followed by 24 to 64 bytes as base64".into()
    }

    fn unwritten(&self) -> Option<Unwritten> {
        Some(Unwritten { meaning: "alerts are not signed", example: EXAMPLE })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_shown_nowhere() {
        let secret = SigningSecret.read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        assert_eq!(format!("{secret:?} {}", SigningSecret.show(&secret)), r#"Some(***) "***""#);
        let wrong = SigningSecret.read("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap_err();
        assert!(!wrong.what.contains("MfKQ") && wrong.hint.is_none());
    }
}
