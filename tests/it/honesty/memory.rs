//! Redis fills up in mid-sale: admission stops while there is room to end what was begun.

use super::*;
use crate::support::crowd::assert_only_ledger_left;
use crate::support::shop::Answer;

async fn used(redis: &Redis) -> u64 {
    let info: String = ask_redis(redis, &["INFO", "memory"]).await;
    info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().trim().parse().unwrap()
}

async fn allow(redis: &Redis, bytes: u64) {
    ask_redis::<()>(redis, &["CONFIG", "SET", "maxmemory", &bytes.to_string()]).await;
}

/// New orders, sales and transactions hear so and nothing else does; what is under way ends, also what takes more memory to
/// end, and it goes on when there is room again.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_nearly_full_takes_on_nothing_new_and_ends_the_rest() {
    let redis = Redis::start(RedisVersion::V7, &[]).await;
    let shop = Shop::start().await;
    shop.always(Answer::Hang);
    let app = App::start(AppOptions::default().quick().redis(&redis.url())).await;
    app.create_sale(&crowd::sale(shop.endpoint_with(json!({"timeout_ms": 1_000})))).await;
    let mut heard = Heard::default();
    buy(&app, &mut heard, (0..30).map(|number| number * 10)).await;
    // Between the share that new work may fill and all that there is.
    allow(&redis, used(&redis).await * 10 / 9).await;
    let refused = || async {
        let reply = app.order(SALE, "full-1", &order_of("full-1")).await;
        let told = reply.header("retry-after").is_some();
        (reply.status, reply.code()) == (503, "redis_memory") && told
    };
    eventually("orders are refused", SOON, refused).await;
    let mut another = sale(&shop);
    another["sale"] = "another".into();
    let reply = app.post("/v1/sales", &[], &another).await;
    assert_eq!((reply.status, reply.code()), (503, "redis_memory"), "{}", reply.json);
    let saga = json!({"gid": "g-1", "trans_type": "saga", "steps": [{"action": shop.url()}], "payloads": ["{}"]});
    let reply = app.post("/api/dtmsvr/submit", &[], &saga).await;
    assert_eq!(reply.status, 500, "{}", reply.json);
    assert!(String::from_utf8_lossy(&reply.body).contains("memory"), "{:?}", reply.body);

    shop.always(Answer::Created);
    shop.release();
    let report = app.wait_until_settled(SALE).await;
    assert_eq!(report["drift"], 0, "{report}");
    assert!(report["records"]["succeed"].as_u64() >= Some(30), "{report}");
    allow(&redis, used(&redis).await * 2).await;
    let admitted = || async { app.order(SALE, "full-1", &order_of("full-1")).await.status == 201 };
    eventually("orders are admitted again", SOON, admitted).await;
    let reply = app.order(SALE, "full-1", &order_of("full-1")).await;
    heard.gids.insert("full-1".into(), reply.gid().unwrap().to_owned());
    assert_exact(&app, &shop, &heard).await;
    assert_only_ledger_left(&redis.url()).await;
}
