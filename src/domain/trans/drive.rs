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
use super::status::{BranchStatus, GlobalStatus, Op, TransType};
use super::timing::{self, Limits};
use super::{msg, saga, tcc, workflow, xa};
use bytes::Bytes;

/// Longest text kept of a branch's answer, in bytes.
pub const REASON_BYTES_MAX: usize = 1024;

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
    backed_off: bool,
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

/// What to do with `global` now. Calls it returns are noted in `pass` as running.
pub fn next_step(global: &Global, pass: &mut Pass, now_ms: u64, limits: &Limits) -> Step {
    todo!()
}

/// Takes the result of a call in: rows, interval, next try, reason.
pub fn apply(
    global: &mut Global,
    pass: &mut Pass,
    called: Called,
    result: BranchResult,
    now_ms: u64,
    limits: &Limits,
) -> Applied {
    todo!()
}

/// Carries out a [`Step::Move`].
pub fn apply_move(global: &mut Global, to: GlobalStatus, reason: Option<&str>, now_ms: u64) {
    todo!()
}

/// The answer to a submit (or abort) that waited, once its pass is over.
pub fn waited(global: &Global, pass: &Pass) -> Result<(), Refusal> {
    todo!()
}

impl Global {
    /// When it is due: the score for the due index. `None`: it is over.
    pub fn due_ms(&self, limits: &Limits) -> Option<u64> {
        todo!()
    }
}
