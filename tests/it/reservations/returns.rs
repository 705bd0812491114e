//! Units that come back after the sale: never more than were sold, once for each request, wherever the order is.

use super::*;
use crate::support::app::AppOptions;
use crate::support::shop::Answer;

async fn give_back(app: &App, gid: &str, id: &str, sku: &str, quantity: u32) -> (u16, Value) {
    ask(app, gid, "return", json!({"request_id": id, "items": [{"sku": sku, "quantity": quantity}]})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sold_comes_back_once_for_each_request() {
    let shop = Shop::start().await;
    let app = App::start(AppOptions::default().quick()).await;
    let other = App::start(AppOptions::default().quick().beside(&app)).await;
    app.create_sale(&sale(&shop, LONG_MS)).await;
    let open = reserve(&app, "u9", json!([{"sku": "b", "quantity": 1}])).await;
    assert_eq!(give_back(&app, &open, "r1", "b", 1).await.1["code"], "not_sold");
    let gid = reserve(&app, "u1", json!([{"sku": "a", "quantity": 5}, {"sku": "b", "quantity": 1}])).await;
    let part = json!({"items": [{"sku": "a", "quantity": 4}]});
    assert_eq!(ask(&app, &gid, "confirm", part).await.0, 200);
    until_told(&shop, &gid, "confirm").await;
    eventually("the end is noted", SOON, || async { give_back(&app, &gid, "r1", "a", 1).await.0 == 200 }).await;
    let (code, again) = give_back(&other, &gid, "r1", "a", 1).await;
    assert_eq!((code, &again["replayed"]), (200, &json!(true)), "{again}");
    assert_eq!(give_back(&app, &gid, "r1", "a", 2).await.1["code"], "request_id_reused");
    for (sku, quantity, field) in [("a", 5, "quantity"), ("a", 0, "quantity"), ("b", 1, "sku")] {
        let (code, answer) = give_back(&app, &gid, "r2", sku, quantity).await;
        assert_eq!((code, &answer["field"]), (422, &json!(field)), "{answer}");
    }
    let (code, answer) = give_back(&app, &gid, "r2", "a", 4).await;
    assert_eq!((code, &answer["code"]), (409, &json!("more_than_sold")), "{answer}");
    assert_eq!(units(&app, "a").await, "7/0/3");
    // The same once it has left for the records.
    assert_eq!(ask(&app, &open, "cancel", json!({})).await.0, 200);
    app.wait_until_settled(SALE).await;
    assert_eq!(give_back(&app, &gid, "r1", "a", 1).await.1["replayed"], json!(true));
    let (code, answer) = give_back(&other, &gid, "r3", "a", 3).await;
    assert_eq!((code, &answer["returned"]), (200, &json!([{"sku": "a", "quantity": 4}])), "{answer}");
    assert_eq!(give_back(&app, &gid, "r4", "a", 1).await.1["code"], "more_than_sold");
    assert_eq!(units(&app, "a").await, "10/0/0");
    let report = app.wait_until_settled(SALE).await;
    assert_eq!((&report["drift"], &report["items"][0]["returned"]), (&json!(0), &json!(4)), "{report}");
    eventually("the records are told", SOON, || async {
        let page = app.get(&format!("/v1/sales/{SALE}/records")).await.json;
        let records = page["records"].as_array().unwrap().clone();
        records.iter().any(|record| record["gid"] == gid && record["returned"] == json!([{"sku": "a", "quantity": 4}]))
    })
    .await;
    // What came back counts for the buyer all the same, unless the sale says otherwise: 4 of 6.
    let three = json!({"buyer": "u1", "items": [{"sku": "a", "quantity": 3}]});
    assert_eq!(app.order(SALE, "", &three).await.code(), "limit_reached");
    for bad in [json!({}), json!({"items": [{"sku": "a", "quantity": 1}]}), json!({"items": [], "request_id": "r"})] {
        let (code, answer) = ask(&app, &gid, "return", bad).await;
        assert_eq!(code, 422, "{answer}");
        assert!(["items", "request_id"].contains(&answer["field"].as_str().unwrap()), "{answer}");
    }
    assert_eq!(give_back(&app, "s.0.1-1.0", "r", "a", 1).await.1["code"], "unknown_order");
}

/// A sale without reservations takes returns too, and may let them free the buyer.
#[tokio::test(flavor = "multi_thread")]
async fn returns_need_no_reservations_and_may_free_the_buyer() {
    let shop = Shop::start().await;
    let app = App::start(AppOptions::default().quick()).await;
    let mut body = sale(&shop, LONG_MS);
    body.as_object_mut().unwrap().remove("reserve_for_ms");
    body["returns_free_limits"] = json!(true);
    app.create_sale(&body).await;
    let six = json!({"buyer": "u1", "items": [{"sku": "a", "quantity": 6}]});
    let gid = app.order(SALE, "k1", &six).await.gid().unwrap().to_owned();
    eventually("it is made", SOON, || async { status(&app, &gid).await == "succeed" }).await;
    let one = json!({"buyer": "u1", "items": [{"sku": "b", "quantity": 1}]});
    assert_eq!(app.order(SALE, "", &one).await.code(), "limit_reached");
    assert_eq!(give_back(&app, &gid, "r1", "a", 2).await.0, 200);
    eventually("memory has forgotten the limit", SOON, || async { app.order(SALE, "k2", &one).await.status == 201 })
        .await;
    shop.always(Answer::Refused("no".into()));
    let refused = app.order(SALE, "k3", &one).await.gid().unwrap().to_owned();
    eventually("it is refused", SOON, || async { status(&app, &refused).await == "failed" }).await;
    assert_eq!(give_back(&app, &refused, "r1", "b", 1).await.1["code"], "not_sold");
    let report = app.wait_until_settled(SALE).await;
    assert_eq!(report["drift"], 0, "{report}");
    assert_eq!(units(&app, "a").await, "6/0/4");
}
