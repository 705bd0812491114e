//! The stock rules in plain Rust: the yardstick that `lua/order_admit.lua` and its sisters are held against.
//!
//! Nothing calls this in production. `tests/it/` runs the same stories and the same random sequences on this ledger and
//! on the scripts in a real Redis, and compares every answer and every counter.

use super::sale::{SaleStatus, UNITS_MAX, Window};
use std::collections::HashMap;

/// Units of one SKU. `loaded = available + reserved + sold` holds after every step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stock {
    pub loaded: u64,
    pub available: u64,
    pub reserved: u64,
    pub sold: u64,
}

impl Stock {
    pub fn of(units: u64) -> Self {
        Self { loaded: units, available: units, ..Self::default() }
    }

    /// What the counters do not explain; anything but zero is an oversell or a leak.
    pub fn difference(&self) -> i128 {
        i128::from(self.loaded) - i128::from(self.available) - i128::from(self.reserved) - i128::from(self.sold)
    }
}

/// Is the sale selling, as its status and window say at this moment?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selling {
    Yes,
    NotOpen,
    Paused,
    Closed,
}

impl Selling {
    /// Closing, by the operator or by the window, outweighs a pause, and a pause a window that has not begun.
    pub fn at(now_ms: u64, status: SaleStatus, window: Window) -> Self {
        if status == SaleStatus::Closed || window.closes_ms.is_some_and(|closes_ms| now_ms >= closes_ms) {
            Selling::Closed
        } else if status == SaleStatus::Paused {
            Selling::Paused
        } else if window.opens_ms.is_some_and(|opens_ms| now_ms < opens_ms) {
            Selling::NotOpen
        } else {
            Selling::Yes
        }
    }
}

/// An order request as the rules see it. Names are plain text here: a yardstick needs no parsing.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    pub key: Option<&'a str>,
    /// Stands for the whole body: two requests with one key must agree on it.
    pub digest: u64,
    pub buyer: &'a str,
    pub items: &'a [(&'a str, u32)],
}

/// What a request hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The order's number in this ledger.
    Admitted(usize),
    /// The same request was admitted before, as this order.
    Replayed(usize),
    KeyReused,
    NotOpen,
    Paused,
    Closed,
    UnknownSku,
    LimitReached,
    SoldOut,
}

/// What a restock comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restock {
    /// By so many units; a withdrawal stops at zero available.
    Changed(i64),
    /// The same request was carried out before, with that result.
    Duplicate(i64),
    /// This request id asked for something else before.
    Reused,
    Closed,
    TooMany,
    UnknownSku,
}

#[derive(Debug, Clone)]
struct Admitted {
    buyer: String,
    items: Vec<(String, u32)>,
    ended: bool,
}

/// One sale.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    pub stock: HashMap<String, Stock>,
    /// Units over all SKUs that each buyer holds or has bought.
    pub bought: HashMap<String, u64>,
    pub limit: Option<u32>,
    requests: HashMap<String, (u64, usize)>,
    /// Request id → SKU, units asked, units changed.
    changes: HashMap<String, (String, i64, i64)>,
    orders: Vec<Admitted>,
}

impl Ledger {
    pub fn new(stock: &[(&str, u64)], limit: Option<u32>) -> Self {
        let stock = stock.iter().map(|(sku, units)| (sku.to_string(), Stock::of(*units))).collect();
        Self { stock, limit, ..Self::default() }
    }

    /// Decides one request. Replays are looked at first, stock last; a refusal changes nothing.
    pub fn admit(&mut self, request: &Request<'_>, selling: Selling) -> Decision {
        if let Some((digest, order)) = request.key.and_then(|key| self.requests.get(key)) {
            return if *digest == request.digest { Decision::Replayed(*order) } else { Decision::KeyReused };
        }
        match selling {
            Selling::Yes => {}
            Selling::NotOpen => return Decision::NotOpen,
            Selling::Paused => return Decision::Paused,
            Selling::Closed => return Decision::Closed,
        }
        if request.items.iter().any(|(sku, _)| !self.stock.contains_key(*sku)) {
            return Decision::UnknownSku;
        }
        let units: u64 = request.items.iter().map(|(_, quantity)| u64::from(*quantity)).sum();
        let bought = self.bought.get(request.buyer).copied().unwrap_or_default();
        if self.limit.is_some_and(|limit| bought + units > u64::from(limit)) {
            return Decision::LimitReached;
        }
        if request.items.iter().any(|(sku, quantity)| self.stock[*sku].available < u64::from(*quantity)) {
            return Decision::SoldOut;
        }
        // Checks end here, writes begin.
        for (sku, quantity) in request.items {
            let stock = self.stock.get_mut(*sku).expect("checked above");
            stock.available -= u64::from(*quantity);
            stock.reserved += u64::from(*quantity);
        }
        *self.bought.entry(request.buyer.to_string()).or_default() += units;
        let order = self.orders.len();
        self.orders.push(Admitted {
            buyer: request.buyer.to_string(),
            items: request.items.iter().map(|(sku, quantity)| (sku.to_string(), *quantity)).collect(),
            ended: false,
        });
        if let Some(key) = request.key {
            self.requests.insert(key.to_string(), (request.digest, order));
        }
        Decision::Admitted(order)
    }

    /// Ends an order: created (its units are sold) or refused (they go back). Says whether anything changed; an order
    /// ends once.
    pub fn finish(&mut self, order: usize, created: bool) -> bool {
        let Some(admitted) = self.orders.get_mut(order).filter(|order| !order.ended) else { return false };
        admitted.ended = true;
        for (sku, quantity) in &admitted.items {
            let stock = self.stock.get_mut(sku).expect("an admitted order's SKU is in stock");
            stock.reserved -= u64::from(*quantity);
            if created {
                stock.sold += u64::from(*quantity);
            } else {
                stock.available += u64::from(*quantity);
                *self.bought.get_mut(&admitted.buyer).expect("an admitted order's buyer is known") -=
                    u64::from(*quantity);
            }
        }
        true
    }

