//! Several kinds of stores in one global transaction: money in PostgreSQL, stock in Redis, points in MongoDB. A saga calls
//! three services; each has a barrier in its own store. Who has too few points is refused by the last of them, and money
//! and stock come back.
//!
//! In the crash each service dies when its change is made and nobody has heard of it; the wallet also while it pays back.

use crate::follow::carry_through;
use crate::lab::{Lab, Need, Service};
use crate::serving::Role;
use crate::verdict::Verdict;
use anyhow::bail;
use axum::extract::{RawQuery, State};
use axum::routing::post;
use axum::{Json, Router};
use mongodb::bson::{Document, doc};
use redis::AsyncCommands;
use redis::aio::ConnectionManager;
use rushline::barrier::{BranchBarrier, mongo, redis::TTL, sql};
use rushline::client::{BranchCall, BranchError, Client, StatusCode, answer};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool};
use tokio::task::JoinSet;

pub const ABOUT: &str = "PostgreSQL, Redis and MongoDB in one global transaction";

const SCENARIO: &str = "several-stores";
const STOCK: &str = "stock-lamp";
const UNITS: i64 = 20;
const BUYERS: i64 = 8;
const MONEY: i64 = 100;
const POINTS: i64 = 50;
/// What a lamp costs: money, and points.
const PRICE: i64 = 30;
const PRICE_POINTS: i64 = 10;

#[derive(Clone, Serialize, Deserialize)]
struct Purchase {
    buyer: String,
    units: i64,
    money: i64,
    points: i64,
}

pub async fn run(crash: bool) -> anyhow::Result<Verdict> {
    let lab = Lab::start(&[Need::Postgres, Need::Cache, Need::Mongo]).await?;
    let (wallet_url, stock_url, points_url) = (lab.url(Need::Postgres)?, lab.url(Need::Cache)?, lab.url(Need::Mongo)?);
    let places: [&[&str]; 3] = match crash {
        true => [&["--die-at", "paid", "--die-at", "paid-back"], &["--die-at", "taken"], &["--die-at", "spent"]],
        false => [&[], &[], &[]],
    };
    let mut wallet = Service::start(SCENARIO, "wallet", &[&["--store", &wallet_url], places[0]].concat()).await?;
    let mut stock = Service::start(SCENARIO, "stock", &[&["--store", &stock_url], places[1]].concat()).await?;
    let mut points = Service::start(SCENARIO, "points", &[&["--store", &points_url], places[2]].concat()).await?;

    let wallet_db = PgPool::connect(&wallet_url).await?;
    let mut stock_db = redis::Client::open(stock_url)?.get_connection_manager().await?;
    let points_db = mongodb::Client::with_uri_str(points_url).await?;
    forget_the_dead_after(&points_db, 1).await?;
    let _: () = stock_db.set(STOCK, UNITS).await?;
    for number in 0..BUYERS {
        let insert = "INSERT INTO wallet VALUES ($1, $2)";
        sqlx::query(insert).bind(buyer(number)).bind(MONEY).execute(&wallet_db).await?;
        let points = if is_poor(number) { PRICE_POINTS - 1 } else { POINTS };
        accounts(&points_db).insert_one(doc! { "_id": buyer(number), "points": points }).await?;
    }

    println!("\n  {BUYERS} buyers pay with money and points; some have too few points");
    let client = Client::http(lab.coordinator.url())?;
    let mut buyers = JoinSet::new();
    for number in 0..BUYERS {
        buyers.spawn(buy(client.clone(), [wallet.url(), stock.url(), points.url()], buyer(number)));
    }
    if crash {
        tokio::try_join!(dies(&mut wallet, 2), dies(&mut stock, 1), dies(&mut points, 1))?;
        println!("  each service has died between its change and its answer, the wallet also while paying back");
    }
    let bought: Vec<bool> = buyers.join_all().await.into_iter().collect::<anyhow::Result<_>>()?;
    let bought = bought.into_iter().filter(|bought| *bought).count() as i64;
    println!("  {bought} have bought, {} were turned back", BUYERS - bought);

    let money: i64 = sqlx::query_scalar("SELECT sum(money)::bigint FROM wallet").fetch_one(&wallet_db).await?;
    let units: i64 = stock_db.get(STOCK).await?;
    let (mut points_left, mut found) = (0, accounts(&points_db).find(doc! {}).await?);
    while found.advance().await? {
        points_left += found.current().get_i64("points")?;
    }
    let poor = (0..BUYERS).filter(|number| is_poor(*number)).count() as i64;
    let points_given = poor * (PRICE_POINTS - 1) + (BUYERS - poor) * POINTS;
    let mut verdict = Verdict::default();
    verdict.same("purchases, buyers with enough points", bought, BUYERS - poor);
    verdict.same("money gone from PostgreSQL, price of the purchases", BUYERS * MONEY - money, bought * PRICE);
    verdict.same("units gone from Redis, purchases", UNITS - units, bought);
    verdict.same("points gone from MongoDB, price of the purchases", points_given - points_left, bought * PRICE_POINTS);
    Ok(verdict)
}

