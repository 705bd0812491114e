//! dtm's request bodies: read as leniently as Go's `encoding/json` does, then checked for good.
//!
//! Keys match in any case, unknown keys are ignored, `null` is the zero value. What dtm answers with a Go message and
//! 500, or a panic, is [`Refusal::Invalid`] here, with the field's name.

use super::gid::TransGid;
use super::global::{Global, Options, StepUrls};
use super::refusal::Refusal;
use super::timing::Limits;
use crate::domain::ids::Invalid;
use bytes::Bytes;
use std::collections::BTreeMap;

/// The subscribers of a topic; `None` or empty: no such topic.
pub type Topics<'a> = &'a dyn Fn(&str) -> Option<Vec<String>>;

/// Most steps of one msg or saga.
pub const STEPS_MAX: usize = 256;

/// The body of prepare, submit, abort, forceStop, resetNextCronTime, prepareWorkflow. The doors that have no JSON
/// (gRPC) fill it themselves; nothing in it is checked yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TransRequest {
    pub gid: String,
    pub trans_type: String,
    pub steps: Vec<StepUrls>,
    /// `payloads`, followed by every non-empty `steps[].data` (as very old clients send them).
    pub payloads: Vec<Bytes>,
    pub query_prepared: String,
    /// Empty: http.
    pub protocol: String,
    pub custom_data: String,
    pub rollback_reason: String,
    /// workflow submit: `status`, `rollback_reason`, `result`.
    pub req_extra: BTreeMap<String, String>,
    pub wait_result: bool,
    pub timeout_to_fail: i64,
    pub request_timeout: i64,
    pub retry_interval: i64,
    pub retry_limit: i64,
    pub branch_headers: BTreeMap<String, String>,
    pub concurrent: bool,
}

impl TransRequest {
    /// Reads a JSON body.
    pub fn from_json(body: &[u8]) -> Result<Self, Invalid> {
        todo!()
    }

    /// gRPC's `Steps`: the JSON text of the list; empty and `null` are none. Returns the steps and their `data`.
    pub fn steps_from_json(text: &str) -> Result<(Vec<StepUrls>, Vec<Bytes>), Invalid> {
        todo!()
    }

    /// The gid, parsed: the first thing a door needs, to load the record.
    pub fn gid(&self) -> Result<TransGid, Invalid> {
        TransGid::parse(self.gid.as_str())
    }

    /// The options, checked.
    pub fn options(&self) -> Result<Options, Invalid> {
        todo!()
    }

    /// The record that this request begins, `prepared`, with its rows, every field checked.
    pub fn into_global(self, now_ms: u64, limits: &Limits, topics: Topics<'_>) -> Result<Global, Refusal> {
        todo!()
    }
}

/// The body of registerBranch (and its old names), from JSON or gRPC.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegisterBranch {
    pub gid: String,
    pub trans_type: String,
    pub branch_id: String,
    /// The payload: JSON `data`, gRPC `BusiPayload`.
    pub data: Bytes,
    /// All other entries of the flat map: `confirm`, `cancel`, `url`, `op`, `status` … Unknown ones are ignored.
    pub fields: BTreeMap<String, String>,
}

impl RegisterBranch {
    /// Reads a flat JSON object whose values are strings or null.
    pub fn from_json(body: &[u8]) -> Result<Self, Invalid> {
        todo!()
    }

    pub fn gid(&self) -> Result<TransGid, Invalid> {
        TransGid::parse(self.gid.as_str())
    }
}
