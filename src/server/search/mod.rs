//! Queries: orders of a sale and global transactions by status, time, buyer and text, newest first, page by page.
//!
//! Redis is asked first and the records after, as everywhere: what leaves Redis was in the records before, so nothing is
//! missing and what is found twice is shown once. A page costs so much and no more; one that was cut short because too
//! much had to be looked through says where to go on, like any other.

pub mod orders;
pub mod transactions;

use super::problem::Problem;
use http::StatusCode;
use jiff::Timestamp;

/// Entries of one page unless `limit` says otherwise, and at most.
const PAGE_DEFAULT: usize = 50;
const PAGE_MAX: usize = 1_000;
/// Longest text that is searched for.
const TEXT_BYTES_MAX: usize = 200;

fn wrong(field: &str, rule: impl std::fmt::Display) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_query", format!("{field}: {rule}")).field(field)
}

/// The pairs of a query; what is empty was not asked for.
fn pairs(query: Option<&str>) -> Vec<(String, String)> {
    let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned();
    pairs.filter(|(_, value)| !value.is_empty()).collect()
}

fn limit(value: &str) -> Result<usize, Problem> {
    let limit = value.parse().ok().filter(|limit| (1..=PAGE_MAX).contains(limit));
    limit.ok_or_else(|| wrong("limit", format_args!("must be 1 to {PAGE_MAX}, got `{value}`")))
}

/// RFC 3339, or milliseconds since 1970.
fn time_ms(field: &str, value: &str) -> Result<u64, Problem> {
    let at = value.parse::<Timestamp>().ok().and_then(|at| u64::try_from(at.as_millisecond()).ok());
    at.or_else(|| value.parse().ok()).ok_or_else(|| {
        wrong(
            field,
            format_args!("must be a time like 2026-11-22T10:00:00Z, or milliseconds since 1970, got `{value}`"),
        )
    })
}

fn text(value: String) -> Result<String, Problem> {
    if value.len() > TEXT_BYTES_MAX || value.contains('\0') {
        return Err(wrong("q", format_args!("must be at most {TEXT_BYTES_MAX} bytes without NUL")));
    }
    Ok(value)
}

fn unknown(field: &str, known: &str) -> Problem {
    wrong(field, format_args!("is not a parameter of this page: {known}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_both_spellings() {
        assert_eq!(time_ms("from", "1970-01-01T00:00:01.5Z").unwrap(), 1_500);
        assert_eq!(time_ms("from", "1500").unwrap(), 1_500);
        for text in ["yesterday", "-1", "1960-01-01T00:00:00Z", "2026-11-22"] {
            assert_eq!(time_ms("from", text).unwrap_err().field.as_deref(), Some("from"), "{text}");
        }
    }

    #[test]
    fn pages_and_texts_have_bounds() {
        assert_eq!(limit("1000").unwrap(), 1_000);
        assert!(limit("0").is_err() && limit("1001").is_err() && limit("ten").is_err());
        assert!(text("x".repeat(201)).is_err() && text("a\0".into()).is_err());
    }
}
