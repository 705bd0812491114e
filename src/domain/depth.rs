//! How deep JSON may be nested that is kept as it came. Reading it costs us nothing at any depth; whoever reads it after us,
//! with a function that calls itself, runs out of stack on a few kilobytes of brackets.

use super::ids::Invalid;

/// Deeper than anything that people or programs write by intent.
pub const DEPTH_MAX: usize = 32;

/// Refuses what is nested deeper. `json` need not be JSON: what is none is for its reader to refuse.
pub fn check(field: &'static str, json: &[u8]) -> Result<(), Invalid> {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Err(Invalid::new(field, format!("may be nested {DEPTH_MAX} deep at most")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_count_and_those_in_texts_do_not() {
        let nested = |depth: usize| [&"[{\"a\":".repeat(depth / 2)[..], "1", &"}]".repeat(depth / 2)].concat();
        assert!(check("payload", nested(DEPTH_MAX).as_bytes()).is_ok());
        let refused = check("payload", nested(DEPTH_MAX + 2).as_bytes()).unwrap_err();
        assert_eq!(refused.to_string(), "payload: may be nested 32 deep at most");
        let text = format!("[\"{}\\\"{}\", [], [], []]", "[".repeat(99), "{".repeat(99));
        assert!(check("payload", text.as_bytes()).is_ok());
        assert!(check("payload", "[]".repeat(1_000).as_bytes()).is_ok());
    }
}
