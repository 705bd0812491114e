//! What does a barrier cost a branch call? Each store's barrier beside the bare operation, on real servers.
//!
//! The bare operation is one local transaction with one update (Redis: one INCRBY). With the barrier it is the same, for a
//! call that comes the first time: the other cases do less. Read the ratio: the rest is the machine's disk.

// The tests' servers serve here too; what they also have is not used.
#[allow(dead_code)]
#[path = "../tests/it/support"]
mod support {
    pub mod process;
    pub mod servers;
}

use criterion::{BenchmarkGroup, Criterion, measurement::WallTime};
use mongodb::bson::{Document, doc};
use rushline::barrier::{BranchBarrier, mongo, redis::TTL, sql};
use rushline::branch_call::BranchCall;
use sqlx::{MySqlConnection, PgConnection, SqliteConnection};
use std::sync::atomic::{AtomicU64, Ordering};
use support::servers::{MariaDb, Mongod, Postgres, Redis, RedisVersion};
use tokio::runtime::Runtime;

const TABLE: &str = "CREATE TABLE account (id bigint PRIMARY KEY, balance bigint NOT NULL)";
const OPEN: &str = "INSERT INTO account VALUES (1, 0)";
const ADD: &str = "UPDATE account SET balance = balance + 1 WHERE id = 1";

/// The first call of a new branch.
fn barrier() -> BranchBarrier {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let gid = format!("gid-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    BranchBarrier::new(BranchCall::new("saga", gid, "01", "action").expect("no part is empty"))
}

macro_rules! sql_group {
    ($criterion:expr, $runtime:expr, $name:literal, $connection:ty, $pool:expr) => {{
        let pool = $pool;
        $runtime.block_on(async {
            sql::create_table(&pool).await.unwrap();
            sqlx::query(TABLE).execute(&pool).await.unwrap();
            sqlx::query(OPEN).execute(&pool).await.unwrap();
        });
        let mut group = $criterion.benchmark_group($name);
        group.bench_function("bare", |bencher| {
            bencher.to_async($runtime).iter(async || {
                let mut transaction = pool.begin().await.unwrap();
                sqlx::query(ADD).execute(&mut *transaction).await.unwrap();
                transaction.commit().await.unwrap();
            });
        });
        group.bench_function("barrier", |bencher| {
            bencher.to_async($runtime).iter(async || {
                let add = async |transaction: &mut $connection| {
                    Ok(sqlx::query(ADD).execute(transaction).await?.rows_affected())
                };
                barrier().call(&pool, add).await.unwrap();
            });
        });
        group.finish();
    }};
}

fn main() {
    let runtime = &Runtime::new().unwrap();
    let mut criterion = Criterion::default().configure_from_args().sample_size(20);

    let server = runtime.block_on(Redis::start(RedisVersion::V7, &["--appendonly", "no"]));
    redis_group(criterion.benchmark_group("redis"), runtime, &server);
    drop(server);

    let directory = tempfile::tempdir().unwrap();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(directory.path().join("bench.db"));
    let options = options.create_if_missing(true).journal_mode(sqlx::sqlite::SqliteJournalMode::Wal);
    sql_group!(
        criterion,
        runtime,
        "sqlite",
        SqliteConnection,
        runtime.block_on(sqlx::SqlitePool::connect_with(options)).unwrap()
    );

    let server = runtime.block_on(Postgres::start());
    sql_group!(
        criterion,
        runtime,
        "postgresql",
        PgConnection,
        runtime.block_on(sqlx::PgPool::connect(&server.url())).unwrap()
    );
    drop(server);

    let server = runtime.block_on(MariaDb::start());
    sql_group!(
        criterion,
        runtime,
        "mariadb",
        MySqlConnection,
        runtime.block_on(sqlx::MySqlPool::connect(&server.url())).unwrap()
    );
    drop(server);

    let server = runtime.block_on(Mongod::start());
    mongo_group(criterion.benchmark_group("mongodb"), runtime, &server);
    criterion.final_summary();
}

fn redis_group(mut group: BenchmarkGroup<'_, WallTime>, runtime: &Runtime, server: &Redis) {
    let connection = runtime.block_on(async {
        let client = redis::Client::open(server.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        redis::cmd("SET").arg("amount").arg(0).query_async::<()>(&mut connection).await.unwrap();
        connection
    });
    group.bench_function("bare", |bencher| {
        bencher.to_async(runtime).iter(async || {
            let mut connection = connection.clone();
            redis::cmd("INCRBY").arg("amount").arg(1).query_async::<i64>(&mut connection).await.unwrap()
        });
    });
    group.bench_function("barrier", |bencher| {
        bencher.to_async(runtime).iter(async || {
            let mut connection = connection.clone();
            barrier().redis_check_adjust_amount(&mut connection, "amount", 1, TTL).await.unwrap()
        });
    });
    group.finish();
}

fn mongo_group(mut group: BenchmarkGroup<'_, WallTime>, runtime: &Runtime, server: &Mongod) {
    let (client, accounts) = runtime.block_on(async {
        let client = mongodb::Client::with_uri_str(server.url()).await.unwrap();
        mongo::create_index(&client).await.unwrap();
        let accounts = client.database("bench").collection::<Document>("account");
        accounts.insert_one(doc! { "_id": 1, "balance": 0 }).await.unwrap();
        (client, accounts)
    });
    let add = || accounts.update_one(doc! { "_id": 1 }, doc! { "$inc": { "balance": 1 } });
    group.bench_function("bare", |bencher| {
        bencher.to_async(runtime).iter(async || {
            let mut session = client.start_session().await.unwrap();
            let transaction = session.start_transaction();
            transaction.write_concern(mongodb::options::WriteConcern::majority()).await.unwrap();
            add().session(&mut session).await.unwrap();
            session.commit_transaction().await.unwrap();
        });
    });
    group.bench_function("barrier", |bencher| {
        bencher.to_async(runtime).iter(async || {
            let business = async |session: &mut mongodb::ClientSession| Ok(add().session(session).await?.matched_count);
            barrier().mongo_call(&client, business).await.unwrap();
        });
    });
    group.finish();
}
