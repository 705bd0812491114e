//! Orders that are reservations: paid, given up, out of time; on the rules, on the scripts and through the whole server.

mod crash;
mod http;
mod limits;
mod races;
mod returns;
mod rules;

use crate::support::app::{App, eventually};
use crate::support::shop::Shop;
use serde_json::{Value, json};
use std::time::Duration;

const SALE: &str = "s";
const SOON: Duration = Duration::from_secs(30);
/// Longer than any test.
const LONG_MS: u64 = 3_600_000;

fn sale(shop: &Shop, reserve_for_ms: u64) -> Value {
    json!({
        "sale": SALE,
        "items": [{"sku": "a", "units": 10}, {"sku": "b", "units": 5}],
        "limit_per_buyer": 6,
        "order_endpoint": shop.endpoint(),
        "reserve_for_ms": reserve_for_ms,
    })
}

/// Places an order and waits until the shop has made it; its gid.
async fn reserve(app: &App, buyer: &str, items: Value) -> String {
    let body = json!({"buyer": buyer, "items": items});
    let reply = app.post(&format!("/v1/sales/{SALE}/orders?wait_ms=20000"), &[], &body).await;
    assert_eq!((reply.status, &reply.json["status"]), (201, &json!("reserved")), "{}", reply.json);
    reply.gid().unwrap().to_owned()
}

async fn ask(app: &App, gid: &str, what: &str, body: Value) -> (u16, Value) {
    let reply = app.post(&format!("/v1/orders/{gid}/{what}"), &[], &body).await;
    (reply.status, reply.json)
}

async fn status(app: &App, gid: &str) -> String {
    let reply = app.get(&format!("/v1/orders/{gid}")).await;
    reply.json["status"].as_str().unwrap_or_default().to_owned()
}

/// available/reserved/sold of a SKU, after checking that no unit is lost.
async fn units(app: &App, sku: &str) -> String {
    let reply = app.get(&format!("/v1/sales/{SALE}")).await;
    let line = reply.json["items"].as_array().unwrap().iter().find(|line| line["sku"] == sku).unwrap().clone();
    let count = |name: &str| line[name].as_u64().unwrap();
    assert_eq!(count("loaded"), count("available") + count("reserved") + count("sold"), "{line}");
    format!("{}/{}/{}", count("available"), count("reserved"), count("sold"))
}

/// The ops of the calls for this order, oldest first.
fn ops(shop: &Shop, gid: &str) -> Vec<String> {
    shop.calls(gid).iter().map(|call| call.query["op"].clone()).collect()
}

async fn until_told(shop: &Shop, gid: &str, op: &str) {
    eventually(&format!("{gid} {op}"), SOON, || async { ops(shop, gid).iter().any(|called| called == op) }).await;
}
