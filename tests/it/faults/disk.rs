//! The disk of Redis is slow, broken or full: what a buyer or the order endpoint heard of is there afterwards.

use super::{BUYERS, SOON, start, until_put_off};
use crate::support::app::eventually;
use crate::support::crowd::{Crowd, assert_exact, assert_only_ledger_left};
use crate::support::hazard::{Inject, SmallDisk, is_missing};
use crate::support::servers::{Redis, RedisVersion};
use crate::support::shop::Shop;
use std::time::Duration;

const EVERYSEC: &[&str] = &["--appendfsync", "everysec"];
/// Longer than the slowest fsync, twice over.
const PATIENT_MS: u64 = 5_000;

/// F11: every fsync takes a second and a half, and Redis is killed in the middle of one. While it lasts, Redis keeps what
/// it should write in its own memory (`everysec`), so a kill loses what a plain one would not.
#[tokio::test(flavor = "multi_thread")]
async fn killed_while_an_fsync_takes_its_time_redis_loses_nothing_that_was_acknowledged() {
    tokio::join!(slow_fsync(RedisVersion::V7, &[]), slow_fsync(RedisVersion::V8, EVERYSEC));
}

async fn slow_fsync(version: RedisVersion, arguments: &[&str]) {
    let mut redis = Redis::start(version, arguments).await;
    let shop = Shop::start().await;
    let app = start(&redis.url(), &shop, PATIENT_MS).await;
    let buyers = Crowd::start(&[app.http()], BUYERS);
    buyers.wait_for_more(10, SOON).await;
    let slow = Inject::into(&redis, "fdatasync:delay_enter=1500000").await;
    if is_missing("strace, and the right to use it", &slow) {
        buyers.stop().await;
        return;
    }
    // The first of these were acknowledged by an fsync that was slow; the next is under way.
    buyers.wait_for_more(4, SOON).await;
    tokio::time::sleep(Duration::from_millis(fastrand::u64(0..1_500))).await;
    redis.kill9();
    drop(slow);
    redis.restart().await;
    buyers.wait_for_more(10, SOON).await;
    let heard = buyers.stop().await;
    assert_exact(&app, &shop, &heard).await;
    assert_only_ledger_left(&redis.url()).await;
}

/// F17: fsync fails. With `always`, Redis ends rather than say something that is not so; with `everysec`, it takes no more
/// writes, and what was not on disk was told to nobody.
#[tokio::test(flavor = "multi_thread")]
async fn an_fsync_that_fails_acknowledges_nothing() {
    tokio::join!(failing_fsync(RedisVersion::V7, &[]), failing_fsync(RedisVersion::V8, EVERYSEC));
}

async fn failing_fsync(version: RedisVersion, arguments: &[&str]) {
    let mut redis = Redis::start(version, arguments).await;
    let shop = Shop::start().await;
    let app = start(&redis.url(), &shop, PATIENT_MS).await;
    let buyers = Crowd::start(&[app.http()], BUYERS);
    buyers.wait_for_more(10, SOON).await;
    let broken = Inject::into(&redis, "fdatasync:error=EIO").await;
    if is_missing("strace, and the right to use it", &broken) {
        buyers.stop().await;
        return;
    }
    until_put_off(&buyers, 10).await;
    // The machine is taken down: what stands in no file is gone.
    redis.kill9();
    drop(broken);
    redis.restart().await;
    buyers.wait_for_more(10, SOON).await;
    let heard = buyers.stop().await;
    assert_exact(&app, &shop, &heard).await;
    assert_only_ledger_left(&redis.url()).await;
}

/// F17: there is no room. Orders are refused for now; those that were told of stay, and all goes on when there is room.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_orders_and_loses_none() {
    tokio::join!(full_disk(RedisVersion::V7, &[]), full_disk(RedisVersion::V8, EVERYSEC));
}

async fn full_disk(version: RedisVersion, arguments: &[&str]) {
    let disk = SmallDisk::mount("8m");
    if is_missing("mounting a small disk (root)", &disk) {
        return;
    }
    let disk = disk.unwrap();
    let arguments = [arguments, &["--dir", disk.path().to_str().unwrap()]].concat();
    let mut redis = Redis::start(version, &arguments).await;
    let shop = Shop::start().await;
    let app = start(&redis.url(), &shop, PATIENT_MS).await;
    let buyers = Crowd::start(&[app.http()], BUYERS);
    for _ in 0..2 {
        buyers.wait_for_more(10, SOON).await;
        disk.fill();
        until_put_off(&buyers, 20).await;
        disk.make_room();
        // With `always` it has ended, and somebody starts it again.
        if redis.has_ended() {
            redis.restart().await;
        }
        let ready = || async { app.get("/readyz").await.status == 200 };
        eventually("it sells again", SOON, ready).await;
    }
    buyers.wait_for_more(10, SOON).await;
    let heard = buyers.stop().await;
    assert_exact(&app, &shop, &heard).await;
    assert_only_ledger_left(&redis.url()).await;
    drop(redis);
}
