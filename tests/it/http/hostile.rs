//! Requests that nobody should send. Each gets a definite refusal, nothing is taken, and the server serves on.

use super::{SOON, Stage, buy, is_problem};
use crate::support::app::{App, AppOptions, eventually};
use crate::support::servers::{Redis, RedisVersion};
use serde_json::json;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends bytes as they are and reads until the server closes the connection or falls silent.
async fn raw(base: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(base.strip_prefix("http://").unwrap()).await.unwrap();
    let (mut reading, mut writing) = stream.split();
    let mut answer = Vec::new();
    let write = async {
        let _ = writing.write_all(bytes).await; // it may be refused half-way
    };
    let read = async {
        let _ = reading.read_to_end(&mut answer).await; // the connection may be cut after the answer
    };
    let both = async { tokio::join!(write, read) };
    let _ = tokio::time::timeout(SOON, both).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// The status line's number; 0 for a connection closed without an answer.
fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
}

/// A GET whose answer is text.
pub async fn get_text(base: &str, path: &str) -> (u16, String) {
    let answer = raw(base, format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned();
    (status(&answer), body)
}

fn post(path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}")
        .into_bytes()
}

async fn still_sells(stage: &Stage) {
    let placed = stage.app.order("s", "", &buy("u1", 1)).await;
    assert_eq!(placed.status, 201, "the server serves on: {}", placed.json);
}

#[tokio::test]
async fn what_is_no_json_is_refused() {
    let stage = Stage::new().await;
    stage.sale("s", 99, json!({})).await;
    let base = stage.app.http().base().to_owned();
    let deep = "[".repeat(50_000);
    for body in
        ["", " ", "{", "{,}", "nul", "\u{feff}{}", "buyer=u1&sku=1", deep.as_str(), "{\"buyer\":\"u1\",}", "{} {}"]
    {
        for path in ["/v1/sales/s/orders", "/v1/sales", "/v1/sales/s/stock"] {
            let answer = raw(&base, &post(path, "", body)).await;
            // Where a wrong field comes before the place that is no JSON, that one is told.
            let field_first = status(&answer) == 422 && body.starts_with(['[', '{']);
            let shown = &body[..body.len().min(20)];
            assert!(status(&answer) == 400 || field_first, "{path} {shown:?}: {answer}");
            assert!(answer.contains("\"invalid_"), "{answer}");
        }
    }
    let broken =
        b"POST /v1/sales/s/orders HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 4\r\n\r\n\"\xff\xfe\"";
    assert_eq!(status(&raw(&base, broken).await), 400, "not UTF-8");
    // Field names twice: which one should count?
    let twice = r#"{"buyer":"u1","buyer":"u2","items":[{"sku":"sku-1","quantity":1}]}"#;
    assert_eq!(status(&raw(&base, &post("/v1/sales/s/orders", "", twice)).await), 422);
    // Without a content type, or with another, a good order is a good order.
    let good = buy("u1", 1).to_string();
    for headers in ["", "content-type: text/plain\r\n", "content-type: application/json; charset=utf-8\r\n"] {
        assert_eq!(status(&raw(&base, &post("/v1/sales/s/orders", headers, &good)).await), 201, "{headers}");
    }
    assert_eq!(stage.app.wait_until_settled("s").await["drift"], 0);
    assert_eq!(stage.stock("s").await[0]["sold"], 3);
}

#[tokio::test]
async fn a_body_of_a_megabyte_is_too_large() {
    let stage = Stage::new().await;
    stage.sale("s", 99, json!({})).await;
    let order = json!({
        "buyer": "u1", "items": [{"sku": "sku-1", "quantity": 1}], "payload": "x".repeat(1 << 20),
    });
    // The server may cut the connection while the rest of the body is on its way.
    if let Ok(reply) = stage.app.http().try_order("s", "", &order).await {
        is_problem(&reply, 413, "body_too_large");
    }
    let base = stage.app.http().base().to_owned();
    let announced =
        b"POST /v1/sales/s/orders HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 99999999\r\n\r\n{";
    let answer = raw(&base, announced).await;
    assert_eq!(status(&answer), 413, "it is enough to announce it: {answer}");
    let mut chunked =
        b"POST /v1/sales/s/orders HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
            .to_vec();
    for _ in 0..32 {
        chunked.extend_from_slice(b"1000\r\n");
        chunked.extend_from_slice(&[b'x'; 0x1000]);
        chunked.extend_from_slice(b"\r\n");
    }
    assert!([0, 413].contains(&status(&raw(&base, &chunked).await)));
    let fits = json!({
        "buyer": "u1", "items": [{"sku": "sku-1", "quantity": 1}], "payload": "x".repeat(60_000),
    });
    let placed = stage.app.order("s", "", &fits).await;
    assert_eq!(placed.status, 201, "{}", placed.json);
    assert_eq!(stage.wait(placed.gid().unwrap(), "succeed").await["payload"], fits["payload"]);
    assert_eq!(stage.stock("s").await[0]["available"], 98);
}

