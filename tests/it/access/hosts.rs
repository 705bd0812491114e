//! A server without tokens is asked for by address, as localhost, or by a name that was named: a page whose name was made to
//! mean 127.0.0.1 is not of this server.

use super::{Tokens, ask};
use crate::dashboard::browser;
use crate::support::app::{App, AppOptions};
use rushline::proto::dtmgimp::dtm_client::DtmClient;
use serde_json::{Value, json};
use tonic::transport::Endpoint;

const OTHER: &str = "evil.example";

fn order() -> Value {
    json!({"buyer": "b", "items": [{"sku": "a", "quantity": 1}]})
}

/// One way of each that a page could ask by, and what asking does when it may.
async fn statuses(app: &App, host: &str) -> Vec<(u16, Value)> {
    let mut heard = Vec::new();
    for (method, path, body) in [
        ("GET", "/v1/sales", None),
        ("GET", "/", None),
        ("POST", "/v1/sales/never/orders", Some(order())),
        ("GET", "/api/dtmsvr/newGid", None),
        ("GET", "/nothing/here", None),
    ] {
        let reply = ask(app, method, path, &[("host", host)], body.as_ref()).await;
        heard.push((reply.status, reply.json));
    }
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_nobody_named_is_refused() {
    let app = App::start(AppOptions::default().setting("security.hosts", "shop.internal")).await;
    for (status, said) in statuses(&app, OTHER).await {
        let words = said["detail"].as_str().or(said["message"].as_str()).unwrap_or_default();
        assert_eq!((status, words.contains("security.hosts")), (421, true), "{said}");
    }
    for host in ["127.0.0.1", "LOCALHOST:1", "[::1]:7", "shop.internal:8080"] {
        let statuses: Vec<u16> = statuses(&app, host).await.into_iter().map(|(status, _)| status).collect();
        assert_eq!(statuses, [200, 200, 404, 200, 404], "{host}");
    }
    // Whom a page cannot be: gRPC asks by whatever name its resolver gave it.
    let endpoint = Endpoint::from_shared(app.base().to_owned()).unwrap();
    let channel = endpoint.origin(format!("http://{OTHER}").parse().unwrap()).connect().await.unwrap();
    assert_eq!(DtmClient::new(channel).new_gid(()).await.unwrap().into_inner().gid.len(), 22);
    assert!(app.metric(r#"rushline_denied_total{reason="other_host"}"#).await >= 5.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tokens_the_token_is_what_counts() {
    let app = App::start(Tokens::new().options()).await;
    let statuses: Vec<u16> = statuses(&app, OTHER).await.into_iter().map(|(status, _)| status).collect();
    assert_eq!(statuses, [401, 200, 401, 401, 401]);
}

/// What a real browser makes of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_led_here_by_its_name_gets_nothing() {
    let Some((_, program)) = browser() else { return };
    let app = App::start(AppOptions::default()).await;
    let port = app.base().rsplit(':').next().unwrap().to_owned();
    let profile = tempfile::tempdir().unwrap();
    let see = async |host: &str| {
        let mut chromium = tokio::process::Command::new(&program);
        chromium.args(["--headless", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--dump-dom"]);
        chromium.arg(format!("--user-data-dir={}", profile.path().display()));
        chromium.arg(format!("--host-resolver-rules=MAP {OTHER} 127.0.0.1"));
        chromium.arg(format!("http://{host}:{port}/v1/sales")).kill_on_drop(true);
        let output = tokio::time::timeout(super::SOON, chromium.output()).await.expect("it ends").unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let page = see(OTHER).await;
    assert!(page.contains("other_host") && !page.contains("\"sales\""), "{page}");
    let page = see("localhost").await;
    assert!(page.contains("\"sales\""), "{page}");
}
