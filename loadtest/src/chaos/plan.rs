//! What goes wrong in a round, and when: all of it follows from a seed, and nothing here does anything.

use std::time::Duration;

use fastrand::Rng;
use serde::Serialize;

use super::poison::Poison;

/// Nodes on one Redis, at most.
pub const NODES_MAX: usize = 3;
/// A fault begins this long after the one before it. Most last longer than that, so faults meet.
const GAP_MS: std::ops::Range<u64> = 200..900;
/// Buyers come first; and they are still there when all is well again.
const FIRST: Duration = Duration::from_millis(800);
const CALM: Duration = Duration::from_millis(1_500);
/// A sleeper oversleeps its lease ([`super::world::LEASE_MS`]) more often than not.
const SLEEP_MS: std::ops::Range<u64> = 200..2_600;
const DEAD_MS: std::ops::Range<u64> = 0..900;
const BROKEN_MS: std::ops::Range<u64> = 100..1_800;

/// Which Redis, and how it fsyncs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Store {
    /// The system's Redis, `appendfsync always`.
    Always,
    /// One with WAITAOF, `appendfsync everysec`.
    Everysec,
    /// A primary and a replica; orders are of class `replica:1`, and the replica is promoted.
    Replica,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Sale {
    Plain,
    /// Orders are reservations, which are paid, cancelled or forgotten.
    Reserved,
    /// Over several partitions.
    Spread,
}

/// Whom a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    Node(usize),
    Redis,
    Orders,
    /// The database of the records.
    Records,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// kill -9; started again when it is over.
    Kill(Who),
    /// All nodes at once.
    KillNodes,
    /// kill -9 of Redis, and at the end of its file stands the beginning of a script.
    TornTail,
    /// kill -9 of the primary; the replica becomes primary, the old one its replica.
    Promote,
    /// SIGSTOP, SIGCONT.
    Sleep(Who),
    /// A node and Redis do not hear each other, in one direction or both.
    Partition {
        node: usize,
        requests: bool,
        answers: bool,
    },
    /// The connections of a node to Redis are cut, and new ones too.
    Cut {
        node: usize,
    },
    /// The way from a node to Redis is slow.
    Delay {
        node: usize,
        ms: u64,
    },
    /// The connections of a node to Redis stay open, and nothing passes on them ever again.
    Lose {
        node: usize,
    },
    /// Buyers are cut off.
    CutBuyers,
    /// The order service does not hear, or is not heard.
    PartitionOrders {
        requests: bool,
        answers: bool,
    },
    Poison(Poison),
    /// Redis is full: `maxmemory` is what it uses.
    Full,
    /// The disk of Redis is full.
    DiskFull,
    /// Somebody's SCRIPT FLUSH, again and again.
    Flush,
    /// The clock of a node jumps, and comes right; that of Redis jumps ahead, and stays there.
    Clock {
        who: Who,
        by_s: i64,
    },
}

impl Fault {
    /// What it is called in a summary.
    pub fn name(self) -> String {
        let who = |who: Who| match who {
            Who::Node(_) => "node",
            Who::Redis => "Redis",
            Who::Orders => "order service",
            Who::Records => "records",
        };
        match self {
            Self::Kill(whom) => format!("kill -9 of {}", who(whom)),
            Self::KillNodes => "kill -9 of all nodes".into(),
            Self::TornTail => "kill -9 of Redis, torn file".into(),
            Self::Promote => "promotion of the replica".into(),
            Self::Sleep(whom) => format!("SIGSTOP of {}", who(whom)),
            Self::Partition { requests: true, answers: true, .. } => "partition, node and Redis".into(),
            Self::Partition { .. } => "partition in one direction".into(),
            Self::Cut { .. } => "cut, node and Redis".into(),
            Self::Lose { .. } => "lost connections, node and Redis".into(),
            Self::Delay { .. } => "delay, node and Redis".into(),
            Self::CutBuyers => "buyers cut off".into(),
            Self::PartitionOrders { .. } => "partition, order service".into(),
            Self::Poison(poison) => {
                format!(
                    "order endpoint: {}",
                    serde_json::to_value(poison).expect("a unit variant").as_str().unwrap_or("")
                )
            }
            Self::Full => "maxmemory reached".into(),
            Self::DiskFull => "disk full".into(),
            Self::Flush => "SCRIPT FLUSH".into(),
            Self::Clock { who: whom, .. } => format!("clock of {} jumps", who(whom)),
        }
    }
}

/// A fault and its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Deed {
    pub at: Duration,
    pub lasts: Duration,
    pub fault: Fault,
}

/// What this machine has, beyond what every one has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Means {
    /// A Redis with WAITAOF.
    pub waitaof: bool,
    /// libfaketime.
    pub clocks: bool,
    /// A small file system can be mounted.
    pub mounts: bool,
    /// A database for the records that can be killed.
    pub database: bool,
}

/// One round: a new sale on new servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Round {
    pub number: u32,
    pub seed: u64,
    pub nodes: usize,
    pub store: Store,
    pub sale: Sale,
    /// Processes have a clock that can be set.
    pub clocks: bool,
    pub deeds: Vec<Deed>,
}

