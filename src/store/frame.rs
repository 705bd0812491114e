//! The form of an order inside its batch's stream entry (field `v1`): frames, one after the other.
//!
//! ```text
//! frame = length of the rest · flags u8 · buyer · count u8 · count items · [traceparent] · [keys] · payload (the rest)
//! buyer, traceparent = length u8 · bytes        item = sku (length u8 · bytes) · quantity
//! keys = count u8 · count times: name, value (each length u8 · bytes): what else the order is counted by
//! flags = 1: there is a traceparent; 2: there is a payload; 4: there are keys
//! ```
//! Length and quantity take as many bytes as they need: seven bits in each, the low ones first, and the eighth says
//! that more follow. The payload is written to Redis once in its life, here. Another form gets another field
//! name (`v2`), so that an older program leaves alone what it cannot read.

use crate::domain::ids::{Buyer, Sku};
use crate::domain::order::{Item, Order};
use crate::domain::trace::TraceContext;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

const HAS_TRACEPARENT: u8 = 1;
const HAS_PAYLOAD: u8 = 2;
const HAS_KEYS: u8 = 4;

/// An order as its frame keeps it. What is missing (idempotency key, digests) lives in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub buyer: Buyer,
    pub items: Vec<Item>,
    pub payload: Option<String>,
    pub traceparent: Option<String>,
    pub limits_by: Option<Box<BTreeMap<String, String>>>,
}

/// Appends the frame of `order` to `out`.
pub fn encode(order: &Order, out: &mut Vec<u8>) {
    let payload = order.payload.as_ref().map(|payload| payload.get());
    let traceparent = order.trace.as_ref().map(|trace| trace.parent());
    let flag = |there: bool, flag: u8| if there { flag } else { 0 };
    let flags = flag(traceparent.is_some(), HAS_TRACEPARENT)
        | flag(payload.is_some(), HAS_PAYLOAD)
        | flag(order.limits_by.is_some(), HAS_KEYS);
    let short = |text: &str| 1 + text.len();
    let items: usize = order.items.iter().map(|item| short(item.sku.as_str()) + number_bytes(item.quantity)).sum();
    let length = 2
        + short(order.buyer.as_str())
        + items
        + traceparent.map_or(0, short)
        + order
            .limits_by
            .as_ref()
            .map_or(0, |keys| 1 + keys.iter().map(|(name, value)| short(name) + short(value)).sum::<usize>())
        + payload.map_or(0, str::len);
    put_number(out, u32::try_from(length).expect("a body is bounded far below 4 GiB"));
    let start = out.len();
    out.push(flags);
    put_short(out, order.buyer.as_str());
    out.push(u8::try_from(order.items.len()).expect("an order has at most ITEMS_MAX items"));
    for item in &order.items {
        put_short(out, item.sku.as_str());
        put_number(out, item.quantity);
    }
    if let Some(traceparent) = traceparent {
        put_short(out, traceparent);
    }
    if let Some(keys) = &order.limits_by {
        out.push(u8::try_from(keys.len()).expect("an order has at most KEYS_MAX keys"));
        for (name, value) in keys.iter() {
            put_short(out, name);
            put_short(out, value);
        }
    }
    out.extend_from_slice(payload.unwrap_or_default().as_bytes());
    debug_assert_eq!(out.len() - start, length, "the length announced is the length written");
}

/// How many bytes [`put_number`] takes.
fn number_bytes(number: u32) -> usize {
    (32 - (number | 1).leading_zeros()).div_ceil(7) as usize
}

