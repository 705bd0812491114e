//! The compact stored form of a [`Global`]: short names, nothing that is empty, and no row that the steps imply.
//!
//! A saga's rows repeat its steps' URLs and payloads, so only their statuses and times are kept; rows that no step
//! implies (registered ones, subscribers of topics) are kept whole. Self-describing formats (JSON, MessagePack with
//! names) may add fields; readers ignore what they do not know.

use super::gid::TransGid;
use super::global::{Branch, Global, Options, StepUrls, is_default};
use super::rows;
use super::status::{BranchStatus, GlobalStatus, Op, Protocol, TransType};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;

#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    #[serde(rename = "g")]
    gid: Cow<'a, TransGid>,
    #[serde(rename = "t")]
    trans_type: TransType,
    #[serde(rename = "s")]
    status: GlobalStatus,
    #[serde(rename = "p", default = "http", skip_serializing_if = "is_http")]
    protocol: Protocol,
    #[serde(rename = "q", default, skip_serializing_if = "str::is_empty")]
    query_prepared: Cow<'a, str>,
    #[serde(rename = "st", default, skip_serializing_if = "Vec::is_empty")]
    steps: Vec<StoredStep<'a>>,
    #[serde(rename = "cd", default, skip_serializing_if = "str::is_empty")]
    custom_data: Cow<'a, str>,
    #[serde(rename = "r", default, skip_serializing_if = "str::is_empty")]
    result: Cow<'a, str>,
    #[serde(rename = "rr", default, skip_serializing_if = "str::is_empty")]
    rollback_reason: Cow<'a, str>,
    #[serde(rename = "o", default, skip_serializing_if = "is_plain")]
    options: Cow<'a, Options>,
    #[serde(rename = "c")]
    create_ms: u64,
    /// Missing: as `create_ms`.
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    update_ms: Option<u64>,
    #[serde(rename = "f", default, skip_serializing_if = "is_default")]
    finish_ms: u64,
    #[serde(rename = "fr", default, skip_serializing_if = "is_default")]
    rollback_ms: u64,
    /// Missing: as `create_ms`.
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    next_cron_ms: Option<u64>,
    #[serde(rename = "i")]
    interval_ms: u64,
    #[serde(rename = "rc", default, skip_serializing_if = "is_default")]
    retry_count: u64,
    #[serde(rename = "fp", default, skip_serializing_if = "is_default")]
    failed_passes: u32,
    #[serde(rename = "ah", default, skip_serializing_if = "is_default")]
    ahead: bool,
    /// One letter per implied row: p, s, f. Missing: all are p, or `rows` has them.
    #[serde(rename = "bs", default, skip_serializing_if = "str::is_empty")]
    row_statuses: Cow<'a, str>,
    /// When each settled row of `row_statuses` was, in milliseconds after `create_ms`.
    #[serde(rename = "bt", default, skip_serializing_if = "Vec::is_empty")]
    row_times: Vec<u64>,
    /// Missing: the rows are those that the steps imply.
    #[serde(rename = "b", default, skip_serializing_if = "Option::is_none")]
    rows: Option<Vec<StoredRow<'a>>>,
}

/// action, compensate, payload.
#[derive(Serialize, Deserialize)]
struct StoredStep<'a>(Cow<'a, str>, Cow<'a, str>, Payload);

/// branch id, op, URL, payload, status, when settled.
#[derive(Serialize, Deserialize)]
struct StoredRow<'a>(Cow<'a, str>, Op, Cow<'a, str>, Payload, BranchStatus, u64);

/// Bytes as text: as they are if they are UTF-8, else `=` and base64.
struct Payload(Bytes);

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) if !text.starts_with('=') => to.serialize_str(text),
            _ => to.collect_str(&format_args!("={}", STANDARD_NO_PAD.encode(&self.0))),
        }
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        match text.strip_prefix('=') {
            None => Ok(Self(text.into())),
            Some(code) => STANDARD_NO_PAD.decode(code).map(|bytes| Self(bytes.into())).map_err(D::Error::custom),
        }
    }
}

