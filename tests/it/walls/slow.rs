//! Connections that take their time: each is let go of within its time, and whoever is quick does not notice them.
//!
//! `RUSHLINE_TEST_LONG=1` holds 5,000 of them open over settings as they are by default, and prints how long good clients
//! waited with them and without.

use super::SOON;
use crate::support::app::{App, AppOptions, eventually};
use crate::support::hazard::is_long_run;
use crate::support::shop::Shop;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const PREFACE: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How a connection begins, and what is then sent of it byte by byte.
struct Kind {
    name: &'static str,
    grpc_port: bool,
    begins: String,
    drips: String,
}

fn kinds() -> Vec<Kind> {
    let kind = |name, grpc_port, begins: &str, drips: &str| Kind {
        name,
        grpc_port,
        begins: begins.into(),
        drips: drips.into(),
    };
    let posted = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9999\r\n\r\n"
        )
    };
    let long = format!("x-slow: {}", "x".repeat(4_000));
    vec![
        kind("says nothing", false, "", ""),
        kind("says nothing to gRPC", true, "", ""),
        kind("half a preface", false, &PREFACE[..10], ""),
        kind("half a preface, to gRPC", true, &PREFACE[..10], ""),
        kind("a preface, and no more", true, PREFACE, ""),
        kind("half an order's head", false, "POST /v1/sales/s/orders HTTP/1.1\r\nhost: localhost\r\n", ""),
        kind("an order's head in drops", false, "POST /v1/sales/s/orders HTTP/1.1\r\nhost: localhost\r\n", &long),
        kind("a head in drops", false, "GET /v1/sales HTTP/1.1\r\nhost: localhost\r\n", &long),
        kind("an order in drops", false, &posted("/v1/sales/s/orders"), &long),
        kind("a sale in drops", false, &posted("/v1/sales"), &long),
        kind("a transaction in drops", false, &posted("/api/dtmsvr/submit"), &long),
        kind("a change without its body", false, &posted("/v1/sales/s/stock"), ""),
    ]
}

