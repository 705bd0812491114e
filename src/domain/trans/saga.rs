//! Saga: submitted → succeed, or submitted → aborting → failed.
//!
//! Forward, actions run one after another, or all at once within the order that the client gave. One refusal, the
//! timeout, or a spent retry limit turns it back, once every call that runs has answered. Backward, each step whose
//! action ran, may have run, or refused is compensated, in reverse order.
//!
//! Rows: the compensation of step k is at 2k, its action at 2k + 1.

use super::drive::{BranchResult, Called, Plan, Verdict};
use super::global::Global;
use super::json::Fields;
use super::msg::failure_reason;
use super::status::{BranchStatus, GlobalStatus, Op};
use super::timing::{self, Limits};
use crate::domain::ids::Invalid;

/// Most pairs of earlier and later step: they are gone through for every step of a pass.
const PAIRS_MAX: usize = 4096;

/// Which steps come before which: `{"concurrent":true,"orders":{"1":[0]}}` in the custom data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Order {
    concurrent: bool,
    /// `(later, earlier)`, both step indexes.
    pairs: Vec<(usize, usize)>,
}

impl Order {
    /// Reads and checks custom data of a saga with so many steps; empty is one after another.
    pub fn parse(custom_data: &str, steps: usize) -> Result<Self, Invalid> {
        let order = Self::read(custom_data, steps)?;
        match order.has_an_end(steps) {
            true => Ok(order),
            false => Err(bad_orders("go in a circle, so that no step can be first", steps)),
        }
    }

    fn read(custom_data: &str, steps: usize) -> Result<Self, Invalid> {
        if custom_data.is_empty() || custom_data == "null" {
            return Ok(Self::default());
        }
        let mut fields = Fields::read("custom_data", custom_data.as_bytes())?;
        let concurrent = fields.flag("concurrent")?;
        let bad = |what: &str| bad_orders(what, steps);
        let mut pairs = Vec::new();
        let orders = match fields.take("orders") {
            None => Default::default(),
            Some(serde_json::Value::Object(orders)) => orders,
            Some(_) => return Err(bad("must be an object of lists")),
        };
        for (later, earlier) in orders {
            let later = later.parse().ok().filter(|k| *k < steps).ok_or_else(|| bad("has a key that is no step"))?;
            let earlier = match earlier {
                serde_json::Value::Null => Vec::new(),
                serde_json::Value::Array(list) => list,
                _ => return Err(bad("must be an object of lists")),
            };
            for value in earlier {
                let step = value.as_u64().and_then(|k| usize::try_from(k).ok()).filter(|k| *k < steps);
                pairs.push((later, step.ok_or_else(|| bad("lists what is no step"))?));
            }
            if pairs.len() > PAIRS_MAX {
                return Err(bad(&format!("may say {PAIRS_MAX} times at most what comes first")));
            }
        }
        Ok(Self { concurrent, pairs })
    }

    fn of(saga: &Global) -> Self {
        Self::read(&saga.custom_data, saga.branches.len() / 2).unwrap_or_default() // checked when it came in
    }

    /// The steps that must be done before step k.
    fn before(&self, k: usize) -> impl Iterator<Item = usize> {
        let previous = if self.concurrent { None } else { k.checked_sub(1) };
        previous.into_iter().chain(self.pairs.iter().filter(move |(later, _)| *later == k).map(|(_, earlier)| *earlier))
    }

    /// The steps that must be rolled back before step k.
    fn after(&self, k: usize, steps: usize) -> impl Iterator<Item = usize> {
        let next = if self.concurrent { None } else { Some(k + 1).filter(|next| *next < steps) };
        next.into_iter().chain(self.pairs.iter().filter(move |(_, earlier)| *earlier == k).map(|(later, _)| *later))
    }

    /// Could all steps be done in this order?
    fn has_an_end(&self, steps: usize) -> bool {
        let mut waits_for: Vec<usize> = (0..steps).map(|k| self.before(k).count()).collect();
        let mut ready: Vec<usize> = (0..steps).filter(|k| waits_for[*k] == 0).collect();
        let mut done = 0;
        while let Some(k) = ready.pop() {
            done += 1;
            for later in self.after(k, steps) {
                waits_for[later] -= 1;
                if waits_for[later] == 0 {
                    ready.push(later);
                }
            }
        }
        done == steps
    }
}