impl Serialize for Global {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let steps = self.steps.iter().zip(&self.payloads).map(|(step, payload)| {
            StoredStep(Cow::from(&step.action), Cow::from(&step.compensate), Payload(payload.clone()))
        });
        let implied = rows::are_those_of(self.trans_type, &self.steps, &self.payloads, &self.branches);
        let untouched = self.branches.iter().all(|row| row.status == BranchStatus::Prepared);
        let letter = |row: &Branch| row.status.as_str().chars().next();
        let settled = self.branches.iter().filter(|row| row.status != BranchStatus::Prepared);
        let other_than_created = |ms: u64| (ms != self.create_ms).then_some(ms);
        Stored {
            gid: Cow::Borrowed(&self.gid),
            trans_type: self.trans_type,
            status: self.status,
            protocol: self.protocol,
            query_prepared: Cow::from(&self.query_prepared),
            steps: steps.collect(),
            custom_data: Cow::from(&self.custom_data),
            result: Cow::from(&self.result),
            rollback_reason: Cow::from(&self.rollback_reason),
            options: Cow::Borrowed(&self.options),
            create_ms: self.create_ms,
            update_ms: other_than_created(self.update_ms),
            finish_ms: self.finish_ms,
            rollback_ms: self.rollback_ms,
            next_cron_ms: other_than_created(self.next_cron_ms),
            interval_ms: self.interval_ms,
            retry_count: self.retry_count,
            failed_passes: self.failed_passes,
            ahead: self.ahead,
            row_statuses: match implied && !untouched {
                true => self.branches.iter().filter_map(letter).collect(),
                false => Cow::Borrowed(""),
            },
            row_times: match implied {
                true => settled.map(|row| settled_ms(row).saturating_sub(self.create_ms)).collect(),
                false => Vec::new(),
            },
            rows: (!implied).then(|| self.branches.iter().map(stored_row).collect()),
        }
        .serialize(to)
    }
}

impl<'de> Deserialize<'de> for Global {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let stored = Stored::deserialize(from)?;
        let (steps, payloads): (Vec<StepUrls>, Vec<Bytes>) = stored
            .steps
            .into_iter()
            .map(|StoredStep(action, compensate, payload)| {
                (StepUrls { action: action.into_owned(), compensate: compensate.into_owned() }, payload.0)
            })
            .unzip();
        let branches = match stored.rows {
            Some(rows) => rows.into_iter().map(loaded_row).collect(),
            None => {
                let mut rows = rows::of(stored.trans_type, &steps, &payloads, &|_| None).map_err(D::Error::custom)?;
                settle(&mut rows, &stored.row_statuses, &stored.row_times, stored.create_ms)
                    .map_err(D::Error::custom)?;
                rows
            }
        };
        Ok(Self {
            gid: stored.gid.into_owned(),
            trans_type: stored.trans_type,
            status: stored.status,
            protocol: stored.protocol,
            query_prepared: stored.query_prepared.into_owned(),
            steps,
            payloads,
            custom_data: stored.custom_data.into_owned(),
            result: stored.result.into_owned(),
            rollback_reason: stored.rollback_reason.into_owned(),
            options: stored.options.into_owned(),
            create_ms: stored.create_ms,
            update_ms: stored.update_ms.unwrap_or(stored.create_ms),
            finish_ms: stored.finish_ms,
            rollback_ms: stored.rollback_ms,
            next_cron_ms: stored.next_cron_ms.unwrap_or(stored.create_ms),
            interval_ms: stored.interval_ms,
            retry_count: stored.retry_count,
            failed_passes: stored.failed_passes,
            ahead: stored.ahead,
            branches,
        })
    }
}

/// A row has one time: of success or of refusal, as its status says.
fn settled_ms(row: &Branch) -> u64 {
    if row.status == BranchStatus::Failed { row.rollback_ms } else { row.finish_ms }
}

fn set_settled(row: &mut Branch, status: BranchStatus, ms: u64) {
    row.status = status;
    match status {
        BranchStatus::Prepared => {}
        BranchStatus::Succeed => row.finish_ms = ms,
        BranchStatus::Failed => row.rollback_ms = ms,
    }
}

fn stored_row(row: &Branch) -> StoredRow<'_> {
    let (branch_id, url) = (Cow::from(&row.branch_id), Cow::from(&row.url));
    StoredRow(branch_id, row.op, url, Payload(row.payload.clone()), row.status, settled_ms(row))
}

fn loaded_row(StoredRow(branch_id, op, url, payload, status, ms): StoredRow<'_>) -> Branch {
    let mut row = Branch::new(branch_id, op, url, payload.0);
    set_settled(&mut row, status, ms);
    row
}

/// Lays statuses and times over the implied rows.
fn settle(rows: &mut [Branch], letters: &str, times: &[u64], create_ms: u64) -> Result<(), &'static str> {
    if !letters.is_empty() && letters.len() != rows.len() {
        return Err("row statuses do not fit the steps");
    }
    let mut times = times.iter();
    for (row, letter) in rows.iter_mut().zip(letters.chars()) {
        let status = match letter {
            'p' => continue,
            's' => BranchStatus::Succeed,
            'f' => BranchStatus::Failed,
            _ => return Err("a row status is neither p, s nor f"),
        };
        let after_ms = times.next().ok_or("a settled row has no time")?;
        set_settled(row, status, create_ms.saturating_add(*after_ms));
    }
    Ok(())
}

fn http() -> Protocol {
    Protocol::Http
}

fn is_http(protocol: &Protocol) -> bool {
    *protocol == Protocol::Http
}

fn is_plain(options: &Options) -> bool {
    is_default(options)
}
