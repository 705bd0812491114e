//! What a sale promises is refused where it cannot be kept, and held back where it cannot be kept just now.

use crate::support::app::{App, AppOptions, eventually};
use crate::support::crowd::{self, SALE, ask_redis, order_of};
use crate::support::servers::{Redis, RedisVersion};
use crate::support::shop::Shop;
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

fn sale_of(shop: &Shop, durability: &str) -> Value {
    let mut sale = crowd::sale(shop.endpoint());
    sale["durability"] = durability.into();
    sale
}

/// Each is refused before anything is created, says why, and names the way out.
#[tokio::test(flavor = "multi_thread")]
async fn a_promise_that_redis_cannot_keep_is_refused() {
    let no_aof: &[&str] = &["--appendonly", "no"];
    let everysec: &[&str] = &["--appendfsync", "everysec"];
    let evicting: &[&str] = &["--maxmemory-policy", "allkeys-lru"];
    let cases: [(RedisVersion, &[&str], &str, &str); 7] = [
        (RedisVersion::V7, no_aof, "fsync", "appendonly yes"),
        (RedisVersion::V8, no_aof, "fsync", "appendonly yes"),
        (RedisVersion::V7, everysec, "fsync", "appendfsync always"),
        (RedisVersion::V7, evicting, "memory", "noeviction"),
        (RedisVersion::V7, evicting, "fsync", "noeviction"),
        (RedisVersion::V7, evicting, "replica:1", "noeviction"),
        (RedisVersion::V7, &[], "replica:1", "replica:1 needs 1"),
    ];
    let stories = cases.map(|(version, arguments, durability, says)| {
        tokio::spawn(async move {
            let redis = Redis::start(version, arguments).await;
            let shop = Shop::start().await;
            let app = App::start(AppOptions::default().redis(&redis.url())).await;
            let reply = app.post("/v1/sales", &[], &sale_of(&shop, durability)).await;
            let case = format!("{version:?} {arguments:?} {durability}: {}", reply.json);
            assert_eq!((reply.status, reply.code()), (422, "durability_unavailable"), "{case}");
            assert!(reply.json["detail"].as_str().unwrap().contains(says), "{case}");
            assert_eq!(reply.json["field"], "durability", "{case}");
            assert_eq!(app.get(&format!("/v1/sales/{SALE}")).await.status, 404, "{case}");
        })
    });
    for story in stories {
        story.await.unwrap();
    }
}

/// The weaker promise is given on the very servers that refuse the stronger one.
#[tokio::test(flavor = "multi_thread")]
async fn memory_is_promised_anywhere_but_where_keys_are_evicted() {
    let redis = Redis::start(RedisVersion::V7, &["--appendonly", "no"]).await;
    let shop = Shop::start().await;
    let app = App::start(AppOptions::default().redis(&redis.url())).await;
    app.create_sale(&sale_of(&shop, "memory")).await;
    assert_eq!(app.order(SALE, "k-1", &order_of("k-1")).await.status, 201);
    // An operator who turns eviction on in mid-sale: no order is admitted that might vanish.
    ask_redis::<()>(&redis, &["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await;
    let refused = || async {
        let reply = app.order(SALE, "k-4", &order_of("k-4")).await;
        reply.status == 503 && reply.code() == "redis_refused" && reply.header("retry-after").is_some()
    };
    eventually("orders are refused", SOON, refused).await;
    ask_redis::<()>(&redis, &["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await;
    let admitted = || async { app.order(SALE, "k-7", &order_of("k-7")).await.status == 201 };
    eventually("orders are admitted again", SOON, admitted).await;
}

/// `replica:1` with a real replica that stops answering: the buyer hears that it is not sure yet, nothing is delivered,
/// and once the replica is back the same key hears of the same order.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_no_replica_has_is_not_told_of_and_not_delivered() {
    const TIMEOUT: Duration = Duration::from_millis(500);
    let redis = Redis::start(RedisVersion::V7, &[]).await;
    let port = redis.port().to_string();
    let replica = Redis::start(RedisVersion::V7, &["--replicaof", "127.0.0.1", &port]).await;
    let attached = || async { ask_redis::<String>(&redis, &["INFO", "replication"]).await.contains("state=online") };
    eventually("the replica is attached", SOON, attached).await;
    let shop = Shop::start().await;
    let options = AppOptions::default().quick().redis(&redis.url()).setting("redis.timeout_ms", TIMEOUT.as_millis());
    let app = App::start(options).await;
    app.create_sale(&sale_of(&shop, "replica:1")).await;
    assert_eq!(app.order(SALE, "k-1", &order_of("k-1")).await.status, 201);
    eventually("the first order", SOON, || async { shop.order_count() == 1 }).await;

    replica.process().signal("STOP");
    let mut not_durable = 0;
    for key in ["k-10", "k-13", "k-10"] {
        let reply = app.order(SALE, key, &order_of(key)).await;
        assert_eq!((reply.status, reply.code()), (503, "not_durable"), "{key}: {} {:?}", reply.json, reply.took);
        assert!(reply.header("retry-after").is_some());
        assert!(reply.took < TIMEOUT * 2 + Duration::from_secs(1), "{:?}", reply.took);
        not_durable += 1;
    }
    assert_eq!((shop.call_count(), not_durable), (1, 3), "delivered before any replica had it");
    // Two leases and more: whoever takes them over must not deliver them either.
    let until = tokio::time::Instant::now() + Duration::from_secs(2);
    while tokio::time::Instant::now() < until {
        assert_eq!(shop.call_count(), 1, "delivered before any replica had it");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    replica.process().signal("CONT");
    let mut gids = Vec::new();
    for key in ["k-10", "k-13"] {
        let replayed = || async {
            let reply = app.order(SALE, key, &order_of(key)).await;
            reply.status == 201 && reply.replayed()
        };
        eventually("the same key hears of its order", SOON, replayed).await;
        gids.push(app.order(SALE, key, &order_of(key)).await.gid().unwrap().to_owned());
    }
    let report = app.wait_until_settled(SALE).await;
    assert_eq!((&report["drift"], &report["records"]["succeed"]), (&json!(0), &json!(3)), "{report}");
    assert!(gids.iter().all(|gid| shop.orders().contains_key(gid)));
}
