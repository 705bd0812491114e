//! The small language of the stories. One line is one event and, after `->`, what is expected of it:
//!
//! ```text
//! prepare msg 2 query          a call on the API: created, changed, added, same, or a refusal with its class
//! submit saga 2 timeout=30     so many steps; words after that are options (see `request`)
//! register tcc 01              branch ids as clients make them
//! abort tcc because            the last word is the reason; `abort` alone names no type
//! stop / reset / end succeed   forceStop, resetNextCronTime, a workflow's submit
//! drive 01/action=ok           one pass: each call that is made, in the order in which the answers come in:
//!                              ok, no, ongoing, huh; `crash` in place of a call ends the pass without a trace
//! after 30s                    time goes by
//! rows -> p s p s              prepared, succeed, failed, in the order of the rows
//! reason -> text               rollback_reason
//! answer -> text               what a client that waited is told
//! ```
//!
//! The record is serialised and read again at every line: the stored form is part of every story.

use crate::domain::trans::*;
use bytes::Bytes;
use std::collections::VecDeque;

const START_MS: u64 = 1_000_000_000;

/// Runs a story; panics at the first line that is not so.
pub fn tell(story: &str) {
    let mut world = World::default();
    for line in story.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (event, expected) = line.split_once(" -> ").unwrap_or((line, "done"));
        assert_eq!(world.happens(event), expected, "in the line `{line}`");
    }
}

struct World {
    /// The stored form.
    record: Option<String>,
    now_ms: u64,
    limits: Limits,
    pass: Pass,
}

impl Default for World {
    fn default() -> Self {
        Self { record: None, now_ms: START_MS, limits: Limits::default(), pass: Pass::default() }
    }
}

impl World {
    fn happens(&mut self, event: &str) -> String {
        let words: Vec<&str> = event.split_whitespace().collect();
        let global = self.load();
        let (global, now, limits) = (global.as_ref(), self.now_ms, self.limits);
        let gid = TransGid::parse("g").unwrap();
        match words.as_slice() {
            ["prepare", "workflow", ..] => self.write(moves::prepare_workflow(global, request(&words), now, &limits)),
            ["prepare", ..] => self.write(moves::prepare(global, request(&words), now, &limits, &topics)),
            ["submit", ..] => self.write(moves::submit(global, request(&words), now, &limits, &topics)),
            ["end", status] => {
                let mut end = request(&["submit", "workflow"]);
                end.req_extra.insert("status".to_owned(), (*status).to_owned());
                self.write(moves::submit(global, end, now, &limits, &topics))
            }
            ["abort", rest @ ..] => {
                let mut request = request(&["abort", rest.first().unwrap_or(&"")]);
                request.rollback_reason = rest.get(1).unwrap_or(&"").to_string();
                self.write(moves::abort(global, &request, now))
            }
            ["register", rest @ ..] => self.write(moves::register_branch(global, &registration(rest), now)),
            ["stop"] => self.write(moves::force_stop(global, &gid, now)),
            ["reset"] => self.write(moves::reset_next_cron(global, &gid, now)),
            ["drive", answers @ ..] => self.drive(answers.iter().copied().collect()),
            ["after", time] => {
                self.now_ms += time.strip_suffix('s').unwrap().parse::<u64>().unwrap() * 1000;
                "done".to_owned()
            }
            ["rows"] => {
                let letters = global.unwrap().branches.iter().map(|row| &row.status.as_str()[..1]);
                letters.collect::<Vec<_>>().join(" ")
            }
            ["status"] => global.unwrap().status.to_string(),
            ["reason"] => global.unwrap().rollback_reason.clone(),
            ["answer"] => waited(global.unwrap(), &self.pass).map_or_else(said, |()| "200".to_owned()),
            _ => panic!("not a line of a story: {event}"),
        }
    }

    fn load(&self) -> Option<Global> {
        self.record.as_ref().map(|text| serde_json::from_str(text).unwrap())
    }

    fn save(&mut self, global: &Global) {
        let text = serde_json::to_string(global).unwrap();
        assert_eq!(&serde_json::from_str::<Global>(&text).unwrap(), global, "the stored form lost something: {text}");
        self.record = Some(text);
    }

    fn write(&mut self, change: Result<Change, Refusal>) -> String {
        let word = match change {
            Err(refusal) => return said(refusal),
            Ok(Change::Nothing) => "same",
            Ok(Change::Create(global)) => {
                assert!(self.record.is_none());
                self.save(&global);
                "created"
            }
            Ok(Change::Replace(global)) => {
                self.save(&global);
                "changed"
            }
            Ok(Change::Append(rows)) => {
                let mut global = self.load().unwrap();
                global.branches.extend(rows);
                self.save(&global);
                "added"
            }
        };
        word.to_owned()
    }

