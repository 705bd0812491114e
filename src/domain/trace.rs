//! W3C Trace Context: which trace a request belongs to, as the headers `traceparent` and `tracestate` say it.
//!
//! It is handed on whether this server records traces or not. Only `traceparent` is kept with an order in Redis;
//! `tracestate` is other vendors' own and lives as long as the node that took the request.
//! Source: W3C Recommendation "Trace Context" level 1, 2021.

use serde::{Deserialize, Serialize};

/// Longest `tracestate` that is handed on: what the recommendation asks for at least. A longer one is left out.
const STATE_BYTES_MAX: usize = 512;
/// `00-`, 32 hex digits, `-`, 16 hex digits, `-`, 2 hex digits.
const PARENT_BYTES: usize = 55;
const SAMPLED: u8 = 1;

/// The ids that a `traceparent` holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    pub trace: [u8; 16],
    pub span: [u8; 8],
    /// Whoever began it records it, and asks the others to.
    pub sampled: bool,
}

/// A trace context that was read, or that a span of ours gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    #[serde(rename = "p")]
    parent: String,
    #[serde(rename = "s", default, skip_serializing_if = "String::is_empty")]
    state: String,
}

impl TraceContext {
    /// From headers. A bad `traceparent` is none, as the recommendation has it, and without one `tracestate` means nothing.
    pub fn read(parent: &[u8], state: Option<&[u8]>) -> Option<Self> {
        if parent.len() != PARENT_BYTES || parent.starts_with(b"ff") {
            return None;
        }
        let well_formed = parent.iter().enumerate().all(|(at, byte)| match at {
            2 | 35 | 52 => *byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        });
        let is_zero = |digits: &[u8]| digits.iter().all(|digit| *digit == b'0');
        if !well_formed || is_zero(&parent[3..35]) || is_zero(&parent[36..52]) {
            return None;
        }
        let is_plain = |state: &&[u8]| {
            state.len() <= STATE_BYTES_MAX && state.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t'))
        };
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).map(str::to_owned).ok();
        let state = state.filter(is_plain).and_then(text).unwrap_or_default();
        Some(Self { parent: text(parent)?, state })
    }

    /// Of a span of ours, with the `tracestate` that it came with.
    pub fn of(ids: Ids, state: &str) -> Self {
        let mut parent = String::with_capacity(PARENT_BYTES);
        parent.push_str("00-");
        push_hex(&mut parent, &ids.trace);
        parent.push('-');
        push_hex(&mut parent, &ids.span);
        parent.push_str(if ids.sampled { "-01" } else { "-00" });
        Self { parent, state: state.to_owned() }
    }

    pub fn parent(&self) -> &str {
        &self.parent
    }

    /// `None`: there is no `tracestate`.
    pub fn state(&self) -> Option<&str> {
        Some(self.state.as_str()).filter(|state| !state.is_empty())
    }

    pub fn is_sampled(&self) -> bool {
        self.parent.as_bytes().get(53..55).and_then(hex).is_some_and(|[flags]: [u8; 1]| flags & SAMPLED != 0)
    }

    /// `None` of what was read from a store and is not what [`Self::read`] lets in.
    pub fn ids(&self) -> Option<Ids> {
        let parent = self.parent.as_bytes();
        Some(Ids {
            trace: hex(parent.get(3..35)?)?,
            span: hex(parent.get(36..52)?)?,
            sampled: hex::<1>(parent.get(53..55)?)?[0] & SAMPLED != 0,
        })
    }
}

fn push_hex(out: &mut String, bytes: &[u8]) {
    let digit = |half: u8| char::from_digit(u32::from(half), 16).expect("half a byte is below 16");
    bytes.iter().for_each(|byte| out.extend([digit(byte >> 4), digit(byte & 15)]));
}

fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let value = |digit: u8| char::from(digit).to_digit(16);
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::try_from(value(pair[0])? << 4 | value(pair[1])?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn read(parent: &str) -> Option<TraceContext> {
        TraceContext::read(parent.as_bytes(), None)
    }

    #[test]
    fn what_is_read_is_handed_on() {
        let context = TraceContext::read(GIVEN.as_bytes(), Some(b"a=1,b=2")).unwrap();
        assert_eq!((context.parent(), context.state()), (GIVEN, Some("a=1,b=2")));
        let ids = context.ids().unwrap();
        assert_eq!((ids.trace[0], ids.trace[15], ids.span[0], ids.sampled), (0x0a, 0x9c, 0xb7, true));
        assert_eq!(TraceContext::of(ids, "a=1,b=2"), context);
        assert!(context.is_sampled() && !read(&GIVEN.replace("-01", "-02")).unwrap().is_sampled());
        assert_eq!(TraceContext::read(GIVEN.as_bytes(), Some(&[b'a'; 513])).unwrap().state(), None);
        assert_eq!(TraceContext::read(GIVEN.as_bytes(), Some(b"a=1\nb")).unwrap().state(), None);
    }

    #[test]
    fn a_bad_one_is_none() {
        for bad in [
            "",
            &GIVEN[1..],
            &GIVEN.to_uppercase(),
            &GIVEN.replacen("00", "ff", 1),
            &GIVEN.replace("b7ad6b7169203331", "0000000000000000"),
            &GIVEN.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &GIVEN.replace('-', "_"),
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
