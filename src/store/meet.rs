//! Meeting a run of Redis: does it have all that this node was told of? If not the partition is fenced, and what is lost is
//! put together in Redis for whoever repairs.
//!
//! A partition is met before this node sells there for the first time, after every change of the run of Redis, whenever
//! order_admit names another term, and when a look every [`LOOK_EVERY`] finds something else than what was told. So an idle
//! node finds a loss too.

use super::keys::Keys;
use super::lost::Kept;
use super::redis::Redis;
use super::witness::{Fence, Numbers, Seen};
use super::{Error, scripts};
use crate::domain::ids::EntryId;
use std::sync::Arc;
use std::time::Duration;

/// How often all partitions are looked at, by one pipeline.
pub const LOOK_EVERY: Duration = Duration::from_millis(300);
/// Terms that a partition remembers: one begins with each run of Redis, each fence and each repair.
pub const TERMS_MAX: usize = 64;
/// Entries that are written down by one call.
const ENTRIES_MAX: usize = 64;
/// Gids that the log names; the rest is counted there, and all of them are in Redis.
const NAMED_MAX: usize = 20;

/// Eight signs that nobody has used.
pub(super) fn nonce() -> String {
    format!("{:08x}", fastrand::u32(..))
}

impl Redis {
    /// The partition as this node knows it.
    pub fn seen(&self, keys: &Keys) -> Arc<Seen> {
        self.witness.of(keys)
    }

    /// Keeps an admission in mind that somebody is about to hear of.
    pub fn remember(&self, keys: &Keys, entry: EntryId, seq: u64, orders: Vec<Kept>) {
        self.witness.remember(keys, entry, seq, orders);
    }

    /// Why this partition does not sell, as far as this node knows.
    pub fn fence(&self, keys: &Keys) -> Option<Fence> {
        self.witness.of(keys).fence()
    }

    /// Waits until a partition was fenced.
    pub async fn fenced(&self) {
        self.witness.fenced.notified().await;
    }

    /// The term to sell in.
    ///
    /// # Errors
    /// [`Error::Fenced`]: nothing may be sold.
    pub(super) async fn term(&self, seen: &Seen) -> Result<String, Error> {
        // A run that changes again and again is not to be sold to.
        for _ in 0..3 {
            let server = self.topology.server_of(seen.keys.sale.as_bytes())?;
            server.make_sure().await?;
            let promise = self.promise_at(&seen.keys.sale);
            if let Some(term) = seen.term(&promise) {
                return seen.fence().map_or(Ok(term), |fence| Err(Error::Fenced(fence)));
            }
            self.meet(seen).await?;
        }
        Err(Error::Refused { code: "AWAY".into(), message: "Redis changes too often to be relied on".into() })
    }

    /// The run of Redis that has these keys, looked at anew if a connection broke since the last look.
    pub async fn run_now(&self, keys: &Keys) -> Result<String, Error> {
        self.topology.server_of(keys.sale.as_bytes())?.make_sure().await?;
        Ok(self.promise_at(&keys.sale).run())
    }

