//! dtm's request bodies: read as leniently as Go's `encoding/json` does, then checked for good.
//!
//! Keys match in any case, unknown keys are ignored, `null` is the zero value. What dtm answers with a Go message and
//! 500, or a panic, is [`Refusal::Invalid`] here, with the field's name.

use super::check;
use super::gid::TransGid;
use super::global::{Global, Options, StepUrls};
use super::json::{Fields, text_map};
use super::refusal::Refusal;
use super::rows;
use super::status::{GlobalStatus, Protocol, TransType};
use super::timing::{self, Limits};
use crate::domain::ids::Invalid;
use crate::domain::trace::TraceContext;
use bytes::Bytes;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

/// The subscribers of a topic; `None` or empty: no such topic.
pub type Topics<'a> = &'a dyn Fn(&str) -> Option<Vec<String>>;

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
    /// The trace of the call, from its headers; no body has it.
    pub trace: Option<TraceContext>,
}

impl TransRequest {
    /// Reads a JSON body.
    pub fn from_json(body: &[u8]) -> Result<Self, Invalid> {
        // As every SDK sends it; whatever is not just so is read with more patience.
        match serde_json::from_slice::<Object<Plain>>(body) {
            Ok(Object(plain)) if plain.steps.as_ref().is_none_or(|steps| steps.len() <= check::STEPS_MAX) => {
                Ok(plain.into())
            }
            _ => Self::from_lenient_json(body),
        }
    }

    fn from_lenient_json(body: &[u8]) -> Result<Self, Invalid> {
        let mut fields = Fields::read("body", body)?;
        let (steps, old_payloads) = steps(fields.list("steps")?)?;
        let mut payloads = fields.texts("payloads")?;
        payloads.extend(old_payloads);
        Ok(Self {
            gid: fields.text("gid")?,
            trans_type: fields.text("trans_type")?,
            steps,
            payloads,
            query_prepared: fields.text("query_prepared")?,
            protocol: fields.text("protocol")?,
            custom_data: fields.text("custom_data")?,
            rollback_reason: fields.text("rollback_reason")?,
            req_extra: fields.map("req_extra")?,
            wait_result: fields.flag("wait_result")?,
            timeout_to_fail: fields.integer("timeout_to_fail")?,
            request_timeout: fields.integer("request_timeout")?,
            retry_interval: fields.integer("retry_interval")?,
            retry_limit: fields.integer("retry_limit")?,
            branch_headers: fields.map("branch_headers")?,
            concurrent: fields.flag("concurrent")?,
            trace: None,
        })
    }

    /// gRPC's `Steps`: the JSON text of the list; empty and `null` are none. Returns the steps and their `data`.
    pub fn steps_from_json(text: &str) -> Result<(Vec<StepUrls>, Vec<Bytes>), Invalid> {
        if text.trim().is_empty() {
            return Ok(Default::default());
        }
        match serde_json::from_str(text).map_err(|e| Invalid::new("steps", format!("is not JSON: {e}")))? {
            Value::Null => Ok(Default::default()),
            Value::Array(list) => steps(list),
            _ => Err(Invalid::new("steps", "must be a list")),
        }
    }

    /// The gid, parsed: the first thing a door needs, to load the record.
    pub fn gid(&self) -> Result<TransGid, Invalid> {
        TransGid::parse(self.gid.as_str())
    }

    /// The mode; `None` when the request names none.
    pub fn trans_type(&self) -> Result<Option<TransType>, Invalid> {
        match self.trans_type.as_str() {
            "" => Ok(None),
            text => match TransType::parse(text) {
                Some(trans_type) => Ok(Some(trans_type)),
                None => Err(Invalid::new("trans_type", "must be msg, saga, tcc, xa or workflow")),
            },
        }
    }

    /// The options, checked.
    pub fn options(&self) -> Result<Options, Invalid> {
        check::headers(&self.branch_headers)?;
        Ok(Options {
            wait_result: self.wait_result,
            timeout_to_fail_s: check::seconds("timeout_to_fail", self.timeout_to_fail)?,
            request_timeout_s: check::range("request_timeout", self.request_timeout, check::REQUEST_TIMEOUT_S_MAX)?,
            retry_interval_s: check::seconds("retry_interval", self.retry_interval)?,
            retry_limit: check::range("retry_limit", self.retry_limit, check::RETRY_LIMIT_MAX)?,
            branch_headers: self.branch_headers.clone(),
            concurrent: self.concurrent,
            trace: self.trace.clone(),
        })
    }

