//! SQLite: as PostgreSQL, and it has one writer at a time, so calls meet one after the other.
//!
//! In a transaction of the caller's let the barrier come first: one that has read already and finds another writer is
//! refused at once (`SQLITE_BUSY`), where one that begins by writing waits its turn.

use super::{Database, Inserted, Mark, Marks, sql};
use sqlx::{Sqlite, SqliteConnection};

impl Database for Sqlite {
    const TABLE: &'static str = "dtm_barrier";
    const SCHEMA: &'static [&'static str] = &[
        "CREATE TABLE IF NOT EXISTS dtm_barrier (
            id integer PRIMARY KEY AUTOINCREMENT,
            trans_type text DEFAULT '',
            gid text DEFAULT '',
            branch_id text DEFAULT '',
            op text DEFAULT '',
            barrier_id text DEFAULT '',
            reason text DEFAULT '',
            create_time text DEFAULT CURRENT_TIMESTAMP,
            update_time text DEFAULT CURRENT_TIMESTAMP,
            UNIQUE (gid, branch_id, op, barrier_id)
        )",
        "CREATE INDEX IF NOT EXISTS dtm_barrier_create_time ON dtm_barrier (create_time)",
    ];

    async fn insert(connection: &mut SqliteConnection, table: &str, marks: Marks<'_>) -> Result<Inserted, sqlx::Error> {
        let rows = if marks.undone.is_some() { "(?,?,?,?,?,?),(?,?,?,?,?,?)" } else { "(?,?,?,?,?,?)" };
        let mut query = sqlx::query_scalar(sql(format!(
            "INSERT INTO {table} (trans_type, gid, branch_id, op, barrier_id, reason) VALUES {rows} \
             ON CONFLICT (gid, branch_id, op, barrier_id) DO NOTHING RETURNING op"
        )));
        for mark in marks.iter() {
            let Mark { trans_type, gid, branch_id, op, barrier_id, reason } = mark;
            query = query.bind(trans_type).bind(gid).bind(branch_id).bind(op).bind(barrier_id).bind(reason);
        }
        let ops: Vec<String> = query.fetch_all(connection).await?;
        Ok(marks.inserted(&ops))
    }

    async fn reason(
        connection: &mut SqliteConnection,
        table: &str,
        key: Mark<'_>,
    ) -> Result<Option<String>, sqlx::Error> {
        let select =
            format!("SELECT reason FROM {table} WHERE gid = ? AND branch_id = ? AND op = ? AND barrier_id = ?");
        let query = sqlx::query_scalar(sql(select)).bind(key.gid).bind(key.branch_id).bind(key.op).bind(key.barrier_id);
        query.fetch_optional(connection).await
    }

    async fn execute(connection: &mut SqliteConnection, statement: String) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(sql(statement)).execute(connection).await.map(|_| ())
    }
}
