//! How the order endpoint is called, and what is made of every kind of answer.

use super::{SOON, Stage, buy};
use crate::support::app::eventually;
use crate::support::shop::Answer;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn a_call_carries_the_order_and_who_asks() {
    let stage = Stage::new().await;
    stage.sale("s", 9, json!({})).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let order =
        json!({"buyer": "u1", "items": [{"sku": "sku-1", "quantity": 2}], "payload": {"b": 1, "a": [1.0, "x"]}});
    let path = "/v1/sales/s/orders?wait_ms=10000";
    let gid = stage.app.post(path, &[("traceparent", trace)], &order).await.gid().unwrap().to_owned();
    let call = stage.shop.calls(&gid).pop().unwrap();
    let expected = [("gid", gid.as_str()), ("trans_type", "msg"), ("branch_id", "01"), ("op", "action")];
    assert_eq!(call.query, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    let header = |call: &crate::support::shop::Call, name: &str| call.headers[name].to_str().unwrap().to_owned();
    assert_eq!(header(&call, "idempotency-key"), gid);
    assert_eq!(header(&call, "traceparent"), trace);
    assert_eq!(header(&call, "content-type"), "application/json");
    let admitted_at: jiff::Timestamp = call.order["admitted_at"].as_str().unwrap().parse().unwrap();
    assert!(jiff::Timestamp::now().duration_since(admitted_at).as_secs() < 60, "{admitted_at}");
    let mut body = call.order.clone();
    body.as_object_mut().unwrap().remove("admitted_at");
    let items = order["items"].clone();
    assert_eq!(
        body,
        json!({"gid": gid, "sale": "s", "buyer": "u1", "items": items, "payload": {"b": 1, "a": [1.0, "x"]}})
    );
    let bytes = String::from_utf8(call.body.to_vec()).unwrap();
    assert!(bytes.contains(&order["payload"].to_string()), "the payload goes through as it is: {bytes}");

    // Without a trace, or with a bad one, the order's own begins, the same for every try.
    stage.shop.script([Answer::Status(500, String::new())]);
    for bad in ["", "00-zz", "00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01"] {
        let headers = [("traceparent", bad)];
        let gid = stage.app.post(path, &headers, &buy("u1", 1)).await.gid().unwrap().to_owned();
        let traces: Vec<String> = stage.shop.calls(&gid).iter().map(|call| header(call, "traceparent")).collect();
        assert!(traces[0].len() == 55 && traces[0].starts_with("00-") && traces[0] != trace, "{traces:?}");
        assert!(traces.iter().all(|trace| *trace == traces[0]), "{traces:?}");
    }
}

/// Every answer that is neither yes nor no is asked about again, until there is a yes.
#[tokio::test]
async fn no_usable_answer_is_asked_about_again() {
    let stage = Stage::new().await;
    stage.sale("s", 9, json!({"order_endpoint": stage.shop.endpoint_with(json!({"timeout_ms": 100}))})).await;
    let answers = [
        Answer::Status(500, "no database".into()),
        Answer::Status(404, "<html>not here</html>".into()),
        Answer::Status(302, String::new()),
        Answer::Status(429, String::new()),
        Answer::CutBefore,
        Answer::CutAfter,
        Answer::Hang,
        Answer::HangAfter,
        Answer::Ongoing,
        Answer::Status(200, r#"{"dtm_result":"ONGOING"}"#.into()),
        Answer::Status(500, "{\"dtm_result\":".into()),
    ];
    stage.shop.script(answers.clone());
    let gid = stage.app.order("s", "", &buy("u1", 1)).await.gid().unwrap().to_owned();
    let order = stage.wait(&gid, "succeed").await;
    assert_eq!(order["attempts"], answers.len() + 1, "{order}");
    let calls = stage.shop.calls(&gid);
    assert_eq!(calls.len(), answers.len() + 1, "a redirect is not followed, a timeout is one call");
    assert_eq!(stage.shop.order_count(), 1);
    let report = stage.app.wait_until_settled("s").await;
    assert_eq!(report["drift"], 0, "{report}");
    let recorded = stage.app.get(&format!("/v1/orders/{gid}")).await.json;
    assert_eq!((&recorded["attempts"], &recorded["last_error"]), (&json!(answers.len() + 1), &Value::Null));
}

#[tokio::test]
async fn a_refusal_is_said_by_409_or_by_dtm_result() {
    let stage = Stage::new().await;
    stage.sale("s", 9, json!({"limit_per_buyer": 1})).await;
    for (answer, message) in [
        (Answer::Refused("card declined".into()), "card declined"),
        (Answer::Status(409, "plain words".into()), "plain words"),
        (Answer::Status(200, r#"{"dtm_result":"FAILURE","message":"said so"}"#.into()), "said so"),
        (Answer::Status(500, "FAILURE".into()), "FAILURE"),
    ] {
        stage.shop.script([answer]);
        let gid = stage.app.order("s", "", &buy("u1", 1)).await.gid().expect("the limit is free again").to_owned();
        let order = stage.wait(&gid, "failed").await;
        assert_eq!((&order["last_error"], &order["attempts"]), (&json!(message), &json!(1)));
    }
    // A long message is cut, an odd one is kept, and neither hurts.
    stage.shop.script([Answer::Refused("é\u{0}\"\n".repeat(1000))]);
    let gid = stage.app.order("s", "", &buy("u1", 1)).await.gid().unwrap().to_owned();
    let message = stage.wait(&gid, "failed").await["last_error"].as_str().unwrap().to_owned();
    assert!(message.chars().count() <= 500 && message.starts_with("é\u{0}\"\n"), "{message:?}");
    stage.app.wait_until_settled("s").await;
    let stock = stage.stock("s").await;
    assert_eq!(stock[0], json!({"sku": "sku-1", "loaded": 9, "available": 9, "reserved": 0, "sold": 0}));
    assert_eq!(stage.shop.order_count(), 0);
}

#[tokio::test]
async fn success_is_any_2xx_whatever_it_says() {
    let stage = Stage::new().await;
    stage.sale("s", 9, json!({})).await;
    for (status, body) in
        [(200, ""), (201, "garbage"), (202, "{\"dtm_result\":7}"), (204, ""), (200, "no FAILURE here")]
    {
        stage.shop.script([Answer::Status(status, body.into())]);
        let gid = stage.app.order("s", "", &buy("u1", 1)).await.gid().unwrap().to_owned();
        assert_eq!(stage.wait(&gid, "succeed").await["attempts"], 1, "{status} {body}");
    }
}

/// Something listens there that does not speak HTTP; then it is mended, and the order comes through.
#[tokio::test]
async fn an_endpoint_that_speaks_no_http_is_asked_again_until_it_does() {
    let stage = Stage::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/orders", listener.local_addr().unwrap());
    stage.sale("s", 9, json!({"order_endpoint": {"url": url, "timeout_ms": 200}})).await;
    let gid = stage.app.order("s", "", &buy("u1", 1)).await.gid().unwrap().to_owned();
    let words: [&[u8]; 5] = [
        b"\x16\x03\x01\x00\x00",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
    ];
    for word in words {
        let (mut stream, _) = tokio::time::timeout(SOON, listener.accept()).await.expect("it asks again").unwrap();
        let mut some = [0; 16];
        stream.read_exact(&mut some).await.unwrap();
        stream.write_all(word).await.unwrap();
    }
    assert_eq!(stage.app.get(&format!("/v1/orders/{gid}")).await.json["status"], "submitted");
    let body = json!({"order_endpoint": stage.shop.endpoint()});
    assert_eq!(stage.app.patch("/v1/sales/s", &body).await.status, 200);
    drop(listener);
    let order = stage.wait(&gid, "succeed").await;
    assert!(order["attempts"].as_u64() >= Some(6), "{order}");
}

#[tokio::test]
async fn an_endpoint_that_is_away_gets_its_orders_when_it_is_back() {
    let stage = Stage::new().await;
    stage.sale("s", 9, json!({})).await;
    stage.shop.leave();
    let gid = stage.app.order("s", "", &buy("u1", 1)).await.gid().unwrap().to_owned();
    let tries = async || stage.app.get(&format!("/v1/orders/{gid}")).await.json["attempts"].as_u64() >= Some(3);
    eventually("three calls to nobody", SOON, tries).await;
    stage.shop.come_back().await;
    stage.wait(&gid, "succeed").await;
    assert_eq!(stage.shop.calls(&gid).len(), 1);
}

#[tokio::test]
async fn no_more_calls_at_a_time_than_allowed() {
    let stage = Stage::new().await;
    stage.sale("s", 99, json!({"order_endpoint": stage.shop.endpoint_with(json!({"max_concurrency": 3}))})).await;
    stage.shop.always(Answer::Hang);
    for n in 0..10 {
        assert_eq!(stage.app.order("s", "", &buy(&format!("u{n}"), 1)).await.status, 201);
    }
    eventually("three calls are open", SOON, async || stage.shop.open_calls() == 3).await;
    tokio::time::sleep(Duration::from_millis(50)).await; // a fourth would come at once
    assert_eq!(stage.shop.open_calls_max(), 3);
    stage.shop.always(Answer::Created);
    stage.shop.release();
    assert_eq!(stage.app.wait_until_settled("s").await["drift"], 0);
    assert_eq!((stage.shop.open_calls_max(), stage.shop.order_count()), (3, 10));
}

/// Many orders in one call, each with an answer of its own.
#[tokio::test]
async fn a_bulk_call_is_answered_order_by_order() {
    let stage = Stage::new().await;
    stage.sale("s", 200, json!({"order_endpoint": stage.shop.endpoint_with(json!({"mode": "bulk"}))})).await;
    stage.shop.script([Answer::Hang]); // the first call holds the others up, so that they gather
    stage.shop.behave(|asked| match asked.order["payload"].as_u64().unwrap() % 4 {
        1 => Answer::Refused("not you".into()),
        2 if asked.attempt < 3 => Answer::Ongoing,
        3 if asked.attempt == 1 => Answer::CutAfter,
        _ => Answer::Created,
    });
    let mut gids = Vec::new();
    for n in 0..150 {
        let order = json!({"buyer": "u", "items": [{"sku": "sku-1", "quantity": 1}], "payload": n});
        gids.push(stage.app.order("s", "", &order).await.gid().unwrap().to_owned());
        if n == 0 {
            eventually("the first call hangs", SOON, async || stage.shop.open_calls() == 1).await;
        }
    }
    stage.shop.release();
    for (n, gid) in gids.iter().enumerate() {
        stage.wait(gid, if n % 4 == 1 { "failed" } else { "succeed" }).await;
    }
    let report = stage.app.wait_until_settled("s").await;
    assert_eq!(report["drift"], 0, "{report}");
    let calls = stage.shop.all_calls();
    assert!(calls.iter().all(|call| call.bulk && !call.headers.contains_key("idempotency-key")));
    let mut sizes: Vec<usize> = calls.chunk_by(|a, b| a.body == b.body).map(<[_]>::len).collect();
    sizes.sort_unstable();
    assert!(sizes.last().is_some_and(|largest| (2..=100).contains(largest)), "{sizes:?}");
    assert_eq!(stage.shop.order_count(), 112);
}

/// A bulk answer that leaves out an order, speaks of others, or is none at all decides nothing about it.
#[tokio::test]
async fn what_a_bulk_answer_does_not_say_is_asked_again() {
    let stage = Stage::new().await;
    stage.sale("s", 200, json!({"order_endpoint": stage.shop.endpoint_with(json!({"mode": "bulk"}))})).await;
    let answers = [
        Answer::Status(200, r#"{"results":[]}"#.into()),
        Answer::Status(200, r#"{"results":[{"gid":"s.0.1-1.0","result":"FAILURE"}]}"#.into()),
        Answer::Status(200, "FAILURE".into()),
        Answer::Status(409, "FAILURE".into()),
        Answer::Status(204, String::new()),
        Answer::Status(500, String::new()),
    ];
    stage.shop.script(answers.clone());
    let gid = stage.app.order("s", "", &buy("u1", 1)).await.gid().unwrap().to_owned();
    assert_eq!(stage.wait(&gid, "succeed").await["attempts"], answers.len() + 1);
}
