//! Random sequences of moves, on the table of `domain/reservation.rs` and on the script in a real Redis: every answer and
//! every counter is compared after each step. Two nodes move the same orders; one of them is often behind.

use crate::support::servers::RedisVersion;
use crate::support::shared;
use crate::support::twin::connect;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rushline::domain::ids::{Buyer, EntryId, SaleName, Sku};
use rushline::domain::order::{Item, Order};
use rushline::domain::reservation::{Move, Shift, State, confirmed_of};
use rushline::domain::sale::{Durability, Endpoint, NewSale, SaleStatus, Settings, Window};
use rushline::domain::stock::Stock;
use rushline::domain::terms::{Limit, Reserve, Terms};
use rushline::sale::reservations::add;
use rushline::store::keys::Keys;
use rushline::store::orders::{Address, Decision, Prepared};
use rushline::store::promise::Wait;
use rushline::store::redis::Redis;
use rushline::store::reservations::{Moved, Notes, Row, When};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const CASES: u32 = 32;
const LATER_MS: u64 = 4_000_000_000_000; // in the year 2096

pub struct Lives {
    pub redis: Arc<Redis>,
    pub keys: Keys,
    terms: Terms,
    raw: redis::aio::MultiplexedConnection,
    pub orders: Vec<Life>,
    stock: BTreeMap<String, Stock>,
    /// What each buyer holds, or has bought.
    held: BTreeMap<String, u64>,
    deadlines: BTreeMap<Address, u64>,
    told: BTreeSet<Address>,
}

#[derive(Clone)]
pub struct Life {
    pub address: Address,
    pub order: Order,
    pub state: State,
    pub part: Option<Vec<Item>>,
}

pub fn order(buyer: &str, items: &[(&str, u32)]) -> Order {
    let item = |(sku, quantity): &(&str, u32)| Item { sku: Sku::parse(*sku).unwrap(), quantity: *quantity };
    Order {
        key: None,
        buyer: Buyer::parse(buyer).unwrap(),
        items: items.iter().map(item).collect(),
        payload: None,
        trace: None,
        limits_by: None,
    }
}

impl Lives {
    pub async fn open(redis: Arc<Redis>, raw: redis::Client, stem: &str, units: &[(&str, u64)]) -> Self {
        let terms = Terms { reserve: Some(Reserve { for_ms: 1000, max_ms: 2000 }), ..Terms::default() };
        let settings = Settings {
            status: SaleStatus::Open,
            window: Window::default(),
            limit_per_buyer: None,
            endpoint: Endpoint::at("http://127.0.0.1:9/orders"),
            durability: Durability::Memory,
            webhook: None,
            terms: terms.clone(),
        };
        let name = SaleName::parse(shared::unique(stem)).unwrap();
        let items = units.iter().map(|(sku, units)| (Sku::parse(*sku).unwrap(), *units)).collect();
        let keys = Keys::new(redis.prefix(), &name, 0);
        redis.create_sale(&NewSale { sale: name, items, settings }, "body").await.unwrap();
        redis.ensure_telling(&keys).await.unwrap();
        Self {
            redis,
            keys,
            terms,
            raw: raw.get_multiplexed_async_connection().await.unwrap(),
            orders: Vec::new(),
            stock: units.iter().map(|(sku, units)| (sku.to_string(), Stock::of(*units))).collect(),
            held: BTreeMap::new(),
            deadlines: BTreeMap::new(),
            told: BTreeSet::new(),
        }
    }

    /// Admits a batch of which everybody wins.
    pub async fn admit(&mut self, batch: Vec<Order>) {
        let requests: Vec<Prepared> = batch.iter().cloned().map(Prepared::new).collect();
        let patience = Duration::from_secs(5);
        let mut lane = self.redis.lane();
        let admitted = self.redis.admit(&mut lane, &self.keys, "a", &requests, Wait::Nothing, patience).await.unwrap();
        for (order, decision) in batch.into_iter().zip(admitted.decisions) {
            let Decision::Admitted(address) = decision else { panic!("{decision:?}") };
            for item in &order.items {
                let stock = self.stock.get_mut(item.sku.as_str()).unwrap();
                stock.available -= u64::from(item.quantity);
                stock.reserved += u64::from(item.quantity);
                *self.held.entry(order.buyer.to_string()).or_default() += u64::from(item.quantity);
            }
            self.orders.push(Life { address, order, state: State::SUBMITTED, part: None });
        }
    }

