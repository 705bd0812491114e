//! The same search in every kind of records, and by pages, whatever the database.

use crate::support::servers::{MariaDb, Mongod, Postgres};
use rushline::domain::ids::{Buyer, SaleName, Sku};
use rushline::domain::order::{Item, Record, Status};
use rushline::reconciler::search::{Place, Wanted};
use rushline::reconciler::sink::Sink;

const START_MS: u64 = 1_763_800_000_000;

fn record(n: u64) -> Record {
    let partition = n % 3;
    let at = START_MS + n / 4;
    Record {
        gid: format!("s.{partition}.{at}-{}.{}", n % 12, n % 11).parse().unwrap(),
        buyer: Buyer::parse(format!("Ünal {}", n % 10)).unwrap(),
        items: vec![Item { sku: Sku::parse("sku-1").unwrap(), quantity: 1 }],
        payload: format!(r#"{{"note":"100% .* {n}"}}"#),
        status: if n.is_multiple_of(7) { Status::Failed } else { Status::Succeed },
        reason: n.is_multiple_of(7).then(|| "Card Declined".to_owned()),
        attempts: 1,
        admitted_ms: at,
        finished_ms: at + 5,
        returned: Vec::new(),
    }
}

/// Against the plain rule, for every kind of question; then page by page.
async fn story(sink: &Sink) {
    let sale = SaleName::parse("s").unwrap();
    let mut records: Vec<Record> = (0..200).map(record).collect();
    records.push(Record { gid: "s2.0.1763800000000-0.0".parse().unwrap(), ..record(0) });
    sink.write(&records).await.unwrap();
    records.retain(|record| record.gid.sale == sale);
    records.sort_by_key(|record| std::cmp::Reverse(Place::of(&record.gid)));
    let text = |text: &str| Wanted { text: text.into(), ..Wanted::default() };
    let all = [
        Wanted::default(),
        Wanted { buyer: Some("Ünal 3".into()), ..Wanted::default() },
        Wanted { buyer: Some("ünal 3".into()), ..Wanted::default() },
        Wanted { status: Some(Status::Failed), ..Wanted::default() },
        Wanted { from_ms: Some(START_MS + 10), to_ms: Some(START_MS + 20), ..Wanted::default() },
        text("declined"),
        text("100% .* 17"),
        text("note.:"), // as a pattern it would be everywhere
        text("' OR 1=1 --"),
        text("s.2."),
        text("Ünal 4"),
        Wanted { status: Some(Status::Succeed), from_ms: Some(START_MS + 30), ..text("note") },
    ];
    for wanted in all {
        let matches = |record: &&Record| {
            let texts = [record.payload.as_str(), record.reason.as_deref().unwrap_or_default()];
            wanted.matches(&record.gid, record.buyer.as_str(), record.status, texts)
        };
        let expected: Vec<String> = records.iter().filter(matches).map(|record| record.gid.to_string()).collect();
        for limit in [7, 1000] {
            let (mut found, mut page) = (Vec::new(), wanted.clone());
            loop {
                let some = sink.search(&sale, 3, &page, limit).await.unwrap();
                found.extend(some.iter().map(|record| record.gid.to_string()));
                match some.last() {
                    Some(last) if some.len() == limit as usize => page.before = Some(Place::of(&last.gid)),
                    _ => break,
                }
            }
            assert_eq!(found, expected, "{wanted:?} in pages of {limit}");
        }
    }
}

#[tokio::test]
async fn orders_are_found_in_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    story(&Sink::open(&format!("sqlite:{}", directory.path().join("o.db").display())).await.unwrap()).await;
}

#[tokio::test]
async fn orders_are_found_in_postgresql() {
    let server = Postgres::start().await;
    story(&Sink::open(&server.url()).await.unwrap()).await;
}

#[tokio::test]
async fn orders_are_found_in_mariadb() {
    let server = MariaDb::start().await;
    story(&Sink::open(&server.url()).await.unwrap()).await;
}

#[tokio::test]
async fn orders_are_found_in_mongodb() {
    let server = Mongod::start().await;
    story(&Sink::open(&server.url()).await.unwrap()).await;
}
