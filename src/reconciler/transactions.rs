//! Drains finished global transactions from Redis to the records.
//!
//! ```text
//! ended by this node ────────────── lease ─┐
//! indexes of the final statuses ─── lease ─┴─► durable in Redis? ─► sink ─► trans_drained: a word stays
//! ```
//! What this node has ended it still knows ([`crate::driver::Finished`]) and need not read. The indexes are looked at now
//! and then, for what was ended by others, found no room in memory, or could not be written the first time.
//!
//! Dying anywhere in between changes nothing: writing again what is there has no effect, and a transaction leaves Redis
//! only when the records have it. A lease for each partition keeps nodes from doing the same work twice; it is for
//! speed, not for safety.
//!
//! A row that the database refuses by itself is set aside, in memory, and tried again after a while; all others go on.

use super::{GATHER, PAUSE_MAX, Records, sink};
use crate::crash;
use crate::domain::sale::Durability;
use crate::domain::trans::{Global, Remembered};
use crate::driver::{Driver, Over};
use crate::store;
use crate::store::keys;
use crate::store::lane::Lane;
use crate::store::orders::wait_until_durable;
use crate::store::promise::Wait;
use crate::store::trans_drain::{Queue, Waiting};
use metrics::{counter, gauge, histogram};
use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Read of each queue at a time: there are 160, few of which hold much, and a batch is filled from all of them.
const EACH_MAX: usize = 256;
/// Records read back from Redis for one batch, in bytes. One that is larger is a batch of its own.
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// Forgotten by one script: about a millisecond of Redis.
const FORGET_MAX: usize = 250;
/// Refused rows that are set aside. With more of them it is no single row's fault, and the drain waits.
const ASIDE_MAX: usize = 1_000;
/// How long a refused row is left alone.
const ASIDE_FOR: Duration = Duration::from_secs(60);

/// Why a round was cut short. Everything is tried again.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Sink(#[from] sink::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(
        "the records refuse {ASIDE_MAX} transactions one by one; the last: {gid}: {reason}; look for a rule that was added to the table"
    )]
    AllRefused { gid: String, reason: String },
}

#[derive(Clone)]
pub struct Drain {
    pub driver: Arc<Driver>,
    pub records: Arc<Records>,
    /// This node's name, unique per process: it holds the leases.
    pub node: Arc<str>,
    /// Most transactions of one write.
    pub batch_max: usize,
    /// How long the word of a drained one stays.
    pub remember: Duration,
    /// Undrained ones above which the log warns.
    pub backlog_alarm: u64,
}

/// What a running drain has in its hands.
struct Work {
    drain: Drain,
    /// For leases, and what waits for durability: WAITAOF blocks its connection.
    lane: Lane,
    /// Partitions whose lease is held.
    leased: BTreeSet<u16>,
    /// Refused rows: when they are tried again.
    aside: HashMap<String, Instant>,
    /// When the indexes are to be looked at.
    look_at: Instant,
}

/// Transactions to be written, by the queue that they leave when they are, with the versions under which they ended.
type Leaving = BTreeMap<Queue, Vec<(Remembered, u64)>>;

impl Drain {
    /// Drains until the server ends. Rounds follow the news of ended transactions; a slower beat finds what other nodes
    /// left behind.
    pub async fn run(self) {
        let beat = self.driver.settings.lease / 2;
        let lane = loop {
            match self.driver.redis.own_lane() {
                Ok(lane) => break lane,
                Err(error) => tracing::warn!(%error, "finished transactions wait in Redis"),
            }
            tokio::time::sleep(PAUSE_MAX).await;
        };
        let mut work =
            Work { drain: self, lane, leased: BTreeSet::new(), aside: HashMap::new(), look_at: Instant::now() };
        let mut pause = Duration::ZERO;
        let mut alarmed = Instant::now() - beat;
        loop {
            let result = work.drain_all().await;
            work.give_back().await;
            match result {
                Ok(()) => {
                    pause = Duration::ZERO;
                    if tokio::time::timeout(beat, work.drain.driver.finished.news()).await.is_ok() {
                        tokio::time::sleep(GATHER).await;
                    }
                }
                Err(error) => {
                    counter!("rushline_records_errors_total").increment(1);
                    work.look_at = Instant::now(); // what was in hand is in Redis only
                    pause = (pause * 2).clamp(Duration::from_millis(100), PAUSE_MAX);
                    tracing::warn!(%error, retry_ms = pause.as_millis() as u64, "finished transactions wait in Redis for the records");
                    tokio::time::sleep(pause).await;
                }
            }
            if alarmed.elapsed() >= beat {
                alarmed = Instant::now();
                work.look_at_backlog().await;
            }
        }
    }
}

