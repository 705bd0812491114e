//! One sale twice: in plain Rust ([`Ledger`]) and in a real Redis. Every step is done on both, and every answer and
//! every counter is compared after it.

use super::servers;
use rushline::domain::change::Note;
use rushline::domain::ids::{Buyer, EntryId, IdempotencyKey, SaleName, Sku};
use rushline::domain::order::{Item, Order};
use rushline::domain::sale::{Durability, Endpoint, NewSale, SaleStatus, Settings, Window};
use rushline::domain::stock::{self, Ledger, Request, Restock, Selling, Stock};
use rushline::domain::terms::Terms;
use rushline::store::keys::Keys;
use rushline::store::orders::{Address, Decision, Detail, Finish, Prepared, Sums};
use rushline::store::promise::Wait;
use rushline::store::redis::{self as store, Redis};
use rushline::store::sales::{Created, Restocked, Updated};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const PATIENCE: Duration = Duration::from_secs(5);
const NODE: &str = "node-1";

/// An order request as a test writes it.
#[derive(Debug, Clone)]
pub struct Ask {
    pub key: Option<String>,
    pub buyer: String,
    pub items: Vec<(String, u32)>,
    /// Part of the body that decides nothing.
    pub payload: u32,
}

/// An order that was admitted.
#[derive(Debug, Clone)]
struct Known {
    address: Address,
    buyer: String,
    items: Vec<(String, u32)>,
    tried_again: bool,
}

/// A finish as it was sent: what is sent again when its answer was lost.
pub type Sent = (Vec<Finish>, Sums);

pub struct Twin {
    pub ledger: Ledger,
    pub redis: Arc<Redis>,
    pub keys: Keys,
    pub settings: Settings,
    pub raw: redis::aio::MultiplexedConnection,
    version: u64,
    orders: Vec<Known>,
    /// Entries in Redis, with the outcome as it must stand there.
    outcomes: BTreeMap<EntryId, String>,
    archived: BTreeMap<String, u64>,
    retries: BTreeSet<String>,
    details: BTreeSet<String>,
}

