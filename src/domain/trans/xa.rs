//! XA: prepared → submitted → succeed, or prepared → aborting → failed.
//!
//! As [`tcc`](super::tcc), with commit and rollback, the first registered first, and without a body.

use super::drive::Plan;
use super::global::Global;
use super::status::{GlobalStatus, Op};
use super::timing::Limits;

/// Called only when it is due: undecided past its timeout, or decided.
pub(super) fn plan(xa: &Global, limits: &Limits) -> Plan {
    let first_first = || 0..xa.branches.len();
    let (open, over) = match xa.status {
        GlobalStatus::Submitted => (xa.open_row(first_first(), Op::Commit), GlobalStatus::Succeed),
        GlobalStatus::Aborting => (xa.open_row(first_first(), Op::Rollback), GlobalStatus::Failed),
        GlobalStatus::Prepared | GlobalStatus::Succeed | GlobalStatus::Failed => {
            return Plan::Move(GlobalStatus::Aborting, Some(xa.timeout_reason(limits)));
        }
    };
    open.map_or(Plan::Move(over, None), |called| Plan::Call(vec![called]))
}
