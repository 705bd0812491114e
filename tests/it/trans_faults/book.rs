//! A real HTTP service whose branches behave as those with a barrier do, and which keeps a book of what took effect.
//!
//! How a branch behaves is in its URL: the first part of the path says whether it answers yes or no at last, and
//! whether it makes trouble before. So nothing has to be set up for one transaction, and hundreds can be under way.

use super::flow::{self, Flow};
use super::target::Target;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, Uri};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Calls of one branch that a flaky one answers badly, at most.
const TROUBLES_MAX: usize = 2;

/// What became of one branch of one transaction.
#[derive(Debug, Default, Clone)]
pub struct Branch {
    /// Every op that was called, as often as it was.
    pub called: Vec<String>,
    /// Every op that took effect, once.
    pub effects: BTreeSet<String>,
    /// It was undone, or told to undo what it had not done: nothing takes effect any more.
    pub closed: bool,
}

#[derive(Default)]
struct Pages {
    branches: HashMap<(String, String), Branch>,
    /// Calls of a transaction, check-backs and callbacks included.
    calls: HashMap<String, usize>,
    running: Vec<String>,
    doubled: Vec<String>,
    wrong: Vec<String>,
}

struct Inner {
    pages: Mutex<Pages>,
    /// For the workflow clients that are called back.
    target: Target,
    seed: u64,
    /// Calls of `slow` branches wait for it.
    hold: tokio::sync::watch::Sender<bool>,
    /// How long a flaky branch takes now and then.
    nap: Duration,
}

#[derive(Clone)]
pub struct Book {
    inner: Arc<Inner>,
    base: String,
}

/// What a branch is to answer, and how it gets there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    Yes,
    /// Refuses to do it; never refuses to undo it.
    No,
}

