//! The dashboard's login: a cookie that only this server's own pages can use; and the pages themselves in a real Chromium.

use super::{Tokens, ask};
use crate::dashboard::{browser, run};
use crate::support::app::App;
use crate::support::shop::Shop;
use rushline::access::Role;
use serde_json::{Value, json};
use std::path::Path;

/// Logs in, and gives back what the browser would send.
async fn log_in(app: &App, token: &str) -> String {
    let answer = ask(app, "POST", "/v1/login", &[], Some(&json!({ "token": token }))).await;
    assert_eq!(answer.status, 200, "{}", answer.json);
    let cookie = answer.header("set-cookie").unwrap();
    for part in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"] {
        assert!(cookie.split("; ").any(|given| given == part), "{part}: {cookie}");
    }
    cookie.split(';').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_works_for_pages_of_this_server_only() {
    let tokens = Tokens::new();
    let (app, shop) = (App::start(tokens.options()).await, Shop::start().await);
    let cookie = log_in(&app, tokens.of(Role::Operator)).await;
    let host = app.base().trim_start_matches("http://").to_owned();
    let origin = app.base();
    let with = |more: &[(&'static str, &'static str)]| {
        let mut headers = vec![("cookie".to_owned(), cookie.clone())];
        headers.extend(more.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        headers
    };
    let send = async |method: &str, path: &str, headers: Vec<(String, String)>, body: Option<&Value>| {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        ask(&app, method, path, &headers, body).await
    };
    let sale = json!({"sale": "s", "items": [{"sku": "a", "units": 5}], "durability": "memory",
        "order_endpoint": {"url": shop.url()}});
    let mut own = with(&[]);
    own.push(("origin".into(), origin.clone()));
    own.push(("host".into(), host.clone()));
    assert_eq!(send("POST", "/v1/sales", own.clone(), Some(&sale)).await.status, 201);
    assert_eq!(send("GET", "/v1/sales", with(&[]), None).await.status, 200, "reading is harmless");
    let pause = json!({"status": "paused"});
    for foreign in [
        with(&[]),
        with(&[("origin", "http://evil.example")]),
        with(&[("origin", "null")]),
        with(&[("sec-fetch-site", "same-site")]),
        with(&[("sec-fetch-site", "cross-site")]),
        with(&[("sec-fetch-site", "none")]),
    ] {
        let answer = send("PATCH", "/v1/sales/s", foreign.clone(), Some(&pause)).await;
        assert_eq!((answer.status, answer.code()), (403, "cross_site"), "{foreign:?}");
        let buy = json!({"buyer": "u1", "items": [{"sku": "a", "quantity": 1}]});
        let answer = send("POST", "/v1/sales/s/orders", foreign.clone(), Some(&buy)).await;
        assert_eq!((answer.status, answer.code()), (403, "cross_site"), "an order, {foreign:?}");
        let topic = send("GET", "/api/dtmsvr/subscribe?topic=t&url=http://127.0.0.1:1/", foreign.clone(), None).await;
        assert_eq!(topic.status, 403, "dtm changes by GET, {foreign:?}");
    }
    assert_eq!(send("GET", "/v1/sales/s", with(&[]), None).await.json["status"], "open");
    own.push(("sec-fetch-site".into(), "same-origin".into()));
    assert_eq!(send("PATCH", "/v1/sales/s", own.clone(), Some(&pause)).await.status, 200);
    // A header goes over the cookie: a program that brings a token is no page.
    let reader = tokens.bearer(Role::Reader);
    own.push(("authorization".into(), reader));
    assert_eq!(send("PATCH", "/v1/sales/s", own, Some(&pause)).await.code(), "role_missing");

    let evil = [("origin", "http://evil.example")];
    let login = ask(&app, "POST", "/v1/login", &evil, Some(&json!({"token": tokens.of(Role::Reader)}))).await;
    assert_eq!((login.status, login.header("set-cookie")), (403, None), "nobody is logged in by another site");
    let wrong = ask(&app, "POST", "/v1/login", &[], Some(&json!({"token": "rl_wrong"}))).await;
    assert_eq!((wrong.status, wrong.code(), wrong.header("set-cookie")), (401, "token_unknown", None));
    let out = ask(&app, "POST", "/v1/logout", &[], None).await;
    assert_eq!(out.status, 204);
    assert!(out.header("set-cookie").unwrap().starts_with("rushline_token=; Path=/; Max-Age=0;"));
    let page = app.get("/").await;
    assert_eq!((page.status, page.header("x-frame-options")), (200, Some("DENY")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_asks_who_comes_and_shows_hostile_words_as_words() {
    let Some((place, program)) = browser() else { return };
    let tokens = Tokens::new();
    let app = App::start(tokens.options()).await;
    let mut stories = tokio::process::Command::new("node");
    stories
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/login.mjs"))
        .args([app.base().as_ref(), program.as_ref(), place.as_os_str()])
        .env("OPERATOR", tokens.of(Role::Operator))
        .env("READER", tokens.of(Role::Reader));
    run(stories).await;
}
