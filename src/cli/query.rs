//! Query strings and path segments of the HTTP interface, and times as they are typed.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::fmt;

/// `?a=b&c=d`, escaped; what is `None` is left out.
#[derive(Debug, Default, Clone)]
pub struct Query(Vec<(&'static str, String)>);

impl Query {
    pub fn with(mut self, name: &'static str, value: Option<impl ToString>) -> Self {
        self.0.extend(value.map(|value| (name, value.to_string())));
        self
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        write!(f, "?{}", url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.0).finish())
    }
}

/// Which times are asked for.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Span {
    /// Begun at this time or later: 2026-11-22T10:00:00Z, or -10m before now.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = time)]
    from: Option<Timestamp>,
    /// Begun at this time or earlier.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = time)]
    to: Option<Timestamp>,
}

impl Span {
    pub fn of(&self, query: Query) -> Query {
        query.with("from", self.from).with("to", self.to)
    }
}

/// Where a list goes on, if it does.
pub fn more(page: &Value) -> String {
    page["next"].as_str().map(|next| format!("more: --after '{next}'\n")).unwrap_or_default()
}

/// A name as one segment of a path.
pub fn segment(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    // A segment of dots only means something else in a path.
    if name == "." || name == ".." {
        return name.replace('.', "%2E");
    }
    name.bytes().map(|byte| if plain(byte) { (byte as char).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// RFC 3339, or so long before (`-10m`) or after (`+10m`) now.
pub fn time(text: &str) -> Result<Timestamp, String> {
    let relative = text.strip_prefix('-').map(|rest| (rest, -1)).or(text.strip_prefix('+').map(|rest| (rest, 1)));
    let Some((span, sign)) = relative else {
        return text.parse().map_err(|_| "must be like 2026-11-22T10:00:00Z, or -10m before now".into());
    };
    let span: SignedDuration = span.parse().map_err(|_| format!("`{span}` is no duration; 90s, 10m and 2h are"))?;
    let moved = Timestamp::now().checked_add(span * sign);
    moved.map_err(|_| "is too far away".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_cannot_leave_its_place() {
        let query = Query::default().with("q", Some("a&b=c d")).with("status", None::<String>).with("limit", Some(5));
        assert_eq!(query.to_string(), "?q=a%26b%3Dc+d&limit=5");
        assert_eq!(Query::default().to_string(), "");
        assert_eq!(segment("u/1?ü"), "u%2F1%3F%C3%BC");
        assert_eq!(segment(".."), "%2E%2E");
    }

    #[test]
    fn times_may_be_relative() {
        let ago = time("-10m").unwrap();
        let seconds = Timestamp::now().as_second() - ago.as_second();
        assert!((599..=601).contains(&seconds), "{seconds}");
        assert_eq!(time("2026-11-22T10:00:00Z").unwrap().to_string(), "2026-11-22T10:00:00Z");
        assert!(time("yesterday").is_err() && time("-soon").is_err());
    }
}