    /// The record that this request begins, `prepared`, with its rows, every field checked.
    pub fn into_global(self, now_ms: u64, limits: &Limits, topics: Topics<'_>) -> Result<Global, Refusal> {
        let gid = self.gid()?;
        let trans_type = self.trans_type()?.ok_or_else(|| Invalid::new("trans_type", "is missing"))?;
        let protocol = match self.protocol.as_str() {
            "" => Protocol::Http,
            text => Protocol::parse(text).ok_or_else(|| Invalid::new("protocol", "must be http, json-rpc or grpc"))?,
        };
        let options = self.options()?;
        let (steps, payloads) = match trans_type {
            TransType::Msg | TransType::Saga => {
                // Clients that send both `payloads` and `data` send more than steps; dtm reads the first ones.
                let mut payloads = self.payloads;
                payloads.truncate(self.steps.len());
                (self.steps, payloads)
            }
            TransType::Tcc | TransType::Xa | TransType::Workflow => Default::default(),
        };
        check::steps(&steps, &payloads)?;
        payloads.iter().try_for_each(|payload| check::params("payloads", protocol, payload))?;
        check::url("query_prepared", &self.query_prepared)?;
        check::custom_data(trans_type, &self.custom_data, steps.len())?;
        let branches = rows::of(trans_type, &steps, &payloads, topics)?;
        let interval_ms = timing::base_interval_ms(&options, limits);
        Ok(Global {
            gid,
            trans_type,
            status: GlobalStatus::Prepared,
            protocol,
            query_prepared: self.query_prepared,
            steps,
            payloads,
            custom_data: self.custom_data,
            result: String::new(),
            rollback_reason: String::new(),
            options,
            create_ms: now_ms,
            update_ms: now_ms,
            finish_ms: 0,
            rollback_ms: 0,
            // A workflow is called back after one interval; an undecided one of the others when its time is up.
            next_cron_ms: match trans_type {
                TransType::Workflow => now_ms.saturating_add(interval_ms),
                _ => now_ms,
            },
            interval_ms,
            retry_count: 0,
            failed_passes: 0,
            ahead: false,
            branches,
        })
    }
}

/// A body in which every key is spelled as dtm spells it and every value is of its type: a third of the work. What it
/// takes it reads as [`TransRequest::from_lenient_json`] does; a key it does not know may be one of these in other case.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain {
    gid: Option<String>,
    trans_type: Option<String>,
    steps: Option<Vec<Object<PlainStep>>>,
    payloads: Option<Vec<String>>,
    query_prepared: Option<String>,
    protocol: Option<String>,
    custom_data: Option<String>,
    rollback_reason: Option<String>,
    req_extra: Option<BTreeMap<String, String>>,
    wait_result: Option<bool>,
    timeout_to_fail: Option<i64>,
    request_timeout: Option<i64>,
    retry_interval: Option<i64>,
    retry_limit: Option<i64>,
    branch_headers: Option<BTreeMap<String, String>>,
    concurrent: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlainStep {
    action: Option<String>,
    compensate: Option<String>,
    data: Option<String>,
}

/// A JSON object, and nothing else: serde would also take a list, for the fields in their order.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        from.deserialize_map(Reader(PhantomData))
    }
}

