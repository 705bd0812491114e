//! What does gathering orders into batches bring? So many callers ask at once, each again as soon as it has its answer, on
//! a real private redis-server; the line after each group says how many orders one script call decided.
//!
//! Their orders are delivered meanwhile, to an endpoint that says 201 to everything: admission never runs alone.

use criterion::{BenchmarkId, Criterion, Throughput};
use futures_util::future::join_all;
use rushline::config::Config;
use rushline::domain::ids::{IdempotencyKey, SaleName};
use rushline::sale::node::Node;
use rushline::sale::open::Open;
use rushline::serve;
use rushline::server::wire::{CreateSale, PlaceOrder};
use rushline::store::embedded::Embedded;
use rushline::store::redis::Redis;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

const CALLERS: [usize; 5] = [1, 4, 16, 64, 256];
/// Asked by each caller in one sample.
const EACH: usize = 8;

static NEXT: AtomicU64 = AtomicU64::new(0);

async fn endpoint() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                // A call of this bench comes in one piece.
                while matches!(stream.read(&mut request).await, Ok(1..)) {
                    let answer = b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n";
                    if stream.write_all(answer).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

async fn open(redis: Arc<Redis>) -> (Arc<Node>, Arc<Open>) {
    let body = serde_json::json!({ "sale": "bench", "items": [{ "sku": "sku-1", "units": 1_000_000_000_000_u64 }],
        "durability": "memory", "order_endpoint": { "url": format!("http://{}/", endpoint().await) } });
    let new = serde_json::from_value::<CreateSale>(body).unwrap().into_new_sale().unwrap();
    redis.create_sale(&new, "{}").await.expect("the sale is new");
    let mut config = Config::default();
    config.delivery.backlog_max = 100_000_000; // what is asked here is decided, however far delivery is behind
    let node = Node::new(redis, "bench", serve::limits(&config));
    let open = node.open(&SaleName::parse("bench").unwrap()).await.unwrap().expect("the sale was just made");
    (node, open)
}

async fn call(node: Arc<Node>, open: Arc<Open>) {
    for _ in 0..EACH {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let body = format!(r#"{{"buyer":"u{number}","items":[{{"sku":"sku-1","quantity":1}}],"payload":{{"a":1}}}}"#);
        let order: PlaceOrder<'_> = serde_json::from_str(&body).unwrap();
        let key = IdempotencyKey::parse(format!("key-{number}")).unwrap();
        let order = order.into_order(Some(key), None).unwrap();
        let (_, asked) = node.ask(&open, order, false).await.unwrap();
        assert!(matches!(asked.answer, rushline::sale::admission::Answer::Admitted { replayed: false, .. }));
    }
}

async fn script_calls(redis: &Redis) -> f64 {
    let info: String = redis::cmd("INFO").arg("commandstats").query_async(&mut redis.lane()).await.unwrap();
    let line = info.lines().find(|line| line.starts_with("cmdstat_evalsha:calls=")).unwrap_or_default();
    line.split(['=', ',']).nth(1).map_or(0.0, |calls| calls.parse().unwrap())
}

fn main() {
    let runtime = Runtime::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let private =
        runtime.block_on(Embedded::start("redis-server", directory.path())).expect("redis-server is installed");
    let mut config = Config::default();
    config.redis.prefix = "bench:".into();
    let settings = serve::redis_settings(&config, private.url.clone());
    let redis = runtime.block_on(Redis::connect(settings)).expect("a private Redis was just started");
    let (node, open) = runtime.block_on(open(redis.clone()));
    let mut criterion = Criterion::default().configure_from_args().sample_size(10);
    let mut group = criterion.benchmark_group("admission");
    for callers in CALLERS {
        let (calls, asked) = (runtime.block_on(script_calls(&redis)), NEXT.load(Ordering::Relaxed));
        group.throughput(Throughput::Elements((callers * EACH) as u64));
        group.bench_with_input(BenchmarkId::new("callers", callers), &callers, |bencher, &callers| {
            bencher.to_async(&runtime).iter(|| async {
                let tasks = (0..callers).map(|_| tokio::spawn(call(node.clone(), open.clone())));
                join_all(tasks).await.into_iter().for_each(|ended| ended.expect("no caller panics"));
            });
        });
        let calls = runtime.block_on(script_calls(&redis)) - calls;
        let asked = NEXT.load(Ordering::Relaxed) - asked;
        println!("{callers:>3} callers: {:.1} orders to a script call, ends included", asked as f64 / calls);
    }
    group.finish();
    criterion.final_summary();
    runtime.block_on(private.stop(Duration::from_secs(10)));
}