impl Book {
    pub async fn open(target: Target, seed: u64, nap: Duration) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let hold = tokio::sync::watch::Sender::new(false);
        let book = Self { inner: Arc::new(Inner { pages: Mutex::default(), target, seed, hold, nap }), base };
        let router = Router::new().fallback(answer).with_state(book.clone());
        tokio::spawn(async move {
            use hyper_util::rt::{TokioExecutor, TokioIo};
            while let Ok((stream, _)) = listener.accept().await {
                let service = hyper_util::service::TowerToHyperService::new(router.clone());
                tokio::spawn(async move {
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        book
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Where a branch is called that answers so.
    pub fn branch(&self, word: Word, flaky: bool) -> String {
        let word = if word == Word::Yes { "yes" } else { "no" };
        self.url(&format!("/{}{word}", if flaky { "flaky-" } else { "" }))
    }

    /// What a branch does when it is called, in the caller's own process too: `false`, it refuses.
    pub fn act(&self, gid: &str, branch_id: &str, op: &str, word: Word) -> bool {
        let mut pages = self.inner.pages.lock().unwrap();
        let branch = pages.branches.entry((gid.to_owned(), branch_id.to_owned())).or_default();
        match op {
            "action" | "try" => {
                if word == Word::No {
                    return false;
                }
                if branch.effects.contains(op) {
                    return true;
                }
                if !branch.closed {
                    branch.effects.insert(op.to_owned());
                }
                !branch.closed
            }
            "compensate" | "cancel" | "rollback" => {
                branch.closed = true;
                if branch.effects.contains("action") || branch.effects.contains("try") {
                    branch.effects.insert(op.to_owned());
                }
                let both = branch.effects.contains("confirm") || branch.effects.contains("commit");
                if both {
                    pages.wrong.push(format!("{gid} {branch_id}: {op} after the opposite"));
                }
                true
            }
            _ => {
                branch.effects.insert(op.to_owned());
                if branch.closed {
                    pages.wrong.push(format!("{gid} {branch_id}: {op} after the opposite"));
                }
                true
            }
        }
    }

    pub fn branch_of(&self, gid: &str, branch_id: &str) -> Branch {
        let key = (gid.to_owned(), branch_id.to_owned());
        self.inner.pages.lock().unwrap().branches.get(&key).cloned().unwrap_or_default()
    }

    /// Every branch of the transaction that was ever called.
    pub fn branches_of(&self, gid: &str) -> Vec<(String, Branch)> {
        let pages = self.inner.pages.lock().unwrap();
        let mut of: Vec<(String, Branch)> =
            pages.branches.iter().filter(|((g, _), _)| g == gid).map(|((_, id), b)| (id.clone(), b.clone())).collect();
        of.sort_by(|a, b| a.0.cmp(&b.0));
        of
    }

    /// Calls that came in for the transaction so far.
    pub fn calls(&self, gid: &str) -> usize {
        self.inner.pages.lock().unwrap().calls.get(gid).copied().unwrap_or(0)
    }

    /// Calls that came while the very same one was under way: it was driven twice at once.
    pub fn doubled(&self) -> Vec<String> {
        self.inner.pages.lock().unwrap().doubled.clone()
    }

    /// Branches that did one thing and its opposite.
    pub fn wrong(&self) -> Vec<String> {
        self.inner.pages.lock().unwrap().wrong.clone()
    }

    /// How many calls wait.
    pub fn held(&self) -> usize {
        self.inner.hold.receiver_count()
    }

    /// `slow` branches answer from now on.
    pub fn release(&self) {
        self.inner.hold.send_replace(true);
    }

    fn enter(&self, gid: &str, branch_id: &str, op: &str) -> (String, usize) {
        let mut pages = self.inner.pages.lock().unwrap();
        *pages.calls.entry(gid.to_owned()).or_default() += 1;
        let branch = pages.branches.entry((gid.to_owned(), branch_id.to_owned())).or_default();
        let earlier = branch.called.iter().filter(|called| *called == op).count();
        branch.called.push(op.to_owned());
        let name = format!("{gid} {branch_id} {op}");
        if pages.running.contains(&name) {
            pages.doubled.push(name.clone());
        }
        pages.running.push(name.clone());
        (name, earlier)
    }

    fn leave(&self, name: &str) {
        let mut pages = self.inner.pages.lock().unwrap();
        if let Some(place) = pages.running.iter().position(|running| running == name) {
            pages.running.swap_remove(place);
        }
    }
}

/// A call that is under way, also when its caller hangs up.
struct Running<'a>(&'a Book, String);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.leave(&self.1);
    }
}

async fn answer(State(book): State<Book>, uri: Uri) -> Response {
    let query: HashMap<String, String> =
        url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let param = |name: &str| query.get(name).cloned().unwrap_or_default();
    let (gid, branch_id, op) = (param("gid"), param("branch_id"), param("op"));
    let (name, earlier) = book.enter(&gid, &branch_id, &op);
    let _running = Running(&book, name.clone());
    let path = uri.path().trim_start_matches('/');
    if let Some(flow) = path.strip_prefix("workflow/") {
        let flow = Flow::parse(flow).expect("a flow wrote this URL");
        return match flow::run_workflow(flow, &gid, &book, &book.inner.target, None).await {
            Ok(()) => StatusCode::OK.into_response(),
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        };
    }
    let (word, flaky) = match path.strip_prefix("flaky-") {
        Some(word) => (word, true),
        None => (path, false),
    };
    let word_in_url = word;
    if word_in_url == "slow" {
        let mut hold = book.inner.hold.subscribe();
        let _ = hold.wait_for(|released| *released).await.map(|_| ());
    }
    let word = if word == "no" { Word::No } else { Word::Yes };
    if op == "msg" {
        let status = if word == Word::Yes { StatusCode::OK } else { StatusCode::CONFLICT };
        return status.into_response();
    }
    if word_in_url == "never" {
        book.act(&gid, &branch_id, &op, Word::Yes);
        return StatusCode::BAD_GATEWAY.into_response();
    }
    if flaky && let Some(trouble) = trouble(&book, &name, earlier) {
        return make_trouble(trouble, book.inner.nap, || book.act(&gid, &branch_id, &op, word)).await;
    }
    match book.act(&gid, &branch_id, &op, word) {
        true => StatusCode::OK.into_response(),
        false => (StatusCode::CONFLICT, "not that").into_response(),
    }
}

/// The same for the same seed, whatever happens around it. At first there is always trouble.
fn trouble(book: &Book, name: &str, earlier: usize) -> Option<u8> {
    if earlier >= TROUBLES_MAX {
        return None;
    }
    let hash = name.bytes().fold(book.inner.seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let dice = fastrand::Rng::with_seed(hash.wrapping_add(earlier as u64)).u8(..);
    (earlier == 0 || dice >= 128).then_some(dice)
}

async fn make_trouble(dice: u8, nap: Duration, act: impl Fn() -> bool) -> Response {
    match dice % 5 {
        0 => (StatusCode::INTERNAL_SERVER_ERROR, "before").into_response(),
        1 => {
            act();
            (StatusCode::BAD_GATEWAY, "after").into_response()
        }
        2 => StatusCode::TOO_EARLY.into_response(),
        3 => {
            act();
            // The connection breaks in the middle of the answer.
            let broken = futures_util::stream::iter([Ok(Bytes::from_static(b"{\"dtm")), Err("cut")]);
            Body::from_stream(broken).into_response()
        }
        _ => {
            tokio::time::sleep(nap).await;
            act();
            (StatusCode::SERVICE_UNAVAILABLE, "").into_response()
        }
    }
}