impl From<Plain> for TransRequest {
    fn from(plain: Plain) -> Self {
        let mut payloads: Vec<Bytes> = plain.payloads.unwrap_or_default().into_iter().map(Bytes::from).collect();
        let mut steps = Vec::new();
        for Object(step) in plain.steps.unwrap_or_default() {
            let (action, compensate) = (step.action.unwrap_or_default(), step.compensate.unwrap_or_default());
            steps.push(StepUrls { action, compensate });
            payloads.extend(step.data.filter(|data| !data.is_empty()).map(Bytes::from));
        }
        Self {
            gid: plain.gid.unwrap_or_default(),
            trans_type: plain.trans_type.unwrap_or_default(),
            steps,
            payloads,
            query_prepared: plain.query_prepared.unwrap_or_default(),
            protocol: plain.protocol.unwrap_or_default(),
            custom_data: plain.custom_data.unwrap_or_default(),
            rollback_reason: plain.rollback_reason.unwrap_or_default(),
            req_extra: plain.req_extra.unwrap_or_default(),
            wait_result: plain.wait_result.unwrap_or_default(),
            timeout_to_fail: plain.timeout_to_fail.unwrap_or_default(),
            request_timeout: plain.request_timeout.unwrap_or_default(),
            retry_interval: plain.retry_interval.unwrap_or_default(),
            retry_limit: plain.retry_limit.unwrap_or_default(),
            branch_headers: plain.branch_headers.unwrap_or_default(),
            concurrent: plain.concurrent.unwrap_or_default(),
            trace: None,
        }
    }
}

/// The steps and, in their order, the non-empty `data` of those that have it.
fn steps(list: Vec<Value>) -> Result<(Vec<StepUrls>, Vec<Bytes>), Invalid> {
    if list.len() > check::STEPS_MAX {
        return Err(Invalid::new("steps", format!("may be {} at most, got {}", check::STEPS_MAX, list.len())));
    }
    let (mut steps, mut old_payloads) = (Vec::with_capacity(list.len()), Vec::new());
    for value in list {
        let mut step = text_map("steps", value)?;
        let mut take = |key: &str| step.remove(key).unwrap_or_default();
        steps.push(StepUrls { action: take("action"), compensate: take("compensate") });
        old_payloads.extend(Some(take("data")).filter(|data| !data.is_empty()).map(Bytes::from));
    }
    Ok((steps, old_payloads))
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
        let value: Value =
            serde_json::from_slice(body).map_err(|e| Invalid::new("body", format!("is not JSON: {e}")))?;
        if !value.is_object() {
            return Err(Invalid::new("body", "must be an object of strings"));
        }
        let mut fields = text_map("body", value)?;
        let mut take = |key: &str| fields.remove(key).unwrap_or_default();
        let (gid, trans_type, branch_id) = (take("gid"), take("trans_type"), take("branch_id"));
        let data = Bytes::from(take("data"));
        Ok(Self { gid, trans_type, branch_id, data, fields })
    }

    pub fn gid(&self) -> Result<TransGid, Invalid> {
        TransGid::parse(self.gid.as_str())
    }

    /// One of the mode's own entries; empty when it is missing.
    pub(super) fn field(&self, key: &str) -> &str {
        self.fields.get(key).map_or("", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ways of reading must agree wherever the quick one reads at all.
    #[test]
    fn the_quick_way_reads_as_the_lenient_one() {
        for body in [
            r#"{"gid":"g","trans_type":"saga","steps":[{"action":"a","compensate":"c"}],"payloads":["{}"],"concurrent":true}"#,
            r#"{"gid":null,"steps":[{"action":null,"data":"d"},{"action":"b","data":""}],"payloads":null,"wait_result":null}"#,
            r#"{"branch_headers":{"b":"1","a":"2","b":"3"},"req_extra":{"status":"succeed"},"retry_limit":-3}"#,
            r#" {"timeout_to_fail":9223372036854775807,"protocol":"http","custom_data":"{\"a\":\"\u00e9\"}"} "#,
            "{}",
        ] {
            let Object(plain) = serde_json::from_str::<Object<Plain>>(body).expect(body);
            let lenient = TransRequest::from_lenient_json(body.as_bytes()).expect(body);
            assert_eq!(TransRequest::from(plain), lenient, "{body}");
            assert_eq!(TransRequest::from_json(body.as_bytes()), Ok(lenient), "{body}");
        }
        const LIST: &str = "[null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null]";
        const STEP: &str = r#"{"steps":[["a","b","c"]]}"#;
        for body in [
            r#"{"GID":"g"}"#,
            r#"{"gid":"a","gid":"b"}"#,
            r#"{"other":1,"gid":"g"}"#,
            r#"{"gid":1}"#,
            "",
            "[]",
            LIST,
            STEP,
        ] {
            let read = TransRequest::from_json(body.as_bytes());
            assert_eq!(read, TransRequest::from_lenient_json(body.as_bytes()), "{body}");
        }
    }
}
