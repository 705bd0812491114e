//! What this node was told by Redis and acknowledged to others: per partition of a sale the highest number of a change
//! (`:seq`), and the admissions behind the latest of them. It is what a Redis that comes back with less is found out by, and
//! what its losses are brought back from.
//!
//! Memory is bounded: the oldest admissions are forgotten first, and counted, so that a loss that reaches back to them is
//! told with how many orders nobody knows any more.

use super::keys::Keys;
use super::lost::Kept;
use super::promise::Promise;
use crate::domain::ids::EntryId;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// What all remembered admissions may take together.
pub const BYTES_MAX: usize = 64 << 20;
/// What Redis has had for so long is on its disk and on its replicas, if it has any.
const AGE_MAX: Duration = Duration::from_secs(600);
/// Forgotten orders are counted in so many steps.
const STEPS_MAX: usize = 1_000;
/// Names of terms that are kept in mind, more than Redis keeps.
const KNOWN_MAX: usize = 128;
/// What an order takes beside its frame, about.
const ORDER_BYTES: usize = 64;

/// Why a partition does not sell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// Since when, by the clock of Redis; 0 where Redis does not know.
    pub since_ms: u64,
    /// Redis had changes up to this number.
    pub found: u64,
    /// And a node was told of this one.
    pub told: u64,
}

impl Fence {
    /// As sale_meet writes it.
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut numbers = text.split(' ').map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(Self { since_ms: next()?, found: next()?, told: next()? })
    }
}

/// What Redis says of the changes it has.
pub(super) struct Numbers {
    /// The last one.
    pub seq: u64,
    /// The one with which the latest term began.
    pub began: u64,
    /// All above it that this node was told of is lost.
    pub lost: Option<u64>,
}

/// An admission in memory.
pub struct Remembered {
    pub id: EntryId,
    pub seq: u64,
    pub orders: Vec<Kept>,
    bytes: usize,
    at: Instant,
    /// It is in the `lost` hash, and this node need not bring it there again.
    posted: bool,
}

/// A partition's books as they were read last: what they are put back from should Redis forget them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Books {
    /// The sale hash.
    pub fields: BTreeMap<String, Vec<u8>>,
    /// SKU → units.
    pub loaded: BTreeMap<String, u64>,
}

#[derive(Default)]
struct State {
    /// The run of Redis in which this partition was met; empty: it is to be met before anything is sold.
    run: String,
    /// Names of the terms as Redis told them last, the latest last.
    terms: String,
    /// And of all that this node ever heard of: of another server, too, that it was led to in between.
    known: VecDeque<String>,
    seq: u64,
    fence: Option<Fence>,
    /// The latest, the oldest first.
    kept: VecDeque<Remembered>,
    /// Number of the latest of some forgotten admissions, and how many orders they are.
    forgotten: VecDeque<(u64, u64)>,
    /// All above this number is lost, and is still to be told of.
    owed: Option<u64>,
    /// With the number at which they were read, and when they are to be read again.
    books: Option<(Arc<Books>, u64, Instant)>,
}

/// Orders that are forgotten, and entries with their orders, packed.
pub(super) type Owed = (u64, Vec<(EntryId, Vec<u8>)>);

/// One partition, as this node was told of it.
pub struct Seen {
    pub keys: Keys,
    state: Mutex<State>,
    /// One meeting at a time.
    pub(super) meeting: tokio::sync::Mutex<()>,
}

