//! A flash sale in front of an order service that was there before: rushline takes the rush and the units, and calls the
//! service once per order until the order exists. All the service needs is a unique key on the gid; `count` and `list`
//! let the audit look into its books.
//!
//! In the crash the order service dies when an order is in its database and nobody has heard of it, and rushline is killed
//! among all its buyers, who ask again with their keys.

use crate::lab::http::request;
use crate::lab::{Lab, Need, Service};
use crate::serving::Role;
use crate::verdict::Verdict;
use anyhow::{Context, bail, ensure};
use axum::extract::{Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use rushline::client::{BranchError, Client, Error, OrderItem, OrderStatus, Refusal, Sale, StatusCode, answer};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::PgPool;
use sqlx::types::Json as Column;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

pub const ABOUT: &str = "a sale in front of an existing order service; units sold are its orders";

const UNITS: u64 = 40;
const BUYERS: usize = 120;
/// A crash in between included.
const PATIENCE: Duration = Duration::from_secs(30);
const SETTLE_MAX: Duration = Duration::from_secs(30);

pub async fn run(crash: bool) -> anyhow::Result<Verdict> {
    let mut lab = Lab::start(&[Need::Postgres]).await?;
    let store = lab.url(Need::Postgres)?;
    let mut arguments = vec!["--store", &store];
    if crash {
        arguments.extend(["--die-at", "ordered"]);
    }
    let mut shop = Service::start("flash-sale", "orders", &arguments).await?;
    let (own, rushline) = (shop.url(), lab.coordinator.url());
    let sale = json!({
        "sale": "nov22",
        "items": [{ "sku": "lamp", "units": UNITS }],
        "limit_per_buyer": 1,
        "order_endpoint": {
            "url": format!("{own}/orders"),
            "count_url": format!("{own}/count"),
            "list_url": format!("{own}/list"),
        },
    });
    let (status, body) = request("POST", &format!("{rushline}/v1/sales"), &sale.to_string()).await?;
    ensure!(status == 201, "the sale was not created: {status} {body}");

    println!("\n  {BUYERS} buyers at once for {UNITS} lamps");
    let sale = Client::http(&rushline)?.sale("nov22");
    let mut buyers = JoinSet::new();
    for number in 0..BUYERS {
        buyers.spawn(buy(sale.clone(), format!("u{number}")));
    }
    if crash {
        shop.death().await?;
        lab.coordinator.kill9();
        println!("  the order service died with an order made and no answer given; rushline is killed too");
        lab.coordinator.restart().await;
        shop.restart().await;
        println!("  both are back");
    }
    let heard: Vec<Heard> = buyers.join_all().await.into_iter().collect::<anyhow::Result<_>>()?;
    let count = |what| heard.iter().filter(|heard| **heard == what).count() as u64;
    let (bought, declined, sold_out) = (count(Heard::Bought), count(Heard::Declined), count(Heard::SoldOut));
    println!("  {bought} have bought, {declined} had their card declined, {sold_out} came too late");

    let audit = settled_audit(&rushline).await?;
    let item = |name: &str| audit["items"][0][name].as_u64().with_context(|| format!("no {name} in {audit}"));
    let db = PgPool::connect(&store).await?;
    let orders: i64 = sqlx::query_scalar("SELECT count(*) FROM orders").fetch_one(&db).await?;
    let buyers: i64 = sqlx::query_scalar("SELECT count(DISTINCT buyer) FROM orders").fetch_one(&db).await?;
    let mut verdict = Verdict::default();
    verdict.same("units sold, orders in the service's database", item("sold")?, orders.unsigned_abs());
    verdict.same("units sold, units in the records", item("sold")?, item("records_units")?);
    verdict.same("units sold, buyers who heard that they have one", item("sold")?, bought);
    verdict.same("orders, buyers who have one", orders, buyers);
    verdict.same("units loaded, units left and sold", item("loaded")?, item("available")? + item("sold")?);
    verdict.same("drift in the audit", audit["drift"].to_string(), "0".into());
    Ok(verdict)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    Bought,
    Declined,
    SoldOut,
}

/// One buyer: whatever breaks, he asks again with the same key, and it is one order.
async fn buy(sale: Sale, buyer: String) -> anyhow::Result<Heard> {
    let order = sale.order(&buyer).item("lamp", 1).idempotency_key(format!("cart-of-{buyer}")).patience(PATIENCE);
    match order.place().await {
        Ok(placed) => match sale.wait_for(&placed.gid, PATIENCE).await?.status {
            OrderStatus::Succeed => Ok(Heard::Bought),
            OrderStatus::Failed => Ok(Heard::Declined),
            other => bail!("{buyer}'s order has not ended: {other:?}"),
        },
        Err(Error::OrderRefused { refusal: Refusal::SoldOut, .. }) => Ok(Heard::SoldOut),
        Err(error) => Err(error).with_context(|| format!("{buyer}'s order")),
    }
}

/// The audit, once nothing is in flight and everything is in the records.
async fn settled_audit(rushline: &str) -> anyhow::Result<Value> {
    let deadline = Instant::now() + SETTLE_MAX;
    loop {
        let (status, body) = request("GET", &format!("{rushline}/v1/sales/nov22/audit?wait_ms=2000"), "").await?;
        ensure!(status == 200, "no audit: {status} {body}");
        let audit: Value = serde_json::from_str(&body)?;
        if audit["settled"] == true {
            return Ok(audit);
        }
        ensure!(Instant::now() < deadline, "the sale did not settle in {} s: {body}", SETTLE_MAX.as_secs());
    }
}

/// What rushline sends; the rest of it is of no interest to this service.
#[derive(Deserialize)]
struct NewOrder {
    gid: String,
    sale: String,
    buyer: String,
    items: Vec<OrderItem>,
}

#[derive(Clone)]
struct Shop {
    db: PgPool,
    role: Role,
}

pub async fn serve(role: &Role) -> anyhow::Result<()> {
    let db = PgPool::connect(&role.store).await?;
    // In byte order, as `list` has it.
    let table = "CREATE TABLE IF NOT EXISTS orders (
        gid text COLLATE \"C\" PRIMARY KEY, sale text NOT NULL, buyer text NOT NULL, items jsonb NOT NULL)";
    sqlx::query(table).execute(&db).await?;
    let router =
        Router::new().route("/orders", post(make)).route("/count", get(count_of_sale)).route("/list", get(list));
    role.serve(router.with_state(Shop { db, role: role.clone() })).await
}

/// Makes an order, once per gid however often it is asked to.
async fn make(State(shop): State<Shop>, Json(order): Json<NewOrder>) -> (StatusCode, String) {
    let work = async {
        // Refused once is refused for ever: rushline may ask again.
        if order.buyer.ends_with('7') {
            return Err(BranchError::failure("card declined"));
        }
        let insert =
            "INSERT INTO orders (gid, sale, buyer, items) VALUES ($1, $2, $3, $4) ON CONFLICT (gid) DO NOTHING";
        let insert = sqlx::query(insert).bind(order.gid).bind(order.sale).bind(order.buyer).bind(Column(order.items));
        insert.execute(&shop.db).await?;
        shop.role.may_die_at("ordered");
        Ok("made")
    };
    answer(work.await)
}

#[derive(Deserialize)]
struct Asked {
    sale: String,
    #[serde(default)]
    after: String,
    #[serde(default)]
    limit: i64,
}

/// For the audit: how many orders and units there are.
async fn count_of_sale(State(shop): State<Shop>, Query(asked): Query<Asked>) -> (StatusCode, String) {
    let work = async {
        let count = "SELECT count(*) FROM orders WHERE sale = $1";
        let orders: i64 = sqlx::query_scalar(count).bind(&asked.sale).fetch_one(&shop.db).await?;
        let sums = "SELECT item->>'sku', sum((item->>'quantity')::bigint)::bigint
            FROM orders, jsonb_array_elements(items) AS item WHERE sale = $1 GROUP BY 1";
        let units: Vec<(String, i64)> = sqlx::query_as(sums).bind(&asked.sale).fetch_all(&shop.db).await?;
        let units: serde_json::Map<_, _> = units.into_iter().map(|(sku, units)| (sku, units.into())).collect();
        Ok(json!({ "orders": orders, "units": units }))
    };
    answer(work.await)
}

/// For the audit: which orders there are, page by page.
async fn list(State(shop): State<Shop>, Query(asked): Query<Asked>) -> (StatusCode, String) {
    let work = async {
        let page = "SELECT gid FROM orders WHERE sale = $1 AND gid > $2 ORDER BY gid LIMIT $3";
        let page = sqlx::query_scalar(page).bind(asked.sale).bind(asked.after).bind(asked.limit.clamp(1, 10_000));
        let gids: Vec<String> = page.fetch_all(&shop.db).await?;
        Ok(json!({ "gids": gids }))
    };
    answer(work.await)
}
