//! The records cannot be written, or Redis is full: selling goes on as long as it can, and nothing is lost meanwhile.

use crate::support::app::{App, AppOptions, eventually};
use crate::support::crowd::{self, Crowd, Heard, SALE, ask_redis, ask_redis_at, assert_exact, assert_only_ledger_left};
use crate::support::servers::{Mongod, Redis, RedisVersion};
use crate::support::shop::{Answer, Shop};
use serde_json::json;
use sqlx::Connection;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

async fn entries_waiting(redis_url: &str) -> u64 {
    ask_redis_at(redis_url, &["XLEN", "rl:{s/0}:intake"]).await
}

/// Sells until the records lag behind by a few batches.
async fn sell_without_records(buyers: &Crowd, redis_url: &str) {
    let waiting = entries_waiting(redis_url).await;
    buyers.wait_for_more(40, SOON).await;
    eventually("finished orders wait in Redis", SOON, || async { entries_waiting(redis_url).await >= waiting + 5 })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_record_file_stops_no_sale() {
    let shop = Shop::start().await;
    crowd::trying_shop(&shop);
    let mut app = App::start(AppOptions::default().quick()).await;
    app.create_sale(&crowd::sale(shop.endpoint())).await;
    let buyers = Crowd::start(&[app.http()], 6);
    buyers.wait_for_more(10, SOON).await;
    let url = format!("sqlite:{}", app.data_dir().join("orders.db").display());
    let mut lock = sqlx::SqliteConnection::connect(&url).await.unwrap();
    sqlx::query("PRAGMA busy_timeout = 20000").execute(&mut lock).await.unwrap();
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut lock).await.unwrap();
    sell_without_records(&buyers, &app.redis_url()).await;
    // Ended and not recorded: still known by gid.
    let gid = buyers.heard().gids.values().next_back().unwrap().clone();
    assert_eq!(app.get(&format!("/v1/orders/{gid}")).await.status, 200);
    let heard = buyers.stop().await;
    assert_eq!(heard.put_off(), 0, "{:?}", heard.codes);
    // The server dies with all of it undrained.
    app.restart(|options| options).await;
    sqlx::query("ROLLBACK").execute(&mut lock).await.unwrap();
    assert_exact(&app, &shop, &heard).await;
    assert_only_ledger_left(&app.redis_url()).await;
}

/// MongoDB hangs, then dies, then is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_mongod_that_is_away_stops_no_sale() {
    let mut mongod = Mongod::start().await;
    let shop = Shop::start().await;
    crowd::trying_shop(&shop);
    let app = App::start(AppOptions::default().quick().records(&mongod.url())).await;
    app.create_sale(&crowd::sale(shop.endpoint())).await;
    let buyers = Crowd::start(&[app.http()], 6);
    buyers.wait_for_more(10, SOON).await;
    mongod.process().signal("STOP");
    sell_without_records(&buyers, &app.redis_url()).await;
    mongod.kill9();
    sell_without_records(&buyers, &app.redis_url()).await;
    let heard = buyers.stop().await;
    assert_eq!(heard.put_off(), 0, "{:?}", heard.codes);
    mongod.restart().await;
    assert_exact(&app, &shop, &heard).await;
    assert_only_ledger_left(&app.redis_url()).await;
}

/// A full Redis: no new orders, but those that are open end, and are drained, also by a server that was started anew,
/// and also on a Redis that was.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_redis_still_ends_its_orders() {
    for restarted in ["nobody", "the server", "both"] {
        let mut redis = Redis::start(RedisVersion::V7, &[]).await;
        let shop = Shop::start().await;
        shop.always(Answer::Hang);
        let mut app = App::start(AppOptions::default().quick().redis(&redis.url())).await;
        app.create_sale(&crowd::sale(shop.endpoint_with(json!({"timeout_ms": 1_000})))).await;
        let mut heard = Heard::default();
        for key in (0..30).map(|number| format!("k-{}", number * 10)) {
            let reply = app.order(SALE, &key, &crowd::order_of(&key)).await;
            assert_eq!(reply.status, 201, "{}", reply.json);
            heard.gids.insert(key, reply.gid().unwrap().to_owned());
        }
        if restarted == "both" {
            app.kill9();
            redis.kill9();
            // Less than an empty Redis takes: it is full from its first moment.
            redis.arguments(&["--maxmemory", "500kb"]);
            redis.restart().await;
            app.restart(|options| options).await;
        } else {
            ask_redis::<()>(&redis, &["CONFIG", "SET", "maxmemory", "500kb"]).await;
        }
        if restarted == "the server" {
            app.restart(|options| options).await;
        }
        let reply = app.order(SALE, "full-1", &crowd::order_of("full-1")).await;
        // By the node, once it has looked, or by Redis itself.
        let said = ["redis_memory", "redis_refused"].contains(&reply.code());
        assert!(reply.status == 503 && said, "{restarted}: {}", reply.json);
        assert!(reply.header("retry-after").is_some());
        shop.always(Answer::Created);
        shop.release();
        let report = app.wait_until_settled(SALE).await;
        assert_eq!((&report["drift"], &report["records"]["succeed"]), (&json!(0), &json!(30)), "{restarted}: {report}");
        ask_redis::<()>(&redis, &["CONFIG", "SET", "maxmemory", "0"]).await;
        let admitted = || async { app.order(SALE, "full-1", &crowd::order_of("full-1")).await.status == 201 };
        eventually("orders are admitted again", SOON, admitted).await;
        let reply = app.order(SALE, "full-1", &crowd::order_of("full-1")).await;
        heard.gids.insert("full-1".into(), reply.gid().unwrap().to_owned());
        assert_exact(&app, &shop, &heard).await;
        assert_only_ledger_left(&redis.url()).await;
    }
}
