//! Random sequences of what a node does with Redis, by the functions that it does it with. Few names, so that they meet.

use crate::tee::Tee;
use redis::Value;
use rushline::domain::change::Note;
use rushline::domain::ids::{Buyer, EntryId, IdempotencyKey, SaleName, Sku};
use rushline::domain::order::{Item, Order};
use rushline::domain::reservation::{Move, State};
use rushline::domain::sale::{Durability, Endpoint, NewSale, SaleStatus, Settings, Window};
use rushline::domain::terms::{Limit, Reserve, Terms};
use rushline::outside::Inside;
use rushline::sale::reservations::add;
use rushline::store::keys::Keys;
use rushline::store::orders::{Address, Detail, Finish, Prepared, Sums};
use rushline::store::place::Tls;
use rushline::store::promise::Wait;
use rushline::store::redis::Redis;
use rushline::store::reservations::{Notes, Row, When};
use rushline::store::{redis as store, scripts, transfer::Transit};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

const NODES: [&str; 2] = ["n1", "n2"];

/// One sale's life, until so many operations are done.
pub async fn round(tee: &Arc<Tee>, seed: u64, until: u64) {
    let hand = Arc::clone(tee);
    Inside::new(tee.clone(), async move {
        let settings = store::Settings {
            url: "redis://both:6379".into(),
            tls: Tls::default(),
            prefix: "rl:".into(),
            connections: 1,
            timeout: Duration::from_secs(5),
            rewrite_after_load: false,
        };
        let redis = Redis::connect(settings).await.unwrap();
        let rng = fastrand::Rng::with_seed(seed);
        let mut round = Round { redis, rng, terms: Terms::default(), keys: Vec::new(), entries: Vec::new() };
        round.begin().await;
        while hand.operations() < until {
            round.step().await;
        }
    })
    .await;
}

struct Round {
    redis: Arc<Redis>,
    rng: fastrand::Rng,
    terms: Terms,
    keys: Vec<Keys>,
    /// Entries there were, by partition.
    entries: Vec<(usize, EntryId, Vec<Order>)>,
}

impl Round {
    async fn begin(&mut self) {
        let name = SaleName::parse("c").unwrap();
        self.keys = (0..2).map(|number| Keys::new("rl:", &name, number)).collect();
        self.terms = Terms {
            reserve: self.rng.bool().then_some(Reserve { for_ms: 100, max_ms: 1_000 }),
            limits: if self.rng.bool() {
                vec![Limit { name: String::new(), by: "buyer".into(), skus: vec!["a".into()], units: 3 }]
            } else {
                Vec::new()
            },
            returns_free_limits: true,
        };
        let settings = Settings {
            status: SaleStatus::Open,
            window: Window::default(),
            limit_per_buyer: self.rng.bool().then_some(4),
            endpoint: Endpoint::at("http://shop/"),
            durability: Durability::Memory,
            webhook: None,
            terms: self.terms.clone(),
        };
        let items = vec![(Sku::parse("a").unwrap(), 9), (Sku::parse("b").unwrap(), 20)];
        let new = NewSale { sale: name, items, settings };
        let _ = self.redis.create_sale(&new, "{}").await;
        if self.rng.bool() {
            let _ = self.redis.grow_sale(&self.keys[0], 2).await;
            if let Ok(fields) = self.redis.sale_fields(&self.keys[0]).await {
                let _ = self.redis.spread_sale(&self.keys[1], &fields).await;
            }
        }
        for keys in &self.keys {
            let _ = self.redis.ensure_telling(keys).await;
        }
    }

    fn part(&mut self) -> usize {
        usize::from(self.rng.u32(0..3) == 0)
    }

