//! Stories of the records, each told on SQLite, PostgreSQL, MariaDB and MongoDB.

use crate::support::process::Process;
use crate::support::servers::{MariaDb, Mongod, PASSWORD, Postgres};
use rushline::domain::ids::{Buyer, EntryId, Gid, SaleName, Sku};
use rushline::domain::order::{Item, Record, Status};
use rushline::reconciler::sink::{Error, Sink, Tally};
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

/// A database server that a story can take away and bring back.
enum Server {
    Mongod(Mongod),
    Postgres(Postgres),
    MariaDb(MariaDb),
}

impl Server {
    fn url(&self) -> String {
        match self {
            Self::Mongod(server) => server.url(),
            Self::Postgres(server) => server.url(),
            Self::MariaDb(server) => server.url(),
        }
    }

    fn kill9(&mut self) {
        match self {
            Self::Mongod(server) => server.kill9(),
            Self::Postgres(server) => server.kill9(),
            Self::MariaDb(server) => server.kill9(),
        }
    }

    /// The process, if stopping it stops all of the server: PostgreSQL has a process for each connection.
    fn whole(&self) -> Option<&Process> {
        match self {
            Self::Mongod(server) => Some(server.process()),
            Self::Postgres(_) => None,
            Self::MariaDb(server) => Some(server.process()),
        }
    }

