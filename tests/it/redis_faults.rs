//! Redis dies, stalls, forgets its scripts or loses the end of its file, in the middle of a sale.

use crate::support::app::{App, AppOptions, eventually};
use crate::support::crowd::{self, Crowd, Heard, SALE, assert_exact, assert_only_ledger_left, order_of};
use crate::support::process::Machine;
use crate::support::servers::{Redis, RedisVersion};
use crate::support::shop::{Answer, Shop};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

const BUYERS: usize = 8;
/// `redis.timeout_ms`.
const TIMEOUT_MS: u64 = 400;
/// With `everysec` the disk is waited for up to a second, by everybody in a batch.
const TIMEOUT_EVERYSEC_MS: u64 = 2_000;
const EVERYSEC: &[&str] = &["--appendfsync", "everysec"];
const SOON: Duration = Duration::from_secs(30);

/// The longest that an answer may take: the time-out, twice over when a batch was under way already and once more for
/// the wait, and a busy machine's share.
fn answer_wait_max(arguments: &[&str]) -> Duration {
    Duration::from_millis(3 * timeout_ms(arguments) + 2_000)
}

fn timeout_ms(arguments: &[&str]) -> u64 {
    if arguments == EVERYSEC { TIMEOUT_EVERYSEC_MS } else { TIMEOUT_MS }
}

async fn start(redis: &Redis, shop: &Shop, arguments: &[&str]) -> App {
    crowd::trying_shop(shop);
    let options = AppOptions::default().quick().redis(&redis.url());
    let options = options.setting("redis.timeout_ms", timeout_ms(arguments));
    let app = App::start(options).await;
    app.create_sale(&crowd::sale(shop.endpoint())).await;
    app
}

/// What was acknowledged is there after kill -9 of Redis, wherever `fsync` is promised.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_redis_loses_nothing_that_was_acknowledged() {
    tokio::join!(
        kill_redis(RedisVersion::V7, &[]),
        kill_redis(RedisVersion::V8, &[]),
        kill_redis(RedisVersion::V8, EVERYSEC),
    );
}

async fn kill_redis(version: RedisVersion, arguments: &[&str]) {
    let machine = Machine::watch();
    let mut redis = Redis::start(version, arguments).await;
    let shop = Shop::start().await;
    let app = start(&redis, &shop, arguments).await;
    let buyers = Crowd::start(&[app.http()], BUYERS);
    for round in 1..=2 {
        buyers.wait_for_more(16, SOON).await;
        redis.kill9();
        let before = buyers.heard().put_off();
        let put_off = || async { buyers.heard().put_off() >= before + 20 };
        eventually("buyers are told that Redis is away", SOON, put_off).await;
        assert_eq!(app.get("/readyz").await.status, 503, "{round}");
        redis.restart().await;
    }
    buyers.wait_for_more(16, SOON).await;
    let heard = buyers.stop().await;
    let put_off = heard.count("redis_unavailable") + heard.count("redis_refused") + heard.count("not_durable");
    assert_eq!(put_off, heard.put_off(), "{:?}", heard.codes);
    let longest = heard.longest.saturating_sub(machine.longest_pause());
    assert!(longest < answer_wait_max(arguments), "{longest:?}");
    assert_exact(&app, &shop, &heard).await;
    assert_only_ledger_left(&redis.url()).await;
}

/// A Redis that is there and says nothing: nobody waits for long, and it goes on by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_redis_keeps_nobody_waiting() {
    tokio::join!(stall_redis(&[]), stall_redis(EVERYSEC));
}

async fn stall_redis(arguments: &[&str]) {
    let machine = Machine::watch();
    let redis = Redis::start(RedisVersion::V8, arguments).await;
    let shop = Shop::start().await;
    let app = start(&redis, &shop, arguments).await;
    let buyers = Crowd::start(&[app.http()], BUYERS);
    for _ in 0..2 {
        buyers.wait_for_more(16, SOON).await;
        let before = buyers.heard().put_off();
        redis.process().signal("STOP");
        let put_off = || async { buyers.heard().put_off() >= before + 50 };
        eventually("buyers are told that Redis is away", SOON, put_off).await;
        redis.process().signal("CONT");
    }
    buyers.wait_for_more(16, SOON).await;
    let heard = buyers.stop().await;
    let longest = heard.longest.saturating_sub(machine.longest_pause());
    assert!(longest < answer_wait_max(arguments), "{longest:?}");
    assert_exact(&app, &shop, &heard).await;
}

