//! The ledger keeps what it is told, within its bounds.

use super::*;

fn asked(kind: Kind, buyer: u32, about: Option<&str>) -> Asked<'_> {
    Asked { kind, intended_us: 900_000, sent_us: 900_010, buyer, sale: 0, key: 7, basket: 0, attempt: 1, about }
}

fn heard(answered_us: Micros, outcome: Outcome<'_>) -> Heard<'_> {
    Heard { answered_us, status: 200, replayed: false, outcome }
}

#[test]
fn what_is_told_to_shards_is_in_the_ledger() {
    let recorder = Recorder::new(10);
    let (mut one, mut two) = (recorder.shard(), recorder.shard());
    assert!(recorder.finish(Plan::default()).is_err(), "two threads still write");
    one.tell(asked(Kind::Order, 1, None), heard(950_000, Outcome::Admitted { gid: "g1" }));
    one.tell(asked(Kind::Order, 2, None), heard(1_950_000, Outcome::Refused { reason: "sold_out" }));
    two.tell(asked(Kind::Poll, 1, Some("g1")), heard(1_100_000, Outcome::Unknown { error: "timeout" }));
    assert_eq!(recorder.seconds(0).len(), 1, "of the second that is over");
    drop((one, two));
    let ledger = recorder.finish(Plan::default()).unwrap();
    let told: Vec<_> = ledger.told().collect();
    assert_eq!((told.len(), told[0].gid(), told[0].latency_us()), (3, Some("g1"), 50_000));
    assert_eq!(told[0].sent_us, 900_010);
    assert_eq!((told[1].outcome, told[1].about), (Outcome::Refused { reason: "sold_out" }, None));
    assert_eq!((told[2].outcome, told[2].about), (Outcome::Unknown { error: "timeout" }, Some("g1")));
    assert!(ledger.places().all(|(place, told)| ledger.at(place).outcome == told.outcome));
    assert_eq!(ledger.counts.answers(), 3);
    assert_eq!(
        ledger.seconds.iter().map(|second| (second.second, second.counts.answers())).collect::<Vec<_>>(),
        [(0, 1), (1, 2)]
    );
    assert_eq!((ledger.latency.len(), ledger.lateness.max(), ledger.left_out()), (3, 10, 0));
}

#[test]
fn a_full_ledger_counts_what_it_leaves_out() {
    let recorder = Recorder::new(1);
    let mut shard = recorder.shard();
    for n in 0..3 {
        shard.tell(asked(Kind::Order, n, None), heard(950_000, Outcome::Refused { reason: "sold_out" }));
    }
    drop(shard);
    let ledger = recorder.finish(Plan::default()).unwrap();
    assert_eq!((ledger.told().count(), ledger.left_out(), ledger.counts.refused["sold_out"]), (1, 2, 3));
}

#[test]
fn reasons_beyond_what_is_told_apart_are_counted_together() {
    let recorder = Recorder::new(1000);
    let mut shard = recorder.shard();
    for n in 0..WORDS_MAX + 50 {
        shard.tell(asked(Kind::Order, 0, None), heard(950_000, Outcome::Refused { reason: &format!("r{n}") }));
    }
    drop(shard);
    assert_eq!(recorder.finish(Plan::default()).unwrap().counts.refused[OTHER], 50);
}
