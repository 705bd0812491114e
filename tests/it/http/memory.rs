//! Refusals that a node tells from memory: never late by more than a moment, never to somebody who won.

use super::{SOON, Stage, buy, is_problem};
use crate::support::app::{App, Http, eventually};
use crate::support::shop::Answer;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

/// Buyers who keep asking, each with a name of its own, every second one with a new key each time.
struct Losers {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
    asking: JoinSet<Vec<String>>,
}

impl Losers {
    fn start(targets: &[Http], sale: &'static str, count: usize) -> Self {
        let (stop, asked): (Arc<AtomicBool>, Arc<AtomicU64>) = Default::default();
        let mut asking = JoinSet::new();
        for number in 0..count {
            let (stop, asked, http) = (stop.clone(), asked.clone(), targets[number % targets.len()].clone());
            asking.spawn(async move {
                let mut won = Vec::new();
                for round in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let key = if number % 4 < 2 { String::new() } else { format!("loser-{number}-{round}") };
                    let reply = http.try_order(sale, &key, &buy(&format!("loser-{number}-{round}"), 1)).await.unwrap();
                    asked.fetch_add(1, Ordering::Relaxed);
                    match reply.status {
                        201 => won.push(reply.gid().unwrap().to_owned()),
                        409 | 423 | 425 => {}
                        other => panic!("{other}: {}", reply.json),
                    }
                }
                won
            });
        }
        Self { stop, asked, asking }
    }

    /// Waits until so many more requests were answered.
    async fn ask_more(&self, count: u64) {
        let until = self.asked.load(Ordering::Relaxed) + count;
        eventually("more losers", SOON, || async { self.asked.load(Ordering::Relaxed) >= until }).await;
    }

    /// Stops them; the gids of those who were no losers after all.
    async fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.asking.join_all().await.into_iter().flatten().collect()
    }
}

async fn told_from_memory(app: &App) -> u64 {
    let metrics = app.http().text("/metrics").await;
    let line = metrics.lines().find_map(|line| line.strip_prefix("rushline_orders_refused_from_memory_total "));
    line.map_or(0, |count| count.trim().parse().unwrap())
}

/// Script calls that this Redis has seen.
async fn script_calls(stage: &Stage) -> u64 {
    let client = redis::Client::open(stage.redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let info: String = redis::cmd("INFO").arg("commandstats").query_async(&mut connection).await.unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
}

/// After the last unit, requests hardly reach Redis's scripts; without memory there was one call for each few of them.
#[tokio::test(flavor = "multi_thread")]
async fn losers_do_not_run_scripts() {
    let stage = Stage::on_own_redis().await;
    stage.sale("s", 1, json!({})).await;
    assert_eq!(stage.app.order("s", "", &buy("winner", 1)).await.status, 201);
    stage.app.wait_until_settled("s").await;
    let before = script_calls(&stage).await;
    let losers = Losers::start(&[stage.app.http()], "s", 8);
    losers.ask_more(4_000).await;
    let asked = losers.asked.load(Ordering::Relaxed);
    assert!(losers.stop().await.is_empty());
    let calls = script_calls(&stage).await - before;
    assert!(calls * 20 < asked, "{calls} scripts for {asked} losers");
    assert!(told_from_memory(&stage.app).await > asked / 2);
    let refused = &stage.app.get("/v1/sales/s").await.json["refused"];
    assert!(refused["sold_out"].as_u64() >= Some(asked), "also those are counted: {refused}");
}

/// A request whose key won hears its first answer from any node, also in the thick of refusals from memory.
#[tokio::test(flavor = "multi_thread")]
async fn who_won_hears_so_in_the_thick_of_losers() {
    let stage = Stage::new().await;
    let other = stage.another_node().await;
    stage.sale("s", 2, json!({})).await;
    let first = stage.app.order("s", "k1", &buy("u1", 1)).await;
    let second = other.order("s", "k2", &buy("u2", 1)).await;
    let losers = Losers::start(&[stage.app.http(), other.http()], "s", 8);
    losers.ask_more(500).await;
    for node in [&stage.app, &other] {
        for _ in 0..25 {
            for (key, buyer, won) in [("k1", "u1", &first), ("k2", "u2", &second)] {
                let replay = node.order("s", key, &buy(buyer, 1)).await;
                assert_eq!((replay.status, replay.gid()), (201, won.gid()), "{}", replay.json);
                assert!(replay.replayed());
            }
            is_problem(&node.order("s", "k1", &buy("u3", 1)).await, 422, "idempotency_key_reused");
        }
        assert!(told_from_memory(node).await > 0);
    }
    assert!(losers.stop().await.is_empty());
}

/// Units that are added, or come back from a refused order, are sold by every node, to the last one and none twice.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_back_is_sold_on_every_node() {
    let stage = Stage::new().await;
    let other = stage.another_node().await;
    stage.sale("s", 1, json!({})).await;
    assert_eq!(stage.app.order("s", "", &buy("u0", 1)).await.status, 201);
    let losers = Losers::start(&[stage.app.http(), other.http()], "s", 8);
    let mut loaded = 1;
    for (round, units) in [(1, 5), (2, 1), (3, 40)] {
        losers.ask_more(300).await;
        let body = json!({"sku": "sku-1", "units": units, "request_id": format!("r{round}")});
        assert_eq!(stage.app.post("/v1/sales/s/stock", &[], &body).await.status, 200);
        loaded += units;
        eventually("all are sold", SOON, || async { stage.stock("s").await[0]["available"] == 0 }).await;
    }
    // An order that the order service refuses gives its unit to one of the losers.
    let refused_once = AtomicBool::new(false);
    stage.shop.behave(move |_| match refused_once.swap(true, Ordering::Relaxed) {
        false => Answer::Refused("no".into()),
        true => Answer::Created,
    });
    let body = json!({"sku": "sku-1", "units": 1, "request_id": "r4"});
    assert_eq!(other.post("/v1/sales/s/stock", &[], &body).await.status, 200);
    loaded += 1;
    eventually("the unit is sold twice", SOON, || async { stage.stock("s").await[0]["sold"] == loaded }).await;
    assert!(told_from_memory(&stage.app).await > 0 && told_from_memory(&other).await > 0);
    let won = losers.stop().await;
    assert_eq!(won.len() as u64, loaded, "every unit but the first, and one of them twice");
    let made: BTreeSet<String> = stage.shop.orders().into_keys().collect();
    assert_eq!(made.len() as u64, loaded);
    let report = stage.app.wait_until_settled("s").await;
    assert_eq!(report["drift"], 0, "{report}");
}

