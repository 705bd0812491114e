//! A node leaves in good order: it says so first, goes on serving until that was noticed, and ends what it has begun. So two
//! nodes can be restarted one after the other, as an upgrade does, and nobody hears of it.

pub mod balancer;
pub mod load;

use crate::support::app::{App, AppOptions, Http, eventually};
use crate::support::crowd::{SALE, assert_exact, order_of};
use crate::support::process::free_port;
use crate::support::servers::{Redis, RedisVersion};
use crate::support::services::Service;
use crate::support::shop::{Answer, Shop};
use balancer::Balancer;
use load::{BRANCH_TAKES, Load, MIXED};
use serde_json::json;
use std::time::Duration;

/// Everything that is waited for comes well within this.
pub const SOON: Duration = Duration::from_secs(30);
/// Longer than any story: what is still leased when a node has gone stays so.
const LONG_LEASE: Duration = Duration::from_secs(120);
/// How often each node is restarted.
const ROUNDS: usize = 3;
/// Good answers between two restarts.
const ANSWERS: usize = 80;

pub fn plenty(shop: &Shop) -> serde_json::Value {
    json!({
        "sale": SALE,
        "items": [{"sku": "few", "units": 1_000_000}, {"sku": "many", "units": 1_000_000}],
        "order_endpoint": shop.endpoint_with(json!({"max_concurrency": 4})),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_fails_no_request_and_leaves_nothing_behind() {
    let redis = Redis::start(RedisVersion::V8, &[]).await;
    let records = tempfile::tempdir().unwrap();
    let (shop, service) = (Shop::start().await, Service::start().await);
    for path in ["/do", "/undo"] {
        service.slow(path, BRANCH_TAKES);
    }
    let ports = [free_port(), free_port()];
    let options = |port| {
        AppOptions::default()
            .redis(&redis.url())
            .records(&format!("sqlite:{}", records.path().join("orders.db").display()))
            .on_port(port)
            .setting("shutdown.pause_ms", 400)
            .setting("delivery.lease_ms", 3_000) // finished orders lie so long until another node writes them to the records
            .setting("trans.lease_ms", LONG_LEASE.as_millis())
            .setting("trans.request_timeout_ms", 20_000) // a call that is given up and made again would be no fault of the restart
    };
    let mut nodes = [App::start(options(ports[0])).await, App::start(options(ports[1])).await];
    nodes[0].create_sale(&plenty(&shop)).await;

    let balancer = Balancer::new(ports);
    let load = Load::start(MIXED, &balancer, &service);
    for _ in 0..ROUNDS {
        for node in &mut nodes {
            load.wait_for_more(ANSWERS).await;
            let status = node.terminate().await;
            assert!(status.success(), "{status}\n{}", node.log());
            load.wait_for_more(ANSWERS / 2).await; // with one node
            node.restart(|options| options).await;
            eventually("it is ready", SOON, || async { node.get("/readyz").await.status == 200 }).await;
        }
    }
    load.wait_for_more(ANSWERS).await;
    let begun = load.stop().await;
    assert_eq!(balancer.failed(), [""; 0]);
    println!(
        "{} orders and {} transactions over {} restarts",
        begun.orders.gids.len(),
        begun.transactions.len(),
        2 * ROUNDS
    );

    // No lease runs out in time for this: whatever was not finished or handed over stays undone.
    let node = &nodes[0];
    for gid in &begun.transactions {
        let status =
            || async { node.get(&format!("/api/dtmsvr/query?gid={gid}")).await.json["transaction"]["status"].clone() };
        eventually(&format!("{gid} ends"), SOON, || async { status().await == "succeed" }).await;
        assert_eq!(service.steps(gid), ["action/01", "action/02"], "{gid}: each branch is called once");
    }
    assert_exact(node, &shop, &begun.orders).await;
    assert_eq!(shop.call_count(), begun.orders.gids.len(), "each order was called for once");
}

/// SIGTERM: not ready any more, and everything that comes is answered well, on a connection that closes after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_leaves_says_so_and_serves_on() {
    let shop = Shop::start().await;
    let port = free_port();
    let options = AppOptions::default().on_port(port).setting("shutdown.pause_ms", 600_000);
    let mut app = App::start(options).await;
    app.create_sale(&plenty(&shop)).await;
    let before = app.order(SALE, "k-0", &order_of("k-0")).await;
    assert_eq!((before.status, before.header("connection")), (201, None));

    app.signal("TERM");
    eventually("it says so", SOON, || async { app.get("/readyz").await.code() == "leaving" }).await;
    assert_eq!(app.get("/readyz").await.status, 503);
    assert_eq!(app.get("/healthz").await.status, 200, "it lives");
    let order = app.order(SALE, "k-10", &order_of("k-10")).await;
    assert_eq!((order.status, order.header("connection")), (201, Some("close")));
    let other = app.get("/v1/sales").await;
    assert_eq!((other.status, other.header("connection")), (200, Some("close")));
    let body = json!({ "gid": "m", "trans_type": "msg", "steps": [], "payloads": [] });
    assert_eq!(app.post("/api/dtmsvr/submit", &[], &body).await.status, 200);

    // Whoever is in a hurry need not wait for the pause.
    app.signal("TERM");
    assert!(app.wait_for_end(SOON).await.success(), "{}", app.log());
    Http::new(format!("http://127.0.0.1:{port}"))
        .ask(http::Method::GET, "/readyz", &[], None)
        .await
        .expect_err("the door is closed");
}

/// A buyer who waits for longer than the server has is told that the order is admitted; its end is to be asked for.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_at_a_node_that_stops_is_answered() {
    let shop = Shop::start().await;
    shop.always(Answer::Hang);
    let mut app = App::start(AppOptions::default().setting("shutdown.grace_ms", 2_000)).await;
    app.create_sale(&plenty(&shop)).await;
    let http = app.http();
    let waiting = tokio::spawn(async move {
        let path = format!("/v1/sales/{SALE}/orders?wait_ms=30000");
        http.ask(http::Method::POST, &path, &[("idempotency-key", "k-0")], Some(&order_of("k-0"))).await
    });
    eventually("it is called for", SOON, || async { shop.open_calls() == 1 }).await;
    let gid = shop.all_calls().pop().unwrap().gid;
    let http = app.http();
    let following = tokio::spawn(async move {
        http.ask(http::Method::GET, &format!("/v1/orders/{gid}?wait_ms=30000"), &[], None).await
    });
    assert!(app.terminate().await.success(), "{}", app.log());
    let placed = waiting.await.unwrap().expect("an answer, not a broken connection");
    assert_eq!((placed.status, &placed.json["status"]), (201, &json!("submitted")));
    // It may have come when the door was closed already.
    if let Ok(followed) = following.await.unwrap() {
        assert_eq!((followed.status, &followed.json["status"]), (200, &json!("submitted")));
    }
}