/// A service that is killed within a transaction of MongoDB leaves it open there, marks of the barrier included, and calls
/// of these branches hear "under way" until MongoDB gives it up: after a minute, unless an operator says otherwise.
async fn forget_the_dead_after(client: &mongodb::Client, seconds: i32) -> anyhow::Result<()> {
    let set = doc! { "setParameter": 1, "transactionLifetimeLimitSeconds": seconds };
    client.database("admin").run_command(set).await?;
    Ok(())
}

fn buyer(number: i64) -> String {
    format!("u{number}")
}

fn is_poor(number: i64) -> bool {
    number % 3 == 1
}

async fn dies(service: &mut Service, times: u32) -> anyhow::Result<()> {
    for _ in 0..times {
        service.death().await?;
        service.restart().await;
    }
    Ok(())
}

async fn buy(client: Client, [wallet, stock, points]: [String; 3], buyer: String) -> anyhow::Result<bool> {
    let gid = format!("purchase-{buyer}");
    let purchase = Purchase { buyer, units: 1, money: PRICE, points: PRICE_POINTS };
    let saga = client
        .saga(&gid)
        .step(format!("{wallet}/pay"), format!("{wallet}/pay-back"), &purchase)
        .step(format!("{stock}/take"), format!("{stock}/give-back"), &purchase)
        .step(format!("{points}/spend"), format!("{points}/return"), &purchase);
    carry_through(&client, &gid, saga).await
}

pub async fn serve(role: &Role) -> anyhow::Result<()> {
    match role.role.as_str() {
        "wallet" => serve_wallet(role).await,
        "stock" => serve_stock(role).await,
        "points" => serve_points(role).await,
        other => bail!("the roles here are wallet, stock and points, not {other}"),
    }
}

/// A service: its store, and where it may die.
#[derive(Clone)]
struct Shop<S> {
    store: S,
    role: Role,
}

async fn serve_wallet(role: &Role) -> anyhow::Result<()> {
    let store = PgPool::connect(&role.store).await?;
    sql::create_table(&store).await?;
    let table = "CREATE TABLE IF NOT EXISTS wallet (buyer text PRIMARY KEY, money bigint NOT NULL)";
    sqlx::query(table).execute(&store).await?;
    let shop = Shop { store, role: role.clone() };
    role.serve(Router::new().route("/pay", post(pay)).route("/pay-back", post(pay_back)).with_state(shop)).await
}

async fn pay(
    State(shop): State<Shop<PgPool>>,
    RawQuery(query): RawQuery,
    Json(purchase): Json<Purchase>,
) -> (StatusCode, String) {
    let work = async {
        let mut barrier = BranchBarrier::new(BranchCall::from_query(&query.unwrap_or_default())?);
        let update = "UPDATE wallet SET money = money - $1 WHERE buyer = $2 AND money >= $1";
        let business = async |db: &mut PgConnection| match sqlx::query(update)
            .bind(purchase.money)
            .bind(purchase.buyer)
            .execute(db)
            .await?
            .rows_affected()
        {
            1 => Ok(()),
            _ => Err(BranchError::failure("not enough money")),
        };
        barrier.call(&shop.store, business).await?;
        shop.role.may_die_at("paid");
        Ok("paid")
    };
    answer(work.await)
}