    /// The row that a node sends which believes the order to be in `believed`.
    pub fn row(
        &self,
        life: &Life,
        believed: State,
        what: Move,
        part: Option<Vec<Item>>,
        when: When,
    ) -> Option<(Row, State, Shift)> {
        let (next, shift) = believed.after(what)?;
        let text = |state: State| char::from(state.code()).to_string();
        let mut row = Row::new(life.address.entry, life.address.index, text(believed), text(next), when);
        add(&mut row, &self.terms, &life.order, shift, part.as_deref());
        row.deadline_ms = (what == Move::Extend).then_some(LATER_MS);
        row.part = part.filter(|_| what == Move::Confirm);
        Some((row, next, shift))
    }

    /// One move by a node that may be behind, and which may come in time or not; then everything is compared.
    async fn step(&mut self, index: usize, believed: State, what: Move, paid: Option<u32>, in_time: bool) {
        let life = self.orders[index].clone();
        let when = match (what.timing(), in_time) {
            (rushline::domain::reservation::Timing::Any, _) => When::Any,
            (rushline::domain::reservation::Timing::BeforeDeadline, true) => When::Before(LATER_MS),
            (rushline::domain::reservation::Timing::BeforeDeadline, false) => When::Before(1),
            (rushline::domain::reservation::Timing::FromDeadline, true) => When::From(1),
            (rushline::domain::reservation::Timing::FromDeadline, false) => When::From(LATER_MS),
        };
        let part = match what {
            Move::Confirm => paid
                .filter(|paid| *paid < life.order.items[0].quantity)
                .map(|paid| vec![Item { quantity: paid, ..life.order.items[0].clone() }]),
            _ => life.part.clone(),
        };
        let Some((row, next, shift)) = self.row(&life, believed, what, part.clone(), when) else { return };
        let moved = self.redis.move_orders(&mut self.redis.lane(), &self.keys, &[row], Notes::default()).await.unwrap();
        let extended = life.state.is_extended();
        let expected = match when {
            _ if believed != life.state => None,
            When::Any => Some(Moved::Done),
            // An extended order has its own deadline, and that is far away.
            When::Before(_) if in_time || extended => Some(Moved::Done),
            When::From(_) if in_time && !extended => Some(Moved::Done),
            When::Before(_) => Some(Moved::TooLate),
            When::From(_) => Some(Moved::TooEarly),
        };
        match expected {
            Some(expected) => assert_eq!(moved[0], expected, "{what:?} of {:?}", life.state),
            None if moved[0] == Moved::Gone => assert!(self.is_over(life.address.entry)),
            None => assert!(
                matches!(&moved[0], Moved::Stale(outcome)
                if outcome.as_bytes()[usize::from(life.address.index)] == life.state.code()),
                "{moved:?}"
            ),
        }
        if moved[0] == Moved::Done {
            for item in &life.order.items {
                let units = shift.units(item.quantity, confirmed_of(item, part.as_deref()));
                let stock = self.stock.get_mut(item.sku.as_str()).unwrap();
                stock.available = stock.available.checked_add_signed(units.available).unwrap();
                stock.reserved = stock.reserved.checked_add_signed(units.reserved).unwrap();
                stock.sold = stock.sold.checked_add_signed(units.sold).unwrap();
                let held = self.held.get_mut(life.order.buyer.as_str()).unwrap();
                *held = held.checked_add_signed(-units.available).unwrap();
            }
            if what == Move::Extend {
                self.deadlines.insert(life.address, LATER_MS);
            } else if !next.is_extended() {
                self.deadlines.remove(&life.address);
            }
            let due = |state: State| matches!(state.code(), b'c' | b'x' | b'e');
            if due(next) {
                self.told.insert(life.address);
            }
            let life = &mut self.orders[index];
            life.state = next;
            life.part = part;
        }
        self.compare().await;
    }

