//! Clocks that are wrong by an hour, or by a month, in mid-sale. What decides is Redis's clock, and durations are measured
//! by one that nobody sets; so a jump delays or hastens, and changes no outcome.

use super::{BUYERS, SOON};
use crate::support::app::{App, AppOptions, eventually};
use crate::support::crowd::{self, Crowd, Heard, SALE, ask_redis, assert_exact, assert_only_ledger_left};
use crate::support::hazard::{Clock, is_missing};
use crate::support::servers::{Redis, RedisVersion};
use crate::support::shop::Shop;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const HOUR_S: i64 = 3_600;
const BACK: [i64; 3] = [HOUR_S, -HOUR_S, 0];
/// libfaketime reads its file again after a second.
const NOTICED: Duration = Duration::from_millis(1_100);

/// A Redis of which `clock` is the time.
async fn redis_by(clock: &Clock) -> Redis {
    let environment: Vec<String> = clock.environment().iter().map(|(name, value)| format!("{name}={value}")).collect();
    let launcher: Vec<&str> = ["env"].into_iter().chain(environment.iter().map(String::as_str)).collect();
    // Debian's Redis 7 asks for the time before libfaketime is there (its allocator does), and ends.
    Redis::launch(&launcher, RedisVersion::V8, "127.0.0.1", &[]).await
}

/// F24, F25: orders wait for their endpoint for a month, by the clock of Redis, which forgets all that has a time to live.
/// Nothing of them has; and who asks again after that month hears of the same order.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_unfinished_is_kept_for_as_long_as_it_takes() {
    let clock = Clock::new();
    if is_missing("libfaketime", &clock) {
        return;
    }
    let clock = clock.unwrap();
    let redis = redis_by(&clock).await;
    let shop = Shop::start().await;
    shop.leave();
    let app = App::start(AppOptions::default().quick().redis(&redis.url())).await;
    app.create_sale(&crowd::sale(shop.endpoint())).await;
    let mut heard = Heard::default();
    for key in (0..20).map(|number| format!("k-{}", number * 10)) {
        let reply = app.order(SALE, &key, &crowd::order_of(&key)).await;
        assert_eq!(reply.status, 201, "{}", reply.json);
        heard.gids.insert(key, reply.gid().unwrap().to_owned());
    }
    clock.set(30 * 24 * HOUR_S);
    let a_month_later = async || {
        let now: Vec<i64> = ask_redis(&redis, &["TIME"]).await;
        now[0] > SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64 + 29 * 24 * HOUR_S
    };
    eventually("it is a month later", SOON, a_month_later).await;
    shop.come_back().await;
    assert_exact(&app, &shop, &heard).await;
    assert_only_ledger_left(&redis.url()).await;
}

/// F29: each clock in turn, those of the nodes forwards and back, then all at once. The clock of Redis only goes ahead: when
/// it goes back, leases last until it has caught up (docs/reliability.md).
#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_jump_an_hour_change_no_outcome() {
    let clocks = (|| Ok([Clock::new()?, Clock::new()?, Clock::new()?]))();
    if is_missing("libfaketime", &clocks) {
        return;
    }
    let clocks: [Clock; 3] = clocks.unwrap();
    let [of_redis, of_a, of_b] = &clocks;
    let redis = redis_by(of_redis).await;
    let shop = Shop::start().await;
    crowd::trying_shop(&shop);
    let options = AppOptions::default().quick().redis(&redis.url());
    let a = App::start(options.clone().by_clock(of_a)).await;
    let mut b = App::start(options.beside(&a).by_clock(of_b)).await;
    a.create_sale(&crowd::sale(shop.endpoint())).await;
    let buyers = Crowd::start(&[a.http(), b.http()], BUYERS);
    for (clock, offsets_s) in [(of_redis, [HOUR_S, 2 * HOUR_S, 3 * HOUR_S]), (of_a, BACK), (of_b, BACK)] {
        for offset_s in offsets_s {
            clock.set(offset_s);
            tokio::time::sleep(NOTICED).await;
            buyers.wait_for_more(12, SOON).await;
        }
    }
    // All of them wrong at once, each in another way, and a node dies.
    for (clock, offset_s) in clocks.iter().zip([7 * HOUR_S, -HOUR_S, 2 * HOUR_S]) {
        clock.set(offset_s);
    }
    tokio::time::sleep(NOTICED).await;
    buyers.wait_for_more(12, SOON).await;
    b.kill9();
    buyers.wait_for_more(12, SOON).await;
    let heard = buyers.stop().await;
    [of_a, of_b].into_iter().for_each(|clock| clock.set(0));
    assert_exact(&a, &shop, &heard).await;
    assert_only_ledger_left(&redis.url()).await;
}
