//! What must hold in Redis after every single write (failure-matrix: I1, I2, I5, I6, I7, I8, and half of I11).
//!
//! The ledger keeps a memory of its own of every order that ever stood in Redis, built from what the scripts left there;
//! each write must be a legal step from what was before.

use crate::model::db::Db;
use crate::model::object::Text;
use crate::model::stream::{Id, Stream};
use crate::world::plan::SalePlan;
use crate::world::records::Kept;
use rushline::domain::ids::SaleName;
use rushline::domain::reservation::{End, Move, State};
use rushline::store::frame;
use rushline::store::keys::Keys;
use std::collections::BTreeMap;
use std::time::Duration;

pub const SALE: &str = "s";
/// Most partitions a simulated sale ever has.
const PARTITIONS_MAX: u16 = 3;

/// The time of day in the world and, in ms, at Redis.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    pub world: Duration,
    pub redis_ms: u64,
}

pub struct Ledger {
    parts: Vec<Keys>,
    initial: BTreeMap<String, i64>,
    limit: Option<u32>,
    reserves: bool,
    pub orders: BTreeMap<String, Order>,
    began: bool,
    reserve_ms: u64,
    /// Units that could be had in the whole sale, by SKU, and since when (time of day).
    pub available: Vec<(Duration, BTreeMap<String, i64>)>,
}

#[derive(Debug, Clone)]
pub struct Order {
    pub part: usize,
    pub entry: Id,
    pub index: usize,
    pub buyer: String,
    pub items: Vec<(String, i64)>,
    pub payload: String,
    pub state: State,
    pub admitted_write: u64,
    /// Since which write its end is decided.
    pub ended_write: Option<u64>,
    /// Since which write nothing more will happen to it.
    pub final_write: Option<u64>,
    /// It has left Redis for the records.
    pub drained: bool,
}

/// Units of a SKU as some counters or some orders have them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sums {
    reserved: i64,
    sold: i64,
    archived: i64,
}

impl Ledger {
    pub fn new(sale: &SalePlan) -> Self {
        let name = SaleName::parse(SALE).expect("a valid name");
        Self {
            parts: (0..PARTITIONS_MAX).map(|number| Keys::new("rl:", &name, number)).collect(),
            initial: sale.items.iter().map(|(sku, units)| ((*sku).to_owned(), *units as i64)).collect(),
            limit: sale.limit,
            reserves: sale.reserve.is_some(),
            orders: BTreeMap::new(),
            began: false,
            reserve_ms: sale.reserve.map_or(0, |reserve| reserve.as_millis() as u64),
            available: Vec::new(),
        }
    }

    pub fn order(&self, gid: &str) -> Option<&Order> {
        self.orders.get(gid)
    }

    /// Since which write the order's end is written for good.
    pub fn end_written(&self, gid: &str) -> Option<u64> {
        self.orders.get(gid)?.final_write
    }

    /// The node whose entry it is by what Redis has.
    pub fn holder(&self, db: &Db, gid: &str) -> Option<String> {
        let order = self.orders.get(gid)?;
        let stream = db.stream(self.parts[order.part].intake.as_bytes()).ok()??;
        let pending = stream.groups.get(&b"delivery"[..])?.pending.get(&order.entry)?;
        Some(String::from_utf8_lossy(&pending.consumer).into_owned())
    }

    /// Units that a sale has, that were ever put into it.
    pub fn loaded(&self, db: &Db) -> BTreeMap<String, i64> {
        let mut loaded = self.initial.clone();
        let changes = db.hash(self.parts[0].changes.as_bytes()).ok().flatten();
        for change in changes.into_iter().flat_map(BTreeMap::values) {
            let text = String::from_utf8_lossy(change);
            let mut words = text.split(' ');
            if let (Some(sku), Some(_), Some(changed)) = (words.next(), words.next(), words.next()) {
                *loaded.entry(sku.to_owned()).or_default() += changed.parse::<i64>().unwrap_or_default();
            }
        }
        loaded
    }

