//! Records in a SQLite file: the embedded default.
//!
//! One connection writes: SQLite has one writer at a time anyway, and one connection keeps its prepared statements.
//! Readers have their own and, thanks to the write-ahead log, neither wait for the writer nor make it wait.

use super::returns::SQLITE_RETURNS;
use super::row::{self, Row, Stored};
use super::transactions::SQLITE_TABLE;
use super::{CONNECT_WAIT_MAX, Migrations, address, insert, pool_options};
use crate::domain::order::Status;
use crate::reconciler::sink::Error;
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqliteSynchronous,
};
use sqlx::{Arguments, ConnectOptions, Connection};
use std::path::Path;
use std::str::FromStr;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Rows per statement. Measured, 120,000 orders of 110 bytes in batches of 2,000, one core: 1 row 28,000/s, 10 rows
/// 116,000/s, 100 rows 201,000/s, 500 rows 203,000/s; one JSON text taken apart by json_each 127,000/s. A table
/// WITHOUT ROWID was slower (177,000/s at 100 rows) and suffers from large payloads.
const STATEMENT_ROWS: &[usize] = &[100, 10, 1];
/// The same for rows that are alike: a fifth cheaper yet in statements of 1,000 than in those of 100.
const STATEMENT_ROWS_ALIKE: &[usize] = &[1000, 100];

/// IMMEDIATE takes the write lock at once: a transaction that began by reading could not wait for it.
pub(super) const BEGIN: &str = "BEGIN IMMEDIATE";

const INSERT: &str = "INSERT INTO rushline_orders_stored \
    (gid, sale, buyer, items, payload, status, reason, attempts, admitted_ms, finished_ms) VALUES ";
const ROW: &str = "(?,?,?,?,?,?,?,?,?,?)";
/// Rows of one sale whose orders were made at the first call: in a flash sale nearly all are like that, and half of the time
/// is spent on binding values. What they share is bound once, as a row that is joined to each, or stands in the statement.
///
/// Never by numbered parameters (`?1`): SQLite keeps their names in a list that is searched from the start for each value
/// bound, 2.7 µs a row in statements of 100. Items are not shared: 0.2 µs a row less, for sales of one SKU only.
static ALIKE: LazyLock<Vec<(usize, String)>> = LazyLock::new(|| {
    let statement = |rows: &usize| {
        let each = vec!["(?,?,?,?,?,?)"; *rows].join(",");
        let text = format!(
            "INSERT INTO rushline_orders_stored \
             (sale, gid, buyer, items, payload, admitted_ms, finished_ms, status, reason, attempts) \
             SELECT shared.*, each.*, 'succeed', NULL, 1 FROM (VALUES (?)) shared CROSS JOIN (VALUES {each}) each \
             WHERE TRUE ON CONFLICT (gid) DO NOTHING"
        );
        (*rows, text)
    };
    STATEMENT_ROWS_ALIKE.iter().map(statement).collect()
});
const SELECT: &str = "SELECT gid, buyer, items, payload, status, reason, attempts, admitted_ms, finished_ms FROM rushline_orders_stored ";

const MIGRATIONS: Migrations = &[ORDERS, SQLITE_TABLE, SQLITE_RETURNS];
/// The times as text are in a view and not in computed columns: those are computed at every insert, kept or not.
const ORDERS: &[&str] = &[
    "CREATE TABLE rushline_orders_stored (
        gid TEXT NOT NULL PRIMARY KEY,
        sale TEXT NOT NULL,
        buyer TEXT NOT NULL,
        items TEXT NOT NULL,
        payload TEXT NOT NULL,
        status TEXT NOT NULL,
        reason TEXT,
        attempts INTEGER NOT NULL,
        admitted_ms INTEGER NOT NULL,
        finished_ms INTEGER NOT NULL
    )",
    "CREATE VIEW rushline_orders AS SELECT *,
        strftime('%Y-%m-%dT%H:%M:%fZ', admitted_ms / 1000.0, 'unixepoch') AS admitted_at,
        strftime('%Y-%m-%dT%H:%M:%fZ', finished_ms / 1000.0, 'unixepoch') AS finished_at
        FROM rushline_orders_stored",
];

#[derive(Clone)]
pub(super) struct Sqlite {
    pub(super) writer: SqlitePool,
    pub(super) readers: SqlitePool,
}

impl Sqlite {
    pub async fn open(url: &str) -> Result<Self, Error> {
        let options = SqliteConnectOptions::from_str(url).map_err(|e| address::refused(url, &e.to_string()))?;
        let directory = options.get_filename().parent().unwrap_or(Path::new(""));
        std::fs::create_dir_all(directory)
            .map_err(|e| address::refused(url, &format!("its directory cannot be made: {e}")))?;
        let options = options
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // FULL: a commit is on the disk when it answers. NORMAL may lose the last ones when the power fails.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(CONNECT_WAIT_MAX)
            .disable_statement_logging();
        let mut connection = first_connection(&options).await?;
        migrate(&mut connection).await?;
        connection.close().await?;
        Ok(Self {
            writer: pool_options().max_connections(1).connect_lazy_with(options.clone()),
            readers: pool_options().connect_lazy_with(options),
        })
    }

