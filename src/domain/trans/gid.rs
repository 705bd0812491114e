//! The id of a global transaction, as dtm's clients make them.

use crate::domain::ids::Invalid;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Longest gid, in bytes: what dtm's SQL stores hold.
pub const GID_BYTES_MAX: usize = 128;

/// The id of a global transaction: 1 to 128 of `A-Z a-z 0-9 _ . : { } -`.
///
/// Wider than a flash sale's [`Gid`](crate::domain::ids::Gid): clients bring their own (UUIDs, dtm's shortuuids, braces
/// from those who share a Redis slot with their barrier). dtm takes anything and strips `\n`, `\r` and `;` on one of its
/// doors; here another character is refused on all of them, so a gid has one spelling everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TransGid(String);

impl TransGid {
    /// Parses, or says which rule `text` breaks.
    pub fn parse(text: impl Into<String>) -> Result<Self, Invalid> {
        let text = text.into();
        if text.is_empty() || text.len() > GID_BYTES_MAX {
            return Err(Invalid::new("gid", format!("must be 1 to {GID_BYTES_MAX} characters, got {}", text.len())));
        }
        match text.bytes().position(|b| !b.is_ascii_alphanumeric() && !b"_.:{}-".contains(&b)) {
            None => Ok(Self(text)),
            Some(at) => {
                Err(Invalid::new("gid", format!("may have A-Z a-z 0-9 _ . : {{ }} - only; not so at position {at}")))
            }
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TransGid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for TransGid {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::parse(text)
    }
}

impl From<TransGid> for String {
    fn from(gid: TransGid) -> Self {
        gid.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_use_is_taken_and_nothing_else() {
        for text in
            ["a", "{a}-7Jk", "c0a8038b_4nx", "e7b5f7f0-1c5b-4a9b-8d0e-1f2a3b4c5d6e", "order:12.3", &"g".repeat(128)]
        {
            assert_eq!(TransGid::parse(text).unwrap().as_str(), text);
        }
        for text in ["", "a b", "a'b", "a;b", "a\nb", "a/b", "ключ", &"g".repeat(129)] {
            assert_eq!(TransGid::parse(text).unwrap_err().field, "gid", "{text} was taken for a gid");
        }
    }
}
