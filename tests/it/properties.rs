//! Random sequences of everything that can happen to a sale, on the rules and on the scripts, in both versions of
//! Redis. Few keys, buyers and SKUs, so that they collide; every answer and every counter is compared after each step.

use crate::support::servers::RedisVersion;
use crate::support::shared;
use crate::support::twin::{Ask, Sent, Twin, connect, same};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rushline::domain::sale::SaleStatus;

/// Sequences for each version of Redis. Raise `PROPTEST_CASES` to look longer.
const CASES: u32 = 48;
const STEPS_MAX: usize = 30;
const BATCH_MAX: usize = 40;
const LATER_MS: u64 = 4_000_000_000_000; // in the year 2096

#[derive(Debug, Clone)]
enum Step {
    Orders(Vec<Ask>),
    /// Each number picks one of the open orders.
    Finish(Vec<(prop::sample::Index, bool)>),
    FinishAgain(prop::sample::Index),
    Retry(Vec<prop::sample::Index>),
    Restock {
        request_id: u8,
        sku: &'static str,
        units: i64,
    },
    Status(SaleStatus),
    Opens(bool),
    Closes(bool),
    Limit(Option<u32>),
    Drain,
    Forget,
}

fn sku() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => Just("a"), 4 => Just("b"), 2 => Just("c"), 1 => Just("new")]
}

fn an_ask() -> impl Strategy<Value = Ask> {
    (
        prop::option::weighted(0.7, 0..10u8),
        0..5u8,
        prop::collection::btree_map(sku(), 1..4u32, 1..4),
        prop_oneof![4 => Just(0), 1 => Just(1u32)],
    )
        .prop_map(|(key, buyer, items, payload)| Ask {
            key: key.map(|key| format!("k{key}")),
            buyer: format!("u{buyer}"),
            items: items.into_iter().map(|(sku, quantity)| (sku.to_owned(), quantity)).collect(),
            payload,
        })
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        10 => prop::collection::vec(an_ask(), 1..=BATCH_MAX).prop_map(Step::Orders),
        6 => prop::collection::vec(an_ask(), 1..=3).prop_map(Step::Orders),
        10 => prop::collection::vec((index(), any::<bool>()), 1..12).prop_map(Step::Finish),
        3 => index().prop_map(Step::FinishAgain),
        3 => prop::collection::vec(index(), 1..4).prop_map(Step::Retry),
        5 => (0..8u8, sku(), -9..12i64).prop_map(|(request_id, sku, units)| Step::Restock { request_id, sku, units }),
        3 => prop_oneof![Just(SaleStatus::Open), Just(SaleStatus::Paused)].prop_map(Step::Status),
        1 => Just(Step::Status(SaleStatus::Open)),
        1 => any::<bool>().prop_map(Step::Opens),
        1 => any::<bool>().prop_map(Step::Closes),
        2 => prop::option::of(1..8u32).prop_map(Step::Limit),
        3 => Just(Step::Drain),
        1 => Just(Step::Forget),
    ]
}

/// A sequence, and whether the sale is closed near its end.
fn sequence() -> impl Strategy<Value = Vec<Step>> {
    let end = prop_oneof![
        3 => Just(Vec::new()),
        1 => prop::collection::vec(step(), 1..6).prop_map(|rest| [vec![Step::Status(SaleStatus::Closed)], rest].concat()),
    ];
    (prop::collection::vec(step(), 1..STEPS_MAX), end).prop_map(|(steps, end)| [steps, end].concat())
}

