//! What each API call does to a transaction (dtm-server-protocol 5.3), as values.
//!
//! `existing` is the record as loaded; the caller writes the [`Change`] only if the record is still that one, and
//! otherwise loads it and asks again. Every move is idempotent on an exact repeat. What a call on a transaction hears
//! that is over stands in [`super::remembered`], because that is asked when its record has left the store as well.
//!
//! Where this differs from dtm: a repeated submit changes nothing at all. dtm makes fresh rows for it, which runs a
//! saga's or msg's branches again beside a running pass (B2) and marks a tcc or xa as succeeded with its second phase
//! undone (B1). A second call with another trans_type or other steps is refused, not mixed in. A repeated submit of a
//! transaction that has succeeded, and a repeated abort of one that has failed, succeed too: the caller whose first
//! answer was lost hears the truth (dtm: 409 or, for a workflow, 500).

use super::check;
use super::drive::{REASON_BYTES_MAX, apply_move};
use super::gid::TransGid;
use super::global::{Branch, Global, Options};
use super::refusal::Refusal;
use super::remembered::{Remembered, workflow_end};
use super::request::{RegisterBranch, Topics, TransRequest};
use super::status::{BranchStatus, GlobalStatus, Op, TransType};
use super::timing::{self, Limits};
use crate::domain::ids::Invalid;

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
    let Some(stored) = existing else {
        return Ok(Change::Create(Box::new(request.into_global(now_ms, limits, topics)?)));
    };
    if let Some(over) = Remembered::of(stored) {
        return over.prepare().map(|()| Change::Nothing);
    }
    if stored.status != GlobalStatus::Prepared {
        return Err(Refusal::CannotPrepare(stored.status));
    }
    check_same(stored, &request)?;
    Ok(Change::Nothing)
}

/// After `Create` or `Replace` the transaction is due at once (a delayed msg later: see [`Global::due_ms`]).
pub fn submit(
    existing: Option<&Global>,
    request: TransRequest,
    now_ms: u64,
    limits: &Limits,
    topics: Topics<'_>,
) -> Result<Change, Refusal> {
    let Some(stored) = existing else {
        if request.trans_type()? == Some(TransType::Workflow) {
            return Err(Refusal::StorageNotFound);
        }
        let mut global = request.into_global(now_ms, limits, topics)?;
        apply_move(&mut global, GlobalStatus::Submitted, None, now_ms);
        return Ok(Change::Create(Box::new(global)));
    };
    if let Some(over) = Remembered::of(stored) {
        return over.submit(&request).map(|()| Change::Nothing);
    }
    check_same(stored, &request)?;
    if stored.trans_type == TransType::Workflow {
        return end_workflow(stored, request, now_ms);
    }
    match stored.status {
        GlobalStatus::Prepared => {
            let options = request.options()?;
            check::custom_data(stored.trans_type, &request.custom_data, stored.steps.len())?;
            let mut global = stored.clone();
            global.options = later_options(&global.options, options);
            global.interval_ms = timing::base_interval_ms(&global.options, limits);
            if !request.custom_data.is_empty() {
                global.custom_data = request.custom_data;
            }
            apply_move(&mut global, GlobalStatus::Submitted, None, now_ms);
            Ok(Change::Replace(Box::new(global)))
        }
        GlobalStatus::Submitted => Ok(Change::Nothing),
        _ => Err(Refusal::CannotSubmit(stored.status)),
    }
}

/// The client has run its workflow to an end.
fn end_workflow(stored: &Global, request: TransRequest, now_ms: u64) -> Result<Change, Refusal> {
    let extra = |key: &str| request.req_extra.get(key).map_or("", String::as_str);
    let to = workflow_end(&request)?;
    if stored.status != GlobalStatus::Prepared {
        return Err(Refusal::CannotSubmit(stored.status));
    }
    check::bytes("req_extra", extra("result").len(), check::CUSTOM_DATA_BYTES_MAX)?;
    let mut global = stored.clone();
    global.result = extra("result").to_owned();
    let reason = Some(extra("rollback_reason")).filter(|reason| !reason.is_empty());
    apply_move(&mut global, to, reason, now_ms);
    Ok(Change::Replace(Box::new(global)))
}

