//! A range of orders in SQL, newest first, with what else is asked of each row. An empty parameter asks nothing.

use super::super::search::Range;
use super::mysql::MySql;
use super::postgres::Postgres;
use super::row::{self, Stored};
use super::sqlite::Sqlite;
use super::{Database, Sql, connection, with, within};
use crate::domain::order::Record;
use crate::reconciler::sink::Error;
use std::time::Duration;

/// A search may read the whole range of a sale, row by row.
const SEARCH_WAIT_MAX: Duration = Duration::from_secs(30);

const SQLITE: &str = "SELECT gid, buyer, items, payload, status, reason, attempts, admitted_ms, finished_ms \
    FROM rushline_orders_stored WHERE gid > ?1 AND gid < ?2 AND (?3 = '' OR buyer = ?3) AND (?4 = '' OR status = ?4) \
        AND (?5 = '' OR instr(lower(gid), lower(?5)) > 0 OR instr(lower(buyer), lower(?5)) > 0 OR instr(lower(payload), lower(?5)) > 0 \
            OR instr(lower(reason), lower(?5)) > 0) \
    ORDER BY gid DESC LIMIT ?6";

const POSTGRES: &str = "SELECT gid, buyer, items::text, payload, status, reason, attempts, \
        ROUND(EXTRACT(EPOCH FROM admitted_at) * 1000)::bigint, ROUND(EXTRACT(EPOCH FROM finished_at) * 1000)::bigint \
    FROM rushline_orders WHERE gid > $1 AND gid < $2 AND ($3 = '' OR buyer = $3) AND ($4 = '' OR status = $4) \
        AND ($5 = '' OR strpos(lower(gid), lower($5)) > 0 OR strpos(lower(buyer), lower($5)) > 0 OR strpos(lower(payload), lower($5)) > 0 \
            OR strpos(lower(reason), lower($5)) > 0) \
    ORDER BY gid DESC LIMIT $6";

const MYSQL: &str = "SELECT gid, buyer, CAST(items AS CHAR), payload, status, reason, attempts, \
        TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', admitted_at) DIV 1000, \
        TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', finished_at) DIV 1000 \
    FROM rushline_orders WHERE gid > ? AND gid < ? AND (? = '' OR buyer = ?) AND (? = '' OR status = ?) \
        AND (? = '' OR INSTR(LOWER(CONVERT(gid USING utf8mb4)), LOWER(?)) > 0 OR INSTR(LOWER(buyer), LOWER(?)) > 0 \
            OR INSTR(LOWER(payload), LOWER(?)) > 0 OR INSTR(LOWER(reason), LOWER(?)) > 0) \
    ORDER BY gid DESC LIMIT ?";

impl Sql {
    pub(in crate::reconciler) async fn search(&self, range: Range<'_>) -> Result<Vec<Record>, Error> {
        let stored: Vec<Stored> = with!(self, database => within(SEARCH_WAIT_MAX, database.search(&range)).await)?;
        stored.into_iter().map(row::record).collect()
    }
}

impl Sqlite {
    async fn search(&self, range: &Range<'_>) -> Result<Vec<Stored>, sqlx::Error> {
        let query = sqlx::query_as(SQLITE).bind(range.low).bind(range.high).bind(range.buyer).bind(range.status);
        query.bind(range.text).bind(i64::from(range.limit)).fetch_all(&self.readers).await
    }
}

impl Postgres {
    async fn search(&self, range: &Range<'_>) -> Result<Vec<Stored>, sqlx::Error> {
        let query = sqlx::query_as(POSTGRES).bind(range.low).bind(range.high).bind(range.buyer).bind(range.status);
        let query = query.bind(range.text).bind(i64::from(range.limit));
        query.fetch_all(&mut *connection(&self.pool).await?).await
    }
}

impl MySql {
    async fn search(&self, range: &Range<'_>) -> Result<Vec<Stored>, sqlx::Error> {
        let query = sqlx::query_as(MYSQL).bind(range.low).bind(range.high).bind(range.buyer).bind(range.buyer);
        let query = query.bind(range.status).bind(range.status).bind(range.text).bind(range.text).bind(range.text);
        let query = query.bind(range.text).bind(range.text).bind(i64::from(range.limit));
        query.fetch_all(&mut *connection(&self.pool).await?).await
    }
}
