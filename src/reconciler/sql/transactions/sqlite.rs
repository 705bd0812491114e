//! Finished transactions in SQLite.

use super::super::row;
use super::super::sqlite::Sqlite;
use super::super::{insert, sqlite};
use super::{Range, Row, Stored};
use sqlx::Connection;

/// Rows per statement; sixteen values each. See [`sqlite`] for what was measured with orders.
const STATEMENT_ROWS: &[usize] = &[50, 10, 1];

pub(in super::super) const TABLE: &[&str] = &[
    "CREATE TABLE rushline_transactions_stored (
        gid TEXT NOT NULL,
        trans_type TEXT NOT NULL,
        status TEXT NOT NULL,
        protocol TEXT NOT NULL,
        query_prepared TEXT NOT NULL,
        custom_data TEXT NOT NULL,
        result TEXT NOT NULL,
        rollback_reason TEXT NOT NULL,
        options TEXT NOT NULL,
        steps TEXT NOT NULL,
        branches TEXT NOT NULL,
        driver TEXT NOT NULL,
        create_ms INTEGER NOT NULL,
        update_ms INTEGER NOT NULL,
        finish_ms INTEGER,
        rollback_ms INTEGER,
        PRIMARY KEY (gid, create_ms)
    )",
    "CREATE INDEX rushline_transactions_listed ON rushline_transactions_stored (status, trans_type, create_ms, gid)",
    "CREATE INDEX rushline_transactions_updated ON rushline_transactions_stored (update_ms)",
    "CREATE VIEW rushline_transactions AS SELECT *,
        strftime('%Y-%m-%dT%H:%M:%fZ', create_ms / 1000.0, 'unixepoch') AS create_time,
        strftime('%Y-%m-%dT%H:%M:%fZ', update_ms / 1000.0, 'unixepoch') AS update_time,
        strftime('%Y-%m-%dT%H:%M:%fZ', finish_ms / 1000.0, 'unixepoch') AS finish_time,
        strftime('%Y-%m-%dT%H:%M:%fZ', rollback_ms / 1000.0, 'unixepoch') AS rollback_time
        FROM rushline_transactions_stored",
];

macro_rules! columns {
    () => {
        "gid, trans_type, status, protocol, query_prepared, custom_data, result, rollback_reason, \
         options, steps, branches, driver, create_ms, update_ms, finish_ms, rollback_ms"
    };
}

const INSERT: &str = concat!("INSERT INTO rushline_transactions_stored (", columns!(), ") VALUES ");
const ROW: &str = "(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)";
const SELECT: &str = concat!("SELECT ", columns!(), " FROM rushline_transactions_stored WHERE gid IN (");
const LIST: &str = "SELECT create_ms, gid FROM rushline_transactions_stored \
    WHERE status = ? AND trans_type = ? AND create_ms >= ? AND create_ms <= ? AND (create_ms < ? OR gid < ?) \
    ORDER BY create_ms DESC, gid DESC LIMIT ?";

impl Sqlite {
    pub(in super::super) async fn write_transactions(&self, rows: &[Row]) -> Result<(), sqlx::Error> {
        let mut connection = self.writer.acquire().await?;
        let mut transaction = connection.begin_with(sqlite::BEGIN).await?;
        for rows in row::statements(rows, STATEMENT_ROWS) {
            let mut query = sqlx::query(insert(INSERT, ROW, rows.len(), " ON CONFLICT (gid, create_ms) DO NOTHING"));
            for row in rows {
                query = bind_row!(query, row);
            }
            query.execute(&mut *transaction).await?;
        }
        transaction.commit().await
    }

    pub(in super::super) async fn read_transactions(&self, gids: &[String]) -> Result<Vec<Stored>, sqlx::Error> {
        let mut query = sqlx::query_as(insert(SELECT, "?", gids.len(), ")"));
        for gid in gids {
            query = query.bind(gid);
        }
        query.fetch_all(&self.readers).await
    }

    pub(in super::super) async fn list_transactions(
        &self,
        range: Range<'_>,
    ) -> Result<Vec<(i64, String)>, sqlx::Error> {
        bind_range!(sqlx::query_as(LIST), range).fetch_all(&self.readers).await
    }
}
