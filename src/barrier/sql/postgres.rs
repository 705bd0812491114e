//! PostgreSQL: both marks by one `INSERT … ON CONFLICT DO NOTHING RETURNING`.

use super::{Database, Inserted, Mark, Marks, sql};
use sqlx::{PgConnection, Postgres};

impl Database for Postgres {
    const TABLE: &'static str = crate::barrier::TABLE;
    const SCHEMA: &'static [&'static str] = &[
        "CREATE SCHEMA IF NOT EXISTS dtm_barrier",
        "CREATE SEQUENCE IF NOT EXISTS dtm_barrier.barrier_seq",
        "CREATE TABLE IF NOT EXISTS dtm_barrier.barrier (
            id bigint NOT NULL DEFAULT nextval('dtm_barrier.barrier_seq') PRIMARY KEY,
            trans_type varchar(45) DEFAULT '',
            gid varchar(128) DEFAULT '',
            branch_id varchar(128) DEFAULT '',
            op varchar(45) DEFAULT '',
            barrier_id varchar(45) DEFAULT '',
            reason varchar(45) DEFAULT '',
            create_time timestamp(0) with time zone DEFAULT NULL,
            update_time timestamp(0) with time zone DEFAULT NULL,
            CONSTRAINT uniq_barrier UNIQUE (gid, branch_id, op, barrier_id)
        )",
    ];

    async fn insert(connection: &mut PgConnection, table: &str, marks: Marks<'_>) -> Result<Inserted, sqlx::Error> {
        let rows =
            if marks.undone.is_some() { "($1,$2,$3,$4,$5,$6),($7,$8,$9,$10,$11,$12)" } else { "($1,$2,$3,$4,$5,$6)" };
        // The columns, not the constraint's name: a table made by hand may have another. They also keep any other
        // conflict, of ids say, an error.
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

    async fn reason(connection: &mut PgConnection, table: &str, key: Mark<'_>) -> Result<Option<String>, sqlx::Error> {
        let select =
            format!("SELECT reason FROM {table} WHERE gid = $1 AND branch_id = $2 AND op = $3 AND barrier_id = $4");
        let query = sqlx::query_scalar(sql(select)).bind(key.gid).bind(key.branch_id).bind(key.op).bind(key.barrier_id);
        query.fetch_optional(connection).await
    }

    async fn execute(connection: &mut PgConnection, statement: String) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(sql(statement)).execute(connection).await.map(|_| ())
    }
}
