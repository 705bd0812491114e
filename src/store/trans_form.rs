//! The stored form of a global transaction: the record of `lua/trans_create.lua`, the rows of `lua/trans_append.lua`.
//!
//! The record is `<version> <status> ` and serde's form of [`Global`]. A branch that is registered later is a field of
//! a hash of its own, `<op>/<branch_id>` → `<place> <JSON>`, so that registering one neither reads nor rewrites the
//! others; the save that decides takes them into the record.

use super::{Error, trans_drain};
use crate::domain::trans::{Branch, BranchStatus, Global, Op};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// A transaction as Redis had it when it was read.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub global: Global,
    /// The fence: what is written under another version is refused.
    pub version: u64,
    /// There are registered branches in a hash of their own.
    pub has_rows: bool,
    /// The record says that more may have been done than it tells ([`Global::ahead`]).
    pub says_ahead: bool,
}

/// `[url, payload, status, finish_ms, rollback_ms]`; the name is in the field. A payload that is no text is in base64,
/// in a list of one, so that the two cannot be taken for each other.
#[derive(Serialize, Deserialize)]
struct Row(String, Payload, BranchStatus, u64, u64);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Payload {
    Text(String),
    Base64([String; 1]),
}

pub fn field_of(branch: &Branch) -> String {
    format!("{}/{}", branch.op, branch.branch_id)
}

pub fn row_of(branch: &Branch) -> String {
    let payload = match std::str::from_utf8(&branch.payload) {
        Ok(text) => Payload::Text(text.to_owned()),
        Err(_) => Payload::Base64([BASE64.encode(&branch.payload)]),
    };
    let row = Row(branch.url.clone(), payload, branch.status, branch.finish_ms, branch.rollback_ms);
    serde_json::to_string(&row).expect("a branch is plain data")
}

/// The branch and its place among all of the transaction.
fn read_row(field: &str, value: &str) -> Option<(usize, Branch)> {
    let (op, branch_id) = field.split_once('/')?;
    let (place, json) = value.split_once(' ')?;
    let Row(url, payload, status, finish_ms, rollback_ms) = serde_json::from_str(json).ok()?;
    let payload = match payload {
        Payload::Text(text) => Bytes::from(text),
        Payload::Base64([text]) => Bytes::from(BASE64.decode(text).ok()?),
    };
    let mut branch = Branch::new(branch_id, Op::parse(op)?, url, payload);
    (branch.status, branch.finish_ms, branch.rollback_ms) = (status, finish_ms, rollback_ms);
    Some((place.parse().ok()?, branch))
}

/// Ends the folder that a record's URLs share, and stands for it where they begin. JSON has no such raw bytes.
const FOLDER_END: char = '\u{2}';
const FOLDER: &str = "\u{1}";

/// The record that a transaction is stored as under a version. Of its JSON gid and status are left out, which are in the
/// key and before it, and the folder that its URLs share is written once: a saga's four URLs are most of what it takes.
pub fn record_of(global: &Global, version: u64) -> String {
    let json = serde_json::to_string(global).expect("a transaction is plain data");
    let mut record = String::with_capacity(json.len() + 32);
    let _ = write!(record, "{version:010} {} ", global.status); // a String takes all
    let folder = global.steps.first().and_then(|step| folder_of(&step.action));
    if let Some(folder) = folder {
        record.push_str(folder);
        record.push(FOLDER_END);
    }
    let known = known_of(global.gid.as_str(), global.trans_type.as_str(), global.status.as_str());
    let rest = match json.strip_prefix(&known) {
        Some(rest) => {
            let _ = write!(record, "{{\"t\":\"{}\",", global.trans_type);
            rest
        }
        None => json.as_str(),
    };
    let Some(folder) = folder else {
        record.push_str(rest);
        return record;
    };
    // A text that begins with the folder begins behind a quotation mark, and few do not.
    let mut open = rest;
    while let Some(at) = open.find('"') {
        let (front, back) = open.split_at(at + 1);
        match back.strip_prefix(folder) {
            Some(short) => {
                record.push_str(&front[..at]);
                record.push_str(FOLDER);
                open = short;
            }
            None => {
                record.push_str(front);
                open = back;
            }
        }
    }
    record.push_str(open);
    record
}

/// How the JSON begins, before it is shortened.
fn known_of(gid: &str, trans_type: &str, status: &str) -> String {
    format!("{{\"g\":\"{gid}\",\"t\":\"{trans_type}\",\"s\":\"{status}\",")
}

