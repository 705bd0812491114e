//! Records in PostgreSQL.
//!
//! A part of a write is one statement over arrays: one plan, one round trip and one commit, whatever its length.

use super::returns::POSTGRES_RETURNS;
use super::row::{Row, Stored};
use super::transactions::POSTGRES_TABLE;
use super::{ANSWER_WAIT_MAX, Migrations, address, connection, pool_options, within};
use crate::reconciler::sink::Error;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool};
use sqlx::{ConnectOptions, Connection};
use std::borrow::Cow;
use std::str::FromStr;

/// `pg_advisory_xact_lock` key that guards the schema: "rushline" in ASCII.
const SCHEMA_LOCK: i64 = 0x7275_7368_6c69_6e65;

const INSERT: &str = "INSERT INTO rushline_orders \
    (gid, sale, buyer, items, payload, status, reason, attempts, admitted_at, finished_at) \
    SELECT gid, sale, buyer, items::jsonb, payload, status, reason, attempts, \
        timestamptz 'epoch' + admitted_ms * interval '1 millisecond', \
        timestamptz 'epoch' + finished_ms * interval '1 millisecond' \
    FROM UNNEST($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[], \
        $9::bigint[], $10::bigint[]) \
        AS new (gid, sale, buyer, items, payload, status, reason, attempts, admitted_ms, finished_ms) \
    ON CONFLICT (gid) DO NOTHING";

macro_rules! select {
    ($condition:literal) => {
        concat!(
            "SELECT gid, buyer, items::text, payload, status, reason, attempts, ",
            "ROUND(EXTRACT(EPOCH FROM admitted_at) * 1000)::bigint, ",
            "ROUND(EXTRACT(EPOCH FROM finished_at) * 1000)::bigint FROM rushline_orders ",
            $condition
        )
    };
}

const MIGRATIONS: Migrations = &[ORDERS, POSTGRES_TABLE, POSTGRES_RETURNS];
const ORDERS: &[&str] = &["CREATE TABLE rushline_orders (
        gid TEXT COLLATE \"C\" NOT NULL PRIMARY KEY,
        sale TEXT NOT NULL,
        buyer TEXT NOT NULL,
        items JSONB NOT NULL,
        payload TEXT NOT NULL,
        status TEXT NOT NULL,
        reason TEXT,
        attempts BIGINT NOT NULL,
        admitted_at TIMESTAMPTZ(3) NOT NULL,
        finished_at TIMESTAMPTZ(3) NOT NULL
    )"];

#[derive(Clone)]
pub(super) struct Postgres {
    pub(super) pool: PgPool,
}

impl Postgres {
    pub async fn open(url: &str) -> Result<Self, Error> {
        let options = PgConnectOptions::from_str(url)
            .map_err(|e| address::refused(url, &e.to_string()))?
            .application_name("rushline")
            // A commit is on the disk when it answers, whatever the database or the role has as its default.
            .options([("synchronous_commit", "on")])
            .disable_statement_logging();
        let pool = pool_options().connect_lazy_with(options);
        let encoding = within(ANSWER_WAIT_MAX, async { prepare(&mut *connection(&pool).await?).await }).await?;
        if encoding != "UTF8" {
            let problem = format!(
                "the database's encoding is {encoding}, which cannot hold what buyers write; create it with ENCODING 'UTF8'"
            );
            return Err(address::refused(url, &problem));
        }
        Ok(Self { pool })
    }

    pub async fn write(&self, rows: &[Row<'_>]) -> Result<(), sqlx::Error> {
        let query = sqlx::query(INSERT)
            .bind(column(rows, |row| row.gid.as_str()))
            .bind(column(rows, Row::sale))
            .bind(column(rows, |row| row.record.buyer.as_str()))
            .bind(column(rows, |row| row.items.as_str()))
            .bind(column(rows, |row| without_nul(&row.record.payload)))
            .bind(column(rows, |row| row.record.status.as_str()))
            .bind(column(rows, |row| row.record.reason.as_deref().map(without_nul)))
            .bind(column(rows, Row::attempts))
            .bind(column(rows, Row::admitted_ms))
            .bind(column(rows, Row::finished_ms));
        query.execute(&mut *connection(&self.pool).await?).await?;
        Ok(())
    }

    pub async fn read(&self, gid: &str) -> Result<Option<Stored>, sqlx::Error> {
        let query = sqlx::query_as(select!("WHERE gid = $1")).bind(gid);
        query.fetch_optional(&mut *connection(&self.pool).await?).await
    }

    pub async fn page(&self, after: &str, end: &str, limit: u32) -> Result<Vec<Stored>, sqlx::Error> {
        let query = sqlx::query_as(select!("WHERE gid > $1 AND gid < $2 ORDER BY gid LIMIT $3"));
        let query = query.bind(after).bind(end).bind(i64::from(limit));
        query.fetch_all(&mut *connection(&self.pool).await?).await
    }

    pub async fn tally(&self, first: &str, end: &str) -> Result<Vec<(String, i64)>, sqlx::Error> {
        sqlx::query_as("SELECT status, COUNT(*) FROM rushline_orders WHERE gid > $1 AND gid < $2 GROUP BY status")
            .bind(first)
            .bind(end)
            .fetch_all(&mut *connection(&self.pool).await?)
            .await
    }
}

pub(super) fn column<'r, R, T>(rows: &'r [R], value: impl Fn(&'r R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

/// PostgreSQL's text holds every character but NUL. A payload has none, being JSON; what an order service gives as its
/// reason may, and must not make the write fail for ever.
fn without_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// Migrates the schema, looks at what the server promises, and gives the encoding of the database.
async fn prepare(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    migrate(connection).await?;
    let (fsync, encoding): (String, String) =
        sqlx::query_as("SELECT current_setting('fsync'), current_setting('server_encoding')")
            .fetch_one(connection)
            .await?;
    if fsync != "on" {
        tracing::warn!(
            "records: PostgreSQL's fsync is {fsync}: when its machine fails, records may be lost; set it to on"
        );
    }
    Ok(encoding)
}

/// In one transaction, since PostgreSQL's DDL can be rolled back; the lock ends with it.
async fn migrate(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(SCHEMA_LOCK).execute(&mut *transaction).await?;
    let (there,): (bool,) =
        sqlx::query_as("SELECT to_regclass('rushline_schema') IS NOT NULL").fetch_one(&mut *transaction).await?;
    if !there {
        sqlx::query("CREATE TABLE rushline_schema (version BIGINT NOT NULL PRIMARY KEY)")
            .execute(&mut *transaction)
            .await?;
    }
    let (done,): (i64,) =
        sqlx::query_as("SELECT COALESCE(MAX(version), 0) FROM rushline_schema").fetch_one(&mut *transaction).await?;
    for (version, steps) in (1i64..).zip(MIGRATIONS).filter(|(version, _)| *version > done) {
        for step in *steps {
            sqlx::query(*step).execute(&mut *transaction).await?;
        }
        sqlx::query("INSERT INTO rushline_schema (version) VALUES ($1)")
            .bind(version)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await
}
