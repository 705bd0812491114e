//! A crowd of buyers who send orders whatever happens, and do what a buyer should: repeat with the same key until
//! somebody says something definite. Each key is one buyer's one order, so a buyer with two orders is a double.

use super::app::{App, Http, Reply};
use super::servers::Redis;
use super::shop::{Answer, Shop};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Nobody tries for longer than this; the fault should have passed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Each has a connection, and a test has so many files open.
const REPEATS_AT_ONCE: usize = 250;
const PAUSE: Duration = Duration::from_millis(5);

pub const SALE: &str = "s";

/// A sale that sells out of one SKU and has enough of the other.
pub fn sale(endpoint: Value) -> Value {
    json!({
        "sale": SALE,
        "items": [{"sku": "few", "units": 40}, {"sku": "many", "units": 1_000_000}],
        "order_endpoint": endpoint,
    })
}

/// The order that belongs to a key: what is asked for depends on nothing else.
pub fn order_of(key: &str) -> Value {
    let number: u64 = key.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or_default();
    let items = match number % 3 {
        0 => json!([{"sku": "few", "quantity": 1}]),
        1 => json!([{"sku": "many", "quantity": 2}]),
        _ => json!([{"sku": "many", "quantity": 1}, {"sku": "few", "quantity": 1}]),
    };
    json!({"buyer": format!("buyer-of-{key}"), "items": items, "payload": {"key": key}})
}

/// The shop's part: some buyers are refused for good, some first calls fail in each way there is.
pub fn trying_shop(shop: &Shop) {
    shop.behave(|asked| {
        let buyer = asked.order["buyer"].as_str().unwrap_or_default();
        if buyer.ends_with('7') {
            return Answer::Refused("card declined".into());
        }
        match (asked.attempt, buyer.bytes().last()) {
            (1, Some(b'1')) => Answer::CutAfter,
            (1, Some(b'2')) => Answer::CutBefore,
            (1, Some(b'3')) => Answer::Status(500, "CONNECTION FAILURE".into()),
            _ => Answer::Created,
        }
    });
}

/// What the buyers heard.
#[derive(Debug, Default, Clone)]
pub struct Heard {
    /// Key to gid.
    pub gids: BTreeMap<String, String>,
    /// Keys that heard sold_out.
    pub sold_out: BTreeSet<String>,
    /// Answers by `code`; `201` for admitted.
    pub codes: BTreeMap<String, u64>,
    /// The longest that anybody waited for any answer.
    pub longest: Duration,
    /// What nobody should have heard.
    pub wrong: Vec<String>,
}

impl Heard {
    pub fn count(&self, code: &str) -> u64 {
        self.codes.get(code).copied().unwrap_or_default()
    }

    /// Notes an answer; true if it is the last that this key needs.
    fn is_definite(&mut self, key: &str, reply: &Reply) -> bool {
        self.longest = self.longest.max(reply.took);
        let code = if reply.status == 201 { "201" } else { reply.code() };
        *self.codes.entry(code.to_owned()).or_default() += 1;
        match (reply.status, code) {
            (201, _) => {
                self.gids.insert(key.to_owned(), reply.gid().unwrap().to_owned());
                true
            }
            (409, "sold_out") => self.sold_out.insert(key.to_owned()),
            (503 | 429, _) if reply.header("retry-after").is_some() => false,
            _ => {
                self.wrong.push(format!("{key}: {} {}", reply.status, reply.json));
                false
            }
        }
    }

    /// Answers that told a buyer to come back.
    pub fn put_off(&self) -> u64 {
        self.codes.iter().filter(|(code, _)| !["201", "sold_out"].contains(&code.as_str())).map(|(_, n)| n).sum()
    }
}

struct Shared {
    heard: Mutex<Heard>,
    stop: AtomicBool,
}

pub struct Crowd {
    shared: Arc<Shared>,
    buyers: JoinSet<()>,
}

impl Crowd {
    /// `buyers` at a time, each with order after order; they take the next of `targets` when one does not answer.
    pub fn start(targets: &[Http], buyers: usize) -> Self {
        Self::start_named(targets, buyers, "k")
    }

