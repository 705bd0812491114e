//! Database and cache: prices are in MySQL, and cached in Redis. Whoever changes a price sends a two-phase message: the
//! row is changed if and only if the message is sent, and the message deletes the cached price for certain.
//!
//! One thing is left: a reader who has read the old row, and writes it into the cache after the deletion. Against these
//! slow readers the delayed deletion helps: the cached price is deleted at once and, by the message, once more later.
//!
//! In the crash the service dies before the change, and another time between the change and the submit; Redis is killed
//! before a deletion, and rushline while one is waiting for its time.

use crate::follow::has_succeeded;
use crate::lab::http::request;
use crate::lab::{Lab, Need, Service};
use crate::serving::Role;
use crate::verdict::Verdict;
use anyhow::{Context, bail, ensure};
use axum::extract::{RawQuery, State};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use redis::AsyncCommands;
use redis::aio::ConnectionManager;
use rushline::barrier::{BranchBarrier, sql};
use rushline::client::{BranchCall, BranchError, Client, StatusCode, answer};
use serde::{Deserialize, Serialize};
use sqlx::{MySqlConnection, MySqlPool};
use std::time::{Duration, Instant};

pub const ABOUT: &str = "a row in MySQL and its copy in Redis; no stale copy stays";

const CACHED: &str = "price-lamp";
const ROW: &str = "SELECT price FROM price WHERE article = 'lamp'";
/// Longer than any reader takes from the row to the cache.
const DELAY: Duration = Duration::from_secs(2);
/// The slow reader of the story is to be quicker than that. Only a machine that stands still makes it too slow.
const TRIES_MAX: u32 = 5;

#[derive(Serialize, Deserialize)]
struct Change {
    /// The caller's own, so that a change may be asked for again.
    gid: String,
    price: i64,
    /// Delete it once more after [`DELAY`].
    delayed: bool,
}

/// What a story sees: the service's address, and its stores from below.
struct Books {
    prices: String,
    client: Client,
    db: MySqlPool,
    cache: redis::Client,
}

pub async fn run(crash: bool) -> anyhow::Result<Verdict> {
    let mut lab = Lab::start(&[Need::MySql, Need::Cache]).await?;
    let (store, cache, coordinator) = (lab.url(Need::MySql)?, lab.url(Need::Cache)?, lab.coordinator.url());
    let mut arguments = vec!["--store", &store, "--cache", &cache, "--coordinator", &coordinator];
    if crash {
        arguments.extend(["--die-at", "prepared", "--die-at", "written"]);
    }
    let mut service = Service::start("cache", "prices", &arguments).await?;
    let books = Books {
        prices: service.url(),
        client: Client::http(&coordinator)?,
        db: MySqlPool::connect(&store).await?,
        cache: redis::Client::open(cache)?,
    };
    sqlx::query("INSERT INTO price VALUES ('lamp', 100)").execute(&books.db).await?;
    println!("\n  a lamp costs {}; now readers have it from the cache", books.heard().await?);

    let mut verdict = Verdict::default();
    if crash {
        let unheard = books.change("price-1", 95, false).await;
        ensure!(unheard.is_err(), "the service was to die before its change");
        service.death().await?;
        service.restart().await;
        let sent = has_succeeded(&books.client, "price-1").await?;
        println!("  changing it to 95, the service died before it wrote; the check-back ruled it out");
        verdict.same("after a death before the change: messages sent", u32::from(sent), 0);
        verdict.same("  price in MySQL, price that readers hear", books.row().await?, books.heard().await?);
    }

    let changed = books.change("price-2", 90, false).await;
    if crash {
        ensure!(changed.is_err(), "the service was to die before its submit");
        service.death().await?;
        service.restart().await;
        println!("  changing it to 90, the service died after it wrote; the check-back had the message sent");
    } else {
        changed?;
        println!("  it is changed to 90");
    }
    let sent = has_succeeded(&books.client, "price-2").await?;
    verdict.same("after the change: messages sent", u32::from(sent), 1);
    verdict.same("  price in MySQL, price that readers hear", books.row().await?, books.heard().await?);

    if crash {
        let cache = lab.cache.as_mut().context("it was asked for above")?;
        cache.kill9();
        books.change("price-3", 85, false).await?;
        cache.restart().await;
        println!("  it is changed to 85 while Redis is dead; Redis comes back, and still has 90");
        let sent = has_succeeded(&books.client, "price-3").await?;
        verdict.same("after a change without Redis: messages sent", u32::from(sent), 1);
        verdict.same("  price in MySQL, price that readers hear", books.row().await?, books.heard().await?);
    }

    let gid = books.change_beside_a_slow_reader(80).await?;
    println!("  it is changed to 80; a slow reader puts the old price back, and readers hear {}", books.heard().await?);
    if crash {
        lab.coordinator.kill9();
        lab.coordinator.restart().await;
        println!("  rushline was killed while the delayed deletion was waiting, and is back");
    }
    let sent = has_succeeded(&books.client, &gid).await?;
    verdict.same("after the delayed deletion: messages sent", u32::from(sent), 1);
    verdict.same("  price in MySQL, price that readers hear", books.row().await?, books.heard().await?);
    verdict.same("  price in MySQL, price wanted", books.row().await?, 80);
    Ok(verdict)
}