/// Nobody wins before the opening time by the clock of Redis, however many ask, and then it opens on every node.
#[tokio::test(flavor = "multi_thread")]
async fn it_opens_at_its_time_for_those_who_wait() {
    let stage = Stage::new().await;
    let other = stage.another_node().await;
    let opens_at = jiff::Timestamp::now() + Duration::from_millis(1_500);
    stage.sale("s", 1_000_000, json!({"opens_at": opens_at.to_string()})).await;
    let losers = Losers::start(&[stage.app.http(), other.http()], "s", 8);
    for node in [&stage.app, &other] {
        eventually("answers from memory", SOON, || async { told_from_memory(node).await > 0 }).await;
    }
    eventually("it opens", SOON, || async { stage.stock("s").await[0]["available"] != 1_000_000 }).await;
    losers.ask_more(100).await;
    for gid in losers.stop().await {
        let admitted_ms: i64 = gid.split('.').nth(2).unwrap().split('-').next().unwrap().parse().unwrap();
        assert!(admitted_ms >= opens_at.as_millisecond(), "{gid} before {opens_at}");
    }
}

/// A pause and its end are obeyed by every node, told from memory in between.
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_and_its_end_reach_every_node() {
    let stage = Stage::new().await;
    let other = stage.another_node().await;
    stage.sale("s", 1_000_000, json!({})).await;
    let losers = Losers::start(&[stage.app.http(), other.http()], "s", 8);
    losers.ask_more(50).await;
    assert_eq!(stage.app.patch("/v1/sales/s", &json!({"status": "paused"})).await.status, 200);
    let available = stage.stock("s").await[0]["available"].clone();
    for node in [&stage.app, &other] {
        eventually("answers from memory", SOON, || async { told_from_memory(node).await > 0 }).await;
    }
    losers.ask_more(200).await;
    assert_eq!(stage.stock("s").await[0]["available"], available, "nobody won in the pause");
    assert_eq!(other.patch("/v1/sales/s", &json!({"status": "open"})).await.status, 200);
    for node in [&stage.app, &other] {
        eventually("it sells again", SOON, || async { node.order("s", "", &buy("late", 1)).await.status == 201 }).await;
    }
    losers.stop().await;
}

/// A buyer at the limit hears so from memory, and may buy again when an order of theirs came to nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_counts_what_came_back() {
    let stage = Stage::new().await;
    stage.shop.always(Answer::Ongoing);
    stage.sale("s", 100, json!({"limit_per_buyer": 2})).await;
    assert_eq!(stage.app.order("s", "", &buy("u1", 2)).await.status, 201);
    eventually("answers from memory", SOON, || async {
        // One after the other without a pause: what the first is told is remembered for milliseconds only.
        for _ in 0..5 {
            is_problem(&stage.app.order("s", "", &buy("u1", 1)).await, 409, "limit_reached");
        }
        told_from_memory(&stage.app).await > 0
    })
    .await;
    assert_eq!(stage.app.order("s", "", &buy("u2", 1)).await.status, 201, "another buyer's limit is another");
    stage.shop.always(Answer::Refused("no".into()));
    eventually("the units are back", SOON, || async { stage.app.order("s", "", &buy("u1", 1)).await.status == 201 })
        .await;
}
