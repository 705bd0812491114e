//! Finished transactions in PostgreSQL. As with orders, a part of a write is one statement over arrays.

use super::super::connection;
use super::super::postgres::{Postgres, column};
use super::{Range, Row, Stored};

pub(in super::super) const TABLE: &[&str] = &[
    "CREATE TABLE rushline_transactions (
        gid TEXT COLLATE \"C\" NOT NULL,
        trans_type TEXT NOT NULL,
        status TEXT NOT NULL,
        protocol TEXT NOT NULL,
        query_prepared TEXT NOT NULL,
        custom_data TEXT NOT NULL,
        result TEXT NOT NULL,
        rollback_reason TEXT NOT NULL,
        options JSONB NOT NULL,
        steps JSONB NOT NULL,
        branches JSONB NOT NULL,
        driver JSONB NOT NULL,
        create_time TIMESTAMPTZ(3) NOT NULL,
        update_time TIMESTAMPTZ(3) NOT NULL,
        finish_time TIMESTAMPTZ(3),
        rollback_time TIMESTAMPTZ(3),
        PRIMARY KEY (gid, create_time)
    )",
    "CREATE INDEX rushline_transactions_listed ON rushline_transactions (status, trans_type, create_time, gid)",
    "CREATE INDEX rushline_transactions_updated ON rushline_transactions (update_time)",
];

const INSERT: &str = "INSERT INTO rushline_transactions \
    (gid, trans_type, status, protocol, query_prepared, custom_data, result, rollback_reason, \
        options, steps, branches, driver, create_time, update_time, finish_time, rollback_time) \
    SELECT gid, trans_type, status, protocol, query_prepared, custom_data, result, rollback_reason, \
        options::jsonb, steps::jsonb, branches::jsonb, driver::jsonb, \
        timestamptz 'epoch' + create_ms * interval '1 millisecond', \
        timestamptz 'epoch' + update_ms * interval '1 millisecond', \
        timestamptz 'epoch' + finish_ms * interval '1 millisecond', \
        timestamptz 'epoch' + rollback_ms * interval '1 millisecond' \
    FROM UNNEST($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], \
        $9::text[], $10::text[], $11::text[], $12::text[], $13::bigint[], $14::bigint[], $15::bigint[], $16::bigint[]) \
        AS new (gid, trans_type, status, protocol, query_prepared, custom_data, result, rollback_reason, \
            options, steps, branches, driver, create_ms, update_ms, finish_ms, rollback_ms) \
    ON CONFLICT (gid, create_time) DO NOTHING";

const SELECT: &str = "SELECT gid, trans_type, status, protocol, query_prepared, custom_data, result, rollback_reason, \
    options::text, steps::text, branches::text, driver::text, \
    ROUND(EXTRACT(EPOCH FROM create_time) * 1000)::bigint, ROUND(EXTRACT(EPOCH FROM update_time) * 1000)::bigint, \
    ROUND(EXTRACT(EPOCH FROM finish_time) * 1000)::bigint, ROUND(EXTRACT(EPOCH FROM rollback_time) * 1000)::bigint \
    FROM rushline_transactions WHERE gid = ANY($1::text[])";

const LIST: &str = "SELECT ROUND(EXTRACT(EPOCH FROM create_time) * 1000)::bigint, gid FROM rushline_transactions \
    WHERE status = $1 AND trans_type = $2 \
        AND create_time >= timestamptz 'epoch' + $3 * interval '1 millisecond' \
        AND create_time <= timestamptz 'epoch' + $4 * interval '1 millisecond' \
        AND (create_time < timestamptz 'epoch' + $5 * interval '1 millisecond' OR gid < $6) \
    ORDER BY create_time DESC, gid DESC LIMIT $7";

impl Postgres {
    pub(in super::super) async fn write_transactions(&self, rows: &[Row]) -> Result<(), sqlx::Error> {
        let query = sqlx::query(INSERT)
            .bind(column(rows, |row| row.kept.gid.as_str()))
            .bind(column(rows, |row| row.kept.trans_type.as_str()))
            .bind(column(rows, |row| row.kept.status.as_str()))
            .bind(column(rows, |row| row.kept.protocol.as_str()))
            .bind(column(rows, |row| row.kept.query_prepared.as_str()))
            .bind(column(rows, |row| row.kept.custom_data.as_str()))
            .bind(column(rows, |row| row.kept.result.as_str()))
            .bind(column(rows, |row| row.kept.rollback_reason.as_str()))
            .bind(column(rows, |row| row.options.as_str()))
            .bind(column(rows, |row| row.steps.as_str()))
            .bind(column(rows, |row| row.branches.as_str()))
            .bind(column(rows, |row| row.driver.as_str()))
            .bind(column(rows, Row::create_ms))
            .bind(column(rows, Row::update_ms))
            .bind(column(rows, Row::finish_ms))
            .bind(column(rows, Row::rollback_ms));
        query.execute(&mut *connection(&self.pool).await?).await?;
        Ok(())
    }

    pub(in super::super) async fn read_transactions(&self, gids: &[String]) -> Result<Vec<Stored>, sqlx::Error> {
        sqlx::query_as(SELECT).bind(gids).fetch_all(&mut *connection(&self.pool).await?).await
    }

    pub(in super::super) async fn list_transactions(
        &self,
        range: Range<'_>,
    ) -> Result<Vec<(i64, String)>, sqlx::Error> {
        bind_range!(sqlx::query_as(LIST), range).fetch_all(&mut *connection(&self.pool).await?).await
    }
}
