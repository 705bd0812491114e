//! What a buyer hears: admitted, replayed, refused, and what became of an order.

use super::{SOON, Stage, buy, is_problem};
use crate::support::app::eventually;
use crate::support::shop::Answer;
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test]
async fn an_order_is_admitted_delivered_and_drained() {
    let stage = Stage::new().await;
    stage.sale("s", 3, json!({})).await;
    let order = json!({
        "buyer": "u1", "items": [{"sku": "sku-1", "quantity": 2}], "payload": {"note": "größer", "n": 1.50},
    });
    let placed = stage.app.order("s", "k1", &order).await;
    assert_eq!(placed.status, 201, "{}", placed.json);
    assert!(!placed.replayed());
    assert_eq!(placed.json["status"], "submitted");
    assert_eq!(placed.json["items"], order["items"]);
    let gid = placed.gid().unwrap();
    assert!(gid.starts_with("s.0."), "{gid}");
    let ended = stage.wait(gid, "succeed").await;
    assert_eq!(ended["attempts"], 1);
    stage.app.wait_until_settled("s").await;
    let drained = stage.app.get(&format!("/v1/orders/{gid}")).await.json;
    for (field, value) in [
        ("gid", json!(gid)),
        ("sale", json!("s")),
        ("buyer", json!("u1")),
        ("status", json!("succeed")),
        ("items", order["items"].clone()),
        ("payload", order["payload"].clone()),
        ("attempts", json!(1)),
        ("last_error", Value::Null),
    ] {
        assert_eq!(drained[field], value, "{field}");
    }
    let time = |field: &str| drained[field].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(time("finished_at") >= time("admitted_at"));
    assert_eq!(
        stage.stock("s").await,
        json!([{"sku": "sku-1", "loaded": 3, "available": 1, "reserved": 0, "sold": 2}])
    );
    let replay = stage.app.order("s", "k1", &order).await;
    assert_eq!((replay.status, replay.gid(), replay.replayed()), (201, Some(gid), true), "also after the drain");
}

#[tokio::test]
async fn every_refusal_has_its_status_and_its_code() {
    let stage = Stage::new().await;
    let app = &stage.app;
    stage.sale("s", 1, json!({"limit_per_buyer": 2})).await;

    is_problem(&app.order("s", "", &buy("u1", 2)).await, 409, "sold_out");
    is_problem(&app.order("s", "", &buy("u1", 3)).await, 409, "limit_reached");
    is_problem(&app.order("nosuch", "", &buy("u1", 1)).await, 404, "unknown_sale");
    is_problem(&app.order("no.such", "", &buy("u1", 1)).await, 404, "unknown_sale");
    let unknown = json!({"buyer": "u1", "items": [{"sku": "sku-2", "quantity": 1}]});
    is_problem(&app.order("s", "", &unknown).await, 404, "unknown_sku");

    assert_eq!(app.order("s", "k1", &buy("u1", 1)).await.status, 201);
    let reused = app.order("s", "k1", &buy("u2", 1)).await;
    is_problem(&reused, 422, "idempotency_key_reused");

    assert_eq!(app.patch("/v1/sales/s", &json!({"status": "paused"})).await.status, 200);
    let paused = app.order("s", "", &buy("u2", 1)).await;
    is_problem(&paused, 423, "paused");
    assert_eq!(paused.header("retry-after"), Some("1"));

    assert_eq!(app.patch("/v1/sales/s", &json!({"status": "closed"})).await.status, 200);
    let closed = app.order("s", "", &buy("u2", 1)).await;
    is_problem(&closed, 410, "closed");
    assert_eq!(closed.header("retry-after"), None, "a closed sale does not come back");
    assert!(app.order("s", "k1", &buy("u1", 1)).await.replayed(), "who won hears so also after closing");

    let opens_at = jiff::Timestamp::now() + Duration::from_secs(100);
    stage.sale("later", 1, json!({"opens_at": opens_at.to_string()})).await;
    let early = app.order("later", "", &buy("u1", 1)).await;
    is_problem(&early, 425, "not_open");
    let wait: u64 = early.header("retry-after").unwrap().parse().unwrap();
    assert!((90..=101).contains(&wait), "Retry-After {wait}");
    stage.sale("over", 1, json!({"closes_at": "2020-01-01T00:00:00Z"})).await;
    is_problem(&app.order("over", "", &buy("u1", 1)).await, 410, "closed");

    let refused = app.get("/v1/sales/s").await.json["refused"].clone();
    let expected = json!({
        "sold_out": 1, "limit_reached": 1, "unknown_sku": 1, "idempotency_key_reused": 1, "paused": 1, "closed": 1,
    });
    assert_eq!(refused, expected, "refusals are counted by their codes");
}