    pub async fn write(&self, rows: &[Row<'_>]) -> Result<(), sqlx::Error> {
        let mut connection = self.writer.acquire().await?;
        let mut transaction = connection.begin_with(BEGIN).await?;
        let mut rest = rows;
        while !rest.is_empty() {
            let alike = alike_at_start(rest);
            let (rows, query) = match ALIKE.iter().find(|(count, _)| *count <= alike) {
                Some((count, statement)) => (*count, insert_alike(statement, &rest[..*count])),
                None => {
                    let rows = row::statements(rest, STATEMENT_ROWS).next().expect("one row makes a statement");
                    (rows.len(), insert_any(rows))
                }
            };
            query.execute(&mut *transaction).await?;
            rest = &rest[rows..];
        }
        transaction.commit().await
    }

    pub async fn read(&self, gid: &str) -> Result<Option<Stored>, sqlx::Error> {
        let query = select("WHERE gid = ?");
        sqlx::query_as(query).bind(gid).fetch_optional(&self.readers).await
    }

    pub async fn page(&self, after: &str, end: &str, limit: u32) -> Result<Vec<Stored>, sqlx::Error> {
        let query = select("WHERE gid > ? AND gid < ? ORDER BY gid LIMIT ?");
        sqlx::query_as(query).bind(after).bind(end).bind(i64::from(limit)).fetch_all(&self.readers).await
    }

    pub async fn tally(&self, first: &str, end: &str) -> Result<Vec<(String, i64)>, sqlx::Error> {
        sqlx::query_as("SELECT status, COUNT(*) FROM rushline_orders_stored WHERE gid > ? AND gid < ? GROUP BY status")
            .bind(first)
            .bind(end)
            .fetch_all(&self.readers)
            .await
    }
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, SqliteArguments>;

fn insert_any<'q>(rows: &'q [Row<'_>]) -> Query<'q> {
    let mut query = sqlx::query(insert(INSERT, ROW, rows.len(), " ON CONFLICT (gid) DO NOTHING"));
    for row in rows {
        query = row::bind_order!(query, row);
    }
    query
}

fn insert_alike<'q>(statement: &'static str, rows: &'q [Row<'_>]) -> Query<'q> {
    let mut values = SqliteArguments::default();
    values.reserve(1 + 6 * rows.len(), 0);
    let mut query = sqlx::query_with(statement, values).bind(rows[0].sale());
    for row in rows {
        query = query
            .bind(&row.gid)
            .bind(row.record.buyer.as_str())
            .bind(&row.items)
            .bind(&row.record.payload)
            .bind(row.admitted_ms())
            .bind(row.finished_ms());
    }
    query
}

/// How many rows, from the first on, are of one sale and were made at the first call.
fn alike_at_start(rows: &[Row<'_>]) -> usize {
    let Some(first) = rows.first() else { return 0 };
    let is_like = |row: &&Row<'_>| {
        let record = row.record;
        row.sale() == first.sale()
            && record.status == Status::Succeed
            && record.reason.is_none()
            && record.attempts == 1
    };
    rows.iter().take(STATEMENT_ROWS_ALIKE[0]).take_while(is_like).count()
}

fn select(condition: &str) -> sqlx::AssertSqlSafe<String> {
    insert(SELECT, condition, 1, "")
}

/// Connects for the first time. Turning the write-ahead log on needs the file for itself for a moment and does not
/// heed the busy timeout, so two that open a new file at once may have to try again.
async fn first_connection(options: &SqliteConnectOptions) -> Result<SqliteConnection, sqlx::Error> {
    let deadline = Instant::now() + CONNECT_WAIT_MAX;
    loop {
        match options.connect().await {
            Err(sqlx::Error::Database(e)) if e.message().contains("locked") && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            answer => return answer,
        }
    }
}

async fn migrate(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin_with(BEGIN).await?;
    sqlx::query("CREATE TABLE IF NOT EXISTS rushline_schema (version INTEGER NOT NULL PRIMARY KEY)")
        .execute(&mut *transaction)
        .await?;
    let (done,): (i64,) =
        sqlx::query_as("SELECT COALESCE(MAX(version), 0) FROM rushline_schema").fetch_one(&mut *transaction).await?;
    for (version, steps) in (1i64..).zip(MIGRATIONS).filter(|(version, _)| *version > done) {
        for step in *steps {
            sqlx::query(*step).execute(&mut *transaction).await?;
        }
        sqlx::query("INSERT INTO rushline_schema (version) VALUES (?)")
            .bind(version)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await
}
