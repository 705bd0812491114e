//! The driver's side: what to do with a transaction that is due, and what a result changes.
//!
//! ```text
//! let mut pass = Pass::default();
//! loop { match next_step(&global, &mut pass, now, &limits) {
//!     Call(specs)          => start every one; an empty `url` is no call and a `Success`
//!     Await                => take the next result that comes in, `apply` it
//!     Move { to, reason }  => `apply_move`, then WRITE the record before going round: nothing may be undone or
//!                             confirmed before the decision to do so is stored
//!     Wait { until_ms }    => write the record, index it at `until_ms`; the pass is over
//!     Done                 => it is over
//! } }
//! ```
//!
//! A pass tries each branch at most once (a saga's `retry_limit` excepted) and lives in memory only: a crash forgets it
//! and loses nothing but calls, which are repeated. When to write results in between: a saga's success must be stored
//! before a step that depends on it starts, or the stored form must say [`Global::ahead`]; for the other modes writing
//! at the end of the pass will do, since all they ever do is repeat.

use super::global::Global;
use super::refusal::Refusal;
use super::status::{GlobalStatus, TransType};
use super::timing::{self, Limits};
use super::{check, msg, saga, tcc, workflow, xa};
use bytes::Bytes;

/// Longest text kept of a branch's answer, in bytes.
pub const TEXT_BYTES_MAX: usize = 1024;
/// Longest reason that is stored, in bytes: an URL and a text, and some words.
pub const REASON_BYTES_MAX: usize = 4096;

/// Whom a call goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Called {
    /// `Global::branches[_]`.
    Branch(usize),
    /// The check-back of a msg: branch `00`, op `msg`, no payload.
    QueryPrepared,
    /// The callback of a workflow: branch `00`, op = its name, its input as payload (in gRPC wrapped in WorkflowData).
    Workflow,
}

/// One call to make. An empty `url` is not called: it is a [`BranchResult::Success`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallSpec {
    pub called: Called,
    pub branch_id: String,
    pub op: String,
    pub url: String,
    pub payload: Bytes,
}

/// What a call came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BranchResult {
    Success,
    /// Refused for good, with the branch's words.
    Failure(String),
    /// Still at it: asked again after the same interval.
    Ongoing,
    /// Anything else, no answer included: asked again after a longer interval.
    Unknown(String),
    /// Nobody was asked, because of too many other calls there: asked after a longer interval. No failure of the branch,
    /// so it counts neither for alerts nor for a retry limit.
    NotCalled(String),
}

/// What the driver does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Start these, all at once.
    Call(Vec<CallSpec>),
    /// Nothing to start until a call that runs has its result.
    Await,
    /// The pass is over; come back then.
    Wait { until_ms: u64 },
    /// Change the status. Stored before anything else is done.
    Move { to: GlobalStatus, reason: Option<String> },
    /// Succeeded or failed: nothing is left to do.
    Done,
}

/// One driver's run at one transaction, in memory only.
#[derive(Debug, Clone, Default)]
pub struct Pass {
    running: Vec<Called>,
    /// Called in this pass, and not to be called again in it.
    tried: Vec<Called>,
    /// A result was unclear, so the pass ends in a wait, whatever else succeeds in it.
    rested: bool,
    /// The interval has been doubled in this pass; once is enough, however many branches fail.
    backed_off: bool,
    /// A branch did not answer clearly in this pass, which counts for alerts.
    failed: bool,
    /// A result that decides the status: the next step is this move.
    decided: Option<(GlobalStatus, Option<String>)>,
    /// The first error, for a client that waits.
    error: Option<Refusal>,
}

/// An alert that is due: the body of dtm's web hook.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Alert {
    pub gid: String,
    pub status: GlobalStatus,
    /// The URL that was called.
    pub branch: String,
    pub error: String,
    pub retry_count: u32,
}

/// What [`apply`] has to say beyond the changed record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    pub alert: Option<Alert>,
}

/// What a mode wants done, whatever runs already.
pub(super) enum Plan {
    /// Make these calls; those already made in this pass are left out by [`next_step`].
    Call(Vec<Called>),
    Move(GlobalStatus, Option<String>),
}

