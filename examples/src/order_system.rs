//! An order system: orders in one service with PostgreSQL, stock in another with MySQL; what a buyer asks for happens in
//! both or in neither. A saga calls the two, and a barrier in each handler makes each call take effect once.
//!
//! In the crash the stock service dies when it has taken a unit and nobody has heard of it, and rushline is killed.

use crate::follow::carry_through;
use crate::lab::{Lab, Need, Service};
use crate::serving::Role;
use crate::verdict::Verdict;
use anyhow::bail;
use axum::extract::{RawQuery, State};
use axum::routing::post;
use axum::{Json, Router};
use rushline::barrier::{BranchBarrier, sql};
use rushline::client::{BranchCall, BranchError, Client, StatusCode, answer};
use serde::{Deserialize, Serialize};
use sqlx::{MySqlPool, PgPool};
use tokio::task::JoinSet;

pub const ABOUT: &str = "orders in PostgreSQL and stock in MySQL, both or neither";

const UNITS: i64 = 10;
/// More than there is: some are turned back, and their orders with them.
const BUYERS: usize = 14;

#[derive(Clone, Serialize, Deserialize)]
struct Order {
    buyer: String,
    sku: String,
    quantity: i64,
}

pub async fn run(crash: bool) -> anyhow::Result<Verdict> {
    let mut lab = Lab::start(&[Need::Postgres, Need::MySql]).await?;
    let (orders_url, stock_url) = (lab.url(Need::Postgres)?, lab.url(Need::MySql)?);
    let orders = Service::start("order-system", "orders", &["--store", &orders_url]).await?;
    let mut stock = vec!["--store", &stock_url];
    if crash {
        stock.extend(["--die-at", "taken"]);
    }
    let mut stock = Service::start("order-system", "stock", &stock).await?;
    let (orders_db, stock_db) = (PgPool::connect(&orders_url).await?, MySqlPool::connect(&stock_url).await?);
    sqlx::query("INSERT INTO stock VALUES ('lamp', ?)").bind(UNITS).execute(&stock_db).await?;

    println!("\n  {BUYERS} buyers want one of {UNITS} lamps");
    let client = Client::http(lab.coordinator.url())?;
    let mut buyers = JoinSet::new();
    for number in 0..BUYERS {
        let order = Order { buyer: format!("u{number}"), sku: "lamp".into(), quantity: 1 };
        buyers.spawn(buy(client.clone(), orders.url(), stock.url(), order));
    }
    if crash {
        stock.death().await?;
        lab.coordinator.kill9();
        println!("  the stock service died with a unit taken and no answer given; rushline is killed too");
        stock.restart().await;
        lab.coordinator.restart().await;
        println!("  both are back");
    }
    let bought: Vec<bool> = buyers.join_all().await.into_iter().collect::<anyhow::Result<_>>()?;
    let bought = bought.into_iter().filter(|bought| *bought).count() as i64;
    println!("  {bought} have bought, {} were turned back", BUYERS as i64 - bought);

    let count = "SELECT count(*) FROM orders WHERE status = $1";
    let placed: i64 = sqlx::query_scalar(count).bind("placed").fetch_one(&orders_db).await?;
    let cancelled: i64 = sqlx::query_scalar(count).bind("cancelled").fetch_one(&orders_db).await?;
    let left: i64 = sqlx::query_scalar("SELECT units FROM stock").fetch_one(&stock_db).await?;
    let mut verdict = Verdict::default();
    verdict.same("orders placed in PostgreSQL, units gone from MySQL", placed, UNITS - left);
    verdict.same("orders placed, sagas that succeeded", placed, bought);
    verdict.same("orders cancelled, sagas turned back", cancelled, BUYERS as i64 - bought);
    verdict.same("units left, of fewer than were asked for", left, 0);
    Ok(verdict)
}

/// One buyer: the order first, as it is easily taken back, then the stock, which may refuse.
async fn buy(client: Client, orders: String, stock: String, order: Order) -> anyhow::Result<bool> {
    let gid = format!("order-{}", order.buyer);
    let order_first = client.saga(&gid).step(format!("{orders}/place"), format!("{orders}/cancel"), &order);
    let saga = order_first.step(format!("{stock}/take"), format!("{stock}/give-back"), &order);
    carry_through(&client, &gid, saga).await
}

