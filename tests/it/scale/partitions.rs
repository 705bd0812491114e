//! A sale over many partitions, on one Redis and two nodes: every unit is sold, and nobody is refused while one is left.

use crate::support::app::{App, AppOptions, Http, eventually};
use crate::support::crowd::{self, Crowd, SALE, assert_exact};
use crate::support::process::free_port;
use crate::support::shop::Shop;
use futures_util::StreamExt;
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);
const SIGABRT: i32 = 6;

/// Two nodes on one private Redis.
async fn two_nodes() -> (App, App) {
    let app = App::start(AppOptions::default().quick()).await;
    let other = App::start(AppOptions::default().quick().beside(&app)).await;
    (app, other)
}

fn one(sku: &str, buyer: &str) -> Value {
    json!({"buyer": buyer, "items": [{"sku": sku, "quantity": 1}]})
}

/// Stock of a SKU as the sale shows it: loaded, available, reserved, sold, in transit.
async fn stock(app: &App, sale: &str) -> [u64; 5] {
    let view = app.get(&format!("/v1/sales/{sale}")).await.json;
    ["loaded", "available", "reserved", "sold", "in_transit"]
        .map(|name| view["items"][0][name].as_u64().unwrap_or_default())
}

/// One order of the run: when it was sent, when its answer came, and whether it was admitted.
struct Told {
    sent: Instant,
    heard: Instant,
    admitted: bool,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_unit_is_sold_before_anybody_is_refused() {
    const UNITS: u64 = 3_000;
    let (app, other) = two_nodes().await;
    let shop = Shop::start().await;
    for run in 0..3 {
        let sale = format!("hot-{run}");
        let endpoint = shop.endpoint_with(json!({"mode": "bulk"}));
        app.create_sale(&json!({"sale": sale, "partitions": 16, "durability": "memory", "order_endpoint": endpoint,
            "items": [{"sku": "a", "units": UNITS}]}))
            .await;
        assert_eq!(stock(&app, &sale).await[0], UNITS);
        let next = Arc::new(AtomicU64::new(0));
        let buying = (0..48).map(|place| {
            let (http, sale, next) = ([&app, &other][place % 2].http(), sale.clone(), next.clone());
            tokio::spawn(async move { buy_until_refused(&http, &sale, &next).await })
        });
        let told: Vec<Told> = join_all(buying).await.into_iter().flat_map(Result::unwrap).collect();
        let admitted = told.iter().filter(|told| told.admitted).count() as u64;
        assert_eq!(admitted, UNITS, "run {run}");
        // Nothing comes back here, so whoever is refused must have had all winners send their orders before.
        let first = told.iter().filter(|told| !told.admitted).map(|told| told.heard).min().unwrap();
        let before = told.iter().filter(|told| told.admitted && told.sent < first).count() as u64;
        assert_eq!(before, UNITS, "run {run}: somebody was refused while units were there");
        let [loaded, available, reserved, sold, in_transit] = stock(&app, &sale).await;
        assert_eq!((loaded, available, reserved + sold, in_transit), (UNITS, 0, UNITS, 0), "run {run}");
    }
}

async fn buy_until_refused(http: &Http, sale: &str, next: &AtomicU64) -> Vec<Told> {
    let mut told = Vec::new();
    loop {
        let buyer = format!("buyer-{}", next.fetch_add(1, Ordering::Relaxed));
        let sent = Instant::now();
        let reply = http.try_order(sale, "", &one("a", &buyer)).await.unwrap();
        let heard = Instant::now();
        match (reply.status, reply.code()) {
            (201, _) => told.push(Told { sent, heard, admitted: true }),
            (409, "sold_out") => {
                told.push(Told { sent, heard, admitted: false });
                return told;
            }
            (503 | 429, _) => {}
            _ => panic!("{}: {}", reply.status, reply.json),
        }
    }
}

/// The crowd has orders that are refused by the shop, orders of several SKUs, doubles and replays; the sale grows under it.
#[tokio::test(flavor = "multi_thread")]
async fn a_sale_grows_while_it_sells() {
    let (app, other) = two_nodes().await;
    let shop = Shop::start().await;
    crowd::trying_shop(&shop);
    app.create_sale(&crowd::sale(shop.endpoint())).await;
    let buyers = Crowd::start(&[app.http(), other.http()], 8);
    for partitions in [4, 7, 16] {
        buyers.wait_for_more(40, SOON).await;
        let grown = other.patch(&format!("/v1/sales/{SALE}"), &json!({ "partitions": partitions })).await;
        assert_eq!((grown.status, &grown.json["partitions"]), (200, &json!(partitions)), "{}", grown.json);
    }
    buyers.wait_for_more(40, SOON).await;
    let heard = buyers.stop().await;
    assert_exact(&app, &shop, &heard).await;
    let fewer = app.patch(&format!("/v1/sales/{SALE}"), &json!({ "partitions": 3 })).await;
    assert_eq!((fewer.status, fewer.code()), (422, "invalid_sale"), "{}", fewer.json);
}

/// Whoever bought before the sale grew keeps limit and answers, wherever the buyer's home is by now.
#[tokio::test(flavor = "multi_thread")]
async fn limits_and_replays_hold_over_growth() {
    const BUYERS: usize = 60;
    let (app, other) = two_nodes().await;
    let shop = Shop::start().await;
    app.create_sale(&json!({"sale": "g", "limit_per_buyer": 2, "order_endpoint": shop.endpoint(),
        "items": [{"sku": "a", "units": 100_000}]}))
        .await;
    let mut gids = Vec::new();
    for buyer in 0..BUYERS {
        let name = format!("b{buyer}");
        let reply = app.order("g", &format!("first-{name}"), &one("a", &name)).await;
        gids.push(reply.gid().unwrap().to_owned());
    }
    // While it grows, each buyer tries three times at once, on both nodes: one of these is the second unit.
    let growing = async {
        for partitions in [5, 9] {
            let grown = app.patch("/v1/sales/g", &json!({ "partitions": partitions })).await;
            assert_eq!(grown.status, 200, "{}", grown.json);
        }
    };
    let trying = (0..2 * BUYERS).map(async |buyer| {
        let name = format!("b{buyer}");
        let tries = (0..3).map(async |attempt| {
            let node = [&app, &other][attempt % 2];
            let key = format!("{attempt}-{name}");
            loop {
                let reply = node.order("g", &key, &one("a", &name)).await;
                match (reply.status, reply.code()) {
                    (201, _) => return 1,
                    (409, "limit_reached") => return 0,
                    (503, _) => {}
                    _ => panic!("{}: {}", reply.status, reply.json),
                }
            }
        });
        join_all(tries).await.into_iter().sum::<usize>()
    });
    let (admitted, ()) = tokio::join!(join_all(trying), growing);
    for (buyer, admitted) in admitted.into_iter().enumerate() {
        // Buyers beyond the first crowd are new, and may have two.
        assert_eq!(admitted, if buyer < BUYERS { 1 } else { 2 }, "b{buyer}");
    }
    for (buyer, gid) in gids.iter().enumerate() {
        let name = format!("b{buyer}");
        let replay = other.order("g", &format!("first-{name}"), &one("a", &name)).await;
        assert_eq!((replay.status, replay.gid()), (201, Some(gid.as_str())), "{name}: {}", replay.json);
        assert!(replay.replayed(), "{name}");
        let shown = other.get(&format!("/v1/orders/{gid}?wait_ms=5000")).await;
        assert_eq!((shown.status, &shown.json["status"]), (200, &json!("succeed")), "{name}");
        let third = app.order("g", &format!("third-{name}"), &one("a", &name)).await;
        assert_eq!((third.status, third.code()), (409, "limit_reached"), "{name}: {}", third.json);
    }
}

/// What is added comes to whoever asks, and all can be taken out again.
#[tokio::test(flavor = "multi_thread")]
async fn units_are_added_and_withdrawn_wherever_they_are() {
    let (app, other) = two_nodes().await;
    let shop = Shop::start().await;
    app.create_sale(&json!({"sale": "w", "partitions": 5, "order_endpoint": shop.endpoint(),
        "items": [{"sku": "a", "units": 7}]}))
        .await;
    let change = async |units: i64, id: &str| {
        app.post("/v1/sales/w/stock", &[], &json!({"sku": "a", "units": units, "request_id": id})).await.json
    };
    for buyer in 0..7 {
        assert_eq!(other.order("w", "", &one("a", &format!("b{buyer}"))).await.status, 201);
    }
    assert_eq!(other.order("w", "", &one("a", "late")).await.code(), "sold_out");
    assert_eq!(other.order("w", "", &one("b", "late")).await.code(), "unknown_sku");
    assert_eq!(change(30, "r1").await["units"], 30);
    for buyer in 7..17 {
        assert_eq!(other.order("w", "", &one("a", &format!("b{buyer}"))).await.status, 201, "b{buyer}");
    }
    assert_eq!(change(-25, "r2").await["units"], -20, "all that was left, from all partitions");
    assert_eq!(change(-25, "r2").await["units"], -20, "and once");
    assert_eq!(other.order("w", "", &one("a", "late")).await.code(), "sold_out");
    let report = app.wait_until_settled("w").await;
    assert_eq!((report["drift"].as_u64(), report["items"][0]["sold"].as_u64()), (Some(0), Some(17)), "{report}");
}

/// A node dies with units on their way; they arrive, once.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_the_steps_of_a_transfer_loses_and_doubles_nothing() {
    futures_util::stream::iter(rushline::crash::TRANSFER_POINTS)
        .map(|point| tokio::spawn(crash_in_transfer(point)))
        .buffer_unordered(2)
        .for_each(|ended| async { ended.unwrap() })
        .await;
}

async fn crash_in_transfer(point: &str) {
    let shop = Shop::start().await;
    crowd::trying_shop(&shop);
    let ports = [free_port(), free_port()];
    let targets = ports.map(|port| Http::new(format!("http://127.0.0.1:{port}")));
    let mut app = App::start(AppOptions::default().quick().on_port(ports[0])).await;
    let mut sale = crowd::sale(shop.endpoint());
    sale["partitions"] = json!(16);
    app.create_sale(&sale).await;
    app.restart(|options| options.crash_at(point)).await; // only now: a sale is shared out by transfers too
    let buyers = Crowd::start(&targets, 6);
    let status = app.wait_for_end(SOON).await;
    assert_eq!(status.signal(), Some(SIGABRT), "{point}: {status}");
    let records = format!("sqlite:{}", app.data_dir().join("orders.db").display());
    let options = AppOptions::default().quick().on_port(ports[1]).redis(&app.redis_url()).records(&records);
    let other = App::start(options).await;
    buyers.wait_for_more(20, SOON).await;
    let heard = buyers.stop().await;
    assert_exact(&other, &shop, &heard).await;
    let none_left = || async { stock(&other, SALE).await[4] == 0 };
    eventually("nothing is on its way any more", SOON, none_left).await;
}