#[tokio::test]
async fn floods_of_headers_are_refused() {
    let stage = Stage::new().await;
    stage.sale("s", 99, json!({})).await;
    let base = stage.app.http().base().to_owned();
    let body = buy("u1", 1).to_string();
    let many: String = (0..5_000).map(|n| format!("x-{n}: y\r\n")).collect();
    let huge = format!("x-huge: {}\r\n", "y".repeat(1 << 20));
    let keys = "idempotency-key: k\r\n".repeat(200);
    let long_name = format!("{}: y\r\n", "x".repeat(70_000));
    for headers in [many, huge, keys, long_name] {
        let answer = raw(&base, &post("/v1/sales/s/orders", &headers, &body)).await;
        assert!([0, 400, 431].contains(&status(&answer)), "{}", &answer[..answer.len().min(300)]);
    }
    let long = raw(&base, format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "x".repeat(100_000)).as_bytes()).await;
    assert!([0, 400, 404, 414, 431].contains(&status(&long)), "{}", &long[..long.len().min(300)]);
    for words in
        ["\x16\x03\x01", "GET / HTTP/9.9\r\n\r\n", "G\u{0}T / HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nxx\r\n\r\n"]
    {
        let answer = raw(&base, words.as_bytes()).await;
        assert!(!(200..300).contains(&status(&answer)), "{words:?}: {answer}");
    }
    assert_eq!(stage.stock("s").await[0]["available"], 99, "none of these was an order");
    still_sells(&stage).await;
}

/// Announced and never sent: the connection is not held for ever.
#[tokio::test]
async fn a_body_that_does_not_come_is_waited_for_a_bounded_time() {
    let stage = Stage::with(|options| options.setting("http.header_timeout_ms", 200)).await;
    stage.sale("s", 99, json!({})).await;
    let base = stage.app.http().base().to_owned();
    for half in ["", "{\"buyer\":"] {
        let head =
            "POST /v1/sales/s/orders HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 99\r\n\r\n";
        let answer = raw(&base, format!("{head}{half}").as_bytes()).await;
        assert_eq!(status(&answer), 408, "{answer}");
        assert!(answer.contains("body_too_slow"), "{answer}");
    }
    assert_eq!(status(&raw(&base, b"POST /v1/sales/s/orders HTTP/1.1\r\nhos").await), 0, "half a head");
    still_sells(&stage).await;
}

/// Two heads in one: a proxy in front may see other requests than we do, so neither may pass.
#[tokio::test]
async fn a_request_with_two_lengths_is_no_request() {
    let stage = Stage::new().await;
    stage.sale("s", 99, json!({})).await;
    let base = stage.app.http().base().to_owned();
    let body = buy("u1", 1).to_string();
    for headers in ["content-length: 3\r\n", "transfer-encoding: identity\r\n", " folded: x\r\n"] {
        let answer = raw(&base, &post("/v1/sales/s/orders", headers, &body)).await;
        assert!([0, 400, 501].contains(&status(&answer)), "{headers}: {answer}");
    }
    assert_eq!(stage.stock("s").await[0]["available"], 99);
    still_sells(&stage).await;
}

#[tokio::test]
async fn odd_paths_and_methods_lead_nowhere() {
    let stage = Stage::new().await;
    stage.sale("s", 99, json!({})).await;
    let base = stage.app.http().base().to_owned();
    for path in [
        "/v1",
        "/ui",
        "/ui/",
        "/v1/",
        "/v1/sales/",
        "/v1/sales/s/",
        "/v1/sales//orders",
        "/v1/sales/s/orders/",
        "/v1/sales/s/x",
        "/v1/orders/",
        "/v2/sales",
        "/..%2f..%2fetc%2fpasswd",
        "//v1/sales",
        "/v1/sales/s%00",
        "/v1/sales/%ff",
        "/v1/sales/s%2Forders",
        "/v1/sales/..",
        "/V1/sales",
        "/v1/sales/s;a=b",
        "/v1/orders/%0d%0ax-injected:1",
    ] {
        let (status, body) = get_text(&base, path).await;
        assert!([400, 404, 405].contains(&status), "GET {path}: {status} {body}");
        assert!(body.contains("\"code\"") || body.starts_with("Invalid"), "GET {path}: {body}");
        assert!(!body.contains("\r\nx-injected"), "{body}");
    }
    for (method, path) in [
        ("DELETE", "/v1/sales/s"),
        ("PUT", "/v1/sales/s"),
        ("PUT", "/v1/sales/s/orders"),
        ("GET", "/v1/sales/s/stock"),
        ("POST", "/v1/orders/s.0.1-1.0"),
        ("DELETE", "/v1/sales"),
        ("POST", "/metrics"),
        ("BREW", "/v1/sales"),
    ] {
        let answer = raw(&base, format!("{method} {path} HTTP/1.0\r\n\r\n").as_bytes()).await;
        assert!([404, 405].contains(&status(&answer)), "{method} {path}: {answer}");
    }
    is_problem(&stage.app.order("s%2e", "", &buy("u1", 1)).await, 404, "unknown_sale");
    is_problem(&stage.app.order(&"s".repeat(5_000), "", &buy("u1", 1)).await, 404, "unknown_sale");
    is_problem(&stage.app.order("%F0%9F%9B%92", "", &buy("u1", 1)).await, 404, "unknown_sale");
    still_sells(&stage).await;
}

