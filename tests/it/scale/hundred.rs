//! One SKU over 16 partitions, two nodes in this process, a real Redis: every unit is sold, every time.
//!
//! `cargo test --all-features --test it -- --ignored a_hundred_runs` does what the issue asks for: 100,000 units, 100 times.
//! `RUSHLINE_TEST_RUNS` and `RUSHLINE_TEST_UNITS` make it shorter.

use crate::support::crowd::ask_redis;
use crate::support::servers::{Redis as Server, RedisVersion};
use futures_util::future::join_all;
use rushline::domain::ids::{Buyer, SaleName, Sku};
use rushline::domain::order::{Item, Order};
use rushline::domain::sale::{CallMode, Durability, Endpoint, NewSale, SaleStatus, Settings, Window};
use rushline::sale::admission::Answer;
use rushline::sale::node::Node;
use rushline::sale::{Limits, Refusal};
use rushline::store::redis::{self, Redis};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const PARTITIONS: u16 = 16;
const BUYERS_AT_A_TIME: usize = 256;

struct Told {
    sent: Instant,
    heard: Instant,
    /// The partition that admitted it.
    admitted: Option<u16>,
}

#[test]
fn one_sku_over_sixteen_partitions_sells_to_the_last_unit() {
    runs(1, 16_000);
}

#[test]
#[ignore = "takes long: a figure for docs/performance.md"]
fn a_hundred_runs_of_a_hundred_thousand() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let (runs_wanted, units) = (number("RUSHLINE_TEST_RUNS"), number("RUSHLINE_TEST_UNITS"));
    runs(runs_wanted.unwrap_or(100), units.unwrap_or(100_000));
}

fn runs(runs: u64, units: u64) {
    let outer = tokio::runtime::Runtime::new().unwrap();
    let server = outer.block_on(Server::start(RedisVersion::V7, &["--appendonly", "no"]));
    let started = Instant::now();
    for run in 0..runs {
        // A runtime of its own takes all that a run left in memory along.
        let inner = tokio::runtime::Runtime::new().unwrap();
        let told = inner.block_on(sell_out(server.url(), units));
        drop(inner);
        outer.block_on(ask_redis::<()>(&server, &["FLUSHALL", "ASYNC"]));
        check(run, units, &told);
        println!("run {run}: {units} of {units} sold, {} refused, {:?}", told.len() as u64 - units, started.elapsed());
    }
}

async fn node(url: String, name: &str) -> Arc<Node> {
    let settings = redis::Settings {
        url,
        tls: Default::default(),
        prefix: "rl:".into(),
        connections: 2,
        timeout: Duration::from_secs(20),
        rewrite_after_load: false,
    };
    let limits = Limits {
        batch_max: 256,
        queue_max: 10_000,
        backlog_max: u64::MAX,
        lease: Duration::from_secs(600),
        retry_base: Duration::from_secs(3_600),
        retry_max: Duration::from_secs(3_600),
        ongoing: Duration::from_secs(1),
        attention_after: u32::MAX,
        patience: Duration::from_secs(20),
    };
    Node::new(Redis::connect(settings).await.unwrap(), name, limits)
}

async fn sell_out(url: String, units: u64) -> Vec<Told> {
    let nodes = [node(url.clone(), "a").await, node(url, "b").await];
    let name = SaleName::parse("hot").unwrap();
    let settings = Settings {
        status: SaleStatus::Open,
        window: Window::default(),
        limit_per_buyer: Some(1),
        // Nobody is there, and orders that nobody makes stay taken.
        endpoint: Endpoint { max_concurrency: 1, mode: CallMode::Bulk, ..Endpoint::at("http://127.0.0.1:1/orders") },
        durability: Durability::Memory,
        webhook: None,
        terms: Default::default(),
    };
    let new = NewSale { sale: name.clone(), items: vec![(Sku::parse("a").unwrap(), units)], settings };
    nodes[0].redis.create_sale(&new, "{}").await.unwrap();
    let open = nodes[0].open(&name).await.unwrap().unwrap();
    nodes[0].grow(&open, PARTITIONS, true).await.unwrap();
    let next = Arc::new(AtomicU64::new(0));
    let buying = (0..BUYERS_AT_A_TIME).map(|place| {
        let (node, name, next) = (nodes[place % 2].clone(), name.clone(), next.clone());
        tokio::spawn(async move {
            let open = node.open(&name).await.unwrap().unwrap();
            let mut told = Vec::new();
            loop {
                let order = Order {
                    buyer: Buyer::parse(format!("buyer-{}", next.fetch_add(1, Ordering::Relaxed))).unwrap(),
                    items: vec![Item { sku: Sku::parse("a").unwrap(), quantity: 1 }],
                    payload: None,
                    key: None,
                    trace: None,
                    limits_by: None,
                };
                let sent = Instant::now();
                let (part, asked) = node.ask(&open, order, false).await.unwrap();
                let heard = Instant::now();
                match asked.answer {
                    Answer::Admitted { .. } => told.push(Told { sent, heard, admitted: Some(part.number) }),
                    Answer::Refused(Refusal::SoldOut) => {
                        told.push(Told { sent, heard, admitted: None });
                        return told;
                    }
                    other => panic!("{other:?}"),
                }
            }
        })
    });
    join_all(buying).await.into_iter().flat_map(Result::unwrap).collect()
}

fn check(run: u64, units: u64, told: &[Told]) {
    let admitted: Vec<&Told> = told.iter().filter(|told| told.admitted.is_some()).collect();
    assert_eq!(admitted.len() as u64, units, "run {run}");
    // Nothing comes back here, so whoever is refused must have had all winners send their orders before.
    let first = told.iter().filter(|told| told.admitted.is_none()).map(|told| told.heard).min().unwrap();
    let before = admitted.iter().filter(|told| told.sent < first).count() as u64;
    assert_eq!(before, units, "run {run}: somebody was refused while units were there");
    let fair = units as f64 / f64::from(PARTITIONS);
    for partition in 0..PARTITIONS {
        let load = admitted.iter().filter(|told| told.admitted == Some(partition)).count() as f64;
        assert!((load / fair - 1.0).abs() <= 0.10, "run {run}: partition {partition} has {load} of {fair}");
    }
}
