//! A transaction that dtm's own server began, as its Redis store keeps it, made into one of ours.
//!
//! dtm 1.19 keeps a JSON object for the transaction and one for each branch row. The steps are in the object only until it is
//! written again, and bodies that came by gRPC never; the rows have both. What
//! was done stays done: each row comes with its status. What dtm would take and then fail over for ever is refused here,
//! as it is where requests come in.

use super::check;
use super::global::{Branch, Global, StepUrls};
use super::request::TransRequest;
use super::status::{BranchStatus, GlobalStatus, Op, TransType};
use super::timing::Limits;
use crate::domain::ids::Invalid;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// The transaction. What is not named here is not needed: times of tries, the owner, the text form of the options.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Record {
    create_time: Option<Timestamp>,
    gid: String,
    trans_type: String,
    steps: Option<Vec<BTreeMap<String, String>>>,
    status: String,
    query_prepared: String,
    protocol: String,
    finish_time: Option<Timestamp>,
    rollback_time: Option<Timestamp>,
    result: String,
    rollback_reason: String,
    custom_data: String,
    wait_result: bool,
    timeout_to_fail: i64,
    request_timeout: i64,
    retry_interval: i64,
    branch_headers: Option<BTreeMap<String, String>>,
    concurrent: bool,
    retry_limit: i64,
    retry_count: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Row {
    url: String,
    /// Base64.
    bin_data: String,
    branch_id: String,
    op: String,
    status: String,
    finish_time: Option<Timestamp>,
    rollback_time: Option<Timestamp>,
}

/// Reads what dtm stored; due at once. An error says which field keeps it from being taken over.
pub fn read(record: &str, rows: &[&str], now_ms: u64, limits: &Limits) -> Result<Global, Invalid> {
    let record: Record =
        serde_json::from_str(record).map_err(|error| Invalid::new("record", format!("is none of dtm's: {error}")))?;
    let status = GlobalStatus::parse(&record.status)
        .ok_or_else(|| Invalid::new("status", format!("is none that is known: {:?}", record.status)))?;
    if status.is_final() {
        return Err(Invalid::new("status", format!("is {status}: it is over, and nothing is left to be done")));
    }
    if rows.len() > check::BRANCHES_MAX {
        return Err(Invalid::new("branches", format!("are {}; {} is the most", rows.len(), check::BRANCHES_MAX)));
    }
    let branches = rows.iter().map(|row| branch(row, now_ms)).collect::<Result<Vec<_>, _>>()?;
    let mut names = BTreeSet::new();
    for branch in &branches {
        if !names.insert((branch.branch_id.as_str(), branch.op)) {
            return Err(Invalid::new("branches", format!("name {} of {} twice", branch.op, branch.branch_id)));
        }
    }
    check::bytes("branches", branches.iter().map(|branch| branch.payload.len()).sum(), check::REGISTERED_BYTES_MAX)?;
    let trans_type = TransType::parse(&record.trans_type);
    let mut steps: Vec<StepUrls> = record.steps.unwrap_or_default().into_iter().map(step).collect();
    if steps.is_empty() {
        steps = steps_of(trans_type, &branches);
    }
    let payloads = match trans_type {
        Some(TransType::Msg | TransType::Saga) => {
            (0..steps.len()).map(|k| payload_of(k, &branches)).collect::<Result<_, _>>()?
        }
        _ => Vec::new(),
    };
    let create_ms = ms(record.create_time).unwrap_or(now_ms);
    let request = TransRequest {
        gid: record.gid,
        trans_type: record.trans_type,
        steps,
        payloads,
        query_prepared: record.query_prepared,
        protocol: record.protocol,
        custom_data: record.custom_data,
        rollback_reason: String::new(),
        req_extra: BTreeMap::new(),
        wait_result: record.wait_result,
        timeout_to_fail: record.timeout_to_fail,
        request_timeout: record.request_timeout,
        retry_interval: record.retry_interval,
        retry_limit: record.retry_limit,
        branch_headers: record.branch_headers.unwrap_or_default(),
        concurrent: record.concurrent,
        trace: None,
    };
    // Who was subscribed to a topic when the message was sent is in the rows.
    let anybody = |_: &str| Some(vec![String::new()]);
    let begun = request.into_global(create_ms, limits, &anybody).map_err(|refusal| match refusal {
        super::Refusal::Invalid(invalid) => invalid,
        other => Invalid::new("record", other.to_string()),
    })?;
    fits(&begun, &branches)?;
    Ok(Global {
        status,
        result: record.result,
        rollback_reason: record.rollback_reason,
        update_ms: now_ms,
        finish_ms: ms(record.finish_time).unwrap_or(0),
        rollback_ms: ms(record.rollback_time).unwrap_or(0),
        next_cron_ms: now_ms,
        retry_count: record.retry_count.try_into().unwrap_or(0),
        branches,
        ..begun
    })
}

