//! The drain with something wrong: the server dies in it, the records are away, two nodes drain one Redis.

use super::super::{ask, must, query, saga, start, status, wait_for, waiting};
use super::{SOON, keys, wait_until_drained};
use crate::records::Server;
use crate::support::app::{App, AppOptions, eventually};
use crate::support::services::Service;
use serde_json::{Value, json};
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

const SIGABRT: i32 = 6;

async fn listed(app: &App) -> Vec<String> {
    let reply = app.get("/api/dtmsvr/all?limit=1000").await;
    assert_eq!(reply.status, 200, "{}", reply.json);
    let mut gids: Vec<String> = reply.json["transactions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one: &Value| one["gid"].as_str().unwrap().to_owned())
        .collect();
    gids.sort();
    gids
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_in_the_drain_loses_and_doubles_nothing() {
    let (mut app, service) = start().await;
    let mut expected = Vec::new();
    for point in rushline::crash::TRANS_DRAIN_POINTS {
        app.restart(|options| options.crash_at(&format!("{point}:2"))).await;
        let http = app.http();
        for i in 0.. {
            let gid = format!("{}-{i:03}", point.replace('.', "-"));
            let body = waiting(saga(&service, &gid, &["a"]));
            // Nothing is heard from a server that dies; what it had begun is finished by the next.
            expected.push(gid);
            if http.ask(http::Method::POST, "/api/dtmsvr/submit", &[], Some(&body)).await.is_err() {
                expected.pop();
                break;
            }
        }
        let ended = app.wait_for_end(Duration::from_secs(20)).await;
        assert_eq!(ended.signal(), Some(SIGABRT), "{point}: {ended}");
        app.restart(AppOptions::without_crash).await;
        wait_until_drained(&app).await;
        // The one whose answer was lost may have begun.
        let found: Vec<String> = listed(&app).await;
        for gid in &found {
            wait_for(&app, gid, "succeed").await;
        }
        expected.sort();
        let missing: Vec<_> = expected.iter().filter(|gid| !found.contains(gid)).collect();
        assert!(missing.is_empty(), "{point}: {missing:?}");
        let mut once = found.clone();
        once.dedup();
        assert_eq!(once, found, "{point}: each once");
        assert!(found.len() <= expected.len() + 3, "{point}: {found:?} {expected:?}");
    }
}

/// Told on each database server.
pub async fn the_records_are_away_for_a_while(server: &mut Server) {
    let service = Service::start().await;
    let app = App::start(AppOptions::default().quick_trans().records(&server.url())).await;
    must(&app, "submit", &waiting(saga(&service, "early", &["a"]))).await;
    wait_until_drained(&app).await;
    server.kill9();
    for i in 0..20 {
        must(&app, "submit", &waiting(saga(&service, &format!("away-{i}"), &["a"]))).await;
    }
    assert_eq!(status(&app, "away-7").await, "succeed", "Redis still has it");
    must(&app, "submit", &saga(&service, "early", &["a"])).await; // remembered: nobody needs the records for that
    let reply = app.get("/api/dtmsvr/query?gid=early").await;
    let message = reply.json["message"].as_str().unwrap_or_default();
    assert_eq!(reply.status, 500, "{}", reply.json);
    assert!(
        message.starts_with("early is over (succeed) and has left Redis, and the records cannot be asked"),
        "{message}"
    );
    assert_eq!(keys(&app, "rl:{T/*}:g:away-*").await.len(), 20, "they wait");
    server.restart().await;
    wait_until_drained(&app).await;
    for i in 0..20 {
        assert_eq!(status(&app, &format!("away-{i}")).await, "succeed");
    }
    assert_eq!(query(&app, "early").await["transaction"]["status"], "succeed");
}

/// The leases keep two nodes apart: together they drain each once. One that dies leaves its part to the other.
#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_drain_each_once() {
    let service = Service::start().await;
    let first = App::start(AppOptions::default().quick_trans().setting("trans.lease_ms", 10_000)).await;
    let options = AppOptions::default().quick_trans().setting("trans.lease_ms", 10_000);
    let mut second = App::start(options.beside(&first)).await;
    let drained = async |app: &App| -> u64 { app.metric("rushline_transactions_drained_total").await as u64 };
    for i in 0..200 {
        let app = if i % 2 == 0 { &first } else { &second };
        must(app, "submit", &waiting(saga(&service, &format!("two-{i:03}"), &["a"]))).await;
    }
    wait_until_drained(&first).await;
    eventually("each is counted", SOON, || async { drained(&first).await + drained(&second).await >= 200 }).await;
    assert_eq!(drained(&first).await + drained(&second).await, 200);
    assert_eq!(listed(&second).await.len(), 200);

    // It stops in the middle of a write, as it were: its leases run out.
    second.restart(|options| options.setting("trans.lease_ms", 600).crash_at("trans_drain.before_write")).await;
    let http = second.http();
    let mut submitted = 0;
    while submitted < 400 {
        let body = waiting(saga(&service, &format!("left-{submitted:03}"), &["a"]));
        if http.ask(http::Method::POST, "/api/dtmsvr/submit", &[], Some(&body)).await.is_err() {
            break;
        }
        submitted += 1;
    }
    let ended = second.wait_for_end(Duration::from_secs(20)).await;
    assert_eq!(ended.signal(), Some(SIGABRT), "{ended}");
    wait_until_drained(&first).await;
    for i in 0..submitted {
        wait_for(&first, &format!("left-{i:03}"), "succeed").await;
    }
}

/// A rule of the house holds up the one that it is about, and nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_transaction_stays_and_holds_up_no_other() {
    use sqlx::Connection;
    let (app, service) = start().await;
    let url = format!("sqlite:{}", app.data_dir().join("orders.db").display());
    let mut database = sqlx::SqliteConnection::connect(&url).await.unwrap();
    let rule = "CREATE TRIGGER house_rule BEFORE INSERT ON rushline_transactions_stored WHEN new.gid = 'odd' \
        BEGIN SELECT RAISE(ABORT, 'house rule'); END";
    sqlx::query(rule).execute(&mut database).await.unwrap();
    for i in 0..10 {
        must(&app, "submit", &saga(&service, &format!("even-{i}"), &["a"])).await;
    }
    must(&app, "submit", &waiting(saga(&service, "odd", &["a"]))).await;
    for i in 10..20 {
        must(&app, "submit", &waiting(saga(&service, &format!("even-{i}"), &["a"]))).await;
    }
    eventually("the others are drained", SOON, || async {
        let mut left = Vec::new();
        for index in keys(&app, "rl:{T/*}:i:succeed:*").await {
            let some: Vec<String> =
                crate::support::crowd::ask_redis_at(&app.redis_url(), &["ZRANGE", &index, "0", "-1"]).await;
            left.extend(some);
        }
        left == ["odd"]
    })
    .await;
    eventually("it is told", SOON, || async { app.log().contains("house rule") }).await;
    assert_eq!(app.metric("rushline_transactions_backlog").await, 1.0);
    assert_eq!(status(&app, "odd").await, "succeed", "Redis answers for it");
    let reply = ask(&app, "forceStop", &json!({ "gid": "odd" })).await;
    assert_eq!(reply.status, 409, "{}", reply.json);
    sqlx::query("DROP TRIGGER house_rule").execute(&mut database).await.unwrap();
}