    /// As [`Crowd::start`], with keys of another name than an earlier crowd's.
    pub fn start_named(targets: &[Http], buyers: usize, name: &str) -> Self {
        let shared = Arc::new(Shared { heard: Mutex::default(), stop: AtomicBool::new(false) });
        let mut set = JoinSet::new();
        for buyer in 0..buyers {
            let (shared, targets, name) = (shared.clone(), targets.to_vec(), name.to_owned());
            set.spawn(async move {
                let mut at = buyer;
                for number in 0.. {
                    if shared.stop.load(Ordering::Relaxed) {
                        return;
                    }
                    // The last digit of the number is the buyer's luck at the shop.
                    buy(&shared, &targets, &mut at, &format!("{name}-{buyer}-{number}")).await;
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
        Self { shared, buyers: set }
    }

    pub fn heard(&self) -> Heard {
        self.shared.heard.lock().unwrap().clone()
    }

    /// Waits until so many more orders were admitted than when this was asked.
    pub async fn wait_for_more(&self, orders: usize, within: Duration) {
        let from = self.heard().gids.len();
        super::app::eventually(&format!("{orders} more orders admitted"), within, || async {
            self.heard().gids.len() >= from + orders
        })
        .await;
    }

    /// No new orders; waits until everybody has heard something definite.
    pub async fn stop(mut self) -> Heard {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.buyers.join_next().await {
            ended.unwrap();
        }
        let heard = self.heard();
        assert!(heard.wrong.is_empty(), "{:?}", heard.wrong);
        heard
    }
}

/// Asks until the answer is definite.
async fn buy(shared: &Shared, targets: &[Http], at: &mut usize, key: &str) {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let reply = targets[*at % targets.len()].try_order(SALE, key, &order_of(key)).await;
        let Ok(reply) = reply else {
            *at += 1;
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        if shared.heard.lock().unwrap().is_definite(key, &reply) {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
    shared.heard.lock().unwrap().wrong.push(format!("{key}: nothing definite within {PATIENCE:?}"));
}

/// After all faults: whoever was told a gid is told the same one, and the order service, the records and Redis have
/// exactly the orders that were told of.
pub async fn assert_exact(app: &App, shop: &Shop, heard: &Heard) {
    // Many at once: where each answer waits for the disk, one after the other takes a second each.
    let keys: Vec<&String> = heard.gids.keys().collect();
    let mut repeats = Vec::with_capacity(keys.len());
    for some in keys.chunks(REPEATS_AT_ONCE) {
        let some = some.iter().map(async |key| app.order(SALE, key, &order_of(key)).await);
        repeats.extend(futures_util::future::join_all(some).await);
    }
    for ((key, gid), reply) in heard.gids.iter().zip(repeats) {
        assert_eq!((reply.status, reply.gid()), (201, Some(gid.as_str())), "{key}, told of {gid}: {}", reply.json);
        assert!(reply.replayed(), "{key}");
    }
    let report = app.wait_until_settled(SALE).await;
    let empty: Vec<Value> = Vec::new();
    for list in ["missing", "extra", "problems"] {
        assert_eq!(report[list].as_array(), Some(&empty), "{report}");
    }
    assert_eq!(report["drift"], 0, "{report}");
    assert_eq!(report["in_flight"], 0, "{report}");

    let made = shop.orders();
    let by_gid: BTreeMap<&String, &String> = heard.gids.iter().map(|(key, gid)| (gid, key)).collect();
    assert_eq!(by_gid.len(), heard.gids.len(), "two keys were told one gid");
    for (gid, order) in &made {
        let key = by_gid.get(gid).unwrap_or_else(|| panic!("{gid} of {} was made and nobody was told", order.buyer));
        assert_eq!(order.buyer, format!("buyer-of-{key}"), "{gid}");
    }
    for (gid, key) in &by_gid {
        let refused = key.ends_with('7');
        assert_eq!(made.contains_key(*gid), !refused, "{key} was told of {gid}");
    }
    assert_eq!(report["orders_at_service"], made.len(), "{report}");
    assert_eq!(report["records"]["succeed"], made.len(), "{report}");
    assert_eq!(report["records"]["failed"], by_gid.len() - made.len(), "{report}");
    let units = shop.units();
    for line in report["items"].as_array().unwrap() {
        let sku = line["sku"].as_str().unwrap();
        assert_eq!(line["sold"], units.get(sku).copied().unwrap_or_default(), "{sku}: {report}");
        let whole = ["available", "reserved", "sold"].map(|name| line[name].as_u64().unwrap()).iter().sum::<u64>();
        assert_eq!(line["loaded"], whole, "{sku}: {report}");
    }
}

/// Redis holds nothing of the sale but its books and the buyers' ledger.
pub async fn assert_only_ledger_left(redis_url: &str) {
    let client = redis::Client::open(redis_url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    for (command, key) in
        [("XLEN", "intake"), ("XLEN", "finished"), ("HLEN", "outcome"), ("HLEN", "detail"), ("ZCARD", "retry")]
    {
        let left: u64 =
            redis::cmd(command).arg(format!("rl:{{{SALE}/0}}:{key}")).query_async(&mut connection).await.unwrap();
        assert_eq!(left, 0, "{key}");
    }
}

/// One command to a Redis of the test's.
pub async fn ask_redis<T: redis::FromRedisValue>(redis: &Redis, command: &[&str]) -> T {
    ask_redis_at(&redis.url(), command).await
}

pub async fn ask_redis_at<T: redis::FromRedisValue>(url: &str, command: &[&str]) -> T {
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut asked = redis::cmd(command[0]);
    for word in &command[1..] {
        asked.arg(*word);
    }
    asked.query_async(&mut connection).await.unwrap()
}
