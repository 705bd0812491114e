//! Why a call on a global transaction is refused: dtm's exact words, and the class that each door translates.

use super::gid::TransGid;
use super::status::{GlobalStatus, TransType};
use crate::domain::ids::Invalid;
use std::borrow::Cow;

/// What kind of answer a [`Refusal`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Definite: 409 with `dtm_result` `FAILURE`, gRPC ABORTED (10), JSON-RPC -32901.
    Failure,
    /// Not over yet: 425 with `ONGOING`, gRPC FAILED_PRECONDITION (9), JSON-RPC -32603.
    Ongoing,
    /// 500 with the message alone, gRPC UNKNOWN (2), JSON-RPC -32603. The client tries again.
    Other,
    /// The request itself is wrong, and will be however often it is sent: 400, gRPC INVALID_ARGUMENT, JSON-RPC -32602.
    Invalid,
}

/// A refused call. The texts are dtm's, spelling mistakes included, wherever dtm has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("current status '{0}', cannot prepare. FAILURE")]
    CannotPrepare(GlobalStatus),
    #[error("current status '{0}', cannot sumbmit. FAILURE")]
    CannotSubmit(GlobalStatus),
    #[error("trans type: '{0}' current status '{1}', cannot abort. FAILURE")]
    CannotAbort(TransType, GlobalStatus),
    #[error("global transaction force stop error. status: {0}. error: FAILURE")]
    CannotForceStop(GlobalStatus),
    /// A branch comes for a transaction that is not there or no longer takes any.
    #[error("no trans with gid: {0} status: prepared found FAILURE")]
    NotPrepared(TransGid),
    /// abort, forceStop, resetNextCronTime of a gid that nobody knows.
    #[error("no TransGlobal with gid: {0} found")]
    NotFound(TransGid),
    /// submit of a workflow that was never prepared.
    #[error("storage: NotFound")]
    StorageNotFound,
    /// A branch op that is registered already, with other content.
    #[error("storage: UniqueKeyConflict")]
    UniqueKeyConflict,
    /// registerBranch for a mode that has no branches to register, or for no mode at all.
    #[error("unknow trans type: {0}")]
    UnknownTransType(String),
    /// dtm never compares these and mixes the two transactions up.
    #[error("gid '{gid}' is a '{stored}' already, not a '{asked}'. FAILURE")]
    OtherTransType { gid: TransGid, stored: TransType, asked: TransType },
    /// dtm never compares these and forgets the later ones.
    #[error("gid '{0}' has other steps already. FAILURE")]
    OtherSteps(TransGid),
    #[error("topic not found")]
    TopicNotFound,
    /// A waiting submit whose transaction is (being) undone; also a FAILURE that no second phase accepts.
    #[error("{} FAILURE", without_failure(.0))]
    Reason(String),
    /// A waiting submit whose transaction is still under way. It says nothing about the outcome.
    #[error("wait result not return success: FAILURE")]
    WaitNotSuccess,
    /// A waiting submit whose branch is still at it.
    #[error("{0}")]
    Ongoing(String),
    /// A waiting submit whose branch answered neither yes nor no.
    /// With `failure`: a refusal where none is accepted (a second phase, a msg's action). It is tried again too.
    #[error(
        "your http/grpc result should be specified as in:\nhttp://d.dtm.pub/practice/arch.html#proto\nunkown result will be retried: {}",
        with_failure(text, *failure)
    )]
    UnknownResult { text: String, failure: bool },
    /// Subscribing and unsubscribing.
    #[error("{0}")]
    Topic(&'static str),
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

impl Refusal {
    pub fn class(&self) -> Class {
        match self {
            Refusal::CannotPrepare(_)
            | Refusal::CannotSubmit(_)
            | Refusal::CannotAbort(..)
            | Refusal::CannotForceStop(_)
            | Refusal::NotPrepared(_)
            | Refusal::OtherTransType { .. }
            | Refusal::OtherSteps(_)
            | Refusal::Reason(_)
            | Refusal::UnknownResult { failure: true, .. }
            | Refusal::WaitNotSuccess => Class::Failure,
            Refusal::Ongoing(_) => Class::Ongoing,
            Refusal::NotFound(_)
            | Refusal::StorageNotFound
            | Refusal::UniqueKeyConflict
            | Refusal::UnknownTransType(_)
            | Refusal::TopicNotFound
            | Refusal::UnknownResult { failure: false, .. }
            | Refusal::Topic(_) => Class::Other,
            Refusal::Invalid(_) => Class::Invalid,
        }
    }
}

fn with_failure(text: &str, failure: bool) -> Cow<'_, str> {
    match failure {
        true => Cow::Owned(format!("{} FAILURE", without_failure(text))),
        false => Cow::Borrowed(text),
    }
}

/// A text without one trailing ` FAILURE`: so that it is there once, as dtm has it.
pub(super) fn without_failure(text: &str) -> &str {
    text.strip_suffix(" FAILURE").unwrap_or(text)
}