impl Books {
    async fn change(&self, gid: &str, price: i64, delayed: bool) -> anyhow::Result<()> {
        let change = serde_json::to_string(&Change { gid: gid.to_owned(), price, delayed })?;
        let (status, body) = request("POST", &format!("{}/price", self.prices), &change).await?;
        ensure!(status == 200, "the price was not changed: {status} {body}");
        Ok(())
    }

    /// Reads the row, and writes it into the cache when the price has been changed and the old one deleted.
    async fn change_beside_a_slow_reader(&self, price: i64) -> anyhow::Result<String> {
        let old = self.row().await?;
        for number in 1..=TRIES_MAX {
            let gid = format!("price-slow-{number}");
            let started = Instant::now();
            self.change(&gid, price, true).await?;
            let _: () = self.cache.get_multiplexed_async_connection().await?.set(CACHED, old).await?;
            if started.elapsed() < DELAY {
                return Ok(gid);
            }
        }
        bail!("each of {TRIES_MAX} changes took longer than {} s; is this machine standing still?", DELAY.as_secs())
    }

    async fn row(&self) -> anyhow::Result<i64> {
        Ok(sqlx::query_scalar(ROW).fetch_one(&self.db).await?)
    }

    async fn heard(&self) -> anyhow::Result<i64> {
        let (status, body) = request("GET", &format!("{}/price", self.prices), "").await?;
        ensure!(status == 200, "no price: {status} {body}");
        body.parse().with_context(|| format!("{body} is no price"))
    }
}

#[derive(Clone)]
struct Prices {
    db: MySqlPool,
    cache: ConnectionManager,
    client: Client,
    role: Role,
}

pub async fn serve(role: &Role) -> anyhow::Result<()> {
    let db = MySqlPool::connect(&role.store).await?;
    sql::create_table(&db).await?;
    let table = "CREATE TABLE IF NOT EXISTS price (article varchar(32) PRIMARY KEY, price bigint NOT NULL)";
    sqlx::query(table).execute(&db).await?;
    let cache = redis::Client::open(role.cache.as_str())?.get_connection_manager().await?;
    let prices = Prices { db, cache, client: Client::http(&role.coordinator)?, role: role.clone() };
    let router = Router::new()
        .route("/price", get(read).post(change))
        .route("/forget", post(forget))
        .route("/query-prepared", any(query_prepared));
    role.serve(router.with_state(prices)).await
}

/// From the cache or, if it is not there, from the database into the cache.
async fn read(State(mut prices): State<Prices>) -> (StatusCode, String) {
    let work = async {
        if let Some(price) = prices.cache.get::<_, Option<i64>>(CACHED).await? {
            return Ok(price);
        }
        let price: i64 = sqlx::query_scalar(ROW).fetch_one(&prices.db).await?;
        let _: () = prices.cache.set(CACHED, price).await?;
        Ok(price)
    };
    answer(work.await)
}

async fn change(State(mut prices): State<Prices>, Json(change): Json<Change>) -> (StatusCode, String) {
    let own = format!("http://127.0.0.1:{}", prices.role.port);
    let message = prices.client.msg(&change.gid).step(format!("{own}/forget"), &());
    let message = if change.delayed { message.delay(DELAY) } else { message };
    let (db, role) = (&prices.db, &prices.role);
    let sent = message.do_and_submit(format!("{own}/query-prepared"), |call| async move {
        role.may_die_at("prepared");
        let business = async |db: &mut MySqlConnection| {
            let update = "UPDATE price SET price = ? WHERE article = 'lamp'";
            sqlx::query(update).bind(change.price).execute(db).await?;
            Ok(())
        };
        BranchBarrier::new(call).call(db, business).await?;
        role.may_die_at("written");
        Ok(())
    });
    let work = async {
        sent.await?;
        if change.delayed {
            // Most readers should see the new price now. If this gets lost, the message makes up for it.
            let _: () = prices.cache.del(CACHED).await?;
        }
        Ok("changed")
    };
    answer(work.await)
}

/// A branch without a barrier: to delete twice is to delete once.
async fn forget(State(mut prices): State<Prices>) -> (StatusCode, String) {
    let work = async {
        let _: () = prices.cache.del(CACHED).await?;
        Ok("forgotten")
    };
    answer(work.await)
}

async fn query_prepared(State(prices): State<Prices>, RawQuery(query): RawQuery) -> (StatusCode, String) {
    let work = async {
        let call = BranchCall::from_query(&query.unwrap_or_default())?;
        BranchBarrier::new(call).query_prepared(&prices.db).await?;
        Ok::<_, BranchError>("it happened")
    };
    answer(work.await)
}