/// One slow connection, to its end: true if the server ended it.
async fn crawl(address: String, begins: String, drips: String, every: Duration) -> bool {
    let Ok(mut stream) = TcpStream::connect(&address).await else { return false };
    if stream.write_all(begins.as_bytes()).await.is_err() {
        return true;
    }
    let (mut reading, mut writing) = stream.split();
    let read = async {
        let mut bytes = [0; 1024];
        while matches!(reading.read(&mut bytes).await, Ok(1..)) {}
    };
    let drip = async {
        for byte in drips.bytes() {
            tokio::time::sleep(every).await;
            if writing.write_all(&[byte]).await.is_err() {
                return;
            }
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = read => {}
        () = drip => {}
    }
    true
}

async fn start(change: impl FnOnce(AppOptions) -> AppOptions) -> (App, Shop) {
    let app = App::start(change(AppOptions::default().quick())).await;
    let shop = Shop::start().await;
    app.create_sale(&json!({
        "sale": "s", "items": [{"sku": "sku-1", "units": 1_000_000}], "durability": "memory", "order_endpoint": shop.endpoint(),
    }))
    .await;
    (app, shop)
}

/// How long so many orders, one after the other, waited for their answers, shortest first.
async fn buy(app: &App, count: usize) -> Vec<Duration> {
    let mut took = Vec::new();
    for n in 0..count {
        let order = json!({"buyer": format!("u{n}"), "items": [{"sku": "sku-1", "quantity": 1}]});
        let reply = app.order("s", "", &order).await;
        assert_eq!(reply.status, 201, "{}", reply.json);
        took.push(reply.took);
    }
    took.sort();
    took
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_slow_is_let_go_and_in_nobodys_way() {
    let (app, _shop) =
        start(|options| options.setting("http.header_timeout_ms", 700).setting("http.idle_timeout_ms", 700)).await;
    let mut ended = JoinSet::new();
    for kind in kinds() {
        let address = if kind.grpc_port { app.grpc() } else { app.base().replace("http://", "") };
        for _ in 0..25 {
            let crawling = crawl(address.clone(), kind.begins.clone(), kind.drips.clone(), Duration::from_millis(20));
            ended.spawn(async move { (kind.name, tokio::time::timeout(SOON, crawling).await) });
        }
    }
    buy(&app, 50).await;
    while let Some(one) = ended.join_next().await {
        let (name, ended) = one.unwrap();
        assert_eq!(ended, Ok(true), "{name}: it is still open");
    }
    buy(&app, 1).await;
    // A connection between two orders is kept for as long as is set, and its next order is taken meanwhile.
    let patient = start(|options| options.setting("http.header_timeout_ms", 300)).await.0;
    let mut stream = TcpStream::connect(patient.base().replace("http://", "")).await.unwrap();
    let body = json!({"buyer": "u", "items": [{"sku": "sku-1", "quantity": 1}]}).to_string();
    for pause in [0, 1_000] {
        tokio::time::sleep(Duration::from_millis(pause)).await; // longer than the time for a head, which is the point
        let order = format!(
            "POST /v1/sales/s/orders HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(order.as_bytes()).await.unwrap();
        let mut answer = [0; 1024];
        let length = stream.read(&mut answer).await.unwrap();
        assert!(answer[..length].starts_with(b"HTTP/1.1 201"), "{}", String::from_utf8_lossy(&answer[..length]));
    }
}

/// One address has no more connections than it may; others are served.
#[tokio::test(flavor = "multi_thread")]
async fn one_address_does_not_take_all_places() {
    let (app, _shop) = start(|options| options.setting("http.connections_per_ip_max", 5)).await;
    let address = app.base().replace("http://", "");
    // The test's own client keeps one or two of the five.
    let mut open = Vec::new();
    for _ in 0..5 {
        open.push(TcpStream::connect(&address).await.unwrap());
    }
    let first_closed = futures_util::future::select_all(open.iter_mut().map(|stream| {
        Box::pin(async move {
            let mut byte = [0];
            stream.read(&mut byte).await
        })
    }));
    let (closed, ..) = tokio::time::timeout(SOON, first_closed).await.expect("one too many is closed");
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    // From another address of this machine there is room.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = socket.connect(address.parse().unwrap()).await.unwrap();
    other.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    other.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_slow_connections_are_held_open() {
    if !is_long_run() {
        return println!("LEFT OUT, since it takes a minute: RUSHLINE_TEST_LONG=1 asks for it");
    }
    let (app, _shop) = start(|options| options).await;
    let before = buy(&app, 3_000).await;
    let open = Arc::new(AtomicUsize::new(0));
    let mut crawlers = JoinSet::new();
    let kinds = kinds();
    for n in 0..5_000 {
        let kind = &kinds[n % kinds.len()];
        let address = if kind.grpc_port { app.grpc() } else { app.base().replace("http://", "") };
        let (begins, drips, open) = (kind.begins.clone(), kind.drips.clone(), open.clone());
        crawlers.spawn(async move {
            open.fetch_add(1, Ordering::SeqCst);
            loop {
                crawl(address.clone(), begins.clone(), drips.clone(), Duration::from_secs(1)).await;
            }
        });
    }
    eventually("all are there", SOON, async || open.load(Ordering::SeqCst) == 5_000).await;
    let begun = Instant::now();
    let during = buy(&app, 3_000).await;
    let at = |took: &[Duration], share: usize| took[took.len() * share / 1000];
    for (name, took) in [("without", &before), ("with", &during)] {
        println!(
            "{name} 5,000 slow connections: p50 {:?} p99 {:?} p99.9 {:?}",
            at(took, 500),
            at(took, 990),
            at(took, 999)
        );
    }
    println!("measured for {:?}", begun.elapsed());
}