    async fn restart(&mut self) {
        match self {
            Self::Mongod(server) => server.restart().await,
            Self::Postgres(server) => server.restart().await,
            Self::MariaDb(server) => server.restart().await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_in_mongodb() {
    tell_all(Server::Mongod(Mongod::start().await)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_in_postgresql() {
    tell_all(Server::Postgres(Postgres::start().await)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_in_mariadb() {
    tell_all(Server::MariaDb(MariaDb::start().await)).await;
}

/// One start of the server serves all stories; each has sales of its own.
async fn tell_all(mut server: Server) {
    let sink = two_open_at_once(&server.url()).await;
    tell_what_needs_no_kill(&sink).await;
    killed_in_the_middle(&sink, &mut server).await;
    down_is_an_error_and_passes(&sink, &mut server).await;
    hanging_is_an_error_and_passes(&sink, &server).await;
}

async fn tell_what_needs_no_kill(sink: &Sink) {
    a_record_reads_as_it_was_written(sink).await;
    writing_again_changes_nothing(sink).await;
    pages_are_in_byte_order_and_of_one_sale(sink).await;
    overlapping_writers_leave_each_record_once(sink).await;
    nothing_a_buyer_sends_is_refused(sink).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_in_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}/deeper/records.db", directory.path().display());
    let sink = two_open_at_once(&url).await;
    tell_what_needs_no_kill(&sink).await;
    a_locked_file_is_an_error_and_passes(&sink, &url).await;
    a_killed_writer_loses_nothing_it_acknowledged(directory.path()).await;
}

// ---- the stories ----------------------------------------------------------------------------------------------------

/// Two nodes that start on an empty database both create the schema, and neither stumbles over the other.
async fn two_open_at_once(url: &str) -> Sink {
    let openers: Vec<_> = (0..6)
        .map(|_| {
            tokio::spawn({
                let url = url.to_owned();
                async move { Sink::open(&url).await }
            })
        })
        .collect();
    let mut sink = None;
    for opener in openers {
        sink = Some(opener.await.unwrap().unwrap());
    }
    sink.unwrap()
}

async fn a_record_reads_as_it_was_written(sink: &Sink) {
    let refused = Record {
        status: Status::Failed,
        reason: Some("card declined".into()),
        attempts: u32::MAX,
        items: vec![item("sku-1", 1), item("a.b_c-D", 1_000_000)],
        ..record("reads", 0, 1_763_800_000_123, 4, 5)
    };
    let made = record("reads", 65_535, 1_763_800_000_999, u64::MAX, 65_535);
    sink.write(&[]).await.unwrap();
    sink.write(&[refused.clone(), made.clone()]).await.unwrap();
    assert_eq!(sink.read(&refused.gid).await.unwrap().as_ref(), Some(&refused));
    assert_eq!(sink.read(&made.gid).await.unwrap().as_ref(), Some(&made));
    assert_eq!(sink.read(&record("reads", 1, 1, 1, 1).gid).await.unwrap(), None);
    assert_eq!(sink.tally(&sale("reads")).await.unwrap(), Tally { succeed: 1, failed: 1 });
    assert_eq!(sink.tally(&sale("never")).await.unwrap(), Tally::default());
}

async fn writing_again_changes_nothing(sink: &Sink) {
    let batch: Vec<_> = (0..2000).map(|i| record("again", 0, 1_763_800_000_000 + i / 32, 0, (i % 32) as u16)).collect();
    sink.write(&batch).await.unwrap();
    // The second time with another outcome: the first stays.
    let other: Vec<_> = batch.iter().map(|r| Record { status: Status::Failed, attempts: 9, ..r.clone() }).collect();
    sink.write(&other).await.unwrap();
    // Within one batch, too.
    sink.write(&[batch[0].clone(), batch[0].clone()]).await.unwrap();
    assert_eq!(sink.read(&batch[1999].gid).await.unwrap().as_ref(), Some(&batch[1999]));
    assert_eq!(sink.tally(&sale("again")).await.unwrap(), Tally { succeed: 2000, failed: 0 });
    assert_holds_exactly(sink, "again", batch).await;
}

/// Byte order is what the audit merges by; a database's own idea of order (ignoring case or dashes) must not show.
async fn pages_are_in_byte_order_and_of_one_sale(sink: &Sink) {
    let mut all = Vec::new();
    for name in ["page", "Page", "page2", "page-", "page_", "pag"] {
        for (partition, seq, index) in
            [(0, 0, 0), (2, 0, 0), (10, 0, 0), (10, 10, 1), (10, 9, 1), (10, 9, 10), (10, 9, 2)]
        {
            all.push(record(name, partition, 1_763_800_000_000, seq, index));
        }
    }
    sink.write(&all).await.unwrap();
    let of_page: Vec<_> = all.iter().filter(|r| r.gid.sale.as_str() == "page").cloned().collect();
    assert_holds_exactly(sink, "page", of_page).await;
    assert_eq!(sink.tally(&sale("page")).await.unwrap(), Tally { succeed: 7, failed: 0 });
    assert_eq!(sink.page(&sale("page"), None, 0).await.unwrap(), []);
    assert_eq!(sink.page(&sale("page"), Some("a"), 100).await.unwrap().len(), 7);
    assert_eq!(sink.page(&sale("page"), Some("zzz"), 100).await.unwrap(), []);
}

/// Two nodes may drain the same entries when one took over from the other: in whatever order, each record once.
async fn overlapping_writers_leave_each_record_once(sink: &Sink) {
    let all: Vec<_> = (0..3000).map(|i| record("overlap", 0, 1_763_800_000_000, i, 0)).collect();
    let writers: Vec<_> = (0..4u64)
        .map(|writer| {
            let (sink, mut part) = (sink.clone(), all.clone());
            fastrand::Rng::with_seed(writer).shuffle(&mut part);
            tokio::spawn(async move {
                for batch in part.chunks(700) {
                    sink.write(batch).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    assert_holds_exactly(sink, "overlap", all).await;
}

async fn nothing_a_buyer_sends_is_refused(sink: &Sink) {
    let deep = format!("{}1{}", "[".repeat(20_000), "]".repeat(20_000));
    let large = format!("\"{}\"", "ä😀\\\"x".repeat(120_000));
    assert!(large.len() > 1 << 20);
    let payloads = [
        "null",
        r#""\u0000 and \ud800 alone""#,
        r#"{"b":1,"a":2,"a":3,  "n":1e400000, "m":-0.0000000000000000000000000000000000000001}"#,
        "\"\u{1F600}\u{202E}\u{FEFF}\u{FFFF}\u{10FFFF} e\u{301}\"",
        r#""'; DROP TABLE rushline_orders; -- \\ ` $1 ? {} %s""#,
        &deep,
        &large,
    ];
    let buyers = ["o'Brien \"x\" \\", "😀😀", "é", "e\u{301}", "É", " trailing ", "NULL", &"😀".repeat(32)];
    let mut all = Vec::new();
    for (i, payload) in payloads.iter().enumerate() {
        all.push(Record { payload: (*payload).into(), ..record("hostile", 0, 1, 0, i as u16) });
    }
    for (i, buyer) in buyers.iter().enumerate() {
        all.push(Record { buyer: Buyer::parse(*buyer).unwrap(), ..record("hostile", 1, 1, 0, i as u16) });
    }
    // Many large ones in one batch: no statement may outgrow what the server takes.
    for i in 0..12 {
        all.push(Record { payload: large.clone(), reason: Some(large.clone()), ..record("hostile", 2, 1, 0, i) });
    }
    all.push(record("hostile", 3, u64::MAX, u64::MAX, 0)); // a longest gid
    sink.write(&all).await.unwrap();
    sink.write(&all).await.unwrap();
    for expected in &all {
        assert_same(&sink.read(&expected.gid).await.unwrap().unwrap(), expected);
    }

    // A NUL in the order service's own words, and times that no calendar has: kept in some form, above all not refused.
    let odd =
        Record { reason: Some("a\0b".into()), admitted_ms: u64::MAX, finished_ms: 0, ..record("hostile", 4, 1, 0, 0) };
    sink.write(std::slice::from_ref(&odd)).await.unwrap();
    let kept = sink.read(&odd.gid).await.unwrap().unwrap();
    assert!(["a\0b", "a\u{fffd}b"].contains(&kept.reason.as_deref().unwrap()));
}

/// kill -9 while batches stream in: what was acknowledged is there, and writing all again completes the rest.
async fn killed_in_the_middle(sink: &Sink, server: &mut Server) {
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
async fn down_is_an_error_and_passes(sink: &Sink, server: &mut Server) {
    let one = record("down", 0, 1, 0, 0);
    server.kill9();
    for _ in 0..2 {
        let started = Instant::now();
        let message = sink.write(std::slice::from_ref(&one)).await.unwrap_err().to_string();
        assert!(started.elapsed() < ERROR_WITHIN, "{} took {:?}", sink.kind(), started.elapsed());
        assert!(message.contains("refused"), "says why: {message}");
        assert!(!message.contains(PASSWORD), "{message}");
    }
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
async fn hanging_is_an_error_and_passes(sink: &Sink, server: &Server) {
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
async fn a_locked_file_is_an_error_and_passes(sink: &Sink, url: &str) {
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
async fn a_killed_writer_loses_nothing_it_acknowledged(directory: &Path) {
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
        .args(["--exact", "records::write_to_sqlite_until_killed", "--ignored", "--nocapture"])
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

/// A URL that cannot be used is refused with a reason, and never shown whole.
#[tokio::test]
async fn a_bad_url_is_refused_without_its_password() {
    for url in [
        format!("oracle://u:{PASSWORD}@h/d"),
        format!("mysql://u:{PASSWORD}@localhost"),
        format!("postgres://u:{PASSWORD}@h:port/d"),
        format!("mongodb://u:{PASSWORD}@/d"),
        format!("mongodb://u:x@{PASSWORD}@h/d"),
    ] {
        let Err(error) = Sink::open(&url).await else { panic!("{url} was taken") };
        assert!(matches!(error, Error::Url { .. }), "{error:?}");
        assert!(!format!("{error} {error:?}").contains(PASSWORD), "{error:?}");
    }
}

// ---- what they are told with ----------------------------------------------------------------------------------------

fn sale(name: &str) -> SaleName {
    SaleName::parse(name).unwrap()
}

fn item(sku: &str, quantity: u32) -> Item {
    Item { sku: Sku::parse(sku).unwrap(), quantity }
}

fn record(sale_name: &str, partition: u16, ms: u64, seq: u64, index: u16) -> Record {
    Record {
        gid: Gid { sale: sale(sale_name), partition, entry: EntryId { ms, seq }, index },
        buyer: Buyer::parse(format!("buyer-{seq}-{index}")).unwrap(),
        items: vec![item("sku-1", 1)],
        payload: r#"{"address":"Some Street 1","coupon":"WELCOME10"}"#.into(),
        status: Status::Succeed,
        reason: None,
        attempts: 1,
        admitted_ms: ms.min(1_763_800_999_999),
        finished_ms: ms.min(1_763_800_999_999) + 17,
    }
}

/// The records of the sale are these: none missing, none twice, in byte order, whatever the size of the page.
async fn assert_holds_exactly(sink: &Sink, name: &str, mut expected: Vec<Record>) {
    expected.sort_by_key(|record| record.gid.to_string());
    let limit = if expected.len() < 20 { 3 } else { 999 };
    let mut found: Vec<Record> = Vec::new();
    loop {
        let after = found.last().map(|record| record.gid.to_string());
        let page = sink.page(&sale(name), after.as_deref(), limit).await.unwrap();
        if page.is_empty() {
            break;
        }
        found.extend(page);
    }
    assert_eq!(found.len(), expected.len(), "records of {name} in {}", sink.kind());
    for (found, expected) in found.iter().zip(&expected) {
        assert_same(found, expected);
    }
}

/// As `assert_eq!`, but without a megabyte of payload on the screen.
fn assert_same(found: &Record, expected: &Record) {
    if found != expected {
        let start = |record: &Record| format!("{record:?}").chars().take(600).collect::<String>();
        panic!("found    {}\nexpected {}", start(found), start(expected));
    }
}