/// The script that ends orders is sent again when its answer does not come, though Redis has the first one too.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_is_written_twice_counts_once() {
    let redis = Redis::start(RedisVersion::V7, &[]).await;
    let shop = Shop::start().await;
    let app = start(&redis, &shop, &[]).await;
    shop.always(Answer::Hang);
    let mut heard = Heard::default();
    for key in (0..12).map(|number| format!("k-{}", number * 10)) {
        let reply = app.order(SALE, &key, &order_of(&key)).await;
        heard.gids.insert(key, reply.gid().unwrap().to_owned());
    }
    eventually("all are called", SOON, || async { shop.open_calls() == 12 }).await;
    redis.process().signal("STOP");
    shop.always(Answer::Created);
    shop.release();
    let given_up = || async { app.log().matches("ended orders are not written yet").count() >= 2 };
    eventually("two tries without an answer", SOON, given_up).await;
    redis.process().signal("CONT");
    eventually("it goes on", SOON, || async { app.get("/readyz").await.status == 200 }).await;
    assert_exact(&app, &shop, &heard).await;
    assert_only_ledger_left(&redis.url()).await;
}

/// Somebody's SCRIPT FLUSH, all the time: every order still gets its answer at the first try.
#[tokio::test(flavor = "multi_thread")]
async fn forgotten_scripts_fail_no_order() {
    let redis = Redis::start(RedisVersion::V7, &[]).await;
    let shop = Shop::start().await;
    let app = start(&redis, &shop, &[]).await;
    let buyers = Crowd::start(&[app.http()], BUYERS);
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut every = tokio::time::interval(Duration::from_millis(50));
    for _ in 0..60 {
        every.tick().await;
        redis::cmd("SCRIPT").arg("FLUSH").query_async::<()>(&mut connection).await.unwrap();
    }
    let heard = buyers.stop().await;
    assert_eq!(heard.put_off(), 0, "{:?}", heard.codes);
    assert!(heard.gids.len() > 100, "{:?}", heard.codes);
    assert_exact(&app, &shop, &heard).await;
}

// ---- an append-only file that was cut inside a script ---------------------------------------------------------------

/// Failure F12: a file cut inside the MULTI of a script leaves a transaction open, and at the next load all that was
/// written after the first lands in it. rushline has the file rewritten before it sells.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_file_harms_nothing_that_was_acknowledged_later() {
    for (version, server_lives_on) in [(RedisVersion::V7, true), (RedisVersion::V7, false), (RedisVersion::V8, true)] {
        let mut cuts = tokio::task::JoinSet::new();
        for part in 0..4 {
            cuts.spawn(sell_after_a_cut(version, part, server_lives_on, "auto"));
        }
        while let Some(after) = cuts.join_next().await {
            let after = after.unwrap();
            assert!(after.is_whole(), "{version:?} {after:?}");
        }
    }
}

/// The story before is worth something only if it fails without the rewrite.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_rewrite_a_cut_file_does_harm() {
    let after = sell_after_a_cut(RedisVersion::V7, 3, false, "never").await;
    assert!(!after.is_whole(), "this Redis may need no rewrite any more: {after:?}");
}

/// What was found after the second restart of Redis.
#[derive(Debug)]
struct AfterCut {
    acknowledged: usize,
    kept: usize,
    report: Value,
}

impl AfterCut {
    fn is_whole(&self) -> bool {
        self.kept == self.acknowledged && self.report["settled"] == true && self.report["drift"] == 0
    }
}

