//! What travels between client and coordinator: dtm's JSON, field by field.

use super::error::Error;
use super::options::Options;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Step {
    pub action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compensate: Option<String>,
}

/// The body of prepare, submit, abort and prepareWorkflow.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trans {
    pub gid: String,
    pub trans_type: &'static str,
    pub steps: Vec<Step>,
    pub payloads: Vec<Bytes>,
    pub query_prepared: String,
    pub custom_data: String,
    pub rollback_reason: String,
    pub req_extra: BTreeMap<&'static str, String>,
    pub concurrent: bool,
    pub options: Options,
}

#[derive(Serialize)]
struct TransJson<'a> {
    gid: &'a str,
    trans_type: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    custom_data: &'a str,
    #[serde(flatten)]
    options: &'a Options,
    concurrent: bool,
    #[serde(skip_serializing_if = "<[Step]>::is_empty")]
    steps: &'a [Step],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    payloads: Vec<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    query_prepared: &'a str,
    protocol: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    rollback_reason: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    req_extra: &'a BTreeMap<&'static str, String>,
}

impl Trans {
    pub fn json(&self) -> Result<Bytes, Error> {
        let payloads: Result<Vec<&str>, _> = self.payloads.iter().map(|bytes| std::str::from_utf8(bytes)).collect();
        let payloads = payloads.map_err(|_| {
            Error::invalid("a payload that is no text cannot travel by HTTP; use a client made by Client::grpc")
        })?;
        let body = TransJson {
            gid: &self.gid,
            trans_type: self.trans_type,
            custom_data: &self.custom_data,
            options: &self.options,
            concurrent: self.concurrent,
            steps: &self.steps,
            payloads,
            query_prepared: &self.query_prepared,
            protocol: if self.trans_type == "workflow" { "http" } else { "" },
            rollback_reason: &self.rollback_reason,
            req_extra: &self.req_extra,
        };
        json(&body)
    }
}

/// The body of registerBranch.
#[derive(Debug, Clone)]
pub(crate) struct Branch {
    pub gid: String,
    pub trans_type: &'static str,
    pub branch_id: String,
    pub data: Bytes,
    /// `confirm`, `cancel`, `url`, `op`, `status`.
    pub fields: BTreeMap<&'static str, String>,
}

impl Branch {
    pub fn json(&self) -> Result<Bytes, Error> {
        let data = std::str::from_utf8(&self.data).map_err(|_| {
            Error::invalid("data that is no text cannot be recorded by HTTP; use a client made by Client::grpc")
        })?;
        let mut fields: BTreeMap<&str, &str> = self.fields.iter().map(|(key, value)| (*key, value.as_str())).collect();
        fields.extend([("gid", self.gid.as_str()), ("trans_type", self.trans_type), ("branch_id", &self.branch_id)]);
        fields.insert("data", data);
        json(&fields)
    }
}

pub(crate) fn json(body: &impl Serialize) -> Result<Bytes, Error> {
    serde_json::to_vec(body).map(Bytes::from).map_err(Error::invalid)
}

/// What is known of a workflow.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Progresses {
    pub transaction: ProgressTransaction,
    #[serde(default)]
    pub progresses: Vec<Progress>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct ProgressTransaction {
    #[serde(default)]
    pub status: String,
    #[serde(default)]
    pub rollback_reason: String,
    #[serde(default, deserialize_with = "base64")]
    pub result: Bytes,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Progress {
    pub branch_id: String,
    pub op: String,
    pub status: String,
    #[serde(default, rename = "bin_data", deserialize_with = "base64")]
    pub data: Bytes,
}

fn base64<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
    let text = Option::<String>::deserialize(from)?.unwrap_or_default();
    BASE64.decode(text).map(Bytes::from).map_err(serde::de::Error::custom)
}

/// A global transaction as the coordinator shows it.
#[derive(Debug, Clone, Deserialize)]
#[non_exhaustive]
pub struct Transaction {
    pub gid: String,
    pub trans_type: String,
    /// `prepared`, `submitted`, `aborting`, `succeed` or `failed`.
    pub status: String,
    #[serde(default)]
    pub rollback_reason: String,
    #[serde(default)]
    pub result: String,
    /// In the order in which they were registered; a saga's are (compensate, action) for each step.
    #[serde(skip)]
    pub branches: Vec<TransactionBranch>,
}

impl Transaction {
    /// Over: it will not change any more.
    pub fn is_final(&self) -> bool {
        matches!(self.status.as_str(), "succeed" | "failed")
    }
}

#[derive(Debug, Clone, Deserialize)]
#[non_exhaustive]
pub struct TransactionBranch {
    pub branch_id: String,
    pub op: String,
    pub status: String,
    #[serde(default)]
    pub url: String,
}

#[derive(Deserialize)]
pub(crate) struct Query {
    transaction: Option<Transaction>,
    #[serde(default)]
    branches: Option<Vec<TransactionBranch>>,
}

impl Query {
    pub fn into_transaction(self) -> Option<Transaction> {
        let branches = self.branches.unwrap_or_default();
        self.transaction.map(|transaction| Transaction { branches, ..transaction })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_saga_is_what_dtms_own_client_sends() {
        let saga = Trans {
            gid: "g1".into(),
            trans_type: "saga",
            steps: vec![Step { action: "http://a/x".into(), compensate: Some("http://a/y".into()) }],
            payloads: vec![Bytes::from_static(b"{\"amount\":30}")],
            ..Trans::default()
        };
        let expected = r#"{"gid":"g1","trans_type":"saga","concurrent":false,"steps":[{"action":"http://a/x","compensate":"http://a/y"}],"payloads":["{\"amount\":30}"],"protocol":""}"#;
        assert_eq!(saga.json().unwrap(), expected);
        let binary = Trans { payloads: vec![Bytes::from_static(&[0xff])], ..saga };
        assert!(matches!(binary.json(), Err(Error::Invalid(_))));
    }
}
