//! A real HTTP service with the branches of global transactions: answers as it is told, and notes every call.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode, Uri};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// One call, as it came in.
#[derive(Debug, Clone)]
pub struct Call {
    pub method: Method,
    pub path: String,
    pub query: Vec<(String, String)>,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Call {
    pub fn param(&self, name: &str) -> &str {
        self.query.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// `op/branch_id`, such as `action/01`.
    pub fn step(&self) -> String {
        format!("{}/{}", self.param("op"), self.param("branch_id"))
    }
}

#[derive(Debug, Clone)]
struct Told {
    status: u16,
    body: String,
    after: Duration,
}

#[derive(Default)]
struct Inner {
    calls: Mutex<Vec<Call>>,
    /// By path: answers in turn; the last one stays.
    answers: Mutex<HashMap<String, VecDeque<Told>>>,
    /// Calls under way, and those that came while the same one was.
    running: Mutex<(Vec<String>, Vec<String>)>,
}

#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
    pub base: String,
}

impl Service {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let inner = Arc::new(Inner::default());
        let router = Router::new().fallback(answer).with_state(inner.clone());
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
        Self { inner, base }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// What `path` answers from now on: each in turn, the last one for ever.
    pub fn answers(&self, path: &str, answers: &[(u16, &str)]) {
        let told = answers
            .iter()
            .map(|(status, body)| Told { status: *status, body: (*body).to_owned(), after: Duration::ZERO })
            .collect();
        self.inner.answers.lock().unwrap().insert(path.to_owned(), told);
    }

    /// `path` answers 200, but only `after` so long.
    pub fn slow(&self, path: &str, after: Duration) {
        let told = Told { status: 200, body: String::new(), after };
        self.inner.answers.lock().unwrap().insert(path.to_owned(), VecDeque::from([told]));
    }

    pub fn calls(&self, gid: &str) -> Vec<Call> {
        self.inner.calls.lock().unwrap().iter().filter(|call| call.param("gid") == gid).cloned().collect()
    }

    pub fn all_calls(&self) -> Vec<Call> {
        self.inner.calls.lock().unwrap().clone()
    }

    /// The steps of a transaction in the order of their calls.
    pub fn steps(&self, gid: &str) -> Vec<String> {
        self.calls(gid).iter().map(Call::step).collect()
    }

    /// Calls that came while the very same one was under way: it was driven twice at once.
    pub fn doubled(&self) -> Vec<String> {
        self.inner.running.lock().unwrap().1.clone()
    }

    pub async fn wait_for_calls(&self, gid: &str, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.calls(gid).len() < count {
            assert!(Instant::now() < deadline, "{gid}: {:?}, not {count} calls", self.steps(gid));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn answer(
    State(inner): State<Arc<Inner>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let query = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let path = uri.path().to_owned();
    let call = Call { method, path: path.clone(), query, headers, body };
    let name = format!("{}/{}", call.param("gid"), call.step());
    inner.calls.lock().unwrap().push(call);
    let told = {
        let mut answers = inner.answers.lock().unwrap();
        match answers.get_mut(&path) {
            None => Told { status: 200, body: r#"{"dtm_result":"SUCCESS"}"#.into(), after: Duration::ZERO },
            Some(queue) if queue.len() > 1 => queue.pop_front().unwrap(),
            Some(queue) => queue[0].clone(),
        }
    };
    {
        let mut running = inner.running.lock().unwrap();
        if running.0.contains(&name) {
            running.1.push(name.clone());
        }
        running.0.push(name.clone());
    }
    tokio::time::sleep(told.after).await;
    let mut running = inner.running.lock().unwrap();
    let place = running.0.iter().position(|other| *other == name).unwrap();
    running.0.remove(place);
    (StatusCode::from_u16(told.status).unwrap(), told.body).into_response()
}