#[tokio::test]
async fn an_invalid_order_is_told_which_field_is_wrong() {
    let stage = Stage::new().await;
    stage.sale("s", 100, json!({})).await;
    let items = |quantity: Value| json!({"buyer": "u1", "items": [{"sku": "sku-1", "quantity": quantity}]});
    let many: Vec<Value> = (0..21).map(|n| json!({"sku": format!("sku-{n}"), "quantity": 1})).collect();
    for (body, field) in [
        (items(json!(0)), "quantity"),
        (items(json!(-1)), "items[0].quantity"),
        (items(json!(1.5)), "items[0].quantity"),
        (items(json!("1")), "items[0].quantity"),
        (items(json!(null)), "items[0].quantity"),
        (items(json!(1_000_001)), "quantity"),
        (items(json!(4_294_967_296_u64)), "items[0].quantity"),
        (items(json!(1e30)), "items[0].quantity"),
        (json!({"buyer": "u1", "items": []}), "items"),
        (json!({"buyer": "u1", "items": many}), "items"),
        (json!({"buyer": "u1"}), ""),
        (json!({"items": [{"sku": "sku-1", "quantity": 1}]}), ""),
        (json!({"buyer": "", "items": [{"sku": "sku-1", "quantity": 1}]}), "buyer"),
        (json!({"buyer": "u\n1", "items": [{"sku": "sku-1", "quantity": 1}]}), "buyer"),
        (json!({"buyer": "u\u{0}", "items": [{"sku": "sku-1", "quantity": 1}]}), "buyer"),
        (json!({"buyer": "u".repeat(129), "items": [{"sku": "sku-1", "quantity": 1}]}), "buyer"),
        (json!({"buyer": 7, "items": [{"sku": "sku-1", "quantity": 1}]}), "buyer"),
        (json!({"buyer": "u1", "items": [{"sku": "sku 1", "quantity": 1}]}), "sku"),
        (json!({"buyer": "u1", "items": [{"sku": "sku-1:available", "quantity": 1}]}), "sku"),
        (json!({"buyer": "u1", "items": [{"sku": "s".repeat(65), "quantity": 1}]}), "sku"),
        (json!({"buyer": "u1", "items": [{"sku": "sku-1", "quantity": 1}, {"sku": "sku-1", "quantity": 1}]}), "items"),
        (json!({"buyer": "u1", "items": [{"sku": "sku-1", "quantity": 1, "price": 0}]}), "items[0].price"),
        (json!({"buyer": "u1", "items": [{"sku": "sku-1", "quantity": 1}], "limit": 9}), "limit"),
        (json!([]), ""),
        (json!("order"), ""),
        (json!(null), ""),
    ] {
        let reply = stage.app.order("s", "", &body).await;
        assert_eq!((reply.status, reply.code()), (422, "invalid_order"), "{body}: {}", reply.json);
        assert_eq!(reply.json["field"].as_str().unwrap_or_default(), field, "{body}: {}", reply.json);
    }
    for key in ["k".repeat(256).as_str(), "\t"] {
        let reply = stage.app.order("s", key, &buy("u1", 1)).await;
        is_problem(&reply, 422, "invalid_order");
        assert_eq!(reply.json["field"], "Idempotency-Key");
    }
    assert_eq!(stage.stock("s").await[0]["available"], 100, "no refused order took anything");
}

#[tokio::test]
async fn odd_names_are_names() {
    let stage = Stage::new().await;
    stage.sale("s", 100, json!({})).await;
    for buyer in
        ["Ünïcode 買い手 🛒", "'; DROP TABLE orders;--", "{\"a\":1}", "a/b?c#d%00", "\\u0000", "-1", "\u{feff}"]
    {
        let placed = stage.app.order("s", &format!("key of {}", buyer.escape_default()), &buy(buyer, 1)).await;
        assert_eq!(placed.status, 201, "{buyer}: {}", placed.json);
        let order = stage.wait(placed.gid().unwrap(), "succeed").await;
        assert_eq!(order["buyer"], buyer);
    }
    let report = stage.app.wait_until_settled("s").await;
    assert_eq!(report["drift"], 0, "{report}");
    let buyers: Vec<String> = stage.shop.orders().into_values().map(|order| order.buyer).collect();
    assert!(buyers.contains(&"Ünïcode 買い手 🛒".to_owned()));
}

