//! Two-phase message: (prepared →) submitted → succeed, or prepared → failed. Never undone once submitted.
//!
//! Undecided at its timeout, its sender is asked back. Without an address to ask, it fails: nobody ever said that the
//! local work happened, and `prepared` promises nothing. dtm submits it (its defect B18), which delivers messages about
//! orders that were rolled back. A late submit then hears 409 and its caller knows.

use super::check;
use super::drive::{BranchResult, Called, Pass, Plan, TEXT_BYTES_MAX, Verdict};
use super::global::Global;
use super::json::Fields;
use super::refusal::without_failure;
use super::status::{GlobalStatus, Op};
use crate::domain::ids::Invalid;

/// Seconds to hold a submitted message back: `{"delay":10}` in its custom data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delay {
    pub seconds: u64,
}

impl Delay {
    /// Reads custom data; empty is no delay.
    pub fn parse(custom_data: &str) -> Result<Self, Invalid> {
        if custom_data.is_empty() || custom_data == "null" {
            return Ok(Self { seconds: 0 });
        }
        let seconds = Fields::read("custom_data", custom_data.as_bytes())?.integer("delay")?;
        Ok(Self { seconds: check::seconds("delay", seconds)? })
    }
}

/// The delay in milliseconds. Custom data was checked when it came in.
pub(super) fn delay_ms(msg: &Global) -> u64 {
    Delay::parse(&msg.custom_data).map_or(0, |delay| delay.seconds * 1000)
}

/// Called only when it is due: undecided past its timeout, or submitted past its delay.
pub(super) fn plan(msg: &Global) -> Plan {
    match msg.status {
        GlobalStatus::Prepared if msg.query_prepared.is_empty() => {
            let reason = "Timeout: it was neither submitted nor aborted, and has no query_prepared to ask";
            Plan::Move(GlobalStatus::Failed, Some(reason.to_owned()))
        }
        GlobalStatus::Prepared => Plan::Call(vec![Called::QueryPrepared]),
        GlobalStatus::Submitted if msg.options.concurrent => {
            let open = (0..msg.branches.len()).filter_map(|i| msg.open_row(i..i + 1, Op::Action));
            finish_or_call(open.collect())
        }
        GlobalStatus::Submitted => {
            finish_or_call(msg.open_row(0..msg.branches.len(), Op::Action).into_iter().collect())
        }
        // No move leads here; if a record says so, nothing of a msg can be undone.
        GlobalStatus::Aborting | GlobalStatus::Succeed | GlobalStatus::Failed => Plan::Move(GlobalStatus::Failed, None),
    }
}

fn finish_or_call(open: Vec<Called>) -> Plan {
    if open.is_empty() { Plan::Move(GlobalStatus::Succeed, None) } else { Plan::Call(open) }
}

/// The sender's answer to the check-back.
pub(super) fn take_answer(msg: &Global, pass: &mut Pass, answer: &BranchResult) -> Verdict {
    if msg.status != GlobalStatus::Prepared {
        return Verdict::Clear;
    }
    match answer {
        BranchResult::Success => {
            pass.decide(GlobalStatus::Submitted, None);
            Verdict::Clear
        }
        BranchResult::Failure(text) => {
            let reason = failure_reason(&msg.query_prepared, text);
            pass.decide(GlobalStatus::Failed, Some(reason));
            Verdict::Clear
        }
        BranchResult::Ongoing => Verdict::Rest,
        BranchResult::Unknown(_) | BranchResult::NotCalled(_) => Verdict::BackOff,
    }
}

/// dtm's words for a branch that refused.
pub(super) fn failure_reason(url: &str, text: &str) -> String {
    format!("url:{url} return failed: {} FAILURE", check::cut(without_failure(text), TEXT_BYTES_MAX))
}
