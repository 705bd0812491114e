//! The shop's decisions, honest but for one fault.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::fault::Fault;

/// Every so many orders a fault hits.
const SELDOM: u64 = 7;
/// Orders beyond the stock: more than the order service refuses of those that are under way at that moment.
const OVERSOLD_MAX: u64 = 12;

/// How a sale is set up.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    pub sale: String,
    pub stock: Vec<(String, u64)>,
    pub limit_per_buyer: Option<u64>,
    pub opens_unix_us: Option<u64>,
    pub closes_unix_us: Option<u64>,
    pub reserve_for_us: Option<u64>,
}

/// One order of the shop.
#[derive(Debug, Clone)]
pub struct Order {
    pub buyer: String,
    pub items: Vec<(String, u64)>,
    /// As rushline says it.
    pub status: &'static str,
}

/// Something that the order service is to be told.
#[derive(Debug, Clone)]
pub struct Call {
    pub gid: String,
    pub op: &'static str,
    pub body: Value,
    /// The shop's order that ends with the answer; a second order has none.
    pub ours: bool,
}

#[derive(Debug, Default)]
pub struct Sale {
    pub setup: Setup,
    pub fault: Option<Fault>,
    available: BTreeMap<String, i64>,
    loaded: BTreeMap<String, i64>,
    keys: HashMap<String, (Value, String)>,
    bought: HashMap<String, u64>,
    pub orders: BTreeMap<String, Order>,
    requests: u64,
    oversold: u64,
    /// Calls that are not answered yet.
    pub calls_open: u64,
    asked: HashMap<String, u64>,
}

/// Status, body, and if it is a repeat.
pub type Answer = (u16, Value, bool);

fn no(status: u16, code: &str) -> Answer {
    (status, json!({ "code": code }), false)
}

