//! Streams and their consumer groups.

use super::object::Text;
use std::collections::BTreeMap;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    pub ms: u64,
    pub seq: u64,
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

impl Id {
    pub const MAX: Id = Id { ms: u64::MAX, seq: u64::MAX };

    /// `ms-seq`, or `ms` with the sequence number that is missing.
    pub fn parse(text: &[u8], missing_seq: u64) -> Option<Id> {
        let text = std::str::from_utf8(text).ok()?;
        // As string2ull: blanks and a plus are passed over in front, by the C library.
        let number = |part: &str| {
            let part = part.trim_start_matches([' ', '\t']);
            let part = part.strip_prefix('+').unwrap_or(part);
            if part.starts_with('+') { None } else { part.parse::<u64>().ok() }
        };
        match text.split_once('-') {
            Some((ms, seq)) => Some(Id { ms: number(ms)?, seq: number(seq)? }),
            None => Some(Id { ms: number(text)?, seq: missing_seq }),
        }
    }

    pub fn next(self) -> Option<Id> {
        match (self.ms, self.seq) {
            (u64::MAX, u64::MAX) => None,
            (ms, u64::MAX) => Some(Id { ms: ms + 1, seq: 0 }),
            (ms, seq) => Some(Id { ms, seq: seq + 1 }),
        }
    }
}

pub type Fields = Vec<(Text, Text)>;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stream {
    pub entries: BTreeMap<Id, Fields>,
    pub last: Id,
    pub groups: BTreeMap<Text, Group>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Group {
    pub delivered: Id,
    pub pending: BTreeMap<Id, Pending>,
    /// Consumers there are, also those that hold nothing.
    pub consumers: BTreeMap<Text, ()>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Pending {
    pub consumer: Text,
    pub since_ms: u64,
    pub deliveries: u64,
}
