//! Changes of a sale while it sells: each happens once, is noted with who, when and why, and is seen by every node.

use super::{Stage, buy, is_problem};
use http::Method;
use serde_json::{Value, json};

async fn change(stage: &Stage, who: &str, method: Method, path: &str, body: Value) -> crate::support::app::Reply {
    let headers = [("rushline-operator", who)];
    let headers = if who.is_empty() { &headers[..0] } else { &headers[..] };
    stage.app.http().ask(method, path, headers, Some(&body)).await.unwrap()
}

async fn log_of(stage: &Stage, query: &str) -> Vec<Value> {
    let reply = stage.app.get(&format!("/v1/sales/s/changes{query}")).await;
    assert_eq!(reply.status, 200, "{}", reply.json);
    reply.json["changes"].as_array().unwrap().clone()
}

#[tokio::test]
async fn every_change_is_noted_with_who_when_and_why() {
    let stage = Stage::new().await;
    let created = stage.sale("s", 5, json!({})).await;
    assert!(log_of(&stage, "").await.is_empty());
    let restock = json!({"sku": "sku-1", "units": -9, "request_id": "r1", "reason": "broken in the store"});
    assert_eq!(change(&stage, "Zoë", Method::POST, "/v1/sales/s/stock", restock).await.status, 200);
    let pause = json!({"status": "paused", "reason": "wrong price"});
    assert_eq!(change(&stage, "bob", Method::PATCH, "/v1/sales/s", pause).await.status, 200);
    let limit = json!({"limit_per_buyer": 3, "opens_at": null, "request_id": "r2"});
    assert_eq!(change(&stage, "", Method::PATCH, "/v1/sales/s", limit).await.status, 200);

    let log = log_of(&stage, "").await;
    let told: Vec<Value> = log
        .iter()
        .map(|change| {
            json!([
                change["kind"],
                change["change"],
                change["units"],
                change["who"],
                change["why"],
                change["request_id"]
            ])
        })
        .collect();
    let expected = json!([
        ["settings", {"limit_per_buyer": 3, "opens_at": null}, null, "", "", "r2"],
        ["settings", {"status": "paused"}, null, "bob", "wrong price", ""],
        ["stock", {"sku": "sku-1", "units": -9}, -5, "Zoë", "broken in the store", "r1"],
    ]);
    assert_eq!(json!(told), expected, "newest first, with what really happened");
    let time = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(time(&log[2]["at"]) >= time(&created["created_at"]) && time(&log[0]["at"]) >= time(&log[2]["at"]));
    assert_eq!(log_of(&stage, "?limit=1").await, log[..1]);
    assert_eq!(stage.another_node().await.get("/v1/sales/s/changes").await.json["changes"], json!(log));
}

/// An operator who heard nothing asks again; meanwhile somebody else may have changed the same thing.
#[tokio::test]
async fn a_repeated_change_happens_once() {
    let stage = Stage::new().await;
    let other = stage.another_node().await;
    stage.sale("s", 5, json!({})).await;
    let pause = json!({"status": "paused", "request_id": "r1"});
    assert_eq!(stage.app.patch("/v1/sales/s", &pause).await.json["status"], "paused");
    let resume = json!({"status": "open", "request_id": "r2"});
    assert_eq!(other.patch("/v1/sales/s", &resume).await.json["status"], "open");
    for node in [&stage.app, &other] {
        let again = node.patch("/v1/sales/s", &pause).await;
        assert_eq!((again.status, &again.json["status"]), (200, &json!("open")), "it does not undo what came after it");
    }
    assert_eq!(log_of(&stage, "").await.len(), 2);
    let reused = stage.app.patch("/v1/sales/s", &json!({"limit_per_buyer": 2, "request_id": "r1"})).await;
    is_problem(&reused, 422, "request_id_reused");
    let reused = json!({"sku": "sku-1", "units": 1, "request_id": "r1"});
    is_problem(&stage.app.post("/v1/sales/s/stock", &[], &reused).await, 422, "request_id_reused");

    let close = json!({"status": "closed", "request_id": "r3"});
    assert_eq!(stage.app.patch("/v1/sales/s", &close).await.status, 200);
    assert_eq!(other.patch("/v1/sales/s", &close).await.status, 200, "also when nothing else can be changed any more");
    is_problem(&other.patch("/v1/sales/s", &json!({"status": "open", "request_id": "r4"})).await, 409, "sale_closed");
    is_problem(&stage.app.order("s", "", &buy("u1", 1)).await, 410, "closed");
}

#[tokio::test]
async fn a_change_that_is_none_is_told_why() {
    let stage = Stage::new().await;
    stage.sale("s", 5, json!({})).await;
    let long = "x".repeat(501);
    for (who, body, field) in [
        ("bob", json!({"status": "paused", "request_id": ""}), "request_id"),
        ("bob", json!({"status": "paused", "request_id": "a b"}), "request_id"),
        ("bob", json!({"status": "paused", "reason": "two\nlines"}), "reason"),
        ("bob", json!({"status": "paused", "reason": long}), "reason"),
        ("bob", json!({"status": "paused", "reason": 7}), "reason"),
        ("b\tb", json!({"status": "paused"}), "Rushline-Operator"),
        (&"b".repeat(129), json!({"status": "paused"}), "Rushline-Operator"),
    ] {
        let reply = change(&stage, who, Method::PATCH, "/v1/sales/s", body.clone()).await;
        is_problem(&reply, 422, "invalid_sale");
        assert_eq!(reply.json["field"], field, "{body}: {}", reply.json);
    }
    let restock = json!({"sku": "sku-1", "units": 1, "request_id": "r", "reason": "a\u{7}"});
    assert_eq!(stage.app.post("/v1/sales/s/stock", &[], &restock).await.json["field"], "reason");
    for (query, field) in
        [("?limit=0", "limit"), ("?limit=1001", "limit"), ("?limit=x", "limit"), ("?after=1", "after")]
    {
        let reply = stage.app.get(&format!("/v1/sales/s/changes{query}")).await;
        is_problem(&reply, 422, "invalid_query");
        assert_eq!(reply.json["field"], field, "{query}");
    }
    is_problem(&stage.app.get("/v1/sales/nosuch/changes").await, 404, "unknown_sale");
    assert!(log_of(&stage, "").await.is_empty(), "nothing was changed, nothing is noted");
    assert_eq!(stage.app.get("/v1/sales/s").await.json["version"], 1);
}
