//! One keep-alive connection to an order endpoint, one call at a time.
//!
//! Each delivery worker holds one of these: no pool, no lock, and the number of workers is the bound on concurrency.

use crate::domain::sale::Endpoint;
use crate::domain::trace::TraceContext;
use crate::http1::{self, Address, Failed, Request};
use crate::outside;
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::HeaderValue;
use std::sync::Arc;
use std::time::Duration;

/// A call that brought no answer: nobody knows if the order exists.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no answer within {0} ms")]
    Timeout(u64),
    #[error(transparent)]
    Failed(#[from] Failed),
}

/// Where to call, taken apart once.
#[derive(Debug, Clone)]
pub struct Target {
    pub endpoint: Endpoint,
    /// The sale's endpoint that this was made of: another one is another target.
    pub of: Endpoint,
    address: Address,
}

impl Target {
    /// `None` for a URL that [`Endpoint::check`] would not have passed.
    pub fn new(endpoint: Endpoint) -> Option<Self> {
        Some(Self { address: Address::parse(&endpoint.url)?, of: endpoint.clone(), endpoint })
    }
}

/// What one call carries besides its body.
pub struct Headers {
    pub query: String,
    pub idempotency_key: Option<HeaderValue>,
    pub trace: Option<TraceContext>,
}

pub struct Connection {
    target: Arc<Target>,
    kept: Option<http1::Connection>,
}

impl Connection {
    pub fn new(target: Arc<Target>) -> Self {
        Self { target, kept: None }
    }

    /// Posts `body`; the answer's status and body. One limit for everything, from connecting to the last byte.
    pub async fn post(&mut self, headers: Headers, body: Vec<u8>) -> Result<(StatusCode, Bytes), Error> {
        if let Some(outside) = outside::current() {
            let timeout_ms = self.target.endpoint.timeout_ms;
            let answer = outside.post(&self.target.endpoint.url, &headers.query, body);
            let answer = tokio::time::timeout(Duration::from_millis(timeout_ms), answer).await;
            return answer.map_err(|_| Error::Timeout(timeout_ms))?.map_err(|why| Failed::Broken(why).into());
        }
        let address = &self.target.address;
        let mut request = Request::new("POST", address, &address.with_query(&headers.query))
            .field("content-type", b"application/json");
        if let Some(key) = &headers.idempotency_key {
            request = request.field("idempotency-key", key.as_bytes());
        }
        if let Some(trace) = &headers.trace {
            request = request.field("traceparent", trace.parent().as_bytes());
            if let Some(state) = trace.state() {
                request = request.field("tracestate", state.as_bytes());
            }
        }
        self.call(&request.with_body(&body), Duration::from_millis(self.target.endpoint.timeout_ms)).await
    }

    /// The connection is put back only when an answer was read to its end: one that comes after the time limit must not
    /// be taken for the next call's.
    async fn call(&mut self, request: &[u8], limit: Duration) -> Result<(StatusCode, Bytes), Error> {
        let calling = http1::call(&self.target.address, request, || self.kept.take());
        let called = tokio::time::timeout(limit, calling).await;
        let (answer, connection) = called.map_err(|_| Error::Timeout(limit.as_millis() as u64))??;
        self.kept = Some(connection);
        Ok((answer.status, answer.body))
    }
}

/// One GET on a connection of its own: for the audit's questions, which are few.
pub async fn get(url: &str, query: &str, timeout: Duration) -> Result<(StatusCode, Bytes), Error> {
    let target = Target::new(Endpoint::at(url)).ok_or_else(|| Failed::Connect("not a URL to call".into()))?;
    let request = Request::new("GET", &target.address, &target.address.with_query(query)).without_body();
    Connection::new(Arc::new(target)).call(&request, timeout).await
}
