//! A real service with the branches of global transactions, over HTTP, JSON-RPC and gRPC on one port: answers as it is
//! told, and notes every call.
//!
//! What it is told is told in HTTP: 200, 409 (no), 425 (not yet), anything else (unclear). Over the others it says the
//! same in their words.

use super::raw::Raw;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The path of JSON-RPC branches: `/json?method=NAME` is the branch `/NAME`.
pub const JSON_RPC: &str = "/json";
/// The service of gRPC branches: `HOST:PORT/busi.Busi/NAME` is the branch `/NAME`.
pub const GRPC: &str = "busi.Busi";

/// One call, as it came in; a JSON-RPC call's body is its parameters, without those that are in `query`.
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
    /// The most calls of a transaction that were under way at once, by gid.
    at_once: Mutex<HashMap<String, usize>>,
}

#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
    pub base: String,
    accepting: tokio::task::AbortHandle,
}

impl Service {
    pub async fn start() -> Self {
        Self::start_at("127.0.0.1:0").await
    }

    /// At this address, where one that was stopped may have been.
    pub async fn start_at(address: &str) -> Self {
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let inner = Arc::new(Inner::default());
        let router = Router::new().fallback(answer).with_state(inner.clone());
        let accepting = tokio::spawn(async move {
            use hyper_util::rt::{TokioExecutor, TokioIo};
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let service = hyper_util::service::TowerToHyperService::new(router.clone());
                connections.spawn(async move {
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { inner, base, accepting: accepting.abort_handle() }
    }

    /// Gone, with its connections.
    pub fn stop(&self) {
        self.accepting.abort();
    }

    /// `HOST:PORT`
    pub fn address(&self) -> &str {
        self.base.trim_start_matches("http://")
    }

    pub fn json_rpc_url(&self, path: &str) -> String {
        format!("{}{JSON_RPC}?method={}", self.base, path.trim_start_matches('/'))
    }

    pub fn grpc_url(&self, path: &str) -> String {
        format!("{}/{GRPC}{path}", self.address())
    }

    /// The most calls of this transaction that were under way at once.
    pub fn at_once(&self, gid: &str) -> usize {
        self.inner.at_once.lock().unwrap().get(gid).copied().unwrap_or_default()
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

async fn answer(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let is_grpc =
        request.headers().get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if is_grpc {
        let mut server = tonic::server::Grpc::new(Raw);
        return server.unary(Unary { inner, path }, request).await.map(Body::new);
    }
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let query: Vec<(String, String)> =
        url::form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let mut call = Call { method: head.method, path, query, headers: head.headers, body };
    if call.path != JSON_RPC {
        let told = inner.take(call).await;
        return (StatusCode::from_u16(told.status).unwrap(), told.body).into_response();
    }
    let mut sent: Value = serde_json::from_slice(&call.body).unwrap();
    assert_eq!(sent["method"], call.param("method"));
    let id = sent["id"].take();
    let params = sent["params"].as_object_mut().unwrap();
    call.path = format!("/{}", call.param("method"));
    for name in ["gid", "trans_type", "branch_id", "op"] {
        let value = params.remove(name).unwrap_or_else(|| panic!("{name} is not among the parameters"));
        call.query.push((name.to_owned(), value.as_str().unwrap().to_owned()));
    }
    call.body = serde_json::to_vec(params).unwrap().into();
    let told = inner.take(call).await;
    let code = match told.status {
        200 => return axum::Json(json!({ "jsonrpc": "2.0", "id": id, "result": {} })).into_response(),
        409 => -32901,
        425 => -32902,
        _ => -32603,
    };
    let error = json!({ "code": code, "message": told.body });
    axum::Json(json!({ "jsonrpc": "2.0", "id": id, "error": error })).into_response()
}

struct Unary {
    inner: Arc<Inner>,
    path: String,
}

impl tonic::server::UnaryService<Bytes> for Unary {
    type Response = Bytes;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<tonic::Response<Bytes>, tonic::Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        let inner = self.inner.clone();
        let headers = request.metadata().clone().into_headers();
        let param = |name: &str| {
            let value =
                headers.get(format!("dtm-{name}")).unwrap_or_else(|| panic!("dtm-{name} is not in the metadata"));
            (name.to_owned(), value.to_str().unwrap().to_owned())
        };
        let query = ["gid", "trans_type", "branch_id", "op", "dtm"].map(param).to_vec();
        let path = self.path.strip_prefix(&format!("/{GRPC}")).unwrap_or(&self.path).to_owned();
        let call = Call { method: Method::POST, path, query, headers, body: request.into_inner() };
        Box::pin(async move {
            let told = inner.take(call).await;
            match told.status {
                200 => Ok(tonic::Response::new(told.body.into())),
                409 => Err(tonic::Status::aborted(told.body)),
                425 => Err(tonic::Status::failed_precondition(told.body)),
                _ => Err(tonic::Status::internal(told.body)),
            }
        })
    }
}

impl Inner {
    /// Notes the call, and takes as long over it as it was told.
    async fn take(&self, call: Call) -> Told {
        let (gid, name) = (call.param("gid").to_owned(), format!("{}/{}", call.param("gid"), call.step()));
        let told = {
            let mut answers = self.answers.lock().unwrap();
            match answers.get_mut(&call.path) {
                None => Told { status: 200, body: r#"{"dtm_result":"SUCCESS"}"#.into(), after: Duration::ZERO },
                Some(queue) if queue.len() > 1 => queue.pop_front().unwrap(),
                Some(queue) => queue[0].clone(),
            }
        };
        self.calls.lock().unwrap().push(call);
        {
            let mut running = self.running.lock().unwrap();
            if running.0.contains(&name) {
                running.1.push(name.clone());
            }
            running.0.push(name.clone());
            let now = running.0.iter().filter(|other| other.starts_with(&format!("{gid}/"))).count();
            let mut at_once = self.at_once.lock().unwrap();
            let most = at_once.entry(gid).or_default();
            *most = now.max(*most);
        }
        tokio::time::sleep(told.after).await;
        let mut running = self.running.lock().unwrap();
        let place = running.0.iter().position(|other| *other == name).unwrap();
        running.0.remove(place);
        told
    }
}
