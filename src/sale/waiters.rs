//! Those who hold their breath for an order's end: `?wait_ms=` at admission, and long polls.

use crate::domain::order::Status;
use crate::store::orders::Address;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::oneshot;

/// How an order ended, as its waiters hear it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub status: Status,
    /// The order service's words, when it refused.
    pub message: Option<String>,
}

#[derive(Default)]
pub struct Waiters {
    waiting: Mutex<HashMap<Address, Vec<oneshot::Sender<Ended>>>>,
    /// How many addresses are waited for: an order that nobody waits for must not cost a lock.
    count: AtomicUsize,
}

impl Waiters {
    /// The receiver hears the end of the order, if this node sees it.
    pub fn wait_for(&self, address: Address) -> oneshot::Receiver<Ended> {
        let (tell, hear) = oneshot::channel();
        let mut waiting = self.waiting.lock().expect("nobody panics while holding this lock");
        let list = waiting.entry(address).or_default();
        list.retain(|earlier| !earlier.is_closed());
        list.push(tell);
        self.count.store(waiting.len(), Ordering::Release);
        hear
    }

    /// Forgets waiters that gave up.
    pub fn give_up(&self, address: Address) {
        let mut waiting = self.waiting.lock().expect("nobody panics while holding this lock");
        if let Some(list) = waiting.get_mut(&address) {
            list.retain(|waiter| !waiter.is_closed());
            if list.is_empty() {
                waiting.remove(&address);
            }
        }
        self.count.store(waiting.len(), Ordering::Release);
    }

    pub fn is_waited_for(&self, address: &Address) -> bool {
        self.count.load(Ordering::Acquire) > 0
            && self.waiting.lock().expect("nobody panics while holding this lock").contains_key(address)
    }

    pub fn tell(&self, address: &Address, ended: &Ended) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut waiting = self.waiting.lock().expect("nobody panics while holding this lock");
        for waiter in waiting.remove(address).unwrap_or_default() {
            let _ = waiter.send(ended.clone()); // it may have hung up
        }
        self.count.store(waiting.len(), Ordering::Release);
    }

    /// Nobody here will see the end of this order: its waiters look it up instead.
    pub fn forget(&self, address: &Address) {
        let mut waiting = self.waiting.lock().expect("nobody panics while holding this lock");
        waiting.remove(address);
        self.count.store(waiting.len(), Ordering::Release);
    }
}
