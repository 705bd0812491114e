//! One keep-alive connection to an order endpoint, one call at a time.
//!
//! Each delivery worker holds one of these: no pool, no lock, and the number of workers is the bound on concurrency.
//! Over plain TCP it is [`Plain`], over TLS hyper.

use super::plain::Plain;
use crate::dial::{Sender, dial};
use crate::domain::sale::Endpoint;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::HeaderValue;
use hyper::{Request, StatusCode};
use std::sync::Arc;
use std::time::Duration;

/// Longest answer of an order endpoint that is read; a hundred results of bulk mode fit many times.
pub(super) const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// A call that brought no answer: nobody knows if the order exists.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no answer within {0} ms")]
    Timeout(u64),
    #[error("cannot connect: {0}")]
    Connect(String),
    #[error("the connection broke: {0}")]
    Broken(String),
    #[error("the answer is longer than {ANSWER_BYTES_MAX} bytes, or broke off: {0}")]
    Body(String),
}

/// Where to call, taken apart once.
#[derive(Debug, Clone)]
pub struct Target {
    pub endpoint: Endpoint,
    /// The sale's endpoint that this was made of: another one is another target.
    pub of: Endpoint,
    host: String,
    port: u16,
    tls: bool,
    authority: HeaderValue,
    /// Path with the endpoint's own query, ending in `?` or `&`: the call's parameters follow.
    path: String,
}

impl Target {
    /// `None` for a URL that [`Endpoint::check`] would not have passed.
    pub fn new(endpoint: Endpoint) -> Option<Self> {
        let url = url::Url::parse(&endpoint.url).ok()?;
        let host = url.host_str()?.trim_start_matches('[').trim_end_matches(']').to_owned();
        let authority = match url.port() {
            Some(port) => format!("{}:{port}", url.host_str()?),
            None => url.host_str()?.to_owned(),
        };
        let path = match url.query() {
            Some(query) => format!("{}?{query}&", url.path()),
            None => format!("{}?", url.path()),
        };
        Some(Self {
            host,
            port: url.port_or_known_default()?,
            tls: url.scheme() == "https",
            authority: HeaderValue::from_str(&authority).ok()?,
            path,
            of: endpoint.clone(),
            endpoint,
        })
    }
}

/// What one call carries besides its body.
pub struct Headers {
    pub query: String,
    pub idempotency_key: Option<HeaderValue>,
    pub traceparent: Option<HeaderValue>,
}

pub struct Connection {
    target: Arc<Target>,
    kept: Option<Kept>,
}

enum Kept {
    Plain(Plain),
    Hyper(Sender),
}

impl Connection {
    pub fn new(target: Arc<Target>) -> Self {
        Self { target, kept: None }
    }

    /// Posts `body`; the answer's status and body. One limit for everything, from connecting to the last byte.
    pub async fn post(&mut self, headers: Headers, body: Vec<u8>) -> Result<(StatusCode, Bytes), Error> {
        let timeout_ms = self.target.endpoint.timeout_ms;
        match tokio::time::timeout(Duration::from_millis(timeout_ms), self.try_post(headers, body)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                self.kept = None;
                Err(error)
            }
            Err(_) => {
                self.kept = None; // an answer that comes later must not be taken for the next call's
                Err(Error::Timeout(timeout_ms))
            }
        }
    }

    async fn try_post(&mut self, headers: Headers, body: Vec<u8>) -> Result<(StatusCode, Bytes), Error> {
        match self.target.tls {
            true => self.post_by_hyper(headers, body).await,
            false => self.post_plain(&headers, &body).await,
        }
    }

    async fn post_plain(&mut self, headers: &Headers, body: &[u8]) -> Result<(StatusCode, Bytes), Error> {
        let target = &self.target;
        let mut plain = match self.kept.take() {
            // It may have been closed meanwhile; that is known before anything is sent.
            Some(Kept::Plain(plain)) if plain.is_quiet() => plain,
            _ => Plain::connect(&target.host, target.port).await.map_err(|error| Error::Connect(error.to_string()))?,
        };
        let mut request = Vec::with_capacity(512 + body.len());
        let mut line = |parts: &[&[u8]]| parts.iter().for_each(|part| request.extend_from_slice(part));
        line(&[b"POST ", target.path.as_bytes(), headers.query.as_bytes(), b" HTTP/1.1\r\nhost: "]);
        line(&[target.authority.as_bytes(), b"\r\ncontent-type: application/json\r\n"]);
        for (name, value) in [("idempotency-key", &headers.idempotency_key), ("traceparent", &headers.traceparent)] {
            if let Some(value) = value {
                line(&[name.as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
            }
        }
        line(&[b"content-length: ", body.len().to_string().as_bytes(), b"\r\n\r\n", body]);
        let (status, answer, keep) = plain.call(&request).await?;
        if keep {
            self.kept = Some(Kept::Plain(plain));
        }
        Ok((status, answer))
    }

    async fn post_by_hyper(&mut self, headers: Headers, body: Vec<u8>) -> Result<(StatusCode, Bytes), Error> {
        // A kept connection may have been closed meanwhile; that is known before anything is sent.
        let kept = match self.kept.take() {
            Some(Kept::Hyper(mut sender)) => sender.ready().await.is_ok().then_some(sender),
            _ => None,
        };
        let mut sender = match kept {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let mut request = Request::post(format!("{}{}", self.target.path, headers.query))
            .header(hyper::header::HOST, &self.target.authority)
            .header(hyper::header::CONTENT_TYPE, "application/json");
        if let Some(key) = headers.idempotency_key {
            request = request.header("idempotency-key", key);
        }
        if let Some(traceparent) = headers.traceparent {
            request = request.header("traceparent", traceparent);
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(|error| Error::Connect(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(|error| Error::Broken(error.to_string()))?;
        let answer = read(response).await?;
        self.kept = Some(Kept::Hyper(sender));
        Ok(answer)
    }

    async fn connect(&self) -> Result<Sender, Error> {
        dial(&self.target.host, self.target.port, self.target.tls).await.map_err(Error::Connect)
    }
}

/// One GET on a connection of its own: for the audit's questions, which are few.
pub async fn get(url: &str, query: &str, timeout: Duration) -> Result<(StatusCode, Bytes), Error> {
    let target = Target::new(Endpoint::at(url)).ok_or_else(|| Error::Connect("not a URL to call".into()))?;
    let asking = async {
        let mut sender = Connection::new(Arc::new(target.clone())).connect().await?;
        let request = Request::get(format!("{}{query}", target.path))
            .header(hyper::header::HOST, &target.authority)
            .body(Full::new(Bytes::new()))
            .map_err(|error| Error::Connect(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(|error| Error::Broken(error.to_string()))?;
        read(response).await
    };
    tokio::time::timeout(timeout, asking).await.unwrap_or(Err(Error::Timeout(timeout.as_millis() as u64)))
}

async fn read(response: hyper::Response<hyper::body::Incoming>) -> Result<(StatusCode, Bytes), Error> {
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    Ok((status, body.map_err(|error| Error::Body(error.to_string()))?.to_bytes()))
}