    fn drive(&mut self, mut answers: VecDeque<&str>) -> String {
        let mut global = self.load().unwrap();
        self.pass = Pass::default();
        let mut waiting: Vec<CallSpec> = Vec::new();
        let mut alerts = 0;
        loop {
            match next_step(&global, &mut self.pass, self.now_ms, &self.limits) {
                Step::Call(specs) => waiting.extend(specs),
                Step::Await => {
                    let Some(answer) = answers.pop_front().filter(|answer| *answer != "crash") else {
                        assert!(answers.is_empty(), "a crash ends the line");
                        return format!("{}, crashed at {}", global.status, names(&waiting));
                    };
                    let (name, word) = answer.split_once('=').unwrap();
                    let at = waiting.iter().position(|call| name_of(call) == name);
                    let at = at.unwrap_or_else(|| panic!("{name} is not called, but {}", names(&waiting)));
                    let call = waiting.remove(at);
                    let (now_ms, limits) = (self.now_ms, &self.limits);
                    let applied = apply(&mut global, &mut self.pass, call.called, result(word), now_ms, limits);
                    alerts += usize::from(applied.alert.is_some());
                    self.save(&global);
                }
                Step::Move { to, reason } => {
                    assert!(waiting.is_empty(), "moved while {} ran", names(&waiting));
                    apply_move(&mut global, to, reason.as_deref(), self.now_ms);
                    self.save(&global);
                }
                step @ (Step::Wait { .. } | Step::Done) => {
                    assert!(answers.is_empty(), "no call for {answers:?}");
                    assert!(waiting.is_empty(), "left while {} ran", names(&waiting));
                    let alert = if alerts > 0 { ", alert" } else { "" };
                    return match step {
                        Step::Wait { until_ms } => {
                            assert_eq!(global.due_ms(&self.limits), Some(until_ms));
                            format!("{}, again in {}s{alert}", global.status, (until_ms - self.now_ms) / 1000)
                        }
                        _ => format!("{}{alert}", global.status),
                    };
                }
            }
        }
    }
}

fn name_of(call: &CallSpec) -> String {
    format!("{}/{}", call.branch_id, call.op)
}

fn names(calls: &[CallSpec]) -> String {
    calls.iter().map(name_of).collect::<Vec<_>>().join(" ")
}

fn said(refusal: Refusal) -> String {
    let code = match refusal.class() {
        Class::Failure => 409,
        Class::Ongoing => 425,
        Class::Other => 500,
        Class::Invalid => 400,
    };
    format!("{code} {refusal}").replace('\n', "|")
}

pub fn result(word: &str) -> BranchResult {
    match word {
        "ok" => BranchResult::Success,
        "no" => BranchResult::Failure("no money".to_owned()),
        "ongoing" => BranchResult::Ongoing,
        "huh" => BranchResult::Unknown("status 502".to_owned()),
        _ => panic!("not an answer: {word}"),
    }
}

/// A topic with two subscribers, one with one, and no other.
pub fn topics(topic: &str) -> Option<Vec<String>> {
    match topic {
        "two" => Some(vec!["http://h/s1".to_owned(), "http://h/s2".to_owned()]),
        "one" => Some(vec!["http://h/s1".to_owned()]),
        "left" => Some(Vec::new()),
        _ => None,
    }
}

/// `prepare|submit|abort <trans_type> [steps] [options…]`
pub fn request(words: &[&str]) -> TransRequest {
    let trans_type = words.get(1).unwrap_or(&"").to_string();
    let mut request = TransRequest { gid: "g".to_owned(), trans_type, ..TransRequest::default() };
    if request.trans_type == "workflow" && words[0] == "prepare" {
        request.custom_data = r#"{"name":"w","data":"aGVsbG8="}"#.to_owned();
        request.query_prepared = "http://h/wf".to_owned();
    }
    for word in &words[2.min(words.len())..] {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        match name {
            "query" => request.query_prepared = "http://h/query".to_owned(),
            "wait" => request.wait_result = true,
            "concurrent" if request.trans_type == "msg" => request.concurrent = true,
            "concurrent" => request.custom_data = r#"{"concurrent":true}"#.to_owned(),
            "orders" => request.custom_data = format!(r#"{{"concurrent":true,"orders":{value}}}"#),
            "delay" => request.custom_data = format!(r#"{{"delay":{value}}}"#),
            "timeout" => request.timeout_to_fail = value.parse().unwrap(),
            "interval" => request.retry_interval = value.parse().unwrap(),
            "limit" => request.retry_limit = value.parse().unwrap(),
            "topic" => {
                request.steps.push(StepUrls { action: format!("topic://{value}"), ..Default::default() });
                request.payloads.push(Bytes::from_static(b"{}"));
            }
            count => {
                for k in 0..count.parse().unwrap() {
                    let compensate =
                        if request.trans_type == "saga" { format!("http://h/{k}c") } else { String::new() };
                    request.steps.push(StepUrls { action: format!("http://h/{k}"), compensate });
                    request.payloads.push(Bytes::from(format!("{{\"n\":{k}}}")));
                }
            }
        }
    }
    request
}

/// `tcc|xa|workflow <branch id> [key=value…]`
pub fn registration(words: &[&str]) -> RegisterBranch {
    let (trans_type, branch_id) = (words[0].to_owned(), words[1].to_owned());
    let given = words[2..].iter().filter_map(|word| word.split_once('='));
    let given = given.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let mut request =
        RegisterBranch { gid: "g".to_owned(), trans_type, branch_id, data: "{}".into(), fields: Default::default() };
    for key in ["confirm", "cancel", "url"] {
        request.fields.insert(key.to_owned(), format!("http://h/{key}"));
    }
    request.fields.extend([("op".to_owned(), "action".to_owned()), ("status".to_owned(), "succeed".to_owned())]);
    request.fields.extend(given);
    request
}