impl Round {
    /// Round `number` of the run with this seed: what happens within `lasts`.
    pub fn new(seed: u64, number: u32, lasts: Duration, means: Means) -> Self {
        let seed = seed ^ u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut chance = Rng::with_seed(seed);
        let store = match number % 4 {
            2 => Store::Replica,
            1 | 3 if means.waitaof && chance.bool() => Store::Everysec,
            _ => Store::Always,
        };
        let sale = match number % 5 {
            1 => Sale::Reserved,
            3 => Sale::Spread,
            _ => Sale::Plain,
        };
        // A deadline is a time by the clock of Redis: where that jumps, reservations end when nobody expects it.
        let clocks = means.clocks && sale != Sale::Reserved && number.is_multiple_of(3);
        let mut round =
            Self { number, seed, nodes: chance.usize(2..=NODES_MAX), store, sale, clocks, deeds: Vec::new() };
        let mut at = FIRST;
        while at + CALM < lasts {
            let (fault, lasts_ms) = round.choose(&mut chance, means);
            round.deeds.push(Deed { at, lasts: Duration::from_millis(lasts_ms), fault });
            at += Duration::from_millis(chance.u64(GAP_MS));
        }
        round
    }

    fn choose(&self, chance: &mut Rng, means: Means) -> (Fault, u64) {
        loop {
            let node = chance.usize(..self.nodes);
            let (requests, answers) = [(true, true), (true, false), (false, true)][chance.usize(..3)];
            let lot = chance.u32(..100);
            let (fault, lasts) = match lot {
                0..22 => (Fault::Kill(Who::Node(node)), DEAD_MS),
                22..26 => (Fault::KillNodes, DEAD_MS),
                26..36 => (Fault::Kill(Who::Redis), DEAD_MS),
                36..42 => (Fault::Kill(Who::Orders), DEAD_MS),
                42..46 if means.database => (Fault::Kill(Who::Records), DEAD_MS),
                46..50 if self.store != Store::Replica => (Fault::TornTail, DEAD_MS),
                50..56 if self.store == Store::Replica => (Fault::Promote, DEAD_MS),
                56..62 => (Fault::Sleep(Who::Node(node)), SLEEP_MS),
                62..65 => (Fault::Sleep(Who::Redis), BROKEN_MS),
                65..67 => (Fault::Sleep(Who::Orders), SLEEP_MS),
                67..69 if means.database => (Fault::Sleep(Who::Records), SLEEP_MS),
                69..73 => (Fault::Partition { node, requests, answers }, BROKEN_MS),
                73..74 => (Fault::Cut { node }, BROKEN_MS),
                74..75 => (Fault::Lose { node }, DEAD_MS),
                75..77 => (Fault::Delay { node, ms: chance.u64(5..150) }, BROKEN_MS),
                77..79 => (Fault::CutBuyers, DEAD_MS),
                79..81 => (Fault::PartitionOrders { requests, answers }, BROKEN_MS),
                81..90 => (Fault::Poison(*chance.choice(&Poison::ALL).expect("there are some")), BROKEN_MS),
                90..92 => (Fault::Full, BROKEN_MS),
                92..94 if means.mounts && self.store != Store::Replica => (Fault::DiskFull, DEAD_MS),
                94..96 => (Fault::Flush, BROKEN_MS),
                96..100 if self.clocks => {
                    let by_s: i64 = *chance.choice(&[3_600, 3_600, 90]).expect("there are some");
                    // That of Redis only goes ahead: when it is set back, leases last until it has caught up (docs/reliability.md).
                    let (who, by_s) = match chance.u64(0..3) {
                        0 => (Who::Redis, by_s),
                        1 => (Who::Node(node), by_s),
                        _ => (Who::Node(node), -by_s),
                    };
                    (Fault::Clock { who, by_s }, SLEEP_MS)
                }
                _ => continue,
            };
            return (fault, chance.u64(lasts));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Means = Means { waitaof: true, clocks: true, mounts: true, database: true };

    #[test]
    fn a_seed_says_everything() {
        let round = |seed, number| Round::new(seed, number, Duration::from_secs(20), ALL);
        assert_eq!(round(7, 3), round(7, 3));
        assert_ne!(round(7, 3).deeds, round(8, 3).deeds);
        assert_ne!(round(7, 3).deeds, round(7, 4).deeds);
    }

    #[test]
    fn every_fault_comes_up_and_what_a_machine_lacks_does_not() {
        let names = |means| {
            let rounds = (0..200).map(|number| Round::new(1, number, Duration::from_secs(20), means));
            let deeds = rounds.flat_map(|round| round.deeds);
            deeds.map(|deed| deed.fault.name()).collect::<std::collections::BTreeSet<String>>()
        };
        let (all, least) = (names(ALL), names(Means::default()));
        // 10 poisons, and the 23 others.
        assert_eq!(all.len(), 33, "{all:?}");
        for name in
            ["disk full", "clock of Redis jumps", "clock of node jumps", "kill -9 of records", "SIGSTOP of records"]
        {
            assert!(all.contains(name) && !least.contains(name), "{name}");
        }
        assert_eq!(least.len(), all.len() - 5);
    }
}
