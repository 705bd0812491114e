//! What a run knows of itself: what buyers were told, what the order service was called with, and what was planned.
//!
//! The engine writes it (through [`Shard`], one a thread, no lock), the oracle and the report read it when the run is over.
//! Nothing here knows how a shop is asked: names of buyers, keys and SKUs are numbers here, and texts only at the border.
//!
//! Every time is microseconds since the run began ([`Plan::began_unix_us`]). An order has a *kind* (what was asked) and
//! an *outcome* (what was heard); what it means is the oracle's business.

mod pages;
mod recorder;

pub use pages::{Ledger, Place};
pub use recorder::{Asked, Counts, Heard, Recorder, Second, Shard};

use serde::{Deserialize, Serialize};

/// Microseconds since the run began.
pub type Micros = u64;

/// An order that the engine may send: an index into [`Plan::baskets`].
pub type BasketId = u32;

/// What was asked for, and of whom; all that is known before the run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Plan {
    /// When the run began, microseconds since 1970: it ties the clocks of other processes to this run's.
    pub began_unix_us: u64,
    /// [`Told::sale`] is an index into this.
    pub sales: Vec<SalePlan>,
    /// Everything that any buyer may ask for at once; [`Told::basket`] is an index into this. Made before the run, so that an
    /// order costs four bytes in the ledger.
    pub baskets: Vec<Basket>,
}

/// One sale, as it was set up and as it was changed while it ran.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SalePlan {
    pub name: String,
    /// SKUs and the units that each begins with.
    pub stock: Vec<Stock>,
    /// Units added (or, negative, withdrawn) later. The engine notes each when it was answered.
    #[serde(default)]
    pub restocks: Vec<Restock>,
    #[serde(default)]
    pub limit_per_buyer: Option<u32>,
    /// The window; may lie before the run's beginning.
    #[serde(default)]
    pub opens_us: Option<i64>,
    #[serde(default)]
    pub closes_us: Option<i64>,
    /// A reservation must be confirmed within this time, or its units go back; absent if orders are sold at once.
    #[serde(default)]
    pub reserve_for_us: Option<u64>,
}

/// Units of one SKU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stock {
    pub sku: String,
    pub units: u64,
}

/// A change of the stock while the sale runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restock {
    /// The request left us then: units may be on sale from this moment on.
    pub sent_us: Micros,
    /// It was answered then: they are on sale now at the latest. `None` if there was no answer.
    pub answered_us: Option<Micros>,
    pub sku: String,
    /// Negative withdraws.
    pub units: i64,
}

/// What one order is for. Empty for requests that name no SKU.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Basket {
    pub items: Vec<Item>,
}

/// Units of one SKU in an order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Item {
    pub sku: String,
    pub quantity: u32,
}

/// What a buyer asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// To have an order.
    Order,
    /// To have a reservation become a sale: the buyer paid.
    Confirm,
    /// To give it back.
    Cancel,
    /// What became of an order.
    Poll,
}

/// What a buyer heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// The units are theirs, and the order will be made. Also the answer to a [`Kind::Poll`] about such an order.
    Admitted { gid: &'a str },
    /// The order exists at the order service.
    Created { gid: &'a str },
    /// A [`Kind::Confirm`] or [`Kind::Cancel`] took effect.
    Done { gid: &'a str },
    /// No, and why: the shop's `code`. `order_refused` is the order service's no to an order that was admitted before; it
    /// is also what a [`Kind::Poll`] hears about a failed order.
    Refused { reason: &'a str },
    /// No answer that a buyer understands: time ran out, the connection broke, or the answer was 5xx. The order may
    /// exist or not; a buyer with sense asks again with the same key.
    Unknown { error: &'a str },
}

/// One answer that one buyer heard, or waited for in vain.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    pub kind: Kind,
    /// The buyer wanted to ask then; latency counts from here.
    pub intended_us: Micros,
    /// The request left then. `sent - intended` is the harness's own lateness.
    pub sent_us: Micros,
    /// The answer was there, or the buyer gave up waiting.
    pub answered_us: Micros,
    /// The buyer's number; [`buyer_name`] is what was sent.
    pub buyer: u32,
    /// Index into [`Plan::sales`].
    pub sale: u16,
    /// The idempotency key's number; [`key_text`] is what was sent. 0: the request had none.
    pub key: u64,
    /// Index into [`Plan::baskets`].
    pub basket: BasketId,
    /// 1 for the first request with this key, 2 for the second …
    pub attempt: u16,
    /// The HTTP status; 0 if there was no answer.
    pub status: u16,
    /// The shop said that it had answered this key before.
    pub replayed: bool,
    /// The order that a confirm, cancel or poll was about.
    pub about: Option<&'a str>,
    pub outcome: Outcome<'a>,
}

impl<'a> Told<'a> {
    /// The order that this answer promises, confirms or ends; `None` for a no and for silence.
    pub fn gid(&self) -> Option<&'a str> {
        match self.outcome {
            Outcome::Admitted { gid } | Outcome::Created { gid } | Outcome::Done { gid } => Some(gid),
            Outcome::Refused { .. } | Outcome::Unknown { .. } => None,
        }
    }

    pub fn latency_us(&self) -> Micros {
        self.answered_us.saturating_sub(self.intended_us)
    }
}

/// One order in one call that the order service got. A bulk call is as many of these as it had orders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Called {
    /// When the call came.
    pub at_us: Micros,
    /// When it was answered, or was to be: a lost reply has a time too.
    pub answered_us: Micros,
    pub gid: String,
    pub sale: String,
    /// As the call names the buyer, not as we know that it should.
    pub buyer: String,
    pub items: Vec<Item>,
    /// `action` makes an order, `try` one that is to be confirmed; `confirm` and `cancel` tell how that ended.
    pub op: String,
    pub answer: ServiceAnswer,
}

/// What the order service did with an order, and said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceAnswer {
    /// Made the order (or noted the confirm or cancel), and said so.
    Made,
    /// Had made it before, and said so.
    Again,
    /// Refused it, for good, and said so.
    Refused,
    /// Made it, and the reply was lost on purpose.
    Lost,
    /// Answered 425 or 5xx; nothing was made.
    NotNow,
}

/// What the shop itself said of its stock while the run went on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockSample {
    pub at_us: Micros,
    pub sku: String,
    pub available: i64,
    pub reserved: i64,
    pub sold: i64,
}

/// The name under which buyer `number` asks.
pub fn buyer_name(number: u32) -> String {
    format!("buyer-{number}")
}

/// The opposite of [`buyer_name`].
pub fn buyer_number(name: &str) -> Option<u32> {
    name.strip_prefix("buyer-")?.parse().ok()
}

/// The idempotency key with number `key`. The engine makes numbers by [`key_of`].
pub fn key_text(key: u64) -> String {
    format!("k{key}")
}

/// The number of the `nth` key (from 1) of a buyer: two buyers never share one.
pub fn key_of(buyer: u32, nth: u32) -> u64 {
    u64::from(buyer) << 32 | u64::from(nth)
}