impl Sale {
    pub fn new(setup: Setup, fault: Fault) -> Self {
        let units = |(sku, units): &(String, u64)| (sku.clone(), i64::try_from(*units).unwrap_or(i64::MAX));
        let loaded: BTreeMap<_, _> = setup.stock.iter().map(units).collect();
        Self { setup, fault: Some(fault), available: loaded.clone(), loaded, ..Self::default() }
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// A fault that hits every now and then.
    fn now_and_then(&self, fault: Fault) -> bool {
        self.is(fault) && self.requests.is_multiple_of(SELDOM)
    }

    /// Decides one request; the calls are what the order service must hear.
    pub fn order(&mut self, now_us: u64, key: &str, body: &Value) -> (Answer, Vec<Call>) {
        self.requests += 1;
        let items = read_items(body);
        if self.is(Fault::StockBeforeKey) && self.short(&items) {
            return (no(409, "sold_out"), vec![]);
        }
        if let Some((earlier, gid)) = self.keys.get(key).filter(|_| !self.is(Fault::ForgetKeys)) {
            if earlier == body {
                return ((201, self.view(gid), !self.is(Fault::ForgetToMark)), vec![]);
            }
            if !self.is(Fault::ReuseKey) {
                return (no(422, "key_reused"), vec![]);
            }
        }
        let buyer = body["buyer"].as_str().unwrap_or_default().to_owned();
        if let Some(refusal) = self.refusal(now_us, &buyer, &items) {
            return (refusal, vec![]);
        }
        if self.now_and_then(Fault::ShareGid)
            && let Some(gid) = self.orders.keys().next_back().cloned()
        {
            return ((201, self.view(&gid), false), vec![]);
        }
        for (sku, quantity) in &items {
            *self.available.entry(sku.clone()).or_default() -= i64::try_from(*quantity).unwrap_or(i64::MAX);
        }
        *self.bought.entry(buyer.clone()).or_default() += items.iter().map(|(_, quantity)| quantity).sum::<u64>();
        let gid = format!("{}.0.1-0.{}", self.setup.sale, self.requests);
        self.keys.insert(key.into(), (body.clone(), gid.clone()));
        let status = if self.setup.reserve_for_us.is_some() { "reserved" } else { "submitted" };
        self.orders.insert(gid.clone(), Order { buyer, items, status });
        let calls = self.calls(&gid);
        self.calls_open += calls.len() as u64;
        if calls.is_empty() {
            self.orders.get_mut(&gid).expect("inserted above").status = "succeed";
        }
        let mut answer = (201, self.view(&gid), false);
        if self.now_and_then(Fault::SayNoAndSell) {
            answer = no(423, "paused");
            self.keys.remove(key);
        }
        (answer, calls)
    }

    fn short(&self, items: &[(String, u64)]) -> bool {
        let kept = if self.is(Fault::Withhold) { 5 } else { 0 };
        let left = |sku: &str| self.available.get(sku).copied().unwrap_or_default() - kept;
        items.iter().any(|(sku, quantity)| left(sku) < i64::try_from(*quantity).unwrap_or(i64::MAX))
    }

    fn refusal(&mut self, now_us: u64, buyer: &str, items: &[(String, u64)]) -> Option<Answer> {
        let Setup { limit_per_buyer, opens_unix_us, closes_unix_us, .. } = self.setup;
        let shut = opens_unix_us.is_some_and(|opens| now_us < opens) && !self.is(Fault::OpenEarly);
        if shut || opens_unix_us.is_some() && self.is(Fault::StayShut) {
            return Some(no(425, "not_open"));
        }
        let over = closes_unix_us.is_some_and(|closes| now_us >= closes) && !self.is(Fault::CloseLate);
        if over || closes_unix_us.is_some() && self.now_and_then(Fault::CloseEarly) {
            return Some(no(410, "closed"));
        }
        let asked: u64 = items.iter().map(|(_, quantity)| quantity).sum();
        let bought = self.bought.get(buyer).copied().unwrap_or_default();
        if limit_per_buyer.is_some_and(|limit| bought + asked > limit) && !self.is(Fault::IgnoreLimit) {
            return Some(no(409, "limit_reached"));
        }
        if self.short(items) {
            if self.is(Fault::Oversell) && self.oversold < OVERSOLD_MAX {
                self.oversold += 1;
                return None;
            }
            return Some(no(409, "sold_out"));
        }
        None
    }

    /// What the order service is to hear of a new order.
    fn calls(&mut self, gid: &str) -> Vec<Call> {
        if self.now_and_then(Fault::LoseOrder) {
            return vec![];
        }
        let order = &self.orders[gid];
        let (mut buyer, mut items) = (order.buyer.clone(), order.items.clone());
        if self.now_and_then(Fault::WrongQuantity) {
            items[0].1 += 1;
        }
        if self.now_and_then(Fault::WrongSku) {
            items[0].0.push_str("-other");
        }
        if self.now_and_then(Fault::WrongBuyer) {
            buyer = "buyer-1000000".into();
        }
        let op = if self.setup.reserve_for_us.is_some() { "try" } else { "action" };
        let call = |gid: &str, ours| Call {
            gid: gid.into(),
            op,
            body: service_body(gid, &self.setup.sale, &buyer, &items),
            ours,
        };
        let mut calls = vec![call(gid, true)];
        if self.now_and_then(Fault::MakeTwice) {
            calls.push(call(&format!("{gid}-again"), false));
        }
        calls
    }

    /// The order service has answered a call that makes an order.
    pub fn made(&mut self, gid: &str, refused: bool) {
        let Some(order) = self.orders.get_mut(gid) else { return };
        if !matches!(order.status, "submitted" | "reserved" | "confirmed") {
            return; // it ran out or was cancelled meanwhile
        }
        if !refused || self.fault == Some(Fault::TellTooEarly) {
            if order.status == "submitted" {
                order.status = "succeed";
            }
            return;
        }
        order.status = "failed";
        self.give_back(gid);
    }

    fn give_back(&mut self, gid: &str) {
        let order = self.orders[gid].clone();
        for (sku, quantity) in &order.items {
            if !self.is(Fault::LeakUnits) {
                *self.available.entry(sku.clone()).or_default() += i64::try_from(*quantity).unwrap_or(i64::MAX);
            }
            if !self.is(Fault::LimitLeaks) {
                *self.bought.entry(order.buyer.clone()).or_default() -= quantity;
            }
        }
    }

    /// Confirm, cancel or expire.
    pub fn end(&mut self, gid: &str, op: &'static str) -> (Answer, Option<Call>) {
        self.requests += 1;
        let Some(order) = self.orders.get(gid).cloned() else { return (no(404, "unknown_order"), None) };
        let end = match op {
            "confirm" => "confirmed",
            "cancel" => "cancelled",
            _ => "expired",
        };
        if order.status == end {
            return ((200, self.view(gid), true), None);
        }
        let lets_go = self.is(Fault::ReleaseConfirmed) && op == "expire" && order.status == "confirmed";
        if order.status != "reserved" && !lets_go {
            return (no(409, "order_ended"), None);
        }
        if op == "expire" && self.is(Fault::NeverExpire) {
            return (no(409, "order_ended"), None);
        }
        self.orders.get_mut(gid).expect("found above").status = end;
        if op == "cancel" && self.is(Fault::KeepCancelled) {
            return ((200, self.view(gid), false), None);
        }
        if op != "confirm" {
            self.give_back(gid);
        }
        self.calls_open += 1;
        let body = service_body(gid, &self.setup.sale, &order.buyer, &order.items);
        let op = if op == "confirm" { "confirm" } else { "cancel" };
        ((200, self.view(gid), false), Some(Call { gid: gid.into(), op, body, ours: false }))
    }

    pub fn restock(&mut self, sku: &str, units: i64) -> Answer {
        *self.loaded.entry(sku.into()).or_default() += units;
        if !self.is(Fault::ForgetRestock) {
            *self.available.entry(sku.into()).or_default() += units;
        }
        (200, json!({"sku": sku, "units": units}), false)
    }

    pub fn view(&self, gid: &str) -> Value {
        let order = &self.orders[gid];
        let items: Vec<Value> = order.items.iter().map(|(sku, n)| json!({"sku": sku, "quantity": n})).collect();
        json!({"gid": gid, "sale": self.setup.sale, "buyer": order.buyer, "status": order.status, "items": items})
    }

    /// `GET /v1/orders/{gid}`
    pub fn show(&mut self, gid: &str) -> Answer {
        if !self.orders.contains_key(gid) || self.is(Fault::ForgetOrders) {
            return no(404, "unknown_order");
        }
        let times = self.asked.entry(gid.into()).or_default();
        *times += 1;
        let back = *times > 1;
        let mut view = self.view(gid);
        if back && self.is(Fault::GoBack) && view["status"] == "succeed" {
            view["status"] = "submitted".into();
        }
        (200, view, false)
    }

    pub fn audit(&self) -> Value {
        let units = |sku: &str, statuses: &[&str]| -> i64 {
            let orders = self.orders.values().filter(|order| statuses.contains(&order.status));
            let items = orders.flat_map(|order| &order.items).filter(|(of, _)| of == sku);
            items.map(|(_, quantity)| i64::try_from(*quantity).unwrap_or(i64::MAX)).sum()
        };
        let cooked = i64::from(self.is(Fault::CookBooks));
        let items: Vec<Value> = (self.loaded.iter())
            .map(|(sku, loaded)| {
                let reserved = units(sku, &["submitted", "reserved"]);
                let sold = units(sku, &["succeed", "confirmed"]) + cooked;
                json!({"sku": sku, "loaded": loaded, "available": loaded - reserved - sold, "reserved": reserved,
                    "sold": sold, "records_units": sold, "service_units": null})
            })
            .collect();
        let count = |statuses: &[&str]| self.orders.values().filter(|order| statuses.contains(&order.status)).count();
        let settled = self.calls_open == 0 && count(&["submitted", "reserved"]) == 0;
        json!({"sale": self.setup.sale, "settled": settled || self.is(Fault::NeverExpire) && self.calls_open == 0,
            "drift": 0, "items": items, "orders_at_service": null,
            "records": {"succeed": count(&["succeed", "confirmed"]), "failed": count(&["failed", "cancelled", "expired"])}})
    }
}

fn read_items(body: &Value) -> Vec<(String, u64)> {
    let items = body["items"].as_array().map_or(&[][..], Vec::as_slice);
    items
        .iter()
        .map(|item| (item["sku"].as_str().unwrap_or_default().into(), item["quantity"].as_u64().unwrap_or(0)))
        .collect()
}

fn service_body(gid: &str, sale: &str, buyer: &str, items: &[(String, u64)]) -> Value {
    let items: Vec<Value> = items.iter().map(|(sku, n)| json!({"sku": sku, "quantity": n})).collect();
    json!({"gid": gid, "sale": sale, "buyer": buyer, "items": items, "payload": null})
}
