//! Several nodes on one Redis: nobody works on what another works on, whoever goes leaves nothing behind, and who
//! overslept changes nothing.

use super::book::{Book, Word};
use super::flow::{End, Flow, Mode};
use super::target::Target;
use crate::support::app::{App, AppOptions, eventually};
use crate::support::servers::{Redis, RedisVersion};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const LEASE: Duration = Duration::from_millis(600);
const END_WAIT_MAX: Duration = Duration::from_secs(40);

fn options(redis: &Redis) -> AppOptions {
    AppOptions::default()
        .quick_trans()
        .redis(&redis.url())
        .setting("trans.lease_ms", LEASE.as_millis())
        // A call that is given up and repeated is no second driver.
        .setting("trans.request_timeout_ms", 20_000)
}

/// Plays all at once, and holds each against the book.
async fn play(flows: Vec<(String, Flow)>, book: &Book, target: &Target) -> Vec<(String, usize)> {
    let clients = flows.into_iter().map(|(gid, flow)| {
        let (book, target) = (book.clone(), target.clone());
        tokio::spawn(async move {
            flow.play(&gid, &book, &target).await;
            let calls = flow.check(&gid, &book, &target, END_WAIT_MAX).await;
            (gid, calls)
        })
    });
    let mut ended = Vec::new();
    for client in clients.collect::<Vec<_>>() {
        ended.push(client.await.expect("the client tells what went wrong"));
    }
    ended
}

/// Every flow `times` times.
fn all_flows(times: usize) -> Vec<(String, Flow)> {
    let all = Flow::all();
    (0..times * all.len()).map(|i| (format!("{}.{i}", all[i % all.len()]), all[i % all.len()])).collect()
}

/// Branches that take longer than the lease, and too few places for what is claimed.
#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_never_work_on_the_same_transaction() {
    let redis = Redis::start(RedisVersion::V7, &["--appendonly", "no"]).await;
    let target = Target::default();
    let book = Book::open(target.clone(), 7, 3 * LEASE).await;
    let mut apps: Vec<App> = Vec::new();
    for running_max in [4, 6, 1_000] {
        let options = options(&redis).setting("trans.running_max", running_max);
        // They share the records, where what has ended is looked up.
        let options = apps.first().map_or(options.clone(), |first| options.clone().beside(first));
        apps.push(App::start(options).await);
    }
    target.set(&apps.iter().map(App::http).collect::<Vec<_>>());
    let ended = play(all_flows(3), &book, &target).await;
    assert_eq!(book.doubled(), [""; 0]);
    assert_eq!(book.wrong(), [""; 0]);
    for (gid, calls) in ended {
        assert_eq!(book.calls(&gid), calls, "{gid} was called after its end");
    }
}

fn saga(gid: &str, steps: &[String], undo: &str) -> Value {
    let steps: Vec<Value> = steps.iter().map(|action| json!({ "action": action, "compensate": undo })).collect();
    let payloads = vec!["{}"; steps.len()];
    json!({ "gid": gid, "trans_type": "saga", "steps": steps, "payloads": payloads })
}