/// What to do with `global` now. Calls it returns are noted in `pass` as running.
pub fn next_step(global: &Global, pass: &mut Pass, now_ms: u64, limits: &Limits) -> Step {
    let Some(due_ms) = global.due_ms(limits) else { return Step::Done };
    if pass.is_fresh() && due_ms > now_ms {
        return Step::Wait { until_ms: due_ms };
    }
    let plan = match (pass.decided.take(), global.trans_type) {
        (Some((to, reason)), _) => Plan::Move(to, reason),
        (None, TransType::Msg) => msg::plan(global),
        (None, TransType::Saga) => saga::plan(global, now_ms, limits),
        (None, TransType::Tcc) => tcc::plan(global, limits),
        (None, TransType::Xa) => xa::plan(global, limits),
        (None, TransType::Workflow) => Plan::Call(vec![Called::Workflow]),
    };
    match plan {
        // What runs may still take effect: its result comes first, then the decision.
        Plan::Move(..) if !pass.running.is_empty() => Step::Await,
        Plan::Move(to, reason) => {
            *pass = Pass::default();
            Step::Move { to, reason }
        }
        Plan::Call(mut wanted) => {
            wanted.retain(|called| !pass.running.contains(called) && !pass.tried.contains(called));
            wanted.truncate(limits.calls_max.max(1).saturating_sub(pass.running.len()));
            match wanted.is_empty() {
                false => {
                    pass.running.extend(&wanted);
                    Step::Call(wanted.into_iter().map(|called| global.call(called)).collect())
                }
                true if !pass.running.is_empty() => Step::Await,
                // `max`: a pass that ends without a wait of its own must still end in one.
                true => Step::Wait { until_ms: due_ms.max(now_ms.saturating_add(1)) },
            }
        }
    }
}

/// Takes `global` as far as it gets without calling anybody: branches without a URL are successes, and what follows from
/// them. For what is about to be stored, so that it is stored as it will be; nothing has happened outside, so nothing
/// is lost if the store refuses it.
pub fn run_uncalled(global: &mut Global, now_ms: u64, limits: &Limits) {
    if !global.branches.is_empty() && global.branches.iter().all(|branch| !branch.url.is_empty()) {
        return;
    }
    let mut pass = Pass::default();
    loop {
        match next_step(global, &mut pass, now_ms, limits) {
            Step::Call(specs) if specs.iter().all(|spec| spec.url.is_empty()) => {
                for spec in specs {
                    apply(global, &mut pass, spec.called, BranchResult::Success, now_ms, limits);
                }
            }
            Step::Move { to, reason } => apply_move(global, to, reason.as_deref(), now_ms),
            Step::Call(_) | Step::Await | Step::Wait { .. } | Step::Done => return,
        }
    }
}

/// Takes the result of a call in: rows, interval, next try, reason. Nothing happens to what is over.
///
/// After a workflow's callback, load the record again before this: the client changes it while the call runs.
pub fn apply(
    global: &mut Global,
    pass: &mut Pass,
    called: Called,
    result: BranchResult,
    now_ms: u64,
    limits: &Limits,
) -> Applied {
    pass.running.retain(|running| *running != called);
    if global.status.is_final() {
        return Applied::default();
    }
    global.update_ms = now_ms;
    if let BranchResult::NotCalled(text) = result {
        pass.back_off(global, limits);
        pass.rest(global, called, now_ms);
        pass.note_error(global, text, false);
        return Applied::default();
    }
    let verdict = match (called, global.trans_type) {
        (Called::QueryPrepared, _) => msg::take_answer(global, pass, &result),
        (Called::Workflow, _) => workflow::take_answer(&result),
        (Called::Branch(i), _) if i >= global.branches.len() => Verdict::Clear,
        (Called::Branch(i), TransType::Saga) => saga::take_result(global, i, &result, now_ms),
        (Called::Branch(i), _) => global.take_row_result(i, &result, now_ms),
    };
    match verdict {
        Verdict::Clear if !pass.rested => {
            global.interval_ms = timing::base_interval_ms(&global.options, limits);
            global.failed_passes = 0;
            Applied::default()
        }
        Verdict::Clear | Verdict::Again => Applied::default(),
        Verdict::Rest => {
            pass.rest(global, called, now_ms);
            if matches!(global.trans_type, TransType::Tcc | TransType::Xa) {
                pass.error.get_or_insert(Refusal::Ongoing("ONGOING".to_owned()));
            }
            Applied::default()
        }
        Verdict::BackOff => {
            if !pass.failed {
                pass.failed = true;
                global.failed_passes = global.failed_passes.saturating_add(1);
            }
            pass.back_off(global, limits);
            pass.rest(global, called, now_ms);
            if limits.stop_at_attention && global.needs_attention(limits) {
                global.next_cron_ms = timing::PAUSED_MS;
            }
            let (text, failure) = match result {
                BranchResult::Failure(text) => (text, true),
                BranchResult::Unknown(text) | BranchResult::NotCalled(text) => (text, false),
                BranchResult::Success | BranchResult::Ongoing => (String::new(), false),
            };
            let text = check::cut(&text, TEXT_BYTES_MAX).to_owned();
            pass.note_error(global, text.clone(), failure);
            let alert = || global.alert(called, text);
            Applied { alert: global.needs_attention(limits).then(alert) }
        }
    }
}

