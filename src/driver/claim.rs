//! Finding what is due, keeping leases, and letting go in good order.

use super::{Driver, Phase};
use crate::domain::trans::{GlobalStatus, TransGid, TransType};
use crate::store::trans::Due;
use crate::store::{Error, keys};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// How often the due indexes are looked at when nothing is known to be due: what other nodes left behind is found
/// this late at most. One round trip of 16 tiny reads.
const LOOK_EVERY_MS: u64 = 1_000;
/// Claimed from one partition at a time. More would let one script, and one reply, grow.
const CLAIM_MAX: usize = 128;

/// Looked at by one script after an outage: a few milliseconds of Redis at most.
const HURRY_MAX: usize = 500;
/// An outage that ends again at once must not have everything tried all the time.
const HURRY_EVERY: Duration = Duration::from_secs(10);

impl Driver {
    /// Claims what is due, for as long as the node runs.
    pub async fn claim_due(self: Arc<Self>) {
        let mut phase = self.phase.subscribe();
        loop {
            let next_ms = match self.claim_once().await {
                Ok(next_ms) => next_ms,
                Err(error) => {
                    tracing::debug!(%error, "the due transactions cannot be read");
                    self.now_ms() + LOOK_EVERY_MS
                }
            };
            // What became due while the indexes were read counts as well.
            let next_ms = self.planned_ms.fetch_min(next_ms, Ordering::Relaxed).min(next_ms);
            let pause = Duration::from_millis(next_ms.saturating_sub(self.now_ms()).min(LOOK_EVERY_MS));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.wake.notified() => {
                    let planned = self.planned_ms.load(Ordering::Relaxed);
                    let pause = Duration::from_millis(planned.saturating_sub(self.now_ms()).min(LOOK_EVERY_MS));
                    tokio::time::sleep(pause).await;
                }
                () = super::reached(&mut phase, Phase::Draining) => return,
            }
        }
    }

    /// One round over the partitions; when to come again.
    async fn claim_once(self: &Arc<Self>) -> Result<u64, Error> {
        // At least one place must be free, or a claim would only hold things up.
        let Ok(place) = self.room.clone().acquire_owned().await else { return Ok(u64::MAX) };
        drop(place);
        let now = self.now_ms();
        self.planned_ms.store(u64::MAX, Ordering::Relaxed); // from here on due_at notes what is missed below
        let firsts = self.redis.next_due().await?;
        let mut next_ms = now + LOOK_EVERY_MS;
        let mut due: Vec<(u64, u16)> = Vec::new();
        for (partition, first) in (0..).zip(firsts) {
            match first {
                Some(ms) if ms <= now => due.push((ms, partition)),
                Some(ms) => next_ms = next_ms.min(ms),
                None => {}
            }
        }
        due.sort_unstable();
        let each = (self.room.available_permits() / due.len().max(1)).clamp(1, CLAIM_MAX);
        for (_, partition) in due {
            if self.room.available_permits() == 0 {
                return Ok(now);
            }
            let claimed = Instant::now();
            let gids = self.redis.claim_trans(partition, now, self.lease_until_ms(), each).await?;
            if !gids.is_empty() {
                crate::crash::point("trans.after_claim");
            }
            if gids.len() == each {
                next_ms = now; // there is more where these came from
            }
            self.take_on(gids, claimed).await?;
        }
        Ok(next_ms)
    }

    async fn take_on(self: &Arc<Self>, gids: Vec<String>, claimed: Instant) -> Result<(), Error> {
        let loaded = self.redis.load_all_trans(&gids).await?;
        let now = self.now_ms();
        for (gid, loaded) in gids.into_iter().zip(loaded) {
            let mut loaded = match loaded {
                Ok(Some(loaded)) => loaded,
                Ok(None) => {
                    tracing::error!(gid, "due, and there is no record of it: a foreign hand in our keys");
                    continue;
                }
                Err(error) => {
                    tracing::error!(gid, %error, "due, and its record cannot be read; it stays");
                    continue;
                }
            };
            if self.running_pass(&loaded.global.gid).is_some() {
                continue; // the claim has renewed the lease
            }
            // The due index has the say: an operator moves it alone. Delays and times to decide are kept all the same.
            loaded.global.next_cron_ms = loaded.global.next_cron_ms.min(now);
            // The lease is held already, so a place is waited for; but nobody renews it meanwhile. What gets no place
            // in time is claimed anew when the lease is over.
            let room = tokio::time::timeout_at(claimed + self.settings.lease / 4, self.room.clone().acquire_owned());
            let Ok(Ok(room)) = room.await else { return Ok(()) };
            metrics::counter!("rushline_transactions_claimed_total").increment(1);
            self.start(loaded, room);
        }
        Ok(())
    }

    /// When a branch answers again after an outage, makes due what waits, for whichever branch: those whose service is
    /// still away wait again, after one more call. The claim loop and the bound per host pace the rest.
    pub async fn hurry_after_outages(self: Arc<Self>) {
        loop {
            self.caller.returned.notified().await;
            tracing::info!("a branch answers again; what waits is tried now, the oldest first");
            if let Err(error) = self.hurry().await {
                tracing::warn!(%error, "what waits keeps its times");
            }
            tokio::time::sleep(HURRY_EVERY).await;
        }
    }

    async fn hurry(&self) -> Result<(), Error> {
        let mut open = Vec::new();
        for status in [GlobalStatus::Submitted, GlobalStatus::Aborting] {
            for trans_type in TransType::ALL.iter().copied() {
                open.extend((0..keys::TRANS_PARTITIONS).map(|partition| (partition, status, trans_type, 0)));
            }
        }
        while !open.is_empty() {
            // A slice of each in turn, so that the oldest of all come before the younger of any.
            let mut longer = Vec::new();
            for (partition, status, trans_type, from_ms) in open {
                let on =
                    self.redis.hurry_trans(partition, status, trans_type, self.now_ms(), from_ms, HURRY_MAX).await?;
                longer.extend(on.map(|from_ms| (partition, status, trans_type, from_ms)));
            }
            open = longer;
            self.due_at(self.now_ms());
        }
        Ok(())
    }

    /// Renews the leases of what this node works on.
    pub async fn keep_leases(self: Arc<Self>) {
        let every = self.settings.lease / 3;
        loop {
            tokio::time::sleep(every).await;
            let now = std::time::Instant::now();
            self.kept.look(now);
            let old: Vec<TransGid> = self
                .running()
                .iter()
                .filter(|(_, run)| run.since.elapsed() >= every)
                .map(|(gid, _)| gid.clone())
                .collect();
            if old.is_empty() {
                self.kept.renewed(now);
                continue;
            }
            match self.redis.move_due(&old, Due::Leased(self.lease_until_ms())).await {
                Ok(()) => self.kept.renewed(now),
                Err(error) => tracing::debug!(%error, "leases are not renewed"),
            }
        }
    }

    /// Lets what is under way end, until `deadline`; then writes down how far it is and leaves it to the other nodes.
    pub async fn stop(&self, deadline: Instant) {
        self.phase.send_replace(Phase::Draining);
        self.wait_until_idle(deadline).await;
        self.phase.send_replace(Phase::LettingGo);
        self.wait_until_idle(Instant::now() + Duration::from_secs(2)).await;
        let left: Vec<TransGid> = self.running().keys().cloned().collect();
        if !left.is_empty() && self.redis.move_due(&left, Due::At(self.now_ms())).await.is_err() {
            tracing::warn!("leases are not given back; other nodes take over when they run out");
        }
    }

    async fn wait_until_idle(&self, deadline: Instant) {
        while self.in_flight() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await; // passes end in many places; there is no one event
        }
    }
}