/// `request` needs its gid only; `trans_type` and `rollback_reason` if it has them.
pub fn abort(existing: Option<&Global>, request: &TransRequest, now_ms: u64) -> Result<Change, Refusal> {
    let stored = match existing {
        Some(stored) => stored,
        None => return Err(Refusal::NotFound(request.gid()?)),
    };
    if let Some(over) = Remembered::of(stored) {
        return over.abort(request).map(|()| Change::Nothing);
    }
    let refused = Refusal::CannotAbort(stored.trans_type, stored.status);
    if request.trans_type()?.is_some_and(|asked| asked != stored.trans_type) {
        return Err(refused);
    }
    let to = match stored.trans_type {
        TransType::Tcc | TransType::Xa => GlobalStatus::Aborting,
        TransType::Msg => GlobalStatus::Failed,
        TransType::Saga | TransType::Workflow => return Err(refused),
    };
    match stored.status {
        GlobalStatus::Prepared => {
            let mut global = stored.clone();
            let reason = Some(check::cut(&request.rollback_reason, REASON_BYTES_MAX));
            apply_move(&mut global, to, reason.filter(|reason| !reason.is_empty()), now_ms);
            Ok(Change::Replace(Box::new(global)))
        }
        GlobalStatus::Aborting => Ok(Change::Nothing),
        _ => Err(refused),
    }
}

pub fn force_stop(existing: Option<&Global>, gid: &TransGid, now_ms: u64) -> Result<Change, Refusal> {
    let stored = existing.ok_or_else(|| Refusal::NotFound(gid.clone()))?;
    if let Some(over) = Remembered::of(stored) {
        return over.force_stop().map(|()| Change::Nothing);
    }
    let mut global = stored.clone();
    apply_move(&mut global, GlobalStatus::Failed, None, now_ms);
    Ok(Change::Replace(Box::new(global)))
}

/// resetNextCronTime, and one of resetCronTime's. An undecided transaction still has its time.
pub fn reset_next_cron(existing: Option<&Global>, gid: &TransGid, now_ms: u64) -> Result<Change, Refusal> {
    let stored = existing.ok_or_else(|| Refusal::NotFound(gid.clone()))?;
    if stored.status.is_final() {
        return Ok(Change::Nothing);
    }
    let mut global = stored.clone();
    (global.next_cron_ms, global.update_ms) = (now_ms, now_ms);
    Ok(Change::Replace(Box::new(global)))
}

/// Rows registered already, with the same content, are `Nothing`: a client whose answer was lost asks again.
pub fn register_branch(existing: Option<&Global>, request: &RegisterBranch, now_ms: u64) -> Result<Change, Refusal> {
    let gid = request.gid()?;
    let rows = rows_to_register(request, now_ms)?;
    let stored = match existing {
        Some(stored) if stored.status == GlobalStatus::Prepared => stored,
        _ => return Err(Refusal::NotPrepared(gid)),
    };
    if request.trans_type != stored.trans_type.as_str() {
        let asked = TransType::parse(&request.trans_type).expect("rows_to_register took it for a mode");
        return Err(Refusal::OtherTransType { gid, stored: stored.trans_type, asked });
    }
    // The others have no call with a body: XA's second phase has none, a workflow's rows are results.
    if stored.trans_type == TransType::Tcc {
        check::params("data", stored.protocol, &request.data)?;
    }
    let twin = |row: &Branch| stored.branches.iter().find(|b| b.op == row.op && b.branch_id == row.branch_id);
    let same = |a: &Branch, b: &Branch| a.url == b.url && a.payload == b.payload && a.status == b.status;
    match rows.iter().filter_map(|row| twin(row).map(|twin| same(row, twin))).collect::<Vec<_>>().as_slice() {
        [] if stored.branches.len() + rows.len() > check::BRANCHES_MAX => {
            let rule = format!("would be more than {} rows of one transaction", check::BRANCHES_MAX);
            Err(Invalid::new("branch_id", rule).into())
        }
        [] => {
            let all = stored.branches.iter().chain(&rows).map(|row| row.payload.len()).sum();
            check::bytes("data", all, check::REGISTERED_BYTES_MAX)?;
            Ok(Change::Append(rows))
        }
        twins if twins.len() == rows.len() && twins.iter().all(|same| *same) => Ok(Change::Nothing),
        _ => Err(Refusal::UniqueKeyConflict),
    }
}

