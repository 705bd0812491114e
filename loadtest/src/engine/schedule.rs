//! When buyers come: phases laid end to end, each a rule that gives the moment of its n-th arrival.
//!
//! Pure arithmetic, in microseconds since the run began. A moment is computed from its number and never from the moment
//! before it, so that no error adds up over a long run; only Poisson's gaps must be summed.

use std::sync::Arc;
use std::time::Duration;

use super::trace::{Trace, Who};
use crate::ledger::Micros;

/// One phase of arrivals.
#[derive(Debug, Clone, PartialEq)]
pub enum Phase {
    /// `count` buyers, spread evenly over `within`; all in the same moment if that is nothing.
    Burst { count: u64, within: Duration },
    /// The same number in every second.
    Constant { rate: f64, lasts: Duration },
    /// From `from` a second to `to` a second, in a straight line.
    Ramp { from: f64, to: f64, lasts: Duration },
    /// Independent arrivals: gaps with an exponential distribution.
    Poisson { rate: f64, lasts: Duration },
    /// Nobody comes.
    Pause { lasts: Duration },
    /// As somebody wrote down.
    Trace(Arc<Trace>),
}

/// Somebody comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    pub at_us: Micros,
    pub who: Who,
}

impl Phase {
    pub fn lasts(&self) -> Duration {
        match self {
            Phase::Burst { within, .. } => *within,
            Phase::Constant { lasts, .. }
            | Phase::Ramp { lasts, .. }
            | Phase::Poisson { lasts, .. }
            | Phase::Pause { lasts } => *lasts,
            Phase::Trace(trace) => Duration::from_micros(trace.at_us.last().map_or(0, |last| last + 1)),
        }
    }

    /// How many come; of Poisson's, how many are to be expected.
    pub fn count(&self) -> u64 {
        match self {
            Phase::Burst { count, .. } => *count,
            Phase::Constant { rate, lasts } | Phase::Poisson { rate, lasts } => whole(rate * lasts.as_secs_f64()),
            Phase::Ramp { from, to, lasts } => whole((from + to) / 2.0 * lasts.as_secs_f64()),
            Phase::Pause { .. } => 0,
            Phase::Trace(trace) => trace.at_us.len() as u64,
        }
    }
}

/// A product of a rate and a time that is a hair below a whole number means that number.
fn whole(count: f64) -> u64 {
    (count + 1e-6) as u64
}

/// The moments of all phases, in order.
#[derive(Debug, Clone)]
pub struct Schedule {
    phases: std::vec::IntoIter<Phase>,
    phase: Option<Phase>,
    /// When the phase began.
    began_us: f64,
    /// Its next arrival, from 0.
    nth: u64,
    /// Poisson: the arrival before, after the phase's beginning.
    last_us: f64,
    chance: fastrand::Rng,
}

impl Schedule {
    pub fn new(phases: Vec<Phase>, seed: u64) -> Self {
        let mut phases = phases.into_iter();
        let phase = phases.next();
        Self { phases, phase, began_us: 0.0, nth: 0, last_us: 0.0, chance: fastrand::Rng::with_seed(seed) }
    }

    /// The moment of the phase's `nth` arrival after its beginning; `None` if it has no such.
    fn offset_us(&mut self) -> Option<f64> {
        let phase = self.phase.as_ref()?;
        let nth = self.nth as f64;
        let us = 1e6;
        match phase {
            Phase::Poisson { rate, lasts } => {
                // 1 - f64() is in (0, 1]: its logarithm exists.
                self.last_us -= (1.0 - self.chance.f64()).ln() / rate * us;
                (self.last_us < lasts.as_secs_f64() * us).then_some(self.last_us)
            }
            _ if self.nth >= phase.count() => None,
            Phase::Burst { count, within } => Some(within.as_secs_f64() * us * nth / *count as f64),
            Phase::Constant { rate, .. } => Some(nth / rate * us),
            Phase::Ramp { from, to, lasts } => {
                // n = from·t + k·t²/2, solved for t in the form that also holds for k = 0.
                let k = (to - from) / lasts.as_secs_f64();
                let root = (from * from + 2.0 * k * nth).max(0.0).sqrt();
                Some(if nth == 0.0 { 0.0 } else { 2.0 * nth / (from + root) * us })
            }
            Phase::Trace(trace) => trace.at_us.get(usize::try_from(self.nth).ok()?).map(|&at| at as f64),
            Phase::Pause { .. } => None,
        }
    }
}

