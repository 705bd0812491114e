//! What operators do: create, list, show, change, restock; and what the server says of itself.

use super::{Stage, buy, is_problem};
use serde_json::{Value, json};
use std::collections::BTreeSet;

#[tokio::test]
async fn a_creation_may_be_repeated() {
    let stage = Stage::new().await;
    let body = stage.body("s", 5, json!({"limit_per_buyer": 2}));
    let created = stage.app.create_sale(&body).await;
    assert_eq!(stage.app.order("s", "", &buy("u1", 1)).await.status, 201);
    let again = stage.app.post("/v1/sales", &[], &body).await;
    assert_eq!(again.status, 200, "{}", again.json);
    assert_eq!(again.json["created_at"], created["created_at"]);
    assert_eq!(again.json["items"][0]["loaded"], 5, "the stock is not loaded twice");
    assert_eq!(again.json["items"][0]["available"], 4);
    for other in [json!({"limit_per_buyer": 3}), json!({"items": [{"sku": "sku-1", "units": 6}]})] {
        let reply = stage.app.post("/v1/sales", &[], &stage.body("s", 5, other)).await;
        is_problem(&reply, 409, "sale_exists");
    }
    assert_eq!(stage.app.get("/v1/sales/s").await.json["limit_per_buyer"], 2);

    // A change in between makes the repeated creation no other one.
    assert_eq!(stage.app.patch("/v1/sales/s", &json!({"limit_per_buyer": 9})).await.status, 200);
    let again = stage.app.post("/v1/sales", &[], &body).await;
    assert_eq!((again.status, &again.json["limit_per_buyer"]), (200, &json!(9)));
}

#[tokio::test]
async fn an_invalid_sale_is_told_which_field_is_wrong() {
    let stage = Stage::new().await;
    let endpoint = |fields: Value| json!({"order_endpoint": stage.shop.endpoint_with(fields)});
    for (fields, field) in [
        (json!({"sale": "a.b"}), "sale"),
        (json!({"sale": ""}), "sale"),
        (json!({"sale": "a}b"}), "sale"),
        (json!({"items": []}), "items"),
        (json!({"items": [{"sku": "a", "units": -1}]}), "items[0].units"),
        (json!({"items": [{"sku": "a", "units": 1_000_000_000_001_u64}]}), "units"),
        (json!({"items": [{"sku": "a", "units": 1}, {"sku": "a", "units": 1}]}), "items"),
        (json!({"items": [{"sku": "a b", "units": 1}]}), "sku"),
        (json!({"limit_per_buyer": 0}), "limit_per_buyer"),
        (json!({"limit_per_buyer": -1}), "limit_per_buyer"),
        (json!({"limit_per_person": 1}), "limit_per_person"),
        (json!({"opens_at": "tomorrow"}), "opens_at"),
        (json!({"opens_at": "1960-01-01T00:00:00Z"}), "opens_at"),
        (json!({"opens_at": "2030-01-02T00:00:00Z", "closes_at": "2030-01-01T00:00:00Z"}), "closes_at"),
        (json!({"durability": "hope"}), "durability"),
        (json!({"durability": "replica:0"}), "durability"),
        (endpoint(json!({"url": "ftp://127.0.0.1/"})), "order_endpoint.url"),
        (endpoint(json!({"url": "127.0.0.1"})), "order_endpoint.url"),
        (endpoint(json!({"url": "http://user:secret@127.0.0.1/"})), "order_endpoint.url"),
        (endpoint(json!({"timeout_ms": 0})), "order_endpoint.timeout_ms"),
        (endpoint(json!({"timeout_ms": 60_001})), "order_endpoint.timeout_ms"),
        (endpoint(json!({"max_concurrency": 0})), "order_endpoint.max_concurrency"),
        (endpoint(json!({"mode": "batch"})), "order_endpoint.mode"),
        (endpoint(json!({"timeout": 1})), "order_endpoint.timeout"),
    ] {
        let reply = stage.app.post("/v1/sales", &[], &stage.body("s", 1, fields.clone())).await;
        assert_eq!((reply.status, reply.code()), (422, "invalid_sale"), "{fields}: {}", reply.json);
        assert_eq!(reply.json["field"], field, "{fields}: {}", reply.json);
        assert!(!reply.json.to_string().contains("secret"), "{}", reply.json);
    }
    // This Redis keeps no append-only file, and has no replica.
    for durability in ["fsync", "replica:1"] {
        let reply = stage.app.post("/v1/sales", &[], &stage.body("s", 1, json!({"durability": durability}))).await;
        is_problem(&reply, 422, "durability_unavailable");
    }
    is_problem(&stage.app.get("/v1/sales/s").await, 404, "unknown_sale");
    assert_eq!(stage.app.get("/v1/sales").await.json, json!({"sales": []}));
}