/// A node's view of this server.
pub async fn connect(server: &servers::Redis) -> Arc<Redis> {
    let settings = store::Settings {
        url: server.socket_url(),
        prefix: "t:".into(),
        connections: 1,
        timeout: PATIENCE,
        rewrite_after_load: false,
        tls: Default::default(),
    };
    Redis::connect(settings).await.unwrap()
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// Units bought by buyer, requests, outcomes by entry, entries, and the orders with a retry or details.
type Kept = (BTreeMap<String, u64>, usize, BTreeMap<String, String>, usize, BTreeSet<String>, BTreeSet<String>);

impl Twin {
    /// Opens a sale on both sides.
    pub async fn open(redis: Arc<Redis>, raw: redis::Client, name: &str, units: &[(&str, u64)], limit: u32) -> Self {
        let limit_per_buyer = (limit > 0).then_some(limit);
        let settings = Settings {
            status: SaleStatus::Open,
            window: Window::default(),
            limit_per_buyer,
            endpoint: Endpoint::at("http://127.0.0.1:9/orders"),
            durability: Durability::Memory,
            webhook: None,
            terms: Terms::default(),
        };
        let name = SaleName::parse(name).unwrap();
        let items = units.iter().map(|(sku, units)| (Sku::parse(*sku).unwrap(), *units)).collect();
        let new = NewSale { sale: name.clone(), items, settings: settings.clone() };
        assert_eq!(redis.create_sale(&new, "body").await.unwrap(), Created::New);
        // Or the first admission would meet it, and leave a trace of that also where nobody wins.
        redis.meet(&redis.seen(&Keys::new(redis.prefix(), &name, 0))).await.unwrap();
        Self {
            ledger: Ledger::new(units, limit_per_buyer),
            keys: Keys::new(redis.prefix(), &name, 0),
            redis,
            settings,
            raw: raw.get_multiplexed_async_connection().await.unwrap(),
            version: 1,
            orders: Vec::new(),
            outcomes: BTreeMap::new(),
            archived: units.iter().map(|(sku, _)| (sku.to_string(), 0)).collect(),
            retries: BTreeSet::new(),
            details: BTreeSet::new(),
        }
    }

    fn selling(&self) -> Selling {
        Selling::at(now_ms(), self.settings.status, self.settings.window)
    }

    /// Decides a batch on both sides; their common answer.
    pub async fn admit(&mut self, batch: &[Ask]) -> Vec<stock::Decision> {
        let selling = self.selling();
        let requests: Vec<Prepared> = batch.iter().map(|ask| Prepared::new(order(ask))).collect();
        let mut lane = self.redis.lane();
        let admitted = self.redis.admit(&mut lane, &self.keys, NODE, &requests, Wait::Nothing, PATIENCE).await.unwrap();
        assert_eq!(admitted.version, self.version, "the version of the settings that decided");
        let mut decisions = Vec::with_capacity(batch.len());
        for (position, (ask, real)) in batch.iter().zip(&admitted.decisions).enumerate() {
            let items: Vec<(&str, u32)> = ask.items.iter().map(|(sku, quantity)| (sku.as_str(), *quantity)).collect();
            let request = Request { key: ask.key.as_deref(), digest: digest(ask), buyer: &ask.buyer, items: &items };
            let decision = self.ledger.admit(&request, selling);
            if let (stock::Decision::Admitted(_), Decision::Admitted(address)) = (decision, real) {
                let Ask { buyer, items, .. } = ask.clone();
                self.orders.push(Known { address: *address, buyer, items, tried_again: false });
                self.outcomes.entry(address.entry).or_default().push('.');
            }
            let expected = self.as_redis_says(decision);
            assert_eq!(*real, expected, "request {position} of {batch:#?}");
            decisions.push(decision);
        }
        assert_eq!(
            admitted.entry.is_some(),
            decisions.iter().any(|decision| matches!(decision, stock::Decision::Admitted(_))),
            "there is an entry when somebody won"
        );
        self.compare().await;
        decisions
    }

    /// The ledger's order numbers are addresses in Redis.
    fn as_redis_says(&self, decision: stock::Decision) -> Decision {
        let address = |order: usize| self.orders.get(order).expect("Redis refused what the rules admit").address;
        match decision {
            stock::Decision::Admitted(order) => Decision::Admitted(address(order)),
            stock::Decision::Replayed(order) => Decision::Replayed(address(order)),
            stock::Decision::KeyReused => Decision::KeyReused,
            stock::Decision::NotOpen => Decision::NotOpen,
            stock::Decision::Paused => Decision::Paused,
            stock::Decision::Closed => Decision::Closed,
            stock::Decision::UnknownSku => Decision::UnknownSku,
            stock::Decision::LimitReached => Decision::LimitReached,
            stock::Decision::SoldOut => Decision::SoldOut,
        }
    }

    pub fn orders_len(&self) -> usize {
        self.orders.len()
    }

    /// Has this order ended?
    pub fn ended(&self, order: usize) -> bool {
        let Address { entry, index } = self.orders[order].address;
        self.outcomes.get(&entry).is_none_or(|outcome| outcome.as_bytes()[usize::from(index)] != b'.')
    }

    /// What a node would send that ends these orders, all of them open.
    fn compose(&self, ends: &[(usize, bool)]) -> Sent {
        let mut finishes: BTreeMap<EntryId, Finish> = BTreeMap::new();
        let mut sums = Sums::default();
        for (order, created) in ends {
            let Known { address, buyer, items, tried_again } = &self.orders[*order];
            let outcome = self.outcomes[&address.entry].clone();
            let finish = finishes.entry(address.entry).or_insert_with(|| Finish {
                entry: address.entry,
                expected: outcome.clone(),
                new: outcome,
            });
            let index = usize::from(address.index);
            finish.new.replace_range(index..=index, if *created { "s" } else { "f" });
            for (sku, quantity) in items {
                let units = u64::from(*quantity);
                let (sold, back) = sums.skus.entry(Sku::parse(sku.as_str()).unwrap()).or_default();
                *(if *created { sold } else { back }) += units;
                if !created {
                    *sums.buyers.entry(buyer.clone()).or_default() += units;
                }
            }
            if *tried_again {
                sums.retries.push(*address);
            }
            if *tried_again || !created {
                let message = (!created).then(|| "no".to_owned());
                sums.details.push((*address, Detail { attempts: 1 + u32::from(*tried_again), message }));
            }
        }
        (finishes.into_values().collect(), sums)
    }

    async fn send(&self, (finishes, sums): &Sent) -> Vec<(EntryId, String)> {
        self.redis.finish(&mut self.redis.lane(), &self.keys, finishes, sums).await.unwrap().stale
    }

    /// Ends open orders on both sides. Answers what was sent, so that it can be sent again.
    pub async fn finish(&mut self, ends: &[(usize, bool)]) -> Sent {
        let sent = self.compose(ends);
        assert_eq!(self.send(&sent).await, [], "nothing is stale");
        for (order, created) in ends {
            assert!(self.ledger.finish(*order, *created), "order {order} is open");
        }
        for finish in &sent.0 {
            self.outcomes.insert(finish.entry, finish.new.clone());
        }
        for address in &sent.1.retries {
            self.retries.remove(&address.to_string());
        }
        self.details.extend(sent.1.details.iter().map(|(address, _)| address.to_string()));
        self.compare().await;
        sent
    }

    /// Sends a finish that was carried out already: it must hear how things stand, and change nothing.
    pub async fn finish_again(&mut self, sent: &Sent) {
        let before = self.dump().await;
        let stale: BTreeMap<EntryId, String> = self.send(sent).await.into_iter().collect();
        let expected: BTreeMap<EntryId, String> = sent
            .0
            .iter()
            .map(|finish| (finish.entry, self.outcomes.get(&finish.entry).cloned().unwrap_or_default()))
            .collect();
        assert_eq!(stale, expected, "STALE tells how every entry stands");
        same(&before, &self.dump().await, "a stale finish changes nothing");
    }

    /// Notes that orders will be tried again; an ended one is passed over.
    pub async fn retry(&mut self, orders: &[usize]) {
        let mut retries = Vec::new();
        for order in orders {
            let address = self.orders[*order].address;
            retries.push((address, Duration::from_secs(60), Detail { attempts: 1, message: Some("500".into()) }));
            if !self.ended(*order) {
                self.orders[*order].tried_again = true;
                self.retries.insert(address.to_string());
                self.details.insert(address.to_string());
            }
        }
        self.redis.note_retries(&mut self.redis.lane(), &self.keys, &retries).await.unwrap();
        self.compare().await;
    }

    /// Adds or withdraws units on both sides; their common answer.
    pub async fn restock(&mut self, request_id: &str, sku: &str, units: i64) -> Restock {
        let answer = self.ledger.restock(request_id, sku, units, self.settings.status);
        let real = self
            .redis
            .add_stock(&self.keys, &Sku::parse(sku).unwrap(), units, request_id, &Note::default())
            .await
            .unwrap();
        let expected = match answer {
            Restock::Changed(units) => Restocked::Changed(units),
            Restock::Duplicate(units) => Restocked::Duplicate(units),
            Restock::Reused => Restocked::Reused,
            Restock::Closed => Restocked::Closed,
            Restock::TooMany => Restocked::TooMany,
            Restock::UnknownSku => Restocked::UnknownSku,
        };
        assert_eq!(real, expected, "restock {request_id} {sku} {units}");
        if matches!(answer, Restock::Changed(_)) {
            self.archived.entry(sku.to_owned()).or_default();
        }
        self.compare().await;
        answer
    }

    /// Changes the settings on both sides. A closed sale stays as it is.
    pub async fn update(&mut self, change: impl FnOnce(&mut Settings)) -> Updated {
        let mut settings = self.settings.clone();
        change(&mut settings);
        let expected = match self.settings.status {
            SaleStatus::Closed => Updated::Closed,
            _ => Updated::Done,
        };
        let updated =
            self.redis.update_sale(&self.keys, self.version, &settings, "", "{}", &Note::default()).await.unwrap();
        assert_eq!(updated, expected);
        if updated == Updated::Done {
            self.version += 1;
            self.ledger.limit = settings.limit_per_buyer;
            self.settings = settings;
        }
        self.compare().await;
        updated
    }

    /// Drains all that has ended, as the reconciler does once the records have it.
    pub async fn drain(&mut self) -> u64 {
        let notices = self.redis.notices(&self.keys, NODE, ">", 1000).await.unwrap();
        let ids: Vec<EntryId> = notices.iter().flat_map(|notice| notice.entries.clone()).collect();
        let complete: Vec<EntryId> =
            self.outcomes.iter().filter(|(_, outcome)| !outcome.contains('.')).map(|(id, _)| *id).collect();
        assert_eq!(BTreeSet::from_iter(&ids), BTreeSet::from_iter(&complete), "who has ended is noticed, once");
        assert_eq!(ids.len(), complete.len(), "no entry is noticed twice");
        let entries = self.redis.entries(&self.keys, &ids).await.unwrap();
        let mut sold = Vec::new();
        for entry in &entries {
            let mut units: HashMap<&str, u64> = HashMap::new();
            for (frame, code) in entry.frames.iter().zip(entry.outcome.bytes()) {
                for item in frame.items.iter().filter(|_| code == b's') {
                    *units.entry(item.sku.as_str()).or_default() += u64::from(item.quantity);
                }
            }
            sold.push((entry.id, units));
        }
        let details: Vec<Address> = self.details.iter().map(|text| text.parse().unwrap()).collect();
        let details: Vec<Address> = details.into_iter().filter(|address| ids.contains(&address.entry)).collect();
        let notices: Vec<EntryId> = notices.iter().map(|notice| notice.id).collect();
        let forgotten = self.redis.drained(&self.keys, &notices, &sold, &details, &[]).await.unwrap();
        assert_eq!(forgotten, ids.len() as u64);
        let again = self.redis.drained(&self.keys, &notices, &sold, &details, &[]).await.unwrap();
        assert_eq!(again, 0, "a drain that is repeated counts nothing twice");
        for (id, units) in sold {
            self.outcomes.remove(&id);
            for (sku, units) in units {
                *self.archived.get_mut(sku).expect("it was sold") += units;
            }
        }
        for address in &details {
            self.details.remove(&address.to_string());
        }
        self.compare().await;
        forgotten
    }

    /// Sends a drain of entries with open orders, as a node may whose Redis came back without their end. Answers how many
    /// were forgotten.
    pub async fn drain_too_early(&mut self) -> u64 {
        let open = self.outcomes.iter().filter(|(_, outcome)| outcome.contains('.'));
        let sold: Vec<(EntryId, HashMap<&str, u64>)> = open.map(|(id, _)| (*id, HashMap::from([("a", 1)]))).collect();
        let forgotten = self.redis.drained(&self.keys, &[], &sold, &[], &[]).await.unwrap();
        self.compare().await;
        forgotten
    }

    /// Forgets the buyers' ledger if it may be forgotten; did it?
    pub async fn forget(&mut self) -> bool {
        let forgotten = self.redis.forget_ledger(&self.keys, 0).await.unwrap();
        let may = self.settings.status == SaleStatus::Closed && self.outcomes.is_empty();
        assert!(may || !forgotten, "a ledger is forgotten only when the sale is closed and drained");
        if forgotten {
            self.ledger.forget();
        }
        self.compare().await;
        forgotten
    }

    /// Everything that can be counted stands on both sides alike, and every unit is accounted for.
    pub async fn compare(&mut self) {
        let counters = self.redis.stock(&self.keys).await.unwrap();
        for (sku, counters) in &counters {
            assert_eq!(counters.stock.difference(), 0, "conservation of {sku}: {counters:?}");
        }
        let real: BTreeMap<&str, Stock> = counters.iter().map(|(sku, each)| (sku.as_str(), each.stock)).collect();
        let rules: BTreeMap<&str, Stock> =
            self.ledger.stock.iter().map(|(sku, stock)| (sku.as_str(), *stock)).collect();
        assert_eq!(real, rules, "units");
        let archived: BTreeMap<String, u64> =
            counters.iter().map(|(sku, counters)| (sku.clone(), counters.archived)).collect();
        assert_eq!(archived, self.archived, "units in the records");

        let (bought, requests, outcomes, intake, retries, details): Kept = redis::pipe()
            .hgetall(&self.keys.buyers)
            .hlen(&self.keys.requests)
            .hgetall(&self.keys.outcome)
            .cmd("XLEN")
            .arg(&self.keys.intake)
            .zrange(&self.keys.retry, 0, -1)
            .hkeys(&self.keys.detail)
            .query_async(&mut self.raw)
            .await
            .unwrap();
        let known: BTreeMap<String, u64> =
            self.ledger.bought.iter().filter(|(_, units)| **units > 0).map(|(b, units)| (b.clone(), *units)).collect();
        assert_eq!(bought, known, "units by buyer; one who holds none is not kept");
        assert_eq!(requests, self.ledger.requests_remembered(), "requests remembered");
        let expected: BTreeMap<String, String> =
            self.outcomes.iter().map(|(id, outcome)| (id.to_string(), outcome.clone())).collect();
        assert_eq!(outcomes, expected, "outcomes");
        assert_eq!(intake, expected.len(), "an entry is in the intake as long as it has an outcome");
        assert_eq!(retries, self.retries, "orders waiting for another try");
        assert_eq!(details, self.details, "orders with details");

        let backlog = self.redis.backlog(&self.keys).await.unwrap();
        let open = self.outcomes.values().filter(|outcome| outcome.contains('.')).count() as u64;
        assert_eq!(backlog.undelivered_entries, open, "an entry is claimed until its last order has ended");
    }

    /// One step on Redis alone, where something is amiss.
    pub async fn try_step(&mut self, step: &str) -> Result<(), rushline::store::Error> {
        let mut lane = self.redis.lane();
        match step {
            "admit" => {
                let one = Ask { key: Some("k9".into()), buyer: "u1".into(), items: vec![("a".into(), 1)], payload: 0 };
                let two = Ask { items: vec![("b".into(), 1)], key: Some("k8".into()), ..one.clone() };
                let requests = [Prepared::new(order(&one)), Prepared::new(order(&two))];
                self.redis.admit(&mut lane, &self.keys, NODE, &requests, Wait::Nothing, PATIENCE).await.map(|_| ())
            }
            "finish" => {
                let (finishes, sums) = self.compose(&[(0, true), (1, false)]);
                self.redis.finish(&mut lane, &self.keys, &finishes, &sums).await.map(|_| ())
            }
            "retry" => {
                let detail = Detail { attempts: 2, message: None };
                let retries = [(self.orders[1].address, Duration::from_secs(9), detail)];
                self.redis.note_retries(&mut lane, &self.keys, &retries).await
            }
            "renew" => {
                let entry = self.orders[0].address.entry;
                self.redis.renew(&mut lane, &self.keys, NODE, &[entry]).await.map(|_| ())
            }
            "drained" => {
                let ended = self.orders[2].address;
                let sold = [(ended.entry, HashMap::from([("a", 1), ("b", 1)]))];
                self.redis.drained(&self.keys, &[ended.entry], &sold, &[ended], &[]).await.map(|_| ())
            }
            "restock" => {
                self.redis.add_stock(&self.keys, &Sku::parse("b").unwrap(), 1, "r9", &Note::default()).await.map(|_| ())
            }
            "update" => self
                .redis
                .update_sale(&self.keys, self.version, &self.settings.clone(), "", "{}", &Note::default())
                .await
                .map(|_| ()),
            "create" => {
                let sale = SaleName::parse(self.keys.sale.split(['{', '/']).nth(1).unwrap()).unwrap();
                let items = vec![(Sku::parse("a").unwrap(), 1)];
                let new = NewSale { sale, items, settings: self.settings.clone() };
                self.redis.create_sale(&new, "body").await.map(|_| ())
            }
            _ => panic!("no such step: {step}"),
        }
    }

    /// Everything in this sale's keys: hashes by their fields (the order of a hash's bytes changes by itself), the rest
    /// byte for byte.
    pub async fn dump(&mut self) -> BTreeMap<String, Vec<u8>> {
        let pattern = format!("{}*", self.keys.sale.strip_suffix("sale").unwrap());
        let names: Vec<String> = redis::cmd("KEYS").arg(pattern).query_async(&mut self.raw).await.unwrap();
        let mut dump = BTreeMap::new();
        for name in names {
            let kind: String = redis::cmd("TYPE").arg(&name).query_async(&mut self.raw).await.unwrap();
            if kind != "hash" {
                let bytes = redis::cmd("DUMP").arg(&name).query_async(&mut self.raw).await.unwrap();
                dump.insert(name, bytes);
                continue;
            }
            let fields: BTreeMap<Vec<u8>, Vec<u8>> =
                redis::cmd("HGETALL").arg(&name).query_async(&mut self.raw).await.unwrap();
            for (field, value) in fields {
                dump.insert(format!("{name} {}", field.escape_ascii()), value);
            }
        }
        dump
    }
}

/// Nothing was written: two dumps are the same. Names the keys that differ.
pub fn same(before: &BTreeMap<String, Vec<u8>>, after: &BTreeMap<String, Vec<u8>>, why: &str) {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for name in names {
        let text = |dump: &BTreeMap<String, Vec<u8>>| dump.get(name).map(|bytes| bytes.escape_ascii().to_string());
        assert_eq!(text(before), text(after), "{why}; key {name}");
    }
}

fn order(ask: &Ask) -> Order {
    Order {
        key: ask.key.as_deref().map(|key| IdempotencyKey::parse(key).unwrap()),
        buyer: Buyer::parse(ask.buyer.as_str()).unwrap(),
        items: ask
            .items
            .iter()
            .map(|(sku, quantity)| Item { sku: Sku::parse(sku.as_str()).unwrap(), quantity: *quantity })
            .collect(),
        payload: Some(RawValue::from_string(ask.payload.to_string()).unwrap()),
        trace: None,
        limits_by: None,
    }
}

fn digest(ask: &Ask) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&ask.buyer, &ask.items, ask.payload).hash(&mut hasher);
    hasher.finish()
}
