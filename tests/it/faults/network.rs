//! The way to Redis: cut, in one direction only, or lost without a word.

use super::{BUYERS, SOON, start, until_put_off};
use crate::support::crowd::{Crowd, assert_exact, assert_only_ledger_left};
use crate::support::hazard::{Island, is_missing};
use crate::support::link::Link;
use crate::support::servers::{Redis, RedisVersion};
use crate::support::shop::Shop;

const TIMEOUT_MS: u64 = 400;

/// A firewall that forgot its connections, a machine that lost its power: nothing breaks, and nothing is answered. What is
/// connected so is given up after one time-out, and not after the quarter of an hour that the kernel takes.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_nobody_answers_on_are_made_anew() {
    let redis = Redis::start(RedisVersion::V8, &["--appendfsync", "everysec"]).await;
    let link = Link::to(redis.port()).await;
    let shop = Shop::start().await;
    let app = start(&link.redis_url(), &shop, 1_500).await;
    let buyers = Crowd::start(&[app.http()], BUYERS);
    for _ in 0..2 {
        buyers.wait_for_more(20, SOON).await;
        link.lose();
    }
    buyers.wait_for_more(40, SOON).await;
    let heard = buyers.stop().await;
    assert_exact(&app, &shop, &heard).await;
    assert_only_ledger_left(&redis.url()).await;
}

/// Redis on a machine of its own: its cable is pulled, and then it hears and cannot be heard.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_loses_nothing_in_either_direction() {
    let island = Island::found(1);
    if is_missing("a network namespace (root, iproute2)", &island) {
        return;
    }
    let island = island.unwrap();
    let redis = Redis::launch(&island.launcher(), RedisVersion::V7, &island.host, &["--protected-mode", "no"]).await;
    let shop = Shop::start().await;
    let app = start(&redis.url(), &shop, TIMEOUT_MS).await;
    let buyers = Crowd::start(&[app.http()], BUYERS);
    for _ in 0..2 {
        buyers.wait_for_more(16, SOON).await;
        island.pull_cable();
        until_put_off(&buyers, 20).await;
        island.plug_in();
        buyers.wait_for_more(16, SOON).await;
        // Scripts run, and nobody hears what they said.
        let muted = island.mute();
        if is_missing("nftables", &muted) {
            continue;
        }
        until_put_off(&buyers, 20).await;
        island.unmute();
    }
    buyers.wait_for_more(16, SOON).await;
    let heard = buyers.stop().await;
    assert_exact(&app, &shop, &heard).await;
    assert_only_ledger_left(&redis.url()).await;
}
