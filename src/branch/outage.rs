//! Noticing that a branch answers again after it did not for a while: then what waits for it need not wait longer.
//!
//! By URL, not by host: a single broken path beside good ones is no outage of the good ones, and never ends one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Calls in a row without a clear answer that make an outage; fewer are hiccups, and the backoff is short then.
const FAILURES_MIN: u32 = 8;
/// And for so long.
const SINCE_MIN: Duration = Duration::from_secs(2);
/// URLs that are watched at a time. They come from clients, so there must be a bound; beyond it backoff is all there is.
const URLS_MAX: usize = 4_096;

struct Failing {
    since: Instant,
    count: u32,
}

/// The URLs that do not answer at present.
#[derive(Default)]
pub struct Outages {
    failing: Mutex<HashMap<String, Failing>>,
    /// How many there are: mostly none, and then nobody needs the lock.
    count: AtomicUsize,
}

impl Outages {
    pub fn failed(&self, url: &str, now: Instant) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = failing.get_mut(url) {
            known.count = known.count.saturating_add(1);
        } else if failing.len() < URLS_MAX {
            failing.insert(url.to_owned(), Failing { since: now, count: 1 });
            self.count.store(failing.len(), Ordering::Relaxed);
        }
    }

    /// Is this the end of an outage?
    pub fn answered(&self, url: &str, now: Instant) -> bool {
        if self.count.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = failing.remove(url);
        self.count.store(failing.len(), Ordering::Relaxed);
        ended
            .is_some_and(|ended| ended.count >= FAILURES_MIN && now.saturating_duration_since(ended.since) >= SINCE_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_long_and_without_a_break() {
        let (outages, start) = (Outages::default(), Instant::now());
        let later = start + SINCE_MIN;
        assert!(!outages.answered("u", later));
        for _ in 0..FAILURES_MIN {
            outages.failed("u", start);
        }
        assert!(!outages.answered("other", later), "of that one only");
        assert!(outages.answered("u", later));
        assert!(!outages.answered("u", later), "once");
        for _ in 0..FAILURES_MIN {
            outages.failed("u", start);
        }
        assert!(!outages.answered("u", start), "a hiccup");
        outages.failed("u", start);
        assert!(!outages.answered("u", later), "one failure");
    }
}
