//! The clock that the nodes of one Redis share: that of Redis, carried on between two looks by a clock that nobody sets.
//!
//! Timers of global transactions are times that one node writes and another one reads. By the clocks of the machines, a
//! node whose clock is an hour ahead would write what nobody looks at for an hour, and take the leases of others for over.
//!
//! This is a best guess that always has an answer. What is decided at a moment, such as the opening of a sale, asks
//! `sale/known/clock.rs` instead, which knows what is sure and for a quarter of a second only.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// An answer that took longer says too little about the time when it was written.
const ANSWER_MAX: Duration = Duration::from_millis(250);
/// What two looks may differ by without that meaning anything: half an answer's way, and drift.
const SAME_MS: i64 = 50;

pub struct Clock {
    began: Instant,
    /// Milliseconds from 1970 to `began`.
    began_ms: AtomicI64,
}

impl Default for Clock {
    /// Until Redis was asked, the clock of this machine.
    fn default() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { began: Instant::now(), began_ms: AtomicI64::new(since.as_millis() as i64) }
    }
}

impl Clock {
    /// Milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        self.at(Instant::now())
    }

    fn at(&self, moment: Instant) -> u64 {
        let since = moment.saturating_duration_since(self.began).as_millis() as i64;
        self.began_ms.load(Ordering::Relaxed).saturating_add(since).max(0) as u64
    }

    /// Redis was asked, and had this time when it answered.
    pub fn follow(&self, redis_ms: u64, asked: Instant, answered: Instant) {
        let took = answered.saturating_duration_since(asked);
        let off_ms = redis_ms as i64 - self.at(asked + took / 2) as i64;
        if took <= ANSWER_MAX && redis_ms != 0 && off_ms.abs() > SAME_MS {
            self.began_ms.fetch_add(off_ms, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    #[test]
    fn it_goes_on_from_where_redis_was() {
        let (clock, now) = (Clock::default(), Instant::now());
        let redis_ms = clock.at(now) + HOUR_MS;
        clock.follow(redis_ms, now, now + Duration::from_millis(2));
        assert!(clock.at(now + Duration::from_secs(5)).abs_diff(redis_ms + 5_000) <= 2);
        clock.follow(redis_ms - 2 * HOUR_MS, now, now);
        assert_eq!(clock.at(now), redis_ms - 2 * HOUR_MS, "and back, if Redis was set back");
    }

    #[test]
    fn an_answer_that_says_little_changes_nothing() {
        let (clock, now) = (Clock::default(), Instant::now());
        let before = clock.at(now);
        clock.follow(before + HOUR_MS, now, now + Duration::from_secs(1)); // it may be a second old
        clock.follow(0, now, now); // it did not say
        clock.follow(before + SAME_MS as u64, now, now); // as good as the same: the clock does not tremble
        assert_eq!(clock.at(now), before);
    }
}
