//! Several nodes: who was asleep while others went on, and who was not asked.

use super::*;

/// One node acknowledged what Redis lost, and sleeps while Redis is restarted; the other knows of nothing and sells on. The
/// first one wakes: it may not sell, and what it knows still fences the sale and comes to its books. Its orders cannot be
/// open again under their gids, since younger ones are there: they are settled with the order service.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_slept_through_a_loss_still_tells_of_it() {
    let mut redis = forgetful(RedisVersion::V7).await;
    let shop = Shop::start().await;
    let sleeper = start(&redis, &shop).await;
    let other = App::start(AppOptions::default().quick().beside(&sleeper)).await;
    let mut heard = Heard::default();
    buy(&sleeper, &mut heard, [0, 1]).await;
    buy(&other, &mut heard, [2]).await;
    sleeper.wait_until_settled(SALE).await;
    save(&redis).await;
    shop.leave();
    let lost_orders = buy(&sleeper, &mut heard, [10, 11]).await;
    sleeper.signal("STOP");
    redis.kill9();
    redis.restart().await;
    shop.come_back().await;
    let ready = || async { other.order(SALE, "k-20", &order_of("k-20")).await.status == 201 };
    eventually("the other node sells: it knows of no loss", SOON, ready).await;
    buy(&other, &mut heard, [20, 22]).await;
    sleeper.signal("CONT");
    // Whatever it is asked first, it sells nothing in the term in which it fell asleep.
    let reply = sleeper.order(SALE, "k-30", &order_of("k-30")).await;
    assert!([423, 503].contains(&reply.status), "{}", reply.json);
    until_fenced(&sleeper).await;
    until_fenced(&other).await;
    let reply = other.order(SALE, "k-31", &order_of("k-31")).await;
    assert_eq!((reply.status, reply.code()), (423, "fenced"), "{}", reply.json);

    let report = repaired(&other).await;
    assert_eq!(names(&report["settled"]), sorted(lost_orders), "{report}");
    buy(&other, &mut heard, [30]).await;
    let open = || async { sleeper.order(SALE, "k-40", &order_of("k-40")).await.status == 201 };
    eventually("the sleeper sells again", SOON, open).await;
    buy(&sleeper, &mut heard, [40]).await;
    assert_exact(&other, &shop, &heard).await;
}

/// Units that were sold again before the loss was found are missing afterwards: who has them is named, and the books say
/// how many were sold beyond what there was.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_sold_twice_is_named() {
    let mut redis = forgetful(RedisVersion::V8).await;
    let shop = Shop::start().await;
    let app = App::start(AppOptions::default().quick().redis(&redis.url())).await;
    let mut two = sale(&shop);
    two["items"] = json!([{"sku": "few", "units": 1}, {"sku": "many", "units": 9}]);
    app.create_sale(&two).await;
    let other = App::start(AppOptions::default().quick().beside(&app)).await;
    let mut heard = Heard::default();
    buy(&other, &mut heard, [1]).await;
    app.wait_until_settled(SALE).await;
    save(&redis).await;
    let first = buy(&app, &mut heard, [0]).await; // the last of the few
    app.signal("STOP");
    redis.kill9();
    redis.restart().await;
    let sold = || async { other.order(SALE, "k-3", &order_of("k-3")).await.status == 201 };
    eventually("it is sold again", SOON, sold).await;
    buy(&other, &mut heard, [3]).await;
    app.signal("CONT");
    until_fenced(&other).await;
    let report = repaired(&other).await;
    assert_eq!((names(&report["oversold"]), &report["oversold_units"]), (first, &json!({"few": 1})), "{report}");
    assert_exact(&other, &shop, &heard).await;
}

/// `redis.repair: automatic`: nobody is asked, and buyers only hear for a moment that they should come back.
#[tokio::test(flavor = "multi_thread")]
async fn an_automatic_repair_needs_nobody() {
    let mut redis = forgetful(RedisVersion::V8).await;
    let shop = Shop::start().await;
    let app = start_with(&redis, &shop, |options| options.setting("redis.repair", "automatic")).await;
    let mut heard = Heard::default();
    buy(&app, &mut heard, [0, 1, 2]).await;
    save(&redis).await;
    buy(&app, &mut heard, [10, 11, 12]).await;
    redis.kill9();
    redis.restart().await;
    eventually("it was fenced", SOON, || async { app.metric("rushline_fences_total").await >= 1.0 }).await;
    eventually("and repaired", SOON, || async {
        app.metric("rushline_fenced_partitions").await == 0.0 && !is_fenced(&app).await
    })
    .await;
    let sold = || async { app.order(SALE, "k-20", &order_of("k-20")).await.status == 201 };
    eventually("it sells again", SOON, sold).await;
    buy(&app, &mut heard, [20]).await;
    assert_exact(&app, &shop, &heard).await;
}
