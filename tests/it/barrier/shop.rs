//! A business of one store: accounts with a balance, changed inside barriers, and the marks that this leaves.

use mongodb::bson::{Document, doc};
use rushline::barrier::{BranchBarrier, Outcome, mongo, redis as redis_barrier, sql};
use rushline::branch_call::BranchCall;
use rushline::branch_error::BranchError;
use sqlx::{MySqlPool, PgPool, SqlitePool};
use std::collections::BTreeSet;

/// What a call came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    Ran,
    Repeated,
    Empty,
    Failure,
    Duplicated,
    /// The store could not decide now; the coordinator would call again.
    Again,
}

/// A mark as `(branch_id, op, barrier_id, reason)`.
pub type Mark = (String, String, String, String);

#[derive(Clone)]
pub enum Shop {
    Postgres(PgPool),
    MariaDb(MySqlPool),
    Sqlite(SqlitePool),
    Mongo(mongodb::Client),
    Redis(redis::aio::MultiplexedConnection),
}

const ACCOUNTS: &str = "CREATE TABLE account (id varchar(128) PRIMARY KEY, balance bigint NOT NULL)";

/// The same for three databases, which differ in the type of the pool and in how a statement names its arguments.
macro_rules! on_sql {
    ($pool:expr, $barrier:expr, $account:expr, $change:expr, $add:literal) => {{
        let (account, change) = ($account.to_owned(), $change);
        $barrier
            .call($pool, async |transaction| {
                let add = sqlx::query($add).bind(change).bind(&account).bind(change);
                match add.execute(transaction).await?.rows_affected() {
                    1 => Ok(()),
                    _ => Err(BranchError::failure("balance too low")),
                }
            })
            .await
    }};
}

impl Shop {
    pub async fn postgres(pool: PgPool) -> Self {
        sql::create_table(&pool).await.unwrap();
        sql::create_table(&pool).await.expect("a second time it is there");
        sqlx::query(ACCOUNTS).execute(&pool).await.unwrap();
        Self::Postgres(pool)
    }

    pub async fn mariadb(pool: MySqlPool) -> Self {
        sql::create_table(&pool).await.unwrap();
        sql::create_table(&pool).await.expect("a second time it is there");
        sqlx::query(ACCOUNTS).execute(&pool).await.unwrap();
        Self::MariaDb(pool)
    }

    pub async fn sqlite(pool: SqlitePool) -> Self {
        sql::create_table(&pool).await.unwrap();
        sql::create_table(&pool).await.expect("a second time it is there");
        sqlx::query(ACCOUNTS).execute(&pool).await.unwrap();
        Self::Sqlite(pool)
    }

    pub async fn mongodb(client: mongodb::Client) -> Self {
        mongo::create_index(&client).await.unwrap();
        mongo::create_index(&client).await.expect("a second time it is there");
        Self::Mongo(client)
    }

    /// An account of this gid, with so much on it.
    pub async fn open(&self, gid: &str, balance: i64) {
        match self {
            Self::Postgres(pool) => {
                sqlx::query("INSERT INTO account VALUES ($1, $2)").bind(gid).bind(balance).execute(pool).await.unwrap();
            }
            Self::MariaDb(pool) => {
                sqlx::query("INSERT INTO account VALUES (?, ?)").bind(gid).bind(balance).execute(pool).await.unwrap();
            }
            Self::Sqlite(pool) => {
                sqlx::query("INSERT INTO account VALUES (?, ?)").bind(gid).bind(balance).execute(pool).await.unwrap();
            }
            Self::Mongo(client) => {
                accounts(client).insert_one(doc! { "_id": gid, "balance": balance }).await.unwrap();
            }
            Self::Redis(connection) => {
                let mut connection = connection.clone();
                redis::cmd("SET").arg(amount(gid)).arg(balance).query_async::<()>(&mut connection).await.unwrap();
            }
        }
    }

