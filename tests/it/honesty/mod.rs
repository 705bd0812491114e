//! A Redis that comes back with less than it acknowledged: it is found out, nothing is sold, what is lost is named and
//! brought back, and afterwards all books agree.

mod failover;
mod memory;
mod nodes;
mod restart;

use crate::support::app::{App, AppOptions, Reply, eventually};
use crate::support::crowd::{self, Heard, SALE, ask_redis, order_of};
use crate::support::servers::{Redis, RedisVersion};
use crate::support::shop::Shop;
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

/// A Redis that keeps on its disk what it is told to keep, and nothing else.
async fn forgetful(version: RedisVersion) -> Redis {
    Redis::start(version, &["--appendonly", "no"]).await
}

/// All up to now survives.
async fn save(redis: &Redis) {
    ask_redis::<()>(redis, &["SAVE"]).await;
}

async fn start(redis: &Redis, shop: &Shop) -> App {
    start_with(redis, shop, |options| options).await
}

async fn start_with(redis: &Redis, shop: &Shop, with: impl FnOnce(AppOptions) -> AppOptions) -> App {
    let app = App::start(with(AppOptions::default().quick().redis(&redis.url()))).await;
    app.create_sale(&sale(shop)).await;
    app
}

fn sale(shop: &Shop) -> Value {
    let mut sale = crowd::sale(shop.endpoint());
    sale["durability"] = "memory".into();
    sale
}

/// Orders with these numbers, all of which are admitted; a buyer who is put off comes back.
async fn buy(app: &App, heard: &mut Heard, numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    let mut gids = Vec::new();
    for number in numbers {
        let key = format!("k-{number}");
        let mut reply = app.order(SALE, &key, &order_of(&key)).await;
        for _ in 0..200 {
            if reply.status != 503 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            reply = app.order(SALE, &key, &order_of(&key)).await;
        }
        assert_eq!(reply.status, 201, "{key}: {}", reply.json);
        gids.push(reply.gid().unwrap().to_owned());
        heard.gids.insert(key, reply.gid().unwrap().to_owned());
    }
    gids
}

async fn is_fenced(app: &App) -> bool {
    !app.get(&format!("/v1/sales/{SALE}")).await.json["fenced"].is_null()
}

async fn until_fenced(app: &App) {
    eventually("the loss is found", SOON, || is_fenced(app)).await;
}

async fn lost(app: &App) -> Vec<String> {
    let path = format!("/v1/sales/{SALE}/lost");
    let mut lost = app.get(&path).await;
    while lost.status == 503 {
        lost = app.get(&path).await; // each connection to a Redis that is gone breaks once
    }
    assert_eq!(lost.status, 200, "{}", lost.json);
    names(&lost.json)
}

fn names(gids: &Value) -> Vec<String> {
    let mut names: Vec<String> = serde_json::from_value(gids["first"].clone()).unwrap();
    names.sort();
    names
}

async fn repair(app: &App) -> Reply {
    app.post(&format!("/v1/sales/{SALE}/repair?wait_ms=20000"), &[], &json!({})).await
}

/// Repairs; the report of a repair that ended.
async fn repaired(app: &App) -> Value {
    let mut reply = repair(app).await;
    while reply.status == 503 {
        reply = repair(app).await; // as it says; each connection to a Redis that is gone breaks once
    }
    assert_eq!((reply.status, &reply.json["open"]), (200, &json!(true)), "{}", reply.json);
    reply.json
}

/// All books agree, and every buyer hears of the same order as at first.
async fn assert_exact(app: &App, shop: &Shop, heard: &Heard) {
    // Each connection to a Redis that was restarted fails once.
    let answered = || async {
        let asked = heard.gids.keys().map(async |key| app.order(SALE, key, &order_of(key)).await.status == 201);
        futures_util::future::join_all(asked).await.into_iter().all(|answered| answered)
    };
    for _ in 0..3 {
        eventually("everybody is answered", SOON, answered).await;
    }
    crowd::assert_exact(app, shop, heard).await;
}

fn sorted(mut gids: Vec<String>) -> Vec<String> {
    gids.sort();
    gids
}