    /// Compares what Redis has with what this node was told of.
    pub async fn meet(&self, seen: &Seen) -> Result<(), Error> {
        let _one_at_a_time = seen.meeting.lock().await;
        let mut lane = self.lane();
        if self.promise_at(&seen.keys.sale).run().is_empty() {
            self.verify().await?;
        }
        let run = self.promise_at(&seen.keys.sale).run();
        let (terms, told) = seen.claim();
        let mut command = scripts::sale_meet.call(&[&seen.keys.sale, &seen.keys.stock]);
        command.arg(&run).arg(nonce()).arg(terms).arg(told).arg(TERMS_MAX);
        let reply = self.run(&mut lane, &command).await?;
        let unexpected = || Error::Unexpected { what: "sale_meet", reply: format!("{reply:?}") };
        let words: Vec<String> = redis::from_redis_value_ref(&reply).map_err(|_| unexpected())?;
        let news = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["GONE"] if told == 0 && seen.fence().is_none() => return Err(Error::NoSale),
            ["GONE"] => seen.gone(run),
            [word @ ("MET" | "FENCED"), terms, seq, lost, fence, began] => {
                let seq = seq.parse().map_err(|_| unexpected())?;
                let began = began.parse().map_err(|_| unexpected())?;
                let unknown = Fence { since_ms: 0, found: seq, told };
                let fence = (word == "FENCED").then(|| Fence::read(fence).unwrap_or(unknown));
                seen.met(run, terms.to_owned(), Numbers { seq, began, lost: lost.parse().ok() }, fence)
            }
            _ => return Err(unexpected()),
        };
        if news && let Some(fence) = seen.fence() {
            metrics::counter!("rushline_fences_total").increment(1);
            tracing::error!(
                sale = seen.keys.name(),
                found = fence.found,
                told = fence.told,
                "Redis does not have what it acknowledged: nothing is sold until `rushline repair` has brought it back"
            );
        }
        if seen.books().is_none() {
            self.read_books(seen).await?;
        }
        self.write_down(seen).await?;
        if news {
            self.witness.fenced.notify_one();
        }
        Ok(())
    }

    /// Puts what this node acknowledged and Redis lost into Redis.
    async fn write_down(&self, seen: &Seen) -> Result<(), Error> {
        let (mut orders, mut named) = (0, Vec::new());
        let mut left_out = 0;
        while let Some((unknown, entries)) = seen.owed(ENTRIES_MAX) {
            let mut command = scripts::sale_lost.call(&[&seen.keys.sale, &seen.keys.outcome, &seen.keys.lost]);
            command.arg(unknown);
            for (id, packed) in &entries {
                command.arg(id.to_string()).arg(packed);
            }
            self.run(&mut self.lane(), &command).await?;
            left_out += unknown;
            let ids: Vec<EntryId> = entries.iter().map(|(id, _)| *id).collect();
            orders += seen.paid(&ids);
            named.extend(ids.iter().take(NAMED_MAX - named.len().min(NAMED_MAX)).map(EntryId::to_string));
        }
        if orders + left_out > 0 {
            metrics::counter!("rushline_orders_lost_total").increment(orders + left_out);
            tracing::error!(
                sale = seen.keys.name(),
                orders,
                forgotten = left_out,
                entries = named.join(" "),
                "orders that this node acknowledged are lost in Redis; `rushline repair` names and replays them"
            );
        }
        Ok(())
    }

    /// Looks at all partitions, and meets those where something is not as it was told.
    pub async fn look_for_losses(&self) -> Result<(), Error> {
        self.witness.forget_old();
        let all: Vec<Arc<Seen>> =
            self.witness.all().into_iter().filter(|seen| self.usable_at(&seen.keys.sale)).collect();
        if all.is_empty() {
            return Ok(());
        }
        let mut pipeline = redis::pipe();
        for seen in &all {
            pipeline.cmd("HMGET").arg(&seen.keys.stock).arg(":term").arg(":seq");
        }
        let found: Vec<(Option<String>, Option<u64>)> = pipeline.query_async(&mut self.lane()).await?;
        for seen in all.iter().filter(|seen| seen.books_are_due()) {
            self.read_books(seen).await?;
        }
        for (seen, (term, seq)) in all.iter().zip(found) {
            let promise = self.promise_at(&seen.keys.sale);
            if !seen.agrees(term.as_deref().unwrap_or_default(), seq.unwrap_or_default(), &promise)
                && let Err(error) = self.meet(seen).await
            {
                tracing::debug!(sale = seen.keys.name(), %error, "a partition could not be met");
            }
        }
        Ok(())
    }

    pub async fn look_for_losses_every(self: Arc<Self>, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            if let Err(error) = self.look_for_losses().await {
                tracing::debug!(%error, "partitions could not be looked at");
            }
        }
    }

    /// The last change of this partition that somebody may be told of.
    pub async fn last_change(&self, keys: &Keys) -> Result<Change, Error> {
        let (seq, term): (Option<u64>, Option<String>) =
            redis::cmd("HMGET").arg(&keys.stock).arg(":seq").arg(":term").query_async(&mut self.lane()).await?;
        Ok(Change { seq: seq.unwrap_or_default(), term: term.unwrap_or_default() })
    }

    /// Somebody is about to hear of this change. It counts in the term that it belongs to: a run of Redis that others have met
    /// already, and this node has not, numbers on from where it began, which says nothing of the term before.
    pub async fn acknowledge(&self, keys: &Keys, change: &Change) -> Result<(), Error> {
        let seen = self.witness.of(keys);
        match self.term(&seen).await {
            Ok(term) if term == change.term => seen.told(change.seq),
            Ok(_) | Err(Error::Fenced(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// A change by its number, and the term that it was made in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub seq: u64,
    term: String,
}
