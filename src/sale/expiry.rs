//! Expiry: gives the units of reservations back whose time is up.
//!
//! Reservations of one sale last equally long and the intake is in the order of time, so its head is the queue of what
//! is due next; only those that were extended are kept in a set. One node at a time does this for a partition, by a lease:
//! two at a time would do no harm, as each order is compared before it moves, and no good.

use super::Part;
use super::reservations::add;
use crate::crash;
use crate::domain::ids::EntryId;
use crate::domain::order::Order;
use crate::domain::reservation::{Move, State};
use crate::domain::terms::Reserve;
use crate::driver::now_ms;
use crate::store::orders::{Address, Entry};
use crate::store::redis::Redis;
use crate::store::reservations::{Moved, Notes, Row, When};
use crate::store::{self};
use metrics::{counter, histogram};
use std::sync::Arc;
use std::time::Duration;

/// Entries read at once, and orders expired by one script: bounds the time that the script holds Redis up.
const ENTRIES_MAX: usize = 16;
const ORDERS_MAX: usize = 1500;
/// Extended orders looked at at once.
const EXTENDED_MAX: usize = 256;
/// Pause after Redis did not answer.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Clone)]
pub struct Expirer {
    pub sale: Arc<Part>,
    pub redis: Arc<Redis>,
    pub node: Arc<str>,
}

/// What a look came to.
enum Look {
    /// There may be more that is due.
    More,
    /// Nothing is due for so long.
    Nothing(Duration),
}