    pub async fn balance(&self, gid: &str) -> i64 {
        const POSTGRES: &str = "SELECT balance FROM account WHERE id = $1";
        const OTHERS: &str = "SELECT balance FROM account WHERE id = ?";
        match self {
            Self::Postgres(pool) => sqlx::query_scalar(POSTGRES).bind(gid).fetch_one(pool).await.unwrap(),
            Self::MariaDb(pool) => sqlx::query_scalar(OTHERS).bind(gid).fetch_one(pool).await.unwrap(),
            Self::Sqlite(pool) => sqlx::query_scalar(OTHERS).bind(gid).fetch_one(pool).await.unwrap(),
            Self::Mongo(client) => {
                let found = accounts(client).find_one(doc! { "_id": gid }).await.unwrap().unwrap();
                found.get_i64("balance").unwrap()
            }
            Self::Redis(connection) => {
                redis::cmd("GET").arg(amount(gid)).query_async(&mut connection.clone()).await.unwrap()
            }
        }
    }

    /// A call of a branch that adds `change` to the gid's account, on a task of its own as a server would have it.
    pub async fn call(&self, gid: &str, branch_id: &str, op: &str, change: i64) -> Heard {
        let trans_type = if op == "msg" { "msg" } else { "saga" };
        let barrier = BranchBarrier::new(BranchCall::new(trans_type, gid, branch_id, op).unwrap());
        let (shop, gid) = (self.clone(), gid.to_owned());
        tokio::spawn(async move { shop.call_with(&mut { barrier }, &gid, change).await }).await.unwrap()
    }

    /// As [`call`](Self::call); until the store can decide.
    pub async fn call_until_decided(&self, gid: &str, branch_id: &str, op: &str, change: i64) -> Heard {
        for _ in 0..200 {
            match self.call(gid, branch_id, op, change).await {
                Heard::Again => tokio::task::yield_now().await,
                decided => return decided,
            }
        }
        panic!("{op} of {gid} was not decided in 200 calls");
    }

    pub async fn call_with(&self, barrier: &mut BranchBarrier, gid: &str, change: i64) -> Heard {
        let outcome = match self {
            Self::Postgres(pool) => on_sql!(
                pool,
                barrier,
                gid,
                change,
                "UPDATE account SET balance = balance + $1 WHERE id = $2 AND balance + $3 >= 0"
            ),
            Self::MariaDb(pool) => {
                on_sql!(
                    pool,
                    barrier,
                    gid,
                    change,
                    "UPDATE account SET balance = balance + ? WHERE id = ? AND balance + ? >= 0"
                )
            }
            Self::Sqlite(pool) => {
                on_sql!(
                    pool,
                    barrier,
                    gid,
                    change,
                    "UPDATE account SET balance = balance + ? WHERE id = ? AND balance + ? >= 0"
                )
            }
            Self::Mongo(client) => {
                let accounts = accounts(client);
                let business = async |session: &mut mongodb::ClientSession| {
                    let enough = doc! { "_id": gid, "balance": { "$gte": -change } };
                    let add = doc! { "$inc": { "balance": change } };
                    match accounts.update_one(enough, add).session(session).await?.matched_count {
                        1 => Ok(()),
                        _ => Err(BranchError::failure("balance too low")),
                    }
                };
                barrier.mongo_call(client, business).await
            }
            Self::Redis(connection) => {
                let mut connection = connection.clone();
                let key = amount(gid);
                let adjusted =
                    barrier.redis_check_adjust_amount(&mut connection, &key, change, redis_barrier::TTL).await;
                match adjusted {
                    Ok(Outcome::Ran(_)) => Ok(Outcome::Ran(())),
                    Ok(Outcome::Repeated) => Ok(Outcome::Repeated),
                    Ok(Outcome::Empty) => Ok(Outcome::Empty),
                    Err(error) => Err(error),
                }
            }
        };
        heard(outcome)
    }

    /// `Ran` if the local part of this message is committed.
    pub async fn check_back(&self, gid: &str) -> Heard {
        let barrier = BranchBarrier::new(BranchCall::new("msg", gid, "00", "msg").unwrap());
        let answer = match self {
            Self::Postgres(pool) => barrier.query_prepared(pool).await,
            Self::MariaDb(pool) => barrier.query_prepared(pool).await,
            Self::Sqlite(pool) => barrier.query_prepared(pool).await,
            Self::Mongo(client) => barrier.mongo_query_prepared(client).await,
            Self::Redis(connection) => barrier.redis_query_prepared(&mut connection.clone(), redis_barrier::TTL).await,
        };
        heard(answer.map(Outcome::Ran))
    }

