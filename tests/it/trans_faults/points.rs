//! kill -9 between any two steps, in every mode, whichever way it ends.

use super::book::Book;
use super::flow::{End, Flow, LATE_AFTER_S, Mode};
use super::target::Target;
use crate::support::app::{App, AppOptions, Http, eventually};
use crate::support::process::free_port;
use crate::support::servers::{Redis, RedisVersion};
use futures_util::StreamExt;
use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SIGABRT: i32 = 6;
/// Cases at a time: each has a server that starts twice, and waits most of the time: for starts, leases and retries.
const AT_A_TIME: usize = 6;
const END_WAIT_MAX: Duration = Duration::from_secs(40);

/// The points on the way of a flow, each with how often it is passed at least.
fn points(flow: Flow) -> Vec<(&'static str, u32)> {
    let Flow { mode, end, flaky } = flow;
    let mut points = vec![("create", 1)];
    let registers = matches!(mode, Mode::Tcc | Mode::Xa | Mode::Workflow);
    if registers {
        points.push(("append", 1));
        points.push(("append", if matches!(end, End::No(_)) { 2 } else { 3 }));
    }
    let away = matches!(end, End::Away | End::AwayNo);
    let by_saga = matches!(mode, Mode::Saga | Mode::Concurrent);
    if !by_saga && (!away || mode == Mode::Workflow) {
        points.push(("replace", 1));
    }
    if away {
        points.push(("claim", 1));
    }
    let called = match (mode, end) {
        (Mode::Msg, End::No(_)) | (Mode::Workflow, End::Yes | End::No(_)) => 0,
        (Mode::Msg, End::AwayNo) | (Mode::Workflow, _) => 1,
        (Mode::Tcc | Mode::Xa, End::No(step)) => step as u32 + 1,
        (_, End::Late) => 2,
        (Mode::Saga, End::No(step)) => 2 * (step as u32 + 1),
        _ => 3,
    };
    if called > 0 {
        points.push(("call", 1));
        if called > 1 {
            points.push(("call", called));
        }
        if (flaky || end == End::Late) && mode != Mode::Workflow && end != End::AwayNo {
            points.push(("note", 1));
        }
        let saves = match (mode, end) {
            (Mode::Workflow, _) => 0,
            (Mode::Saga | Mode::Concurrent, End::No(_) | End::Late) => 2,
            (Mode::Tcc | Mode::Xa | Mode::Msg, End::Away) => 2,
            _ => 1,
        };
        points.extend((1..=saves).map(|pass| ("save", pass)));
    }
    points.dedup();
    points
}

