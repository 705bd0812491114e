//! Stories of the records, each told on SQLite, PostgreSQL, MariaDB and MongoDB.

mod faults;
mod transactions;

use crate::dtm_http::drained;
use crate::support::process::Process;
use crate::support::servers::{MariaDb, Mongod, PASSWORD, Postgres};
use rushline::domain::ids::{Buyer, EntryId, Gid, SaleName, Sku};
use rushline::domain::order::{Item, Record, Status};
use rushline::reconciler::sink::{Error, Sink, Tally};

/// A database server that a story can take away and bring back.
pub enum Server {
    Mongod(Mongod),
    Postgres(Postgres),
    MariaDb(MariaDb),
}

impl Server {
    pub fn url(&self) -> String {
        match self {
            Self::Mongod(server) => server.url(),
            Self::Postgres(server) => server.url(),
            Self::MariaDb(server) => server.url(),
        }
    }

    pub fn kill9(&mut self) {
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

    pub async fn restart(&mut self) {
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
    drained::every_mode_reads_the_same_from(&server.url()).await;
    tell_what_needs_no_kill(&sink).await;
    transactions::tell_all(&sink, &server.url()).await;
    faults::one_refused_record_does_not_hold_up_the_others(&sink, &server.url()).await;
    drained::the_records_are_away_for_a_while(&mut server).await;
    faults::killed_in_the_middle(&sink, &mut server).await;
    faults::down_is_an_error_and_passes(&sink, &mut server).await;
    faults::hanging_is_an_error_and_passes(&sink, &server).await;
}

async fn tell_what_needs_no_kill(sink: &Sink) {
    a_record_reads_as_it_was_written(sink).await;
    writing_again_changes_nothing(sink).await;
    who_differs_among_many_keeps_what_differs(sink).await;
    pages_are_in_byte_order_and_of_one_sale(sink).await;
    overlapping_writers_leave_each_record_once(sink).await;
    nothing_a_buyer_sends_is_refused(sink).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_in_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}/deeper/records.db", directory.path().display());
    let sink = two_open_at_once(&url).await;
    drained::every_mode_reads_the_same_from(&url).await;
    tell_what_needs_no_kill(&sink).await;
    transactions::tell_all(&sink, &url).await;
    faults::one_refused_record_does_not_hold_up_the_others(&sink, &url).await;
    faults::a_locked_file_is_an_error_and_passes(&sink, &url).await;
    faults::a_killed_writer_loses_nothing_it_acknowledged(directory.path()).await;
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

/// Records that are alike may share values on their way into a database; whoever is not must not get a neighbour's.
async fn who_differs_among_many_keeps_what_differs(sink: &Sink) {
    let like = |i: u64| record("alike", 0, 1_763_800_000_000 + i / 64, 0, (i % 64) as u16);
    let mut all: Vec<_> = (0..3300).map(like).collect();
    // Far enough from each other that each would be written together with a hundred that it is not like.
    all[300].attempts = 2;
    all[800].items = vec![item("sku-1", 2)];
    all[1300] = Record { status: Status::Failed, ..like(1300) };
    all[1800].reason = Some("made after all".into());
    all[2300].payload = "null".into();
    all[2800].finished_ms += 1;
    all.iter_mut().skip(3200).for_each(|record| record.items.push(item("sku-2", 1)));
    let of_another_sale = Record { items: all[3299].items.clone(), ..record("alike2", 0, 1_763_800_000_000, 0, 0) };
    sink.write(&[all.as_slice(), std::slice::from_ref(&of_another_sale)].concat()).await.unwrap();
    assert_holds_exactly(sink, "alike", all).await;
    assert_holds_exactly(sink, "alike2", vec![of_another_sale]).await;
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
    let buyers =
        ["o'Brien \"x\" \\", "😀😀", "é", "e\u{301}", "É", " trailing ", "NULL", &"😀".repeat(32), &"b".repeat(128)];
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
        returned: Vec::new(),
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
        assert!(found.len() <= expected.len(), "pages of {name} in {} go in circles or overlap", sink.kind());
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
