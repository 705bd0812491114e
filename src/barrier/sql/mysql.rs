//! MySQL and MariaDB: one `INSERT IGNORE` a mark.
//!
//! `INSERT IGNORE` would also cut texts that are too long; [`Mark::fits`] refuses them before.

use super::{Database, Inserted, Mark, Marks, sql};
use sqlx::{MySql, MySqlConnection};

impl Database for MySql {
    const TABLE: &'static str = crate::barrier::TABLE;
    /// dtm's, but for the collation: by the server's default, gids that differ only in case would share a row.
    const SCHEMA: &'static [&'static str] = &[
        "CREATE DATABASE IF NOT EXISTS dtm_barrier DEFAULT CHARACTER SET utf8mb4",
        "CREATE TABLE IF NOT EXISTS dtm_barrier.barrier (
            id bigint(22) PRIMARY KEY AUTO_INCREMENT,
            trans_type varchar(45) DEFAULT '',
            gid varchar(128) DEFAULT '',
            branch_id varchar(128) DEFAULT '',
            op varchar(45) DEFAULT '',
            barrier_id varchar(45) DEFAULT '',
            reason varchar(45) DEFAULT '' COMMENT 'the op of the call that left this row',
            create_time datetime DEFAULT now(),
            update_time datetime DEFAULT now(),
            KEY (create_time),
            KEY (update_time),
            UNIQUE KEY (gid, branch_id, op, barrier_id)
        ) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    ];

    async fn insert(connection: &mut MySqlConnection, table: &str, marks: Marks<'_>) -> Result<Inserted, sqlx::Error> {
        let undone = match marks.undone {
            Some(mark) => insert_one(connection, table, mark).await?,
            None => false,
        };
        Ok(Inserted { undone, own: insert_one(connection, table, marks.own).await? })
    }

    async fn reason(
        connection: &mut MySqlConnection,
        table: &str,
        key: Mark<'_>,
    ) -> Result<Option<String>, sqlx::Error> {
        let select =
            format!("SELECT reason FROM {table} WHERE gid = ? AND branch_id = ? AND op = ? AND barrier_id = ?");
        let query = sqlx::query_scalar(sql(select)).bind(key.gid).bind(key.branch_id).bind(key.op).bind(key.barrier_id);
        query.fetch_optional(connection).await
    }

    async fn execute(connection: &mut MySqlConnection, statement: String) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(sql(statement)).execute(connection).await.map(|_| ())
    }
}

async fn insert_one(connection: &mut MySqlConnection, table: &str, mark: Mark<'_>) -> Result<bool, sqlx::Error> {
    let insert = format!(
        "INSERT IGNORE INTO {table} (trans_type, gid, branch_id, op, barrier_id, reason) VALUES (?, ?, ?, ?, ?, ?)"
    );
    let Mark { trans_type, gid, branch_id, op, barrier_id, reason } = mark;
    let query = sqlx::query(sql(insert)).bind(trans_type).bind(gid).bind(branch_id).bind(op);
    Ok(query.bind(barrier_id).bind(reason).execute(connection).await?.rows_affected() > 0)
}
