//! A global transaction and its branch rows: everything that is known of it, and all that is stored.

use super::drive::{Alert, BranchResult, CallSpec, Called, Verdict};
use super::gid::TransGid;
use super::status::{BranchStatus, GlobalStatus, Op, Protocol, TransType};
use super::timing::{self, Limits};
use super::{msg, workflow};
use crate::domain::trace::TraceContext;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One (branch_id, op) of a global transaction. Unique within it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// `01`, `0102`, `01-02`: whatever the client or [`super::request`] named it.
    pub branch_id: String,
    pub op: Op,
    /// Where it is called. Empty: nothing to call, which counts as success.
    pub url: String,
    /// The body of the call, byte for byte. For a workflow's row: the saved result.
    pub payload: Bytes,
    pub status: BranchStatus,
    /// When it succeeded; milliseconds since 1970, 0 = never.
    pub finish_ms: u64,
    /// When it was refused; milliseconds since 1970, 0 = never.
    pub rollback_ms: u64,
}

impl Branch {
    /// A row that nothing has happened to yet.
    pub fn new(branch_id: impl Into<String>, op: Op, url: impl Into<String>, payload: Bytes) -> Self {
        let (branch_id, url) = (branch_id.into(), url.into());
        Self { branch_id, op, url, payload, status: BranchStatus::Prepared, finish_ms: 0, rollback_ms: 0 }
    }
}

/// What a client may set per transaction. Zero means: not set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// The client waits in its submit for the outcome.
    #[serde(rename = "w", skip_serializing_if = "is_default")]
    pub wait_result: bool,
    /// Seconds after which an undecided transaction is given up. A saga has this limit only if it is set.
    #[serde(rename = "tf", skip_serializing_if = "is_default")]
    pub timeout_to_fail_s: u64,
    /// Seconds that one branch call may take.
    #[serde(rename = "rt", skip_serializing_if = "is_default")]
    pub request_timeout_s: u64,
    /// Seconds between tries, before any doubling.
    #[serde(rename = "ri", skip_serializing_if = "is_default")]
    pub retry_interval_s: u64,
    /// Saga: how many unclear results are tried again, at once, before it is rolled back.
    #[serde(rename = "rl", skip_serializing_if = "is_default")]
    pub retry_limit: u64,
    /// Headers or metadata of every branch call.
    #[serde(rename = "h", skip_serializing_if = "is_default")]
    pub branch_headers: BTreeMap<String, String>,
    /// msg: all branches at once. (A saga reads `concurrent` in its custom data.)
    #[serde(rename = "c", skip_serializing_if = "is_default")]
    pub concurrent: bool,
    /// The trace that it was begun or submitted in: branches and check-backs are told of it.
    #[serde(rename = "t", skip_serializing_if = "is_default")]
    pub trace: Option<TraceContext>,
}

/// One step as the client sent it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepUrls {
    pub action: String,
    /// Saga only.
    pub compensate: String,
}

