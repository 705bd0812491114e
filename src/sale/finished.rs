//! Entries whose orders have all ended, on their way to the records from memory: the node that wrote an entry's end still
//! has its orders, and need not read them back from Redis.
//!
//! It is a short cut and no more. What does not fit in here, what was not seen whole, and what a node takes with it when
//! it dies is found in Redis by the notice that every end leaves there.

use super::{Entry, Part};
use crate::domain::ids::EntryId;
use crate::store::orders::Detail;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

/// Orders that wait here at most: a few seconds' worth, some 20 MB. More are dropped, and read from Redis later.
const ORDERS_MAX: usize = 50_000;

/// An entry with its outcome.
pub struct EndedEntry {
    pub entry: Arc<Entry>,
    /// `s` or `f` an order.
    pub codes: Vec<u8>,
    /// Of orders with more to say than that.
    pub details: Vec<(u16, Detail)>,
}

/// What one finish script ended.
pub struct Batch {
    pub part: Arc<Part>,
    /// Its notice in Redis: drained when all entries are.
    pub notice: EntryId,
    pub entries: Vec<EndedEntry>,
    /// Entries that must be read from Redis.
    pub unknown: Vec<EntryId>,
}

impl Batch {
    pub fn new(part: Arc<Part>, notice: EntryId) -> Self {
        Self { part, notice, entries: Vec::new(), unknown: Vec::new() }
    }

    pub fn push(&mut self, entry: EndedEntry) {
        self.entries.push(entry);
    }

    pub fn push_unknown(&mut self, entry: EntryId) {
        self.unknown.push(entry);
    }

    pub fn orders(&self) -> usize {
        self.entries.iter().map(|ended| ended.codes.len()).sum()
    }
}

/// The queue in front of the reconciler, for all sales of a node.
#[derive(Default)]
pub struct Finished {
    queue: Mutex<Queue>,
    news: Notify,
}

#[derive(Default)]
struct Queue {
    batches: VecDeque<Batch>,
    orders: usize,
}

impl Finished {
    pub fn push(&self, batch: Batch) {
        let orders = batch.orders();
        let mut queue = self.queue.lock().expect("nobody panics while holding this lock");
        if queue.orders + orders <= ORDERS_MAX {
            queue.orders += orders;
            queue.batches.push_back(batch);
        }
        drop(queue);
        self.wake();
    }

    /// The oldest batches: so many that they have about `orders_max` orders, and at least one if there is any.
    pub fn take(&self, orders_max: usize) -> Vec<Batch> {
        let mut queue = self.queue.lock().expect("nobody panics while holding this lock");
        let (mut taken, mut orders) = (Vec::new(), 0);
        while orders < orders_max
            && let Some(batch) = queue.batches.pop_front()
        {
            orders += batch.orders();
            taken.push(batch);
        }
        queue.orders -= orders;
        taken
    }

    /// The reconciler has work, here or in Redis.
    pub fn wake(&self) {
        self.news.notify_one();
    }

    pub async fn news(&self) {
        self.news.notified().await;
    }
}
