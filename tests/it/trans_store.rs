//! Random sequences on the scripts of global transactions and on a model of them in plain Rust, in both versions of
//! Redis. Few gids, so that they collide; every answer, and afterwards every record and index, is compared.

use crate::support::servers::{Redis as Server, RedisVersion};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};
use rushline::domain::trans::{Branch, Global, GlobalStatus, Limits, Op, TransGid, TransRequest, TransType};
use rushline::store::keys::{TRANS_PARTITIONS, trans_partition};
use rushline::store::redis::{self as store, Redis};
use rushline::store::trans::{Appended, Created, Due, Filter, Saved};
use rushline::store::trans_writer::Writer;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

/// Sequences for each version of Redis. Raise `PROPTEST_CASES` to look longer.
const CASES: u32 = 64;
const STEPS_MAX: usize = 50;
/// Two of one partition, so that claims have an order to keep.
const GIDS: [&str; 4] = ["a", "q", "{c}", "d:1"];
const TYPES: [TransType; 3] = [TransType::Msg, TransType::Tcc, TransType::Workflow];
/// All moments of a sequence are near this.
const T0: u64 = 1_795_000_000_000;

#[derive(Debug, Clone)]
enum Step {
    Create {
        gid: Index,
        trans_type: Index,
        due: Due,
        later: u8,
    },
    /// With the version that is there, or one that was.
    Save {
        gid: Index,
        status: Index,
        due: Due,
        stale: bool,
    },
    Append {
        gid: Index,
        branches: Vec<(u8, bool)>,
    },
    Claim {
        gid: Index,
        now: u8,
        until: u8,
        limit: usize,
    },
    Move {
        gids: Vec<Index>,
        due: Due,
    },
    Reset {
        now: u8,
        far: u8,
        limit: usize,
    },
    Hurry {
        gid: Index,
        status: Index,
        trans_type: Index,
        now: u8,
        from: u8,
        count: usize,
    },
}

fn due() -> impl Strategy<Value = Due> {
    let at = || (0..40u8).prop_map(at);
    prop_oneof![3 => at().prop_map(Due::At), 2 => at().prop_map(Due::Leased), 1 => Just(Due::Never)]
}

fn pick(gid: &Index) -> &'static str {
    GIDS[gid.index(GIDS.len())]
}

fn at(later: u8) -> u64 {
    T0 + u64::from(later)
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    let live = || due().prop_filter("created and moved ones are due some time", |due| *due != Due::Never);
    prop_oneof![
        4 => (index(), index(), live(), 0..9u8)
            .prop_map(|(gid, trans_type, due, later)| Step::Create { gid, trans_type, due, later }),
        6 => (index(), index(), due(), prop::bool::weighted(0.2))
            .prop_map(|(gid, status, due, stale)| Step::Save { gid, status, due, stale }),
        5 => (index(), prop::collection::vec((0..4u8, any::<bool>()), 1..3))
            .prop_map(|(gid, branches)| Step::Append { gid, branches }),
        5 => (index(), 0..40u8, 0..60u8, 1..4usize)
            .prop_map(|(gid, now, until, limit)| Step::Claim { gid, now, until, limit }),
        2 => (prop::collection::vec(index(), 1..4), live()).prop_map(|(gids, due)| Step::Move { gids, due }),
        1 => (0..40u8, 0..40u8, 1..4usize).prop_map(|(now, far, limit)| Step::Reset { now, far, limit }),
        1 => (index(), index(), index(), 0..40u8, 0..9u8, 1..4usize).prop_map(
            |(gid, status, trans_type, now, from, count)| Step::Hurry { gid, status, trans_type, now, from, count }
        ),
    ]
}

/// What is known of one transaction.
#[derive(Debug, Clone)]
struct Known {
    /// As it was saved last.
    global: Global,
    version: u64,
    /// Registered, and not in the record yet; dropped when it is decided.
    rows: Vec<Branch>,
    rows_are_kept: bool,
    due: Option<f64>,
}

