//! Flash-sale orders through the client.

use crate::support::app::{App, AppOptions};
use crate::support::shop::{Answer, Shop};
use rushline::client::{Client, Error, OrderStatus, Refusal};
use serde_json::json;
use std::time::Duration;

async fn open_sale(units: u32) -> (App, Shop, Client) {
    let (app, shop) = (App::start(AppOptions::default().quick()).await, Shop::start().await);
    app.create_sale(&json!({
        "sale": "s", "items": [{ "sku": "sku-1", "units": units }], "limit_per_buyer": 2,
        "order_endpoint": { "url": shop.url() },
    }))
    .await;
    let client = Client::http(app.base()).unwrap();
    (app, shop, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_placed_followed_and_replayed() {
    let (_app, shop, client) = open_sale(3).await;
    let sale = client.sale("s");
    let order = sale.order("u1").item("sku-1", 1).payload(&json!({ "note": "größer" })).idempotency_key("k1");
    let placed = order.clone().place().await.unwrap();
    assert!(!placed.replayed);
    let ended = sale.wait_for(&placed.gid, Duration::from_secs(20)).await.unwrap();
    assert_eq!((ended.status, ended.buyer.as_str()), (OrderStatus::Succeed, "u1"));
    assert_eq!(ended.payload.unwrap().get(), "{\"note\":\"größer\"}");
    let again = order.place().await.unwrap();
    assert_eq!((again.gid.as_str(), again.replayed), (placed.gid.as_str(), true));
    let waited = sale.order("u2").item("sku-1", 1).wait(Duration::from_secs(20)).place().await.unwrap();
    assert_eq!(waited.status, OrderStatus::Succeed);
    assert!(!waited.idempotency_key.is_empty());
    assert_eq!(shop.order_count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_a_value_to_match_on() {
    let (_app, shop, client) = open_sale(3).await;
    let sale = client.sale("s");
    let refusal = async |order: rushline::client::NewOrder| match order.place().await {
        Err(Error::OrderRefused { refusal, .. }) => refusal,
        other => panic!("{other:?}"),
    };
    assert_eq!(refusal(sale.order("u1").item("sku-1", 3)).await, Refusal::LimitReached);
    sale.order("u1").item("sku-1", 2).idempotency_key("k1").place().await.unwrap();
    assert_eq!(refusal(sale.order("u2").item("sku-1", 2)).await, Refusal::SoldOut);
    assert_eq!(refusal(sale.order("u2").item("sku-2", 1)).await, Refusal::UnknownSku);
    assert_eq!(refusal(sale.order("u1").item("sku-1", 1).idempotency_key("k1")).await, Refusal::KeyReused);
    shop.always(Answer::Refused("no address".into()));
    let refused = sale.order("u3").item("sku-1", 1).wait(Duration::from_secs(20));
    assert_eq!(refusal(refused).await, Refusal::OrderService);
    assert!(matches!(client.sale("other").order("u").item("a", 1).place().await, Err(Error::NotFound(_))));
    assert!(matches!(sale.order("").item("sku-1", 1).place().await, Err(Error::Invalid(_))));
    assert!(matches!(sale.find("s.0.1-1.0").await, Err(Error::NotFound(_))));
}

/// The server dies with the answer on its way: the client asks again with its key, and gets the one order there is.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_outlives_a_restart_of_the_server() {
    let port = crate::support::process::free_port();
    let shop = Shop::start().await;
    let mut app = App::start(AppOptions::default().quick().on_port(port)).await;
    app.create_sale(&json!({
        "sale": "s", "items": [{ "sku": "sku-1", "units": 5 }], "order_endpoint": { "url": shop.url() },
    }))
    .await;
    let client = Client::http(app.base()).unwrap();
    let sale = client.sale("s");
    sale.order("u0").item("sku-1", 1).place().await.unwrap();
    app.kill9();
    let order = sale.order("u1").item("sku-1", 1).idempotency_key("k1").patience(Duration::from_secs(60));
    let placing = tokio::spawn(order.place());
    app.restart(|options| options).await;
    let placed = placing.await.unwrap().unwrap();
    let ended = sale.wait_for(&placed.gid, Duration::from_secs(20)).await.unwrap();
    assert_eq!(ended.status, OrderStatus::Succeed);
    assert_eq!(shop.orders().values().filter(|made| made.buyer == "u1").count(), 1);
}