fn ms(at: Option<Timestamp>) -> Option<u64> {
    at.and_then(|at| u64::try_from(at.as_millisecond()).ok())
}

fn step(mut step: BTreeMap<String, String>) -> StepUrls {
    let mut take = |name: &str| step.remove(name).unwrap_or_default();
    StepUrls { action: take("action"), compensate: take("compensate") }
}

fn branch(row: &str, now_ms: u64) -> Result<Branch, Invalid> {
    let bad = |what: String| Invalid::new("branches", what);
    let row: Row = serde_json::from_str(row).map_err(|error| bad(format!("have a row that is none: {error}")))?;
    let of = |what: &str| format!("have a row of {:?} {what}", row.branch_id);
    check::bytes("branch_id", row.branch_id.len(), check::BRANCH_ID_BYTES_MAX)?;
    check::url("url", &row.url)?;
    let op = Op::parse(&row.op).ok_or_else(|| bad(of(&format!("with an unknown op: {:?}", row.op))))?;
    let status = BranchStatus::parse(&row.status)
        .ok_or_else(|| bad(of(&format!("with an unknown status: {:?}", row.status))))?;
    let payload =
        BASE64.decode(&row.bin_data).map_err(|error| bad(of(&format!("whose data is no base64: {error}"))))?;
    check::bytes("bin_data", payload.len(), check::PAYLOAD_BYTES_MAX)?;
    let mut branch = Branch::new(row.branch_id, op, row.url, payload.into());
    branch.status = status;
    let settled_ms = ms(row.finish_time).or(ms(row.rollback_time)).unwrap_or(now_ms);
    match status {
        BranchStatus::Prepared => {}
        BranchStatus::Succeed => branch.finish_ms = settled_ms,
        BranchStatus::Failed => branch.rollback_ms = settled_ms,
    }
    Ok(branch)
}

/// The steps that rows come from. Of a topic the first subscriber stands for all: who the others are is in the rows.
fn steps_of(trans_type: Option<TransType>, branches: &[Branch]) -> Vec<StepUrls> {
    let url = |branch: &Branch| branch.url.clone();
    match trans_type {
        Some(TransType::Saga) => branches
            .chunks(2)
            .map(|step| StepUrls { compensate: url(&step[0]), action: step.get(1).map(url).unwrap_or_default() })
            .collect(),
        Some(TransType::Msg) => {
            let first = |row: &&Branch| row.branch_id.split_once('-').is_none_or(|(_, subscriber)| subscriber == "01");
            let step = |branch: &Branch| StepUrls { action: url(branch), compensate: String::new() };
            branches.iter().filter(first).map(step).collect()
        }
        _ => Vec::new(),
    }
}

