//! T17: clients name the hosts that this server calls, so they must not be able to use it up by naming many.

use crate::dtm_http::wait_for;
use crate::support::app::{App, AppOptions};
use axum::Router;
use futures_util::StreamExt;
use serde_json::json;
use std::fs;

/// More than are remembered, and more than may be kept connected.
const HOSTS: u32 = 4_500;
/// What is kept connected, and what a server has open besides.
const FILES_MAX: usize = 2_048 + 200;
/// What a server may need more after twice as many hosts. If each left its connection behind, it would be 20 MB and more.
const GROWTH_BYTES_MAX: u64 = 12 << 20;

fn files(app: &App) -> usize {
    fs::read_dir(format!("/proc/{}/fd", app.pid())).unwrap().count()
}

fn resident_bytes(app: &App) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", app.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim_end_matches("kB").trim().parse::<u64>().unwrap() << 10
}

/// The loopback network has sixteen million hosts. One listener is all of them; whoever comes from elsewhere gets nothing.
async fn all_of_loopback() -> u16 {
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = Router::new().fallback(async |request: axum::extract::Request| {
        let from = request.extensions().get::<axum::extract::ConnectInfo<std::net::SocketAddr>>().unwrap();
        if from.0.ip().is_loopback() { "" } else { panic!("{} is not of this machine", from.0) }
    });
    let service = router.into_make_service_with_connect_info::<std::net::SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    port
}

/// One saga to each of these hosts.
async fn call(app: &App, port: u16, hosts: std::ops::Range<u32>) -> usize {
    let mut most = 0;
    let last = hosts.end - 1;
    let mut sent = futures_util::stream::iter(hosts)
        .map(async |host| {
            let [_, b, c, d] = (host + 2).to_be_bytes();
            let url = format!("http://127.{b}.{c}.{d}:{port}/a");
            let saga = json!({ "gid": format!("t{host}"), "trans_type": "saga", "steps": [{ "action": url }],
                "payloads": ["{}"], "wait_result": true });
            app.post("/api/dtmsvr/submit", &[], &saga).await
        })
        .buffer_unordered(64);
    let mut answers = 0;
    while let Some(reply) = sent.next().await {
        assert_eq!(reply.status, 200, "{}", reply.json);
        answers += 1;
        if answers % 100 == 0 {
            most = most.max(files(app));
        }
    }
    wait_for(app, &format!("t{last}"), "succeed").await;
    most
}

#[tokio::test(flavor = "multi_thread")]
async fn many_hosts_use_up_neither_connections_nor_memory() {
    let port = all_of_loopback().await;
    let app = App::start(AppOptions::default()).await;
    let files = call(&app, port, 0..HOSTS).await;
    assert!(files < FILES_MAX, "{files} files open");
    let once = resident_bytes(&app);
    let files = call(&app, port, HOSTS..2 * HOSTS).await;
    assert!(files < FILES_MAX, "{files} files open");
    let twice = resident_bytes(&app);
    assert!(twice < once + GROWTH_BYTES_MAX, "{once} bytes after {HOSTS} hosts, {twice} after twice as many");
}
