//! Global transactions beside the orders: sagas and two-phase messages whose branches refuse, fail and lose replies, and the
//! book of what took effect. The book is in this process, which nobody kills.
//!
//! A branch does what a service with a barrier does: an op takes effect once, and nothing after it was undone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::floor::{Cut, json_bytes, serve};
use crate::http::Api;

/// Transactions whose client is at work at the same time.
const AT_ONCE: usize = 32;
const BEGINS_EVERY: Duration = Duration::from_millis(60);
const STEPS: usize = 2;
/// A call that hangs on a sleeping node is made again elsewhere.
const PATIENCE: Duration = Duration::from_secs(2);
const AGAIN_AFTER: Duration = Duration::from_millis(50);
/// A client whose call nobody takes gives up: all nodes may be away for some seconds, not for a minute.
const CALL_WAIT_MAX: Duration = Duration::from_secs(60);

/// How a transaction is meant to go; its name is the beginning of its gid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Saga,
    /// The last step refuses: all is undone.
    Refused,
    Message,
    /// The client decides against it.
    Aborted,
    /// The client goes away, and its check-back says yes, or no.
    AwayYes,
    AwayNo,
}

const WAYS: [(Way, &str); 6] = [
    (Way::Saga, "saga"),
    (Way::Refused, "refused"),
    (Way::Message, "message"),
    (Way::Aborted, "aborted"),
    (Way::AwayYes, "away-yes"),
    (Way::AwayNo, "away-no"),
];

/// What became of one branch.
#[derive(Debug, Default, Clone)]
struct Branch {
    called: BTreeMap<String, u32>,
    effects: BTreeSet<String>,
    undone: bool,
}

#[derive(Default)]
struct Book {
    branches: HashMap<(String, String), Branch>,
}

pub struct Sagas {
    book: Arc<Mutex<Book>>,
    branches: SocketAddr,
    coordinator: Api,
    begun: Mutex<Vec<(String, Way)>>,
}

/// How they went.
#[derive(Debug, Default)]
pub struct Outcome {
    pub ended: u64,
    pub succeeded: u64,
    /// What does not agree, in words.
    pub wrong: Vec<String>,
}

impl Sagas {
    /// `coordinator` is asked, wherever that leads at the moment.
    pub async fn open(coordinator: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let branches = listener.local_addr()?;
        let book = Arc::<Mutex<Book>>::default();
        // Leaked, so that answering needs no count: a few hundred bytes a round.
        let serving: &'static Arc<Mutex<Book>> = Box::leak(Box::new(book.clone()));
        tokio::spawn(serve(listener, move |request| answer(serving, request)));
        Ok(Self { book, branches, coordinator: Api { address: coordinator }, begun: Mutex::default() })
    }

    /// Begins transactions until it is dropped, or `until`; waits then until each client has been answered.
    pub async fn run(self: Arc<Self>, name: String, until: Instant) {
        let mut clients = JoinSet::new();
        for number in 0usize.. {
            if Instant::now() >= until {
                break;
            }
            sleep(BEGINS_EVERY).await;
            while clients.len() >= AT_ONCE {
                clients.join_next().await;
            }
            let (way, word) = WAYS[number % WAYS.len()];
            let gid = format!("{word}-{name}-{number}");
            self.begun.lock().expect("no panic while locked").push((gid.clone(), way));
            let me = self.clone();
            clients.spawn(async move { me.play(&gid, way).await });
        }
        while clients.join_next().await.is_some() {}
    }

    async fn play(&self, gid: &str, way: Way) {
        let url = |word: &str| format!("http://{}/{word}", self.branches);
        let step = |at: usize| {
            let refuses = way == Way::Refused && at + 1 == STEPS;
            let word = if refuses { "no" } else { "yes" };
            json!({"action": url(word), "compensate": url("yes")})
        };
        let steps: Vec<_> = (0..STEPS).map(step).collect();
        let mut body = json!({"gid": gid, "trans_type": "saga", "steps": steps, "payloads": vec!["{}"; STEPS]});
        if matches!(way, Way::Saga | Way::Refused) {
            self.post("submit", &body).await;
            return;
        }
        body["trans_type"] = "msg".into();
        // Asked back before it could say so, a client that decides against it says no too.
        let says_no = matches!(way, Way::Aborted | Way::AwayNo);
        body["query_prepared"] = url(if says_no { "no" } else { "yes" }).into();
        self.post("prepare", &body).await;
        match way {
            Way::Message => self.post("submit", &body).await,
            Way::Aborted => self.post("abort", &body).await,
            _ => {}
        }
    }