fn bad_orders(what: &str, steps: usize) -> Invalid {
    Invalid::new("orders", format!("{what}; steps are 0 to {}", steps.saturating_sub(1)))
}

/// Called only when it is due.
pub(super) fn plan(saga: &Global, now_ms: u64, limits: &Limits) -> Plan {
    match saga.status {
        // Only prepared by hand, and never submitted: nothing has run.
        GlobalStatus::Prepared => Plan::Move(GlobalStatus::Failed, Some(saga.timeout_reason(limits))),
        GlobalStatus::Submitted => forward(saga, now_ms, limits),
        GlobalStatus::Aborting | GlobalStatus::Succeed | GlobalStatus::Failed => backward(saga),
    }
}

fn forward(saga: &Global, now_ms: u64, limits: &Limits) -> Plan {
    let steps = saga.branches.len() / 2;
    if !saga.rollback_reason.is_empty() || (0..steps).any(|k| action(saga, k) == BranchStatus::Failed) {
        return Plan::Move(GlobalStatus::Aborting, None);
    }
    if (0..steps).all(|k| action(saga, k) == BranchStatus::Succeed) {
        return Plan::Move(GlobalStatus::Succeed, None);
    }
    if saga.options.timeout_to_fail_s > 0 && now_ms >= timing::prepared_until_ms(saga, limits) {
        return Plan::Move(GlobalStatus::Aborting, Some(saga.timeout_reason(limits)));
    }
    let order = Order::of(saga);
    Plan::Call((0..steps).filter(|k| may_start(saga, &order, *k)).map(|k| Called::Branch(2 * k + 1)).collect())
}

fn backward(saga: &Global) -> Plan {
    let steps = saga.branches.len() / 2;
    let order = Order::of(saga);
    // What may start may have started, in a pass that a crash forgot.
    let may_have_run = |k: usize| action(saga, k) != BranchStatus::Prepared || saga.ahead || may_start(saga, &order, k);
    let rolled_back: Vec<bool> =
        (0..steps).map(|k| saga.branches[2 * k].status == BranchStatus::Succeed || !may_have_run(k)).collect();
    if rolled_back.iter().all(|done| *done) {
        return Plan::Move(GlobalStatus::Failed, None);
    }
    let ready = |k: &usize| !rolled_back[*k] && order.after(*k, steps).all(|later| rolled_back[later]);
    Plan::Call((0..steps).rev().filter(ready).map(|k| Called::Branch(2 * k)).collect())
}

fn action(saga: &Global, k: usize) -> BranchStatus {
    saga.branches[2 * k + 1].status
}

fn may_start(saga: &Global, order: &Order, k: usize) -> bool {
    action(saga, k) == BranchStatus::Prepared
        && order.before(k).all(|earlier| action(saga, earlier) == BranchStatus::Succeed)
}

/// A result of an action or a compensation. The reason to turn back is stored with the row that gave it, so it is
/// never lost (dtm: `fail message lost`).
pub(super) fn take_result(saga: &mut Global, i: usize, result: &BranchResult, now_ms: u64) -> Verdict {
    let limit = saga.options.retry_limit;
    match result {
        _ if saga.branches[i].op != Op::Action => saga.take_row_result(i, result, now_ms),
        BranchResult::Failure(text) => {
            saga.settle_row(i, BranchStatus::Failed, now_ms);
            let reason = failure_reason(&saga.branches[i].url, text);
            turn_back(saga, &reason);
            Verdict::Clear
        }
        BranchResult::Ongoing | BranchResult::Unknown(_) if limit > 0 => {
            if saga.retry_count < limit {
                saga.retry_count += 1;
            } else {
                turn_back(saga, &format!("RetryCount is greater than RetryLimit, RetryLimit: {limit}"));
            }
            Verdict::Again
        }
        BranchResult::Success | BranchResult::Ongoing | BranchResult::Unknown(_) | BranchResult::NotCalled(_) => {
            saga.take_row_result(i, result, now_ms)
        }
    }
}

/// The first reason stays.
fn turn_back(saga: &mut Global, reason: &str) {
    if saga.rollback_reason.is_empty() {
        saga.rollback_reason = super::check::cut(reason, super::drive::REASON_BYTES_MAX).to_owned();
    }
}
