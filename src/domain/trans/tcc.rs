//! TCC: prepared → submitted → succeed, or prepared → aborting → failed.
//!
//! The client tries and registers; the server confirms all or cancels all, the last registered first, one by one.
//! Undecided at its timeout, it is cancelled.

use super::drive::Plan;
use super::global::Global;
use super::status::{GlobalStatus, Op};
use super::timing::Limits;

/// Called only when it is due: undecided past its timeout, or decided.
pub(super) fn plan(tcc: &Global, limits: &Limits) -> Plan {
    let last_first = || (0..tcc.branches.len()).rev();
    let (open, over) = match tcc.status {
        GlobalStatus::Submitted => (tcc.open_row(last_first(), Op::Confirm), GlobalStatus::Succeed),
        GlobalStatus::Aborting => (tcc.open_row(last_first(), Op::Cancel), GlobalStatus::Failed),
        GlobalStatus::Prepared | GlobalStatus::Succeed | GlobalStatus::Failed => {
            return Plan::Move(GlobalStatus::Aborting, Some(tcc.timeout_reason(limits)));
        }
    };
    open.map_or(Plan::Move(over, None), |called| Plan::Call(vec![called]))
}