    /// Repeated until it is answered for good.
    async fn post(&self, route: &str, body: &serde_json::Value) {
        let deadline = Instant::now() + CALL_WAIT_MAX;
        let path = format!("/api/dtmsvr/{route}");
        while Instant::now() < deadline {
            let called = timeout(PATIENCE, self.coordinator.call("POST", &path, Some(body))).await;
            if matches!(called, Ok(Ok((200 | 400 | 409, _)))) {
                return;
            }
            sleep(AGAIN_AFTER).await;
        }
    }

    /// After all is mended: waits until every transaction has ended, and holds each end against the book.
    pub async fn judge(&self, within: Duration) -> Outcome {
        let begun = self.begun.lock().expect("no panic while locked").clone();
        let deadline = Instant::now() + within;
        let mut outcome = Outcome::default();
        for (gid, way) in begun {
            let status = self.end_of(&gid, deadline).await;
            outcome.ended += 1;
            outcome.succeeded += u64::from(status == "succeed");
            if let Err(wrong) = self.check(&gid, way, &status) {
                outcome.wrong.push(wrong);
            }
        }
        outcome
    }

    async fn end_of(&self, gid: &str, deadline: Instant) -> String {
        loop {
            let path = format!("/api/dtmsvr/query?gid={gid}");
            let asked = self.coordinator.call("GET", &path, None);
            let status = match timeout(PATIENCE, asked).await {
                Ok(Ok((200, answer))) => answer["transaction"]["status"].as_str().unwrap_or("unknown").to_owned(),
                other => format!("{other:?}"),
            };
            if matches!(&*status, "succeed" | "failed") || Instant::now() >= deadline {
                return status;
            }
            sleep(AGAIN_AFTER).await;
        }
    }

    fn check(&self, gid: &str, way: Way, status: &str) -> Result<(), String> {
        let is_to_be = match way {
            Way::Saga | Way::Message | Way::AwayYes => "succeed",
            Way::Refused | Way::Aborted | Way::AwayNo => "failed",
        };
        let book = lock(&self.book);
        let branches: Vec<Branch> = (1..=STEPS)
            .map(|step| book.branches.get(&(gid.to_owned(), format!("{step:02}"))).cloned().unwrap_or_default())
            .collect();
        let say = |what: &str| Err(format!("{gid} is `{status}`, {what}: {branches:?}"));
        if status != is_to_be {
            return say(&format!("and should be `{is_to_be}`"));
        }
        for branch in &branches {
            let did = |op: &str| branch.effects.contains(op);
            let was_called = |op: &str| branch.called.contains_key(op);
            if status == "succeed" && !did("action") {
                return say("and a step is not done");
            }
            if status == "succeed" && was_called("compensate") {
                return say("and a step was undone");
            }
            if status == "failed" && did("action") != did("compensate") {
                return say("and a step is half done");
            }
            if status == "failed" && was_called("action") && !was_called("compensate") {
                return say("and a step that may have run was not undone");
            }
        }
        Ok(())
    }
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().expect("no panic while locked")
}

/// A branch call or a check-back.
async fn answer(book: &Mutex<Book>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let query = head.uri.query().unwrap_or_default();
    let named = |name: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).next().unwrap_or_default()
    };
    let (gid, branch_id, op) = (named("gid"), named("branch_id"), named("op"));
    // A body that breaks off ends the connection; there is nobody to tell.
    let _ = body.collect().await;
    let refuses = head.uri.path() == "/no";
    let answer = {
        let mut book = lock(book);
        let branch = book.branches.entry((gid, branch_id)).or_default();
        let calls = branch.called.entry(op.clone()).or_default();
        *calls += 1;
        let calls = *calls;
        let done = branch.act(&op, refuses);
        // The first calls of some fail, or lose their answer.
        match (fastrand::u32(..100), calls) {
            (0..5, 1..=2) => Err(true),
            (5..10, 1..=2) => Err(false),
            _ => Ok(done),
        }
    };
    match answer {
        Ok(true) => json_bytes(200, Bytes::from_static(b"{\"dtm_result\":\"SUCCESS\"}")),
        Ok(false) => json_bytes(409, Bytes::from_static(b"{\"dtm_result\":\"FAILURE\"}")),
        Err(false) => json_bytes(500, Bytes::from_static(b"{\"message\":\"not now\"}")),
        Err(true) => {
            let mut lost = json_bytes(200, Bytes::new());
            lost.extensions_mut().insert(Cut);
            lost
        }
    }
}

impl Branch {
    /// False: it refuses.
    fn act(&mut self, op: &str, refuses: bool) -> bool {
        match op {
            "action" if refuses || self.undone => false,
            "compensate" => {
                self.undone = true;
                if self.effects.contains("action") {
                    self.effects.insert(op.into());
                }
                true
            }
            "action" => {
                self.effects.insert(op.into());
                true
            }
            // A check-back.
            _ => !refuses,
        }
    }
}