async fn pay_back(
    State(shop): State<Shop<PgPool>>,
    RawQuery(query): RawQuery,
    Json(purchase): Json<Purchase>,
) -> (StatusCode, String) {
    let work = async {
        let mut barrier = BranchBarrier::new(BranchCall::from_query(&query.unwrap_or_default())?);
        let update = "UPDATE wallet SET money = money + $1 WHERE buyer = $2";
        let business = async |db: &mut PgConnection| {
            sqlx::query(update).bind(purchase.money).bind(purchase.buyer).execute(db).await?;
            Ok(())
        };
        barrier.call(&shop.store, business).await?;
        shop.role.may_die_at("paid-back");
        Ok("paid back")
    };
    answer(work.await)
}

async fn serve_stock(role: &Role) -> anyhow::Result<()> {
    let store = redis::Client::open(role.store.as_str())?.get_connection_manager().await?;
    let shop = Shop { store, role: role.clone() };
    role.serve(Router::new().route("/take", post(take)).route("/give-back", post(give_back)).with_state(shop)).await
}

async fn take(
    State(mut shop): State<Shop<ConnectionManager>>,
    RawQuery(query): RawQuery,
    Json(purchase): Json<Purchase>,
) -> (StatusCode, String) {
    let work = async {
        let mut barrier = BranchBarrier::new(BranchCall::from_query(&query.unwrap_or_default())?);
        barrier.redis_check_adjust_amount(&mut shop.store, STOCK, -purchase.units, TTL).await?;
        shop.role.may_die_at("taken");
        Ok("taken")
    };
    answer(work.await)
}

async fn give_back(
    State(mut shop): State<Shop<ConnectionManager>>,
    RawQuery(query): RawQuery,
    Json(purchase): Json<Purchase>,
) -> (StatusCode, String) {
    let work = async {
        let mut barrier = BranchBarrier::new(BranchCall::from_query(&query.unwrap_or_default())?);
        barrier.redis_check_adjust_amount(&mut shop.store, STOCK, purchase.units, TTL).await?;
        Ok("given back")
    };
    answer(work.await)
}

fn accounts(client: &mongodb::Client) -> mongodb::Collection<Document> {
    client.database("shop").collection("points")
}

async fn serve_points(role: &Role) -> anyhow::Result<()> {
    let store = mongodb::Client::with_uri_str(&role.store).await?;
    mongo::create_index(&store).await?;
    let shop = Shop { store, role: role.clone() };
    role.serve(Router::new().route("/spend", post(spend)).route("/return", post(give_points_back)).with_state(shop))
        .await
}

async fn spend(
    State(shop): State<Shop<mongodb::Client>>,
    RawQuery(query): RawQuery,
    Json(purchase): Json<Purchase>,
) -> (StatusCode, String) {
    let work = async {
        let mut barrier = BranchBarrier::new(BranchCall::from_query(&query.unwrap_or_default())?);
        let who = doc! { "_id": purchase.buyer, "points": { "$gte": purchase.points } };
        let less = doc! { "$inc": { "points": -purchase.points } };
        let business = async |session: &mut mongodb::ClientSession| match accounts(&shop.store)
            .update_one(who, less)
            .session(session)
            .await?
            .matched_count
        {
            1 => Ok(()),
            _ => Err(BranchError::failure("not enough points")),
        };
        barrier.mongo_call(&shop.store, business).await?;
        shop.role.may_die_at("spent");
        Ok("spent")
    };
    answer(work.await)
}

async fn give_points_back(
    State(shop): State<Shop<mongodb::Client>>,
    RawQuery(query): RawQuery,
    Json(purchase): Json<Purchase>,
) -> (StatusCode, String) {
    let work = async {
        let mut barrier = BranchBarrier::new(BranchCall::from_query(&query.unwrap_or_default())?);
        let more = doc! { "$inc": { "points": purchase.points } };
        let business = async |session: &mut mongodb::ClientSession| {
            accounts(&shop.store).update_one(doc! { "_id": purchase.buyer }, more).session(session).await?;
            Ok(())
        };
        barrier.mongo_call(&shop.store, business).await?;
        Ok("given back")
    };
    answer(work.await)
}
