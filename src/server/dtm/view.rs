//! Answers as objects: transactions, branches, key-value pairs, with dtm's names and in dtm's order.

use crate::domain::order::Status;
use crate::domain::trans::{Branch, Global, GlobalStatus, Op, Protocol, TransType};
use crate::server::wire::{OrderView, time};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Serialize)]
pub struct Steps {
    #[serde(skip_serializing_if = "String::is_empty")]
    action: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    compensate: String,
}

/// The fields that dtm leaves out when they are empty, it leaves out; so do we.
#[derive(Serialize)]
pub struct Transaction {
    /// dtm's SQL stores count rows here; its others say 0.
    id: u32,
    /// Never null: an SDK reads it without a look.
    create_time: Timestamp,
    update_time: Timestamp,
    gid: String,
    trans_type: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    steps: Vec<Steps>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    payloads: Vec<String>,
    status: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    query_prepared: String,
    protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    finish_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rollback_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "String::is_empty")]
    result: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    rollback_reason: String,
    /// The options once more, as JSON text.
    options: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    custom_data: String,
    #[serde(skip_serializing_if = "is_zero")]
    next_cron_interval: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cron_time: Option<Timestamp>,
    #[serde(flatten)]
    option_fields: Options,
}

#[derive(Serialize, Clone)]
struct Options {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    wait_result: bool,
    #[serde(skip_serializing_if = "is_zero")]
    timeout_to_fail: u64,
    #[serde(skip_serializing_if = "is_zero")]
    request_timeout: u64,
    #[serde(skip_serializing_if = "is_zero")]
    retry_interval: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    branch_headers: BTreeMap<String, String>,
    /// Always there, as dtm has it.
    concurrent: bool,
    #[serde(skip_serializing_if = "is_zero")]
    retry_limit: u64,
    #[serde(skip_serializing_if = "is_zero")]
    retry_count: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn when(ms: u64) -> Option<Timestamp> {
    time((ms > 0).then_some(ms))
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl From<&Global> for Transaction {
    fn from(global: &Global) -> Self {
        let options = Options {
            wait_result: global.options.wait_result,
            timeout_to_fail: global.options.timeout_to_fail_s,
            request_timeout: global.options.request_timeout_s,
            retry_interval: global.options.retry_interval_s,
            branch_headers: global.options.branch_headers.clone(),
            concurrent: global.options.concurrent,
            retry_limit: global.options.retry_limit,
            retry_count: global.retry_count,
        };
        // What came by gRPC is no text; dtm shows none of it here either.
        let payloads = match global.protocol {
            Protocol::Grpc => Vec::new(),
            Protocol::Http | Protocol::JsonRpc => global.payloads.iter().map(text).collect(),
        };
        Self {
            id: 0,
            create_time: when(global.create_ms).unwrap_or(Timestamp::UNIX_EPOCH),
            update_time: when(global.update_ms.max(global.create_ms)).unwrap_or(Timestamp::UNIX_EPOCH),
            gid: global.gid.to_string(),
            trans_type: global.trans_type.as_str(),
            steps: global
                .steps
                .iter()
                .map(|step| Steps { action: step.action.clone(), compensate: step.compensate.clone() })
                .collect(),
            payloads,
            status: global.status.as_str(),
            query_prepared: global.query_prepared.clone(),
            protocol: global.protocol.as_str(),
            finish_time: when(global.finish_ms),
            rollback_time: when(global.rollback_ms),
            result: global.result.clone(),
            rollback_reason: global.rollback_reason.clone(),
            options: serde_json::to_string(&options).expect("options are plain data"),
            custom_data: global.custom_data.clone(),
            next_cron_interval: global.interval_ms / 1000,
            next_cron_time: when(global.next_cron_ms),
            option_fields: options,
        }
    }
}

#[derive(Serialize)]
pub struct BranchView {
    id: u32,
    create_time: Timestamp,
    update_time: Timestamp,
    gid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    url: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    bin_data: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    branch_id: String,
    op: &'static str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    finish_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rollback_time: Option<Timestamp>,
}

fn branch_view(global: &Global, branch: &Branch) -> BranchView {
    let create_time = when(global.create_ms).unwrap_or(Timestamp::UNIX_EPOCH);
    BranchView {
        id: 0,
        create_time,
        update_time: when(branch.finish_ms.max(branch.rollback_ms)).unwrap_or(create_time),
        gid: global.gid.to_string(),
        url: branch.url.clone(),
        bin_data: BASE64.encode(&branch.payload),
        branch_id: branch.branch_id.clone(),
        op: branch.op.as_str(),
        status: branch.status.as_str(),
        finish_time: when(branch.finish_ms),
        rollback_time: when(branch.rollback_ms),
    }
}

/// A transaction with its branches.
#[derive(Serialize)]
pub struct Query {
    pub branches: Vec<BranchView>,
    pub transaction: Option<Transaction>,
}

impl Query {
    pub const NONE: Query = Query { branches: Vec::new(), transaction: None };
}

impl From<&Global> for Query {
    fn from(global: &Global) -> Self {
        let branches = global.branches.iter().map(|branch| branch_view(global, branch)).collect();
        Self { branches, transaction: Some(global.into()) }
    }
}

/// The answer to prepareWorkflow.
#[derive(Serialize)]
pub struct Progresses {
    progresses: Vec<BranchView>,
    transaction: Transaction,
}

impl From<&Global> for Progresses {
    fn from(global: &Global) -> Self {
        let progresses = global.branches.iter().map(|branch| branch_view(global, branch)).collect();
        Self { progresses, transaction: global.into() }
    }
}

/// A flash-sale order as what it is: a message with one branch, the order endpoint.
pub fn order(order: OrderView, endpoint: String) -> Query {
    let status = match order.status {
        Status::Submitted | Status::Reserved => GlobalStatus::Submitted,
        Status::Succeed => GlobalStatus::Succeed,
        Status::Failed | Status::Cancelled | Status::Expired => GlobalStatus::Failed,
    };
    let create_time = order.admitted_at.unwrap_or(Timestamp::UNIX_EPOCH);
    let (finish_time, rollback_time) = match status {
        GlobalStatus::Succeed => (order.finished_at, None),
        GlobalStatus::Failed => (None, order.finished_at),
        _ => (None, None),
    };
    let branch_status = match status {
        GlobalStatus::Succeed => "succeed",
        GlobalStatus::Failed => "failed",
        _ => "prepared",
    };
    let payload = order.payload.map(|payload| payload.get().to_owned());
    let options = Options {
        wait_result: false,
        timeout_to_fail: 0,
        request_timeout: 0,
        retry_interval: 0,
        branch_headers: BTreeMap::new(),
        concurrent: false,
        retry_limit: 0,
        retry_count: 0,
    };
    let branch = BranchView {
        id: 0,
        create_time,
        update_time: order.finished_at.unwrap_or(create_time),
        gid: order.gid.clone(),
        url: endpoint.clone(),
        bin_data: BASE64.encode(payload.as_deref().unwrap_or_default()),
        branch_id: "01".into(),
        op: Op::Action.as_str(),
        status: branch_status,
        finish_time,
        rollback_time,
    };
    let transaction = Transaction {
        id: 0,
        create_time,
        update_time: order.finished_at.unwrap_or(create_time),
        gid: order.gid,
        trans_type: TransType::Msg.as_str(),
        steps: vec![Steps { action: endpoint, compensate: String::new() }],
        payloads: payload.into_iter().collect(),
        status: status.as_str(),
        query_prepared: String::new(),
        protocol: Protocol::Http.as_str(),
        finish_time,
        rollback_time,
        result: String::new(),
        rollback_reason: order.last_error.unwrap_or_default(),
        options: serde_json::to_string(&options).expect("options are plain data"),
        custom_data: String::new(),
        next_cron_interval: 0,
        next_cron_time: None,
        option_fields: options,
    };
    Query { branches: vec![branch], transaction: Some(transaction) }
}

#[derive(Serialize)]
pub struct Page {
    pub next_position: String,
    pub transactions: Option<Vec<Transaction>>,
}

#[derive(Serialize)]
pub struct KeyValue {
    pub id: u32,
    pub create_time: Option<Timestamp>,
    pub update_time: Option<Timestamp>,
    pub cat: String,
    pub k: String,
    /// JSON text.
    pub v: String,
    pub version: u64,
}