    /// Looks at everything after a write. What is wrong, in words.
    pub fn look(&mut self, db: &Db, write: u64, now: Now, records: &BTreeMap<String, Kept>) -> Vec<String> {
        let mut wrong = Vec::new();
        if !self.began {
            // It begins with its first script, whole.
            self.began = db.keys.contains_key(self.parts[0].sale.as_bytes());
            if !self.began {
                return wrong;
            }
        }
        for number in 0..self.parts.len() {
            if db.keys.contains_key(self.parts[number].sale.as_bytes()) {
                self.look_at_orders(db, number, write, now.redis_ms, records, &mut wrong);
                self.look_at_units(db, number, &mut wrong);
            }
        }
        self.look_at_buyers(db, &mut wrong);
        self.look_at_transit(db, &mut wrong);
        self.note_available(db, now.world);
        for (key, kept) in &db.keys {
            if kept.expires_ms.is_some() && key.starts_with(b"rl:{s/") {
                wrong.push(format!("{} has a time to live", String::from_utf8_lossy(key)));
            }
        }
        wrong
    }

    fn look_at_orders(
        &mut self,
        db: &Db,
        number: usize,
        write: u64,
        redis_ms: u64,
        records: &BTreeMap<String, Kept>,
        wrong: &mut Vec<String>,
    ) {
        let keys = &self.parts[number];
        let nothing = Stream::default();
        let stream = |key: &str| db.stream(key.as_bytes()).ok().flatten();
        let intake = stream(&keys.intake).unwrap_or(&nothing);
        let outcome = db.hash(keys.outcome.as_bytes()).ok().flatten();
        let none = BTreeMap::new();
        let outcome = outcome.unwrap_or(&none);
        for (id, fields) in &intake.entries {
            let Some(codes) = outcome.get(id.to_string().as_bytes()) else {
                wrong.push(format!("entry {number}.{id} has no outcome"));
                continue;
            };
            let frames = frame::decode_all(&fields[0].1).unwrap_or_default();
            if frames.len() != codes.len() {
                wrong.push(format!("entry {number}.{id} has {} orders and {} outcomes", frames.len(), codes.len()));
            }
            for (index, (frame, code)) in frames.into_iter().zip(codes).enumerate() {
                let gid = format!("{SALE}.{number}.{id}.{index}");
                let Some(state) = State::of_code(*code) else {
                    wrong.push(format!("{gid} is `{}`, which is no state", char::from(*code)));
                    continue;
                };
                let order = self.orders.entry(gid.clone()).or_insert_with(|| Order {
                    part: number,
                    entry: *id,
                    index,
                    buyer: frame.buyer.as_str().to_owned(),
                    items: frame
                        .items
                        .iter()
                        .map(|item| (item.sku.as_str().to_owned(), i64::from(item.quantity)))
                        .collect(),
                    payload: frame.payload.clone().unwrap_or_default(),
                    state: State::SUBMITTED,
                    admitted_write: write,
                    ended_write: None,
                    final_write: None,
                    drained: false,
                });
                if order.drained {
                    wrong.push(format!("{gid} was forgotten and is there again"));
                }
                if order.state != state {
                    if !is_step(order.state, state, self.reserves) {
                        wrong.push(format!("{gid} went from {:?} to {state:?}", order.state));
                    }
                    let paid = matches!(state, State::Ended(End::Confirmed, _)) && order.state.is_open();
                    if self.reserves && paid && redis_ms >= id.ms + self.reserve_ms {
                        wrong.push(format!("{gid} is paid after its time"));
                    }
                    order.state = state;
                }
                if !state.is_open() {
                    order.ended_write.get_or_insert(write);
                }
                if state.is_final() {
                    order.final_write.get_or_insert(write);
                }
            }
            let pending = intake.groups.get(&b"delivery"[..]).is_some_and(|group| group.pending.contains_key(id));
            if codes.iter().any(|code| State::code_is_unanswered(*code)) && !pending {
                wrong.push(format!("entry {number}.{id} waits for the order service and nobody holds it"));
            }
            let text = id.to_string();
            let is_final = |code: &u8| State::of_code(*code).is_some_and(State::is_final);
            if codes.iter().all(is_final) && !mentions(stream(&keys.finished), &text) {
                wrong.push(format!("entry {number}.{id} has ended, and no notice says so"));
            }
            if codes.iter().any(|code| matches!(code, b'c' | b'x' | b'e')) && !mentions(stream(&keys.ends), &text) {
                wrong.push(format!("of entry {number}.{id} an end is to be told, and no message says so"));
            }
        }
        for (gid, order) in &mut self.orders {
            if order.part != number || order.drained || intake.entries.contains_key(&order.entry) {
                continue;
            }
            order.drained = true;
            if !order.state.is_final() {
                wrong.push(format!("{gid} is forgotten as {:?}", order.state));
            } else if records.get(gid).is_none_or(|record| record.status != order.state.status()) {
                wrong.push(format!("{gid} is forgotten and not in the records as {:?}", order.state.status()));
            }
        }
    }

