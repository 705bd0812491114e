//! A real Redis Cluster: slots move and primaries die while a crowd buys.

use crate::support::app::{App, AppOptions, eventually};
use crate::support::cluster::Cluster;
use crate::support::crowd::{self, Crowd, SALE, assert_exact};
use crate::support::services::Service;
use crate::support::shop::Shop;
use serde_json::json;
use std::time::Duration;

const BUYERS: usize = 6;
const PARTITIONS: usize = 4;
const SOON: Duration = Duration::from_secs(60);

async fn start(cluster: &Cluster, shop: &Shop, durability: &str) -> (App, App) {
    crowd::trying_shop(shop);
    let options = AppOptions::default().quick().redis(&cluster.url()).setting("redis.timeout_ms", 1_500);
    let app = App::start(options.clone()).await;
    let other = App::start(options.clone().beside(&app)).await;
    let mut sale = crowd::sale(shop.endpoint());
    sale["durability"] = json!(durability);
    sale["partitions"] = json!(PARTITIONS);
    app.create_sale(&sale).await;
    (app, other)
}

/// The slots of the sale go round while it sells, with all their keys.
#[tokio::test(flavor = "multi_thread")]
async fn a_sale_goes_on_while_its_slots_move() {
    let cluster = Cluster::start(&[]).await;
    let shop = Shop::start().await;
    let (app, other) = start(&cluster, &shop, "fsync").await;
    let buyers = Crowd::start(&[app.http(), other.http()], BUYERS);
    for round in 0..6 {
        buyers.wait_for_more(30, SOON).await;
        let slot = cluster.slot_of(&format!("rl:{{{SALE}/{}}}:sale", round % PARTITIONS)).await;
        let from = cluster.owner(0, slot).await;
        cluster.move_slot(slot, from, (from + 1) % 3).await;
    }
    buyers.wait_for_more(30, SOON).await;
    let heard = buyers.stop().await;
    assert_exact(&app, &shop, &heard).await;
}

/// Global transactions are spread over 16 slots, on all servers; two of these slots move meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn global_transactions_run_on_a_cluster() {
    let cluster = Cluster::start(&[]).await;
    let service = Service::start().await;
    let app = App::start(AppOptions::default().quick_trans().redis(&cluster.url())).await;
    let submit = async |number: usize| {
        let gid = format!("spread-{number}");
        let step = json!({"action": service.url("/a"), "compensate": service.url("/back")});
        let body = json!({"gid": gid, "trans_type": "saga", "steps": [step], "payloads": ["{}"], "wait_result": true});
        let reply = app.post("/api/dtmsvr/submit", &[], &body).await;
        assert_eq!(reply.status, 200, "{}", reply.json);
        gid
    };
    let moving = async {
        for partition in 0..2 {
            let slot = cluster.slot_of(&format!("rl:{{T/{partition}}}:due")).await;
            let from = cluster.owner(0, slot).await;
            cluster.move_slot(slot, from, (from + 1) % 3).await;
        }
    };
    let submitting = futures_util::future::join_all((0..48).map(submit));
    let (gids, ()) = tokio::join!(submitting, moving);
    for gid in gids {
        let succeeded = async || {
            let found = app.get(&format!("/api/dtmsvr/query?gid={gid}")).await.json;
            found["transaction"]["status"] == "succeed"
        };
        eventually(&format!("{gid} has succeeded"), SOON, succeeded).await;
        assert_eq!(service.calls(&gid).len(), 1, "{gid}");
    }
}

/// A primary dies with the sale on it; its replica has everything that was acknowledged, and goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_may_die_with_the_sale_on_it() {
    let mut cluster = Cluster::start(&[]).await;
    let shop = Shop::start().await;
    let (app, other) = start(&cluster, &shop, "replica:1").await;
    let buyers = Crowd::start(&[app.http(), other.http()], BUYERS);
    let slot = cluster.slot_of(&format!("rl:{{{SALE}/0}}:sale")).await;
    buyers.wait_for_more(50, SOON).await;
    let dead = cluster.owner(3, slot).await;
    cluster.servers[dead].kill9();
    let witness = (dead + 1) % 3;
    let taken_over = || async { cluster.owner(witness, slot).await != dead };
    eventually("a replica has taken over", SOON, taken_over).await;
    cluster.servers[dead].restart().await;
    cluster.until_follows(dead).await;
    buyers.wait_for_more(50, SOON).await;
    let heard = buyers.stop().await;
    assert_exact(&app, &shop, &heard).await;
}
