//! What this node knows of a sale well enough to refuse by itself: sold out, over the limit, outside the window.
//!
//! After the last unit nearly all requests are losers, and each of them costs Redis as much as a winner's look-ups.
//! So what a script (or a pulse, see [`pulse`]) said is remembered for a few milliseconds and told again without asking:
//!
//! - **Coherent by age.** A note counts from before the question was sent, and is told for [`AGE_MAX`] at most. A unit that
//!   comes back, or a changed setting, is therefore seen by every node within that time; nobody has to be notified.
//! - **Only refusals.** Nothing is ever admitted from here. Whatever is not known surely and lately goes to the script.
//! - **The replay comes first.** A request with a key hears a refusal only after a look at the keys of the sale
//!   ([`keys`]): who won hears so also after sell-out, from any node.
//!
//! Of several true reasons to refuse, memory may know another one than the script would have named.

mod clock;
mod keys;
mod notes;
mod pulse;

use super::{Part, Refusal};
use crate::domain::order::Order;
use crate::domain::sale::SaleStatus;
use crate::store::orders::{Decision, Prepared};
use crate::store::redis::Redis;
use crate::zoo;
use keys::KeyLookups;
use notes::Notes;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;
use tokio::time::Instant;

/// A note older than this is renewed by the next pulse, while it is still told.
const AGE_RENEW: Duration = Duration::from_millis(8);
/// A note older than this is not told. Below the promised 20 ms by what a renewal may take on a busy machine.
const AGE_MAX: Duration = Duration::from_millis(16);

pub struct Known {
    part: Arc<Part>,
    redis: Arc<Redis>,
    notes: RwLock<Notes>,
    /// Is there any note? Read for every order request, so that a sale with units left pays nothing for this module.
    any: AtomicBool,
    /// A pulse is under way.
    pulsing: AtomicBool,
    lookups: KeyLookups,
    hasher: std::hash::RandomState,
    told: metrics::Counter,
}

impl Known {
    pub fn start(part: Arc<Part>, redis: Arc<Redis>) -> Arc<Self> {
        Arc::new(Self {
            lookups: KeyLookups::start(part.clone(), redis.clone()),
            part,
            redis,
            notes: RwLock::default(),
            any: AtomicBool::new(false),
            pulsing: AtomicBool::new(false),
            hasher: std::hash::RandomState::new(),
            told: metrics::counter!("rushline_orders_refused_from_memory_total"),
        })
    }

    /// The refusal of this order, if it is known without asking the script.
    pub async fn refusal(self: &Arc<Self>, order: &Order) -> Option<Refusal> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let refusal = self.noted(order)?;
        let refusal = match &order.key {
            None => refusal,
            Some(_) if zoo::planted("memory refuses without a look at the key") => refusal,
            Some(key) if self.lookups.may_have_won(key).await => return None,
            // The look-up took its time: the note must still be young when it is told.
            Some(_) => self.noted(order)?,
        };
        self.told.increment(1);
        Some(refusal)
    }

    /// What the notes say, checked in the order of the script: window, limit, stock.
    fn noted(self: &Arc<Self>, order: &Order) -> Option<Refusal> {
        let now = Instant::now();
        let notes = self.read();
        let mut age = Duration::ZERO;
        let refusal = self.window(&notes, now, &mut age).or_else(|| {
            let shape = self.shape(order);
            notes.over_limit(shape, now, &mut age).then_some(Refusal::LimitReached).or_else(|| {
                let units: u64 = order.items.iter().map(|item| u64::from(item.quantity)).sum();
                let limit = self.part.stored.load().settings.limit_per_buyer;
                // Whom the limit refuses whatever is left must not hear of stock: that would sound like bad luck.
                let within = limit.is_none_or(|limit| units <= u64::from(limit));
                (within && notes.sold_out(&order.items, now, &mut age)).then_some(Refusal::SoldOut)
            })
        });
        drop(notes);
        if refusal.is_some() && age > AGE_RENEW {
            self.pulse();
        }
        refusal
    }

    /// Does the sale sell at all? Told from this node's settings, if they were the sale's a moment ago.
    fn window(&self, notes: &Notes, now: Instant, age: &mut Duration) -> Option<Refusal> {
        if !notes.shut {
            return None;
        }
        let stored = self.part.stored.load();
        let (version, at) = notes.version?;
        let settings_age = now.saturating_duration_since(at);
        if version != stored.version || settings_age > AGE_MAX {
            return None;
        }
        let settings = &stored.settings;
        let refusal = match settings.status {
            SaleStatus::Closed => Refusal::Closed,
            _ if settings.window.closes_ms.is_some_and(|ms| notes.clock.is_surely_past(ms, now)) => Refusal::Closed,
            // It may be over: that would be another answer, and final.
            _ if settings.window.closes_ms.is_some_and(|ms| !notes.clock.is_surely_before(ms, now)) => return None,
            SaleStatus::Paused => Refusal::Paused,
            _ if settings.window.opens_ms.is_some_and(|ms| notes.clock.is_surely_before(ms, now)) => Refusal::NotOpen,
            _ => return None,
        };
        *age = settings_age;
        Some(refusal)
    }

    /// Remembers what a batch was told. `asked`: from before it was sent.
    pub fn learn(self: &Arc<Self>, requests: &[Prepared], decisions: &[Decision], version: u64, asked: Instant) {
        let refused = |decision: &Decision| {
            matches!(
                decision,
                Decision::SoldOut
                    | Decision::LimitReached
                    | Decision::FurtherLimitReached
                    | Decision::NotOpen
                    | Decision::Paused
                    | Decision::Closed
            )
        };
        if !self.any.load(Ordering::Acquire) && !decisions.iter().any(refused) {
            return;
        }
        let mut notes = self.write();
        notes.note_version(version, asked);
        for (request, decision) in requests.iter().zip(decisions) {
            let order = &request.order;
            match decision {
                Decision::Admitted(_) => {
                    notes.shut = false;
                    notes.forget_stock(&order.items);
                }
                // One dry partition is no sold-out sale.
                Decision::SoldOut if request.partitions > 1 => notes.shut = false,
                Decision::SoldOut => {
                    notes.shut = false;
                    notes.note_sold_out(&order.items, asked);
                }
                Decision::LimitReached | Decision::FurtherLimitReached => {
                    notes.shut = false;
                    notes.note_over_limit(self.shape(order), asked);
                }
                Decision::NotOpen | Decision::Paused | Decision::Closed => notes.shut = true,
                Decision::Replayed(_) | Decision::KeyReused | Decision::UnknownSku | Decision::Moved => {}
            }
        }
        let any = notes.any();
        // While the notes are held: or a slower thread could undo what a later batch noted.
        self.any.store(any, Ordering::Release);
        let time_needed = notes.shut && notes.clock.needs_reading(asked);
        drop(notes);
        if time_needed {
            self.pulse(); // the script does not tell its time
        }
    }

    /// All of an order that limits can depend on.
    fn shape(&self, order: &Order) -> u64 {
        let items: Vec<(&str, u32)> = order.items.iter().map(|item| (item.sku.as_str(), item.quantity)).collect();
        self.hasher.hash_one((order.buyer.as_str(), items, &order.limits_by))
    }

    fn read(&self) -> RwLockReadGuard<'_, Notes> {
        self.notes.read().expect("nobody panics while holding this lock")
    }

    fn write(&self) -> RwLockWriteGuard<'_, Notes> {
        self.notes.write().expect("nobody panics while holding this lock")
    }
}