    /// Conservation, and that the units of the orders are those of the counters.
    fn look_at_units(&self, db: &Db, number: usize, wrong: &mut Vec<String>) {
        let mut of_orders: BTreeMap<&str, Sums> = BTreeMap::new();
        for order in self.orders.values().filter(|order| order.part == number) {
            for (sku, units) in &order.items {
                let sums = of_orders.entry(sku).or_default();
                match order.state {
                    State::Open { .. } => sums.reserved += units,
                    State::Ended(End::Confirmed, _) => {
                        sums.sold += units;
                        sums.archived += if order.drained { *units } else { 0 };
                    }
                    _ => {}
                }
            }
        }
        let stock = db.hash(self.parts[number].stock.as_bytes()).ok().flatten();
        let Some(stock) = stock else { return };
        for sku in self.initial.keys() {
            let counter = |name: &str| {
                let text = stock.get(format!("{sku}:{name}").as_bytes());
                text.map_or(0, |text| String::from_utf8_lossy(text).parse::<i64>().unwrap_or(i64::MIN / 8))
            };
            let (loaded, available) = (counter("loaded"), counter("available"));
            let sums = Sums { reserved: counter("reserved"), sold: counter("sold"), archived: counter("archived") };
            if loaded != available + sums.reserved + sums.sold {
                wrong.push(format!("{sku} of partition {number}: {loaded} loaded, {available} available, {sums:?}"));
            }
            if [available, sums.reserved, sums.sold, sums.archived].iter().any(|units| *units < 0) {
                wrong.push(format!("{sku} of partition {number} is below zero: {available} available, {sums:?}"));
            }
            let expected = of_orders.get(sku.as_str()).copied().unwrap_or_default();
            if sums != expected {
                wrong
                    .push(format!("{sku} of partition {number}: {sums:?} by its counters, {expected:?} by its orders"));
            }
        }
    }

    /// Every buyer's units are those of the orders, and within the limit.
    fn look_at_buyers(&self, db: &Db, wrong: &mut Vec<String>) {
        let mut held: BTreeMap<(usize, String), i64> = BTreeMap::new();
        let mut of_buyer: BTreeMap<&str, i64> = BTreeMap::new();
        for order in self.orders.values() {
            if matches!(order.state, State::Open { .. } | State::Ended(End::Confirmed, _)) {
                let units: i64 = order.items.iter().map(|(_, units)| units).sum();
                *held.entry((order.part, order.buyer.clone())).or_default() += units;
                *of_buyer.entry(&order.buyer).or_default() += units;
            }
        }
        if let Some(limit) = self.limit {
            for (buyer, units) in of_buyer.iter().filter(|(_, units)| **units > i64::from(limit)) {
                wrong.push(format!("{buyer} has {units} units of {limit} at most"));
            }
        }
        for (number, keys) in self.parts.iter().enumerate() {
            let ledger = db.hash(keys.buyers.as_bytes()).ok().flatten();
            for (buyer, units) in ledger.into_iter().flatten() {
                let (buyer, units) = (String::from_utf8_lossy(buyer).into_owned(), String::from_utf8_lossy(units));
                let expected = held.remove(&(number, buyer.clone())).unwrap_or_default();
                if units.parse() != Ok(expected) {
                    wrong
                        .push(format!("{buyer} has {expected} units in partition {number}, and {units} by the ledger"));
                }
            }
        }
        for ((number, buyer), units) in held.iter().filter(|(_, units)| **units > 0) {
            wrong.push(format!("{buyer} has {units} units in partition {number}, and none by the ledger"));
        }
    }

    /// What left a partition and did not arrive is on its way, and nothing else is.
    fn look_at_transit(&self, db: &Db, wrong: &mut Vec<String>) {
        let mut sums: BTreeMap<String, i64> = BTreeMap::new();
        let hash = |key: &str| db.hash(key.as_bytes()).ok().flatten();
        let number = |text: &Text| String::from_utf8_lossy(text).parse::<i64>().unwrap_or_default();
        for (from, keys) in self.parts.iter().enumerate() {
            for sku in self.initial.keys() {
                let loaded = hash(&keys.stock).and_then(|stock| stock.get(format!("{sku}:loaded").as_bytes()));
                *sums.entry(sku.clone()).or_default() += loaded.map_or(0, number);
            }
            for (to, record) in hash(&keys.transit).into_iter().flatten() {
                let Ok(to) = String::from_utf8_lossy(to).parse::<usize>() else { continue };
                let record = String::from_utf8_lossy(record);
                let words: Vec<&str> = record.split(' ').collect();
                let [transfer, sku, units] = words[..] else { continue };
                let credited = self.parts.get(to).and_then(|keys| hash(&keys.credited));
                let credited = credited.and_then(|last| last.get(from.to_string().as_bytes())).map_or(0, number);
                if credited < transfer.parse().unwrap_or(i64::MAX) {
                    *sums.entry(sku.to_owned()).or_default() += units.parse::<i64>().unwrap_or_default();
                }
            }
        }
        for (sku, loaded) in self.loaded(db) {
            let found = sums.get(&sku).copied().unwrap_or_default();
            if found != loaded {
                wrong.push(format!("of {sku} {loaded} units were put into the sale, and {found} are in it"));
            }
        }
    }

