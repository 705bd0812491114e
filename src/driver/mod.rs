//! Moves global transactions on: those that were submitted here at once, all others when they are due.
//!
//! ```text
//! server ─ start ─►┐                      ┌─ calls (branch) ─► services
//!                  ├─► pass, one a task ──┤
//! due index ─claim─┘                      └─ saves (store) ──► Redis: status, due time, index in one script
//! ```
//! The rules are in [`crate::domain::trans`]; [`pass`] performs what they say. Whoever works on a transaction keeps its
//! due time ahead of the clock: that is the lease. If this node dies, the due time comes and another node claims it.
//! The version of the record is the fence: who hears STALE lets go.

mod claim;
mod counts;
pub mod errors;
mod finished;
mod lease;
mod pass;

use crate::branch::{Caller, host_of};
use crate::domain::trans::{Alert, Limits, Refusal, TransGid};
use crate::reconciler::Records;
use crate::registry::resolve::Resolver;
use crate::store;
use crate::store::redis::Redis;
use crate::store::trans_form::Loaded;
use crate::store::trans_writer::Writer;
use futures_util::FutureExt;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

/// Alerts on their way at a time; an alert beyond that is only logged.
const ALERTS_MAX: usize = 32;

/// What the driver is bounded by; defaults stand in `config`.
#[derive(Debug, Clone)]
pub struct Settings {
    pub limits: Limits,
    /// How long a transaction lies untouched before another node takes it on.
    pub lease: Duration,
    /// Transactions that this node works on at a time.
    pub running_max: usize,
    pub calls_per_host_max: usize,
    /// Redirects of one call that are followed.
    pub redirects_max: usize,
    /// Whether transactions may bring credentials for the services they call.
    pub credentials: bool,
    pub alert_url: Option<String>,
}

/// How a pass ended, for whoever waits for it.
#[derive(Debug, Clone)]
pub enum Ended {
    /// With dtm's answer to a submit that waits.
    Over(Result<(), Refusal>),
    /// Somebody else wrote the transaction: its record says more.
    Lost,
    /// The node stops; another one goes on.
    HandedOver,
    Store(store::Error),
}

/// Told once when a pass ends.
pub type Told = watch::Receiver<Option<Ended>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Phase {
    Running,
    /// Takes on nothing new.
    Draining,
    /// Writes down what it has and lets go.
    LettingGo,
}

struct Run {
    told: Told,
    since: Instant,
}

pub use finished::{Finished, Over};

pub struct Driver {
    pub redis: Arc<Redis>,
    pub writer: Writer,
    /// Where transactions are that have left Redis.
    pub records: Arc<Records>,
    pub settings: Settings,
    /// What has ended here and waits for the drain.
    pub finished: Finished,
    caller: Arc<Caller>,
    pub counts: counts::Counts,
    /// Why transactions did not get on here.
    pub errors: errors::Errors,
    running: Mutex<HashMap<TransGid, Run>>,
    room: Arc<Semaphore>,
    alerts: Arc<Semaphore>,
    wake: Notify,
    /// When the claim loop wakes next, ms.
    planned_ms: AtomicU64,
    phase: watch::Sender<Phase>,
    kept: lease::Kept,
}

async fn reached(phase: &mut watch::Receiver<Phase>, wanted: Phase) {
    // The error says that the driver is gone: the end of everything.
    let _ = phase.wait_for(|phase| *phase >= wanted).await.map(|_| ());
}

/// Milliseconds since 1970, by the clock of this machine: for people and records, not for timers.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

impl Driver {
    pub fn new(redis: Arc<Redis>, records: Arc<Records>, settings: Settings, registry: Arc<Resolver>) -> Arc<Self> {
        Arc::new(Self {
            writer: Writer::start(redis.clone()),
            redis,
            records,
            finished: Finished::default(),
            caller: Caller::new(settings.calls_per_host_max, settings.redirects_max, registry),
            counts: counts::Counts::new(),
            errors: errors::Errors::default(),
            running: Mutex::default(),
            room: Arc::new(Semaphore::new(settings.running_max)),
            alerts: Arc::new(Semaphore::new(ALERTS_MAX)),
            wake: Notify::new(),
            planned_ms: AtomicU64::new(0),
            phase: watch::Sender::new(Phase::Running),
            kept: lease::Kept::new(settings.lease, Instant::now()),
            settings,
        })
    }

