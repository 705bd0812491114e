//! What does an order cost Redis? Admission and finish at batch sizes 1 to 256, on a real private redis-server.
//!
//! Criterion times the round trip; the line after each group is what Redis itself counts (`INFO commandstats`, the
//! scripts' own time, all they call included), per order. That figure is steady on a noisy machine.

use criterion::{BenchmarkId, Criterion, Throughput};
use rushline::domain::ids::{Buyer, IdempotencyKey, SaleName, Sku};
use rushline::domain::order::{Item, Order};
use rushline::domain::sale::{Durability, Endpoint, NewSale, SaleStatus, Settings, Window};
use rushline::domain::terms::Terms;
use rushline::store::embedded::Embedded;
use rushline::store::keys::Keys;
use rushline::store::lane::Lane;
use rushline::store::orders::{Decision, Finish, Prepared, Sums};
use rushline::store::promise::Wait;
use rushline::store::redis::{self as store, Redis};
use serde_json::value::RawValue;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;

const BATCHES: [usize; 5] = [1, 4, 16, 64, 256];
/// About what a shop sends along: 110 bytes.
const PAYLOAD: &str =
    r#"{"address":"12 Example Street, 10115 Berlin","coupon":"NOV22","gift":false,"note":"please ring twice, thanks"}"#;

struct Shop {
    redis: Arc<Redis>,
    keys: Keys,
    lane: Lane,
    next: AtomicU64,
}

impl Shop {
    async fn open(url: &str) -> Self {
        let settings = store::Settings {
            url: url.into(),
            prefix: "bench:".into(),
            connections: 1,
            timeout: Duration::from_secs(10),
            rewrite_after_load: false,
            tls: Default::default(),
        };
        let redis = Redis::connect(settings).await.expect("a private Redis was just started");
        let sale = SaleName::parse("bench").unwrap();
        let new = NewSale {
            sale: sale.clone(),
            items: vec![(Sku::parse("sku-1").unwrap(), 1_000_000_000_000)],
            settings: Settings {
                status: SaleStatus::Open,
                window: Window::default(),
                limit_per_buyer: Some(2),
                endpoint: Endpoint::at("http://127.0.0.1:1/"),
                durability: Durability::Memory,
                webhook: None,
                terms: Terms::default(),
            },
        };
        redis.create_sale(&new, "{}").await.expect("the sale is new");
        Self { keys: Keys::new("bench:", &sale, 0), lane: redis.lane(), redis, next: AtomicU64::new(0) }
    }

    fn orders(&self, n: usize) -> Vec<Prepared> {
        let first = self.next.fetch_add(n as u64, Ordering::Relaxed);
        (first..first + n as u64)
            .map(|i| {
                Prepared::new(Order {
                    key: Some(IdempotencyKey::parse(format!("key-{i}")).unwrap()),
                    buyer: Buyer::parse(format!("u{i}")).unwrap(),
                    items: vec![Item { sku: Sku::parse("sku-1").unwrap(), quantity: 1 }],
                    payload: Some(RawValue::from_string(PAYLOAD.into()).unwrap()),
                    trace: None,
                    limits_by: None,
                })
            })
            .collect()
    }

    /// One batch from request to sold.
    async fn sell(&self, orders: &[Prepared]) {
        let mut lane = self.lane.clone();
        let admitted = self
            .redis
            .admit(&mut lane, &self.keys, "bench", orders, Wait::Nothing, Duration::from_secs(1))
            .await
            .expect("Redis answers");
        assert!(admitted.decisions.iter().all(|decision| matches!(decision, Decision::Admitted(_))));
        let mut sums = Sums::default();
        sums.skus.insert(Sku::parse("sku-1").unwrap(), (orders.len() as u64, 0));
        let finish = Finish {
            entry: admitted.entry.expect("somebody won"),
            expected: ".".repeat(orders.len()),
            new: "s".repeat(orders.len()),
        };
        let finished = self.redis.finish(&mut lane, &self.keys, &[finish], &sums).await.expect("Redis answers");
        assert!(finished.stale.is_empty());
    }

    async fn script_micros(&self) -> f64 {
        let info: String = redis::cmd("INFO").arg("commandstats").query_async(&mut self.lane.clone()).await.unwrap();
        let line = info.lines().find(|line| line.starts_with("cmdstat_evalsha:")).unwrap_or_default();
        line.split(',').find_map(|pair| pair.strip_prefix("usec=")).map_or(0.0, |micros| micros.parse().unwrap())
    }
}

fn main() {
    let runtime = Runtime::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let private =
        runtime.block_on(Embedded::start("redis-server", directory.path())).expect("redis-server is installed");
    let shop = runtime.block_on(Shop::open(&private.url));
    let mut criterion = Criterion::default().configure_from_args().sample_size(20);
    let mut group = criterion.benchmark_group("admit_and_finish");
    for batch in BATCHES {
        let before = runtime.block_on(shop.script_micros());
        let sold_before = shop.next.load(Ordering::Relaxed);
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_with_input(BenchmarkId::from_parameter(batch), &batch, |bencher, &batch| {
            bencher.to_async(&runtime).iter_batched(
                || shop.orders(batch),
                async |orders| shop.sell(&orders).await,
                criterion::BatchSize::SmallInput,
            );
        });
        let micros = runtime.block_on(shop.script_micros()) - before;
        let sold = shop.next.load(Ordering::Relaxed) - sold_before;
        println!(
            "batch {batch:>3}: {:.2} µs of Redis per admitted and finished order ({sold} orders)",
            micros / sold as f64
        );
    }
    group.finish();
    criterion.final_summary();
    runtime.block_on(private.stop(Duration::from_secs(10)));
}