impl Known {
    fn whole(&self) -> Global {
        let mut whole = self.global.clone();
        let taken_in = whole.branches.len();
        if self.rows_are_kept {
            whole.branches.extend(self.rows.iter().skip(taken_in).cloned());
        }
        whole
    }
}

fn score(due: Due) -> Option<f64> {
    match due {
        Due::At(ms) => Some(ms as f64),
        Due::Leased(ms) => Some(ms as f64 + 0.5),
        Due::Never => None,
    }
}

fn is_lease(score: f64) -> bool {
    score.fract() != 0.0
}

fn new(gid: &str, trans_type: TransType, create_ms: u64) -> Global {
    let steps = json!([{ "action": "http://h/x/a" }, { "action": "http://h/x/b" }]);
    let body = json!({ "gid": gid, "trans_type": trans_type.as_str(), "steps": steps, "payloads": ["{}", "\u{1}"] });
    let request = TransRequest::from_json(body.to_string().as_bytes()).unwrap();
    request.into_global(create_ms, &Limits::default(), &|_| None).unwrap()
}

struct Both<'a> {
    redis: &'a Redis,
    writer: &'a Writer,
    model: BTreeMap<String, Known>,
}

impl Both<'_> {
    /// The partition's gids that are due by `until`, in Redis' order: by time, then by name.
    fn due_in(&self, partition: u16, from: f64, until: f64) -> Vec<(f64, String)> {
        let mine = self.model.iter().filter(|(gid, _)| trans_partition(gid) == partition);
        let mut due: Vec<(f64, String)> = mine.filter_map(|(gid, known)| Some((known.due?, gid.clone()))).collect();
        due.retain(|(score, _)| (from..=until).contains(score));
        due.sort_by(|a, b| a.partial_cmp(b).unwrap());
        due
    }

    fn set_due(&mut self, gid: &str, due: Due) {
        self.model.get_mut(gid).unwrap().due = score(due);
    }

    async fn play(&mut self, step: &Step) {
        match step {
            Step::Create { gid, trans_type, due, later } => {
                let (gid, trans_type) = (pick(gid), *trans_type.get(&TYPES));
                let global = new(gid, trans_type, at(*later));
                let created = self.writer.create(&global, *due).await.unwrap();
                let there = self.model.contains_key(gid);
                assert_eq!(created, if there { Created::Exists } else { Created::New });
                let known = Known { global, version: 1, rows: Vec::new(), rows_are_kept: true, due: score(*due) };
                self.model.entry(gid.to_owned()).or_insert(known);
            }
            Step::Save { gid, status, due, stale } => {
                let gid = pick(gid);
                let Some(known) = self.model.get(gid).cloned() else {
                    let global = new(gid, TransType::Tcc, T0);
                    let saved = self.writer.save(&global, global.status, 1, false, *due).await.unwrap();
                    assert_eq!(saved, Saved::Gone);
                    return;
                };
                let was = known.global.status;
                let mut global = known.whole();
                let may: Vec<_> = GlobalStatus::ALL.iter().filter(|to| **to == was || was.may_become(**to)).collect();
                global.status = **status.get(&may);
                let due = if global.status.is_final() { Due::Never } else { *due };
                let due = if due == Due::Never && !global.status.is_final() { Due::At(T0) } else { due };
                let version = if *stale { known.version.wrapping_sub(1) } else { known.version };
                let has_rows = known.rows_are_kept && !known.rows.is_empty();
                let saved = self.writer.save(&global, was, version, has_rows, due).await.unwrap();
                if *stale {
                    assert_eq!(saved, Saved::Stale);
                    return;
                }
                assert_eq!(saved, Saved::Saved(known.version + 1));
                let known = self.model.get_mut(gid).unwrap();
                (known.version, known.due) = (known.version + 1, score(due));
                known.rows_are_kept = global.status == GlobalStatus::Prepared;
                known.global = global;
            }
            Step::Append { gid, branches } => self.append(pick(gid), branches).await,
            Step::Claim { gid, now, until, limit } => {
                let partition = trans_partition(pick(gid));
                let claimed = self.redis.claim_trans(partition, at(*now), at(*until), *limit).await.unwrap();
                let mut due = self.due_in(partition, 0.0, at(*now) as f64);
                due.truncate(*limit);
                let due: Vec<String> = due.into_iter().map(|(_, gid)| gid).collect();
                assert_eq!(claimed, due);
                due.iter().for_each(|gid| self.set_due(gid, Due::Leased(at(*until))));
            }
            Step::Move { gids, due } => {
                let gids: Vec<&str> = gids.iter().map(|gid| pick(gid)).collect();
                let parsed: Vec<TransGid> = gids.iter().map(|gid| TransGid::parse(*gid).unwrap()).collect();
                self.redis.move_due(&parsed, *due).await.unwrap();
                for gid in gids {
                    if self.model.get(gid).is_some_and(|known| known.due.is_some()) {
                        self.set_due(gid, *due);
                    }
                }
            }
            Step::Reset { now, far, limit } => {
                let (moved, more) = self.redis.reset_due(at(*now), at(*far), *limit).await.unwrap();
                let (mut expected, mut left) = (0, false);
                for partition in 0..TRANS_PARTITIONS {
                    let found = self.due_in(partition, at(*far) as f64, f64::INFINITY);
                    let waiting: Vec<_> = found.iter().filter(|(score, _)| !is_lease(*score)).collect();
                    let room = *limit - expected;
                    waiting.iter().take(room).for_each(|(_, gid)| self.set_due(gid, Due::At(at(*now))));
                    expected += waiting.len().min(room);
                    left |= waiting.len() > room;
                }
                assert_eq!((moved, more), (expected, left));
            }
            Step::Hurry { gid, status, trans_type, now, from, count } => {
                let (partition, now) = (trans_partition(pick(gid)), at(*now));
                let (status, trans_type) =
                    (**status.get(&GlobalStatus::ALL.iter().collect::<Vec<_>>()), *trans_type.get(&TYPES));
                let on = self.redis.hurry_trans(partition, status, trans_type, now, at(*from), *count).await.unwrap();
                let mut found: Vec<(u64, String)> = self
                    .model
                    .iter()
                    .filter(|(gid, known)| {
                        trans_partition(gid) == partition
                            && (known.global.status, known.global.trans_type) == (status, trans_type)
                            && known.global.create_ms >= at(*from)
                    })
                    .map(|(gid, known)| (known.global.create_ms, gid.clone()))
                    .collect();
                found.sort();
                found.truncate(*count);
                for (created, gid) in &found {
                    if self.model[gid].due.is_some_and(|due| due > now as f64 && !is_lease(due)) {
                        self.set_due(gid, Due::At(*created));
                    }
                }
                assert_eq!(on.is_some(), found.len() == *count, "{on:?} {found:?}");
                assert!(on.is_none_or(|on| on > at(*from) || on == found.last().unwrap().0), "it goes on");
            }
        }
    }

    async fn append(&mut self, gid: &str, branches: &[(u8, bool)]) {
        let mut rows: Vec<Branch> = Vec::new();
        for (number, other) in branches {
            let payload = if *other { &[0xff, 0][..] } else { b"{}" };
            let row =
                Branch::new(format!("0{number}"), Op::Confirm, "http://h/x", bytes::Bytes::copy_from_slice(payload));
            if !rows.iter().any(|earlier| earlier.branch_id == row.branch_id) {
                rows.push(row);
            }
        }
        let appended = self.redis.append_branches(&TransGid::parse(gid).unwrap(), &rows).await.unwrap();
        let Some(known) = self.model.get_mut(gid) else {
            assert_eq!(appended, Appended::Gone);
            return;
        };
        if known.global.status != GlobalStatus::Prepared {
            assert_eq!(appended, Appended::NotPrepared);
            return;
        }
        let twins = rows.iter().filter_map(|row| known.rows.iter().find(|there| there.branch_id == row.branch_id));
        let twins: Vec<&Branch> = twins.collect();
        let same = twins.len() == rows.len() && rows.iter().zip(&twins).all(|(row, twin)| row == *twin);
        match (twins.is_empty(), same) {
            (true, _) => {
                assert_eq!(appended, Appended::Done);
                known.rows.extend(rows);
                known.version += 1;
            }
            (false, true) => assert_eq!(appended, Appended::Same),
            (false, false) => assert_eq!(appended, Appended::Conflict),
        }
    }

    /// Everything that can be read is as the model has it.
    async fn compare(&self) {
        let gids: Vec<String> = GIDS.iter().map(|gid| (*gid).to_string()).collect();
        let many = self.redis.load_all_trans(&gids).await.unwrap();
        for (gid, of_many) in gids.iter().zip(many) {
            let parsed = TransGid::parse(gid.as_str()).unwrap();
            let loaded = self.redis.load_trans(&parsed).await.unwrap();
            let known = self.model.get(gid);
            assert_eq!(
                loaded.as_ref().map(|loaded| (&loaded.global, loaded.version)),
                known.map(|known| (known.whole(), known.version)).as_ref().map(|(global, version)| (global, *version))
            );
            assert_eq!(
                of_many.unwrap().map(|loaded| loaded.global),
                loaded.as_ref().map(|loaded| loaded.global.clone())
            );
            if let (Some(loaded), Some(known)) = (&loaded, known) {
                assert_eq!(loaded.has_rows, known.rows_are_kept && !known.rows.is_empty(), "{gid}");
            }
            let due = known.and_then(|known| known.due);
            let leased = self.redis.is_leased(&parsed, T0).await.unwrap();
            assert_eq!(leased, due.is_some_and(|due| is_lease(due) && due > T0 as f64), "{gid}");
        }
        let first = self.redis.next_due().await.unwrap();
        for (partition, first) in (0..).zip(first) {
            let due = self.due_in(partition, 0.0, f64::INFINITY);
            assert_eq!(first, due.first().map(|(score, _)| score.ceil() as u64));
        }
        for status in GlobalStatus::ALL {
            let filter = Filter { status: Some(*status), limit: 10, ..Filter::default() };
            let listed = self.redis.list_trans(&filter).await.unwrap();
            let of_status = self.model.iter().filter(|(_, known)| known.global.status == *status);
            let mut expected: Vec<(u64, String)> =
                of_status.map(|(gid, known)| (known.global.create_ms, gid.clone())).collect();
            expected.sort_by(|a, b| b.cmp(a));
            assert_eq!(listed, expected, "{status}");
        }
    }
}