    pub fn limits(&self) -> &Limits {
        &self.settings.limits
    }

    /// Milliseconds since 1970, by the clock of Redis: whoever sets a timer is not who looks at it.
    pub fn now_ms(&self) -> u64 {
        self.redis.now_ms()
    }

    /// When a lease taken now runs out, ms.
    pub fn lease_until_ms(&self) -> u64 {
        self.now_ms().saturating_add(self.settings.lease.as_millis() as u64)
    }

    /// Room for one more transaction; `None` when there is none or the node stops. What gets no room is stored as due
    /// at once: the claim loop takes it, oldest first.
    pub fn room(&self) -> Option<OwnedSemaphorePermit> {
        if *self.phase.borrow() != Phase::Running {
            return None;
        }
        self.room.clone().try_acquire_owned().ok()
    }

    /// As [`Driver::room`], for a caller that waits for the outcome anyway.
    pub async fn wait_for_room(&self) -> Option<OwnedSemaphorePermit> {
        let permit = self.room.clone().acquire_owned().await.ok()?;
        (*self.phase.borrow() == Phase::Running).then_some(permit)
    }

    /// Works on what was just stored under a lease.
    pub fn start(self: &Arc<Self>, loaded: Loaded, room: OwnedSemaphorePermit) -> Told {
        let (tell, told) = watch::channel(None);
        let driver = self.clone();
        let sure = self.kept.sure(Instant::now());
        tokio::spawn(async move {
            let gid = loaded.global.gid.clone();
            driver.enter(&gid, &tell).await;
            let passing = AssertUnwindSafe(pass::run(&driver, loaded, sure)).catch_unwind();
            // After a panic its lease runs out, and then it is claimed again.
            let ended = passing.await.unwrap_or(Ended::Lost);
            driver.running().remove(&gid);
            tell.send_replace(Some(ended));
            drop(room);
        });
        told
    }

    /// Waits until no earlier pass of this node works on it: its next write is refused, so it ends soon.
    async fn enter(&self, gid: &TransGid, tell: &watch::Sender<Option<Ended>>) {
        loop {
            let mut earlier = match self.running().entry(gid.clone()) {
                Entry::Vacant(place) => {
                    place.insert(Run { told: tell.subscribe(), since: Instant::now() });
                    return;
                }
                Entry::Occupied(run) => run.get().told.clone(),
            };
            let _ = earlier.wait_for(Option::is_some).await;
            tokio::task::yield_now().await;
        }
    }

    /// The pass that this node makes at it now, if any.
    pub fn running_pass(&self, gid: &TransGid) -> Option<Told> {
        self.running().get(gid).map(|run| run.told.clone())
    }

    fn running(&self) -> MutexGuard<'_, HashMap<TransGid, Run>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn in_flight(&self) -> usize {
        self.running().len()
    }

    /// Something is due at `ms`: the claim loop must not sleep longer.
    pub fn due_at(&self, ms: u64) {
        if ms < self.planned_ms.load(Ordering::Relaxed) {
            self.planned_ms.fetch_min(ms, Ordering::Relaxed);
            self.wake.notify_one();
        }
    }

    fn alert(self: &Arc<Self>, alert: Alert) {
        metrics::counter!("rushline_transaction_alerts_total").increment(1);
        // Neither the whole address nor the branch's words: there may be a token in the one and a payload in the other.
        let (host, passes) = (host_of(&alert.branch), alert.retry_count);
        tracing::warn!(gid = alert.gid, host, passes, "a transaction does not get on; rushline txn show says why");
        let Some(url) = self.settings.alert_url.clone() else { return };
        let Ok(permit) = self.alerts.clone().try_acquire_owned() else { return };
        let driver = self.clone();
        tokio::spawn(async move {
            let body = serde_json::to_vec(&alert).expect("an alert is plain data");
            let timeout = Duration::from_millis(driver.limits().request_timeout_ms);
            if let Err(error) = driver.caller.post(&url, body, timeout).await {
                tracing::warn!(%error, "the alert hook did not answer");
            }
            drop(permit);
        });
    }
}
