//! What clients do: every mode, ended in every way, and what must have come of it.

use super::book::{Book, Word};
use super::target::Target;
use serde_json::{Value, json};
use std::fmt;
use std::time::Duration;

/// Branches of every transaction.
pub const STEPS: usize = 3;
/// Seconds after which an undecided transaction of a client that went away is given up.
const FORGOTTEN_AFTER_S: u64 = 1;
/// And a saga that gets nowhere.
pub const LATE_AFTER_S: u64 = 1;
/// And one whose client is there: longer than any story.
const DECIDED_WITHIN_S: u64 = 600;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Msg,
    Saga,
    /// The first two steps at once, the third after the second.
    Concurrent,
    Tcc,
    Xa,
    Workflow,
}

pub const MODES: [Mode; 6] = [Mode::Msg, Mode::Saga, Mode::Concurrent, Mode::Tcc, Mode::Xa, Mode::Workflow];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Everybody agrees.
    Yes,
    /// The branch of this step refuses; of a message, its sender does.
    No(usize),
    /// The client goes away before it decides. A message's check-back says yes; a workflow is called back.
    Away,
    /// The same, and the check-back of a message says no.
    AwayNo,
    /// The second step of a saga is done, but never says so; the saga's own time runs out.
    Late,
}

/// One way of one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    pub mode: Mode,
    pub end: End,
    /// Branches answer badly before they answer.
    pub flaky: bool,
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = match self.end {
            End::Yes => "yes".to_owned(),
            End::No(step) => format!("no{step}"),
            End::Away => "away".to_owned(),
            End::AwayNo => "awayno".to_owned(),
            End::Late => "late".to_owned(),
        };
        let flaky = if self.flaky { "-flaky" } else { "" };
        write!(f, "{}-{end}{flaky}", format!("{:?}", self.mode).to_lowercase())
    }
}

impl Flow {
    /// Every flow there is.
    pub fn all() -> Vec<Flow> {
        let mut all = Vec::new();
        for mode in MODES {
            let no = (0..if mode == Mode::Msg { 1 } else { STEPS }).map(End::No);
            let ends = no.chain([End::Yes, End::Away, End::AwayNo, End::Late]);
            for end in ends.filter(|end| match end {
                End::Away => !matches!(mode, Mode::Saga | Mode::Concurrent),
                End::AwayNo => mode == Mode::Msg,
                End::Late => matches!(mode, Mode::Saga | Mode::Concurrent),
                End::Yes | End::No(_) => true,
            }) {
                all.extend([false, true].map(|flaky| Flow { mode, end, flaky }));
            }
        }
        all
    }

    pub fn parse(text: &str) -> Option<Flow> {
        Self::all().into_iter().find(|flow| flow.to_string() == text)
    }

