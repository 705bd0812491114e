//! Stories of the records with something wrong: servers killed, stopped or locked, and rules that are not rushline's.

use super::{Server, assert_holds_exactly, record};
use crate::support::servers::PASSWORD;
use rushline::domain::ids::Buyer;
use rushline::domain::order::Record;
use rushline::reconciler::sink::{Error, Sink};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A sink that cannot write must say so within this; the pool's 3 s, a look at the reason, and a busy machine.
const ERROR_WITHIN: Duration = Duration::from_secs(6);
/// The same for one that took the connection and does not answer.
const HANGING_ERROR_WITHIN: Duration = Duration::from_secs(15);

/// Nothing of rushline's own refuses a record, but a rule that somebody added may: the others pass, and it is named.
pub async fn one_refused_record_does_not_hold_up_the_others(sink: &Sink, url: &str) {
    let mut all: Vec<_> = (0..700).map(|i| record("refused", 0, 1, i, 0)).collect();
    all[345].buyer = Buyer::parse("nobody").unwrap();
    let [add, drop] = house_rule(url);
    administer(url, add).await;
    let error = sink.write(&all).await.unwrap_err();
    assert!(matches!(&error, Error::Refused { gid, .. } if *gid == all[345].gid.to_string()), "{error:?}");
    let others: Vec<_> = all.iter().filter(|r| r.buyer.as_str() != "nobody").cloned().collect();
    assert_holds_exactly(sink, "refused", others).await;
    administer(url, drop).await;
    sink.write(&all).await.unwrap();
    assert_holds_exactly(sink, "refused", all).await;
}

/// Statements that add and drop the rule "the buyer is not `nobody`".
fn house_rule(url: &str) -> [&'static str; 2] {
    match url.split(':').next().unwrap() {
        "sqlite" => [
            "CREATE TRIGGER house_rule BEFORE INSERT ON rushline_orders_stored WHEN new.buyer = 'nobody' \
                BEGIN SELECT RAISE(ABORT, 'house rule'); END",
            "DROP TRIGGER house_rule",
        ],
        "mongodb" => [
            r#"{"collMod": "orders", "validator": {"buyer": {"$ne": "nobody"}}}"#,
            r#"{"collMod": "orders", "validator": {}}"#,
        ],
        _ => [
            "ALTER TABLE rushline_orders ADD CONSTRAINT house_rule CHECK (buyer <> 'nobody')",
            "ALTER TABLE rushline_orders DROP CONSTRAINT house_rule",
        ],
    }
}

/// Runs a statement past the sink, as an operator would.
pub async fn administer(url: &str, statement: &'static str) {
    use sqlx::{Connection, MySqlConnection, PgConnection, SqliteConnection};
    match url.split(':').next().unwrap() {
        "sqlite" => {
            sqlx::query(statement).execute(&mut SqliteConnection::connect(url).await.unwrap()).await.unwrap();
        }
        "postgres" => {
            sqlx::query(statement).execute(&mut PgConnection::connect(url).await.unwrap()).await.unwrap();
        }
        "mysql" => {
            sqlx::query(statement).execute(&mut MySqlConnection::connect(url).await.unwrap()).await.unwrap();
        }
        _ => {
            let command: mongodb::bson::Document = serde_json::from_str(statement).unwrap();
            let database = mongodb::Client::with_uri_str(url).await.unwrap().database("rushline");
            database.run_command(command).await.unwrap();
        }
    }
}

/// kill -9 while batches stream in: what was acknowledged is there, and writing all again completes the rest.
pub async fn killed_in_the_middle(sink: &Sink, server: &mut Server) {
    for round in 0..3u16 {
        let name = format!("killed{round}");
        let batch_of = |b: u64| -> Vec<_> {
            (0..500).map(|i| record(&format!("killed{round}"), 0, 1_763_800_000_000 + b, i, round)).collect()
        };
        let acknowledged = Arc::new(AtomicU64::new(0));
        let writer = tokio::spawn({
            let (sink, acknowledged) = (sink.clone(), acknowledged.clone());
            let batches: Vec<_> = (0..2000).map(batch_of).collect();
            async move {
                for batch in batches {
                    sink.write(&batch).await?;
                    acknowledged.fetch_add(1, Ordering::SeqCst);
                }
                Ok::<_, Error>(())
            }
        });
        while acknowledged.load(Ordering::SeqCst) < 4 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(37 * u64::from(round))).await;
        server.kill9();
        let error = writer.await.unwrap().expect_err("the server was killed under it");
        assert!(!error.to_string().contains(PASSWORD));
        server.restart().await;

        let batches = acknowledged.load(Ordering::SeqCst);
        for gid in (0..batches).flat_map(|b| [&batch_of(b)[0], &batch_of(b)[499]].map(|r| r.gid.clone())) {
            assert!(sink.read(&gid).await.unwrap().is_some(), "{gid} was acknowledged and is gone");
        }
        let all: Vec<_> = (0..batches + 2).flat_map(batch_of).collect();
        for batch in all.chunks(2000) {
            sink.write(batch).await.unwrap();
        }
        assert_holds_exactly(sink, &name, all).await;
    }
}

