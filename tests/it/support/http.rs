//! HTTP to one server, the way a buyer's application does it: connections are kept and used again.
//!
//! By hyper's connections and a list of those that are idle, not by hyper-util's client: hyper (1.12) can lose a request
//! that is handed to a connection in the moment in which that ends, once in some thousand kills, and then never says so.
//! Here the end of a connection is the end of what was asked on it.

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Longer than any answer that a test waits for.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(60);
/// What came over a connection before it ended is there by then.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    /// Null when the body is no JSON.
    pub json: Value,
    pub body: Bytes,
    /// From asking to the last byte.
    pub took: Duration,
}

impl Reply {
    /// The `code` of a problem document; empty otherwise.
    pub fn code(&self) -> &str {
        self.json["code"].as_str().unwrap_or_default()
    }

    pub fn gid(&self) -> Option<&str> {
        self.json["gid"].as_str()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub fn replayed(&self) -> bool {
        self.header("idempotency-replayed") == Some("true")
    }
}

/// Asks one server. Cheap to clone, so that many buyers can have one each.
#[derive(Clone)]
pub struct Http {
    base: String,
    idle: Arc<Mutex<Vec<Connection>>>,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    ended: JoinHandle<()>,
}

impl Http {
    /// At `http://HOST:PORT`, whoever listens there now or later.
    pub fn new(base: String) -> Self {
        Self { base, idle: Arc::default() }
    }

    /// `http://HOST:PORT`
    pub fn base(&self) -> &str {
        &self.base
    }

    /// `HOST:PORT`
    fn authority(&self) -> &str {
        self.base.strip_prefix("http://").unwrap_or_else(|| panic!("{:?} is no http://HOST:PORT", self.base))
    }

    /// Any request; the error is that of a connection that was refused or broke.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Reply, String> {
        let mut request = Request::builder().method(method).uri(path);
        if headers.iter().all(|(name, _)| *name != "host") {
            request = request.header("host", self.authority());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map(|json| serde_json::to_vec(json).unwrap()).unwrap_or_default();
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let doing = Mutex::new("");
        match tokio::time::timeout(ANSWER_WAIT_MAX, self.send(request, &doing)).await {
            Ok(reply) => reply,
            Err(_) => panic!("{path}: {} for {ANSWER_WAIT_MAX:?}", doing.lock().unwrap()),
        }
    }

    async fn send(&self, mut request: Request<Full<Bytes>>, doing: &Mutex<&str>) -> Result<Reply, String> {
        let started = Instant::now();
        let now = |what| *doing.lock().unwrap() = what;
        let (response, connection) = loop {
            let kept = self.idle.lock().unwrap().pop();
            now("connecting");
            let mut connection = match kept {
                Some(mut kept) => match kept.sender.ready().await {
                    Ok(()) => kept,
                    Err(_) => continue,
                },
                None => self.connect().await.map_err(|error| error.to_string())?,
            };
            now("waiting for the head of the answer");
            let mut asked = pin!(connection.sender.try_send_request(request));
            let answer = tokio::select! {
                biased;
                answer = &mut asked => answer,
                _ = &mut connection.ended => match tokio::time::timeout(LAST_WORDS, asked).await {
                    Ok(answer) => answer,
                    Err(_) => return Err("the connection ended, and hyper does not say what became of the request".into()),
                }
            };
            match answer {
                Ok(response) => break (response, connection),
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) => request = unsent, // the server had closed it while it was idle
                    None => return Err(failed.into_error().to_string()),
                },
            }
        };
        let (head, body) = response.into_parts();
        now("waiting for the rest of the answer");
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
        self.idle.lock().unwrap().push(connection);
        Ok(Reply {
            status: head.status.as_u16(),
            headers: head.headers,
            json: serde_json::from_slice(&body).unwrap_or_default(),
            body,
            took: started.elapsed(),
        })
    }

    async fn connect(&self) -> Result<Connection, Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect(self.authority()).await?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        let ended = tokio::spawn(async { drop(connection.await) });
        sender.ready().await?;
        Ok(Connection { sender, ended })
    }

    /// What is no JSON, such as `/metrics`.
    pub async fn text(&self, path: &str) -> String {
        let reply = self.ask(Method::GET, path, &[], None).await.unwrap_or_else(|error| panic!("GET {path}: {error}"));
        String::from_utf8_lossy(&reply.body).into_owned()
    }

    /// Places an order. `key` is its Idempotency-Key; empty for none.
    pub async fn try_order(&self, sale: &str, key: &str, order: &Value) -> Result<Reply, String> {
        let headers = [("idempotency-key", key)];
        let headers = if key.is_empty() { &headers[..0] } else { &headers[..] };
        self.ask(Method::POST, &format!("/v1/sales/{sale}/orders"), headers, Some(order)).await
    }
}