/// What a result means for the time of the next try.
pub(super) enum Verdict {
    /// Success, or a refusal that is accepted: on we go.
    Clear,
    /// The same call once more, at once.
    Again,
    /// Later, after the same interval.
    Rest,
    /// Later, after a longer interval.
    BackOff,
}

impl Pass {
    /// Nothing has been called in this pass yet.
    fn is_fresh(&self) -> bool {
        self.running.is_empty() && self.tried.is_empty() && self.decided.is_none()
    }

    pub(super) fn decide(&mut self, to: GlobalStatus, reason: Option<String>) {
        self.decided = Some((to, reason));
    }

    /// `called` is not called again in this pass, and the pass ends in a wait.
    fn rest(&mut self, global: &mut Global, called: Called, now_ms: u64) {
        self.tried.push(called);
        self.rested = true;
        if !global.is_paused() {
            global.next_cron_ms = now_ms.saturating_add(global.interval_ms);
        }
    }

    fn back_off(&mut self, global: &mut Global, limits: &Limits) {
        if !std::mem::replace(&mut self.backed_off, true) {
            global.interval_ms = timing::backed_off_ms(global, limits);
        }
    }

    fn note_error(&mut self, global: &Global, text: String, failure: bool) {
        if !matches!(global.trans_type, TransType::Saga | TransType::Workflow) {
            self.error.get_or_insert(Refusal::UnknownResult { text, failure });
        }
    }

    /// The first error of the pass: what a client that waits is told.
    pub fn error(&self) -> Option<&Refusal> {
        self.error.as_ref()
    }

    /// Calls whose result is still to come.
    pub fn running(&self) -> usize {
        self.running.len()
    }
}

/// Carries out a [`Step::Move`]. What is over stays as it is.
pub fn apply_move(global: &mut Global, to: GlobalStatus, reason: Option<&str>, now_ms: u64) {
    if !global.status.may_become(to) {
        return;
    }
    global.status = to;
    global.update_ms = now_ms;
    global.next_cron_ms = now_ms;
    global.failed_passes = 0;
    if let Some(reason) = reason {
        global.rollback_reason = check::cut(reason, REASON_BYTES_MAX).to_owned();
    }
    match to {
        GlobalStatus::Succeed => global.finish_ms = now_ms,
        GlobalStatus::Failed => global.rollback_ms = now_ms,
        GlobalStatus::Prepared | GlobalStatus::Submitted | GlobalStatus::Aborting => {}
    }
}

/// The answer to a submit that waited, once its pass is over (5.4). An abort that waited is answered by
/// [`Pass::error`] alone.
pub fn waited(global: &Global, pass: &Pass) -> Result<(), Refusal> {
    match (global.status, &pass.error) {
        (GlobalStatus::Succeed, _) => Ok(()),
        (_, Some(error)) => Err(error.clone()),
        _ if !global.rollback_reason.is_empty() => Err(Refusal::Reason(global.rollback_reason.clone())),
        _ => Err(Refusal::WaitNotSuccess),
    }
}