async fn play(twin: &mut Twin, steps: Vec<Step>) {
    let mut sent: Vec<Sent> = Vec::new();
    for step in steps {
        let open: Vec<usize> = (0..twin.orders_len()).filter(|order| !twin.ended(*order)).collect();
        match step {
            Step::Orders(batch) => {
                twin.admit(&batch).await;
            }
            Step::Finish(ends) => {
                let mut chosen = std::collections::BTreeMap::new();
                if !open.is_empty() {
                    chosen.extend(ends.iter().map(|(which, created)| (*which.get(&open), *created)));
                    let ends: Vec<(usize, bool)> = chosen.into_iter().collect();
                    sent.push(twin.finish(&ends).await);
                }
            }
            Step::FinishAgain(which) if !sent.is_empty() => twin.finish_again(which.get(&sent)).await,
            Step::FinishAgain(_) => {}
            Step::Retry(which) if twin.orders_len() > 0 => {
                let all: Vec<usize> = (0..twin.orders_len()).collect();
                let chosen: Vec<usize> = which.iter().map(|which| *which.get(&all)).collect();
                twin.retry(&chosen).await;
            }
            Step::Retry(_) => {}
            Step::Restock { request_id, sku, units } => {
                twin.restock(&format!("r{request_id}"), sku, units).await;
            }
            Step::Status(status) => {
                twin.update(|settings| settings.status = status).await;
            }
            Step::Opens(later) => {
                twin.update(|settings| settings.window.opens_ms = later.then_some(LATER_MS)).await;
            }
            Step::Closes(past) => {
                twin.update(|settings| settings.window.closes_ms = past.then_some(1)).await;
            }
            Step::Limit(limit) => {
                twin.update(|settings| settings.limit_per_buyer = limit).await;
            }
            Step::Drain => {
                twin.drain().await;
            }
            Step::Forget => {
                twin.forget().await;
            }
        }
    }
}

fn rules_and_scripts_agree(version: RedisVersion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = runtime.block_on(shared::redis(version));
    let redis = runtime.block_on(connect(&server));
    let raw = redis::Client::open(server.socket_url()).unwrap();
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let played = runner.run(&(sequence(), 0..4u32), |(steps, limit)| {
        let units = [("a", 12), ("b", 4), ("c", 0)];
        let name = shared::unique("random");
        let mut twin = runtime.block_on(Twin::open(redis.clone(), raw.clone(), &name, &units, limit * 2));
        runtime.block_on(play(&mut twin, steps));
        Ok(())
    });
    if let Err(error) = played {
        panic!("{error}");
    }
}

#[test]
fn rules_and_scripts_agree_on_redis_7() {
    rules_and_scripts_agree(RedisVersion::V7);
}

#[test]
fn rules_and_scripts_agree_on_redis_8() {
    rules_and_scripts_agree(RedisVersion::V8);
}

/// A node drains from memory. If Redis came back without an end that this node saw written, the entry must stay: it will be
/// ended again.
#[tokio::test]
async fn an_entry_with_an_open_order_is_not_forgotten() {
    let server = shared::redis(RedisVersion::V7).await;
    let raw = redis::Client::open(server.socket_url()).unwrap();
    let mut twin = Twin::open(connect(&server).await, raw, &shared::unique("early"), &[("a", 9)], 0).await;
    let ask = |key: &str| Ask { key: Some(key.into()), buyer: "u1".into(), items: vec![("a".into(), 1)], payload: 0 };
    twin.admit(&[ask("k1"), ask("k2")]).await;
    twin.finish(&[(0, true)]).await;
    assert_eq!(twin.drain_too_early().await, 0);
    twin.finish(&[(1, true)]).await;
    twin.drain().await;
}

/// Somebody wrote something else under one of our keys. Whatever script meets it may fail, but must have written nothing
/// by then (law L3): units that are taken for an order that nobody knows of would be lost for good.
#[tokio::test]
async fn a_script_that_fails_has_written_nothing() {
    for version in [RedisVersion::V7, RedisVersion::V8] {
        let server = shared::redis(version).await;
        let redis = connect(&server).await;
        let raw = redis::Client::open(server.socket_url()).unwrap();
        let (mut failed, mut kinds) = (0, 0);
        for name in KEYS {
            for plant in ["string", "list", "no group", "text in the field"] {
                let sale = shared::unique("hostile");
                let mut twin = Twin::open(redis.clone(), raw.clone(), &sale, &[("a", 9), ("b", 9)], 0).await;
                let ask = |key: &str, quantity| Ask {
                    key: Some(key.into()),
                    buyer: "u1".into(),
                    items: vec![("a".into(), quantity), ("b".into(), 1)],
                    payload: 0,
                };
                twin.admit(&[ask("k1", 1), ask("k2", 2)]).await;
                twin.admit(&[ask("k3", 1)]).await;
                twin.retry(&[0, 2]).await;
                twin.finish(&[(2, false)]).await;
                if !plant_in(&mut twin, name, plant).await {
                    continue;
                }
                kinds += 1;
                for step in STEPS {
                    let before = twin.dump().await;
                    let error = twin.try_step(step).await;
                    if let Err(error) = error {
                        failed += 1;
                        let why = format!("{version:?} {step} failed on {name} ({plant}) after writing: {error}");
                        same(&before, &twin.dump().await, &why);
                    }
                }
            }
        }
        assert!(kinds > 20 && failed > 40, "{kinds} kinds of trouble, {failed} failures: the test tests nothing");
    }
}

