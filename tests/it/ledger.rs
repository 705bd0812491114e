//! The buyers' ledger of a closed sale is forgotten, once all of the sale is in the records, and not before.

use crate::support::app::{App, AppOptions, eventually};
use crate::support::crowd::{self, SALE, ask_redis_at, order_of};
use crate::support::shop::{Answer, Shop};
use serde_json::json;
use sqlx::Connection;
use std::time::Duration;

const KEEP: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_secs(30);

async fn ledger_keys(redis_url: &str) -> u64 {
    ask_redis_at(redis_url, &["EXISTS", "rl:{s/0}:requests", "rl:{s/0}:buyers"]).await
}

/// Holds `true_all_along` for twice the time after which the ledger might go.
async fn for_two_keeps<F: Future<Output = bool>>(what: &str, mut true_all_along: impl FnMut() -> F) {
    let until = tokio::time::Instant::now() + KEEP * 2;
    while tokio::time::Instant::now() < until {
        assert!(true_all_along().await, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_is_forgotten_only_when_all_is_recorded() {
    let shop = Shop::start().await;
    shop.always(Answer::Hang);
    let app = App::start(AppOptions::default().quick().setting("ledger.keep_s", KEEP.as_secs())).await;
    let redis = app.redis_url();
    app.create_sale(&crowd::sale(shop.endpoint_with(json!({"timeout_ms": 30_000})))).await;
    let mut gids = Vec::new();
    for key in ["k-0", "k-1", "k-10"] {
        let reply = app.order(SALE, key, &order_of(key)).await;
        assert_eq!(reply.status, 201, "{}", reply.json);
        gids.push((key, reply.gid().unwrap().to_owned()));
    }
    let closed = app.patch(&format!("/v1/sales/{SALE}"), &json!({"status": "closed"})).await;
    assert_eq!(closed.status, 200, "{}", closed.json);
    let all_replay = || async {
        let mut all = true;
        for (key, gid) in &gids {
            let reply = app.order(SALE, key, &order_of(key)).await;
            all &= reply.status == 201 && reply.replayed() && reply.gid() == Some(gid.as_str());
        }
        all && ledger_keys(&redis).await == 2
    };
    for_two_keeps("the ledger stays while orders are open", all_replay).await;

    // They end, but cannot be recorded.
    let url = format!("sqlite:{}", app.data_dir().join("orders.db").display());
    let mut lock = sqlx::SqliteConnection::connect(&url).await.unwrap();
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut lock).await.unwrap();
    shop.always(Answer::Created);
    shop.release();
    eventually("the orders are made", SOON, || async { shop.order_count() == 3 }).await;
    for_two_keeps("the ledger stays while orders are not recorded", all_replay).await;

    sqlx::query("ROLLBACK").execute(&mut lock).await.unwrap();
    eventually("the ledger is forgotten", SOON, || async { ledger_keys(&redis).await == 0 }).await;
    let report = app.wait_until_settled(SALE).await;
    assert_eq!((&report["drift"], &report["records"]["succeed"]), (&json!(0), &json!(3)), "{report}");
    for (key, gid) in &gids {
        let order = app.get(&format!("/v1/orders/{gid}")).await;
        assert_eq!((order.status, &order.json["status"]), (200, &json!("succeed")), "{}", order.json);
        let again = app.order(SALE, key, &order_of(key)).await;
        assert_eq!((again.status, again.code()), (410, "closed"), "{}", again.json);
    }
    assert_eq!(shop.order_count(), 3);
}