#[tokio::test]
async fn the_same_answer_is_heard_on_another_node() {
    let stage = Stage::new().await;
    stage.sale("s", 1, json!({})).await;
    let first = stage.app.order("s", "k1", &buy("u1", 1)).await;
    let other = stage.another_node().await;
    let again = other.order("s", "k1", &buy("u1", 1)).await;
    assert_eq!((again.status, again.gid(), again.replayed()), (201, first.gid(), true));
    is_problem(&other.order("s", "k2", &buy("u2", 1)).await, 409, "sold_out");
    is_problem(&other.order("s", "k1", &buy("u2", 1)).await, 422, "idempotency_key_reused");
    let waited = other.post("/v1/sales/s/orders?wait_ms=10000", &[("idempotency-key", "k1")], &buy("u1", 1)).await;
    assert_eq!((waited.status, &waited.json["status"]), (201, &json!("succeed")), "{}", waited.json);
}

#[tokio::test]
async fn a_buyer_may_wait_for_the_order_services_answer() {
    let stage = Stage::new().await;
    stage.sale("s", 9, json!({})).await;
    let place = async |wait_ms: &str, key: &str| {
        let path = format!("/v1/sales/s/orders?wait_ms={wait_ms}");
        stage.app.post(&path, &[("idempotency-key", key)], &buy("u1", 1)).await
    };
    let made = place("10000", "k1").await;
    assert_eq!((made.status, &made.json["status"]), (201, &json!("succeed")), "{}", made.json);

    stage.shop.script([Answer::Refused("card declined".into())]);
    let refused = place("10000", "k2").await;
    is_problem(&refused, 409, "order_refused");
    assert!(refused.json["detail"].as_str().unwrap().contains("card declined"), "{}", refused.json);
    is_problem(&place("10000", "k2").await, 409, "order_refused");
    assert_eq!(stage.stock("s").await[0]["available"], 8, "its units went back");

    stage.shop.script([Answer::Hang]);
    let hanging = place("50", "k3").await;
    assert_eq!((hanging.status, &hanging.json["status"]), (201, &json!("submitted")), "{}", hanging.json);
    assert!(hanging.took >= Duration::from_millis(50), "{:?}", hanging.took);
    stage.shop.release();
    stage.wait(hanging.gid().unwrap(), "succeed").await;

    for bad in ["x", "-1", "1.5", ""] {
        is_problem(&place(bad, "k4").await, 422, "invalid_order");
    }
    assert_eq!(place("99999999999", "k5").await.json["status"], "succeed", "longer wishes are cut, not refused");
}

/// An order's view in each of its states: waiting for the first answer, for a retry, ended, drained; and by wrong names.
#[tokio::test]
async fn an_order_can_be_looked_up_in_every_state() {
    let stage = Stage::new().await;
    stage.sale("s", 9, json!({})).await;
    let look = async |gid: &str| stage.app.get(&format!("/v1/orders/{gid}")).await.json;

    stage.shop.always(Answer::Status(500, "no database".into()));
    let gid = stage.app.order("s", "", &buy("u1", 1)).await.gid().unwrap().to_owned();
    eventually("two tries are noted", SOON, async || look(&gid).await["attempts"].as_u64() >= Some(2)).await;
    let trying = look(&gid).await;
    assert_eq!(trying["status"], "submitted");
    assert!(trying["last_error"].as_str().unwrap().contains("no database"), "{trying}");
    assert_eq!(trying["finished_at"], Value::Null);
    stage.shop.always(Answer::Refused("too late".into()));
    let failed = stage.wait(&gid, "failed").await;
    assert_eq!(failed["last_error"], "too late");
    stage.app.wait_until_settled("s").await;
    let drained = look(&gid).await;
    assert_eq!((&drained["status"], &drained["last_error"]), (&json!("failed"), &json!("too late")));
    assert_eq!(drained["attempts"], stage.shop.calls(&gid).len());
    assert!(drained["finished_at"].is_string());

    let last = gid.rsplit_once('.').unwrap().0;
    for unknown in [
        format!("{last}.7"),
        format!("{last}.007"),
        format!("{gid}%00"),
        format!("x.{gid}"),
        gid.replacen("s.0.", "s.1.", 1),
        gid.replacen("s.0.", "nosuch.0.", 1),
        "s.0.1-1.0".into(),
        "s.0.18446744073709551615-18446744073709551615.65535".into(),
        "%F0%9F%9B%92".into(),
        "%2e%2e%2f".into(),
        "x".repeat(5_000),
    ] {
        is_problem(&stage.app.get(&format!("/v1/orders/{unknown}")).await, 404, "unknown_order");
    }
}

