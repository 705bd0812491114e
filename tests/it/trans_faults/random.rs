//! kill -9 at any moment, under transactions of every mode, with branches that refuse and branches that make trouble.

use super::book::Book;
use super::flow::Flow;
use super::target::Target;
use crate::support::app::{App, AppOptions, Http};
use crate::support::process::free_port;
use crate::support::servers::{Redis, RedisVersion};
use futures_util::StreamExt;
use std::time::Duration;

/// Set `RUSHLINE_TEST_CHAOS_KILLS` to go on for longer, and `RUSHLINE_TEST_CHAOS_SEED` to repeat what was.
const KILLS: usize = 24;
/// Transactions that begin between two kills, on average.
const EACH: usize = 12;
/// Clients at a time.
const CLIENTS: usize = 24;
const END_WAIT_MAX: Duration = Duration::from_secs(60);

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_any_moment_leave_nothing_half_done() {
    let kills = number("RUSHLINE_TEST_CHAOS_KILLS").map_or(KILLS, |kills| kills as usize);
    let seed = number("RUSHLINE_TEST_CHAOS_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("RUSHLINE_TEST_CHAOS_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let redis = Redis::start(RedisVersion::V8, &[]).await;
    let ports = [free_port(), free_port()];
    let target = Target::default();
    target.set(&ports.map(|port| Http::new(format!("http://127.0.0.1:{port}"))));
    let book = Book::open(target.clone(), seed, Duration::from_millis(40)).await;
    let options = |port| {
        let options = AppOptions::default().quick_trans().redis(&redis.url()).on_port(port);
        options.setting("redis.rewrite_after_load", "never").setting("trans.lease_ms", 300)
    };
    let first = App::start(options(ports[0])).await;
    let second = App::start(options(ports[1]).beside(&first)).await;
    let mut apps = [first, second];

    let flows = Flow::all();
    let chosen: Vec<(String, Flow)> = (0..kills * EACH)
        .map(|i| (i, *random.choice(&flows).expect("there are flows")))
        .map(|(i, flow)| (format!("{flow}.{i}"), flow))
        .collect();
    let clients = tokio::spawn({
        let (chosen, book, target) = (chosen.clone(), book.clone(), target.clone());
        async move {
            let play = |(gid, flow): (String, Flow)| {
                let (book, target) = (book.clone(), target.clone());
                async move { flow.play(&gid, &book, &target).await }
            };
            futures_util::stream::iter(chosen).map(play).buffer_unordered(CLIENTS).collect::<Vec<()>>().await
        }
    });
    for kill in 0..kills {
        tokio::time::sleep(Duration::from_millis(random.u64(20..400))).await;
        // Now and then both are away, or one is told to stop.
        if kill % 5 == 4 {
            apps.iter_mut().for_each(App::kill9);
            apps[1].restart(|options| options).await;
            apps[0].restart(|options| options).await;
        } else {
            let app = &mut apps[random.usize(..2)];
            if kill % 5 == 2 {
                assert!(app.terminate().await.success(), "told to stop, it ends well");
            }
            app.restart(|options| options).await;
        }
    }
    clients.await.expect("every client comes to its end");
    let mut ended = Vec::new();
    for (gid, flow) in &chosen {
        ended.push(flow.check(gid, &book, &target, END_WAIT_MAX).await);
    }
    for ((gid, _), calls) in chosen.iter().zip(ended) {
        assert_eq!(book.calls(gid), calls, "{gid} was called after its end");
    }
    assert_eq!(book.wrong(), [""; 0]);
}