    /// Units that nobody has, in all partitions and between them.
    fn note_available(&mut self, db: &Db, now: Duration) {
        let number = |text: &Text| String::from_utf8_lossy(text).parse::<i64>().unwrap_or_default();
        let mut sums = self.loaded(db);
        for keys in &self.parts {
            let stock = db.hash(keys.stock.as_bytes()).ok().flatten();
            for (sku, units) in &mut sums {
                let of = |name: &str| {
                    stock.and_then(|stock| stock.get(format!("{sku}:{name}").as_bytes())).map_or(0, number)
                };
                *units -= of("reserved") + of("sold");
            }
        }
        if self.available.last().is_none_or(|(_, last)| *last != sums) {
            self.available.push((now, sums));
        }
    }

    /// Was there a moment in this time at which so many units were not to be had?
    pub fn was_short(&self, sku: &str, units: i64, from: Duration, to: Duration) -> bool {
        self.available.iter().enumerate().any(|(at, (since, sums))| {
            let until = self.available.get(at + 1).map_or(Duration::MAX, |(next, _)| *next);
            *since <= to && until >= from && sums.get(sku).is_none_or(|available| *available < units)
        })
    }

    /// Redis came back with less. What nobody had heard of may be gone; the rest is as Redis has it now.
    pub fn rewind(&mut self, db: &Db, write: u64, now: Now) {
        let before = std::mem::take(&mut self.orders);
        let mut wrong = Vec::new();
        self.began = db.keys.contains_key(self.parts[0].sale.as_bytes());
        for number in 0..self.parts.len() {
            self.look_at_orders(db, number, write, 0, &BTreeMap::new(), &mut wrong);
        }
        self.note_available(db, now.world);
        for (gid, order) in before {
            match self.orders.get_mut(&gid) {
                Some(now) => {
                    now.admitted_write = order.admitted_write.min(now.admitted_write);
                    let earlier =
                        |now: Option<u64>, then: Option<u64>| now.map(|now| then.map_or(now, |then| then.min(now)));
                    now.ended_write = earlier(now.ended_write, order.ended_write);
                    now.final_write = earlier(now.final_write, order.final_write);
                }
                None if order.drained => {
                    self.orders.insert(gid, order);
                }
                None => {}
            }
        }
    }

    /// What of orders is left in Redis, by key.
    pub fn left(&self, db: &Db) -> Vec<String> {
        let mut left = Vec::new();
        for keys in &self.parts {
            for key in [&keys.intake, &keys.finished, &keys.ends] {
                let stream = db.stream(key.as_bytes()).ok().flatten();
                left.extend(
                    stream.filter(|stream| !stream.entries.is_empty()).map(|stream| format!("{key} {stream:?}")),
                );
            }
            let transit = db.hash(keys.transit.as_bytes()).ok().flatten();
            if transit.into_iter().flat_map(BTreeMap::keys).any(|key| !key.starts_with(b"last:")) {
                left.push(keys.transit.clone());
            }
        }
        left
    }
}

/// Does some entry of the stream have this id in it?
fn mentions(stream: Option<&Stream>, id: &str) -> bool {
    let words = |text: &Text| String::from_utf8_lossy(text).split(' ').any(|word| word == id);
    stream.is_some_and(|stream| stream.entries.values().any(|fields| fields.iter().any(|(_, text)| words(text))))
}

/// May an order go from one state to the other? One script moves an order once; a told end may follow the answer at once.
fn is_step(from: State, to: State, reserves: bool) -> bool {
    let after = |state: State, what| if reserves { state.after(what) } else { state.after_plain(what) };
    Move::ALL.into_iter().any(|what| after(from, what).is_some_and(|(next, _)| next == to))
}
