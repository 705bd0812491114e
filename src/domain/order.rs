//! An order: what the buyer asked for, what became of it, and what is kept of it for ever.

use super::ids::{Buyer, Gid, IdempotencyKey, Invalid, Sku};
use super::trace::TraceContext;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// Most items (SKUs) that one order names. An order's items change in one script, so their number bounds its time.
pub const ITEMS_MAX: usize = 20;
/// Most units of one item in one order; far above any limit per buyer, far below what overflows a sum.
pub const QUANTITY_MAX: u32 = 1_000_000;

/// Some units of one SKU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Item {
    pub sku: Sku,
    /// Units, 1 to [`QUANTITY_MAX`].
    pub quantity: u32,
}

/// An order request that passed every check which needs no stock.
#[derive(Debug, Clone)]
pub struct Order {
    pub key: Option<IdempotencyKey>,
    pub buyer: Buyer,
    pub items: Vec<Item>,
    /// The shop's own JSON, handed to the order endpoint byte for byte.
    pub payload: Option<Box<RawValue>>,
    /// The trace that the buyer's request belongs to, so that the order service's spans join it.
    pub trace: Option<Box<TraceContext>>,
    /// What else it is counted by, for the limits of its sale: household, card, device … Most orders bring none.
    pub limits_by: Option<Box<BTreeMap<String, String>>>,
}

/// Checks the items of one order: 1 to [`ITEMS_MAX`], each SKU once, each quantity in range.
pub fn check_items(items: &[Item]) -> Result<(), Invalid> {
    if items.is_empty() || items.len() > ITEMS_MAX {
        return Err(Invalid::new("items", format!("must name 1 to {ITEMS_MAX} items, got {}", items.len())));
    }
    for (i, item) in items.iter().enumerate() {
        if item.quantity == 0 || item.quantity > QUANTITY_MAX {
            return Err(Invalid::new("quantity", format!("must be 1 to {QUANTITY_MAX}, got {}", item.quantity)));
        }
        if items[..i].iter().any(|earlier| earlier.sku == item.sku) {
            return Err(Invalid::new("items", format!("names {} twice; add the quantities up", item.sku)));
        }
    }
    Ok(())
}

/// How far an order is. The spellings are dtm's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Its units are taken; the order service has not answered for good yet.
    Submitted,
    /// The order exists; its units are sold.
    Succeed,
    /// The order service refused; its units went back.
    Failed,
    /// The order exists and waits for its payment; its units are held until then, or until its deadline.
    Reserved,
    /// A reservation that was given up; its units went back.
    Cancelled,
    /// A reservation that was not paid in time; its units went back.
    Expired,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Submitted => "submitted",
            Status::Succeed => "succeed",
            Status::Failed => "failed",
            Status::Reserved => "reserved",
            Status::Cancelled => "cancelled",
            Status::Expired => "expired",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        use Status::{Cancelled, Expired, Failed, Reserved, Submitted, Succeed};
        [Submitted, Succeed, Failed, Reserved, Cancelled, Expired].into_iter().find(|s| s.as_str() == text)
    }
}

/// What the records keep of a finished order, one row or document per gid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub gid: Gid,
    pub buyer: Buyer,
    /// What was ordered; of an order paid in part, what was paid.
    pub items: Vec<Item>,
    /// JSON text as the buyer sent it; `null` if there was none.
    pub payload: String,
    /// Neither `Submitted` nor `Reserved`: the unfinished have no record.
    pub status: Status,
    /// The order service's words when it refused; of an order paid in part, all that it was.
    pub reason: Option<String>,
    /// Calls made to the order endpoint, the last one included.
    pub attempts: u32,
    /// Milliseconds since 1970, by the clock of Redis.
    pub admitted_ms: u64,
    /// Milliseconds since 1970, by the clock of Redis.
    pub finished_ms: u64,
    /// What came back after the sale. Not written with the record: it comes later, see `reconciler/returns.rs`.
    pub returned: Vec<Item>,
}
