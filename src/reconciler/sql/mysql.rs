//! Records in MySQL or MariaDB.

use super::returns::MYSQL_RETURNS;
use super::row::{self, Row, Stored};
use super::transactions::MYSQL_TABLE;
use super::{ANSWER_WAIT_MAX, Migrations, PART_BYTES_MAX, address, connection, insert, pool_options, within};
use crate::reconciler::sink::Error;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlPool};
use sqlx::{ConnectOptions, Connection};
use std::str::FromStr;

/// Rows per statement; ten values each, and the protocol counts them in 16 bits.
const STATEMENT_ROWS: &[usize] = &[500, 50, 5, 1];
/// `GET_LOCK` name that guards the schema, and how long to wait for it. Locks are the server's, so the database's name
/// is added to it.
const SCHEMA_LOCK: &str = "SELECT GET_LOCK(CONCAT('rushline_schema.', LEFT(SHA1(DATABASE()), 16)), 8)";
const SCHEMA_UNLOCK: &str = "SELECT RELEASE_LOCK(CONCAT('rushline_schema.', LEFT(SHA1(DATABASE()), 16)))";
/// A row may be as large as the largest request (1 MiB) and its escapes; the server must take it in one packet.
const PACKET_BYTES_MIN: u64 = 2 * PART_BYTES_MAX as u64;

const INSERT: &str = "INSERT INTO rushline_orders \
    (gid, sale, buyer, items, payload, status, reason, attempts, admitted_at, finished_at) VALUES ";
// Not FROM_UNIXTIME: that depends on the session's time zone and ends in 2038 on older servers.
const ROW: &str = "(?,?,?,?,?,?,?,?,TIMESTAMPADD(MICROSECOND,?*1000,'1970-01-01 00:00:00'),\
    TIMESTAMPADD(MICROSECOND,?*1000,'1970-01-01 00:00:00'))";
// Not INSERT IGNORE: that would cut texts and turn every other fault into a warning too.
const KEEP: &str = " ON DUPLICATE KEY UPDATE gid = rushline_orders.gid";

macro_rules! select {
    ($condition:literal) => {
        concat!(
            "SELECT gid, buyer, CAST(items AS CHAR), payload, status, reason, attempts, ",
            "TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', admitted_at) DIV 1000, ",
            "TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', finished_at) DIV 1000 FROM rushline_orders ",
            $condition
        )
    };
}

const MIGRATIONS: Migrations = &[ORDERS, MYSQL_TABLE, MYSQL_RETURNS];
const ORDERS: &[&str] = &["CREATE TABLE IF NOT EXISTS rushline_orders (
        gid VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
        sale VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
        buyer VARCHAR(128) NOT NULL,
        items JSON NOT NULL,
        payload LONGTEXT NOT NULL,
        status VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
        reason LONGTEXT,
        attempts BIGINT NOT NULL,
        admitted_at DATETIME(3) NOT NULL,
        finished_at DATETIME(3) NOT NULL
    ) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"];

#[derive(Clone)]
pub(super) struct MySql {
    pub(super) pool: MySqlPool,
    /// Most bytes that the server takes at once.
    pub(super) packet_bytes: usize,
}

impl MySql {
    pub async fn open(url: &str) -> Result<Self, Error> {
        let options = MySqlConnectOptions::from_str(url)
            .map_err(|e| address::refused(url, &e.to_string()))?
            // Whatever the URL says: in any other, what buyers write would be replaced or refused.
            .charset("utf8mb4")
            .disable_statement_logging();
        if options.get_database().is_none() {
            return Err(address::refused(url, "names no database; end it with /rushline, say"));
        }
        let strict = "SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')";
        let pool = pool_options()
            // Without it a server set up loosely cuts a text that is too long, and says nothing.
            .after_connect(move |connection, _| {
                Box::pin(async move { sqlx::query(strict).execute(connection).await.map(|_| ()) })
            })
            .connect_lazy_with(options);
        let packet_bytes = within(ANSWER_WAIT_MAX, async { prepare(&mut *connection(&pool).await?).await }).await?;
        if packet_bytes < PACKET_BYTES_MIN {
            let problem = format!(
                "the server's max_allowed_packet is {packet_bytes}, less than a large order may need; \
                 set it to {PACKET_BYTES_MIN} or more"
            );
            return Err(address::refused(url, &problem));
        }
        Ok(Self { pool, packet_bytes: usize::try_from(packet_bytes).unwrap_or(usize::MAX) })
    }