/// A Redis that says nothing: orders hear 503 within a bounded time, one of too many waiting hears 429, and nothing is
/// doubled when it speaks again.
#[tokio::test]
async fn a_silent_redis_is_an_answer_within_bounds() {
    let redis = Redis::start(RedisVersion::V7, &["--appendonly", "no"]).await;
    let options = AppOptions::default().redis(&redis.url()).setting("redis.timeout_ms", 300);
    let options = options.setting("admission.queue_max", 2).setting("admission.batch_max", 1);
    let app = App::start(options).await;
    let shop = crate::support::shop::Shop::start().await;
    let sale = json!({
        "sale": "s", "items": [{"sku": "sku-1", "units": 12}], "durability": "memory", "order_endpoint": shop.endpoint(),
    });
    app.create_sale(&sale).await;
    assert_eq!(app.order("s", "k0", &buy("u0", 1)).await.status, 201);

    redis.process().signal("STOP");
    let crowd = (0..12).map(|n| {
        let http = app.http();
        async move { http.try_order("s", &format!("k{n}"), &buy(&format!("u{n}"), 1)).await.unwrap() }
    });
    let answers = futures_util::future::join_all(crowd).await;
    for reply in &answers {
        assert!(["redis_unavailable", "redis_refused", "queue_full"].contains(&reply.code()), "{}", reply.json);
        assert_eq!(reply.status, if reply.code() == "queue_full" { 429 } else { 503 });
        assert_eq!(reply.header("retry-after"), Some("1"));
        assert!(reply.took < Duration::from_secs(10), "{:?}", reply.took);
    }
    assert!(answers.iter().any(|reply| reply.code() == "queue_full"), "the waiting room has a bound");
    eventually("it says that it is not ready", SOON, async || app.get("/readyz").await.status == 503).await;
    assert_eq!(app.get("/healthz").await.status, 200, "the process is well");

    redis.process().signal("CONT");
    eventually("it is ready again", SOON, async || app.get("/readyz").await.status == 200).await;
    // Some of them were decided after their buyers had heard 503; each hears of one order.
    for n in 0..12 {
        let reply = app.order("s", &format!("k{n}"), &buy(&format!("u{n}"), 1)).await;
        assert_eq!(reply.status, 201, "{}", reply.json);
    }
    assert_eq!(app.order("s", "k99", &buy("u99", 1)).await.code(), "sold_out");
    // What was decided after its buyer heard 503 was admitted by nobody's memory: the lease brings it back.
    let report = app.wait_until_settled("s").await;
    assert_eq!(report["drift"], 0, "{report}");
    assert_eq!(shop.order_count(), 12);
}

/// Buyers cut the connection and press the button again. What was left behind is read later than what came after it, and
/// must not win a unit of which its buyer was told there is none.
#[tokio::test]
async fn an_order_whose_buyer_has_left_is_not_decided() {
    let stage = Stage::new().await;
    stage.sale("s", 10, json!({})).await;
    let address = stage.app.http().base().strip_prefix("http://").unwrap().to_owned();
    let order = post("/v1/sales/s/orders", "idempotency-key: k\r\n", &buy("u1", 1).to_string());
    stage.app.signal("STOP");
    let mut left = TcpStream::connect(&address).await.unwrap();
    left.write_all(&order).await.unwrap();
    drop(left);
    let mut stays = TcpStream::connect(&address).await.unwrap();
    stays.write_all(&order).await.unwrap();
    stage.app.signal("CONT");
    let mut answer = String::new();
    stays.read_to_string(&mut answer).await.unwrap();
    assert_eq!(status(&answer), 201, "{answer}");
    assert!(!answer.contains("idempotency-replayed"), "nothing was decided before it: {answer}");
    let settled = stage.app.wait_until_settled("s").await;
    assert_eq!(settled["items"][0]["sold"], 1, "{settled}");
}