impl Expirer {
    /// Expires until the server ends.
    pub async fn run(self) {
        let Some(reserve) = self.sale.stored.load().settings.terms.reserve else { return };
        let lease = self.sale.limits.lease;
        let mut dealt_with = None;
        loop {
            let claim = match self.redis.claim_expiry(&self.sale.keys, &self.node, lease, dealt_with.take()).await {
                Ok(claim) => claim,
                Err(error) => {
                    tracing::debug!(sale = %self.sale.name, %error, "reservations wait to be expired");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            if !claim.others_for.is_zero() {
                tokio::time::sleep(claim.others_for.min(lease / 3)).await;
                continue;
            }
            dealt_with = claim.to;
            match self.look(reserve, claim.now_ms, &mut dealt_with).await {
                Ok(Look::More) => {}
                // No longer than a third of the lease, so that it is kept.
                Ok(Look::Nothing(pause)) => tokio::time::sleep(pause.min(lease / 3)).await,
                Err(error) => {
                    tracing::warn!(sale = %self.sale.name, %error, "reservations are not expired at present; they are as soon as Redis answers");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn look(
        &self,
        reserve: Reserve,
        now_ms: u64,
        dealt_with: &mut Option<EntryId>,
    ) -> Result<Look, store::Error> {
        let keys = &self.sale.keys;
        let (extended, first_extended_ms) = self.redis.extended_until(keys, now_ms, EXTENDED_MAX).await?;
        if !extended.is_empty() {
            self.expire_extended(&extended).await?;
        }
        let until_ms = now_ms.saturating_sub(reserve.for_ms);
        let entries = self.redis.entries_after(keys, *dealt_with, Some(until_ms), ENTRIES_MAX).await?;
        if let Some(last) = entries.last().map(|entry| entry.id) {
            self.expire(reserve, entries).await?;
            *dealt_with = Some(last);
            return Ok(Look::More);
        }
        if !extended.is_empty() {
            return Ok(Look::More);
        }
        let next_ms = self.redis.next_entry_ms(keys, *dealt_with).await?.map(|ms| ms + reserve.for_ms);
        // Whatever is admitted from now on is not due earlier than this.
        let due_ms = [next_ms, first_extended_ms].into_iter().flatten().fold(now_ms + reserve.for_ms, u64::min);
        Ok(Look::Nothing(Duration::from_millis(due_ms.saturating_sub(now_ms).max(1))))
    }

    /// Expires what is open in these entries, but for the extended.
    async fn expire(&self, reserve: Reserve, entries: Vec<Entry>) -> Result<(), store::Error> {
        let terms = self.sale.stored.load().settings.terms.clone();
        let mut open: Vec<(EntryId, Vec<Order>, String)> = entries
            .into_iter()
            .map(|entry| (entry.id, entry.frames.into_iter().map(Order::from).collect(), entry.outcome))
            .collect();
        while !open.is_empty() {
            let mut rows = Vec::new();
            let mut orders = 0;
            let mut later = Vec::new();
            let mut sent = Vec::new();
            for (id, of_entry, outcome) in open {
                if orders >= ORDERS_MAX {
                    later.push((id, of_entry, outcome));
                    continue;
                }
                let deadline_ms = id.ms + reserve.for_ms;
                let mut row = Row::new(id, 0, outcome.clone(), outcome.clone(), When::From(deadline_ms));
                let mut new = outcome.clone().into_bytes();
                let mut moved = 0;
                for (order, code) in of_entry.iter().zip(&mut new) {
                    let Some(state) = State::of_code(*code).filter(|state| !state.is_extended()) else { continue };
                    if let Some((next, shift)) = state.after(Move::Expire) {
                        add(&mut row, &terms, order, shift, None);
                        *code = next.code();
                        moved += 1;
                    }
                }
                if moved > 0 {
                    row.new = String::from_utf8(new).expect("a state's character is ASCII");
                    rows.push(row);
                    sent.push((id, of_entry, moved));
                    orders += moved;
                }
            }
            open = later;
            if rows.is_empty() {
                continue;
            }
            crash::point("expire.before_script");
            let answers =
                self.redis.move_orders(&mut self.redis.lane(), &self.sale.keys, &rows, Notes::default()).await?;
            crash::point("expire.after_script");
            for (answer, (id, of_entry, moved)) in answers.into_iter().zip(sent) {
                match answer {
                    Moved::Done => self.count(id.ms + reserve.for_ms, moved as u64),
                    // Somebody was quicker with one of them: the others once more.
                    Moved::Stale(outcome) => open.push((id, of_entry, outcome)),
                    Moved::Gone | Moved::TooLate => {}
                    // The clock of Redis was set back, or another Redis has another one.
                    Moved::TooEarly => {
                        return Err(store::Error::Refused {
                            code: "EARLY".into(),
                            message: "the clock of Redis went back".into(),
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// Expires these orders, whose own deadline has come.
    async fn expire_extended(&self, addresses: &[Address]) -> Result<(), store::Error> {
        let terms = self.sale.stored.load().settings.terms.clone();
        let mut ids: Vec<EntryId> = addresses.iter().map(|address| address.entry).collect();
        ids.dedup();
        let entries = self.redis.entries(&self.sale.keys, &ids).await?;
        let mut rows = Vec::new();
        for address in addresses {
            let Some(entry) = entries.iter().find(|entry| entry.id == address.entry) else { continue };
            let index = usize::from(address.index);
            let state = entry.outcome.as_bytes().get(index).and_then(|code| State::of_code(*code));
            let Some((state, frame)) = state.filter(|state| state.is_extended()).zip(entry.frames.get(index)) else {
                continue;
            };
            let (next, shift) = state.after(Move::Expire).expect("whoever is extended is open");
            let (expected, new) = (super::reservations::text(state), super::reservations::text(next));
            // Its deadline is looked up by the script: it may just have become later.
            let mut row = Row::new(address.entry, address.index, expected, new, When::From(0));
            add(&mut row, &terms, &Order::from(frame.clone()), shift, None);
            rows.push(row);
        }
        let moved = self.redis.move_orders(&mut self.redis.lane(), &self.sale.keys, &rows, Notes::default()).await?;
        let done = moved.iter().filter(|moved| **moved == Moved::Done).count();
        counter!("rushline_reservations_ended_total", "how" => "expired").increment(done as u64);
        self.sale.ends.notify_one();
        Ok(())
    }

    fn count(&self, deadline_ms: u64, orders: u64) {
        counter!("rushline_reservations_ended_total", "how" => "expired").increment(orders);
        let late = Duration::from_millis(now_ms().saturating_sub(deadline_ms));
        histogram!("rushline_reservation_expiry_seconds").record(late);
        self.sale.ends.notify_one();
    }
}