fn model_and_scripts_agree(version: RedisVersion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // Its own, since each sequence begins with nothing.
    let server = runtime.block_on(Server::start(version, &["--appendonly", "no"]));
    let settings = store::Settings {
        url: server.socket_url(),
        prefix: "t:".into(),
        connections: 1,
        timeout: Duration::from_secs(5),
        rewrite_after_load: false,
        tls: Default::default(),
    };
    let redis = runtime.block_on(Redis::connect(settings)).unwrap();
    let writer = runtime.block_on(async { Writer::start(redis.clone()) });
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let steps = prop::collection::vec(step(), 1..STEPS_MAX);
    let played = runner.run(&steps, |steps| {
        runtime.block_on(async {
            let mut lane = redis.lane();
            ::redis::cmd("FLUSHALL").query_async::<()>(&mut lane).await.unwrap();
            let mut both = Both { redis: &redis, writer: &writer, model: BTreeMap::new() };
            for step in &steps {
                both.play(step).await;
                both.compare().await;
            }
        });
        Ok(())
    });
    if let Err(error) = played {
        panic!("{error}");
    }
}

#[test]
fn model_and_scripts_of_transactions_agree_on_redis_7() {
    model_and_scripts_agree(RedisVersion::V7);
}

#[test]
fn model_and_scripts_of_transactions_agree_on_redis_8() {
    model_and_scripts_agree(RedisVersion::V8);
}

#[test]
fn two_of_the_gids_share_a_partition() {
    let mut partitions: Vec<u16> = GIDS.iter().map(|gid| trans_partition(gid)).collect();
    partitions.sort_unstable();
    partitions.dedup();
    assert!((2..GIDS.len()).contains(&partitions.len()), "{partitions:?}");
}
