//! One node, and a Redis that is restarted, emptied, or put back to what it was.

use super::*;
use crate::support::crowd::assert_only_ledger_left;
use crate::support::shop::Answer;

/// Failure F11: Redis is killed and comes back without its last orders. Some of them were delivered and recorded, some
/// were on their way; a buyer had heard of each.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_without_its_last_orders_sells_nothing_until_they_are_back() {
    tokio::join!(restart(RedisVersion::V7), restart(RedisVersion::V8));
}

async fn restart(version: RedisVersion) {
    let mut redis = forgetful(version).await;
    let shop = Shop::start().await;
    let app = start(&redis, &shop).await;
    let mut heard = Heard::default();
    buy(&app, &mut heard, [0, 1, 2]).await;
    app.wait_until_settled(SALE).await;
    save(&redis).await;
    let recorded = buy(&app, &mut heard, [10, 11, 12]).await;
    app.wait_until_settled(SALE).await;
    shop.behave(|asked| match asked.order["buyer"].as_str() {
        Some("buyer-of-k-21") => Answer::Refused("card declined".into()),
        Some(_) if asked.attempt == 1 => Answer::CutAfter,
        _ => Answer::Created,
    });
    shop.leave();
    let open = buy(&app, &mut heard, [20, 22]).await;

    redis.kill9();
    redis.restart().await;
    until_fenced(&app).await;
    let gone = sorted([recorded.clone(), open.clone()].concat());
    assert_eq!(lost(&app).await, gone);
    // Once more, before anybody repaired it: the fence itself is lost, and what was noted down.
    redis.kill9();
    redis.restart().await;
    let noted = || async { is_fenced(&app).await && lost(&app).await == gone };
    eventually("it is fenced again", SOON, noted).await;
    let reply = app.order(SALE, "k-30", &order_of("k-30")).await;
    assert_eq!((reply.status, reply.code()), (423, "fenced"), "{}", reply.json);
    // Not "there is no such order": that would not be true for long.
    let look_up = app.get(&format!("/v1/orders/{}", open[0])).await;
    assert_eq!((look_up.status, look_up.code()), (423, "fenced"), "{}", look_up.json);
    let detail = reply.json["detail"].as_str().unwrap();
    assert!(detail.contains("rushline repair") && detail.contains("nothing was taken"), "{detail}");
    assert!(app.metric("rushline_orders_lost_total").await >= 5.0);
    eventually("the alarm", SOON, || async { app.metric("rushline_fenced_partitions").await == 1.0 }).await;

    let report = repaired(&app).await;
    assert_eq!(names(&report["recorded"]), sorted(recorded), "{report}");
    assert_eq!(names(&report["replayed"]), sorted(open), "{report}");
    assert_eq!((&report["oversold"]["count"], &report["forgotten"]), (&json!(0), &json!(0)), "{report}");
    assert!(!is_fenced(&app).await);
    shop.come_back().await;
    buy(&app, &mut heard, [30]).await;
    // Twice is once.
    assert_eq!(repaired(&app).await["fenced"], false);
    assert_exact(&app, &shop, &heard).await;
    assert_only_ledger_left(&redis.url()).await;
}

/// Failure F22: somebody empties Redis in mid-sale. The node remembers the books, the records have the orders.
#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_redis_gets_its_sale_back() {
    let redis = forgetful(RedisVersion::V7).await;
    let shop = Shop::start().await;
    crowd::trying_shop(&shop);
    let app = start(&redis, &shop).await;
    let mut heard = Heard::default();
    buy(&app, &mut heard, 0..12).await;
    app.wait_until_settled(SALE).await;
    shop.leave();
    let open = buy(&app, &mut heard, [20, 22]).await;
    ask_redis::<()>(&redis, &["FLUSHALL"]).await;
    until_fenced(&app).await;
    let reply = app.order(SALE, "k-30", &order_of("k-30")).await;
    assert_eq!((reply.status, reply.code()), (423, "fenced"), "{}", reply.json);
    shop.come_back().await;
    let report = repaired(&app).await;
    assert_eq!((&report["rebuilt"], names(&report["replayed"])), (&json!(true), sorted(open)), "{report}");
    assert_exact(&app, &shop, &heard).await;
}

/// Failure F22: an old dump is put back. What is older than what the node remembers is in the records.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_dump_is_found_out_and_brought_up_to_date() {
    let mut redis = forgetful(RedisVersion::V7).await;
    let shop = Shop::start().await;
    let mut app = start(&redis, &shop).await;
    let mut heard = Heard::default();
    buy(&app, &mut heard, [0, 1]).await;
    app.wait_until_settled(SALE).await;
    save(&redis).await;
    buy(&app, &mut heard, [10, 11, 12]).await;
    app.wait_until_settled(SALE).await;
    // Nobody remembers these any more: neither Redis nor the node.
    app.kill9();
    redis.kill9();
    redis.restart().await;
    app.restart(|options| options).await;
    until_fenced(&app).await;
    let report = repaired(&app).await;
    assert_eq!(report["recounted_units"], 5, "{report}");
    let audit = app.wait_until_settled(SALE).await;
    assert_eq!((&audit["drift"], &audit["problems"]), (&json!(0), &json!([])), "{audit}");
}

/// Orders that only the order service knows: Redis lost them, and the node died before the records had them. Nobody can
/// find that out but by an audit; asked to count the whole sale anew, it takes them from the order service's list.
#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_order_service_knows_is_counted_when_somebody_asks() {
    let mut redis = forgetful(RedisVersion::V7).await;
    let shop = Shop::start().await;
    let mut app = start(&redis, &shop).await;
    save(&redis).await;
    app.kill9();
    app.restart(|options| options.crash_at("drain.before_write")).await;
    let mut heard = Heard::default();
    let gids = buy(&app, &mut heard, [1]).await;
    app.wait_for_end(SOON).await;
    redis.kill9();
    redis.restart().await;
    app.restart(AppOptions::without_crash).await;
    let audit = app.wait_until_settled(SALE).await;
    assert_eq!(audit["extra"], json!(gids), "{audit}");
    let whole = || async {
        let reply = app.post(&format!("/v1/sales/{SALE}/repair?wait_ms=20000&whole=true"), &[], &json!({})).await;
        reply.json["open"] == true && names(&reply.json["found_at_service"]) == gids
    };
    eventually("they are found at the order service", SOON, whole).await;
    let audit = app.wait_until_settled(SALE).await;
    assert_eq!((&audit["drift"], &audit["problems"], &audit["extra"]), (&json!(0), &json!([]), &json!([])), "{audit}");
    let many = &audit["items"][1];
    assert_eq!((&many["sku"], &many["sold"]), (&json!("many"), &json!(2)), "{audit}");
}

/// A loss of nothing that anybody was told of is no loss.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_with_everything_is_not_fenced() {
    let mut redis = forgetful(RedisVersion::V7).await;
    let shop = Shop::start().await;
    let app = start(&redis, &shop).await;
    let mut heard = Heard::default();
    for round in 0..3 {
        buy(&app, &mut heard, [round * 10, round * 10 + 1]).await;
        save(&redis).await;
        redis.kill9();
        redis.restart().await;
        let ready = || async { app.get("/readyz").await.status == 200 };
        eventually("it sells again", SOON, ready).await;
    }
    assert!(!is_fenced(&app).await);
    assert_exact(&app, &shop, &heard).await;
}
