//! The sweep: finds what nobody works on. Entries whose node died (their lease ran out) are taken over; entries that
//! ended but were not drained are pointed out to the reconciler; units that somebody sent to another partition arrive; ledgers of sales closed for long are forgotten.

use super::keeper::Message;
use super::node::Node;
use super::open::Open;
use super::{Entry, Job, Part};
use crate::domain::order::Order;
use crate::domain::reservation::State;
use crate::store;
use crate::store::lost::Kept;
use crate::store::orders::Address;
use crate::store::promise::Wait;
use crate::zoo;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// Entries taken over by one command: bounds its reply.
const TAKE_OVER_MAX: usize = 50;

impl Node {
    /// Sweeps until the server ends, twice a lease, not in step with other nodes.
    pub async fn sweep(self: Arc<Self>, ledger_keep: Duration) {
        loop {
            let pause = self.limits.lease.mul_f64(0.4 + 0.2 * fastrand::f64());
            tokio::time::sleep(pause).await;
            if let Err(error) = self.sweep_once(ledger_keep).await {
                tracing::debug!(%error, "a sweep was cut short");
            }
        }
    }

    async fn sweep_once(&self, ledger_keep: Duration) -> Result<(), store::Error> {
        let names = self.redis.sale_names().await?;
        for open in self.all_opened().iter().filter(|_| !zoo::planted("a sale is told of before it is durable")) {
            // A Redis may come back with a sale and without its name, and then only who has it open knows of it.
            if names.binary_search(&open.sale.name).is_err() && self.redis.load_sale(&open.head()).await?.is_some() {
                self.redis.list_sale(&open.sale.name).await?;
            }
        }
        for name in names {
            let Some(open) = self.open(&name).await? else { continue };
            for part in open.parts() {
                if let Err(error) = self.sweep_part(&open, &part, ledger_keep).await {
                    tracing::debug!(sale = %name, partition = part.number, %error, "a partition could not be swept");
                }
            }
        }
        Ok(())
    }

    async fn sweep_part(&self, open: &Open, part: &Arc<Part>, ledger_keep: Duration) -> Result<(), store::Error> {
        if part.stored.load().spread.partitions > 1 && !zoo::planted("units of a dead carrier are not carried on") {
            self.carry_all(open, part).await?;
        }
        let backlog = self.redis.backlog(&part.keys).await?;
        if backlog.finished > 0 {
            self.finished.wake();
        }
        if backlog.undelivered_entries > 0 && !zoo::planted("entries of a dead node are not taken over") {
            self.take_over(part).await?;
        }
        if backlog.entries == 0 && self.redis.forget_ledger(&part.keys, ledger_keep.as_millis() as u64).await? {
            tracing::info!(sale = %part.name, "the buyers' ledger of a closed sale is forgotten");
        }
        Ok(())
    }

    /// Takes over entries of this partition whose node has not been heard of for a lease, as far as the backlog allows.
    async fn take_over(&self, sale: &Arc<Part>) -> Result<(), store::Error> {
        let mut cursor = "0-0".to_owned();
        while sale.backlog.load(Ordering::Relaxed) < sale.limits.backlog_max {
            let claimed = Instant::now();
            let run = self.redis.promise_at(&sale.keys.sale).run();
            let (entries, next) =
                self.redis.take_over(&sale.keys, &self.name, sale.limits.lease, &cursor, TAKE_OVER_MAX).await?;
            if !entries.is_empty() {
                let seq = self.acknowledge(sale).await?;
                if self.redis.promise_at(&sale.keys.sale).run() != run {
                    return Ok(()); // what was found may be in the Redis of before only: the next sweep sees
                }
                for entry in &entries {
                    let orders = entry.frames.iter().cloned().map(Order::from);
                    self.redis.remember(&sale.keys, entry.id, seq, orders.map(|order| Kept::of(&order)).collect());
                }
                tracing::info!(sale = %sale.name, entries = entries.len(), "taking over entries whose node went silent");
            }
            for entry in entries {
                self.resume(sale, entry, claimed).await?;
            }
            if next == "0-0" {
                break;
            }
            cursor = next;
        }
        Ok(())
    }

    /// Everything that Redis has of this partition up to now is as durable as its class promises.
    ///
    /// Asked before a branch call for an order that another node admitted (it may have died waiting for just that),
    /// and before a finished order goes to the records: a record must not outlive the end that it tells of.
    pub(crate) async fn confirm_durable(&self, part: &Part) -> Result<(), store::Error> {
        if zoo::planted("what others wrote is taken for durable") {
            return Ok(());
        }
        let class = part.stored.load().settings.durability;
        let wait = self.redis.promise_at(&part.keys.sale).confirms(class).map_err(store::Error::NotDurable)?;
        if wait == Wait::Nothing {
            return Ok(());
        }
        let run = self.redis.promise_at(&part.keys.sale).run();
        // WAIT and WAITAOF block their connection and count only its own writes; earlier ones come before those.
        let _alone = self.confirming.lock().await;
        let mut lane = self.fence.get_or_try_init(async || self.redis.own_lane()).await?.clone();
        self.redis.touch_sale(&mut lane, &part.keys).await?;
        store::orders::wait_until_durable(&mut lane, wait, part.limits.patience).await?;
        // Another Redis confirms what it has itself.
        match self.redis.run_now(&part.keys).await? == run {
            true => Ok(()),
            false => Err(store::Error::NotDurable("another Redis is there now".into())),
        }
    }

    /// As [`Node::confirm_durable`], before somebody is told of a change or of an order: from now on this node knows that
    /// Redis must have it. Answers the number up to which it must.
    pub(crate) async fn acknowledge(&self, part: &Part) -> Result<u64, store::Error> {
        // In this order: what comes in between is neither durable nor told of.
        let change = self.redis.last_change(&part.keys).await?;
        self.confirm_durable(part).await?;
        self.redis.acknowledge(&part.keys, &change).await?;
        Ok(change.seq)
    }

    async fn resume(
        &self,
        part: &Arc<Part>,
        found: store::orders::Entry,
        claimed: Instant,
    ) -> Result<(), store::Error> {
        let outcome = found.outcome;
        let orders = found.frames.into_iter().map(Order::from).collect();
        let entry = Arc::new(Entry::new(part.clone(), found.id, orders, claimed));
        let addresses: Vec<Address> = (0..entry.orders.len() as u16)
            .filter(|index| {
                outcome.as_bytes().get(usize::from(*index)).is_some_and(|code| State::code_is_unanswered(*code))
            })
            .map(|index| Address { entry: entry.id, index })
            .collect();
        let details = self.redis.details(&part.keys, &addresses).await?;
        let jobs = addresses
            .iter()
            .zip(details)
            .map(|(address, (detail, delay))| {
                let attempts = detail.map_or(0, |detail| detail.attempts);
                (Job { entry: entry.clone(), index: address.index, attempts }, delay.unwrap_or_default())
            })
            .collect();
        part.tell_keeper(Message::TakenOver { entry, outcome, jobs });
        Ok(())
    }
}
