//! A finished global transaction as the records keep it, in every kind of database: plain columns for what reports ask
//! about, and three lists for the rest. Nothing is lost: [`Transaction::into_global`] gives back what went in.
//!
//! Field names are those of dtm's own answers. A payload stands where it was sent: a step's in `steps`, a registered
//! branch's or a workflow's result in `branches`; a branch that a step led to says which (`step`, from 1) and does not
//! repeat it. Bytes that are no text, or hold a NUL, which not every database takes, are in base64.

use super::sink::Error;
use crate::domain::trans::{
    Branch, BranchStatus, Global, GlobalStatus, Op, Options, Protocol, StepUrls, TransGid, TransType,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Transaction {
    pub gid: String,
    pub trans_type: String,
    pub status: String,
    pub protocol: String,
    pub query_prepared: String,
    pub custom_data: String,
    pub result: String,
    pub rollback_reason: String,
    pub options: OptionsSet,
    pub steps: Vec<Step>,
    pub branches: Vec<BranchRow>,
    pub driver: DriverState,
    /// Milliseconds since 1970.
    pub create_ms: u64,
    pub update_ms: u64,
    pub finish_ms: Option<u64>,
    pub rollback_ms: Option<u64>,
}

/// Those that were set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct OptionsSet {
    #[serde(skip_serializing_if = "is_default")]
    wait_result: bool,
    #[serde(skip_serializing_if = "is_default")]
    timeout_to_fail: u64,
    #[serde(skip_serializing_if = "is_default")]
    request_timeout: u64,
    #[serde(skip_serializing_if = "is_default")]
    retry_interval: u64,
    #[serde(skip_serializing_if = "is_default")]
    retry_limit: u64,
    #[serde(skip_serializing_if = "is_default")]
    branch_headers: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_default")]
    concurrent: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Step {
    action: String,
    #[serde(default, skip_serializing_if = "is_default")]
    compensate: String,
    #[serde(default, skip_serializing_if = "is_default")]
    payload: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    payload_base64: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct BranchRow {
    branch_id: String,
    op: Op,
    status: BranchStatus,
    #[serde(default, skip_serializing_if = "is_default")]
    url: String,
    #[serde(default, skip_serializing_if = "is_default")]
    finish_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "is_default")]
    rollback_ms: Option<u64>,
    /// Its payload is that of this step, from 1.
    #[serde(default, skip_serializing_if = "is_default")]
    step: Option<u32>,
    #[serde(default, skip_serializing_if = "is_default")]
    payload: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    payload_base64: Option<String>,
}

/// What the driver had noted when it ended, and `query` shows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct DriverState {
    next_cron_ms: u64,
    interval_ms: u64,
    #[serde(skip_serializing_if = "is_default")]
    retry_count: u64,
    #[serde(skip_serializing_if = "is_default")]
    failed_passes: u32,
    /// Columns whose text holds a NUL, byte for byte in base64; in the column a replacement stands for it.
    #[serde(skip_serializing_if = "is_default")]
    exact: BTreeMap<String, String>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn when(ms: u64) -> Option<u64> {
    (ms > 0).then_some(ms)
}

/// As text, if it is one that every database takes; else in base64. Empty is neither.
fn payload_of(payload: &Bytes) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(payload) {
        Ok("") => (None, None),
        Ok(text) if !text.contains('\0') => (Some(text.to_owned()), None),
        _ => (None, Some(BASE64.encode(payload))),
    }
}

fn payload_from(text: Option<String>, base64: Option<String>) -> Result<Bytes, String> {
    match (text, base64) {
        (Some(text), _) => Ok(text.into()),
        (None, Some(code)) => BASE64.decode(code).map(Bytes::from).map_err(|error| format!("a payload: {error}")),
        (None, None) => Ok(Bytes::new()),
    }
}

