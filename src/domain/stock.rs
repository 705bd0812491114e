//! The stock rules in plain Rust: the yardstick that `lua/order_admit.lua` and its sisters are held against.
//!
//! Nothing calls this in production. `tests/it/` runs the same stories and the same random sequences on this ledger and
//! on the scripts in a real Redis, and compares every answer and every counter.

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

    /// Adds units, or withdraws them down to zero available. Answers what really changed.
    pub fn restock(&mut self, sku: &str, units: i64) -> Option<i64> {
        let stock = self.stock.get_mut(sku)?;
        let change = units.max(-i64::try_from(stock.available).unwrap_or(i64::MAX));
        stock.loaded = stock.loaded.saturating_add_signed(change);
        stock.available = stock.available.saturating_add_signed(change);
        Some(change)
    }
}