/// Twenty at the last unit, ten times over: exactly one wins each time, and everybody who repeats hears the same.
#[tokio::test]
async fn twenty_buyers_at_the_last_unit() {
    let stage = Stage::new().await;
    for round in 0..10 {
        let sale = format!("last-{round}");
        stage.sale(&sale, 1, json!({})).await;
        let mut buyers = tokio::task::JoinSet::new();
        for buyer in 0..20 {
            let (http, sale) = (stage.app.http(), sale.clone());
            buyers.spawn(async move {
                let (key, order) = (format!("k{buyer}"), buy(&format!("u{buyer}"), 1));
                let first = http.try_order(&sale, &key, &order).await.unwrap();
                let again = http.try_order(&sale, &key, &order).await.unwrap();
                assert_eq!((first.status, first.gid()), (again.status, again.gid()));
                assert_eq!(again.replayed(), first.status == 201);
                if first.status != 201 {
                    is_problem(&first, 409, "sold_out");
                }
                first.status
            });
        }
        let answers = buyers.join_all().await;
        assert_eq!(answers.iter().filter(|status| **status == 201).count(), 1, "{answers:?}");
        let report = stage.app.wait_until_settled(&sale).await;
        assert_eq!(report["drift"], 0, "{report}");
    }
    assert_eq!(stage.shop.order_count(), 10);
}

/// The first answer was lost: the connection is cut as soon as the request is written. Whatever became of it, the
/// repeated request hears of one order, and there is only one.
#[tokio::test]
async fn a_lost_answer_is_heard_by_asking_again() {
    use tokio::io::AsyncWriteExt;
    let stage = Stage::new().await;
    stage.sale("s", 30, json!({})).await;
    let host = stage.app.http().base().strip_prefix("http://").unwrap().to_owned();
    for n in 0..30 {
        let (key, order) = (format!("k{n}"), buy(&format!("u{n}"), 1));
        let body = order.to_string();
        let request = format!(
            "POST /v1/sales/s/orders HTTP/1.1\r\nhost: {host}\r\nidempotency-key: {key}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = tokio::net::TcpStream::connect(&host).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        if n % 3 == 0 {
            tokio::task::yield_now().await;
        }
        if n % 2 == 0 {
            stream.set_zero_linger().unwrap(); // a reset instead of a farewell
        }
        drop(stream);
        let first = stage.app.order("s", &key, &order).await;
        let again = stage.app.order("s", &key, &order).await;
        assert_eq!((first.status, again.status, first.gid()), (201, 201, again.gid()), "{}", first.json);
        assert!(again.replayed());
    }
    let report = stage.app.wait_until_settled("s").await;
    assert_eq!(report["drift"], 0, "{report}");
    assert_eq!(stage.shop.order_count(), 30, "one order each, heard or not");
    is_problem(&stage.app.order("s", "", &buy("u99", 1)).await, 409, "sold_out");
}

#[tokio::test]
async fn more_than_the_order_service_can_take_is_refused_for_now() {
    let stage = Stage::with(|options| options.setting("delivery.backlog_max", 3)).await;
    stage.sale("s", 99, json!({})).await;
    stage.shop.always(Answer::Hang);
    for n in 0..3 {
        assert_eq!(stage.app.order("s", "", &buy(&format!("u{n}"), 1)).await.status, 201);
    }
    let full = stage.app.order("s", "", &buy("u9", 1)).await;
    is_problem(&full, 429, "backlog_full");
    assert_eq!(full.header("retry-after"), Some("1"));
    stage.shop.always(Answer::Created);
    stage.shop.release();
    eventually("there is room again", SOON, async || stage.app.order("s", "", &buy("u9", 1)).await.status == 201).await;
    stage.shop.release();
    assert_eq!(stage.app.wait_until_settled("s").await["drift"], 0);
}