/// Scheme, host and path up to the last slash, unless JSON would write them in another way.
fn folder_of(url: &str) -> Option<&str> {
    let path = url.split(['?', '#']).next()?;
    let folder = &path[..=path.rfind('/')?];
    let plain = folder.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\');
    (plain && folder.contains("://")).then_some(folder)
}

fn json_of(gid: &str, status: &str, record: &str) -> String {
    let json = match record.split_once(FOLDER_END) {
        Some((folder, json)) => json.replace(FOLDER, &format!("\"{folder}")),
        None => record.to_owned(),
    };
    let shortened = json.strip_prefix("{\"t\":\"").and_then(|rest| rest.split_once("\","));
    match shortened {
        Some((trans_type, rest)) => format!("{}{rest}", known_of(gid, trans_type, status)),
        None => json,
    }
}

/// Reads a record and its rows; `None` if there is no record, or no more than the word that stayed of one.
pub fn read(gid: &str, record: Option<Vec<u8>>, rows: Vec<(String, String)>) -> Result<Option<Loaded>, Error> {
    let unexpected = |what: String| Error::Unexpected { what: "the record of a transaction", reply: what };
    let Some(record) = record.filter(|stored| !trans_drain::is_word(stored)) else { return Ok(None) };
    let record = String::from_utf8(record).map_err(|error| unexpected(error.to_string()))?;
    let mut parts = record.splitn(3, ' ');
    let version = parts.next().and_then(|text| text.parse().ok());
    let (Some(version), Some(status), Some(json)) = (version, parts.next(), parts.next()) else {
        return Err(unexpected(record));
    };
    let json = json_of(gid, status, json);
    let mut global: Global = serde_json::from_str(&json).map_err(|error| unexpected(error.to_string()))?;
    let has_rows = !rows.is_empty();
    let mut read = Vec::with_capacity(rows.len());
    for (field, value) in rows {
        read.push(read_row(&field, &value).ok_or_else(|| unexpected(format!("{field}: {value}")))?);
    }
    // Those that a save has taken in stay until no more are taken; their places say which they are.
    read.sort_by_key(|(place, _)| *place);
    let taken_in = global.branches.len();
    global.branches.extend(read.into_iter().filter(|(place, _)| *place >= taken_in).map(|(_, branch)| branch));
    let says_ahead = global.ahead;
    Ok(Some(Loaded { global, version, has_rows, says_ahead }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registered_branch_is_read_as_it_was_written() {
        for payload in [&b"{\"a\":1}"[..], b"", &[0xff, 0, 10]] {
            let mut branch = Branch::new("0102", Op::Confirm, "http://h/c?x=1", Bytes::copy_from_slice(payload));
            branch.status = BranchStatus::Succeed;
            let read = read_row(&field_of(&branch), &format!("3 {}", row_of(&branch)));
            assert_eq!(read, Some((3, branch)));
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_is_shorter() {
        use crate::domain::trans::{Limits, TransRequest};
        let folders = ["http://localhost:8081/api/busi/", "http://h/", "", "http://h/a b/", "http://h/\u{1}/é\"/"];
        for (folder, other) in folders.iter().flat_map(|folder| folders.map(|other| (*folder, other))) {
            let step = |name: &str| serde_json::json!({ "action": format!("{folder}{name}"), "compensate": other });
            let steps = [step("TransOut"), step("TransIn?x=http://h/")];
            let body = serde_json::json!({ "gid": "{a}-7", "trans_type": "saga", "steps": steps,
                "payloads": ["{\"url\":\"http://h/\"}", "\u{1}\u{2}"] });
            let request = TransRequest::from_json(body.to_string().as_bytes()).unwrap();
            let Ok(global) = request.into_global(1_795_000_000_000, &Limits::default(), &|_| None) else { continue };
            let record = record_of(&global, 7);
            let loaded = read("{a}-7", Some(record.clone().into_bytes()), Vec::new()).unwrap().unwrap();
            assert_eq!((loaded.global, loaded.version), (global, 7), "{record}");
        }
    }

    #[test]
    fn rubbish_is_no_branch() {
        for (field, value) in [("x", "1 {}"), ("confirm/01", ""), ("nop/01", "1 []"), ("confirm/01", "x [\"\",\"\"]")] {
            assert_eq!(read_row(field, value), None);
        }
    }
}