/// Sells, cuts the file in the last admission at a quarter `part`, sells again, kills Redis again.
async fn sell_after_a_cut(
    version: RedisVersion,
    part: usize,
    server_lives_on: bool,
    rewrite: &'static str,
) -> AfterCut {
    let mut redis = Redis::start(version, &[]).await;
    let shop = Shop::start().await;
    // The order whose admission is cut away must not be made by a server that forgets it when it is killed.
    shop.behave(move |asked| match asked.order["buyer"].as_str() {
        Some("buyer-of-before-2") if !server_lives_on => Answer::Status(500, "not this one".into()),
        _ => Answer::Created,
    });
    let options = AppOptions::default().quick().redis(&redis.url()).setting("redis.rewrite_after_load", rewrite);
    let mut app = App::start(options).await;
    app.create_sale(&crowd::sale(shop.endpoint())).await;
    for number in 0..3 {
        let key = format!("before-{number}");
        assert_eq!(app.order(SALE, &key, &order_of(&key)).await.status, 201);
    }
    if !server_lives_on {
        app.kill9();
    }
    redis.kill9();
    cut_inside_the_last_admission(redis.process().directory(), part);
    redis.restart().await;
    if !server_lives_on {
        app.restart(|options| options).await;
    }
    let ready = || async { app.get("/readyz").await.status == 200 };
    eventually("it sells again", SOON, ready).await;
    if server_lives_on {
        // The server knows what was cut away, and sells nothing before it is back.
        let repaired = || async {
            let report = app.post(&format!("/v1/sales/{SALE}/repair?wait_ms=5000"), &[], &Value::Null).await;
            report.json["fenced"] == true && report.json["open"] == true
        };
        eventually("the lost order is brought back", SOON, repaired).await;
    }
    let mut gids = Vec::new();
    while gids.len() < 10 {
        let key = format!("after-{}", gids.len());
        let reply = app.order(SALE, &key, &order_of(&key)).await;
        match reply.status {
            201 => gids.push(reply.gid().unwrap().to_owned()),
            status => assert_eq!(status, 503, "{}", reply.json),
        }
    }
    app.kill9();
    redis.kill9();
    redis.restart().await;
    app.restart(|options| options).await;
    let mut kept = 0;
    for (number, gid) in gids.iter().enumerate() {
        let key = format!("after-{number}");
        let reply = app.order(SALE, &key, &order_of(&key)).await;
        kept += usize::from(reply.replayed() && reply.gid() == Some(gid.as_str()));
    }
    let report = app.audit(SALE, Duration::from_secs(8)).await;
    AfterCut { acknowledged: gids.len(), kept, report }
}

/// Ends the file in the middle of a command of its last admission, so that what is complete of it is loaded.
fn cut_inside_the_last_admission(directory: &Path, part: usize) {
    let path = incremental_file(directory);
    let bytes = std::fs::read(&path).unwrap();
    let find = |word: &[u8], from: usize| {
        bytes[from..].windows(word.len()).position(|window| window == word).map(|at| at + from)
    };
    let (multi, exec) = (b"*1\r\n$5\r\nMULTI\r\n", b"*1\r\n$4\r\nEXEC\r\n");
    let mut last = None;
    let mut from = 0;
    while let Some(begin) = find(multi, from) {
        let end = find(exec, begin).expect("its end");
        if find(b"buyer-of-before-2", begin).is_some_and(|at| at < end)
            && find(b"XADD", begin).is_some_and(|at| at < end)
        {
            last = Some((begin + multi.len(), end));
        }
        from = end;
    }
    let (begin, end) = last.expect("the admission is in the file");
    let at = begin + 5 + (end - begin - 5) * part / 4;
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len(at as u64).unwrap();
}

fn incremental_file(directory: &Path) -> PathBuf {
    let files = std::fs::read_dir(directory.join("appendonlydir")).unwrap();
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.to_str().unwrap().ends_with(".incr.aof"));
    files.sort_by_key(|path| path.metadata().unwrap().modified().unwrap());
    files.pop().expect("an append-only Redis has one")
}
