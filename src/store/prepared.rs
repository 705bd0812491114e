//! An order request as the admission script reads it.

use super::frame;
use super::lost::Kept;
use crate::domain::ids::IdempotencyKey;
use crate::domain::order::Order;
use crate::domain::terms::{Counted, Terms};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// A request ready for the script: its frame and digests are made before it queues, outside the batcher.
#[derive(Debug)]
pub struct Prepared {
    pub order: Order,
    pub(super) frame: Vec<u8>,
    /// 96 bits of SHA-256 of the idempotency key, if there is one. Kept for every order of the sale, so no longer
    /// than needed: to meet another's key by chance takes 2^48 orders, and nobody can aim at one.
    key_digest: Option<KeyDigest>,
    /// 64 bits of SHA-256 over buyer, items and payload.
    pub(super) body_digest: [u8; 8],
    /// By how many partitions it was routed.
    pub partitions: u16,
    /// Its buyer's home is elsewhere by now; it came because the ledger was here.
    pub visitor: bool,
    /// What it is counted by beyond the limit per buyer; nothing in most sales.
    pub(super) counted: Vec<Counted>,
}

/// What an idempotency key is kept as: 96 bits of its SHA-256.
pub type KeyDigest = [u8; 12];

pub fn key_digest(key: &IdempotencyKey) -> KeyDigest {
    let mut digest = [0; 12];
    digest.copy_from_slice(&Sha256::digest(key.as_str().as_bytes())[..12]);
    digest
}

impl Prepared {
    pub fn new(order: Order) -> Self {
        let mut frame = Vec::with_capacity(96 + order.payload.as_ref().map_or(0, |payload| payload.get().len()));
        frame::encode(&order, &mut frame);
        let (mut key_digest, mut body_digest) = (None, [0; 8]);
        if let Some(key) = &order.key {
            key_digest = Some(self::key_digest(key));
            // The trace context may differ between two tries of one request; all else may not.
            let mut hash = Sha256::new();
            hash.update(order.buyer.as_str().as_bytes());
            for item in &order.items {
                hash.update([0]);
                hash.update(item.sku.as_str().as_bytes());
                hash.update([0]);
                hash.update(item.quantity.to_be_bytes());
            }
            hash.update([1]);
            hash.update(order.payload.as_ref().map_or("", |payload| payload.get()).as_bytes());
            for (name, value) in order.limits_by.iter().flat_map(|keys| keys.iter()) {
                hash.update([2]);
                hash.update(name.as_bytes());
                hash.update([0]);
                hash.update(value.as_bytes());
            }
            body_digest.copy_from_slice(&hash.finalize()[..8]);
        }
        Self { order, frame, key_digest, body_digest, partitions: 1, visitor: false, counted: Vec::new() }
    }

    /// Has it counted by the further limits of its sale, which were checked when it came in.
    pub fn counted_by(mut self, terms: &Terms) -> Self {
        if !terms.limits.is_empty() {
            let none = BTreeMap::new();
            let keys = self.order.limits_by.as_deref().unwrap_or(&none);
            self.counted = terms.counted(self.order.buyer.as_str(), keys, &self.order.items).unwrap_or_default();
        }
        self
    }

    pub(super) fn key_digest(&self) -> &[u8] {
        self.key_digest.as_ref().map_or(&[], |digest| &digest[..])
    }

    /// The order, and what it is brought back from should Redis lose it.
    pub fn split(self) -> (Order, Kept) {
        (self.order, Kept { key: self.key_digest, body: self.body_digest, frame: self.frame })
    }
}

/// Whether a batch of replays must write, and for a sale of several partitions how the batch was routed.
pub(super) fn routing(batch: &[Prepared], must_write: bool) -> String {
    let flag = if must_write { "1" } else { "0" };
    match batch.first().map_or(1, |first| first.partitions) {
        1 => flag.to_owned(),
        partitions if batch.iter().any(|request| request.visitor) => {
            let visitors: String = batch.iter().map(|request| if request.visitor { '1' } else { '0' }).collect();
            format!("{flag} {partitions} {visitors}")
        }
        partitions => format!("{flag} {partitions}"),
    }
}
