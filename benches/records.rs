//! How fast does each kind of records take what is drained? Orders and global transactions, a thousand a write as the drain
//! sends them, new ones each time; beside them, on SQLite, the same bytes as one raw bulk insert.
//!
//! SQLite always; PostgreSQL, MariaDB and MongoDB where their programs are: tests/servers/install.sh gets them.

// The tests' servers serve here too; what they also have is not used.
#[allow(dead_code)]
#[path = "../tests/it/support"]
mod support {
    pub mod process;
    pub mod servers;
}

use criterion::{BatchSize, Criterion, Throughput};
use rushline::domain::ids::{Buyer, EntryId, Gid, SaleName, Sku};
use rushline::domain::order::{Item, Record, Status};
use rushline::domain::trans::{Global, GlobalStatus, Limits, TransRequest, apply_move};
use rushline::reconciler::sink::Sink;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use support::servers::{MariaDb, Mongod, Postgres};
use tokio::runtime::Runtime;

/// The drain's own default, `records.batch_max`.
const BATCH: u64 = 1_000;
const NOW_MS: u64 = 1_795_000_000_000;
const PAYLOAD: &str =
    r#"{"address":"12 Example Street, 10115 Berlin","coupon":"NOV22","gift":false,"note":"please ring twice, thanks"}"#;

static NEXT: AtomicU64 = AtomicU64::new(1);

fn numbers() -> std::ops::Range<u64> {
    let first = NEXT.fetch_add(BATCH, Ordering::Relaxed);
    first..first + BATCH
}

fn orders() -> Vec<Record> {
    let sale = SaleName::parse("bench").unwrap();
    let one = |number: u64| Record {
        gid: Gid { sale: sale.clone(), partition: 0, entry: EntryId { ms: NOW_MS, seq: number }, index: 0 },
        buyer: Buyer::parse(format!("u{number}")).unwrap(),
        items: vec![Item { sku: Sku::parse("sku-1").unwrap(), quantity: 1 }],
        payload: PAYLOAD.into(),
        status: Status::Succeed,
        reason: None,
        attempts: 1,
        admitted_ms: NOW_MS,
        finished_ms: NOW_MS + 7,
        returned: Vec::new(),
    };
    numbers().map(one).collect()
}

fn transactions() -> Vec<Global> {
    let step = serde_json::json!({ "action": "http://localhost:8081/api/TransOut",
        "compensate": "http://localhost:8081/api/TransOutUndo" });
    let one = |number: u64| {
        let body = serde_json::json!({ "gid": format!("bench-{number:010}"), "trans_type": "saga",
            "steps": [&step, &step], "payloads": ["{\"amount\":30}", "{\"amount\":30}"] });
        let request = TransRequest::from_json(body.to_string().as_bytes()).unwrap();
        let mut global = request.into_global(NOW_MS + number, &Limits::default(), &|_| None).unwrap();
        apply_move(&mut global, GlobalStatus::Submitted, None, NOW_MS);
        apply_move(&mut global, GlobalStatus::Succeed, None, NOW_MS + 7);
        global
    };
    numbers().map(one).collect()
}

fn measure(criterion: &mut Criterion, runtime: &Runtime, name: &str, url: &str) {
    let sink = runtime.block_on(Sink::open(url)).expect("the server was just started");
    let sink = &sink;
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(BATCH)).sample_size(10);
    group.bench_function("orders", |bencher| {
        let write = |records: Vec<Record>| async move { sink.write(&records).await.unwrap() };
        bencher.to_async(runtime).iter_batched(orders, write, BatchSize::PerIteration);
    });
    group.bench_function("transactions", |bencher| {
        let write = |globals: Vec<Global>| async move { sink.write_transactions(&globals).await.unwrap() };
        bencher.to_async(runtime).iter_batched(transactions, write, BatchSize::PerIteration);
    });
    group.finish();
}

/// What SQLite itself needs for the same: one JSON text a row, one statement, one commit.
fn floor(criterion: &mut Criterion, runtime: &Runtime, directory: &std::path::Path) {
    use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
    let options = SqliteConnectOptions::new().filename(directory.join("floor.db")).create_if_missing(true);
    let options = options.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full);
    let pool = runtime.block_on(SqlitePoolOptions::new().max_connections(1).connect_with(options)).unwrap();
    runtime.block_on(sqlx::query("CREATE TABLE row (gid TEXT PRIMARY KEY, text TEXT)").execute(&pool)).unwrap();
    let (pool, statement) = (&pool, "INSERT INTO row SELECT value->>'gid', value FROM json_each(?)");
    let mut group = criterion.benchmark_group("sqlite_floor");
    group.throughput(Throughput::Elements(BATCH)).sample_size(10);
    let texts = || {
        let row = |number: u64| serde_json::json!({ "gid": format!("bench-{number:010}"), "payload": PAYLOAD });
        serde_json::Value::from_iter(numbers().map(row)).to_string()
    };
    group.bench_function("raw_bulk_insert", |bencher| {
        let write = |texts: String| async move { sqlx::query(statement).bind(texts).execute(pool).await.unwrap() };
        bencher.to_async(runtime).iter_batched(texts, write, BatchSize::PerIteration);
    });
    group.finish();
}

/// `None`, with the reason on stderr, where the program is not installed.
fn started<S>(runtime: &Runtime, name: &str, start: impl Future<Output = S>) -> Option<S> {
    let server = std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(start)));
    server.inspect_err(|_| eprintln!("{name} is left out: see above")).ok()
}

fn main() {
    let runtime = &Runtime::new().unwrap();
    let mut criterion = Criterion::default().configure_from_args();
    let directory = tempfile::tempdir().unwrap();
    floor(&mut criterion, runtime, directory.path());
    let file = format!("sqlite:{}", directory.path().join("records.db").display());
    measure(&mut criterion, runtime, "sqlite", &file);
    if let Some(server) = started(runtime, "PostgreSQL", Postgres::start()) {
        measure(&mut criterion, runtime, "postgresql", &server.url());
    }
    if let Some(server) = started(runtime, "MariaDB", MariaDb::start()) {
        measure(&mut criterion, runtime, "mariadb", &server.url());
    }
    if let Some(server) = started(runtime, "MongoDB", Mongod::start()) {
        measure(&mut criterion, runtime, "mongodb", &server.url());
    }
    criterion.final_summary();
}
