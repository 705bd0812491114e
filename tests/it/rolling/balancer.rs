//! What stands in front of two nodes: it asks each if it is ready, sends each request to one that is, and to the other only
//! when a connection was refused, for then nothing was sent. Whatever else goes wrong is a failed request, and noted.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A tenth of the pause that the nodes make for it.
const LOOK_EVERY: Duration = Duration::from_millis(40);
/// One of two nodes is always there: whoever finds none for so long has found a hole.
const NODE_WAIT_MAX: Duration = Duration::from_secs(20);
const AGAIN_AFTER: Duration = Duration::from_millis(5);

type Caller = Client<HttpConnector, Full<Bytes>>;

/// The protocol that a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    Http1,
    Http2,
}

pub struct Heard {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: HeaderMap,
}

impl Heard {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

struct Inner {
    bases: [String; 2],
    ready: [AtomicBool; 2],
    turn: AtomicUsize,
    http1: Caller,
    http2: Caller,
    answered: AtomicUsize,
    failed: Mutex<Vec<String>>,
}

#[derive(Clone)]
pub struct Balancer {
    inner: Arc<Inner>,
}

impl Balancer {
    /// In front of what listens at these ports.
    pub fn new(ports: [u16; 2]) -> Self {
        // A client that sends a request again by itself would hide that the first time went wrong.
        let caller =
            |http2| Client::builder(TokioExecutor::new()).http2_only(http2).retry_canceled_requests(false).build_http();
        let inner = Arc::new(Inner {
            bases: ports.map(|port| format!("http://127.0.0.1:{port}")),
            ready: [true, true].map(AtomicBool::new),
            turn: AtomicUsize::new(0),
            http1: caller(false),
            http2: caller(true),
            answered: AtomicUsize::new(0),
            failed: Mutex::default(),
        });
        for node in 0..2 {
            let weak = Arc::downgrade(&inner);
            tokio::spawn(async move {
                let probe: Caller = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
                while let Some(inner) = weak.upgrade() {
                    let uri = format!("{}/readyz", inner.bases[node]).parse().unwrap();
                    let ready = probe.get(uri).await.is_ok_and(|reply| reply.status() == StatusCode::OK);
                    inner.ready[node].store(ready, Ordering::Relaxed);
                    drop(inner);
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            });
        }
        Self { inner }
    }

    /// Good answers so far.
    pub fn answered(&self) -> usize {
        self.inner.answered.load(Ordering::Relaxed)
    }

    pub fn failed(&self) -> Vec<String> {
        self.inner.failed.lock().unwrap().clone()
    }

    pub fn fail(&self, what: String) {
        self.inner.failed.lock().unwrap().push(what);
    }

    pub fn good(&self) {
        self.inner.answered.fetch_add(1, Ordering::Relaxed);
    }

    fn node(&self) -> usize {
        let turn = self.inner.turn.fetch_add(1, Ordering::Relaxed) % 2;
        [turn, 1 - turn].into_iter().find(|node| self.inner.ready[*node].load(Ordering::Relaxed)).unwrap_or(turn)
    }

    /// One request; `None`: it failed, and that is noted.
    pub async fn ask(
        &self,
        over: Over,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Option<Heard> {
        let client = if over == Over::Http2 { &self.inner.http2 } else { &self.inner.http1 };
        let deadline = Instant::now() + NODE_WAIT_MAX;
        loop {
            let node = self.node();
            let mut request =
                Request::builder().method(method.clone()).uri(format!("{}{path}", self.inner.bases[node]));
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let heard = async {
                let response = client.request(request.body(Full::new(body.clone())).unwrap()).await?;
                let (head, body) = response.into_parts();
                Ok::<_, hyper_util::client::legacy::Error>((head, body.collect().await))
            };
            match heard.await {
                Ok((head, Ok(body))) => {
                    let trailers = body.trailers().cloned().unwrap_or_default();
                    return Some(Heard { status: head.status, headers: head.headers, body: body.to_bytes(), trailers });
                }
                Err(error) if error.is_connect() && Instant::now() < deadline => {
                    self.inner.ready[node].store(false, Ordering::Relaxed);
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    self.fail(format!("{over:?} {path} at node {node}: {error}: {cause}"));
                    return None;
                }
                Ok((head, Err(error))) => {
                    self.fail(format!("{over:?} {path} at node {node}: {} and then {error}", head.status));
                    return None;
                }
            }
        }
    }
}
