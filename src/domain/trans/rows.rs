//! The branch rows that a msg or saga begins with (dtm-server-protocol 5.2).

use super::check;
use super::global::{Branch, StepUrls};
use super::refusal::Refusal;
use super::request::Topics;
use super::status::{Op, TransType};
use crate::domain::ids::Invalid;
use bytes::Bytes;

/// What a msg step's action begins with when it names a topic.
pub const TOPIC_SCHEME: &str = "topic://";

/// The rows of `steps`. tcc, xa and workflow begin with none: their clients register them.
pub fn of(
    trans_type: TransType,
    steps: &[StepUrls],
    payloads: &[Bytes],
    topics: Topics<'_>,
) -> Result<Vec<Branch>, Refusal> {
    let mut rows = Vec::with_capacity(2 * steps.len());
    for (i, (step, payload)) in steps.iter().zip(payloads).enumerate() {
        let branch_id = format!("{:02}", i + 1);
        match trans_type {
            TransType::Msg => msg_step(&mut rows, branch_id, step, payload, topics)?,
            TransType::Saga => {
                // compensate first: clients and dtm's tests read the rows in this order.
                rows.push(Branch::new(branch_id.clone(), Op::Compensate, &step.compensate, payload.clone()));
                rows.push(Branch::new(branch_id, Op::Action, &step.action, payload.clone()));
            }
            TransType::Tcc | TransType::Xa | TransType::Workflow => {}
        }
    }
    if rows.len() > check::BRANCHES_MAX {
        let rule = format!("lead to {} branches; {} is the most", rows.len(), check::BRANCHES_MAX);
        return Err(Invalid::new("steps", rule).into());
    }
    Ok(rows)
}

/// Are `rows`, but for status and time, those that `steps` lead to without asking for topics? As [`of`], with nothing made.
pub fn are_those_of(trans_type: TransType, steps: &[StepUrls], payloads: &[Bytes], rows: &[Branch]) -> bool {
    let ops: &[Op] = match trans_type {
        TransType::Msg => &[Op::Action],
        TransType::Saga => &[Op::Compensate, Op::Action],
        TransType::Tcc | TransType::Xa | TransType::Workflow => &[],
    };
    let expected =
        steps.iter().zip(payloads).enumerate().flat_map(|(i, step)| ops.iter().map(move |op| (i, step, *op)));
    let same = |((i, (step, payload), op), row): ((usize, (&StepUrls, &Bytes), Op), &Branch)| {
        let url = if op == Op::Compensate { &step.compensate } else { &step.action };
        let resolved = trans_type == TransType::Msg && url.starts_with(TOPIC_SCHEME);
        row.op == op && row.url == *url && row.payload == *payload && is_numbered(&row.branch_id, i + 1) && !resolved
    };
    let count = steps.len().min(payloads.len()) * ops.len();
    rows.len() == count && count <= check::BRANCHES_MAX && expected.zip(rows).all(same)
}

/// Is it the id of step `number`: two digits, more from 100 on?
fn is_numbered(branch_id: &str, number: usize) -> bool {
    let plain = branch_id.bytes().all(|byte| byte.is_ascii_digit());
    plain && branch_id.len() == if number < 100 { 2 } else { 3 } && branch_id.parse() == Ok(number)
}

/// One row, or one per subscriber.
fn msg_step(
    rows: &mut Vec<Branch>,
    branch_id: String,
    step: &StepUrls,
    payload: &Bytes,
    topics: Topics<'_>,
) -> Result<(), Refusal> {
    let Some(topic) = step.action.strip_prefix(TOPIC_SCHEME) else {
        rows.push(Branch::new(branch_id, Op::Action, &step.action, payload.clone()));
        return Ok(());
    };
    let urls = topics(topic).unwrap_or_default();
    match urls.as_slice() {
        [] => return Err(Refusal::TopicNotFound),
        [url] => rows.push(Branch::new(branch_id, Op::Action, url, payload.clone())),
        urls => {
            let id = |j: usize| format!("{branch_id}-{:02}", j + 1);
            let row = |(j, url): (usize, &String)| Branch::new(id(j), Op::Action, url, payload.clone());
            rows.extend(urls.iter().enumerate().map(row));
        }
    }
    Ok(())
}
