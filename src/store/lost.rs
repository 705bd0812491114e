//! What an admission leaves in this node's memory, so that it can be brought back should Redis lose it; and its form in the
//! `lost` hash, where nodes put together what they remember.
//!
//! ```text
//! packed = count u16 · count times: key length u8 (0 or 12) · key digest · body digest (8 bytes) · frames
//! ```

use super::frame::{self, Frame};
use super::orders::KeyDigest;
use crate::domain::ids::EntryId;
use crate::domain::order::Order;

/// One admitted order: all that the script wrote of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub key: Option<KeyDigest>,
    pub body: [u8; 8],
    pub frame: Vec<u8>,
}

impl Kept {
    /// Of an order that another node admitted: its key is in Redis only.
    pub fn of(order: &Order) -> Self {
        let mut frame = Vec::new();
        frame::encode(order, &mut frame);
        Self { key: None, body: [0; 8], frame }
    }
}

/// An entry that Redis has lost, as a node remembered it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostEntry {
    pub id: EntryId,
    pub orders: Vec<LostOrder>,
    /// As the entry keeps them.
    pub frames: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostOrder {
    pub key: Option<KeyDigest>,
    pub body: [u8; 8],
    pub frame: Frame,
}

pub fn pack(orders: &[Kept]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(2 + orders.iter().map(|order| 21 + order.frame.len()).sum::<usize>());
    packed.extend_from_slice(&(orders.len() as u16).to_be_bytes());
    for order in orders {
        let key: &[u8] = order.key.as_ref().map_or(&[], |key| &key[..]);
        packed.push(key.len() as u8);
        packed.extend_from_slice(key);
        packed.extend_from_slice(&order.body);
    }
    for order in orders {
        packed.extend_from_slice(&order.frame);
    }
    packed
}

/// `None` for what [`pack`] does not write.
pub fn unpack(id: EntryId, packed: &[u8]) -> Option<LostEntry> {
    let (count, mut rest) = packed.split_first_chunk::<2>()?;
    let mut keys = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, after) = rest.split_first()?;
        let (key, after) = after.split_at_checked(usize::from(*length))?;
        let key = if key.is_empty() { None } else { Some(KeyDigest::try_from(key).ok()?) };
        let (body, after) = after.split_first_chunk::<8>()?;
        keys.push((key, *body));
        rest = after;
    }
    let frames = frame::decode_all(rest)?;
    if frames.len() != keys.len() {
        return None;
    }
    let orders = keys.into_iter().zip(frames).map(|((key, body), frame)| LostOrder { key, body, frame }).collect();
    Some(LostEntry { id, orders, frames: rest.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{Buyer, Sku};
    use crate::domain::order::Item;
    use proptest::prelude::*;

    fn kept(buyer: &str, key: Option<KeyDigest>) -> Kept {
        let order = Order {
            key: None,
            buyer: Buyer::parse(buyer).unwrap(),
            items: vec![Item { sku: Sku::parse("a").unwrap(), quantity: 300 }],
            payload: None,
            trace: None,
            limits_by: None,
        };
        let mut frame = Vec::new();
        frame::encode(&order, &mut frame);
        Kept { key, body: *b"12345678", frame }
    }

    #[test]
    fn an_entry_comes_back_as_it_was_remembered() {
        let orders = [kept("u1", Some([7; 12])), kept("u2", None)];
        let id = EntryId { ms: 5, seq: 1 };
        let back = unpack(id, &pack(&orders)).unwrap();
        assert_eq!((back.id, back.orders.len()), (id, 2));
        assert_eq!((back.orders[0].key, back.orders[1].key), (Some([7; 12]), None));
        assert_eq!(back.orders[1].frame.buyer.as_str(), "u2");
        assert_eq!(back.frames, [orders[0].frame.clone(), orders[1].frame.clone()].concat());
    }

    proptest! {
        #[test]
        fn foreign_bytes_are_refused_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = unpack(EntryId { ms: 1, seq: 0 }, &bytes);
        }
    }
}
