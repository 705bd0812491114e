//! Records in SQLite, PostgreSQL, MySQL or MariaDB: one table, `rushline_orders`, one row per finished order.
//!
//! | column                     | SQLite        | PostgreSQL         | MySQL, MariaDB         |
//! | -------------------------- | ------------- | ------------------ | ---------------------- |
//! | `gid`, the primary key     | TEXT          | TEXT COLLATE "C"   | VARCHAR(128) ascii_bin |
//! | `sale`, `buyer`            | TEXT          | TEXT               | VARCHAR, utf8mb4_bin   |
//! | `items` `[{sku,quantity}]` | TEXT, JSON    | JSONB              | JSON                   |
//! | `payload`                  | TEXT          | TEXT               | LONGTEXT               |
//! | `status`, `reason`         | TEXT          | TEXT               | VARCHAR(16), LONGTEXT  |
//! | `attempts`                 | INTEGER       | BIGINT             | BIGINT                 |
//! | `admitted_at`              | see below     | TIMESTAMPTZ(3)     | DATETIME(3), in UTC    |
//! | `finished_at`              | see below     | TIMESTAMPTZ(3)     | DATETIME(3), in UTC    |
//!
//! SQLite has no time type: its table is `rushline_orders_stored`, whose `admitted_ms` and `finished_ms` hold milliseconds
//! since 1970. There `rushline_orders` is a view that adds `admitted_at` and `finished_at` as texts like
//! `2026-11-22T10:00:00.123Z`, so that one report runs on all.
//!
//! The payload is text and not the database's JSON: PostgreSQL's JSONB refuses `"\u0000"`, MySQL's JSON refuses deep
//! nesting and odd surrogates and reorders keys. A buyer may send all of that, and nothing that a buyer sends may make
//! a write fail for ever. Whoever reports on it casts it (`payload::jsonb ->> 'coupon'`).
//!
//! There is no index but the primary key. A sale's gids share the prefix `<sale>.`, so pages and sums are ranges of it.
//!
//! Finished global transactions have a table of their own: see `transactions/`.
//!
//! See `row.rs` for what all three share, and `sqlite.rs`, `postgres.rs`, `mysql.rs` for what differs.

mod mysql;
mod postgres;
mod returns;
pub(super) mod row;
mod search;
mod sqlite;
mod transactions;

use self::row::{Row, Stored};
use super::address;
use super::sink::{Error, Tally};
use crate::domain::ids::{Gid, SaleName};
use crate::domain::order::Record;
use std::future::Future;
use std::time::Duration;

/// How long to wait for a connection, connecting included. A database that is down is reported after this.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(3);
/// How long one statement, or one part of a write, may take; beyond, the database counts as not answering.
/// A part is at most [`PART_BYTES_MAX`], which a healthy server stores in a tenth of this.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);
/// Counting a sale of millions reads its whole range.
const TALLY_WAIT_MAX: Duration = Duration::from_secs(60);
/// Most bytes that one part of a write carries: a transaction in SQLite and MySQL, a statement in PostgreSQL. Below
/// what MySQL takes in one packet by default, large enough that 2,000 usual orders share one fsync.
const PART_BYTES_MAX: usize = 2 * 1024 * 1024;
/// How often a write is tried again at once when the database asks for it (deadlock, serialization failure).
const ATTEMPTS_MAX: u32 = 3;
/// One writer, and a few readers for `GET /v1/orders` and the audit.
const CONNECTIONS_MAX: u32 = 4;

/// Records in a SQL database.
#[derive(Clone)]
pub struct Sql {
    database: Database,
}

#[derive(Clone)]
enum Database {
    Sqlite(sqlite::Sqlite),
    Postgres(postgres::Postgres),
    MySql(mysql::MySql),
}

/// Does the same with whichever database there is; their methods have the same names.
macro_rules! with {
    ($sql:expr, $database:ident => $call:expr) => {
        match &$sql.database {
            Database::Sqlite($database) => $call,
            Database::Postgres($database) => $call,
            Database::MySql($database) => $call,
        }
    };
}
use with;

impl Sql {
    /// Connects, and creates or migrates the schema. Two that do so at once wait for each other.
    pub async fn open(url: &str) -> Result<Self, Error> {
        let database = match url.split(':').next().unwrap_or_default() {
            "sqlite" => Database::Sqlite(sqlite::Sqlite::open(url).await?),
            "postgres" | "postgresql" => Database::Postgres(postgres::Postgres::open(url).await?),
            "mysql" | "mariadb" => Database::MySql(mysql::MySql::open(url).await?),
            _ => return Err(address::refused(url, "must start with sqlite:, postgres:// or mysql://")),
        };
        Ok(Self { database })
    }

