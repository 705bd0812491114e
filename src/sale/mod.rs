//! The path of an order through one node: admission, delivery, finishing, and taking over from nodes that died.
//!
//! ```text
//! server ─► admission (one batcher a partition) ─► Redis ─► delivery (callers of the order endpoint) ─► keeper ─► Redis
//!                                                              ▲                                         │ └──► finished ─► reconciler
//!                                                              └──── retry (waits out the backoff) ◄─────┘
//! ```
//! A [`Sale`] has one [`Part`] for each of its partitions. `route` says which one decides; [`keeper`] owns all that this
//! node has in flight for one; [`sweep`] looks for what other nodes left behind. [`gather`] brings units to a partition that
//! ran dry, and `carry` is how they travel.
//! [`known`] refuses without Redis what was refused a moment ago.

pub mod admission;
pub mod call;
mod carry;
pub mod delivery;
pub mod expiry;
pub mod finished;
pub mod gather;
pub mod keeper;
pub mod known;
pub mod node;
pub mod open;
pub mod refusals;
pub mod reservations;
pub mod route;
pub mod sums;
pub mod sweep;
pub mod telling;
pub mod turns;
pub mod waiters;
pub mod watch;

use crate::domain::ids::{EntryId, Gid, SaleName};
use crate::domain::order::Order;
use crate::domain::sale::Settings;
use crate::store::keys::Keys;
use crate::store::orders::Address;
use crate::store::sales::Stored;
use crate::zoo;
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// What a node's part in a sale is bounded by. Units in the names; defaults in `config`.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Order requests decided by one script call, at most.
    pub batch_max: usize,
    /// Order requests waiting for their batch, at most, per sale.
    pub queue_max: usize,
    /// Orders admitted by this node and not ended, at most, per sale.
    pub backlog_max: u64,
    /// How long an entry may be untouched before another node takes it over.
    pub lease: Duration,
    pub retry_base: Duration,
    pub retry_max: Duration,
    /// Pause before asking again about an order whose endpoint said ONGOING.
    pub ongoing: Duration,
    /// Calls without a verdict, from which on an order needs attention.
    pub attention_after: u32,
    /// Longest wait for Redis, or for a durability class to be met.
    pub patience: Duration,
}

impl Limits {
    /// How long after a lease began or was renewed a call may still begin; the rest of it is for clocks and luck.
    fn call_within(&self) -> Duration {
        self.lease * 2 / 3
    }
}

/// Why an order was not admitted. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    SoldOut,
    LimitReached,
    NotOpen,
    Closed,
    Paused,
    UnknownSku,
    KeyReused,
    /// The sale's waiting room is full.
    QueueFull,
    /// The order endpoint cannot keep up with what was admitted.
    BacklogFull,
}

impl Refusal {
    pub const ALL: [Refusal; 9] = [
        Refusal::SoldOut,
        Refusal::LimitReached,
        Refusal::NotOpen,
        Refusal::Closed,
        Refusal::Paused,
        Refusal::UnknownSku,
        Refusal::KeyReused,
        Refusal::QueueFull,
        Refusal::BacklogFull,
    ];

    /// The stable `code` of the problem document, the metric's label and the field in Redis.
    pub fn code(self) -> &'static str {
        match self {
            Refusal::SoldOut => "sold_out",
            Refusal::LimitReached => "limit_reached",
            Refusal::NotOpen => "not_open",
            Refusal::Closed => "closed",
            Refusal::Paused => "paused",
            Refusal::UnknownSku => "unknown_sku",
            Refusal::KeyReused => "idempotency_key_reused",
            Refusal::QueueFull => "queue_full",
            Refusal::BacklogFull => "backlog_full",
        }
    }
}

/// Counts per refusal; a refused request touches memory only.
#[derive(Default)]
pub struct Refused([AtomicU64; Refusal::ALL.len()]);