    fn is_over(&self, entry: EntryId) -> bool {
        self.orders.iter().filter(|life| life.address.entry == entry).all(|life| life.state.is_final())
    }

    pub async fn compare(&mut self) {
        let counters = self.redis.stock(&self.keys).await.unwrap();
        for (sku, stock) in &self.stock {
            assert_eq!(counters[sku].stock, *stock, "{sku}");
            assert_eq!(stock.difference(), 0, "{sku}");
        }
        let mut outcomes: BTreeMap<String, String> = BTreeMap::new();
        for life in &self.orders {
            outcomes.entry(life.address.entry.to_string()).or_default().push(char::from(life.state.code()));
        }
        type Kept =
            (BTreeMap<String, u64>, BTreeMap<String, String>, Vec<(String, String, u64, u64)>, Vec<(String, u64)>);
        let (held, written, pending, deadlines): Kept = redis::pipe()
            .hgetall(&self.keys.buyers)
            .hgetall(&self.keys.outcome)
            .cmd("XPENDING")
            .arg(&self.keys.intake)
            .arg("delivery")
            .arg("-")
            .arg("+")
            .arg(1000)
            .cmd("ZRANGE")
            .arg(&self.keys.extended)
            .arg(0)
            .arg(-1)
            .arg("WITHSCORES")
            .query_async(&mut self.raw)
            .await
            .unwrap();
        let expected: BTreeMap<String, u64> =
            self.held.iter().filter(|(_, units)| **units > 0).map(|(buyer, units)| (buyer.clone(), *units)).collect();
        assert_eq!(held, expected, "units by buyer");
        assert_eq!(written, outcomes, "outcomes");
        let awaited: BTreeSet<String> = self
            .orders
            .iter()
            .filter(|life| life.state.is_unanswered())
            .map(|life| life.address.entry.to_string())
            .collect();
        let pending: BTreeSet<String> = pending.into_iter().map(|(id, ..)| id).collect();
        assert_eq!(pending, awaited, "an entry is claimed until its last order is made or refused");
        let expected: BTreeMap<String, u64> =
            self.deadlines.iter().map(|(address, ms)| (address.to_string(), *ms)).collect();
        assert_eq!(BTreeMap::from_iter(deadlines), expected, "extended orders");
    }

    /// Every end that somebody must be told of is in the stream of ends, once; every entry that is over is noticed, once.
    async fn compare_notes(&mut self) {
        let messages = self.redis.ends(&self.keys, "a", 10_000).await.unwrap();
        let told: Vec<Address> = messages.iter().flat_map(|message| message.orders.clone()).collect();
        assert_eq!(told.iter().copied().collect::<BTreeSet<_>>(), self.told, "ends to be told of");
        assert_eq!(told.len(), self.told.len(), "each once");
        let notices = self.redis.notices(&self.keys, "a", ">", 10_000).await.unwrap();
        let over: Vec<EntryId> = notices.iter().flat_map(|notice| notice.entries.clone()).collect();
        let expected: BTreeSet<EntryId> =
            self.orders.iter().map(|life| life.address.entry).filter(|entry| self.is_over(*entry)).collect();
        assert_eq!(over.iter().copied().collect::<BTreeSet<_>>(), expected, "entries that are over");
        assert_eq!(over.len(), expected.len(), "each once");
    }
}

#[derive(Debug, Clone)]
struct Step {
    order: prop::sample::Index,
    what: Move,
    /// What the node believes, if it is behind.
    behind: Option<prop::sample::Index>,
    paid: Option<u32>,
    in_time: bool,
}

fn step() -> impl Strategy<Value = Step> {
    (
        any::<prop::sample::Index>(),
        prop::sample::select(Move::ALL.to_vec()),
        prop::option::weighted(0.15, any::<prop::sample::Index>()),
        prop::option::of(1..3u32),
        prop::bool::weighted(0.8),
    )
        .prop_map(|(order, what, behind, paid, in_time)| Step { order, what, behind, paid, in_time })
}