    pub async fn write(&self, rows: &[Row<'_>]) -> Result<(), sqlx::Error> {
        let mut connection = connection(&self.pool).await?;
        let mut transaction = connection.begin().await?;
        for rows in row::statements(rows, STATEMENT_ROWS) {
            let mut query = sqlx::query(insert(INSERT, ROW, rows.len(), KEEP));
            for row in rows {
                query = row::bind_order!(query, row);
            }
            query.execute(&mut *transaction).await?;
        }
        transaction.commit().await
    }

    pub async fn read(&self, gid: &str) -> Result<Option<Stored>, sqlx::Error> {
        let query = sqlx::query_as(select!("WHERE gid = ?")).bind(gid);
        query.fetch_optional(&mut *connection(&self.pool).await?).await
    }

    pub async fn page(&self, after: &str, end: &str, limit: u32) -> Result<Vec<Stored>, sqlx::Error> {
        let query = sqlx::query_as(select!("WHERE gid > ? AND gid < ? ORDER BY gid LIMIT ?"));
        let query = query.bind(after).bind(end).bind(i64::from(limit));
        query.fetch_all(&mut *connection(&self.pool).await?).await
    }

    pub async fn tally(&self, first: &str, end: &str) -> Result<Vec<(String, i64)>, sqlx::Error> {
        sqlx::query_as("SELECT status, COUNT(*) FROM rushline_orders WHERE gid > ? AND gid < ? GROUP BY status")
            .bind(first)
            .bind(end)
            .fetch_all(&mut *connection(&self.pool).await?)
            .await
    }
}

/// Migrates the schema, looks at what the server promises, and gives its `max_allowed_packet`.
async fn prepare(connection: &mut MySqlConnection) -> Result<u64, sqlx::Error> {
    // DDL commits by itself here, so every step must bear being done twice: it may have been cut off half way.
    let (locked,): (Option<i64>,) = sqlx::query_as(SCHEMA_LOCK).fetch_one(&mut *connection).await?;
    if locked != Some(1) {
        return Err(sqlx::Error::Protocol(
            "another node has been changing the schema for 8 s; start again later".into(),
        ));
    }
    let migrated = migrate(connection).await;
    sqlx::query(SCHEMA_UNLOCK).execute(&mut *connection).await?;
    migrated?;
    let (flush, packet_bytes): (i64, i64) =
        sqlx::query_as("SELECT CAST(@@innodb_flush_log_at_trx_commit AS SIGNED), CAST(@@max_allowed_packet AS SIGNED)")
            .fetch_one(connection)
            .await?;
    if flush != 1 {
        tracing::warn!(
            "records: innodb_flush_log_at_trx_commit is {flush}: when the database's machine fails, records of the last \
             second may be lost; set it to 1"
        );
    }
    Ok(u64::try_from(packet_bytes).unwrap_or(0))
}

async fn migrate(connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
    sqlx::query("CREATE TABLE IF NOT EXISTS rushline_schema (version BIGINT NOT NULL PRIMARY KEY) ENGINE = InnoDB")
        .execute(&mut *connection)
        .await?;
    let (done,): (i64,) =
        sqlx::query_as("SELECT COALESCE(MAX(version), 0) FROM rushline_schema").fetch_one(&mut *connection).await?;
    for (version, steps) in (1i64..).zip(MIGRATIONS).filter(|(version, _)| *version > done) {
        for step in *steps {
            sqlx::query(*step).execute(&mut *connection).await?;
        }
        sqlx::query("INSERT INTO rushline_schema (version) VALUES (?)").bind(version).execute(&mut *connection).await?;
    }
    Ok(())
}