impl From<&Global> for Transaction {
    fn from(global: &Global) -> Self {
        let mut exact = BTreeMap::new();
        let mut text = |column: &str, text: &str| {
            if !text.contains('\0') {
                return text.to_owned();
            }
            exact.insert(column.to_owned(), BASE64.encode(text));
            text.replace('\0', "\u{fffd}")
        };
        let options = &global.options;
        let steps = global.steps.iter().zip(&global.payloads).map(|(step, payload)| {
            let (payload, payload_base64) = payload_of(payload);
            Step { action: step.action.clone(), compensate: step.compensate.clone(), payload, payload_base64 }
        });
        Self {
            gid: global.gid.to_string(),
            trans_type: global.trans_type.as_str().to_owned(),
            status: global.status.as_str().to_owned(),
            protocol: global.protocol.as_str().to_owned(),
            query_prepared: text("query_prepared", &global.query_prepared),
            custom_data: text("custom_data", &global.custom_data),
            result: text("result", &global.result),
            rollback_reason: text("rollback_reason", &global.rollback_reason),
            options: OptionsSet {
                wait_result: options.wait_result,
                timeout_to_fail: options.timeout_to_fail_s,
                request_timeout: options.request_timeout_s,
                retry_interval: options.retry_interval_s,
                retry_limit: options.retry_limit,
                branch_headers: options.branch_headers.clone(),
                concurrent: options.concurrent,
            },
            steps: steps.collect(),
            branches: global.branches.iter().map(|branch| branch_row(global, branch)).collect(),
            driver: DriverState {
                next_cron_ms: global.next_cron_ms,
                interval_ms: global.interval_ms,
                retry_count: global.retry_count,
                failed_passes: global.failed_passes,
                exact,
            },
            create_ms: global.create_ms,
            update_ms: global.update_ms.max(global.create_ms),
            finish_ms: when(global.finish_ms),
            rollback_ms: when(global.rollback_ms),
        }
    }
}

fn branch_row(global: &Global, branch: &Branch) -> BranchRow {
    let step = step_of(global, branch);
    let (payload, payload_base64) = if step.is_some() { (None, None) } else { payload_of(&branch.payload) };
    BranchRow {
        branch_id: branch.branch_id.clone(),
        op: branch.op,
        status: branch.status,
        url: branch.url.clone(),
        finish_ms: when(branch.finish_ms),
        rollback_ms: when(branch.rollback_ms),
        step,
        payload,
        payload_base64,
    }
}

/// The step whose payload this branch has, from 1: `02` and `02-01` are of step 2.
fn step_of(global: &Global, branch: &Branch) -> Option<u32> {
    let number: u32 = branch.branch_id.split('-').next()?.parse().ok()?;
    let payload = global.payloads.get(usize::try_from(number).ok()?.checked_sub(1)?)?;
    (*payload == branch.payload).then_some(number)
}

impl Transaction {
    pub fn into_global(self) -> Result<Global, Error> {
        let gid = self.gid.clone();
        self.read().map_err(|problem| Error::Malformed { gid, problem })
    }

    fn read(self) -> Result<Global, String> {
        let exact = self.driver.exact;
        let text = |column: &str, text: String| match exact.get(column) {
            None => Ok(text),
            Some(code) => {
                let bytes = BASE64.decode(code).map_err(|error| format!("{column}: {error}"))?;
                String::from_utf8(bytes).map_err(|error| format!("{column}: {error}"))
            }
        };
        let word = |column: &str, word: &str| format!("{column} is {word}");
        let (mut steps, mut payloads) = (Vec::new(), Vec::new());
        for step in self.steps {
            steps.push(StepUrls { action: step.action, compensate: step.compensate });
            payloads.push(payload_from(step.payload, step.payload_base64)?);
        }
        let mut branches = Vec::with_capacity(self.branches.len());
        for row in self.branches {
            let payload = match row.step {
                Some(number) => {
                    let place = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
                    let payload = place.and_then(|place| payloads.get(place)).cloned();
                    payload.ok_or_else(|| format!("branch {} is of step {number}", row.branch_id))?
                }
                None => payload_from(row.payload, row.payload_base64)?,
            };
            let mut branch = Branch::new(row.branch_id, row.op, row.url, payload);
            branch.status = row.status;
            branch.finish_ms = row.finish_ms.unwrap_or_default();
            branch.rollback_ms = row.rollback_ms.unwrap_or_default();
            branches.push(branch);
        }
        Ok(Global {
            gid: TransGid::parse(self.gid).map_err(|error| error.to_string())?,
            trans_type: TransType::parse(&self.trans_type).ok_or_else(|| word("trans_type", &self.trans_type))?,
            status: GlobalStatus::parse(&self.status).ok_or_else(|| word("status", &self.status))?,
            protocol: Protocol::parse(&self.protocol).ok_or_else(|| word("protocol", &self.protocol))?,
            query_prepared: text("query_prepared", self.query_prepared)?,
            steps,
            payloads,
            custom_data: text("custom_data", self.custom_data)?,
            result: text("result", self.result)?,
            rollback_reason: text("rollback_reason", self.rollback_reason)?,
            options: Options {
                wait_result: self.options.wait_result,
                timeout_to_fail_s: self.options.timeout_to_fail,
                request_timeout_s: self.options.request_timeout,
                retry_interval_s: self.options.retry_interval,
                retry_limit: self.options.retry_limit,
                branch_headers: self.options.branch_headers,
                concurrent: self.options.concurrent,
                trace: None, // nothing more is called: the trace is over
            },
            create_ms: self.create_ms,
            update_ms: self.update_ms,
            finish_ms: self.finish_ms.unwrap_or_default(),
            rollback_ms: self.rollback_ms.unwrap_or_default(),
            next_cron_ms: self.driver.next_cron_ms,
            interval_ms: self.driver.interval_ms,
            retry_count: self.driver.retry_count,
            failed_passes: self.driver.failed_passes,
            ahead: false,
            branches,
        })
    }
}