#[tokio::test]
async fn a_sale_is_changed_field_by_field() {
    let stage = Stage::new().await;
    let made = stage.sale("s", 5, json!({"limit_per_buyer": 2, "closes_at": "2090-01-01T00:00:00Z"})).await;
    let change = async |body: Value| {
        let reply = stage.app.patch("/v1/sales/s", &body).await;
        assert_eq!(reply.status, 200, "{body}: {}", reply.json);
        reply.json
    };
    assert_eq!(change(json!({})).await, made, "nothing named, nothing changed, not even the version");

    let changed = change(json!({"status": "paused"})).await;
    assert_eq!((&changed["status"], &changed["limit_per_buyer"]), (&json!("paused"), &json!(2)));
    assert_eq!(changed["closes_at"], "2090-01-01T00:00:00Z", "what is not named stays");
    assert_eq!(change(json!({"limit_per_buyer": 7})).await["limit_per_buyer"], 7);
    assert_eq!(change(json!({"limit_per_buyer": null})).await["limit_per_buyer"], Value::Null);
    let opened = change(json!({"opens_at": "2080-01-01T00:00:00Z", "status": "open"})).await;
    assert_eq!(opened["opens_at"], "2080-01-01T00:00:00Z");
    is_problem(&stage.app.order("s", "", &buy("u1", 1)).await, 425, "not_open");
    let open = change(json!({"opens_at": null, "closes_at": null})).await;
    assert_eq!((&open["opens_at"], &open["closes_at"]), (&Value::Null, &Value::Null));
    assert_eq!(stage.app.order("s", "", &buy("u1", 5)).await.status, 201, "no limit any more");
    let endpoint = stage.shop.endpoint_with(json!({"timeout_ms": 500, "max_concurrency": 2, "mode": "bulk"}));
    let changed = change(json!({"order_endpoint": endpoint})).await;
    assert_eq!(changed["order_endpoint"], endpoint);

    for (body, field) in [
        (json!({"status": "gone"}), "status"),
        (json!({"durability": "fsync"}), "durability"),
        (json!({"items": []}), "items"),
        (json!({"limit_per_buyer": 0}), "limit_per_buyer"),
        (json!({"opens_at": "2091-01-01T00:00:00Z", "closes_at": "2090-01-01T00:00:00Z"}), "closes_at"),
        (json!({"order_endpoint": {"url": "x"}}), "order_endpoint.url"),
    ] {
        let reply = stage.app.patch("/v1/sales/s", &body).await;
        assert_eq!((reply.status, reply.code()), (422, "invalid_sale"), "{body}: {}", reply.json);
        assert_eq!(reply.json["field"], field, "{}", reply.json);
    }
    is_problem(&stage.app.patch("/v1/sales/nosuch", &json!({})).await, 404, "unknown_sale");

    change(json!({"status": "closed"})).await;
    let reopened = stage.app.patch("/v1/sales/s", &json!({"status": "open"})).await;
    is_problem(&reopened, 409, "sale_closed");
    assert_eq!(stage.app.patch("/v1/sales/s", &json!({"status": "closed"})).await.status, 200, "it is closed already");
}