const KEYS: [&str; 11] =
    ["sale", "stock", "requests", "buyers", "intake", "outcome", "retry", "detail", "finished", "changes", "log"];
const STEPS: [&str; 7] = ["admit", "finish", "retry", "renew", "drained", "restock", "update"];

/// Makes one of the sale's keys something else; false if it cannot be that.
async fn plant_in(twin: &mut Twin, name: &str, plant: &str) -> bool {
    let key = format!("{}{name}", twin.keys.sale.strip_suffix("sale").unwrap());
    let raw = &mut twin.raw;
    let mut pipeline = redis::pipe();
    match (plant, name) {
        ("string", _) => pipeline.del(&key).set(&key, "9"),
        ("list", _) => pipeline.del(&key).rpush(&key, "9"),
        ("no group", "intake") => pipeline.cmd("XGROUP").arg("DESTROY").arg(&key).arg("delivery"),
        ("no group", "finished") => pipeline.cmd("XGROUP").arg("DESTROY").arg(&key).arg("records"),
        ("text in the field", "stock") => pipeline.hset(&key, "b:reserved", "many"),
        ("text in the field", "buyers") => pipeline.hset(&key, "u1", "many"),
        ("text in the field", "sale") => pipeline.hset(&key, "limit", "many").hset(&key, "version", "new"),
        _ => return false,
    };
    pipeline.query_async::<redis::Value>(raw).await.unwrap();
    true
}

/// The order service refuses a whole large sale: more orders with details than Lua's stack takes at once.
#[tokio::test]
async fn ten_thousand_refusals_are_finished_and_drained_at_once() {
    let server = shared::redis(RedisVersion::V7).await;
    let redis = connect(&server).await;
    let raw = redis::Client::open(server.socket_url()).unwrap();
    let mut twin = Twin::open(redis, raw, &shared::unique("refused"), &[("a", 20_000)], 0).await;
    for batch in 0..10 {
        let ask = |n: u32| Ask {
            key: Some(format!("k{batch}-{n}")),
            buyer: format!("u{n}"),
            items: vec![("a".into(), 1)],
            payload: 0,
        };
        twin.admit(&(0..1024).map(ask).collect::<Vec<_>>()).await; // the largest batch that can be set
    }
    let all: Vec<usize> = (0..twin.orders_len()).collect();
    for some in all.chunks(1000) {
        twin.retry(some).await;
    }
    let ends: Vec<(usize, bool)> = all.iter().map(|order| (*order, false)).collect();
    twin.finish(&ends).await;
    assert_eq!(twin.drain().await, 10);
}

/// Keys of a sale that is not there: opening its books must not begin half-way.
#[tokio::test]
async fn a_sale_is_not_created_over_foreign_keys() {
    let server = shared::redis(RedisVersion::V7).await;
    let redis = connect(&server).await;
    let raw = redis::Client::open(server.socket_url()).unwrap();
    for name in ["stock", "intake", "finished"] {
        let sale = shared::unique("foreign");
        let mut twin = Twin::open(redis.clone(), raw.clone(), &sale, &[("a", 1)], 0).await;
        let key = format!("{}{name}", twin.keys.sale.strip_suffix("sale").unwrap());
        let kept: Vec<String> =
            twin.dump().await.into_keys().map(|key| key.split(' ').next().unwrap().into()).collect();
        for other in kept.iter().filter(|other| **other != key) {
            redis::cmd("DEL").arg(other).query_async::<()>(&mut twin.raw).await.unwrap();
        }
        let before = twin.dump().await;
        assert!(twin.try_step("create").await.is_err(), "{name}");
        same(&before, &twin.dump().await, name);
    }
}