fn put_number(out: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(bytes: &mut &[u8]) -> Option<u32> {
    let mut number: u32 = 0;
    for shift in (0..35).step_by(7) {
        let byte = take(bytes, 1)?[0];
        let part = u32::from(byte & 0x7f);
        number |= part.checked_shl(shift).filter(|shifted| shifted >> shift == part)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn put_short(out: &mut Vec<u8>, text: &str) {
    out.push(u8::try_from(text.len()).expect("names are bounded to 128 bytes when they are parsed"));
    out.extend_from_slice(text.as_bytes());
}

/// Reads all frames of an entry; `None` if the bytes are not what [`encode`] writes.
pub fn decode_all(mut bytes: &[u8]) -> Option<Vec<Frame>> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let length = take_number(&mut bytes)? as usize;
        frames.push(decode(take(&mut bytes, length)?)?);
    }
    Some(frames)
}

fn decode(mut bytes: &[u8]) -> Option<Frame> {
    let flags = take(&mut bytes, 1)?[0];
    let buyer = Buyer::parse(take_short(&mut bytes)?).ok()?;
    let count = take(&mut bytes, 1)?[0];
    let mut items = Vec::with_capacity(count.into());
    for _ in 0..count {
        let sku = Sku::parse(take_short(&mut bytes)?).ok()?;
        let quantity = take_number(&mut bytes)?;
        items.push(Item { sku, quantity });
    }
    let traceparent = if flags & HAS_TRACEPARENT != 0 { Some(take_short(&mut bytes)?.to_owned()) } else { None };
    let limits_by = if flags & HAS_KEYS != 0 { Some(Box::new(take_keys(&mut bytes)?)) } else { None };
    let payload = if flags & HAS_PAYLOAD != 0 { Some(std::str::from_utf8(bytes).ok()?.to_owned()) } else { None };
    Some(Frame { buyer, items, payload, traceparent, limits_by })
}

fn take_keys(bytes: &mut &[u8]) -> Option<BTreeMap<String, String>> {
    let count = take(bytes, 1)?[0];
    let mut keys = BTreeMap::new();
    for _ in 0..count {
        let name = take_short(bytes)?.to_owned();
        keys.insert(name, take_short(bytes)?.to_owned());
    }
    Some(keys)
}

fn take<'a>(bytes: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(n)?;
    *bytes = rest;
    Some(taken)
}

fn take_short<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let length = take(bytes, 1)?[0];
    std::str::from_utf8(take(bytes, length.into())?).ok()
}

impl From<Frame> for Order {
    fn from(frame: Frame) -> Self {
        Order {
            key: None,
            buyer: frame.buyer,
            items: frame.items,
            // What Redis keeps went in as checked JSON; anything else would be shown as no payload.
            payload: frame.payload.and_then(|text| RawValue::from_string(text).ok()),
            trace: frame.traceparent.and_then(|parent| TraceContext::read(parent.as_bytes(), None)).map(Box::new),
            limits_by: frame.limits_by,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn order(buyer: &str, items: &[(&str, u32)], payload: Option<&str>, traceparent: Option<&str>) -> Order {
        Order {
            key: None,
            buyer: Buyer::parse(buyer).unwrap(),
            items: items
                .iter()
                .map(|(sku, quantity)| Item { sku: Sku::parse(*sku).unwrap(), quantity: *quantity })
                .collect(),
            payload: payload.map(|text| RawValue::from_string(text.into()).unwrap()),
            trace: traceparent.and_then(|parent| TraceContext::read(parent.as_bytes(), None)).map(Box::new),
            limits_by: None,
        }
    }

    #[test]
    fn frames_come_back_as_they_went_in() {
        let mut bytes = Vec::new();
        encode(&order("u1", &[("sku-1", 2)], Some(r#"{"note":"größer"}"#), None), &mut bytes);
        encode(&order("u2", &[("a", 1), ("b", u32::MAX)], None, Some(PARENT)), &mut bytes);
        let keys = BTreeMap::from([("household".to_owned(), "h1".to_owned()), ("card".to_owned(), "ä".to_owned())]);
        let counted = Order { limits_by: Some(Box::new(keys.clone())), ..order("u3", &[("a", 1)], Some("7"), None) };
        encode(&counted, &mut bytes);
        let frames = decode_all(&bytes).unwrap();
        assert_eq!(frames.len(), 3);
        assert_eq!(frames[2].limits_by.as_deref(), Some(&keys));
        assert_eq!(frames[2].payload.as_deref(), Some("7"));
        assert_eq!(frames[0].payload.as_deref(), Some(r#"{"note":"größer"}"#));
        assert_eq!(frames[1].items[1].quantity, u32::MAX);
        assert_eq!(frames[1].traceparent.as_deref(), Some(PARENT));
        assert_eq!(frames[1].payload, None);
    }

    proptest! {
        #[test]
        fn foreign_bytes_are_refused_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_all(&bytes);
        }
    }
}
