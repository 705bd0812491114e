//! Why something came out as it did: an outcome in a sentence, and the evidence for it, line by line.
//!
//! Nothing is stored for this. What Redis and the records have says it; of a buyer who was refused they have nothing (law
//! L11), so there the memory of the node that was asked is all the evidence there is, and the answer says so.

mod buyer;
mod order;

pub use buyer::show as of_buyer;
pub use order::show as of_order;

use super::wire::{OrderView, time};
use crate::domain::order::Item;
use jiff::Timestamp;
use serde::Serialize;

/// One thing that is known.
#[derive(Debug, Serialize)]
pub struct Evidence {
    /// When it happened, if that is known.
    pub at: Option<Timestamp>,
    pub what: String,
    /// Who says so: a key in Redis, the records, the memory of a node.
    pub source: String,
}

impl Evidence {
    fn new(at_ms: Option<u64>, source: impl Into<String>, what: impl Into<String>) -> Self {
        Self { at: time(at_ms), what: what.into(), source: source.into() }
    }

    fn at(at: Option<Timestamp>, source: impl Into<String>, what: impl Into<String>) -> Self {
        Self { at, what: what.into(), source: source.into() }
    }
}

fn items(items: &[Item]) -> String {
    items.iter().map(|item| format!("{} × {}", item.quantity, item.sku)).collect::<Vec<_>>().join(", ")
}

/// What became of an order, in a sentence that begins with "it" or the like left out.
fn outcome(order: &OrderView) -> String {
    use crate::domain::order::Status;
    let what = items(&order.items);
    let why = order.last_error.as_deref().map(|error| format!(": {error}")).unwrap_or_default();
    match order.status {
        Status::Submitted if order.attempts == 0 => {
            format!("{what} taken; the order service has not answered yet")
        }
        Status::Submitted => format!(
            "{what} taken; the order service was called {} times and has not answered for good{why}. It is called until it does",
            order.attempts
        ),
        Status::Reserved => match order.reserved_until {
            Some(until) => format!("{what} held; the payment is waited for until {until}"),
            None => format!("{what} held; the payment is waited for"),
        },
        Status::Succeed => format!("{what} sold: the order service made the order"),
        Status::Failed => format!("the order service refused the order{why}; its units went back on sale"),
        Status::Cancelled => "the reservation was given up; its units went back on sale".into(),
        Status::Expired => "the reservation was not paid in time; its units went back on sale".into(),
    }
}