    /// Adds units, or withdraws them down to zero available, once for each `request_id`. A SKU that is not there yet
    /// begins with its first units.
    pub fn restock(&mut self, request_id: &str, sku: &str, units: i64, status: SaleStatus) -> Restock {
        if let Some((earlier_sku, asked, changed)) = self.changes.get(request_id) {
            let same = earlier_sku == sku && *asked == units;
            return if same { Restock::Duplicate(*changed) } else { Restock::Reused };
        }
        if status == SaleStatus::Closed {
            return Restock::Closed;
        }
        if !self.stock.contains_key(sku) && units <= 0 {
            return Restock::UnknownSku;
        }
        let stock = self.stock.get(sku).copied().unwrap_or_default();
        let changed = units.max(-i64::try_from(stock.available).unwrap_or(i64::MAX));
        let loaded = stock.loaded.saturating_add_signed(changed);
        if loaded > UNITS_MAX {
            return Restock::TooMany;
        }
        // Checks end here, writes begin.
        self.changes.insert(request_id.to_owned(), (sku.to_owned(), units, changed));
        let available = stock.available.saturating_add_signed(changed);
        self.stock.insert(sku.to_owned(), Stock { loaded, available, ..stock });
        Restock::Changed(changed)
    }

    /// Forgets who asked and who bought, as is done some time after closing. The stock stays.
    pub fn forget(&mut self) {
        self.requests.clear();
        self.bought.clear();
        self.changes.clear();
    }

    /// How many requests with a key are remembered.
    pub fn requests_remembered(&self) -> usize {
        self.requests.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask<'a>(key: Option<&'a str>, buyer: &'a str, items: &'a [(&'a str, u32)]) -> Request<'a> {
        Request { key, digest: 1, buyer, items }
    }

    #[test]
    fn the_last_unit_is_sold_once_and_its_buyer_hears_so_twice() {
        let mut ledger = Ledger::new(&[("a", 1)], None);
        assert_eq!(ledger.admit(&ask(Some("k1"), "u1", &[("a", 1)]), Selling::Yes), Decision::Admitted(0));
        assert_eq!(ledger.admit(&ask(Some("k2"), "u2", &[("a", 1)]), Selling::Yes), Decision::SoldOut);
        for selling in [Selling::Yes, Selling::NotOpen, Selling::Paused, Selling::Closed] {
            assert_eq!(ledger.admit(&ask(Some("k1"), "u1", &[("a", 1)]), selling), Decision::Replayed(0));
        }
    }

    #[test]
    fn an_order_ends_once() {
        let mut ledger = Ledger::new(&[("a", 3)], Some(2));
        ledger.admit(&ask(None, "u1", &[("a", 2)]), Selling::Yes);
        assert!(ledger.finish(0, false));
        assert!(!ledger.finish(0, true));
        assert_eq!(ledger.stock["a"], Stock::of(3));
        assert_eq!(ledger.bought["u1"], 0, "units of a refused order count against the limit no more");
        assert!(!ledger.finish(7, true), "there is no such order");
    }

    #[test]
    fn a_refusal_takes_nothing_of_any_item() {
        let mut ledger = Ledger::new(&[("a", 5), ("b", 1)], None);
        let before = ledger.stock.clone();
        assert_eq!(ledger.admit(&ask(None, "u1", &[("a", 1), ("b", 2)]), Selling::Yes), Decision::SoldOut);
        assert_eq!(ledger.admit(&ask(None, "u1", &[("a", 1), ("x", 1)]), Selling::Yes), Decision::UnknownSku);
        assert_eq!(ledger.stock, before);
        assert!(ledger.bought.is_empty());
    }

    #[test]
    fn closing_outweighs_a_pause_and_a_pause_the_window() {
        let window = Window { opens_ms: Some(10), closes_ms: Some(20) };
        let at = |now_ms, status| Selling::at(now_ms, status, window);
        assert_eq!(at(9, SaleStatus::Open), Selling::NotOpen);
        assert_eq!(at(10, SaleStatus::Open), Selling::Yes);
        assert_eq!(at(19, SaleStatus::Open), Selling::Yes);
        assert_eq!(at(20, SaleStatus::Open), Selling::Closed);
        assert_eq!(at(9, SaleStatus::Paused), Selling::Paused);
        assert_eq!(at(20, SaleStatus::Paused), Selling::Closed);
        assert_eq!(at(15, SaleStatus::Closed), Selling::Closed);
    }

    #[test]
    fn restocking_is_done_once_for_each_request() {
        let mut ledger = Ledger::new(&[("a", 2)], None);
        let mut restock = |id, sku, units| ledger.restock(id, sku, units, SaleStatus::Open);
        assert_eq!(restock("r1", "a", -5), Restock::Changed(-2));
        assert_eq!(restock("r1", "a", -5), Restock::Duplicate(-2));
        assert_eq!(restock("r1", "a", 5), Restock::Reused);
        assert_eq!(restock("r2", "b", -1), Restock::UnknownSku);
        assert_eq!(restock("r2", "b", 1), Restock::Changed(1));
        assert_eq!(restock("r3", "b", UNITS_MAX as i64), Restock::TooMany);
        assert_eq!(ledger.restock("r4", "a", 1, SaleStatus::Closed), Restock::Closed);
        assert_eq!(ledger.stock["a"].difference(), 0);
        assert_eq!(ledger.stock["b"], Stock::of(1));
    }
}