fn agree(version: RedisVersion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = runtime.block_on(shared::redis(version));
    let redis = runtime.block_on(connect(&server));
    let raw = redis::Client::open(server.socket_url()).unwrap();
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let states: Vec<State> = State::all().collect();
    let played = runner.run(&prop::collection::vec(step(), 1..60), |steps| {
        runtime.block_on(async {
            let mut lives = Lives::open(redis.clone(), raw.clone(), "lives", &[("a", 50), ("b", 50)]).await;
            lives
                .admit(vec![order("u1", &[("a", 3), ("b", 1)]), order("u2", &[("a", 1)]), order("u1", &[("b", 2)])])
                .await;
            lives.admit(vec![order("u3", &[("a", 2)])]).await;
            lives.admit(vec![order("u2", &[("b", 2)]), order("u4", &[("a", 2), ("b", 2)])]).await;
            for Step { order, what, behind, paid, in_time } in steps {
                let index = order.index(lives.orders.len());
                let believed = behind.map_or(lives.orders[index].state, |behind| *behind.get(&states));
                lives.step(index, believed, what, paid, in_time).await;
            }
            lives.compare_notes().await;
        });
        Ok(())
    });
    if let Err(error) = played {
        panic!("{error}");
    }
}

#[test]
fn rules_and_script_agree_on_every_move_on_redis_7() {
    agree(RedisVersion::V7);
}

#[test]
fn rules_and_script_agree_on_every_move_on_redis_8() {
    agree(RedisVersion::V8);
}

/// The whole table, each state with each move, also where a node is behind.
#[tokio::test]
async fn every_move_in_every_state_does_what_the_table_says() {
    let server = shared::redis(RedisVersion::V7).await;
    let redis = connect(&server).await;
    let raw = redis::Client::open(server.socket_url()).unwrap();
    for path in paths() {
        for what in Move::ALL {
            let mut lives = Lives::open(redis.clone(), raw.clone(), "table", &[("a", 9)]).await;
            lives.admit(vec![order("u1", &[("a", 2)])]).await;
            for step in &path {
                let believed = lives.orders[0].state;
                lives.step(0, believed, *step, Some(1), true).await;
            }
            let before = lives.orders[0].state;
            for behind in [State::SUBMITTED, before] {
                lives.step(0, behind, what, None, false).await;
                lives.step(0, behind, what, None, true).await;
            }
            lives.compare_notes().await;
        }
    }
}

/// A way to each of the states.
fn paths() -> Vec<Vec<Move>> {
    let mut ways: BTreeMap<State, Vec<Move>> = BTreeMap::from([(State::SUBMITTED, Vec::new())]);
    let mut open = vec![State::SUBMITTED];
    while let Some(state) = open.pop() {
        for what in Move::ALL {
            // Expiry of what is extended to far away does not come.
            if state.is_extended() && what == Move::Expire {
                continue;
            }
            if let Some((next, _)) = state.after(what)
                && !ways.contains_key(&next)
            {
                ways.insert(next, [ways[&state].clone(), vec![what]].concat());
                open.push(next);
            }
        }
    }
    assert_eq!(ways.len(), State::all().count());
    ways.into_values().collect()
}

#[test]
fn a_limit_has_its_units_back_with_the_buyer() {
    let limits = vec![Limit { name: String::new(), by: "card".into(), skus: vec!["a".into()], units: 2 }];
    let terms = Terms { limits, ..Terms::default() };
    let mut counted = order("u1", &[("a", 2), ("b", 1)]);
    counted.limits_by = Some(Box::new(BTreeMap::from([("card".to_owned(), "4711".to_owned())])));
    let mut row = Row::new(EntryId { ms: 1, seq: 1 }, 0, ".".into(), "q".into(), When::Any);
    add(&mut row, &terms, &counted, Shift::Release, None);
    assert_eq!(row.buyers["u1"], -3);
    assert_eq!(row.limits["card:4711"], -2);
}
