//! Workflow: prepared → succeed or failed, by the client's own submit.
//!
//! The client runs the function and registers each step's result; the server keeps them and, when nothing was heard for
//! an interval, calls the client back to run it again from there. The callback's answer changes nothing but the time of
//! the next: dtm calls every ten seconds for ever, here unclear answers make the pauses longer, up to the ceiling.

use super::drive::{BranchResult, Verdict};
use super::global::Global;
use super::json::Fields;
use crate::domain::ids::Invalid;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

/// What a workflow runs: `{"name":"…","data":"<base64>"}` in its custom data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Input {
    pub name: String,
    pub data: Bytes,
}

impl Input {
    /// Reads custom data; empty is no name and no input.
    pub fn parse(custom_data: &str) -> Result<Self, Invalid> {
        if custom_data.is_empty() || custom_data == "null" {
            return Ok(Self::default());
        }
        let mut fields = Fields::read("custom_data", custom_data.as_bytes())?;
        let name = fields.text("name")?;
        let data = STANDARD.decode(fields.text("data")?);
        let data = data.map_err(|e| Invalid::new("custom_data", format!("has data that is not base64: {e}")))?;
        Ok(Self { name, data: data.into() })
    }

    /// The input of a stored workflow. Custom data was checked when it came in.
    pub(super) fn of(workflow: &Global) -> Self {
        Self::parse(&workflow.custom_data).unwrap_or_default()
    }
}

/// The callback's answer, while the workflow is still undecided.
pub(super) fn take_answer(answer: &BranchResult) -> Verdict {
    match answer {
        BranchResult::Ongoing => Verdict::Rest,
        // The client would have submitted before it answered yes or no. That it has not is as unclear as silence.
        BranchResult::Success | BranchResult::Failure(_) | BranchResult::Unknown(_) | BranchResult::NotCalled(_) => {
            Verdict::BackOff
        }
    }
}
