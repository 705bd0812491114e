//! Two nodes on one Redis: one falls asleep, is killed or told to stop, and the other goes on with its orders.

use crate::support::app::{App, AppOptions, Http, eventually};
use crate::support::crowd::{self, Crowd, Heard, SALE, assert_exact, order_of};
use crate::support::process::free_port;
use crate::support::servers::{Redis, RedisVersion};
use crate::support::shop::{Answer, Shop};
use serde_json::json;
use std::time::{Duration, Instant};

const LEASE: Duration = Duration::from_millis(600);
const SOON: Duration = Duration::from_secs(30);
/// Calls that a node may have under way.
const CONCURRENCY: usize = 4;

/// Two nodes, a shop, and a directory with the records that both write.
struct Pair {
    shop: Shop,
    a: App,
    b: App,
    ports: [u16; 2],
    _records: tempfile::TempDir,
    _redis: Redis,
}

impl Pair {
    async fn start(adjust: impl Fn(AppOptions) -> AppOptions) -> Self {
        let redis = Redis::start(RedisVersion::V7, &[]).await;
        let records = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", records.path().join("orders.db").display());
        let shop = Shop::start().await;
        let ports = [free_port(), free_port()];
        let options = |port| adjust(AppOptions::default().quick().redis(&redis.url()).records(&url).on_port(port));
        let a = App::start(options(ports[0])).await;
        let endpoint = shop.endpoint_with(json!({"max_concurrency": CONCURRENCY, "timeout_ms": 20_000}));
        a.create_sale(&crowd::sale(endpoint)).await;
        let b = App::start(options(ports[1])).await;
        Self { shop, a, b, ports, _records: records, _redis: redis }
    }

    fn targets(&self) -> [Http; 2] {
        self.ports.map(|port| Http::new(format!("http://127.0.0.1:{port}")))
    }
}

/// Places orders at `app`, `count` at once; what their buyers heard.
async fn place(app: &App, count: usize) -> Heard {
    let keys: Vec<String> = (0..count).map(|number| format!("k-{}", number * 10)).collect();
    let replies = keys.iter().map(async |key| (key.clone(), app.order(SALE, key, &order_of(key)).await));
    let mut heard = Heard::default();
    for (key, reply) in futures_util::future::join_all(replies).await {
        assert_eq!(reply.status, 201, "{}", reply.json);
        heard.gids.insert(key, reply.gid().unwrap().to_owned());
    }
    heard
}

/// A node that sleeps longer than its lease loses its orders to the other and, awake again, leaves them alone: also
/// those that were in its own queue.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_overslept_its_lease_calls_no_more() {
    for mode in ["hang", "refuse"] {
        let pair = Pair::start(|options| options).await;
        let Pair { shop, a, b, .. } = &pair;
        if mode == "hang" {
            shop.always(Answer::Hang);
        } else {
            shop.leave();
        }
        let heard = place(a, 30).await;
        if mode == "hang" {
            eventually("the first calls", SOON, || async { shop.open_calls() == CONCURRENCY }).await;
        }
        a.signal("STOP");
        let stopped = Instant::now();
        shop.always(Answer::Created);
        if mode == "refuse" {
            shop.come_back().await;
        }
        eventually("the other node delivers", SOON, || async { shop.order_count() == 30 }).await;
        // Two leases until it is taken over, and the machine may be busy.
        assert!(stopped.elapsed() < 2 * LEASE + Duration::from_secs(3), "{:?}", stopped.elapsed());
        let report = b.wait_until_settled(SALE).await;
        assert_eq!(report["drift"], 0, "{report}");
        let calls = shop.call_count();
        a.signal("CONT");
        shop.release();
        eventually("it is awake", SOON, || async { a.get("/readyz").await.status == 200 }).await;
        let reply = a.order(SALE, "k-1000", &order_of("k-1000")).await;
        assert_eq!(reply.status, 201, "{}", reply.json);
        let mut heard = heard;
        heard.gids.insert("k-1000".into(), reply.gid().unwrap().to_owned());
        assert_exact(a, shop, &heard).await;
        let repeated = shop.call_count() - calls - 1;
        assert!(repeated <= CONCURRENCY, "{mode}: {repeated} calls for orders that were another node's");
    }
}

/// The calls that a node made before it lost its orders are answered after it won them back: each order counts once.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_from_before_a_loss_is_not_counted_again() {
    let mut pair = Pair::start(|options| options).await;
    pair.shop.always(Answer::HangAfter);
    // Fewer than there are callers, so that the callers of old and new calls find a place.
    let heard = place(&pair.a, 3).await;
    eventually("calls of the first node", SOON, || async { pair.shop.call_count() == 3 }).await;
    pair.a.signal("STOP");
    eventually("calls of the second node", SOON, || async { pair.shop.call_count() == 6 }).await;
    pair.a.signal("CONT");
    eventually("it lets go", SOON, || async { pair.a.log().contains("its lease ran out") }).await;
    pair.b.kill9();
    eventually("calls of the first node, again", SOON, || async { pair.shop.call_count() >= 7 }).await;
    pair.shop.always(Answer::Created);
    pair.shop.release();
    assert_exact(&pair.a, &pair.shop, &heard).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_orders_of_a_killed_node_are_delivered() {
    let mut pair = Pair::start(|options| options).await;
    pair.shop.always(Answer::CutBefore);
    let heard = place(&pair.a, 30).await;
    pair.a.kill9();
    let killed = Instant::now();
    pair.shop.always(Answer::Created);
    eventually("the other node delivers", SOON, || async { pair.shop.order_count() == 30 }).await;
    assert!(killed.elapsed() < 2 * LEASE + Duration::from_secs(3), "{:?}", killed.elapsed());
    assert_exact(&pair.b, &pair.shop, &heard).await;
}

/// SIGTERM in the middle of a sale: a clean end in time, and buyers only notice that one address is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_node_ends_in_time_and_loses_nothing() {
    let mut pair = Pair::start(|options| options).await;
    crowd::trying_shop(&pair.shop);
    let buyers = Crowd::start(&pair.targets(), 8);
    buyers.wait_for_more(20, SOON).await;
    let started = Instant::now();
    let status = pair.a.terminate().await;
    assert!(status.success(), "{status}\n{}", pair.a.log());
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    buyers.wait_for_more(20, SOON).await;
    let heard = buyers.stop().await;
    assert_exact(&pair.b, &pair.shop, &heard).await;
}

/// What a stopping node cannot finish it hands over: the other need not wait for the lease to run out.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_stopped_node_cannot_finish_is_handed_over() {
    const LONG_LEASE: Duration = Duration::from_secs(8);
    let mut pair = Pair::start(|options| {
        options.setting("delivery.lease_ms", LONG_LEASE.as_millis()).setting("shutdown.grace_ms", 500)
    })
    .await;
    pair.shop.always(Answer::Hang);
    let heard = place(&pair.a, 10).await;
    eventually("the first calls", SOON, || async { pair.shop.open_calls() == CONCURRENCY }).await;
    let placed = Instant::now();
    let status = pair.a.terminate().await;
    assert!(status.success(), "{status}");
    assert!(placed.elapsed() < Duration::from_secs(4), "{:?}", placed.elapsed());
    pair.shop.always(Answer::Created);
    eventually("the other node delivers", SOON, || async { pair.shop.order_count() == 10 }).await;
    assert!(placed.elapsed() < LONG_LEASE, "{:?}", placed.elapsed());
    assert_exact(&pair.b, &pair.shop, &heard).await;
}