impl Seen {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding this lock")
    }

    /// The term to sell in, if this partition was met in the run of Redis that `promise` tells of.
    pub(super) fn term(&self, promise: &Promise) -> Option<String> {
        let state = self.state();
        (!state.run.is_empty() && state.run == promise.run()).then(|| latest(&state.terms).to_owned())
    }

    pub fn fence(&self) -> Option<Fence> {
        self.state().fence.clone()
    }

    /// It must be met before anything is sold.
    pub(super) fn forget_run(&self) {
        self.state().run.clear();
    }

    /// Names of the terms that this node knows, and the highest number that it was told.
    pub(super) fn claim(&self) -> (String, u64) {
        let state = self.state();
        (state.known.iter().map(String::as_str).collect::<Vec<_>>().join(" "), state.seq)
    }

    /// Somebody hears of the change of this number.
    pub(super) fn told(&self, seq: u64) {
        let mut state = self.state();
        state.seq = state.seq.max(seq);
    }

    /// Is what a look found what this node was told?
    pub(super) fn agrees(&self, term: &str, seq: u64, promise: &Promise) -> bool {
        let state = self.state();
        let fenced = term.ends_with('!');
        state.run == promise.run()
            && latest(&state.terms) == term.trim_end_matches('!')
            && state.fence.is_some() == fenced
            && seq >= state.seq
            && state.owed.is_none()
    }

    /// What a meeting came to. Is a fence news?
    pub(super) fn met(&self, run: String, terms: String, numbers: Numbers, fence: Option<Fence>) -> bool {
        let mut state = self.state();
        if let (Some(known), None) = (&state.fence, &fence) {
            let told = known.told;
            if state.seq < told && !terms.split(' ').any(|term| term == latest(&state.terms)) {
                // Nobody opened it: the fence was lost with the data, or this is another server. What it was set for is
                // claimed anew.
                state.seq = told;
                state.kept.iter_mut().for_each(|kept| kept.posted = false);
                state.run.clear();
                return false;
            }
            // What was lost has been brought back, and counts as told of again.
            state.seq = state.seq.max(numbers.began);
            for kept in state.kept.iter_mut().filter(|kept| kept.posted) {
                (kept.seq, kept.posted) = (numbers.began, false);
            }
        }
        if let Some(lost) = numbers.lost {
            state.seq = numbers.seq;
            state.owed = Some(state.owed.map_or(lost, |owed| owed.min(lost)));
            // Also what was noted down in Redis before, and is gone with it.
            state.kept.iter_mut().filter(|kept| kept.seq > lost).for_each(|kept| kept.posted = false);
        }
        let news = state.fence.is_none() && fence.is_some();
        for term in terms.split(' ') {
            if !state.known.iter().any(|known| known == term) {
                state.known.push_back(term.to_owned());
            }
        }
        let surplus = state.known.len().saturating_sub(KNOWN_MAX);
        state.known.drain(..surplus);
        (state.run, state.terms, state.fence) = (run, terms, fence);
        news
    }

    /// Redis does not know this sale at all.
    pub(super) fn gone(&self, run: String) -> bool {
        let mut state = self.state();
        let news = state.fence.is_none();
        let told = state.fence.as_ref().map_or(state.seq, |fence| fence.told.max(state.seq));
        state.fence.get_or_insert(Fence { since_ms: 0, found: 0, told });
        (state.seq, state.run) = (told, run);
        news
    }

    /// What is lost and was not told of yet, as far as it is remembered: how many orders are not, and some entries.
    pub(super) fn owed(&self, most: usize) -> Option<Owed> {
        let state = self.state();
        let limit = state.owed?;
        let unknown = state.forgotten.iter().filter(|(seq, _)| *seq > limit).map(|(_, orders)| orders).sum();
        let lost = state.kept.iter().filter(|kept| kept.seq > limit && !kept.posted);
        Some((unknown, lost.take(most).map(|kept| (kept.id, super::lost::pack(&kept.orders))).collect()))
    }

    /// These are told of; with none of them, all is.
    pub(super) fn paid(&self, entries: &[EntryId]) -> u64 {
        let mut state = self.state();
        let Some(limit) = state.owed else { return 0 };
        if entries.is_empty() {
            state.owed = None;
        }
        let mut orders = 0;
        for kept in state.kept.iter_mut().filter(|kept| entries.contains(&kept.id)) {
            kept.posted = true;
            orders += kept.orders.len() as u64;
        }
        state.forgotten.retain(|(seq, _)| *seq <= limit);
        orders
    }

    /// Are the books older than what happened since?
    pub(super) fn books_are_due(&self) -> bool {
        let state = self.state();
        match &state.books {
            _ if state.terms.is_empty() || state.fence.is_some() => false,
            None => true,
            Some((_, at_seq, again)) => *at_seq != state.seq && *again <= Instant::now(),
        }
    }

    pub(super) fn keep_books(&self, books: Books, at_seq: u64) {
        // Large books are read more seldom.
        let pause = Duration::from_secs(2) + Duration::from_millis(2) * books.loaded.len() as u32;
        self.state().books = Some((Arc::new(books), at_seq, Instant::now() + pause));
    }

    pub fn books(&self) -> Option<Arc<Books>> {
        self.state().books.as_ref().map(|(books, ..)| books.clone())
    }

    /// Forgets the oldest: what is too old, and `bytes` more. Answers how many bytes that freed.
    fn forget(&self, bytes: usize) -> usize {
        let mut state = self.state();
        let mut freed = 0;
        while let Some(oldest) = state.kept.front()
            && (freed < bytes || oldest.at.elapsed() > AGE_MAX)
        {
            let oldest = state.kept.pop_front().expect("there is one");
            freed += oldest.bytes;
            if oldest.posted {
                continue;
            }
            let orders = oldest.orders.len() as u64;
            match state.forgotten.back_mut() {
                Some(last) if last.1 < 1_000 => *last = (oldest.seq, last.1 + orders),
                _ => state.forgotten.push_back((oldest.seq, orders)),
            }
            if state.forgotten.len() > STEPS_MAX {
                let first = state.forgotten.pop_front().expect("there are many");
                if let Some(next) = state.forgotten.front_mut() {
                    next.1 += first.1;
                }
            }
        }
        freed
    }
}

