//! The engine against a shop of a few lines that notes what it is asked.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use http_body_util::BodyExt;
use tokio::net::TcpListener;

use super::*;
use crate::floor::{json_bytes, serve};
use crate::ledger::{Kind, Ledger, Outcome, Plan, key_of, key_text};
use crate::scenario::Scenario;
use crate::target::Rushline;

/// Requests by key, with their bodies.
type Seen = Mutex<BTreeMap<String, Vec<String>>>;

/// Answers request `n` (from 1) with a key by `answer(n)`: status and body.
async fn shop(answer: fn(usize) -> (u16, &'static str)) -> (std::net::SocketAddr, &'static Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen: &'static Seen = Box::leak(Box::default());
    tokio::spawn(serve(listener, move |request| async move {
        let path = request.uri().path().to_owned();
        let key = request.headers().get("idempotency-key").map_or(path, |key| key.to_str().unwrap().to_owned());
        let body = String::from_utf8(request.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
        let n = {
            let mut seen = seen.lock().unwrap();
            let bodies = seen.entry(key).or_default();
            bodies.push(body);
            bodies.len()
        };
        let (status, body) = answer(n);
        json_bytes(status, body.into())
    }));
    (address, seen)
}

async fn play(address: std::net::SocketAddr, scenario: &str, threads: usize) -> (Ledger, Effort) {
    let scenario = Scenario::parse("t", scenario, Path::new(".")).unwrap();
    let (phases, closed) = crowd::phases(&scenario).unwrap();
    let make = {
        let phases = phases.clone();
        move || Crowd::new(scenario.seed, scenario.buyers.clone(), 3, &phases, closed)
    };
    let baskets = make().1;
    let plan = Plan { baskets: baskets.clone(), ..Plan::default() };
    let supply = move |_| Ok((make().0, Target::Rushline(Rushline::new(address, "s", &baskets, vec![0; 9]))));
    let (began, recorder) = (Instant::now() + Duration::from_millis(50), Recorder::new(100_000));
    let drive = Drive { threads, connections: 8, streams: 0, began, until: began + Duration::from_secs(20) };
    let stop = Arc::new(AtomicBool::new(false));
    let effort = run(drive, phases, Arc::new(supply), &recorder, stop).await.unwrap();
    (recorder.finish(plan).unwrap(), effort)
}

fn scenario(arrivals: &str, buyers: &str) -> String {
    format!("[sale]\nunits = 9\nskus = 3\n[[arrivals]]\n{arrivals}\n[[buyers]]\n{buyers}")
}

const ADMITTED: (u16, &str) = (201, r#"{"gid":"g","status":"submitted"}"#);

#[tokio::test]
async fn everybody_of_the_schedule_asks_once_and_is_noted_from_the_moment_they_meant_to() {
    let (address, seen) = shop(|_| ADMITTED).await;
    let text = scenario("kind = \"constant\"\nrate = 1000\nlasts_s = 0.5", "sku = \"*\"");
    let (ledger, effort) = play(address, &text, 2).await;
    assert_eq!((effort.requests, ledger.counts.admitted, effort.cut_short), (500, 500, false));
    let mut intended: Vec<u64> = ledger.told().map(|told| told.intended_us).collect();
    intended.sort_unstable();
    assert_eq!(intended, (0..500).map(|n| n * 1000).collect::<Vec<_>>(), "two threads share one schedule");
    assert!(ledger.told().all(|told| told.intended_us <= told.sent_us && told.sent_us <= told.answered_us));
    let seen = seen.lock().unwrap();
    assert!(seen.len() == 500 && seen.values().all(|bodies| bodies.len() == 1));
    let skus = |sku: &str| seen.values().filter(|bodies| bodies[0].contains(sku)).count();
    assert!(["sku-1", "sku-2", "sku-3"].map(skus).into_iter().all(|n| n > 100), "any SKU is each of them");
}

#[tokio::test]
async fn a_double_click_is_one_key_and_two_devices_are_two() {
    let (address, seen) = shop(|_| ADMITTED).await;
    let buyers = "clicks = 2\ndevices = 2\naccounts = 3";
    let (ledger, _) = play(address, &scenario("kind = \"burst\"\nbuyers = 10", buyers), 1).await;
    assert_eq!(ledger.counts.admitted, 10 * 2 * 2 * 3);
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 10 * 2 * 3);
    assert!(seen.values().all(|bodies| bodies.len() == 2 && bodies[0] == bodies[1]));
    let buyers: std::collections::BTreeSet<_> = seen.values().map(|bodies| &bodies[0]).collect();
    assert_eq!(buyers.len(), 30, "an account is a buyer");
}

#[tokio::test]
async fn who_hears_nothing_that_settles_it_asks_again_with_the_same_key() {
    let (address, seen) = shop(|n| if n < 4 { (503, r#"{"code":"away"}"#) } else { ADMITTED }).await;
    let (ledger, _) = play(address, &scenario("kind = \"burst\"\nbuyers = 3", "backoff_ms = [1, 4]"), 1).await;
    assert!(seen.lock().unwrap().values().all(|bodies| bodies.len() == 4));
    assert_eq!((ledger.counts.unknown["away"], ledger.counts.admitted), (9, 3));
    assert_eq!(ledger.told().map(|told| told.attempt).max(), Some(4));
    let (address, seen) = shop(|_| (503, r#"{"code":"away"}"#)).await;
    play(address, &scenario("kind = \"burst\"\nbuyers = 1", "backoff_ms = [1, 4]\ntries = 7"), 1).await;
    assert_eq!(seen.lock().unwrap().values().map(Vec::len).sum::<usize>(), 7, "and gives up in the end");
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again() {
    let (address, seen) = shop(|_| ADMITTED).await;
    let (ledger, _) =
        play(address, &scenario("kind = \"burst\"\nbuyers = 20", "lose_percent = 100\nbackoff_ms = [1, 1]"), 1).await;
    assert_eq!((ledger.counts.unknown["hung up"], ledger.counts.admitted), (20, 20));
    assert_eq!(seen.lock().unwrap().len(), 20);
}

#[tokio::test]
async fn a_loser_comes_back_with_a_new_key_and_a_winner_polls_and_pays() {
    let (address, seen) = shop(|_| (409, r#"{"code":"sold_out"}"#)).await;
    let back = "come_back = 2\ncome_back_after_ms = [1, 2]";
    let (ledger, _) = play(address, &scenario("kind = \"burst\"\nbuyers = 1", back), 1).await;
    assert_eq!(ledger.counts.refused["sold_out"], 3);
    let keys: Vec<String> = (1..=3).map(|nth| key_text(key_of(0, nth))).collect();
    assert_eq!(seen.lock().unwrap().keys().cloned().collect::<Vec<_>>(), keys);

    let (address, seen) = shop(|_| ADMITTED).await;
    let buyer = "polls = 3\npoll_ms = 1\npay_percent = 100\npay_after_ms = [1, 2]";
    let (ledger, _) = play(address, &scenario("kind = \"burst\"\nbuyers = 1", buyer), 1).await;
    let seen = seen.lock().unwrap();
    assert_eq!((seen["/v1/orders/g"].len(), seen["/v1/orders/g/confirm"].len()), (3, 1));
    let confirmed = ledger.told().find(|told| told.kind == Kind::Confirm).unwrap();
    assert_eq!((confirmed.outcome, confirmed.about), (Outcome::Done { gid: "g" }, Some("g")));
}

#[tokio::test]
async fn a_closed_loop_has_as_many_under_way_as_connections() {
    let (address, seen) = shop(|_| ADMITTED).await;
    let (ledger, effort) = play(address, &scenario("kind = \"closed\"\nbuyers = 1000", ""), 1).await;
    assert_eq!((ledger.counts.admitted, effort.waited), (1000, 0));
    assert_eq!(seen.lock().unwrap().len(), 1000);
    assert!(ledger.told().all(|told| told.intended_us == told.sent_us));
}

#[tokio::test]
async fn the_same_buyers_do_the_same_again() {
    let text = scenario(
        "kind = \"poisson\"\nrate = 2000\nlasts_s = 0.2",
        "sku = \"*\"\nthink_ms = [1, 20]\n[[buyers]]\nclicks = 2",
    );
    let mut runs = Vec::new();
    for _ in 0..2 {
        let (address, _) = shop(|_| ADMITTED).await;
        let (ledger, _) = play(address, &text, 1).await;
        let mut all: Vec<_> = ledger.told().map(|told| (told.intended_us, told.key, told.basket)).collect();
        all.sort_unstable();
        runs.push(all);
    }
    assert!(runs[0].len() > 300 && runs[0] == runs[1]);
}

#[tokio::test]
async fn open_loop_says_latency_and_its_own_lateness() {
    let (address, _) = shop(|_| ADMITTED).await;
    let load = open_loop::OpenLoop {
        address,
        template: crate::bench::Template::order("s"),
        rate: Some(2000.0),
        lasts: Duration::from_millis(250),
        poisson: false,
        connections: 4,
        streams: 0,
        threads: 1,
        first: 0,
    };
    let measured = open_loop::open_loop(load).await.unwrap();
    assert_eq!((measured.counts.created, measured.latency.len()), (500, 500));
    assert_eq!(measured.effort.schedule_error.len() + measured.effort.waited, 500);
}