/// The body of step k: that of its row, or of its first one.
fn payload_of(k: usize, branches: &[Branch]) -> Result<Bytes, Invalid> {
    let id = format!("{:02}", k + 1);
    let of_step = |branch: &&Branch| {
        let rest = branch.branch_id.strip_prefix(&id);
        branch.op == Op::Action && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    let row = branches.iter().find(of_step);
    row.map(|row| row.payload.clone()).ok_or_else(|| Invalid::new("branches", format!("have no row for step {id}")))
}

/// Rules go by the places of rows: they must be those that the steps lead to.
fn fits(begun: &Global, branches: &[Branch]) -> Result<(), Invalid> {
    let same = |ours: &Branch, theirs: &Branch| {
        (&ours.branch_id, ours.op, &ours.url, &ours.payload)
            == (&theirs.branch_id, theirs.op, &theirs.url, &theirs.payload)
    };
    let fit = match begun.trans_type {
        TransType::Msg => branches.iter().all(|branch| branch.op == Op::Action),
        TransType::Saga => {
            begun.branches.len() == branches.len()
                && begun.branches.iter().zip(branches).all(|(ours, theirs)| same(ours, theirs))
        }
        TransType::Tcc | TransType::Xa | TransType::Workflow => true,
    };
    match fit {
        true => Ok(()),
        false => Err(Invalid::new("branches", "are not those that the steps lead to")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::trans::Protocol;

    const SAGA: &str = r#"{"id":0,"create_time":"2026-11-22T10:00:00.5+08:00","update_time":null,"gid":"g1",
        "trans_type":"saga","steps":[{"action":"http://a/1","compensate":"http://a/1u"},{"action":"http://a/2","compensate":""}],
        "payloads":["{}","{\"n\":2}"],"status":"submitted","protocol":"http","options":"{\"concurrent\":false}",
        "next_cron_interval":40,"next_cron_time":"2026-11-22T10:00:10+08:00","owner":"x","concurrent":false,
        "timeout_to_fail":60,"branch_headers":{"a":"b"},"retry_count":2}"#;
    const ROWS: [&str; 4] = [
        r#"{"id":0,"gid":"g1","url":"http://a/1u","bin_data":"e30=","branch_id":"01","op":"compensate","status":"prepared"}"#,
        r#"{"gid":"g1","url":"http://a/1","bin_data":"e30=","branch_id":"01","op":"action","status":"succeed",
            "finish_time":"2026-11-22T02:00:01Z"}"#,
        r#"{"gid":"g1","bin_data":"eyJuIjoyfQ==","branch_id":"02","op":"compensate","status":"prepared"}"#,
        r#"{"gid":"g1","url":"http://a/2","bin_data":"eyJuIjoyfQ==","branch_id":"02","op":"action","status":"prepared"}"#,
    ];
    const NOW_MS: u64 = 1_800_000_000_000;

    fn limits() -> Limits {
        Limits::default()
    }

    fn field(record: &str, rows: &[&str]) -> &'static str {
        read(record, rows, NOW_MS, &limits()).unwrap_err().field
    }

    #[test]
    fn what_was_done_stays_done() {
        let saga = read(SAGA, &ROWS, NOW_MS, &limits()).unwrap();
        assert_eq!((saga.gid.as_str(), saga.trans_type, saga.status), ("g1", TransType::Saga, GlobalStatus::Submitted));
        assert_eq!((saga.protocol, saga.create_ms, saga.next_cron_ms), (Protocol::Http, 1_795_312_800_500, NOW_MS));
        let statuses: Vec<&str> = saga.branches.iter().map(|branch| branch.status.as_str()).collect();
        assert_eq!(statuses, ["prepared", "succeed", "prepared", "prepared"]);
        assert_eq!(saga.branches[1].finish_ms, 1_795_312_801_000);
        assert_eq!(saga.payloads, [Bytes::from("{}"), Bytes::from("{\"n\":2}")]);
        assert_eq!((saga.options.timeout_to_fail_s, saga.retry_count), (60, 2));
        assert_eq!(saga.options.branch_headers["a"], "b");
    }

    /// Once dtm has worked on it, its record has neither steps nor bodies.
    #[test]
    fn steps_that_dtm_dropped_are_in_the_rows() {
        let from = SAGA.find(r#""steps""#).unwrap();
        let dropped = format!("{}{}", &SAGA[..from], &SAGA[SAGA.find(r#""status""#).unwrap()..]);
        let (whole, bare) = (read(SAGA, &ROWS, NOW_MS, &limits()), read(&dropped, &ROWS, NOW_MS, &limits()));
        assert_eq!(bare.unwrap(), whole.unwrap());
    }

    #[test]
    fn what_cannot_be_driven_is_refused_with_its_field() {
        assert_eq!(field("7", &[]), "record");
        assert_eq!(field(&SAGA.replace("submitted", "succeed"), &ROWS), "status");
        assert_eq!(field(&SAGA.replace("submitted", "odd"), &ROWS), "status");
        assert_eq!(field(&SAGA.replace("\"saga\"", "\"odd\""), &ROWS), "trans_type");
        assert_eq!(field(&SAGA.replace("\"gid\":\"g1\"", "\"gid\":\"\""), &ROWS), "gid");
        assert_eq!(field(SAGA, &ROWS[..3]), "branches");
        assert_eq!(field(SAGA, &[ROWS[1], ROWS[0], ROWS[2], ROWS[3]]), "branches");
        assert_eq!(field(SAGA, &[ROWS[0], ROWS[1], ROWS[2], ROWS[1]]), "branches");
        assert_eq!(field(&SAGA.replace("60", "-1"), &ROWS), "timeout_to_fail");
    }

    #[test]
    fn a_message_keeps_the_subscribers_that_it_was_sent_to() {
        let record = r#"{"gid":"m1","trans_type":"msg","status":"submitted","protocol":"http","create_time":null,
            "steps":[{"action":"topic://t"}],"query_prepared":"http://a/q","concurrent":true}"#;
        let row = |id: &str, status: &str| {
            format!(r#"{{"url":"http://{id}","branch_id":"{id}","op":"action","status":"{status}","bin_data":"e30="}}"#)
        };
        let rows = [row("01-01", "succeed"), row("01-02", "prepared")];
        let message = read(record, &[&rows[0], &rows[1]], NOW_MS, &limits()).unwrap();
        assert_eq!((message.branches.len(), message.create_ms, message.options.concurrent), (2, NOW_MS, true));
        assert_eq!(message.branches[1].url, "http://01-02");
        let dropped = record.replace(r#""steps":[{"action":"topic://t"}],"#, "");
        let message = read(&dropped, &[&rows[0], &rows[1]], NOW_MS, &limits()).unwrap();
        assert_eq!((message.branches.len(), message.steps.len(), message.payloads.len()), (2, 1, 1));
    }
}