/// While the database is down every call fails soon and says why; once it is back the same sink works.
pub async fn down_is_an_error_and_passes(sink: &Sink, server: &mut Server) {
    let one = record("down", 0, 1, 0, 0);
    server.kill9();
    // The first error may be that of a connection that was cut; from then on the reason is that nobody listens.
    let mut messages = Vec::new();
    while !messages.last().is_some_and(|message: &String| message.contains("refused")) {
        let started = Instant::now();
        messages.push(sink.write(std::slice::from_ref(&one)).await.unwrap_err().to_string());
        assert!(started.elapsed() < ERROR_WITHIN, "{} took {:?}", sink.kind(), started.elapsed());
        assert!(messages.len() <= 2, "{messages:?}");
    }
    assert!(!messages.concat().contains(PASSWORD), "{messages:?}");
    let started = Instant::now();
    let Err(error) = Sink::open(&server.url()).await else { panic!("opened a server that is down") };
    assert!(started.elapsed() < ERROR_WITHIN);
    assert!(!format!("{error} {error:?}").contains(PASSWORD), "{error:?}");
    server.restart().await;
    sink.write(std::slice::from_ref(&one)).await.unwrap();
    assert_holds_exactly(sink, "down", vec![one]).await;

    let wrong = server.url().replace(PASSWORD, "another-word");
    if wrong != server.url() {
        let Err(error) = Sink::open(&wrong).await else { panic!("opened with a wrong password") };
        assert!(!format!("{error} {error:?}").contains("another-word"), "{error:?}");
    }
}

/// A server that holds the connection and says nothing (a full disk, a lost route) is an error too, only later.
pub async fn hanging_is_an_error_and_passes(sink: &Sink, server: &Server) {
    let Some(process) = server.whole() else { return };
    let one = record("hanging", 0, 1, 0, 0);
    process.signal("STOP");
    let started = Instant::now();
    let answer = sink.write(std::slice::from_ref(&one)).await;
    process.signal("CONT");
    assert!(answer.is_err() && started.elapsed() < HANGING_ERROR_WITHIN, "{:?} {answer:?}", started.elapsed());
    sink.write(std::slice::from_ref(&one)).await.unwrap();
    assert_holds_exactly(sink, "hanging", vec![one]).await;
}

/// Somebody's `BEGIN EXCLUSIVE` in a shell is to SQLite what a server that is down is to the others.
pub async fn a_locked_file_is_an_error_and_passes(sink: &Sink, url: &str) {
    use sqlx::Connection;
    let one = record("down", 0, 1, 0, 0);
    let mut other = sqlx::SqliteConnection::connect(url).await.unwrap();
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut other).await.unwrap();
    let started = Instant::now();
    let message = sink.write(std::slice::from_ref(&one)).await.unwrap_err().to_string();
    assert!(started.elapsed() < ERROR_WITHIN && message.contains("locked"), "{:?} {message}", started.elapsed());
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    sink.write(std::slice::from_ref(&one)).await.unwrap();
    let (times,): (String,) = sqlx::query_as("SELECT admitted_at FROM rushline_orders WHERE gid LIKE 'down.%'")
        .fetch_one(&mut other)
        .await
        .unwrap();
    assert_eq!(times, "1970-01-01T00:00:00.001Z");
}

/// SQLite has no server to kill, so the writer is.
pub async fn a_killed_writer_loses_nothing_it_acknowledged(directory: &Path) {
    let url = format!("sqlite:{}/killed.db", directory.display());
    let mut acknowledged = 0;
    for round in 0..4 {
        let writer = tokio::task::spawn_blocking({
            let url = url.clone();
            move || run_writer_and_kill_it(&url, 5 + 3 * round)
        });
        acknowledged = writer.await.unwrap().max(acknowledged);
    }
    let sink = Sink::open(&url).await.unwrap();
    for gid in (0..=acknowledged).flat_map(|b| [0, 499].map(|i| sqlite_batch(b)[i].gid.clone())) {
        assert!(sink.read(&gid).await.unwrap().is_some(), "{gid} was acknowledged and is gone");
    }
    let all: Vec<_> = (0..=acknowledged + 2).flat_map(sqlite_batch).collect();
    for batch in all.chunks(2000) {
        sink.write(batch).await.unwrap();
    }
    assert_holds_exactly(&sink, "child", all).await;
}

/// Runs [`write_to_sqlite_until_killed`] as a process of its own, kills it after some batches, and gives the last batch
/// that it said was written.
fn run_writer_and_kill_it(url: &str, batches: usize) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "records::faults::write_to_sqlite_until_killed", "--ignored", "--nocapture"])
        .env("RUSHLINE_TEST_SQLITE", url)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut written = lines.filter_map(|line| line.strip_prefix("batch ").and_then(|b| b.parse().ok()));
    let before = written.nth(batches).expect("the writer writes");
    child.kill().unwrap();
    let last = written.last().unwrap_or(before);
    child.wait().unwrap();
    last
}

fn sqlite_batch(batch: u64) -> Vec<Record> {
    (0..500).map(|i| record("child", 0, 1_763_800_000_000 + batch, i, 0)).collect()
}

#[tokio::test]
#[ignore = "a part of `records_in_sqlite`, which starts and kills it"]
async fn write_to_sqlite_until_killed() {
    let Ok(url) = std::env::var("RUSHLINE_TEST_SQLITE") else { return };
    let sink = Sink::open(&url).await.unwrap();
    for batch in 0..100_000 {
        sink.write(&sqlite_batch(batch)).await.unwrap();
        println!("batch {batch}");
    }
}