/// Every flow, and every moment on its way: before and after each step. Where branches are flaky, only the steps that
/// have to do with them.
fn cases() -> Vec<(Flow, String)> {
    let mut cases = Vec::new();
    // A refusal in the middle has a step before it and one after it; the others are for the random kills.
    let all = Flow::all().into_iter().filter(|flow| flow.mode == Mode::Msg || !matches!(flow.end, End::No(0 | 2)));

    for flow in all {
        for (step, pass) in points(flow) {
            if flow.flaky && ["create", "append", "replace", "claim"].contains(&step) {
                continue;
            }
            let sides = if step == "claim" { &["after"][..] } else { &["before", "after"] };
            cases.extend(sides.iter().map(|side| (flow, format!("trans.{side}_{step}:{pass}"))));
        }
    }
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_any_two_steps_leaves_nothing_half_done() {
    let cases = cases();
    let crashed_at: BTreeSet<&str> = cases.iter().filter_map(|(_, point)| Some(point.split_once(':')?.0)).collect();
    let missing: Vec<_> = rushline::crash::TRANS_POINTS.iter().filter(|point| !crashed_at.contains(*point)).collect();
    assert_eq!(missing, [&"trans.after_reset"], "no flow passes these; the last one has a story of its own");
    let total = cases.len();
    let queue = Arc::new(Mutex::new(cases.into_iter().enumerate()));
    let workers = (0..AT_A_TIME).map(|_| {
        let queue = queue.clone();
        tokio::spawn(async move {
            let mut place = Place::open().await;
            loop {
                let Some((number, (flow, point))) = queue.lock().unwrap().next() else { break };
                place.crash_and_go_on(number, flow, &point).await;
            }
            place.close().await
        })
    });
    let done: Vec<usize> = futures_util::stream::iter(workers)
        .buffer_unordered(AT_A_TIME)
        .map(|done| done.expect("the worker tells what went wrong"))
        .collect()
        .await;
    assert_eq!(done.iter().sum::<usize>(), total);
}

/// A Redis, a server that is started again and again, and the books.
struct Place {
    redis: Redis,
    app: App,
    target: Target,
    book: Book,
    /// gid and the calls until its end.
    ended: Vec<(String, usize)>,
}

fn options(redis: &Redis, port: u16) -> AppOptions {
    AppOptions::default()
        .quick_trans()
        .redis(&redis.url())
        .on_port(port)
        .setting("redis.rewrite_after_load", "never") // the file is whole: Redis lives
        .setting("trans.lease_ms", 300)
        .setting("trans.retry_interval_ms", 60)
}

impl Place {
    async fn open() -> Self {
        let redis = Redis::start(RedisVersion::V7, &["--appendonly", "no"]).await;
        let target = Target::default();
        let book = Book::open(target.clone(), 1, Duration::from_millis(40)).await;
        let port = free_port();
        let app = App::start(options(&redis, port)).await;
        target.set(&[Http::new(format!("http://127.0.0.1:{port}"))]);
        Self { redis, app, target, book, ended: Vec::new() }
    }

    async fn crash_and_go_on(&mut self, number: usize, flow: Flow, point: &str) {
        let gid = format!("{flow}.{number}");
        self.app.restart(|options| options.crash_at(point)).await;
        let client = {
            let (gid, book, target) = (gid.clone(), self.book.clone(), self.target.clone());
            tokio::spawn(async move { flow.play(&gid, &book, &target).await })
        };
        let status =
            tokio::time::timeout(Duration::from_secs(20), self.app.wait_for_end(Duration::from_secs(60))).await;
        let status =
            status.unwrap_or_else(|_| panic!("{flow} never came to {point}: {:#?}", self.book.branches_of(&gid)));
        assert_eq!(status.signal(), Some(SIGABRT), "{flow} at {point}: {status}");
        if flow.end == End::Late {
            // Its time runs out while nobody is there: it must be undone without a look at how far it was.
            tokio::time::sleep(Duration::from_secs(LATE_AFTER_S)).await;
        }
        self.app.restart(AppOptions::without_crash).await;
        client.await.unwrap_or_else(|error| panic!("{flow} at {point}: {error}"));
        let calls = flow.check(&gid, &self.book, &self.target, END_WAIT_MAX).await;
        self.ended.push((gid, calls));
    }

    /// Nothing of what is over was called afterwards, and nothing is left over.
    async fn close(self) -> usize {
        for (gid, calls) in &self.ended {
            assert_eq!(self.book.calls(gid), *calls, "{gid} was called after its end");
        }
        assert_eq!(self.book.wrong(), [""; 0]);
        let mut connection =
            redis::Client::open(self.redis.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
        let due: Vec<String> = redis::cmd("KEYS").arg("*:due").query_async(&mut connection).await.unwrap();
        assert_eq!(due, [""; 0], "somebody is still to look at these");
        self.ended.len()
    }
}

/// An operator hurries what waits, and the node dies over it: what was hurried is.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_while_timers_are_reset_loses_no_timer() {
    let mut place = Place::open().await;
    let flow = Flow { mode: Mode::Saga, end: End::Yes, flaky: true };
    let patient = |options: AppOptions| {
        options.setting("trans.retry_interval_ms", 300_000).setting("trans.retry_max_ms", 300_000)
    };
    place.app.restart(|options| patient(options).crash_at("trans.after_reset")).await;
    let waits = async |place: &Place| {
        let answer = place.app.get("/api/dtmsvr/query?gid=reset").await.json;
        answer["transaction"]["next_cron_interval"].as_u64().is_some_and(|seconds| seconds >= 300)
            && place.book.calls("reset") > 0
    };
    flow.play("reset", &place.book, &place.target).await;
    eventually("its first call fails and it waits", END_WAIT_MAX, || async { waits(&place).await }).await;
    // The wait is written a moment after the call: until then there is nothing to hurry, and nobody dies.
    let http = place.app.http();
    let died = || async {
        http.ask(http::Method::GET, "/api/dtmsvr/resetCronTime?timeout=100&limit=10", &[], None).await.is_err()
    };
    eventually("it dies", END_WAIT_MAX, died).await;
    let status = place.app.wait_for_end(END_WAIT_MAX).await;
    assert_eq!(status.signal(), Some(SIGABRT), "{status}");
    place
        .app
        .restart(|options| {
            options.without_crash().setting("trans.retry_interval_ms", 60).setting("trans.retry_max_ms", 60)
        })
        .await;
    // In minutes it would be called by itself.
    let called = || async { place.book.calls("reset") > 1 };
    eventually("it is tried again", END_WAIT_MAX, called).await;
}
