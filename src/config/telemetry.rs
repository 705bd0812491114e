//! The kinds of value that only traces and attention have.

use super::kind::{Kind, Wrong};
use super::table::Unwritten;
use http::{HeaderMap, HeaderName, HeaderValue};
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

/// Headers of every call of a collector, whose values nobody is shown.
pub struct OtlpHeaders;

impl Kind<HeaderMap> for OtlpHeaders {
    fn default(&self) -> HeaderMap {
        HeaderMap::new()
    }

    fn read(&self, text: &str) -> Result<HeaderMap, Wrong> {
        // The words must not repeat a value: it is mostly a token.
        let wrong = |at: usize| Wrong { what: format!("has no NAME=VALUE at place {at}"), hint: None };
        let mut headers = HeaderMap::new();
        for (at, pair) in (1..).zip(text.split(',').map(str::trim).filter(|pair| !pair.is_empty())) {
            let (name, value) = pair.split_once('=').ok_or_else(|| wrong(at))?;
            let name = HeaderName::try_from(name.trim()).map_err(|_| wrong(at))?;
            let mut value = HeaderValue::try_from(value.trim()).map_err(|_| wrong(at))?;
            value.set_sensitive(true);
            headers.append(name, value);
        }
        Ok(headers)
    }

    fn show(&self, value: &HeaderMap) -> Value {
        let shown: Vec<String> = value.keys().map(|name| format!("{name}=***")).collect();
        if shown.is_empty() { Value::Null } else { shown.join(",").into() }
    }

    fn allowed(&self) -> String {
        "NAME=VALUE, several with commas between".into()
    }

    fn unwritten(&self) -> Option<Unwritten> {
        Some(Unwritten { meaning: "none", example: "authorization=Bearer TOKEN" })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_and_their_values_not_shown() {
        let headers = OtlpHeaders.read("authorization=Bearer a=b, x-scope=shop,").unwrap();
        assert_eq!(headers.len(), 2);
        assert_eq!(
            (headers["authorization"].as_bytes(), headers["x-scope"].as_bytes()),
            (&b"Bearer a=b"[..], &b"shop"[..])
        );
        assert_eq!(OtlpHeaders.show(&headers), "authorization=***,x-scope=***");
        assert!(!format!("{headers:?}").contains("Bearer"));
        for wrong in ["secret", "a b=secret", "a=se\nsecret"] {
            let wrong = OtlpHeaders.read(&format!("x=1,{wrong}")).unwrap_err();
            assert!(wrong.what.contains("place 2") && !wrong.what.contains("secret"), "{}", wrong.what);
        }
    }
}
