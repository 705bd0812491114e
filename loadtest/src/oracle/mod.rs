//! The oracle: after a run it holds what buyers were told against what the order service was called with, and says what
//! does not fit together. [docs/oracle.md](../../../docs/oracle.md) defines every charge.
//!
//! | file | what it is |
//! | --- | --- |
//! | `facts` | the two lists put together: one [`facts::Order`] per gid, one [`facts::Request`] per key |
//! | `checks/` | one file per question, each a function from facts to charges |
//! | `after` | what is asked of the shop once the run is over |
//! | `verdict` | the answer, and the exit code |
//!
//! Judging is pure: no clock, no I/O. The oracle trusts its own order service and its own clock, and nobody else's word: what
//! the shop says of itself is only used against it, or to excuse an order that a buyer hung up on.
//! When in doubt, the shop is not guilty: each check charges only what no order of events could explain.

pub mod after;
mod checks;
mod facts;
mod verdict;

#[cfg(test)]
pub use after::Told as ToldAfter;
pub use after::{Aftermath, End, conclude};
pub use verdict::{Charge, Evidence, Verdict, Word, seconds};

use serde::{Deserialize, Serialize};

use crate::ledger::{Ledger, Micros};

/// How exact times are, and how quick the shop promises to be.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Tolerance {
    /// Two readings of the clock in one machine may differ by this; more with several machines.
    pub clock_us: Micros,
    /// Units that come back (restocked, refused by the order service, cancelled, expired) are on sale after this at the latest.
    pub returns_us: Micros,
    /// An order is refused as `not_open` for at most this long after opening.
    pub opens_us: Micros,
    /// The shop marks answers that it gave before (`Idempotency-Replayed`), so that two first answers can be told.
    pub marks_replays: bool,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { clock_us: 5_000, returns_us: 1_000_000, opens_us: 1_000_000, marks_replays: true }
    }
}

/// Judges a run.
pub fn judge(ledger: &Ledger, aftermath: &Aftermath, tolerance: Tolerance) -> Verdict {
    let mut verdict = Verdict::default();
    if ledger.left_out() > 0 {
        verdict.not_judged.push(format!(
            "{} answers found no room in the ledger, and without them nothing is certain\nhint: a shorter run, or a larger ledger",
            ledger.left_out()
        ));
        return verdict;
    }
    let facts = facts::Facts::gather(ledger, aftermath, tolerance);
    verdict.looked_at("answers", facts.answers);
    verdict.looked_at("requests", facts.requests.len() as u64);
    verdict.looked_at("orders", facts.orders.len() as u64);
    verdict.looked_at("calls at the order service", ledger.called.len() as u64);
    if facts.answers == 0 {
        verdict.not_judged.push("no buyer was told anything".into());
    }
    checks::all(&facts, &mut verdict);
    if !aftermath.settled {
        verdict.not_judged.push(format!(
            "lost, ghost and what ended wrongly: the shop had not finished what it had promised ({})",
            aftermath.problem.as_deref().unwrap_or("no reason is known")
        ));
    }
    verdict
}

#[cfg(test)]
mod tests;