/// A global transaction with its branch rows. Serialises to the compact stored form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Global {
    pub gid: TransGid,
    pub trans_type: TransType,
    pub status: GlobalStatus,
    pub protocol: Protocol,
    /// msg: the check-back; workflow: the callback. Empty: none.
    pub query_prepared: String,
    /// msg, saga: the steps as sent, topics unresolved.
    pub steps: Vec<StepUrls>,
    /// msg, saga: the body of step i, byte for byte.
    pub payloads: Vec<Bytes>,
    /// JSON text: delay of a msg, order of a concurrent saga, name and input of a workflow. Empty: none.
    pub custom_data: String,
    /// workflow: the client's result, base64 text.
    pub result: String,
    /// Why it was or is to be undone; also set on a saga that is about to turn back.
    pub rollback_reason: String,
    pub options: Options,
    /// Milliseconds since 1970; this and the other times, 0 = never.
    pub create_ms: u64,
    pub update_ms: u64,
    pub finish_ms: u64,
    pub rollback_ms: u64,
    /// Nothing is tried again before this moment. `0`: at once. The due index holds this while nobody drives it; see
    /// [`Global::due_ms`] for the moment to put there.
    pub next_cron_ms: u64,
    /// How long to wait after the next unclear result.
    pub interval_ms: u64,
    /// Saga with a retry limit: unclear results tried again so far.
    pub retry_count: u64,
    /// Passes in a row that ended in an unclear result: what alerts go by.
    pub failed_passes: u32,
    /// The stored form may be behind what was done: whoever wrote it went on without writing each result. A driver
    /// that runs a freshly created saga from memory stores it with `ahead: true` and keeps `false` in memory; one that
    /// loads it after a crash then undoes every step that might have run, not only those the rows speak of.
    pub ahead: bool,
    /// In the order of dtm: per saga step compensate, then action; as registered for the others.
    pub branches: Vec<Branch>,
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Global {
    /// When it is due: the score for the due index. `None`: it is over.
    ///
    /// Undecided ones are due when their time is up, not every ten seconds to see whether it is, as in dtm.
    pub fn due_ms(&self, limits: &Limits) -> Option<u64> {
        let due_ms = match (self.status, self.trans_type) {
            (GlobalStatus::Succeed | GlobalStatus::Failed, _) => return None,
            (GlobalStatus::Prepared, TransType::Workflow) => self.next_cron_ms,
            (GlobalStatus::Prepared, _) => self.next_cron_ms.max(timing::prepared_until_ms(self, limits)),
            (GlobalStatus::Submitted, TransType::Msg) => {
                self.next_cron_ms.max(self.create_ms.saturating_add(msg::delay_ms(self)))
            }
            (GlobalStatus::Submitted, TransType::Saga) if self.options.timeout_to_fail_s > 0 => {
                self.next_cron_ms.min(timing::prepared_until_ms(self, limits))
            }
            (GlobalStatus::Submitted | GlobalStatus::Aborting, _) => self.next_cron_ms,
        };
        Some(due_ms)
    }

    /// Has it failed so often in a row that somebody should look?
    pub fn needs_attention(&self, limits: &Limits) -> bool {
        !self.status.is_final() && self.failed_passes >= limits.alert_after.max(1)
    }

    /// Is it tried again only when somebody asks for it?
    pub fn is_paused(&self) -> bool {
        self.next_cron_ms >= timing::PAUSED_MS
    }

    /// The call that `called` stands for.
    pub(super) fn call(&self, called: Called) -> CallSpec {
        let (branch_id, op, url, payload) = match called {
            Called::QueryPrepared => ("00", Op::Msg.as_str().to_owned(), &self.query_prepared, Bytes::new()),
            Called::Workflow => {
                let input = workflow::Input::of(self);
                ("00", input.name, &self.query_prepared, input.data)
            }
            Called::Branch(i) => {
                let row = &self.branches[i];
                // The database branch knows by its xid what to commit: dtm sends no body.
                let payload = if self.trans_type == TransType::Xa { Bytes::new() } else { row.payload.clone() };
                (row.branch_id.as_str(), row.op.as_str().to_owned(), &row.url, payload)
            }
        };
        CallSpec { called, branch_id: branch_id.to_owned(), op, url: url.clone(), payload }
    }

    /// A row's result where only success is accepted: everything but a saga's action.
    pub(super) fn take_row_result(&mut self, i: usize, result: &BranchResult, now_ms: u64) -> Verdict {
        match result {
            BranchResult::Success => {
                self.settle_row(i, BranchStatus::Succeed, now_ms);
                Verdict::Clear
            }
            BranchResult::Ongoing => Verdict::Rest,
            BranchResult::Failure(_) | BranchResult::Unknown(_) | BranchResult::NotCalled(_) => Verdict::BackOff,
        }
    }

    /// Notes what became of a row, once.
    pub(super) fn settle_row(&mut self, i: usize, status: BranchStatus, now_ms: u64) {
        let row = &mut self.branches[i];
        if row.status != BranchStatus::Prepared {
            return;
        }
        row.status = status;
        match status {
            BranchStatus::Failed => row.rollback_ms = now_ms,
            BranchStatus::Prepared | BranchStatus::Succeed => row.finish_ms = now_ms,
        }
    }

    /// The first row, in `order`, of this op that has not succeeded: for the modes that go one by one.
    pub(super) fn open_row(&self, mut order: impl Iterator<Item = usize>, op: Op) -> Option<Called> {
        let open = |i: &usize| self.branches[*i].op == op && self.branches[*i].status != BranchStatus::Succeed;
        order.find(open).map(Called::Branch)
    }

    pub(super) fn alert(&self, called: Called, error: String) -> Alert {
        let branch = self.call(called).url;
        let gid = self.gid.to_string();
        Alert { gid, status: self.status, branch, error, retry_count: self.failed_passes }
    }

    /// `Timeout after <n> seconds`, with the timeout that applied (dtm prints 0 for its default).
    pub(super) fn timeout_reason(&self, limits: &Limits) -> String {
        format!("Timeout after {} seconds", timing::timeout_ms(&self.options, limits) / 1000)
    }
}
