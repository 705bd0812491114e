//! Counts of branch calls and of ended transactions. Finding a counter by its labels costs more than counting, so they are
//! found beforehand; that must be after the recorder of metrics is there, or nothing is ever counted.

use crate::domain::trans::{BranchResult, Global, GlobalStatus, Op, TransType};
use metrics::{Counter, counter};

const RESULTS: [&str; 5] = ["success", "failure", "ongoing", "unknown", "not_called"];
const FINAL: [GlobalStatus; 2] = [GlobalStatus::Succeed, GlobalStatus::Failed];

pub struct Counts {
    /// By op, then in the order of [`RESULTS`].
    calls: Vec<(&'static str, [Counter; RESULTS.len()])>,
    /// By type, then in the order of [`FINAL`].
    ended: Vec<(TransType, [Counter; FINAL.len()])>,
}

impl Counts {
    pub fn new() -> Self {
        let call = |op: &'static str, result: &'static str| counter!("rushline_branch_calls_total", "op" => op, "result" => result);
        let end = |trans_type: TransType, status: GlobalStatus| {
            counter!(
                "rushline_transactions_ended_total",
                "trans_type" => trans_type.as_str(),
                "status" => status.as_str(),
            )
        };
        let ops = Op::ALL.iter().map(|op| op.as_str()).chain(["workflow"]);
        let types = TransType::ALL.iter().copied();
        Self {
            calls: ops.map(|op| (op, RESULTS.map(|result| call(op, result)))).collect(),
            ended: types.map(|of| (of, FINAL.map(|status| end(of, status)))).collect(),
        }
    }

    pub fn call(&self, op: &str, result: &BranchResult) {
        let place = match result {
            BranchResult::Success => 0,
            BranchResult::Failure(_) => 1,
            BranchResult::Ongoing => 2,
            BranchResult::Unknown(_) => 3,
            BranchResult::NotCalled(_) => 4,
        };
        if let Some((_, counters)) = self.calls.iter().find(|(known, _)| *known == op) {
            counters[place].increment(1);
        }
    }

    /// Nothing, if it is not over.
    pub fn end(&self, global: &Global) {
        let counters = self.ended.iter().find(|(of, _)| *of == global.trans_type);
        let place = FINAL.iter().position(|status| *status == global.status);
        if let (Some((_, counters)), Some(place)) = (counters, place) {
            counters[place].increment(1);
        }
    }
}