/// Bytes that it takes, roughly: what writes are cut by.
pub(super) fn bytes_of(transaction: &Transaction) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let steps = transaction
        .steps
        .iter()
        .map(|step| 64 + step.action.len() + step.compensate.len() + text(&step.payload) + text(&step.payload_base64));
    let rows = transaction
        .branches
        .iter()
        .map(|row| 128 + row.branch_id.len() + row.url.len() + text(&row.payload) + text(&row.payload_base64));
    let headers = transaction.options.branch_headers.iter().map(|(name, value)| 8 + name.len() + value.len());
    let texts =
        [&transaction.query_prepared, &transaction.custom_data, &transaction.result, &transaction.rollback_reason];
    512 + steps.sum::<usize>()
        + rows.sum::<usize>()
        + headers.sum::<usize>()
        + texts.iter().map(|text| text.len()).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::trans::{Limits, TransRequest};

    #[test]
    fn what_is_kept_gives_back_what_went_in() {
        let body = serde_json::json!({ "gid": "g", "trans_type": "saga", "rollback_reason": "", "retry_interval": 7,
            "branch_headers": { "x": "y" }, "steps": [
                { "action": "http://h/a", "compensate": "http://h/b" }, { "action": "http://h/c", "compensate": "" } ],
            "payloads": ["{\"a\":1}", "a\u{0}b"] });
        let request = TransRequest::from_json(body.to_string().as_bytes()).unwrap();
        let mut global = request.into_global(1_795_000_000_000, &Limits::default(), &|_| None).unwrap();
        global.status = GlobalStatus::Failed;
        global.rollback_ms = global.create_ms + 5;
        global.rollback_reason = "no\u{0}way".into();
        global.branches[1].status = BranchStatus::Failed;
        global.branches[1].rollback_ms = global.create_ms + 4;
        global.branches.push(Branch::new("0101", Op::Confirm, "", Bytes::from_static(&[0xff, 0])));
        global.branches.push(Branch::new("03", Op::Action, "http://h/x", Bytes::new()));
        let kept = Transaction::from(&global);
        assert!(kept.branches.iter().take(4).all(|row| row.payload.is_none() && row.step.is_some()), "{kept:?}");
        let json = serde_json::to_string(&kept).unwrap();
        assert!(!json.contains("\\u0000"), "{json}");
        let again: Transaction = serde_json::from_str(&json).unwrap();
        assert_eq!(again, kept);
        assert_eq!(again.into_global().unwrap(), global);
    }

    #[test]
    fn a_foreign_row_is_named_and_not_believed() {
        let body = serde_json::json!({ "gid": "g", "trans_type": "saga", "payloads": ["{}"],
            "steps": [{ "action": "http://h/a", "compensate": "" }] });
        let request = TransRequest::from_json(body.to_string().as_bytes()).unwrap();
        let global = request.into_global(1, &Limits::default(), &|_| None).unwrap();
        let kept = Transaction::from(&global);
        let bad = [
            Transaction { status: "done".into(), ..kept.clone() },
            Transaction { steps: Vec::new(), ..kept.clone() },
            Transaction { gid: "g g".into(), ..kept },
        ];
        for bad in bad {
            assert!(matches!(bad.clone().into_global(), Err(Error::Malformed { .. })), "{bad:?}");
        }
    }
}
