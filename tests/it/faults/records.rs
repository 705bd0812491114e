//! Whoever writes the records loses the database's primary, or oversleeps and goes on where another has been.

use super::{BUYERS, SOON};
use crate::support::app::{App, AppOptions};
use crate::support::crowd::{self, Crowd, assert_exact, assert_only_ledger_left};
use crate::support::servers::{Mongod, Redis, RedisVersion};
use crate::support::shop::Shop;
use mongodb::bson::doc;
use std::time::Duration;

/// F37: the primary steps down again and again, and is killed in between.
#[tokio::test(flavor = "multi_thread")]
async fn elections_and_kills_of_mongodb_leave_each_record_once() {
    let mut mongod = Mongod::start().await;
    let shop = Shop::start().await;
    crowd::trying_shop(&shop);
    let app = App::start(AppOptions::default().quick().records(&mongod.url())).await;
    app.create_sale(&crowd::sale(shop.endpoint())).await;
    let buyers = Crowd::start(&[app.http()], BUYERS);
    for round in 0..4 {
        buyers.wait_for_more(20, SOON).await;
        if round % 2 == 0 {
            let admin = mongodb::Client::with_uri_str(mongod.url()).await.unwrap().database("admin");
            // It ends the connections of whoever asks, too: the answer says nothing.
            let _ = admin.run_command(doc! { "replSetStepDown": 1, "force": true }).await;
        } else {
            mongod.kill9();
            buyers.wait_for_more(10, SOON).await;
            mongod.restart().await;
        }
    }
    buyers.wait_for_more(20, SOON).await;
    let heard = buyers.stop().await;
    assert_exact(&app, &shop, &heard).await;
    assert_only_ledger_left(&app.redis_url()).await;
}

/// F38: two nodes drain the same sale; each in turn sleeps for longer than its lease, in the middle of whatever it does.
#[tokio::test(flavor = "multi_thread")]
async fn a_reconciler_that_overslept_its_lease_records_nothing_twice() {
    let mongod = Mongod::start().await;
    let redis = Redis::start(RedisVersion::V7, &[]).await;
    let shop = Shop::start().await;
    crowd::trying_shop(&shop);
    // Small batches: there is always one under way.
    let options =
        AppOptions::default().quick().redis(&redis.url()).records(&mongod.url()).setting("records.batch_max", 2);
    let apps = [App::start(options.clone()).await, App::start(options).await];
    apps[0].create_sale(&crowd::sale(shop.endpoint())).await;
    let buyers = Crowd::start(&[apps[0].http(), apps[1].http()], BUYERS);
    for round in 0..6 {
        buyers.wait_for_more(fastrand::usize(5..25), SOON).await;
        let sleeper = &apps[round % 2];
        sleeper.signal("STOP");
        // Two leases and a sweep: the other has taken everything over.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        sleeper.signal("CONT");
    }
    buyers.wait_for_more(20, SOON).await;
    let heard = buyers.stop().await;
    assert_exact(&apps[0], &shop, &heard).await;
    assert_only_ledger_left(&redis.url()).await;
}