/// A lease of a minute is given back with what is under way, in each mode, and with what waits for its next try.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_told_to_stop_leaves_its_work_to_the_others() {
    let redis = Redis::start(RedisVersion::V8, &["--appendonly", "no"]).await;
    let target = Target::default();
    let book = Book::open(target.clone(), 8, LEASE).await;
    let patient = |app: AppOptions| app.setting("trans.lease_ms", 60_000).setting("shutdown.grace_ms", 300);
    let mut first = App::start(patient(options(&redis))).await;
    target.set(&[first.http()]);
    let (slow, yes) = (book.url("/slow"), book.branch(Word::Yes, false));
    let mut gids = Vec::new();
    for i in 0..10 {
        let gid = format!("saga{i}");
        target.post("submit", &saga(&gid, &[yes.clone(), slow.clone(), yes.clone()], &yes)).await;
        gids.push(gid);
        let gid = format!("tcc{i}");
        let body = json!({ "gid": gid, "trans_type": "tcc", "timeout_to_fail": 600 });
        target.post("prepare", &body).await;
        let branch = json!({ "gid": gid, "trans_type": "tcc", "branch_id": "01", "confirm": slow, "cancel": slow });
        target.post("registerBranch", &branch).await;
        target.post("submit", &body).await;
        gids.push(gid);
    }
    eventually("all are called", END_WAIT_MAX, || async { book.held() == gids.len() }).await;
    let second = App::start(options(&redis).beside(&first)).await;
    let stopped = Instant::now();
    assert!(first.terminate().await.success(), "{}", first.log());
    target.set(&[second.http()]);
    eventually("the other node calls them", END_WAIT_MAX, || async { book.held() == gids.len() }).await;
    assert!(stopped.elapsed() < Duration::from_secs(50), "the lease ran out by itself: {:?}", stopped.elapsed());
    book.release();
    for gid in &gids {
        assert_eq!(target.end_of(gid, END_WAIT_MAX).await, "succeed", "{gid}");
        let branch = book.branch_of(gid, if gid.starts_with("saga") { "02" } else { "01" });
        assert_eq!(branch.effects.len(), 1, "{gid}: {branch:?}");
    }
}

/// It was stopped in the middle of step 1. Others refuse step 2 and undo it all. Awake, it hears that step 1 went well.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_overslept_its_lease_changes_nothing_and_calls_nobody() {
    let redis = Redis::start(RedisVersion::V7, &["--appendonly", "no"]).await;
    let target = Target::default();
    let book = Book::open(target.clone(), 9, LEASE).await;
    let first = App::start(options(&redis)).await;
    target.set(&[first.http()]);
    let (slow, yes, no) = (book.url("/slow"), book.branch(Word::Yes, false), book.branch(Word::No, false));
    let gids: Vec<String> = (0..20).map(|i| format!("slept{i}")).collect();
    for gid in &gids {
        target.post("submit", &saga(gid, &[slow.clone(), yes.clone(), no.clone()], &yes)).await;
    }
    eventually("all are called", END_WAIT_MAX, || async { book.held() == gids.len() }).await;
    first.signal("STOP");
    let second = App::start(options(&redis).beside(&first)).await;
    target.set(&[second.http()]);
    let again = || async { book.held() == 2 * gids.len() };
    eventually("the other node calls them", END_WAIT_MAX, again).await;
    book.release();
    let mut ended = Vec::new();
    for gid in &gids {
        assert_eq!(target.end_of(gid, END_WAIT_MAX).await, "failed", "{gid}");
        ended.push(book.calls(gid));
    }
    first.signal("CONT");
    eventually("it is awake", END_WAIT_MAX, || async { first.get("/readyz").await.status == 200 }).await;
    // Once it has been through something new, it has been through the old.
    let flow = Flow { mode: Mode::Saga, end: End::Yes, flaky: true };
    target.set(&[first.http()]);
    flow.play("new", &book, &target).await;
    flow.check("new", &book, &target, END_WAIT_MAX).await;
    for (gid, calls) in gids.iter().zip(ended) {
        assert_eq!(target.status(gid).await, "failed");
        assert_eq!(book.calls(gid), calls, "{gid} was called after its end: {:#?}", book.branches_of(gid));
    }
    assert_eq!(book.wrong(), [""; 0]);
}

/// What was acknowledged is on disk, whatever the moment.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_killed_forgets_no_transaction() {
    let mut redis = Redis::start(RedisVersion::V8, &[]).await;
    let target = Target::default();
    let book = Book::open(target.clone(), 10, Duration::from_millis(40)).await;
    let first = App::start(options(&redis).setting("redis.timeout_ms", 400)).await;
    let second = App::start(options(&redis).setting("redis.timeout_ms", 400).beside(&first)).await;
    target.set(&[first.http(), second.http()]);
    let clients = tokio::spawn({
        let (book, target) = (book.clone(), target.clone());
        async move { play(all_flows(3), &book, &target).await }
    });
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        redis.kill9();
        redis.restart().await;
    }
    let ended = clients.await.expect("every client comes to its end");
    assert!(ended.len() > 50);
    assert_eq!(book.wrong(), [""; 0]);
}
