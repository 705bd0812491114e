//! What a key can hold.

use super::stream::Stream;
use std::collections::{BTreeMap, BTreeSet};

pub type Text = Vec<u8>;

#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    Text(Text),
    Hash(BTreeMap<Text, Text>),
    Set(BTreeSet<Text>),
    Zset(Zset),
    Stream(Stream),
}

impl Object {
    /// As TYPE answers it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "string",
            Self::Hash(_) => "hash",
            Self::Set(_) => "set",
            Self::Zset(_) => "zset",
            Self::Stream(_) => "stream",
        }
    }

    /// Redis removes a key whose last member went; not a stream, nor a string.
    pub fn is_spent(&self) -> bool {
        match self {
            Self::Hash(hash) => hash.is_empty(),
            Self::Set(set) => set.is_empty(),
            Self::Zset(zset) => zset.members.is_empty(),
            Self::Text(_) | Self::Stream(_) => false,
        }
    }
}

/// A sorted set. Scores are never NaN, so their order is total.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Zset {
    pub members: BTreeMap<Text, f64>,
}

impl Zset {
    /// By score, then by member.
    pub fn in_order(&self) -> Vec<(&Text, f64)> {
        let mut all: Vec<(&Text, f64)> = self.members.iter().map(|(member, score)| (member, *score)).collect();
        all.sort_by(|a, b| a.1.total_cmp(&b.1).then_with(|| a.0.cmp(b.0)));
        all
    }
}

/// A score as Redis 7 and 8 write it: whole numbers without a point, others with the digits that bring them back.
pub fn score_text(score: f64) -> String {
    if score.is_infinite() {
        return if score > 0.0 { "inf".into() } else { "-inf".into() };
    }
    if score == score.trunc() && score.abs() < 1e17 {
        return format!("{score:.0}");
    }
    let text = format!("{score:e}");
    let (digits, exponent) = text.split_once('e').expect("Rust writes an exponent");
    let exponent: i32 = exponent.parse().expect("Rust writes a number there");
    if (-5..17).contains(&exponent) {
        format!("{score}")
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{digits}e{sign}{:02}", exponent.abs())
    }
}
