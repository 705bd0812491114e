//! Is what this node works on still its own?
//!
//! A lease is a time in Redis, renewed three times before it comes. A node that was stopped, starved or cut off for
//! longer wakes up in the middle of a pass and does not know that others have gone on: its writes are refused, but a
//! call cannot be taken back. So whoever may have overslept writes first, and calls only then.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// When the leases of this node were renewed last.
pub struct Kept {
    lease: Duration,
    state: Mutex<State>,
}

#[derive(Clone, Copy)]
struct State {
    at: Instant,
    /// How often that came too late. A later renewal brings back nothing that was lost.
    overslept: u64,
    /// And is late still: said once.
    late: bool,
}

/// A moment at which a lease was certainly held.
#[derive(Debug, Clone, Copy)]
pub struct Sure {
    at: Instant,
    overslept: u64,
}

impl Kept {
    pub fn new(lease: Duration, now: Instant) -> Self {
        Self { lease, state: Mutex::new(State { at: now, overslept: 0, late: false }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be noted with a lease that is about to be taken.
    pub fn sure(&self, now: Instant) -> Sure {
        Sure { at: now, overslept: self.state().overslept }
    }

    /// May a lease that was held then have run out since?
    pub fn is_in_doubt(&self, sure: &Sure, now: Instant) -> bool {
        let state = *self.state();
        let since = now.saturating_duration_since(state.at.max(sure.at));
        sure.overslept != state.overslept || since >= self.lease
    }

    /// Before leases are renewed: notes if that comes too late.
    pub fn look(&self, now: Instant) {
        let mut state = self.state();
        if now.saturating_duration_since(state.at) >= self.lease {
            state.overslept += 1;
            if std::mem::replace(&mut state.late, true) {
                return;
            }
            tracing::warn!(
                "the leases of global transactions were not renewed in time; others may have taken them over"
            );
        }
    }

    /// All leases were renewed, by a command sent after `at`.
    pub fn renewed(&self, at: Instant) {
        let mut state = self.state();
        (state.at, state.late) = (at, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_overslept_is_in_doubt_until_he_writes() {
        let lease = Duration::from_secs(9);
        let mut now = Instant::now();
        let kept = Kept::new(lease, now);
        let sure = kept.sure(now);
        for _ in 0..9 {
            now += lease / 3;
            kept.look(now);
            assert!(!kept.is_in_doubt(&sure, now), "it is renewed all the time");
            kept.renewed(now);
        }
        now += lease;
        assert!(kept.is_in_doubt(&sure, now), "before anybody noticed");
        assert!(!kept.is_in_doubt(&kept.sure(now), now), "one that was taken just now");
        kept.look(now);
        kept.renewed(now);
        assert!(kept.is_in_doubt(&sure, now), "a renewal that came too late helps nobody");
        assert!(!kept.is_in_doubt(&kept.sure(now), now));
    }
}
