//! Order endpoints that hang, or come back after a long time: nobody else feels it, and they are not overrun.

use super::SOON;
use crate::support::app::{App, AppOptions, eventually};
use crate::support::crowd::ask_redis_at;
use crate::support::shop::{Answer, Shop};
use futures_util::future::join_all;
use serde_json::json;
use std::time::Duration;

async fn buy(app: &App, sale: &str, orders: usize) {
    let buying = (0..orders).map(async |number| {
        let order = json!({"buyer": format!("b-{number}"), "items": [{"sku": "a", "quantity": 1}]});
        let reply = app.order(sale, &format!("k-{number}"), &order).await;
        assert_eq!(reply.status, 201, "{}", reply.json);
    });
    join_all(buying).await;
}

/// F33: of ten endpoints one never answers, and has more orders waiting than all the others. These are served as if it were
/// not there; and when it answers at last, its orders are made too.
#[tokio::test(flavor = "multi_thread")]
async fn one_endpoint_that_hangs_holds_up_no_other() {
    const SALES: usize = 10;
    const BAD: usize = 0;
    let app = App::start(AppOptions::default().quick()).await;
    let mut shops = Vec::new();
    for number in 0..SALES {
        let shop = Shop::start().await;
        let endpoint = shop.endpoint_with(json!({"max_concurrency": 8, "timeout_ms": 2_000}));
        let sale =
            json!({"sale": format!("s{number}"), "items": [{"sku": "a", "units": 1_000}], "order_endpoint": endpoint});
        app.create_sale(&sale).await;
        shops.push(shop);
    }
    shops[BAD].always(Answer::Hang);
    buy(&app, "s0", 400).await;
    eventually("it hangs", SOON, || async { shops[BAD].open_calls() == 8 }).await;
    join_all((1..SALES).map(async |number| buy(&app, &format!("s{number}"), 40).await)).await;
    for (number, shop) in shops.iter().enumerate().skip(1) {
        let made = || async { shop.order_count() == 40 };
        eventually(&format!("the orders of s{number} are made"), SOON, made).await;
    }
    assert_eq!(shops[BAD].order_count(), 0, "it hangs to this moment");
    shops[BAD].always(Answer::Created);
    shops[BAD].release();
    for number in 0..SALES {
        let report = app.wait_until_settled(&format!("s{number}")).await;
        assert_eq!((&report["drift"], &report["in_flight"]), (&json!(0), &json!(0)), "{report}");
    }
    assert_eq!(shops[BAD].order_count(), 400);
}

/// F34: an endpoint was away while orders piled up, and each was tried again and again. When it is back it gets them through
/// as many hands as the sale says, and not all at once.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_back_is_not_overrun() {
    const ORDERS: usize = 1_500;
    const AT_ONCE: usize = 6;
    let app = App::start(AppOptions::default().quick()).await;
    let other = App::start(AppOptions::default().quick().beside(&app)).await;
    let shop = Shop::start().await;
    let endpoint = shop.endpoint_with(json!({"max_concurrency": AT_ONCE}));
    app.create_sale(&json!({"sale": "s", "items": [{"sku": "a", "units": ORDERS}], "order_endpoint": endpoint})).await;
    shop.leave();
    buy(&app, "s", ORDERS).await;
    let retried = async || ask_redis_at::<u64>(&app.redis_url(), &["ZCARD", "rl:{s/0}:retry"]).await > 100;
    eventually("many have been tried in vain", SOON, retried).await;
    shop.come_back().await;
    let report = app.wait_until_settled("s").await;
    assert_eq!((&report["drift"], &report["records"]["succeed"]), (&json!(0), &json!(ORDERS)), "{report}");
    // Each node keeps to the bound by itself.
    assert!(shop.open_calls_max() <= 2 * AT_ONCE, "{} calls at once", shop.open_calls_max());
    assert!(shop.call_count() < 2 * ORDERS, "{} calls for {ORDERS} orders", shop.call_count());
    drop(other);
}

/// F28: a call takes many leases. They are renewed meanwhile, so nobody else takes the order over and calls too.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_outlasts_its_lease_is_made_once() {
    const ORDERS: usize = 5;
    let app = App::start(AppOptions::default().quick()).await;
    let other = App::start(AppOptions::default().quick().beside(&app)).await;
    let shop = Shop::start().await;
    shop.always(Answer::HangAfter);
    let endpoint = shop.endpoint_with(json!({"timeout_ms": 30_000}));
    app.create_sale(&json!({"sale": "s", "items": [{"sku": "a", "units": ORDERS}], "order_endpoint": endpoint})).await;
    buy(&app, "s", ORDERS).await;
    eventually("all are called", SOON, || async { shop.open_calls() == ORDERS }).await;
    // What must not happen has no event. Five leases and ten sweeps of the other node.
    tokio::time::sleep(Duration::from_millis(3_000)).await;
    assert_eq!(shop.call_count(), ORDERS, "somebody called while the first calls were under way");
    shop.release();
    let report = app.wait_until_settled("s").await;
    assert_eq!((&report["drift"], &report["records"]["succeed"]), (&json!(0), &json!(ORDERS)), "{report}");
    assert_eq!(shop.call_count(), ORDERS);
    drop(other);
}