/// Two operators at once: neither undoes the other's change.
#[tokio::test]
async fn changes_at_the_same_time_do_not_undo_each_other() {
    let stage = Stage::new().await;
    stage.sale("s", 5, json!({})).await;
    let other = stage.another_node().await;
    for round in 1..=10_u64 {
        let closes_at = format!("2090-01-01T00:00:{round:02}Z");
        let (limit, window) = (json!({"limit_per_buyer": round}), json!({"closes_at": closes_at}));
        let (one, two) = tokio::join!(stage.app.patch("/v1/sales/s", &limit), other.patch("/v1/sales/s", &window));
        assert_eq!((one.status, two.status), (200, 200), "{} {}", one.json, two.json);
        let sale = other.get("/v1/sales/s").await.json;
        assert_eq!((&sale["limit_per_buyer"], &sale["closes_at"]), (&json!(round), &json!(closes_at)));
    }
    let crowd = (1..=16).map(|limit| {
        let http = stage.app.http();
        async move {
            let body = json!({"limit_per_buyer": limit});
            http.ask(http::Method::PATCH, "/v1/sales/s", &[], Some(&body)).await.unwrap().status
        }
    });
    let answers = futures_util::future::join_all(crowd).await;
    assert!(answers.iter().all(|status| [200, 409].contains(status)), "{answers:?}");
    assert!(answers.contains(&200), "somebody gets through");
}

/// A change made on one node is heard by buyers of another at once, because the script decides it.
#[tokio::test]
async fn a_pause_holds_on_every_node_at_once() {
    let stage = Stage::new().await;
    stage.sale("s", 5, json!({})).await;
    let other = stage.another_node().await;
    assert_eq!(other.order("s", "", &buy("u1", 1)).await.status, 201);
    assert_eq!(stage.app.patch("/v1/sales/s", &json!({"status": "paused"})).await.status, 200);
    is_problem(&other.order("s", "", &buy("u2", 1)).await, 423, "paused");
}

#[tokio::test]
async fn stock_is_added_once_for_each_request() {
    let stage = Stage::new().await;
    stage.sale("s", 5, json!({})).await;
    let restock = async |body: Value| stage.app.post("/v1/sales/s/stock", &[], &body).await;
    let add = |sku: &str, units: i64, id: &str| json!({"sku": sku, "units": units, "request_id": id});

    let added = restock(add("sku-1", 3, "r1")).await;
    assert_eq!(added.status, 200, "{}", added.json);
    assert_eq!(added.json, json!({"sku": "sku-1", "units": 3, "request_id": "r1", "replayed": false}));
    let again = restock(add("sku-1", 3, "r1")).await;
    assert_eq!(again.json, json!({"sku": "sku-1", "units": 3, "request_id": "r1", "replayed": true}));
    is_problem(&restock(add("sku-1", 4, "r1")).await, 422, "request_id_reused");
    assert_eq!(restock(add("sku-1", -100, "r2")).await.json["units"], -8, "down to zero available");
    assert_eq!(restock(add("sku-1", -1, "r3")).await.json["units"], 0, "there is nothing to withdraw");
    assert_eq!(restock(add("sku-1", -1, "r3")).await.json["replayed"], true);
    is_problem(&stage.app.order("s", "", &buy("u1", 1)).await, 409, "sold_out");
    is_problem(&restock(add("sku-2", -1, "r4")).await, 404, "unknown_sku");
    assert_eq!(restock(add("sku-2", 1, "r4")).await.status, 200, "a SKU that joins the sale");
    let both = json!({"buyer": "u1", "items": [{"sku": "sku-2", "quantity": 1}]});
    assert_eq!(stage.app.order("s", "", &both).await.status, 201);

    for (body, field) in [
        (add("sku-1", 0, "r9"), "units"),
        (add("sku-1", 1_000_000_000_001, "r9"), "units"),
        (add("sku-1", 999_999_999_999, "r9"), "units"),
        (add("sku-1", i64::MIN, "r9"), "units"),
        (json!({"sku": "sku-1", "units": 1.5, "request_id": "r9"}), "units"),
        (add("sku-1", 1, ""), "request_id"),
        (add("sku-1", 1, "r 9"), "request_id"),
        (add("sku-1", 1, &"r".repeat(129)), "request_id"),
        (add("sku:1", 1, "r9"), "sku"),
        (json!({"sku": "sku-1", "units": 1, "request_id": "r9", "why": ""}), "why"),
    ] {
        let reply = restock(body.clone()).await;
        if body["units"] == 999_999_999_999_u64 {
            assert_eq!(reply.status, 200, "as many as a SKU may have been loaded with: {}", reply.json);
            continue;
        }
        assert_eq!((reply.status, reply.code()), (422, "invalid_stock"), "{body}: {}", reply.json);
        assert_eq!(reply.json["field"], field, "{}", reply.json);
    }
    let twenty = (0..20).map(|_| restock(add("sku-2", 5, "double-click")));
    let answers = futures_util::future::join_all(twenty).await;
    assert_eq!(answers.iter().filter(|reply| reply.json["replayed"] == false).count(), 1);
    let report = stage.app.wait_until_settled("s").await;
    assert_eq!(report["drift"], 0, "{report}");
    let stock = stage.stock("s").await;
    assert_eq!(stock[1], json!({"sku": "sku-2", "loaded": 6, "available": 5, "reserved": 0, "sold": 1}));
}

