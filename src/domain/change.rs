//! Changes of a sale while it sells: who makes one, and why. The server takes their word for it; whoever may change a
//! sale may call themselves anything.

use super::ids::Invalid;

/// Longest name of an operator, and longest reason, in bytes.
pub const WHO_BYTES_MAX: usize = 128;
pub const WHY_BYTES_MAX: usize = 500;
/// Longest request id.
pub const REQUEST_ID_BYTES_MAX: usize = 128;
/// Changes that a sale remembers; older ones go.
pub const CHANGES_MAX: usize = 1_000;

/// What an operator says of a change; empty where they say nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Note {
    pub who: String,
    pub why: String,
}

impl Note {
    pub fn new(who: impl Into<String>, why: impl Into<String>) -> Result<Self, Invalid> {
        let note = Self { who: who.into(), why: why.into() };
        check_text("Rushline-Operator", &note.who, WHO_BYTES_MAX)?;
        check_text("reason", &note.why, WHY_BYTES_MAX)?;
        Ok(note)
    }
}

fn check_text(field: &'static str, text: &str, bytes_max: usize) -> Result<(), Invalid> {
    if text.len() > bytes_max || text.chars().any(char::is_control) {
        return Err(Invalid::new(field, format!("must be at most {bytes_max} bytes without control characters")));
    }
    Ok(())
}

/// Names a change: repeated with the same id it happens once.
pub fn check_request_id(id: &str) -> Result<(), Invalid> {
    if id.is_empty() || id.len() > REQUEST_ID_BYTES_MAX || !id.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Invalid::new(
            "request_id",
            format!("must be 1 to {REQUEST_ID_BYTES_MAX} visible ASCII characters"),
        ));
    }
    Ok(())
}

/// One change as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Milliseconds since 1970, by the clock of Redis.
    pub at_ms: u64,
    /// `settings` or `stock`.
    pub kind: String,
    /// What was asked, JSON; secrets masked.
    pub what: String,
    /// Units that were really added or, negative, withdrawn.
    pub units: Option<i64>,
    pub note: Note,
    pub request_id: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_bounded_and_of_one_line() {
        assert!(Note::new("Zoë", "supplier called: 20 broken").is_ok());
        assert_eq!(Note::new("a\nb", "").unwrap_err().field, "Rushline-Operator");
        assert_eq!(Note::new("", "x".repeat(WHY_BYTES_MAX + 1)).unwrap_err().field, "reason");
    }

    #[test]
    fn a_request_id_is_visible_and_bounded() {
        assert!(check_request_id("r-1").is_ok());
        for id in ["", "a b", "ü", &"x".repeat(REQUEST_ID_BYTES_MAX + 1)] {
            assert_eq!(check_request_id(id).unwrap_err().field, "request_id", "{id}");
        }
    }
}
