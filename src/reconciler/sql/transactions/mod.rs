//! Finished global transactions in SQL: one table, `rushline_transactions`, one row per transaction.
//!
//! | column                                      | SQLite     | PostgreSQL       | MySQL, MariaDB         |
//! | ------------------------------------------- | ---------- | ---------------- | ---------------------- |
//! | `gid`; primary key with `create_time`       | TEXT       | TEXT COLLATE "C" | VARCHAR(128) ascii_bin |
//! | `trans_type`, `status`, `protocol`          | TEXT       | TEXT             | VARCHAR(16) ascii_bin  |
//! | `query_prepared`, `custom_data`, `result`, `rollback_reason` | TEXT | TEXT  | LONGTEXT               |
//! | `options`, `steps`, `branches`, `driver`    | TEXT, JSON | JSONB            | JSON                   |
//! | `create_time`, `update_time`                | see below  | TIMESTAMPTZ(3)   | DATETIME(3), in UTC    |
//! | `finish_time`, `rollback_time`, may be null | see below  | TIMESTAMPTZ(3)   | DATETIME(3), in UTC    |
//!
//! As with orders, SQLite's table is `rushline_transactions_stored` with times as milliseconds (`create_ms` …), and
//! `rushline_transactions` a view that adds them as texts.
//!
//! **Branches are a list in their transaction's row**, not rows of their own: a transaction is written and read whole,
//! in one statement that either happened or did not, and costs one row where a table of branches would cost five for
//! the usual saga. All four databases unfold such a list in a query; docs/records.md shows how.
//!
//! **Time of creation is part of the key**: a gid is free again some time after its transaction has left Redis, and what
//! is then done under it is another transaction. Both are kept; the younger one answers for the gid.
//!
//! Two indexes: (status, trans_type, create_time, gid) serves every list, a range for each pair of the first two, and
//! (update_time) serves whoever deletes what is old.

/// Binds a row's values, in the order of the columns. A macro, for each database has types of its own for a query.
macro_rules! bind_row {
    ($query:expr, $row:expr) => {
        $query
            .bind(&$row.kept.gid)
            .bind(&$row.kept.trans_type)
            .bind(&$row.kept.status)
            .bind(&$row.kept.protocol)
            .bind(&$row.kept.query_prepared)
            .bind(&$row.kept.custom_data)
            .bind(&$row.kept.result)
            .bind(&$row.kept.rollback_reason)
            .bind(&$row.options)
            .bind(&$row.steps)
            .bind(&$row.branches)
            .bind(&$row.driver)
            .bind($row.create_ms())
            .bind($row.update_ms())
            .bind($row.finish_ms())
            .bind($row.rollback_ms())
    };
}

/// Binds what a list asks for, in the order of each `LIST`.
macro_rules! bind_range {
    ($query:expr, $range:expr) => {
        $query
            .bind($range.status)
            .bind($range.trans_type)
            .bind($range.low_ms)
            .bind($range.high_ms)
            .bind($range.after_ms)
            .bind($range.after_gid)
            .bind($range.limit)
    };
}

mod mysql;
mod postgres;
mod sqlite;

pub(super) use mysql::TABLE as MYSQL_TABLE;
pub(super) use postgres::TABLE as POSTGRES_TABLE;
pub(super) use sqlite::TABLE as SQLITE_TABLE;

use super::row::{self, CLOCK_MS_MAX, clock};
use super::{ANSWER_WAIT_MAX, Database, PART_BYTES_MAX, Sql, again, blames_a_row, with, within};
use crate::domain::trans::{Global, GlobalStatus, TransType};
use crate::reconciler::sink::{Error, Unwritten};
use crate::reconciler::transaction::Transaction;
use crate::store::trans::Filter;
use serde::de::DeserializeOwned;
use std::borrow::Borrow;

/// What a row takes beside its texts.
const ROW_BYTES: usize = 512;
/// Gids asked for by one statement.
const GIDS_MAX: usize = 200;

/// A transaction with its lists as JSON.
pub(super) struct Row {
    pub kept: Transaction,
    pub options: String,
    pub steps: String,
    pub branches: String,
    pub driver: String,
}

impl Row {
    fn new(global: &Global) -> Self {
        let kept = Transaction::from(global);
        let json = |list: Result<String, serde_json::Error>| list.expect("a transaction is plain data");
        Self {
            options: json(serde_json::to_string(&kept.options)),
            steps: json(serde_json::to_string(&kept.steps)),
            branches: json(serde_json::to_string(&kept.branches)),
            driver: json(serde_json::to_string(&kept.driver)),
            kept,
        }
    }

    pub fn create_ms(&self) -> i64 {
        clock(self.kept.create_ms)
    }

    pub fn update_ms(&self) -> i64 {
        clock(self.kept.update_ms)
    }

    pub fn finish_ms(&self) -> Option<i64> {
        self.kept.finish_ms.map(clock)
    }

    pub fn rollback_ms(&self) -> Option<i64> {
        self.kept.rollback_ms.map(clock)
    }

    fn bytes(&self) -> usize {
        let kept = &self.kept;
        let texts = [&kept.query_prepared, &kept.custom_data, &kept.result, &kept.rollback_reason];
        let lists = [&self.options, &self.steps, &self.branches, &self.driver];
        ROW_BYTES + texts.into_iter().chain(lists).map(String::len).sum::<usize>()
    }
}

