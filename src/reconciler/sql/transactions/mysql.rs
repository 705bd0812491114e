//! Finished transactions in MySQL or MariaDB.

use super::super::mysql::MySql;
use super::super::{connection, insert, row};
use super::{Range, Row, Stored};
use sqlx::Connection;

/// Rows per statement; sixteen values each, and the protocol counts them in 16 bits.
const STATEMENT_ROWS: &[usize] = &[200, 20, 1];

pub(in super::super) const TABLE: &[&str] = &["CREATE TABLE IF NOT EXISTS rushline_transactions (
        gid VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
        trans_type VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
        status VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
        protocol VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
        query_prepared LONGTEXT NOT NULL,
        custom_data LONGTEXT NOT NULL,
        result LONGTEXT NOT NULL,
        rollback_reason LONGTEXT NOT NULL,
        options JSON NOT NULL,
        steps JSON NOT NULL,
        branches JSON NOT NULL,
        driver JSON NOT NULL,
        create_time DATETIME(3) NOT NULL,
        update_time DATETIME(3) NOT NULL,
        finish_time DATETIME(3),
        rollback_time DATETIME(3),
        PRIMARY KEY (gid, create_time),
        KEY listed (status, trans_type, create_time, gid),
        KEY updated (update_time)
    ) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"];

const INSERT: &str = "INSERT INTO rushline_transactions \
    (gid, trans_type, status, protocol, query_prepared, custom_data, result, rollback_reason, \
        options, steps, branches, driver, create_time, update_time, finish_time, rollback_time) VALUES ";
// A time that is null stays null.
const ROW: &str = "(?,?,?,?,?,?,?,?,?,?,?,?,TIMESTAMPADD(MICROSECOND,?*1000,'1970-01-01 00:00:00'),\
    TIMESTAMPADD(MICROSECOND,?*1000,'1970-01-01 00:00:00'),TIMESTAMPADD(MICROSECOND,?*1000,'1970-01-01 00:00:00'),\
    TIMESTAMPADD(MICROSECOND,?*1000,'1970-01-01 00:00:00'))";
const KEEP: &str = " ON DUPLICATE KEY UPDATE gid = rushline_transactions.gid";

const SELECT: &str = "SELECT gid, trans_type, status, protocol, query_prepared, custom_data, result, rollback_reason, \
    CAST(options AS CHAR), CAST(steps AS CHAR), CAST(branches AS CHAR), CAST(driver AS CHAR), \
    TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', create_time) DIV 1000, \
    TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', update_time) DIV 1000, \
    TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', finish_time) DIV 1000, \
    TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', rollback_time) DIV 1000 \
    FROM rushline_transactions WHERE gid IN (";

const LIST: &str = "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', create_time) DIV 1000, gid FROM rushline_transactions \
    WHERE status = ? AND trans_type = ? \
        AND create_time >= TIMESTAMPADD(MICROSECOND, ? * 1000, '1970-01-01 00:00:00') \
        AND create_time <= TIMESTAMPADD(MICROSECOND, ? * 1000, '1970-01-01 00:00:00') \
        AND (create_time < TIMESTAMPADD(MICROSECOND, ? * 1000, '1970-01-01 00:00:00') OR gid < ?) \
    ORDER BY create_time DESC, gid DESC LIMIT ?";

impl MySql {
    pub(in super::super) async fn write_transactions(&self, rows: &[Row]) -> Result<(), sqlx::Error> {
        let mut connection = connection(&self.pool).await?;
        let mut transaction = connection.begin().await?;
        for rows in row::statements(rows, STATEMENT_ROWS) {
            let mut query = sqlx::query(insert(INSERT, ROW, rows.len(), KEEP));
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
        query.fetch_all(&mut *connection(&self.pool).await?).await
    }

    pub(in super::super) async fn list_transactions(
        &self,
        range: Range<'_>,
    ) -> Result<Vec<(i64, String)>, sqlx::Error> {
        bind_range!(sqlx::query_as(LIST), range).fetch_all(&mut *connection(&self.pool).await?).await
    }
}
