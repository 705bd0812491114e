//! What each API call does to a transaction (dtm-server-protocol 5.3), as values.
//!
//! `existing` is the record as loaded; the caller writes the [`Change`] only if the record is still that one, and
//! otherwise loads it and asks again. Every move is idempotent on an exact repeat.
//!
//! Where this differs from dtm: a repeated submit changes nothing at all. dtm makes fresh rows for it, which runs a
//! saga's or msg's branches again beside a running pass (B2) and marks a tcc or xa as succeeded with its second phase
//! undone (B1). A second call with another trans_type or other steps is refused, not mixed in. A repeated submit of a
//! finished workflow with the same status succeeds (dtm: 500), and one with `wait_result` waits like the first.

use super::gid::TransGid;
use super::global::{Branch, Global};
use super::refusal::Refusal;
use super::request::{RegisterBranch, Topics, TransRequest};
use super::timing::Limits;

/// What a call writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing; the answer is SUCCESS all the same. After a submit or abort with `wait_result` the door waits for the
    /// transaction as it would have the first time.
    Nothing,
    /// A new record, if there is still none by this gid.
    Create(Box<Global>),
    /// The record as it is to be, if it is still as it was.
    Replace(Box<Global>),
    /// Rows to append, if the record is still `prepared` and has none of these (branch_id, op).
    Append(Vec<Branch>),
}

pub fn prepare(
    existing: Option<&Global>,
    request: TransRequest,
    now_ms: u64,
    limits: &Limits,
    topics: Topics<'_>,
) -> Result<Change, Refusal> {
    todo!()
}

/// After `Create` or `Replace` the transaction is due at once (a delayed msg later: see [`Global::due_ms`]).
pub fn submit(
    existing: Option<&Global>,
    request: TransRequest,
    now_ms: u64,
    limits: &Limits,
    topics: Topics<'_>,
) -> Result<Change, Refusal> {
    todo!()
}

/// `request` needs its gid only; `trans_type` and `rollback_reason` if it has them.
pub fn abort(existing: Option<&Global>, request: &TransRequest, now_ms: u64) -> Result<Change, Refusal> {
    todo!()
}

pub fn force_stop(existing: Option<&Global>, gid: &TransGid, now_ms: u64) -> Result<Change, Refusal> {
    todo!()
}

/// resetNextCronTime, and one of resetCronTime's.
pub fn reset_next_cron(existing: Option<&Global>, gid: &TransGid, now_ms: u64) -> Result<Change, Refusal> {
    todo!()
}

pub fn register_branch(
    existing: Option<&Global>,
    request: &RegisterBranch,
    now_ms: u64,
) -> Result<Change, Refusal> {
    todo!()
}

/// `Nothing` when there is one already: the door then answers with the stored record and its rows as progresses.
pub fn prepare_workflow(
    existing: Option<&Global>,
    request: TransRequest,
    now_ms: u64,
    limits: &Limits,
) -> Result<Change, Refusal> {
    todo!()
}