    fn node(&mut self) -> &'static str {
        NODES[self.rng.usize(0..NODES.len())]
    }

    fn sku(&mut self) -> Sku {
        Sku::parse(["a", "a", "b", "new"][self.rng.usize(0..4)]).unwrap()
    }

    fn order(&mut self) -> Order {
        let mut items = vec![Item { sku: self.sku(), quantity: self.rng.u32(1..=3) }];
        let other = Item { sku: self.sku(), quantity: 1 };
        if items[0].sku != other.sku && self.rng.u32(0..3) == 0 {
            items.push(other);
        }
        let key = self.rng.u32(0..12);
        Order {
            key: (key < 9).then(|| IdempotencyKey::parse(format!("k{key}")).unwrap()),
            buyer: Buyer::parse(format!("u{}", self.rng.u32(0..4))).unwrap(),
            items,
            payload: None,
            trace: None,
            limits_by: None,
        }
    }

    /// Some entry, with the place in its partition.
    fn entry(&mut self) -> (usize, EntryId, Vec<Order>) {
        match self.entries.is_empty() {
            true => (0, EntryId { ms: 1, seq: 1 }, vec![self.order()]),
            false => self.entries[self.rng.usize(0..self.entries.len())].clone(),
        }
    }

    fn address(&mut self) -> (usize, Address) {
        let (part, entry, orders) = self.entry();
        (part, Address { entry, index: self.rng.usize(0..orders.len()) as u16 })
    }

    async fn step(&mut self) {
        let (redis, part) = (self.redis.clone(), self.part());
        let keys = self.keys[part].clone();
        let (node, sku) = (self.node(), self.sku());
        let short = Duration::from_millis(self.rng.u64(0..4));
        match self.rng.u32(0..25) {
            0..=3 => self.admit(part).await,
            4..=6 => self.finish().await,
            7..=9 => self.move_orders().await,
            10 => self.drain().await,
            11 => {
                let (part, address) = self.address();
                let detail = Detail { attempts: 2, message: Some("busy".into()) };
                let _ = redis.note_retries(&mut redis.lane(), &self.keys[part], &[(address, short, detail)]).await;
                let _ = redis.details(&self.keys[part], &[address]).await;
            }
            12 => {
                let (part, entry, _) = self.entry();
                let _ = redis.renew(&mut redis.lane(), &self.keys[part], node, &[entry]).await;
                let _ = redis.hand_over(&mut redis.lane(), &self.keys[part], node, &[entry], short).await;
            }
            13 => drop(redis.take_over(&keys, node, short, "0-0", 2).await),
            14 => {
                let _ = redis.notices(&keys, node, [">", "0"][self.rng.usize(0..2)], 2).await;
                let _ = redis.old_notices(&keys, node, short, 2).await;
                let _ = redis.take_over_notices(&keys, node, short, 2).await;
            }
            15 => {
                let request = format!("change{}", self.rng.u32(0..4));
                let units = self.rng.i64(-4..5);
                let note = Note::new("who", "why").unwrap();
                let _ = redis.add_stock(&keys, &sku, units, &request, &note).await;
                let _ = redis.stock(&keys).await;
            }
            16 => self.transfer(&sku).await,
            17 => drop(redis.look(&self.keys.iter().collect::<Vec<_>>(), &[sku]).await),
            18 => {
                let (_, entry, _) = self.entry();
                let to = self.rng.bool().then_some(entry);
                let _ = redis.claim_expiry(&keys, node, short, to).await;
                let _ = redis.entries_after(&keys, to, None, 2).await;
                let _ = redis.next_entry_ms(&keys, to).await;
            }
            19 => {
                let _ = redis.ends(&keys, node, 2).await;
                let taken = redis.take_over_ends(&keys, node, short, 2).await.unwrap_or_default();
                let ids: Vec<EntryId> = taken.iter().map(|message| message.id).collect();
                let _ = redis.keep_ends(&keys, node, &ids).await;
                if self.rng.bool() && !ids.is_empty() {
                    let _ = redis.forget_ends(&keys, &ids).await;
                }
            }
            20 => {
                let _ = redis.pulse(&keys, &[sku], true).await;
                let _ = redis.backlog(&keys).await;
                let _ = redis.touch_sale(&mut redis.lane(), &keys).await;
            }
            21 => self.change_sale().await,
            22 => self.order_return().await,
            _ => self.transactions().await,
        }
    }

    async fn admit(&mut self, part: usize) {
        let partitions = if self.rng.u32(0..3) == 0 { 2 } else { 1 };
        let orders: Vec<Order> = (0..self.rng.usize(1..=6)).map(|_| self.order()).collect();
        let batch: Vec<Prepared> = orders
            .iter()
            .map(|order| {
                let mut request = Prepared::new(order.clone()).counted_by(&self.terms);
                request.partitions = partitions;
                request.visitor = partitions > 1 && self.rng.u32(0..4) == 0;
                request
            })
            .collect();
        let (node, keys) = (self.node(), self.keys[part].clone());
        let wait = Wait::Nothing;
        let admitted =
            self.redis.admit(&mut self.redis.lane(), &keys, node, &batch, wait, Duration::from_secs(1)).await;
        if let Ok(admitted) = admitted
            && let Some(entry) = admitted.entry
        {
            let is_in = |decision| matches!(decision, rushline::store::orders::Decision::Admitted(_));
            let won = orders.into_iter().zip(admitted.decisions).filter(|(_, decision)| is_in(*decision));
            self.entries.push((part, entry, won.map(|(order, _)| order).collect()));
        }
    }

    async fn outcome(&self, part: usize, entry: EntryId) -> Option<String> {
        self.redis.outcomes(&self.keys[part], &[entry]).await.ok()?.pop()?
    }

    async fn finish(&mut self) {
        let (part, entry, orders) = self.entry();
        let Some(expected) = self.outcome(part, entry).await else { return };
        let (mut new, mut sums) = (String::new(), Sums::default());
        for (code, order) in expected.chars().zip(&orders) {
            let sold = self.rng.bool();
            if code != '.' || self.rng.u32(0..5) == 0 {
                new.push(code);
                continue;
            }
            new.push(if sold { 's' } else { 'f' });
            for item in &order.items {
                let sum = sums.skus.entry(item.sku.clone()).or_default();
                *if sold { &mut sum.0 } else { &mut sum.1 } += u64::from(item.quantity);
                if !sold {
                    *sums.buyers.entry(order.buyer.as_str().to_owned()).or_default() += u64::from(item.quantity);
                }
            }
        }
        let index = self.rng.usize(0..orders.len()) as u16;
        sums.retries.push(Address { entry, index });
        sums.details.push((Address { entry, index }, Detail { attempts: 3, message: None }));
        let finish = Finish { entry, expected, new };
        let _ = self.redis.finish(&mut self.redis.lane(), &self.keys[part], &[finish], &sums).await;
    }

    async fn move_orders(&mut self) {
        let (part, entry, orders) = self.entry();
        let Some(outcome) = self.outcome(part, entry).await else { return };
        let at = self.rng.usize(0..orders.len().min(outcome.len()).max(1));
        let Some(state) = outcome.as_bytes().get(at).and_then(|code| State::of_code(*code)) else { return };
        let what = Move::ALL[self.rng.usize(0..Move::ALL.len())];
        let Some((next, shift)) = state.after(what) else { return };
        let text = |state: State| char::from(state.code()).to_string();
        let deadline = entry.ms + self.rng.u64(0..200);
        let when = [When::Any, When::Before(deadline), When::From(deadline)][self.rng.usize(0..3)];
        let mut row = Row::new(entry, at as u16, text(state), text(next), when);
        add(&mut row, &self.terms, &orders[at], shift, None);
        row.deadline_ms = (what == Move::Extend).then_some(deadline + 50);
        let address = Address { entry, index: at as u16 };
        let details = [(address, Detail::default())];
        let notes = Notes { retries: &[address], details: &details };
        let _ = self.redis.move_orders(&mut self.redis.lane(), &self.keys[part], &[row], notes).await;
        let _ = self.redis.reservation_extras(&self.keys[part], &[address]).await;
        let _ = self.redis.extended_until(&self.keys[part], deadline, 5).await;
    }

    async fn drain(&mut self) {
        let (part, entry, orders) = self.entry();
        let keys = self.keys[part].clone();
        let sold: HashMap<&str, u64> = orders
            .iter()
            .flat_map(|order| &order.items)
            .map(|item| (item.sku.as_str(), u64::from(item.quantity)))
            .collect();
        let notices = self.redis.notices(&keys, "n1", ">", 1).await.unwrap_or_default();
        let notices: Vec<EntryId> = notices.iter().map(|notice| notice.id).collect();
        let details = [Address { entry, index: 0 }];
        let _ = self.redis.drained(&keys, &notices, &[(entry, sold)], &details, &[]).await;
    }

    async fn transfer(&mut self, sku: &Sku) {
        let (from, to) = (self.keys[0].clone(), self.keys[1].clone());
        let _ = self.redis.debit(&from, 1, sku, self.rng.u64(1..4), 2).await;
        let known = self.redis.transits(&from).await.unwrap_or_default();
        let transit = known.into_iter().next().unwrap_or(Transit { to: 1, transfer: 1, sku: sku.clone(), units: 2 });
        if self.rng.bool() {
            let _ = self.redis.credit(&to, 0, &transit).await;
        }
        if self.rng.bool() {
            let _ = self.redis.arrived(&from, &transit).await;
        }
    }

    async fn change_sale(&mut self) {
        let Ok(Some(stored)) = self.redis.load_sale(&self.keys[0]).await else { return };
        let mut settings = stored.settings;
        settings.status =
            [SaleStatus::Open, SaleStatus::Paused, SaleStatus::Open, SaleStatus::Closed][self.rng.usize(0..4)];
        if settings.status == SaleStatus::Closed && self.rng.u32(0..6) > 0 {
            settings.status = SaleStatus::Open;
        }
        let note = Note::new("who", "why").unwrap();
        let request = format!("set{}", self.rng.u32(0..3));
        let _ = self.redis.update_sale(&self.keys[0], stored.version, &settings, &request, "{}", &note).await;
        let _ = self.redis.forget_ledger(&self.keys[0], 0).await;
        let _ = self.redis.add_refused(&self.keys[0], &[("sold_out", 2)]).await;
    }

    /// `order_return`, without the checks that come before it.
    async fn order_return(&mut self) {
        let (part, address) = self.address();
        let keys = &self.keys[part];
        let mut command =
            scripts::order_return.call(&[&keys.stock, &keys.returns, &keys.returned, &keys.buyers, &keys.limits]);
        let units = self.rng.u32(0..3);
        command.arg(address.to_string()).arg(format!("back{}", self.rng.u32(0..3))).arg(format!("a {units}"));
        command.arg("1 1 1").arg("a").arg(2).arg(units).arg("u1").arg(units).arg("buyer:u1").arg(units);
        let _ = self.redis.run(&mut self.redis.lane(), &command).await;
        let _ = self.redis.returned_lines(keys, 3).await;
    }

    /// The scripts of global transactions that use commands no other uses, with plain arguments.
    async fn transactions(&mut self) {
        let gid = format!("g{}", self.rng.u32(0..3));
        let record = format!("rl:{{T/0}}:g:{gid}");
        let rows = format!("rl:{{T/0}}:r:{gid}");
        let due = "rl:{T/0}:due";
        let score = self.rng.u64(0..50).to_string();
        let command = match self.rng.u32(0..9) {
            0 => raw(&["SET", &record, "0000000001 prepared saga {}", "NX"]),
            1 => raw(&["ZADD", due, ["NX", "XX", "GT"][self.rng.usize(0..3)], &score, &gid]),
            2 => script(&scripts::trans_append, &[&record, &rows], &["prepared", "1", "01/action", "{}"]),
            3 => script(&scripts::trans_claim, &[due], &[&score, "99.5", "2"]),
            4 => script(&scripts::trans_drain_lease, &["rl:{T/0}:drain"], &["n1", ["0", "3"][self.rng.usize(0..2)]]),
            5 => script(&scripts::kv_save, &["rl:{T/kv}:topics"], &["t1", &self.rng.u32(0..2).to_string(), "{}"]),
            6 => raw(&["GETRANGE", &record, &self.rng.i32(-9..9).to_string(), &self.rng.i32(-9..20).to_string()]),
            7 => raw(&["ZREVRANGEBYSCORE", due, "+inf", &score, "WITHSCORES", "LIMIT", "0", "2"]),
            _ => raw(&["SETRANGE", &record, &self.rng.u32(0..20).to_string(), "xy"]),
        };
        let _: Result<Value, _> = self.redis.run(&mut self.redis.lane(), &command).await;
    }
}

fn raw(words: &[&str]) -> redis::Cmd {
    let mut command = redis::cmd(words[0]);
    words[1..].iter().for_each(|word| {
        command.arg(*word);
    });
    command
}

fn script(script: &scripts::Script, keys: &[&str], args: &[&str]) -> redis::Cmd {
    let mut command = script.call(keys);
    args.iter().for_each(|arg| {
        command.arg(*arg);
    });
    command
}
