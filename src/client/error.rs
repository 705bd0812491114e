//! What a call of the coordinator can come to.

use super::orders::Refusal;
use crate::branch_error::BranchError;
use std::fmt;

/// A global transaction that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The coordinator has it, durably, and carries it on.
    Submitted,
    /// It is over, and everything in it happened. Only heard with `wait_result`.
    Succeed,
}

/// A global transaction whose first part the caller ran itself, with what that part returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Done<T> {
    pub outcome: Outcome,
    pub value: T,
}

/// Why a call did not succeed. Each variant says what the caller may conclude.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller's mistake; nothing was sent.
    #[error("{0}")]
    Invalid(String),
    /// No answer. The call may have been carried out; calls of the coordinator may be repeated with the same gid.
    #[error("{url} did not answer ({cause}); it is not known if the call arrived. Repeat it with the same gid")]
    Unreachable { url: String, cause: String },
    /// The coordinator refused this call for good, and nothing was changed by it: the gid belongs to a transaction that
    /// is over, or is another one.
    #[error("the coordinator refused: {0}")]
    Refused(String),
    /// The global transaction is rolled back, or is being rolled back: nothing of it will stay.
    #[error("the global transaction is rolled back: {reason}")]
    Failure { reason: String },
    /// It was to be waited for, and is still under way. It goes on by itself; `query` tells how it ends.
    #[error("the global transaction {gid} is under way ({status}); it goes on by itself")]
    NotFinished { gid: String, status: String },
    /// The coordinator answered, but neither yes nor no. As after [`Error::Unreachable`], the call may be repeated.
    #[error("the coordinator answered {code}: {message}")]
    Unexpected { code: String, message: String },
    /// It is not known if the local part of a message happened: it broke, and so did the check-back. The coordinator
    /// will ask `query_prepared` itself and decide by the answer.
    #[error("not known if the local part of {gid} happened ({cause}); the coordinator will find out by its check-back")]
    Undecided { gid: String, cause: String },
    /// The local part is done, and the coordinator did not hear of it. It will find out (a message, by its check-back)
    /// and go on, or give up after its time-out (TCC and XA).
    #[error("{gid}: the local part is done, the coordinator did not confirm the submit: {cause}")]
    Unconfirmed { gid: String, cause: Box<Error> },
    /// A step of a workflow did not end. Nothing was decided: the coordinator calls back, and the workflow goes on.
    #[error("the workflow {gid} stopped ({cause}); the coordinator will have it continued")]
    Interrupted { gid: String, cause: BranchError },
    /// An order of a flash sale was not taken; no unit is held for it.
    #[error("{}: {detail}", refusal.code())]
    OrderRefused {
        refusal: Refusal,
        detail: String,
        /// When asking again makes sense, if it does.
        retry_after: Option<std::time::Duration>,
    },
    /// There is no such order, or sale.
    #[error("{0}")]
    NotFound(String),
}

impl Error {
    /// Not known if it happened, so repeating the same call is right.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Unreachable { .. } | Error::Unexpected { .. } => true,
            Error::OrderRefused { retry_after, .. } => retry_after.is_some(),
            _ => false,
        }
    }

    pub(crate) fn invalid(what: impl fmt::Display) -> Self {
        Error::Invalid(what.to_string())
    }
}