    /// All marks of this gid. Redis keeps no reason but `op` and `rollback`.
    pub async fn marks(&self, gid: &str) -> BTreeSet<Mark> {
        const COLUMNS: &str = "SELECT branch_id, op, barrier_id, reason FROM";
        let rows: Vec<Mark> = match self {
            Self::Postgres(pool) => {
                let select = format!("{COLUMNS} dtm_barrier.barrier WHERE gid = $1");
                sqlx::query_as(sqlx::AssertSqlSafe(select)).bind(gid).fetch_all(pool).await.unwrap()
            }
            Self::MariaDb(pool) => {
                let select = format!("{COLUMNS} dtm_barrier.barrier WHERE gid = ?");
                sqlx::query_as(sqlx::AssertSqlSafe(select)).bind(gid).fetch_all(pool).await.unwrap()
            }
            Self::Sqlite(pool) => {
                let select = format!("{COLUMNS} dtm_barrier WHERE gid = ?");
                sqlx::query_as(sqlx::AssertSqlSafe(select)).bind(gid).fetch_all(pool).await.unwrap()
            }
            Self::Mongo(client) => {
                let marks = client.database("dtm_barrier").collection::<Document>("barrier");
                let mut found = marks.find(doc! { "gid": gid }).await.unwrap();
                let mut rows = Vec::new();
                while found.advance().await.unwrap() {
                    let found = found.deserialize_current().unwrap();
                    let text = |name| found.get_str(name).unwrap().to_owned();
                    let names: BTreeSet<&str> = found.keys().map(String::as_str).collect();
                    let dtms = ["_id", "trans_type", "gid", "branch_id", "op", "barrier_id", "reason"];
                    assert_eq!(names, BTreeSet::from(dtms), "the fields that dtm's SDK writes");
                    rows.push((text("branch_id"), text("op"), text("barrier_id"), text("reason")));
                }
                rows
            }
            Self::Redis(connection) => {
                let mut connection = connection.clone();
                let pattern = format!("{gid}-*");
                let keys: Vec<String> = redis::cmd("KEYS").arg(pattern).query_async(&mut connection).await.unwrap();
                let mut rows = Vec::new();
                for key in keys {
                    let value: String = redis::cmd("GET").arg(&key).query_async(&mut connection).await.unwrap();
                    let parts: Vec<&str> = key.strip_prefix(&format!("{gid}-")).unwrap().split('-').collect();
                    let [branch_id, op, barrier_id] = parts[..] else { panic!("{key} is no mark") };
                    rows.push((branch_id.into(), op.into(), barrier_id.into(), value));
                }
                rows
            }
        };
        let count = rows.len();
        let set: BTreeSet<Mark> = rows.into_iter().collect();
        assert_eq!(set.len(), count, "{gid}: a mark is there twice");
        set
    }

    /// A mark as this store keeps it.
    pub fn as_kept(&self, (branch_id, op, barrier_id, reason): (&str, &str, &str, &str)) -> Mark {
        let value = match self {
            Self::Redis(_) if op == reason => "op",
            Self::Redis(_) => "rollback",
            _ => reason,
        };
        (branch_id.into(), op.into(), barrier_id.into(), value.into())
    }
}

pub fn heard(outcome: Result<Outcome<()>, BranchError>) -> Heard {
    match outcome {
        Ok(Outcome::Ran(())) => Heard::Ran,
        Ok(Outcome::Repeated) => Heard::Repeated,
        Ok(Outcome::Empty) => Heard::Empty,
        Err(BranchError::Failure(_)) => Heard::Failure,
        Err(BranchError::Duplicated) => Heard::Duplicated,
        Err(_) => Heard::Again,
    }
}

fn accounts(client: &mongodb::Client) -> mongodb::Collection<Document> {
    client.database("rushline").collection("account")
}

/// Beside the marks and not one of them.
fn amount(gid: &str) -> String {
    format!("amount:{gid}")
}
