//! Orders that another node may end, watched for those who wait here: one look at the outcomes for all of them together,
//! so that a thousand waiters cost Redis as much as one.
//!
//! What this node ends itself is told by [`super::waiters`], at once.

use crate::domain::ids::EntryId;
use crate::domain::order::Status;
use crate::outside;
use crate::store::keys::Keys;
use crate::store::orders::{Address, status_of};
use crate::store::redis::Redis;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::oneshot;

/// How often the outcomes are looked at while somebody waits.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Entries of one look: bounds its reply.
const ENTRIES_MAX: usize = 1_000;

struct Watcher {
    /// What the waiter knows already.
    seen: Status,
    tell: oneshot::Sender<()>,
}

#[derive(Default)]
struct Watched {
    orders: HashMap<Address, Vec<Watcher>>,
    /// The task that looks is running.
    looking: bool,
}

pub struct Watch {
    redis: Arc<Redis>,
    keys: Keys,
    watched: Mutex<Watched>,
}

impl Watch {
    pub fn new(redis: Arc<Redis>, keys: Keys) -> Arc<Self> {
        Arc::new(Self { redis, keys, watched: Mutex::default() })
    }

    /// Hears that the order is no longer as `seen`, or no longer in Redis: look it up.
    pub fn changed(self: &Arc<Self>, address: Address, seen: Status) -> oneshot::Receiver<()> {
        let (tell, hear) = oneshot::channel();
        let mut watched = self.lock();
        watched.orders.entry(address).or_default().push(Watcher { seen, tell });
        if !watched.looking {
            watched.looking = true;
            outside::spawn(self.clone().look());
        }
        hear
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().expect("nobody panics while holding this lock")
    }

    /// Looks until nobody waits.
    async fn look(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let entries: Vec<EntryId> = {
                let mut watched = self.lock();
                watched.orders.retain(|_, watchers| {
                    watchers.retain(|watcher| !watcher.tell.is_closed());
                    !watchers.is_empty()
                });
                if watched.orders.is_empty() {
                    watched.looking = false;
                    return;
                }
                let entries: BTreeSet<EntryId> = watched.orders.keys().map(|address| address.entry).collect();
                entries.into_iter().collect()
            };
            for some in entries.chunks(ENTRIES_MAX) {
                match self.redis.outcomes(&self.keys, some).await {
                    Ok(outcomes) => self.tell(&some.iter().copied().zip(outcomes).collect()),
                    // Whoever waits has a limit of its own; Redis may be back before.
                    Err(error) => tracing::debug!(%error, "outcomes cannot be looked at"),
                }
            }
        }
    }

    fn tell(&self, outcomes: &HashMap<EntryId, Option<String>>) {
        self.lock().orders.retain(|address, watchers| {
            let Some(outcome) = outcomes.get(&address.entry) else { return true };
            let code = outcome.as_ref().and_then(|codes| codes.as_bytes().get(usize::from(address.index)));
            let status = code.map(|code| status_of(*code));
            for watcher in watchers.extract_if(.., |watcher| status != Some(watcher.seen)) {
                let _ = watcher.tell.send(()); // it may have hung up
            }
            !watchers.is_empty()
        });
    }
}
