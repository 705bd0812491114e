//! The demo order service's table: one row per gid, written by one task that commits many orders at once.
//!
//! Bodies that were checked as JSON go to SQLite as they came; `json_each` takes them apart there. One statement with
//! one argument serves a batch of any size, which is what makes this quick enough to stand behind a flash sale.

use std::path::Path;

use anyhow::Context;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection, Row, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

/// Calls that share one commit. Above a few hundred the commit is no longer what costs.
const CALLS_PER_COMMIT_MAX: usize = 512;
/// Calls that wait for the commit in progress; over it a caller waits at the door.
const WAITING_CALLS_MAX: usize = 4096;
/// Gids in one page of a listing.
const PAGE_MAX: u32 = 10_000;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS orders (
        gid TEXT PRIMARY KEY,
        sale TEXT NOT NULL,
        buyer TEXT NOT NULL,
        items TEXT NOT NULL,
        payload TEXT,
        admitted_at TEXT
    ) WITHOUT ROWID";

const INSERT: &str = "
    INSERT INTO orders (gid, sale, buyer, items, payload, admitted_at)
    SELECT value->>'gid', value->>'sale', value->>'buyer', value->'items', value->'payload', value->>'admitted_at'
    FROM json_each(?) WHERE true
    ON CONFLICT (gid) DO NOTHING";

/// One call's orders, each the JSON text of an order, and where to say which of them are new.
struct Call {
    orders: Vec<String>,
    answer: oneshot::Sender<Vec<bool>>,
}

/// The open table.
#[derive(Clone)]
pub struct OrderBook {
    calls: mpsc::Sender<Call>,
    readers: SqlitePool,
}

/// What the books say about one sale.
pub struct Count {
    pub orders: u64,
    /// Units by SKU, in the order of the SKU.
    pub units: Vec<(String, u64)>,
}

impl OrderBook {
    /// Opens or creates the file and starts the task that writes.
    pub async fn open(path: &Path) -> anyhow::Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("wal_autocheckpoint", "4000");
        let name = || format!("order book {}", path.display());
        let mut writer = SqliteConnection::connect_with(&options).await.with_context(name)?;
        sqlx::query(SCHEMA).execute(&mut writer).await.with_context(name)?;
        let readers = SqlitePoolOptions::new().max_connections(2).connect_with(options).await.with_context(name)?;
        let (calls, waiting) = mpsc::channel(WAITING_CALLS_MAX);
        tokio::spawn(write(writer, waiting));
        Ok(Self { calls, readers })
    }

    /// Commits `orders` (JSON texts with gid, sale, buyer, items) and says of each whether it is new.
    pub async fn insert(&self, orders: Vec<String>) -> anyhow::Result<Vec<bool>> {
        let (answer, news) = oneshot::channel();
        self.calls.send(Call { orders, answer }).await.ok().context("the order book is closed")?;
        news.await.context("the order book could not commit")
    }

    pub async fn count(&self, sale: &str) -> anyhow::Result<Count> {
        let orders: i64 = sqlx::query_scalar("SELECT count(*) FROM orders WHERE sale = ?")
            .bind(sale)
            .fetch_one(&self.readers)
            .await?;
        let units = sqlx::query(
            "SELECT item.value->>'sku' AS sku, sum(item.value->>'quantity') AS units
             FROM orders, json_each(orders.items) AS item WHERE sale = ? GROUP BY 1 ORDER BY 1",
        )
        .bind(sale)
        .fetch_all(&self.readers)
        .await?
        .iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get::<i64, _>(1)?.unsigned_abs())))
        .collect::<Result<_, sqlx::Error>>()?;
        Ok(Count { orders: orders.unsigned_abs(), units })
    }

    /// Up to `limit` gids of a sale after `after`, in byte order.
    pub async fn gids(&self, sale: &str, after: &str, limit: u32) -> anyhow::Result<Vec<String>> {
        Ok(sqlx::query_scalar("SELECT gid FROM orders WHERE sale = ? AND gid > ? ORDER BY gid LIMIT ?")
            .bind(sale)
            .bind(after)
            .bind(limit.min(PAGE_MAX))
            .fetch_all(&self.readers)
            .await?)
    }
}

/// Commits what came in while the last commit ran, until every [`OrderBook`] is gone.
async fn write(mut db: SqliteConnection, mut waiting: mpsc::Receiver<Call>) {
    let mut calls = Vec::new();
    while waiting.recv_many(&mut calls, CALLS_PER_COMMIT_MAX).await > 0 {
        match commit(&mut db, &calls).await {
            Ok(mut news) => {
                for call in calls.drain(..) {
                    let rest = news.split_off(call.orders.len());
                    // A caller that left does not need the answer; its order exists all the same.
                    let _ = call.answer.send(std::mem::replace(&mut news, rest));
                }
            }
            Err(error) => {
                // Dropping the answers makes each caller hear a 500 and ask again.
                tracing::error!(error = %error, orders = calls.len(), "orders could not be committed");
                calls.clear();
            }
        }
    }
}

/// Commits all orders of all calls; one flag per order, true if it is new.
async fn commit(db: &mut SqliteConnection, calls: &[Call]) -> Result<Vec<bool>, sqlx::Error> {
    let orders: Vec<&str> = calls.iter().flat_map(|call| &call.orders).map(String::as_str).collect();
    let mut transaction = db.begin().await?;
    let inserted = insert_all(&mut transaction, &orders).await?;
    if inserted == orders.len() {
        transaction.commit().await?;
        return Ok(vec![true; orders.len()]);
    }
    // Some gid was there already. Which one is only worth finding out now that it is known to matter.
    transaction.rollback().await?;
    let mut transaction = db.begin().await?;
    let mut news = Vec::with_capacity(orders.len());
    for order in &orders {
        news.push(insert_all(&mut transaction, std::slice::from_ref(order)).await? == 1);
    }
    transaction.commit().await?;
    Ok(news)
}

async fn insert_all(db: &mut SqliteConnection, orders: &[&str]) -> Result<usize, sqlx::Error> {
    let array = format!("[{}]", orders.join(","));
    let done = sqlx::query(INSERT).bind(array).execute(db).await?;
    Ok(usize::try_from(done.rows_affected()).expect("a batch fits in memory"))
}