impl Work {
    async fn drain_all(&mut self) -> Result<(), Error> {
        let (over, missed) = self.drain.driver.finished.take();
        if missed {
            self.look_at = Instant::now();
        }
        self.settle_own(over).await?;
        if self.look_at <= Instant::now() {
            self.look_at = Instant::now() + self.drain.driver.settings.lease / 2;
            while self.round().await? {}
        }
        Ok(())
    }

    /// Writes what this node has ended. What another node has the lease of, that one finds in the indexes.
    async fn settle_own(&mut self, mut over: Vec<Over>) -> Result<(), Error> {
        self.lease(over.iter().map(|over| keys::trans_partition(over.global.gid.as_str())).collect()).await?;
        over.retain(|over| self.leased.contains(&keys::trans_partition(over.global.gid.as_str())));
        if over.is_empty() {
            return Ok(());
        }
        let partitions = over.iter().map(|over| keys::trans_partition(over.global.gid.as_str())).collect();
        if !self.confirm_durable(partitions).await? {
            self.look_at = Instant::now();
            return Ok(());
        }
        for some in over.chunks(self.drain.batch_max) {
            let mut leaving = Leaving::new();
            for Over { global, version } in some {
                if let (Some(queue), Some(past)) = (Queue::of(global), Remembered::of(global)) {
                    leaving.entry(queue).or_default().push((past, *version));
                }
            }
            let globals: Vec<&Global> = some.iter().map(|over| &*over.global).collect();
            self.write(&globals, leaving).await?;
        }
        Ok(())
    }

    /// One batch: the oldest of all queues that are this node's for now. Is there more?
    async fn round(&mut self) -> Result<bool, Error> {
        let now = Instant::now();
        self.aside.retain(|_, until| *until > now);
        let each = EACH_MAX.min(self.drain.batch_max);
        let mut waiting = self.drain.driver.redis.finished_trans(each + self.aside.len()).await?;
        waiting.retain(|one| !self.aside.contains_key(&one.gid));
        self.lease(waiting.iter().map(|one| one.queue.partition).collect()).await?;
        waiting.retain(|one| self.leased.contains(&one.queue.partition));
        if waiting.is_empty() {
            return Ok(false);
        }
        waiting.sort_unstable_by(|a, b| (a.create_ms, &a.gid).cmp(&(b.create_ms, &b.gid)));
        let all = waiting.len();
        waiting.truncate(self.drain.batch_max);
        let settled = self.settle(&waiting).await?;
        // None settled: they have left already, by another node's hand. What is left behind must not be read for ever.
        Ok(settled > 0 && (settled < all || all >= each))
    }

    /// Takes or renews the leases of partitions that have something waiting.
    async fn lease(&mut self, partitions: BTreeSet<u16>) -> Result<(), Error> {
        let Drain { driver, node, .. } = &self.drain;
        for partition in partitions {
            match driver.redis.lease_drain(&mut self.lane, partition, node, driver.settings.lease).await? {
                true => self.leased.insert(partition),
                false => self.leased.remove(&partition),
            };
        }
        Ok(())
    }

    /// Others need not wait until the leases run out.
    async fn give_back(&mut self) {
        let Drain { driver, node, .. } = &self.drain;
        for partition in std::mem::take(&mut self.leased) {
            if driver.redis.lease_drain(&mut self.lane, partition, node, Duration::ZERO).await.is_err() {
                return; // they run out
            }
        }
    }

