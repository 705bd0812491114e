//! What is asked of a running shop: orders and transactions by what they are, why something came out as it did, how
//! everything stands; over HTTP and by the command line.

mod cli;
mod orders;
mod search;
mod transactions;

use crate::support::app::{App, AppOptions};
use crate::support::shop::Shop;
use serde_json::{Value, json};
use std::time::Duration;

/// Everything that is waited for comes well within this.
const SOON: Duration = Duration::from_secs(20);

async fn start() -> (App, Shop) {
    let options = AppOptions::default().quick_trans().setting("trans.retry_interval_ms", 60_000);
    let options = options.setting("trans.retry_max_ms", 60_000).setting("trans.alert_after", 1);
    (App::start(options.setting("delivery.retry_base_ms", 20)).await, Shop::start().await)
}

async fn sale(app: &App, shop: &Shop, name: &str, units: u64, fields: Value) {
    let mut body = json!({
        "sale": name, "items": [{"sku": "sku-1", "units": units}], "durability": "memory", "order_endpoint": shop.endpoint(),
    });
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    app.create_sale(&body).await;
}

fn buy(buyer: &str, coupon: &str) -> Value {
    json!({"buyer": buyer, "items": [{"sku": "sku-1", "quantity": 1}], "payload": {"coupon": coupon}})
}

/// Every page of a list, one after the other; none may be longer than asked for, nothing may come twice.
async fn all_pages(app: &App, path: &str, list: &str, limit: usize) -> Vec<Value> {
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let glue = if path.contains('?') { '&' } else { '?' };
        let reply = app.get(&format!("{path}{glue}limit={limit}&after={after}")).await;
        assert_eq!(reply.status, 200, "{}", reply.json);
        let page = reply.json[list].as_array().unwrap();
        assert!(page.len() <= limit);
        found.extend(page.iter().cloned());
        match reply.json["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    let mut gids: Vec<&str> = found.iter().map(|one| one["gid"].as_str().unwrap()).collect();
    let times: Vec<jiff::Timestamp> = found.iter().map(begun).collect();
    assert!(times.is_sorted_by(|a, b| a >= b), "newest first: {times:?}");
    gids.sort_unstable();
    let count = gids.len();
    gids.dedup();
    assert_eq!(gids.len(), count, "something came twice");
    found
}

fn column<'v>(rows: &'v [Value], name: &str) -> Vec<&'v str> {
    rows.iter().map(|row| row[name].as_str().unwrap_or_default()).collect()
}

fn begun(one: &Value) -> jiff::Timestamp {
    let at = one.get("admitted_at").unwrap_or(&one["created_at"]);
    at.as_str().unwrap().parse().unwrap()
}
