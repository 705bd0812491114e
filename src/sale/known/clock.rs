//! What time it surely is at Redis, told from what it said and from this machine's monotonic clock.

use std::time::Duration;
use tokio::time::Instant;

/// A reading older than this is not used: clocks drift, and Redis's may be set.
const READING_AGE_MAX: Duration = Duration::from_millis(250);
/// After this a new reading is taken along with a pulse.
const READING_RENEW: Duration = Duration::from_millis(100);
/// What both clocks may drift apart, or be slewed, within a reading's age.
const DRIFT: Duration = Duration::from_millis(1);

/// `TIME` of Redis, and when it was asked for and heard. The moment of the reading lies in between.
#[derive(Debug, Clone, Copy)]
struct Reading {
    redis_us: u64,
    asked: Instant,
    heard: Instant,
}

/// The clock of Redis from afar: it knows an earliest and a latest time, not the time.
#[derive(Debug, Default)]
pub struct RemoteClock(Option<Reading>);

impl RemoteClock {
    pub fn read(&mut self, redis_us: u64, asked: Instant, heard: Instant) {
        self.0 = Some(Reading { redis_us, asked, heard });
    }

    pub fn needs_reading(&self, now: Instant) -> bool {
        self.0.is_none_or(|reading| now.saturating_duration_since(reading.asked) > READING_RENEW)
    }

    /// Is it before `ms` at Redis, whatever the way there took?
    pub fn is_surely_before(&self, ms: u64, now: Instant) -> bool {
        let Some(reading) = self.usable(now) else { return false };
        let latest = Duration::from_micros(reading.redis_us) + now.saturating_duration_since(reading.asked) + DRIFT;
        latest < Duration::from_millis(ms)
    }

    /// Is it `ms` or later at Redis?
    pub fn is_surely_past(&self, ms: u64, now: Instant) -> bool {
        let Some(reading) = self.usable(now) else { return false };
        let earliest = Duration::from_micros(reading.redis_us) + now.saturating_duration_since(reading.heard);
        earliest >= Duration::from_millis(ms) + DRIFT
    }

    fn usable(&self, now: Instant) -> Option<Reading> {
        self.0.filter(|reading| now.saturating_duration_since(reading.asked) <= READING_AGE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn between_the_earliest_and_the_latest_time_nothing_is_sure() {
        let began = Instant::now();
        let mut clock = RemoteClock::default();
        assert!(!clock.is_surely_before(u64::MAX / 2, began), "nothing is known");
        assert!(!clock.is_surely_past(0, began));
        // Asked at 0, heard at 10 ms; Redis said 1000.
        clock.read(1_000_000, began, began + at(10));
        let now = began + at(50);
        // It is between 1040 and 1050 there.
        assert!(clock.is_surely_before(1_052, now));
        assert!(!clock.is_surely_before(1_050, now));
        assert!(!clock.is_surely_past(1_041, now));
        assert!(clock.is_surely_past(1_039, now));
    }

    #[test]
    fn an_old_reading_says_nothing() {
        let began = Instant::now();
        let mut clock = RemoteClock::default();
        clock.read(1_000_000, began, began);
        assert!(!clock.needs_reading(began + READING_RENEW));
        assert!(clock.needs_reading(began + READING_RENEW + at(1)));
        assert!(clock.is_surely_before(9_000, began + READING_AGE_MAX));
        assert!(!clock.is_surely_before(9_000, began + READING_AGE_MAX + at(1)));
    }
}