/// A row as all three databases give it back: the columns in the order of [`Row`], then the times in milliseconds:
/// creation, update, finish, rollback.
pub(super) type Stored = (
    String,
    String,
    String,
    String,
    String,
    String,
    String,
    String,
    String,
    String,
    String,
    String,
    i64,
    i64,
    Option<i64>,
    Option<i64>,
);

fn global(stored: Stored) -> Result<Global, Error> {
    #[rustfmt::skip]
    let (
        gid, trans_type, status, protocol, query_prepared, custom_data, result, rollback_reason,
        options, steps, branches, driver, create_ms, update_ms, finish_ms, rollback_ms,
    ) = stored;
    fn list<T: DeserializeOwned>(gid: &str, column: &str, json: &str) -> Result<T, Error> {
        serde_json::from_str(json)
            .map_err(|error| Error::Malformed { gid: gid.to_owned(), problem: format!("{column}: {error}") })
    }
    let ms = |ms: i64| u64::try_from(ms).unwrap_or(0);
    let kept = Transaction {
        options: list(&gid, "options", &options)?,
        steps: list(&gid, "steps", &steps)?,
        branches: list(&gid, "branches", &branches)?,
        driver: list(&gid, "driver", &driver)?,
        gid,
        trans_type,
        status,
        protocol,
        query_prepared,
        custom_data,
        result,
        rollback_reason,
        create_ms: ms(create_ms),
        update_ms: ms(update_ms),
        finish_ms: finish_ms.map(ms),
        rollback_ms: rollback_ms.map(ms),
    };
    kept.into_global()
}

/// One range of a list: what is older than `after`, not older than `low_ms`.
#[derive(Clone, Copy)]
pub(super) struct Range<'a> {
    pub status: &'static str,
    pub trans_type: &'static str,
    pub low_ms: i64,
    pub high_ms: i64,
    pub after_ms: i64,
    pub after_gid: &'a str,
    pub limit: i64,
}

impl Sql {
    /// Writes finished transactions durably; those already there stay as they are. Those that the database refuses by
    /// themselves are named, and all others are written.
    pub async fn write_transactions(&self, globals: &[impl Borrow<Global> + Sync]) -> Result<Vec<Unwritten>, Error> {
        let mut rows: Vec<Row> = globals.iter().map(|global| Row::new(global.borrow())).collect();
        rows.sort_unstable_by(|a, b| (&a.kept.gid, a.kept.create_ms).cmp(&(&b.kept.gid, b.kept.create_ms)));
        let mut refused = Vec::new();
        if let Database::MySql(database) = &self.database {
            // It would cut the connection, and not say whose fault that was.
            rows.retain(|row| {
                let fits = row.bytes() <= database.packet_bytes;
                if !fits {
                    let reason = format!(
                        "it takes {} bytes, and max_allowed_packet is {}; set that higher, and start again",
                        row.bytes(),
                        database.packet_bytes
                    );
                    refused.push(Unwritten { gid: row.kept.gid.clone(), reason });
                }
                fits
            });
        }
        for part in row::parts(&rows, PART_BYTES_MAX, Row::bytes) {
            let mut open = vec![part];
            while let Some(rows) = open.pop() {
                match with!(self, database => again(|| database.write_transactions(rows)).await) {
                    Err(error) if blames_a_row(&error) && rows.len() > 1 => {
                        let (front, back) = rows.split_at(rows.len() / 2);
                        open.extend([back, front]);
                    }
                    Err(error) if blames_a_row(&error) => {
                        refused.push(Unwritten { gid: rows[0].kept.gid.clone(), reason: error.to_string() });
                    }
                    answer => answer?,
                }
            }
        }
        Ok(refused)
    }

    /// Every transaction that there was under these gids.
    pub async fn read_transactions(&self, gids: &[String]) -> Result<Vec<Global>, Error> {
        let mut found = Vec::with_capacity(gids.len());
        for gids in gids.chunks(GIDS_MAX) {
            let rows = with!(self, database => within(ANSWER_WAIT_MAX, database.read_transactions(gids)).await)?;
            for stored in rows {
                found.push(global(stored)?);
            }
        }
        Ok(found)
    }

    /// Times of creation and gids, newest first, by the index alone.
    pub async fn list_transactions(&self, filter: &Filter) -> Result<Vec<(u64, String)>, Error> {
        let statuses = filter.status.map_or(GlobalStatus::ALL.to_vec(), |status| vec![status]);
        let types = filter.trans_type.map_or(TransType::ALL.to_vec(), |trans_type| vec![trans_type]);
        let (after_ms, after_gid) = match &filter.after {
            Some((ms, gid)) => (clock(*ms), gid.as_str()),
            None => (clock(CLOCK_MS_MAX), "~"), // behind every gid
        };
        let mut found = Vec::new();
        for status in statuses.into_iter().filter(|status| status.is_final()) {
            for trans_type in &types {
                let range = Range {
                    status: status.as_str(),
                    trans_type: trans_type.as_str(),
                    low_ms: filter.created.0.map_or(0, clock),
                    high_ms: clock(filter.created.1.unwrap_or(CLOCK_MS_MAX)).min(after_ms),
                    after_ms,
                    after_gid,
                    limit: i64::try_from(filter.limit).unwrap_or(i64::MAX),
                };
                let keys: Vec<(i64, String)> =
                    with!(self, database => within(ANSWER_WAIT_MAX, database.list_transactions(range)).await)?;
                found.extend(keys.into_iter().map(|(ms, gid)| (u64::try_from(ms).unwrap_or(0), gid)));
            }
        }
        Ok(found)
    }
}