    fn trans_type(self) -> &'static str {
        match self.mode {
            Mode::Msg => "msg",
            Mode::Saga | Mode::Concurrent => "saga",
            Mode::Tcc => "tcc",
            Mode::Xa => "xa",
            Mode::Workflow => "workflow",
        }
    }

    fn word(self, step: usize) -> Word {
        if self.end == End::No(step) { Word::No } else { Word::Yes }
    }

    fn goes_away(self) -> bool {
        matches!(self.end, End::Away | End::AwayNo)
    }

    fn succeeds(self) -> bool {
        match (self.mode, self.end) {
            (_, End::Yes) => true,
            (_, End::No(_) | End::AwayNo | End::Late) => false,
            (Mode::Msg | Mode::Workflow, End::Away) => true,
            (_, End::Away) => false,
        }
    }

    fn body(self, gid: &str, book: &Book) -> Value {
        let mut body = json!({ "gid": gid, "trans_type": self.trans_type(), "timeout_to_fail": DECIDED_WITHIN_S });
        if self.goes_away() && self.mode != Mode::Workflow {
            body["timeout_to_fail"] = json!(FORGOTTEN_AFTER_S);
        }
        let steps: Vec<Value> = (0..STEPS)
            .map(|step| {
                let url = book.branch(self.word(step), self.flaky);
                let action = if (self.end, step) == (End::Late, 1) { book.url("/never") } else { url.clone() };
                json!({ "action": action, "compensate": url })
            })
            .collect();
        let payloads: Vec<String> = (0..STEPS).map(|step| format!("{{\"step\":{step}}}")).collect();
        match self.mode {
            Mode::Msg => {
                let yes = json!({ "action": book.branch(Word::Yes, self.flaky) });
                (body["steps"], body["payloads"]) = (json!(vec![yes; STEPS]), json!(payloads));
                let word = if self.end == End::AwayNo { Word::No } else { Word::Yes };
                body["query_prepared"] = json!(book.branch(word, false));
            }
            Mode::Saga | Mode::Concurrent => {
                (body["steps"], body["payloads"]) = (json!(steps), json!(payloads));
                body["timeout_to_fail"] = json!(if self.end == End::Late { LATE_AFTER_S } else { 0 });
                if self.mode == Mode::Concurrent {
                    body["custom_data"] = json!(r#"{"concurrent":true,"orders":{"2":[1]}}"#);
                }
            }
            Mode::Tcc | Mode::Xa => {}
            Mode::Workflow => {
                body["query_prepared"] = json!(book.url(&format!("/workflow/{self}")));
                body["custom_data"] = json!(r#"{"name":"w","data":""}"#);
            }
        }
        body
    }

    /// Plays the client to its end. Whatever node dies meanwhile: each call is repeated until it is answered.
    pub async fn play(self, gid: &str, book: &Book, target: &Target) {
        let body = self.body(gid, book);
        match self.mode {
            Mode::Msg => {
                target.post("prepare", &body).await;
                match self.end {
                    End::Yes => drop(target.post("submit", &body).await),
                    End::No(_) => drop(target.post("abort", &body).await),
                    End::Away | End::AwayNo | End::Late => {}
                }
            }
            Mode::Saga | Mode::Concurrent => drop(target.post("submit", &body).await),
            Mode::Tcc | Mode::Xa => {
                target.post("prepare", &body).await;
                let mut route = "submit";
                for step in 0..STEPS {
                    if !self.register_and_try(gid, step, book, target).await {
                        route = "abort";
                        break;
                    }
                }
                if !self.goes_away() {
                    target.post(route, &body).await;
                }
            }
            Mode::Workflow => {
                let stop_after = (self.end == End::Away).then_some(1);
                let _ = run_workflow(self, gid, book, target, stop_after).await; // `check` finds what became of it
            }
        }
    }

    /// As dtm's clients do it: the branch is known to the server before anything is tried.
    async fn register_and_try(self, gid: &str, step: usize, book: &Book, target: &Target) -> bool {
        let branch_id = branch_id(step);
        let url = book.branch(Word::Yes, self.flaky);
        let body = json!({ "gid": gid, "trans_type": self.trans_type(), "branch_id": branch_id, "data": "{}",
            "confirm": url, "cancel": url, "url": url });
        let registered = target.post("registerBranch", &body).await;
        registered.status == 200 && book.act(gid, &branch_id, "try", self.word(step))
    }

    /// Waits for the end, and holds it against the book. Returns the calls that were made until then.
    pub async fn check(self, gid: &str, book: &Book, target: &Target, within: Duration) -> usize {
        let end = target.end_of(gid, within).await;
        let calls = book.calls(gid);
        let told = || format!("{gid} ended as `{end}`: {:#?}", book.branches_of(gid));
        assert_eq!(end, if self.succeeds() { "succeed" } else { "failed" }, "{}", told());
        let (forward, undo, confirm) = match self.mode {
            Mode::Msg => ("action", "none", None),
            Mode::Saga | Mode::Concurrent => ("action", "compensate", None),
            Mode::Tcc => ("try", "cancel", Some("confirm")),
            Mode::Xa => ("try", "rollback", Some("commit")),
            Mode::Workflow => ("action", "rollback", None),
        };
        for step in 0..STEPS {
            let branch = book.branch_of(gid, &branch_id(step));
            let did = |op: &str| branch.effects.contains(op);
            let was_called = |op: &str| branch.called.iter().any(|called| called == op);
            if self.succeeds() {
                assert!(did(forward), "step {step} is not done; {}", told());
                assert!(confirm.is_none_or(did), "step {step} is not confirmed; {}", told());
                assert!(!did(undo) && !was_called(undo), "step {step} was undone; {}", told());
                continue;
            }
            assert_eq!(did(forward), did(undo), "step {step} is half done; {}", told());
            assert!(confirm.is_none_or(|op| !did(op) && !was_called(op)), "step {step} was confirmed; {}", told());
            if forward == "action" && self.mode != Mode::Workflow && self.mode != Mode::Msg {
                // Whoever was asked may have done it, whatever he answered: he must be asked to undo it.
                assert!(!was_called(forward) || was_called(undo), "step {step} may have run; {}", told());
            }
            assert!(self.mode != Mode::Msg || !was_called(forward), "step {step} was delivered; {}", told());
        }
        calls
    }
}

pub fn branch_id(step: usize) -> String {
    format!("{:02}", step + 1)
}

/// A workflow's function, as an SDK runs it: what is known to be done is not done again. `stop_after`: its process is
/// gone after so many steps. Run by its client first, and by whoever is called back; the error is that of the one who
/// finds that the other has come to the end meanwhile.
pub async fn run_workflow(
    flow: Flow,
    gid: &str,
    book: &Book,
    target: &Target,
    stop_after: Option<usize>,
) -> Result<(), String> {
    let reply = target.post("prepareWorkflow", &flow.body(gid, book)).await;
    if reply.json["transaction"]["status"] != "prepared" {
        return Ok(()); // somebody else came to its end
    }
    let known = |branch_id: &str, op: &str| {
        let rows = reply.json["progresses"].as_array().unwrap();
        rows.iter().any(|row| row["branch_id"] == branch_id && row["op"] == op)
    };
    let register = async |branch_id: &str, op: &str, status: &str| {
        let body = json!({ "gid": gid, "trans_type": "workflow", "branch_id": branch_id, "op": op, "status": status });
        match target.post("registerBranch", &body).await {
            reply if reply.status == 200 => Ok(()),
            reply => Err(reply.json.to_string()),
        }
    };
    let mut status = "succeed";
    for step in 0..STEPS {
        let branch_id = branch_id(step);
        let word = flow.word(step);
        if stop_after == Some(step) {
            return Ok(());
        }
        if !known(&branch_id, "action") {
            let done = book.act(gid, &branch_id, "action", word);
            register(&branch_id, "action", if done { "succeed" } else { "failed" }).await?;
        }
        if word == Word::No {
            status = "failed";
            break;
        }
    }
    if status == "failed" {
        for step in (0..STEPS).rev().filter(|step| flow.end != End::No(*step)) {
            let branch_id = branch_id(step);
            if !known(&branch_id, "rollback") {
                book.act(gid, &branch_id, "rollback", Word::Yes);
                register(&branch_id, "rollback", "succeed").await?;
            }
        }
    }
    let end = json!({ "gid": gid, "trans_type": "workflow",
        "req_extra": { "status": status, "result": "", "rollback_reason": if status == "failed" { "no" } else { "" } } });
    target.post("submit", &end).await;
    Ok(())
}