fn latest(terms: &str) -> &str {
    terms.rsplit(' ').next().unwrap_or_default()
}

/// All partitions that this node sells.
#[derive(Default)]
pub struct Witness {
    /// In an order that is the same in every run: a simulated one repeats.
    seen: RwLock<BTreeMap<String, Arc<Seen>>>,
    bytes: AtomicUsize,
    /// A partition was fenced.
    pub(super) fenced: Notify,
}

impl Witness {
    pub fn of(&self, keys: &Keys) -> Arc<Seen> {
        let read = self.seen.read().expect("nobody panics while holding this lock");
        if let Some(seen) = read.get(&keys.stock) {
            return seen.clone();
        }
        drop(read);
        let mut write = self.seen.write().expect("nobody panics while holding this lock");
        let new =
            || Arc::new(Seen { keys: keys.clone(), state: Mutex::default(), meeting: tokio::sync::Mutex::new(()) });
        write.entry(keys.stock.clone()).or_insert_with(new).clone()
    }

    pub fn all(&self) -> Vec<Arc<Seen>> {
        self.seen.read().expect("nobody panics while holding this lock").values().cloned().collect()
    }

    /// Keeps an admission in mind that somebody is about to hear of.
    pub fn remember(&self, keys: &Keys, id: EntryId, seq: u64, orders: Vec<Kept>) {
        let bytes = orders.iter().map(|order| order.frame.len() + ORDER_BYTES).sum();
        let seen = self.of(keys);
        seen.state().kept.push_back(Remembered { id, seq, orders, bytes, at: Instant::now(), posted: false });
        let over = (self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes).saturating_sub(BYTES_MAX);
        if over > 0 {
            self.bytes.fetch_sub(seen.forget(over), Ordering::Relaxed);
        }
    }

    /// Forgets what is too old.
    pub fn forget_old(&self) {
        for seen in self.all() {
            self.bytes.fetch_sub(seen.forget(0), Ordering::Relaxed);
        }
    }
}