impl Iterator for Schedule {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        loop {
            let phase = self.phase.as_ref()?;
            let lasts_us = phase.lasts().as_secs_f64() * 1e6;
            let traced = if let Phase::Trace(trace) = phase { trace.who.get(self.nth as usize).copied() } else { None };
            if let Some(offset_us) = self.offset_us() {
                self.nth += 1;
                let at_us = (self.began_us + offset_us) as Micros;
                return Some(Arrival { at_us, who: traced.unwrap_or_default() });
            }
            self.began_us += lasts_us;
            (self.nth, self.last_us) = (0, 0.0);
            self.phase = self.phases.next();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn moments(phases: Vec<Phase>) -> Vec<Micros> {
        Schedule::new(phases, 7).map(|arrival| arrival.at_us).collect()
    }

    #[test]
    fn a_constant_rate_is_the_same_in_every_second() {
        let at = moments(vec![Phase::Constant { rate: 3.0, lasts: 2 * SECOND }]);
        assert_eq!(at, [0, 333_333, 666_666, 1_000_000, 1_333_333, 1_666_666]);
        let at = moments(vec![Phase::Constant { rate: 100_000.0, lasts: 10 * SECOND }]);
        assert_eq!((at.len(), at[999_999]), (1_000_000, 9_999_990), "no error adds up");
    }

    #[test]
    fn steps_follow_one_another_and_a_pause_is_kept() {
        let phases = vec![
            Phase::Constant { rate: 2.0, lasts: SECOND },
            Phase::Pause { lasts: SECOND },
            Phase::Constant { rate: 4.0, lasts: SECOND },
        ];
        assert_eq!(moments(phases), [0, 500_000, 2_000_000, 2_250_000, 2_500_000, 2_750_000]);
    }

    #[test]
    fn a_ramp_reaches_its_rate_in_a_straight_line() {
        let at = moments(vec![Phase::Ramp { from: 0.0, to: 1000.0, lasts: 10 * SECOND }]);
        assert_eq!(at.len(), 5000);
        let in_second = |second: u64| at.iter().filter(|&&at| at / 1_000_000 == second).count();
        assert!((49..=51).contains(&in_second(0)) && (449..=451).contains(&in_second(4)), "{}", in_second(4));
        assert!((949..=951).contains(&in_second(9)));
        let down = moments(vec![Phase::Ramp { from: 1000.0, to: 0.0, lasts: 10 * SECOND }]);
        assert_eq!(down.len(), 5000);
        assert!(down.is_sorted() && down[4999] < 10_000_000);
        let level = Phase::Ramp { from: 5.0, to: 5.0, lasts: SECOND };
        assert_eq!(moments(vec![level]), moments(vec![Phase::Constant { rate: 5.0, lasts: SECOND }]));
    }

    #[test]
    fn poisson_arrivals_have_their_rate_and_its_spread_and_can_be_repeated() {
        let phase = Phase::Poisson { rate: 1000.0, lasts: 20 * SECOND };
        let at = moments(vec![phase.clone()]);
        assert_eq!(at, moments(vec![phase]));
        let n = at.len() as f64;
        assert!((19_400.0..20_600.0).contains(&n), "{n}: 20,000 ± 4 standard deviations");
        let gaps: Vec<f64> = at.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((0.95..1.05).contains(&(variance.sqrt() / mean)), "an exponential's deviation is its mean");
    }

    #[test]
    fn a_burst_comes_in_one_moment_or_evenly_within_a_time() {
        assert_eq!(moments(vec![Phase::Burst { count: 3, within: Duration::ZERO }]), [0, 0, 0]);
        assert_eq!(moments(vec![Phase::Burst { count: 4, within: SECOND }]), [0, 250_000, 500_000, 750_000]);
    }

    #[test]
    fn a_trace_is_replayed_after_what_came_before() {
        let trace = Arc::new(Trace::parse("10,3\n10.000005,4\n10.000005,3\n11,9,2\n", 1.0).unwrap());
        let phases = vec![Phase::Constant { rate: 1.0, lasts: SECOND }, Phase::Trace(trace)];
        assert_eq!(moments(phases.clone()), [0, 1_000_000, 1_000_005, 1_000_005, 2_000_000]);
        let last = Schedule::new(phases, 7).last().unwrap();
        assert_eq!((last.who.buyer, last.who.quantity), (Some(9), Some(2)));
    }
}
