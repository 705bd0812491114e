//! Sentinel moves the primary while a crowd buys.

use crate::support::app::{App, AppOptions, eventually};
use crate::support::cluster::Watched;
use crate::support::crowd::{self, Crowd, assert_exact};
use crate::support::shop::Shop;
use serde_json::json;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// What one replica has confirmed survives the primary: Sentinel promotes the one that has most.
#[tokio::test(flavor = "multi_thread")]
async fn a_failover_loses_nothing_that_was_acknowledged() {
    let mut watched = Watched::start().await;
    let shop = Shop::start().await;
    crowd::trying_shop(&shop);
    let options = AppOptions::default().quick().redis(&watched.url()).setting("redis.timeout_ms", 1_500);
    let app = App::start(options).await;
    let mut sale = crowd::sale(shop.endpoint());
    sale["durability"] = json!("replica:1");
    app.create_sale(&sale).await;
    let buyers = Crowd::start(&[app.http()], 6);
    buyers.wait_for_more(50, SOON).await;
    let dead = watched.primary().await;
    watched.servers[dead].kill9();
    let moved = || async { watched.primary().await != dead };
    eventually("another is the primary", SOON, moved).await;
    buyers.wait_for_more(50, SOON).await;
    watched.servers[dead].restart().await;
    buyers.wait_for_more(50, SOON).await;
    let heard = buyers.stop().await;
    assert_exact(&app, &shop, &heard).await;
}
