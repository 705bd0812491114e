//! Limits beyond that per buyer: by SKU or over a group of them, by household, card or whatever a shop sends along.

use super::*;
use crate::support::app::AppOptions;
use crate::support::crowd::ask_redis_at;
use crate::support::shop::Answer;
use std::collections::BTreeMap;

fn with_limits(shop: &Shop, limits: Value) -> Value {
    let mut body = sale(shop, LONG_MS);
    body["limit_per_buyer"] = Value::Null;
    body["limits"] = limits;
    body
}

async fn counted(app: &App) -> BTreeMap<String, u64> {
    ask_redis_at(&app.redis_url(), &["HGETALL", &format!("rl:{{{SALE}/0}}:limits")]).await
}

fn by(household: &str, buyer: &str, items: Value) -> Value {
    json!({"buyer": buyer, "items": items, "limits_by": {"household": household}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_household_and_a_group_of_skus_have_limits_of_their_own() {
    let shop = Shop::start().await;
    let app = App::start(AppOptions::default().quick()).await;
    let limits = json!([
        {"by": "household", "units": 3},
        {"name": "one-b", "by": "buyer", "skus": ["b"], "units": 1},
    ]);
    app.create_sale(&with_limits(&shop, limits.clone())).await;
    assert_eq!(app.get(&format!("/v1/sales/{SALE}")).await.json["limits"], limits);
    let a = |quantity: u32| json!([{"sku": "a", "quantity": quantity}]);
    let placed = async |order: Value| {
        let reply = app.post(&format!("/v1/sales/{SALE}/orders?wait_ms=20000"), &[], &order).await;
        (reply.status, reply.json)
    };
    let (code, first) = placed(by("h1", "u1", a(2))).await;
    assert_eq!(code, 201, "{first}");
    assert_eq!(placed(by("h1", "u2", a(2))).await.1["code"], "limit_reached", "another buyer, the same household");
    assert_eq!(placed(by("h2", "u2", a(3))).await.0, 201, "the same buyer, another household");
    assert_eq!(placed(by("h3", "u3", json!([{"sku": "b", "quantity": 2}]))).await.1["code"], "limit_reached");
    let (code, second) = placed(by("h1", "u3", json!([{"sku": "b", "quantity": 1}]))).await;
    assert_eq!(code, 201, "{second}");
    let missing = placed(json!({"buyer": "u5", "items": a(1)})).await;
    assert_eq!((missing.0, &missing.1["field"]), (422, &json!("limits_by")), "{missing:?}");
    let bad = placed(json!({"buyer": "u5", "items": a(1), "limits_by": {"household": ""}})).await;
    assert_eq!((bad.0, &bad.1["field"]), (422, &json!("limits_by")), "{bad:?}");
    let now = |list: &[(&str, u64)]| list.iter().map(|(field, units)| (field.to_string(), *units)).collect();
    assert_eq!(counted(&app).await, now(&[("household:h1", 3), ("household:h2", 3), ("one-b:u3", 1)]));
    // What is given up, or not paid, or refused, counts no more.
    let gid = |answer: &Value| answer["gid"].as_str().unwrap().to_owned();
    assert_eq!(ask(&app, &gid(&second), "cancel", json!({})).await.0, 200);
    assert_eq!(ask(&app, &gid(&first), "confirm", json!({"items": a(1)})).await.0, 200);
    assert_eq!(counted(&app).await, now(&[("household:h1", 1), ("household:h2", 3)]));
    until_told(&shop, &gid(&first), "confirm").await;
    shop.always(Answer::Refused("no".into()));
    assert_eq!(placed(by("h1", "u6", a(2))).await.1["code"], "order_refused");
    assert_eq!(counted(&app).await, now(&[("household:h1", 1), ("household:h2", 3)]));
}

/// The same in a sale without reservations, whose ends another script would write.
#[tokio::test(flavor = "multi_thread")]
async fn limits_need_no_reservations() {
    let shop = Shop::start().await;
    let app = App::start(AppOptions::default().quick()).await;
    let mut body = with_limits(&shop, json!([{"by": "household", "units": 2}]));
    body.as_object_mut().unwrap().remove("reserve_for_ms");
    app.create_sale(&body).await;
    let order = |buyer: &str| by("h1", buyer, json!([{"sku": "a", "quantity": 1}]));
    shop.script([Answer::Refused("no".into())]);
    let path = format!("/v1/sales/{SALE}/orders?wait_ms=20000");
    assert_eq!(app.post(&path, &[], &order("u1")).await.code(), "order_refused");
    assert_eq!(counted(&app).await, BTreeMap::new());
    for buyer in ["u2", "u3"] {
        assert_eq!(app.post(&path, &[], &order(buyer)).await.json["status"], "succeed");
    }
    assert_eq!(app.post(&path, &[], &order("u4")).await.code(), "limit_reached");
    let report = app.wait_until_settled(SALE).await;
    assert_eq!(report["drift"], 0, "{report}");
    assert_eq!(report["records"], json!({"succeed": 2, "failed": 1}), "{report}");
    let mut spread = with_limits(&shop, json!([{"by": "card", "units": 1}]));
    spread["sale"] = json!("spread");
    spread["partitions"] = json!(2);
    let reply = app.post("/v1/sales", &[], &spread).await;
    assert_eq!((reply.status, &reply.json["field"]), (422, &json!("limits.by")), "{}", reply.json);
    let bad = |limits: Value| {
        let mut body = with_limits(&shop, limits);
        body["sale"] = json!("bad");
        body
    };
    for (limits, field) in [
        (json!([{"by": "card", "units": 0}]), "limits.units"),
        (json!([{"by": "card", "skus": ["x"], "units": 1}]), "limits.skus"),
        (json!([{"by": "card", "units": 1}, {"by": "card", "units": 2}]), "limits"),
    ] {
        let reply = app.post("/v1/sales", &[], &bad(limits)).await;
        assert_eq!((reply.status, &reply.json["field"]), (422, &json!(field)), "{}", reply.json);
    }
}
