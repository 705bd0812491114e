//! Backoff arithmetic.

use std::num::NonZeroU32;
use std::time::Duration;

/// Delay before retry number `retry` (1 is the first): `base`, doubling, never above `max`.
///
/// No jitter: the caller adds it, so this stays a pure function.
/// Source: M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.
pub fn backoff(retry: NonZeroU32, base: Duration, max: Duration) -> Duration {
    let doublings = (retry.get() - 1).min(31);
    base.saturating_mul(1 << doublings).min(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_the_ceiling() {
        let delay =
            |retry| backoff(NonZeroU32::new(retry).unwrap(), Duration::from_millis(100), Duration::from_secs(60));
        assert_eq!(delay(1), Duration::from_millis(100));
        assert_eq!(delay(2), Duration::from_millis(200));
        assert_eq!(delay(10), Duration::from_millis(51_200));
        assert_eq!(delay(11), Duration::from_secs(60));
        assert_eq!(delay(u32::MAX), Duration::from_secs(60));
    }
}