pub async fn serve(role: &Role) -> anyhow::Result<()> {
    match role.role.as_str() {
        "orders" => serve_orders(role).await,
        "stock" => serve_stock(role).await,
        other => bail!("an order system has the roles orders and stock, not {other}"),
    }
}

async fn serve_orders(role: &Role) -> anyhow::Result<()> {
    let db = PgPool::connect(&role.store).await?;
    sql::create_table(&db).await?;
    let table = "CREATE TABLE IF NOT EXISTS orders (
        id bigserial PRIMARY KEY, gid text, buyer text, sku text, quantity bigint, status text)";
    sqlx::query(table).execute(&db).await?;
    role.serve(Router::new().route("/place", post(place)).route("/cancel", post(cancel)).with_state(db)).await
}

async fn place(State(db): State<PgPool>, RawQuery(query): RawQuery, Json(order): Json<Order>) -> (StatusCode, String) {
    let work = async {
        let call = BranchCall::from_query(&query.unwrap_or_default())?;
        let gid = call.gid.clone();
        let insert = "INSERT INTO orders (gid, buyer, sku, quantity, status) VALUES ($1, $2, $3, $4, 'placed')";
        let business = async |db: &mut sqlx::PgConnection| {
            let insert = sqlx::query(insert).bind(gid).bind(order.buyer).bind(order.sku).bind(order.quantity);
            insert.execute(db).await?;
            Ok(())
        };
        BranchBarrier::new(call).call(&db, business).await?;
        Ok("placed")
    };
    answer(work.await)
}

async fn cancel(State(db): State<PgPool>, RawQuery(query): RawQuery) -> (StatusCode, String) {
    let work = async {
        let call = BranchCall::from_query(&query.unwrap_or_default())?;
        let gid = call.gid.clone();
        let business = async |db: &mut sqlx::PgConnection| {
            sqlx::query("UPDATE orders SET status = 'cancelled' WHERE gid = $1").bind(gid).execute(db).await?;
            Ok(())
        };
        BranchBarrier::new(call).call(&db, business).await?;
        Ok("cancelled")
    };
    answer(work.await)
}

#[derive(Clone)]
struct Stock {
    db: MySqlPool,
    role: Role,
}

async fn serve_stock(role: &Role) -> anyhow::Result<()> {
    let db = MySqlPool::connect(&role.store).await?;
    sql::create_table(&db).await?;
    let table = "CREATE TABLE IF NOT EXISTS stock (sku varchar(32) PRIMARY KEY, units bigint NOT NULL)";
    sqlx::query(table).execute(&db).await?;
    let stock = Stock { db, role: role.clone() };
    role.serve(Router::new().route("/take", post(take)).route("/give-back", post(give_back)).with_state(stock)).await
}

async fn take(State(stock): State<Stock>, RawQuery(query): RawQuery, Json(order): Json<Order>) -> (StatusCode, String) {
    let work = async {
        let call = BranchCall::from_query(&query.unwrap_or_default())?;
        let update = "UPDATE stock SET units = units - ? WHERE sku = ? AND units >= ?";
        let business = async |db: &mut sqlx::MySqlConnection| {
            let update = sqlx::query(update).bind(order.quantity).bind(order.sku).bind(order.quantity);
            match update.execute(db).await?.rows_affected() {
                1 => Ok(()),
                _ => Err(BranchError::failure("sold out")),
            }
        };
        BranchBarrier::new(call).call(&stock.db, business).await?;
        stock.role.may_die_at("taken");
        Ok("taken")
    };
    answer(work.await)
}

async fn give_back(
    State(stock): State<Stock>,
    RawQuery(query): RawQuery,
    Json(order): Json<Order>,
) -> (StatusCode, String) {
    let work = async {
        let call = BranchCall::from_query(&query.unwrap_or_default())?;
        let business = async |db: &mut sqlx::MySqlConnection| {
            let update = sqlx::query("UPDATE stock SET units = units + ? WHERE sku = ?");
            update.bind(order.quantity).bind(order.sku).execute(db).await?;
            Ok(())
        };
        BranchBarrier::new(call).call(&stock.db, business).await?;
        Ok("given back")
    };
    answer(work.await)
}