#[tokio::test]
async fn the_server_says_how_it_is() {
    let stage = Stage::new().await;
    let http = stage.app.http();
    let text = async |path: &str| {
        let (status, body) = super::hostile::get_text(http.base(), path).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    };
    assert_eq!(text("/healthz").await, "ok\n");
    assert_eq!(stage.app.get("/readyz").await.json["ready"], true);

    stage.sale("s", 4, json!({"limit_per_buyer": 2})).await;
    assert_eq!(stage.app.order("s", "", &buy("u1", 2)).await.status, 201);
    assert_eq!(stage.app.order("s", "", &buy("u1", 1)).await.status, 409);
    stage.app.wait_until_settled("s").await;
    stage.app.get("/v1/sales/s").await; // adds the refusals up
    let metrics = text("/metrics").await;
    for line in [
        r#"rushline_conservation_difference{sale="s"} 0"#,
        r#"rushline_units{sale="s",sku="sku-1",state="loaded"} 4"#,
        r#"rushline_units{sale="s",sku="sku-1",state="available"} 2"#,
        r#"rushline_units{sale="s",sku="sku-1",state="reserved"} 0"#,
        r#"rushline_units{sale="s",sku="sku-1",state="sold"} 2"#,
        "rushline_orders_admitted_total 1",
        r#"rushline_orders_ended_total{status="succeed"} 1"#,
        r#"rushline_orders_refused_total{reason="limit_reached"} 1"#,
        "rushline_records_written_total 1",
        "rushline_redis_usable 1",
        "rushline_in_flight_orders 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "no line {line} in\n{metrics}");
    }
    let labels: BTreeSet<&str> = metrics
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| Some(line.split_once('{')?.1.split_once('}')?.0))
        .flat_map(|labels| labels.split(',').filter_map(|pair| Some(pair.split_once('=')?.0)))
        .collect();
    // class, op, result and trans_type are words of this program, not of whoever asks.
    let words = ["class", "le", "op", "quantile", "reason", "result", "sale", "sku", "state", "status", "trans_type"];
    let known = BTreeSet::from(words);
    assert!(labels.is_subset(&known), "a label set must have a bound; {labels:?}");
    for name in metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
        assert!(metrics.contains(&format!("# HELP {name} ")), "{name} is not described");
    }
}
