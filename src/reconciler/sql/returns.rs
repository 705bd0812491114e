//! What came back after the sale: a table of its own, `rushline_returns`, with one row per order of which units came back.
//!
//! | column  | SQLite    | PostgreSQL       | MySQL, MariaDB         |
//! | ------- | --------- | ---------------- | ---------------------- |
//! | `gid`   | TEXT      | TEXT COLLATE "C" | VARCHAR(128) ascii_bin |
//! | `sale`  | TEXT      | TEXT             | VARCHAR(64)            |
//! | `items` | TEXT/JSON | JSONB            | JSON                   |
//! | `units` | INTEGER   | BIGINT           | BIGINT                 |
//!
//! A row has all that came back of its order so far, and only ever grows: an older sum that is written late, by a node that
//! slept, changes nothing. It may be there before the order itself is.

use super::mysql::MySql;
use super::postgres::Postgres;
use super::sqlite::Sqlite;
use super::{ANSWER_WAIT_MAX, Database, Sql, again, connection, with, within};
use crate::domain::ids::SaleName;
use crate::domain::order::Item;
use crate::reconciler::sink::{Error, Returned};

pub(super) const SQLITE_RETURNS: &[&str] = &["CREATE TABLE rushline_returns (
        gid TEXT NOT NULL PRIMARY KEY,
        sale TEXT NOT NULL,
        items TEXT NOT NULL,
        units INTEGER NOT NULL
    )"];
pub(super) const POSTGRES_RETURNS: &[&str] = &["CREATE TABLE rushline_returns (
        gid TEXT COLLATE \"C\" NOT NULL PRIMARY KEY,
        sale TEXT NOT NULL,
        items JSONB NOT NULL,
        units BIGINT NOT NULL
    )"];
pub(super) const MYSQL_RETURNS: &[&str] = &["CREATE TABLE IF NOT EXISTS rushline_returns (
        gid VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
        sale VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
        items JSON NOT NULL,
        units BIGINT NOT NULL
    ) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"];

/// A row on its way in: gid, sale, items as JSON, units.
struct Row {
    gid: String,
    sale: SaleName,
    items: String,
    units: i64,
}

impl Sql {
    /// Writes what came back of these orders, durably.
    pub async fn write_returns(&self, returned: &[Returned]) -> Result<(), Error> {
        for each in returned {
            let row = Row {
                gid: each.gid.to_string(),
                sale: each.gid.sale.clone(),
                items: serde_json::to_string(&each.items).expect("items are strings and numbers"),
                units: each.units(),
            };
            with!(self, database => again(|| database.write_return(&row)).await)?;
        }
        Ok(())
    }

    /// What came back of the orders between two gids, both included.
    pub async fn returns_between(&self, first: &str, last: &str) -> Result<Vec<(String, Vec<Item>)>, Error> {
        let rows: Vec<(String, String)> =
            with!(self, database => within(ANSWER_WAIT_MAX, database.returns_between(first, last)).await)?;
        rows.into_iter()
            .map(|(gid, items)| match super::row::items(&items) {
                Ok(items) => Ok((gid, items)),
                Err(problem) => Err(Error::Malformed { gid, problem }),
            })
            .collect()
    }
}

impl Sqlite {
    async fn write_return(&self, row: &Row) -> Result<(), sqlx::Error> {
        sqlx::query(
            "INSERT INTO rushline_returns (gid, sale, items, units) VALUES (?, ?, ?, ?) ON CONFLICT (gid) DO UPDATE \
             SET items = excluded.items, units = excluded.units WHERE rushline_returns.units < excluded.units",
        )
        .bind(&row.gid)
        .bind(row.sale.as_str())
        .bind(&row.items)
        .bind(row.units)
        .execute(&self.writer)
        .await
        .map(|_| ())
    }

    async fn returns_between(&self, first: &str, last: &str) -> Result<Vec<(String, String)>, sqlx::Error> {
        sqlx::query_as("SELECT gid, items FROM rushline_returns WHERE gid >= ? AND gid <= ?")
            .bind(first)
            .bind(last)
            .fetch_all(&self.readers)
            .await
    }
}

impl Postgres {
    async fn write_return(&self, row: &Row) -> Result<(), sqlx::Error> {
        sqlx::query(
            "INSERT INTO rushline_returns (gid, sale, items, units) VALUES ($1, $2, $3::jsonb, $4) \
             ON CONFLICT (gid) DO UPDATE SET items = EXCLUDED.items, units = EXCLUDED.units \
             WHERE rushline_returns.units < EXCLUDED.units",
        )
        .bind(&row.gid)
        .bind(row.sale.as_str())
        .bind(&row.items)
        .bind(row.units)
        .execute(&mut *connection(&self.pool).await?)
        .await
        .map(|_| ())
    }

    async fn returns_between(&self, first: &str, last: &str) -> Result<Vec<(String, String)>, sqlx::Error> {
        sqlx::query_as("SELECT gid, items::text FROM rushline_returns WHERE gid >= $1 AND gid <= $2")
            .bind(first)
            .bind(last)
            .fetch_all(&mut *connection(&self.pool).await?)
            .await
    }
}

impl MySql {
    async fn write_return(&self, row: &Row) -> Result<(), sqlx::Error> {
        // In this order: the second assignment already sees the units as the first one found them.
        sqlx::query(
            "INSERT INTO rushline_returns (gid, sale, items, units) VALUES (?, ?, ?, ?) ON DUPLICATE KEY UPDATE \
             items = IF(VALUES(units) > units, VALUES(items), items), units = GREATEST(units, VALUES(units))",
        )
        .bind(&row.gid)
        .bind(row.sale.as_str())
        .bind(&row.items)
        .bind(row.units)
        .execute(&mut *connection(&self.pool).await?)
        .await
        .map(|_| ())
    }

    async fn returns_between(&self, first: &str, last: &str) -> Result<Vec<(String, String)>, sqlx::Error> {
        sqlx::query_as("SELECT gid, CAST(items AS CHAR) FROM rushline_returns WHERE gid >= ? AND gid <= ?")
            .bind(first)
            .bind(last)
            .fetch_all(&mut *connection(&self.pool).await?)
            .await
    }
}