    pub fn kind(&self) -> &'static str {
        match &self.database {
            Database::Sqlite(_) => "SQLite",
            Database::Postgres(_) => "PostgreSQL",
            Database::MySql(_) => "MySQL",
        }
    }

    /// Writes all `records` durably; those already there stay as they are.
    ///
    /// A row that the database refuses by itself does not hold up the others: its part is halved until it stands alone.
    pub async fn write(&self, records: &[Record]) -> Result<(), Error> {
        let rows = Row::sorted(records);
        let mut refused = None;
        for part in row::parts(&rows, PART_BYTES_MAX, Row::bytes) {
            let mut open = vec![part];
            while let Some(rows) = open.pop() {
                match with!(self, database => again(|| database.write(rows)).await) {
                    Err(error) if blames_a_row(&error) && rows.len() > 1 => {
                        let (front, back) = rows.split_at(rows.len() / 2);
                        open.extend([back, front]);
                    }
                    Err(error) if blames_a_row(&error) => {
                        let refusal = Error::Refused { gid: rows[0].gid.clone(), reason: error.to_string() };
                        refused.get_or_insert(refusal);
                    }
                    answer => answer?,
                }
            }
        }
        refused.map_or(Ok(()), Err)
    }

    pub async fn read(&self, gid: &Gid) -> Result<Option<Record>, Error> {
        let gid = gid.to_string();
        let stored = with!(self, database => within(ANSWER_WAIT_MAX, database.read(&gid)).await)?;
        stored.map(row::record).transpose()
    }

    /// Up to `limit` records of a sale with a gid after `after`, in the byte order of the gid.
    pub async fn page(&self, sale: &SaleName, after: Option<&str>, limit: u32) -> Result<Vec<Record>, Error> {
        let (first, end) = row::range(sale);
        let after = after.map_or(first.as_str(), |after| after.max(&first));
        let stored: Vec<Stored> =
            with!(self, database => within(ANSWER_WAIT_MAX, database.page(after, &end, limit)).await)?;
        stored.into_iter().map(row::record).collect()
    }

    pub async fn tally(&self, sale: &SaleName) -> Result<Tally, Error> {
        let (first, end) = row::range(sale);
        let counts = with!(self, database => within(TALLY_WAIT_MAX, database.tally(&first, &end)).await)?;
        let count = |status| {
            let found = counts.iter().find(|(name, _)| name == status);
            found.map_or(0, |(_, n)| u64::try_from(*n).unwrap_or(0))
        };
        Ok(Tally { succeed: count("succeed"), failed: count("failed") })
    }
}

/// Bounds a wait: a server that took the connection and says nothing is as good as down.
async fn within<T>(wait: Duration, work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    tokio::time::timeout(wait, work).await.unwrap_or_else(|_| {
        let message = format!("the database did not answer within {} s", wait.as_secs());
        Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, message)))
    })
}

/// Writes one part, again if the database itself asks for that. Safe, since writing is idempotent.
async fn again<F>(write: impl Fn() -> F) -> Result<(), sqlx::Error>
where
    F: Future<Output = Result<(), sqlx::Error>>,
{
    let mut attempt = 1;
    loop {
        match within(ANSWER_WAIT_MAX, write()).await {
            Err(error) if attempt < ATTEMPTS_MAX && asks_again(&error) => attempt += 1,
            answer => return answer,
        }
    }
}

/// Class 40 of the SQL states is "transaction rollback": deadlock, serialization failure.
fn asks_again(error: &sqlx::Error) -> bool {
    let state = error.as_database_error().and_then(|e| e.code());
    state.is_some_and(|state| state.starts_with("40"))
}

/// Whether the fault lies in what a row holds and not in the server. Of the SQL states these are the classes 22 (data),
/// 23 (constraint), 45 (raised by a trigger) and 54 (too large); of SQLite's codes 18 (too large) and 19 (constraint),
/// which have the kind of constraint in their higher bits.
fn blames_a_row(error: &sqlx::Error) -> bool {
    let Some(code) = error.as_database_error().and_then(|e| e.code()) else { return false };
    match code.len() {
        5 => ["22", "23", "45", "54"].contains(&&code[..2]),
        _ => code.parse().is_ok_and(|code: u32| matches!(code & 0xff, 18 | 19)),
    }
}

/// A pool that bounds its waits and connects anew whenever it must.
fn pool_options<DB: sqlx::Database>() -> sqlx::pool::PoolOptions<DB> {
    sqlx::pool::PoolOptions::new().max_connections(CONNECTIONS_MAX).acquire_timeout(CONNECT_WAIT_MAX)
}

/// A connection of `pool`. The pool keeps trying a server that refuses and then says only that time is up; the reason
/// is what an operator needs, so it is asked for once more.
async fn connection<DB: sqlx::Database>(pool: &sqlx::Pool<DB>) -> Result<sqlx::pool::PoolConnection<DB>, sqlx::Error> {
    use sqlx::ConnectOptions;
    match pool.acquire().await {
        Err(sqlx::Error::PoolTimedOut) => {
            let options = pool.connect_options();
            match tokio::time::timeout(Duration::from_secs(1), options.connect()).await {
                Ok(Err(reason)) => Err(reason),
                _ => Err(sqlx::Error::PoolTimedOut),
            }
        }
        answer => answer,
    }
}

/// `start`, then `row` as often as there are `rows`, with commas between, then `end`. Made of constants only, which is
/// what makes it safe as SQL.
fn insert(start: &str, row: &str, rows: usize, end: &str) -> sqlx::AssertSqlSafe<String> {
    sqlx::AssertSqlSafe(format!("{start}{}{end}", vec![row; rows].join(",")))
}

/// The steps of a migration that brings the schema to the version of its place in the list, 1 being the first. To
/// change the schema, add to the end; what has been released is never edited.
type Migrations = &'static [&'static [&'static str]];
