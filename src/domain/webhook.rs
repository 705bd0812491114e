//! Where a sale's shop wants to hear of each order's end, and the secret that signs what it hears.

use super::ids::Invalid;
use super::sale::check_url;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// What a secret begins with; the rest is base64. The form is that of Standard Webhooks.
const SECRET_PREFIX: &str = "whsec_";
/// Bytes of a secret.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    pub url: String,
    /// `whsec_` and 24 to 64 bytes as base64. Never shown and never logged.
    pub secret: String,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Webhook {
    pub fn check(&self) -> Result<(), Invalid> {
        check_url("webhook.url", &self.url)?;
        // The words must not repeat the secret.
        let rule = "must be whsec_ followed by 24 to 64 bytes as base64";
        self.key().map(|_| ()).ok_or_else(|| Invalid::new("webhook.secret", rule))
    }

    /// The bytes that sign.
    pub fn key(&self) -> Option<Vec<u8>> {
        Self::key_of(&self.secret)
    }

    /// The bytes of a secret, if it has the form of one.
    pub fn key_of(secret: &str) -> Option<Vec<u8>> {
        let text = secret.strip_prefix(SECRET_PREFIX)?;
        STANDARD.decode(text).ok().filter(|bytes| SECRET_BYTES.contains(&bytes.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_a_form_and_is_not_shown() {
        let hook = |secret: &str| Webhook { url: "https://shop.example/hook".into(), secret: secret.into() };
        let good = hook("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        assert!(good.check().is_ok());
        assert!(!format!("{good:?}").contains("MfKQ"));
        for bad in
            ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2hvcnQ=", "whsec_not base64 at all ......"]
        {
            let error = hook(bad).check().unwrap_err();
            assert_eq!(error.field, "webhook.secret");
            assert!(bad.len() < 10 || !error.to_string().contains(bad), "{error}");
        }
        let elsewhere = Webhook { url: "ftp://h/".into(), ..good };
        assert_eq!(elsewhere.check().unwrap_err().field, "webhook.url");
    }
}
