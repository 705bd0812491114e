//! Two servers work on one Redis, one dies or hands over: nothing is forgotten. (`trans_faults` is harder on them.)

use super::{must, saga, wait_for, waiting};
use crate::support::app::{App, AppOptions};
use crate::support::hazard::{Clock, is_missing};
use crate::support::services::Service;
use serde_json::json;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_share_the_work_and_double_none() {
    let service = Service::start().await;
    service.slow("/slow", Duration::from_millis(150));
    service.slow("/slower", Duration::from_millis(900)); // longer than the lease: it must be renewed
    service.answers("/later", &[(500, ""), (425, ""), (200, "")]);
    let first = App::start(AppOptions::default().quick_trans()).await;
    let second = App::start(AppOptions::default().quick_trans().beside(&first)).await;
    let apps = [&first, &second];
    let mut gids = Vec::new();
    for i in 0..40 {
        let gid = format!("n{i}");
        let names = [["slow", "slow"], ["slower", "slow"], ["later", "slow"]][i % 3];
        must(apps[i % 2], "submit", &saga(&service, &gid, &names)).await;
        gids.push(gid);
    }
    for gid in &gids {
        wait_for(&second, gid, "succeed").await;
    }
    assert!(service.doubled().is_empty(), "{:?}", service.doubled());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_work_of_a_dead_node_goes_on_with_another() {
    let service = Service::start().await;
    let mut first = App::start(AppOptions::default().quick_trans()).await;
    let second = App::start(AppOptions::default().quick_trans().beside(&first)).await;
    service.slow("/slow", Duration::from_millis(300));
    for i in 0..10 {
        must(&first, "submit", &saga(&service, &format!("k{i}"), &["slow", "slow"])).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    first.kill9();
    for i in 0..10 {
        wait_for(&second, &format!("k{i}"), "succeed").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_told_to_stop_hands_over() {
    let service = Service::start().await;
    let options = AppOptions::default().quick_trans().setting("shutdown.grace_ms", 300);
    let second = App::start(AppOptions::default().quick_trans()).await; // the Redis is its own, and stays
    let options = options.setting("trans.lease_ms", 60_000).setting("trans.request_timeout_ms", 5_000);
    let mut first = App::start(options.beside(&second)).await;
    service.slow("/slow", Duration::from_secs(2));
    must(&first, "submit", &saga(&service, "h1", &["a", "slow"])).await;
    service.wait_for_calls("h1", 2).await;
    service.answers("/slow", &[(200, "")]);
    assert!(first.terminate().await.success());
    wait_for(&second, "h1", "succeed").await; // the lease of a minute was given back
}

/// Backoff alone would have most of them wait for minutes.
#[tokio::test(flavor = "multi_thread")]
async fn when_a_service_returns_nobody_sits_out_a_backoff() {
    let service = Service::start().await;
    service.answers("/down", &[(503, "")]);
    let options = AppOptions::default().quick_trans().setting("trans.retry_max_ms", 60_000);
    let app = App::start(options.setting("trans.retry_interval_ms", 60_000)).await;
    for i in 0..100 {
        must(&app, "submit", &saga(&service, &format!("w{i}"), &["down"])).await;
    }
    service.wait_for_calls("w99", 1).await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    service.answers("/down", &[(200, "")]);
    must(&app, "submit", &waiting(saga(&service, "new", &["down"]))).await;
    for i in 0..100 {
        wait_for(&app, &format!("w{i}"), "succeed").await;
    }
    assert!(service.doubled().is_empty(), "{:?}", service.doubled());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_a_service_ends_well() {
    let service = Service::start().await;
    service.answers("/down", &[(503, "")]);
    let app = App::start(AppOptions::default().quick_trans()).await;
    for i in 0..200 {
        must(&app, "submit", &saga(&service, &format!("o{i}"), &["a", "down"])).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    service.answers("/down", &[(200, "")]);
    for i in 0..200 {
        wait_for(&app, &format!("o{i}"), "succeed").await;
    }
    must(&app, "submit", &waiting(saga(&service, "after", &["a", "down"]))).await;
    assert!(service.doubled().is_empty(), "{:?}", service.doubled());
}

/// Those that wait for a host which hangs give their places back before they were called: others need not wait for all
/// of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_hangs_leaves_room_for_others() {
    let (hanging, good) = (Service::start().await, Service::start().await);
    hanging.slow("/hang", Duration::from_secs(60));
    let options = AppOptions::default().quick_trans().setting("trans.request_timeout_ms", 400);
    let options = options.setting("trans.retry_interval_ms", 60_000).setting("trans.retry_max_ms", 60_000);
    let options = options.setting("trans.running_max", 20).setting("trans.calls_per_host_max", 1);
    let app = App::start(options).await;
    for i in 0..60 {
        must(&app, "submit", &saga(&hanging, &format!("x{i}"), &["hang"])).await;
    }
    must(&app, "submit", &saga(&good, "good", &["a"])).await;
    wait_for(&app, "good", "succeed").await;
    let called = hanging.all_calls().len();
    assert!(called < 30, "{called} of the 60 before it were called first");
}

/// F29: a timer is a time that one node writes and another one reads. Begun by a clock that is ahead it is not looked at an
/// hour late, and by that clock no lease of another node is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_clock_is_an_hour_ahead_holds_nothing_up_and_takes_nothing_away() {
    let clock = Clock::new();
    if is_missing("libfaketime", &clock) {
        return;
    }
    let clock = clock.unwrap();
    clock.set(3_600);
    let service = Service::start().await;
    service.slow("/slower", Duration::from_millis(900)); // longer than the lease: it must be renewed
    let right = App::start(AppOptions::default().quick_trans()).await;
    let mut ahead = App::start(AppOptions::default().quick_trans().beside(&right).by_clock(&clock)).await;
    for i in 0..10 {
        must(&right, "submit", &saga(&service, &format!("l{i}"), &["slower", "a"])).await;
        let (url, asked) = (service.url("/a"), service.url("/asked"));
        let message = json!({ "gid": format!("c{i}"), "trans_type": "msg", "steps": [{ "action": url }],
            "payloads": ["{}"], "query_prepared": asked, "protocol": "http" });
        must(&ahead, "prepare", &message).await;
    }
    for i in 0..10 {
        wait_for(&right, &format!("l{i}"), "succeed").await;
    }
    ahead.kill9();
    for i in 0..10 {
        wait_for(&right, &format!("c{i}"), "succeed").await;
    }
    assert!(service.doubled().is_empty(), "{:?}", service.doubled());
}