    /// Writes these to the records, then has Redis forget them. How many were looked at and are settled now.
    async fn settle(&mut self, waiting: &[Waiting]) -> Result<usize, Error> {
        let gids: Vec<&str> = waiting.iter().map(|one| one.gid.as_str()).collect();
        let read = self.drain.driver.redis.read_finished(&gids, BYTES_MAX).await?;
        let mut globals: Vec<Global> = Vec::with_capacity(read.len());
        let mut settled = 0;
        let mut leaving = Leaving::new();
        for (one, loaded) in waiting.iter().zip(read) {
            match loaded {
                Ok(Some(loaded)) => {
                    if let Some(over) = Remembered::of(&loaded.global) {
                        leaving.entry(one.queue).or_default().push((over, loaded.version));
                        globals.push(loaded.global);
                    }
                }
                Ok(None) => {} // another node was faster
                Err(error) => {
                    tracing::error!(gid = one.gid, %error, "a finished transaction cannot be read; it stays in Redis");
                    self.set_aside(&one.gid, &error.to_string())?;
                    settled += 1;
                }
            }
        }
        if globals.is_empty() {
            return Ok(settled);
        }
        if !self.confirm_durable(waiting.iter().map(|one| one.queue.partition).collect()).await? {
            return Ok(0);
        }
        Ok(settled + self.write(&globals, leaving).await?)
    }

    /// Writes these, and has Redis forget them. How many are settled: gone, or refused and set aside.
    async fn write(&mut self, globals: &[impl Borrow<Global> + Sync], leaving: Leaving) -> Result<usize, Error> {
        let mut settled = 0;
        crash::point("trans_drain.before_write");
        let started = Instant::now();
        let refused = self.drain.records.sink().await?.write_transactions(globals).await?;
        histogram!("rushline_records_write_seconds").record(started.elapsed());
        crash::point("trans_drain.after_write");
        for unwritten in &refused {
            counter!("rushline_records_errors_total").increment(1);
            tracing::error!(
                gid = unwritten.gid,
                reason = unwritten.reason,
                "a finished transaction is refused by the records; it stays in Redis"
            );
        }
        for (queue, mut written) in leaving {
            written.retain(|(over, _)| !refused.iter().any(|unwritten| unwritten.gid == over.gid.as_str()));
            for some in written.chunks(FORGET_MAX) {
                let left = self.drain.driver.redis.forget_trans(queue, some, self.drain.remember).await?;
                counter!("rushline_transactions_drained_total").increment(left); // others may have written them too
                crash::point("trans_drain.after_forget");
                settled += some.len();
            }
        }
        for unwritten in refused {
            self.set_aside(&unwritten.gid, &unwritten.reason)?;
            settled += 1;
        }
        Ok(settled)
    }

    fn set_aside(&mut self, gid: &str, reason: &str) -> Result<(), Error> {
        self.aside.insert(gid.to_owned(), Instant::now() + ASIDE_FOR);
        if self.aside.len() < ASIDE_MAX {
            return Ok(());
        }
        // After the pause all of them are tried again: whoever took the rule away need not wait for them.
        self.aside.clear();
        Err(Error::AllRefused { gid: gid.to_owned(), reason: reason.to_owned() })
    }

    /// What was read is as durable as this Redis can make it: a record must not outlive the end that it tells of. A
    /// Redis that keeps nothing on its disk can confirm nothing, and promised nothing. `false`: the lease is lost.
    async fn confirm_durable(&mut self, partitions: BTreeSet<u16>) -> Result<bool, Error> {
        let Drain { driver, node, .. } = &self.drain;
        let wait = driver.redis.promise().confirms(Durability::Fsync).unwrap_or(Wait::Nothing);
        if wait == Wait::Nothing {
            return Ok(true);
        }
        // One server has all partitions, so one of them is enough; of a Cluster each is asked.
        let each = if driver.redis.is_cluster() { partitions.len() } else { 1 };
        for partition in partitions.into_iter().take(each) {
            // Renewing it is the write that WAITAOF waits for; all that was read came before.
            let lease = driver.settings.lease;
            if !driver.redis.lease_drain(&mut self.lane, partition, node, lease).await? {
                return Ok(false);
            }
            wait_until_durable(&mut self.lane, wait, driver.redis.patience()).await?;
        }
        Ok(true)
    }

    async fn look_at_backlog(&self) {
        gauge!("rushline_transactions_set_aside").set(self.aside.len() as f64);
        let Ok(undrained) = self.drain.driver.redis.finished_trans_count().await else { return };
        if undrained > self.drain.backlog_alarm {
            tracing::warn!(
                transactions = undrained,
                "more finished transactions wait for the records than records.backlog_alarm allows"
            );
        }
    }
}