impl Refused {
    pub fn count(&self, refusal: Refusal) {
        self.0[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Takes what has been counted since the last time.
    pub fn take(&self) -> Vec<(&'static str, u64)> {
        Refusal::ALL
            .into_iter()
            .map(|refusal| (refusal.code(), self.0[refusal as usize].swap(0, Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

/// A sale as one node knows it: what its partitions share.
pub struct Sale {
    pub name: SaleName,
    pub stored: ArcSwap<Stored>,
    pub refused: Refused,
    /// Orders in flight on this node: admitted or taken over, and not ended.
    pub backlog: AtomicU64,
    pub limits: Limits,
    /// Orders are reservations for so long; fixed at creation.
    pub reserve_ms: Option<u64>,
    /// Ends are written by order_move: it knows reservations, and limits beyond that per buyer. Fixed at creation.
    pub by_moves: bool,
    /// Wakes whoever brings settings up to date, because a script told of a newer version.
    pub outdated: Arc<tokio::sync::Notify>,
}

impl Sale {
    pub fn settings(&self) -> Settings {
        self.stored.load().settings.clone()
    }
}

/// One partition of a sale on one node. Its sale is read through it.
pub struct Part {
    pub sale: Arc<Sale>,
    pub number: u16,
    pub keys: Keys,
    /// By address, so each partition has its own: two may use the same.
    pub waiters: waiters::Waiters,
    /// For orders that other nodes end.
    pub watch: Arc<watch::Watch>,
    /// Told when webhooks are to be called.
    pub hooked: tokio::sync::Notify,
    /// Wakes whoever tells the order service how reservations ended.
    pub ends: Arc<tokio::sync::Notify>,
    keeper: mpsc::UnboundedSender<keeper::Message>,
}

impl Part {
    pub fn gid(&self, address: Address) -> Gid {
        Gid { sale: self.name.clone(), partition: self.number, entry: address.entry, index: address.index }
    }

    /// Tells whoever keeps what is in flight here. Never waits; the inbox is bounded by the sale's backlog.
    fn tell_keeper(&self, message: keeper::Message) {
        let _ = self.keeper.send(message); // closed only at the very end
    }
}

impl std::ops::Deref for Part {
    type Target = Sale;

    fn deref(&self) -> &Sale {
        &self.sale
    }
}

/// A batch of admitted orders that this node delivers.
pub struct Entry {
    pub part: Arc<Part>,
    pub id: EntryId,
    pub orders: Vec<Order>,
    /// When it was admitted, by the clock of Redis, as the order endpoint reads it: RFC 3339.
    pub admitted_at: String,
    /// Another node has it now, or this one under another `Entry`: its orders are not called any more.
    lost: AtomicBool,
    /// From before the script that gave it to this node: its lease counts from then.
    claimed: Instant,
    /// Its orders may be called until so many ms after `claimed`. A node that slept must not call before it has asked
    /// whose orders these are now.
    leased_ms: AtomicU64,
}

impl Entry {
    /// An entry claimed by a script that was sent at `claimed`, at the earliest.
    pub fn new(part: Arc<Part>, id: EntryId, orders: Vec<Order>, claimed: Instant) -> Self {
        let leased_ms = AtomicU64::new(part.limits.call_within().as_millis() as u64);
        let admitted_at = jiff::Timestamp::from_millisecond(id.ms as i64).unwrap_or_default().to_string();
        Self { part, id, orders, admitted_at, lost: AtomicBool::new(false), claimed, leased_ms }
    }

    /// Its lease was renewed by a script that was sent at `started`, at the earliest.
    pub fn renewed(&self, started: Instant, limits: &Limits) {
        let until = started.saturating_duration_since(self.claimed) + limits.call_within();
        self.leased_ms.store(until.as_millis() as u64, Ordering::Release);
    }

    pub fn age(&self) -> Duration {
        self.claimed.elapsed()
    }

    pub fn holds_lease(&self) -> bool {
        if zoo::planted("orders are called on an old lease") {
            return true;
        }
        self.claimed.elapsed().as_millis() as u64 <= self.leased_ms.load(Ordering::Acquire)
    }

    pub fn lose(&self) {
        self.lost.store(true, Ordering::Release);
    }

    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }
}

/// One order to be delivered, and how often that was tried.
#[derive(Clone)]
pub struct Job {
    pub entry: Arc<Entry>,
    pub index: u16,
    /// Calls made so far.
    pub attempts: u32,
}

impl Job {
    pub fn order(&self) -> &Order {
        &self.entry.orders[usize::from(self.index)]
    }

    pub fn address(&self) -> Address {
        Address { entry: self.entry.id, index: self.index }
    }

    pub fn gid(&self) -> Gid {
        self.entry.part.gid(self.address())
    }
}
