//! What all parts of a world share: its clock, Redis, the shop, the records, the buyers' memory, and the account of it.

use super::checks::ledger::Ledger;
use super::plan::{Fault, Plan};
use super::records::Kept;
use super::requests::Told;
use super::shop::Shop;
use super::trace::Trace;
use crate::model::server::{Fsync, Server};
use fastrand::Rng;
use rushline::domain::order::Status;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Every world begins at this moment of 2027, by the clock of Redis.
const BEGINNING: Duration = Duration::from_millis(1_800_000_000_000);

pub struct Shared {
    began: Instant,
    pub plan: Plan,
    state: Mutex<State>,
    /// Something reached the disk or a replica.
    pub progress: Notify,
    /// A line was cut or mended, or Redis went or came.
    pub weather: Notify,
}

pub struct State {
    pub server: Server,
    pub redis_is_up: bool,
    /// Connections from before a change of this are broken.
    pub epoch: u64,
    /// No answer leaves earlier: what it may tell of is on disk from then on.
    pub synced_at: Duration,
    pub lagging: Vec<bool>,
    /// Everything is well, and stays so.
    pub calm: bool,
    pub network: Rng,
    pub shop: Shop,
    pub records: BTreeMap<String, Kept>,
    pub records_are_up: bool,
    pub told: Vec<Told>,
    /// How reservations stand, by what buyers were told of their ends.
    pub verdicts: Vec<(String, Status)>,
    pub ledger: Ledger,
    pub trace: Trace,
    pub wrong: Vec<String>,
    pub counts: BTreeMap<&'static str, u64>,
}

impl Shared {
    pub fn new(plan: Plan, verbose: bool) -> Self {
        let fsync = if plan.redis.always { Fsync::Always } else { Fsync::EverySecond };
        let state = State {
            server: Server::new(plan.redis.version, fsync, plan.redis.replicas),
            redis_is_up: true,
            epoch: 0,
            synced_at: Duration::ZERO,
            lagging: vec![false; plan.redis.replicas],
            calm: false,
            network: Rng::with_seed(plan.seed ^ 0x006e_6574),
            shop: Shop::new(&plan),
            records: BTreeMap::new(),
            records_are_up: true,
            told: Vec::new(),
            verdicts: Vec::new(),
            ledger: Ledger::new(&plan.sale),
            trace: Trace::new(verbose),
            wrong: Vec::new(),
            counts: BTreeMap::new(),
        };
        Self { began: Instant::now(), plan, state: Mutex::new(state), progress: Notify::new(), weather: Notify::new() }
    }

    /// Since the world began.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// The time of day.
    pub fn now(&self) -> Duration {
        BEGINNING + self.elapsed()
    }

    pub async fn sleep_until(&self, at: Duration) {
        tokio::time::sleep_until(self.began + at.saturating_sub(BEGINNING)).await;
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding this lock")
    }

    /// Tells the story, and counts what it is about.
    pub fn note(&self, line: impl FnOnce() -> String) {
        let elapsed = self.elapsed();
        self.lock().trace.note(elapsed, line);
    }

    pub fn is_over(&self) -> bool {
        !self.lock().wrong.is_empty()
    }

    pub fn note_fault(&self, fault: &Fault) {
        self.lock().count("faults");
        self.note(|| format!("fault    {fault:?}"));
    }
}

impl State {
    pub fn wrong(&mut self, what: String) {
        self.wrong.push(what);
    }

    pub fn verdicts_push(&mut self, gid: &str, status: Status) {
        self.verdicts.push((gid.to_owned(), status));
    }

    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Is this so, of a hundred?
    pub fn happens(&mut self, hundredths: u32) -> bool {
        !self.calm && self.network.u32(0..100) < hundredths
    }

    /// Is it as durable as its class promises, so that somebody may hear of it?
    pub fn is_durable(&self, plan: &Plan, write: u64, now: Duration) -> bool {
        use rushline::domain::sale::Durability;
        match plan.sale.durability {
            Durability::Memory => true,
            Durability::Fsync => self.server.on_disk(now) >= write,
            Durability::Replica(n) => {
                self.server.replicas.iter().filter(|has| **has >= write).count() >= usize::from(n)
            }
        }
    }
}
