//! Names that came from outside: parsed once, valid ever after.
//!
//! Charsets are narrow on purpose. A sale's name and a SKU become part of Redis keys and fields, a gid travels in URLs
//! and primary keys; what cannot be spelled there is refused here, with the field's name.

use std::fmt;
use std::str::FromStr;

/// Why a name was refused: `field` is the JSON field or header, `rule` what it must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {rule}")]
pub struct Invalid {
    pub field: &'static str,
    pub rule: String,
}

impl Invalid {
    pub fn new(field: &'static str, rule: impl Into<String>) -> Self {
        Self { field, rule: rule.into() }
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Parses, or says which rule `text` breaks.
            pub fn parse(text: impl Into<String>) -> Result<Self, Invalid> {
                let text = text.into();
                let check: fn(&str) -> Result<(), Invalid> = $check;
                check(&text)?;
                Ok(Self(text))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type! {
    /// The name of a sale: 1 to 64 of `A-Z a-z 0-9 _ -`. No dot: a [`Gid`] is cut at its dots.
    SaleName, |text| charset("sale", text, 64, |b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

name_type! {
    /// What is sold: 1 to 64 of `A-Z a-z 0-9 _ - .`.
    Sku, |text| charset("sku", text, 64, |b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}

name_type! {
    /// Who buys: 1 to 128 bytes of UTF-8 without control characters. The shop's own id, opaque to us.
    Buyer, |text| {
        if text.is_empty() || text.len() > 128 || text.chars().any(char::is_control) {
            return Err(Invalid::new("buyer", "must be 1 to 128 bytes without control characters"));
        }
        Ok(())
    }
}

name_type! {
    /// The client's own name for one order request: 1 to 255 visible ASCII characters.
    IdempotencyKey, |text| charset("Idempotency-Key", text, 255, |b| b.is_ascii_graphic() || b == b' ')
}

fn charset(field: &'static str, text: &str, bytes_max: usize, allowed: fn(u8) -> bool) -> Result<(), Invalid> {
    if text.is_empty() || text.len() > bytes_max {
        return Err(Invalid::new(field, format!("must be 1 to {bytes_max} characters, got {}", text.len())));
    }
    match text.bytes().position(|b| !allowed(b)) {
        None => Ok(()),
        Some(at) => Err(Invalid::new(field, format!("has a character that is not allowed, at position {at}"))),
    }
}

/// The id of a stream entry: one admitted batch. Ordered as Redis orders it, by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId {
    /// Milliseconds since 1970, by the clock of Redis: the moment of admission.
    pub ms: u64,
    pub seq: u64,
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

impl FromStr for EntryId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bad = || Invalid::new("entry", "must be <milliseconds>-<sequence>");
        let (ms, seq) = text.split_once('-').ok_or_else(bad)?;
        Ok(Self { ms: decimal(ms).ok_or_else(bad)?, seq: decimal(seq).ok_or_else(bad)? })
    }
}

/// Plain decimal digits only: `+1`, ` 1` and `01` are other spellings of the same number, and an id has one.
fn decimal(text: &str) -> Option<u64> {
    let canonical = text == "0" || (!text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit()));
    if text.is_empty() || !canonical { None } else { text.parse().ok() }
}

/// The global transaction id of an order. It is an address, `<sale>.<partition>.<entry id>.<index>`: looking the
/// order up in Redis is one XRANGE, and in the records one read by primary key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Gid {
    pub sale: SaleName,
    pub partition: u16,
    pub entry: EntryId,
    /// Which order of the batch, from 0.
    pub index: u16,
}

impl Gid {
    /// As `to_string`, at a quarter of its cost: every order's gid is spelled three times on its way.
    pub fn text(&self) -> String {
        let sale = self.sale.as_str();
        let mut text = String::with_capacity(sale.len() + DIGITS_MAX);
        let mut digits = itoa::Buffer::new();
        text.push_str(sale);
        text.push('.');
        text.push_str(digits.format(self.partition));
        text.push('.');
        text.push_str(digits.format(self.entry.ms));
        text.push('-');
        text.push_str(digits.format(self.entry.seq));
        text.push('.');
        text.push_str(digits.format(self.index));
        text
    }
}

/// Room for what follows the sale in nearly every gid: `.65535.1763800000000-1234567890.65535`.
const DIGITS_MAX: usize = 40;

impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text())
    }
}

impl FromStr for Gid {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bad = || Invalid::new("gid", "must be <sale>.<partition>.<milliseconds>-<sequence>.<index>");
        let mut parts = text.splitn(4, '.');
        let mut next = || parts.next().ok_or_else(bad);
        let (sale, partition, entry, index) = (next()?, next()?, next()?, next()?);
        let small = |text: &str| decimal(text).and_then(|n| u16::try_from(n).ok()).ok_or_else(bad);
        Ok(Self {
            sale: SaleName::parse(sale).map_err(|_| bad())?,
            partition: small(partition)?,
            entry: entry.parse().map_err(|_| bad())?,
            index: small(index)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gid_is_written_as_it_was_read() {
        let text = "nov22.0.1763800000000-3.17";
        assert_eq!(text.parse::<Gid>().unwrap().to_string(), text);
    }

    #[test]
    fn a_gid_has_one_spelling() {
        for text in [
            "",
            "a",
            "a.0.1-1",
            "a.0.1-1.x",
            "a.0.1.1",
            "a.0.01-1.1",
            "a.+0.1-1.1",
            "a.0.1-1.1.1",
            "a b.0.1-1.1",
            "a.65536.1-1.1",
        ] {
            assert!(text.parse::<Gid>().is_err(), "{text} was taken for a gid");
        }
    }

    #[test]
    fn a_refused_name_says_its_field() {
        assert_eq!(SaleName::parse("a.b").unwrap_err().field, "sale");
        assert_eq!(Sku::parse("").unwrap_err().field, "sku");
        assert_eq!(Buyer::parse("a\nb").unwrap_err().field, "buyer");
        assert_eq!(IdempotencyKey::parse("ключ").unwrap_err().field, "Idempotency-Key");
        assert!(Buyer::parse("Ünïcode buyer").is_ok());
    }
}