/// The rows that a registration stands for (dtm-server-protocol 1.5), every field checked.
fn rows_to_register(request: &RegisterBranch, now_ms: u64) -> Result<Vec<Branch>, Refusal> {
    let unknown = || Refusal::UnknownTransType(request.trans_type.clone());
    let trans_type = TransType::parse(&request.trans_type).ok_or_else(unknown)?;
    let pair = |ops: [(Op, &'static str); 2]| {
        for (_, key) in ops {
            check::url(key, request.field(key))?;
        }
        let row = |(op, key)| Branch::new(&request.branch_id, op, request.field(key), request.data.clone());
        Ok::<_, Refusal>(ops.map(row).to_vec())
    };
    let rows = match trans_type {
        TransType::Tcc => pair([(Op::Cancel, "cancel"), (Op::Confirm, "confirm")])?,
        TransType::Xa => pair([(Op::Rollback, "url"), (Op::Commit, "url")])?,
        TransType::Workflow => {
            let op = Op::parse(request.field("op"));
            let op = op.ok_or_else(|| Invalid::new("op", "must be action, commit, rollback or business"))?;
            let mut row = Branch::new(&request.branch_id, op, "", request.data.clone());
            row.status = match BranchStatus::parse(request.field("status")) {
                Some(status @ (BranchStatus::Succeed | BranchStatus::Failed)) => status,
                _ => return Err(Invalid::new("status", "must be succeed or failed").into()),
            };
            let time = if row.status == BranchStatus::Failed { &mut row.rollback_ms } else { &mut row.finish_ms };
            *time = now_ms;
            vec![row]
        }
        TransType::Msg | TransType::Saga => return Err(unknown()),
    };
    check::branch_id(&request.branch_id)?;
    check::bytes("data", request.data.len(), check::PAYLOAD_BYTES_MAX)?;
    Ok(rows)
}

/// `Nothing` when there is one already: the door then answers with the stored record and its rows as progresses.
pub fn prepare_workflow(
    existing: Option<&Global>,
    request: TransRequest,
    now_ms: u64,
    limits: &Limits,
) -> Result<Change, Refusal> {
    match request.trans_type()? {
        Some(TransType::Workflow) => {}
        _ => return Err(Invalid::new("trans_type", "must be workflow").into()),
    }
    match existing {
        None => Ok(Change::Create(Box::new(request.into_global(now_ms, limits, &|_| None)?))),
        Some(stored) => check_same(stored, &request).map(|()| Change::Nothing),
    }
}

/// Is a second request about the stored transaction? What it leaves out it does not contradict.
fn check_same(stored: &Global, request: &TransRequest) -> Result<(), Refusal> {
    let gid = || stored.gid.clone();
    if let Some(asked) = request.trans_type()?
        && asked != stored.trans_type
    {
        return Err(Refusal::OtherTransType { gid: gid(), stored: stored.trans_type, asked });
    }
    let takes_steps = matches!(stored.trans_type, TransType::Msg | TransType::Saga);
    let payloads = &request.payloads[..request.payloads.len().min(request.steps.len())];
    if takes_steps && !request.steps.is_empty() && (request.steps != stored.steps || payloads != stored.payloads) {
        return Err(Refusal::OtherSteps(gid()));
    }
    Ok(())
}

/// A submit's options govern; what it leaves out stays as prepared.
fn later_options(prepared: &Options, submitted: Options) -> Options {
    let or = |later: u64, earlier: u64| if later == 0 { earlier } else { later };
    Options {
        wait_result: submitted.wait_result,
        timeout_to_fail_s: or(submitted.timeout_to_fail_s, prepared.timeout_to_fail_s),
        request_timeout_s: or(submitted.request_timeout_s, prepared.request_timeout_s),
        retry_interval_s: or(submitted.retry_interval_s, prepared.retry_interval_s),
        retry_limit: or(submitted.retry_limit, prepared.retry_limit),
        branch_headers: match submitted.branch_headers.is_empty() {
            true => prepared.branch_headers.clone(),
            false => submitted.branch_headers,
        },
        concurrent: submitted.concurrent || prepared.concurrent,
        trace: submitted.trace.or_else(|| prepared.trace.clone()),
    }
}
