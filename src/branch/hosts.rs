//! Kept-alive HTTP/1 connections by host, and a bound on the calls that one host gets at a time.
//!
//! The bound is what paces recovery: after an outage thousands of transactions are due at once, and a service that has
//! just come back must not be knocked over by them.

use crate::dial::{Sender, dial};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Longest answer of a branch that is read: only words and a reason are looked for in it.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// As many as Go's client, which dtm's users are used to, follows.
const REDIRECTS_MAX: usize = 10;
/// Connections kept open to a host while it is not called.
const IDLE_MAX: usize = 64;
/// Hosts that are remembered; URLs come from clients, so there must be a bound. Above it the unused are forgotten.
const HOSTS_MAX: usize = 4_096;

/// A call that brought no answer: nobody knows if it had an effect.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("`{0}` is no http or https URL")]
    Url(String),
    #[error("no answer within {0} ms")]
    Timeout(u128),
    #[error("cannot connect: {0}")]
    Connect(String),
    #[error("the connection broke: {0}")]
    Broken(String),
    #[error("the answer is longer than {ANSWER_BYTES_MAX} bytes, or broke off: {0}")]
    Body(String),
    #[error("more than {REDIRECTS_MAX} redirects")]
    Redirects,
}

/// What to send, wherever it is sent.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: Method,
    /// Added to the query that the URL has.
    pub query: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// A URL, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    tls: bool,
    host: String,
    port: u16,
    authority: String,
    /// With the query.
    path: String,
}

impl Target {
    pub fn parse(url: &str) -> Option<Self> {
        let url = url::Url::parse(url).ok()?;
        let tls = match url.scheme() {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let host = url.host_str().filter(|host| !host.is_empty())?;
        let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        Some(Self {
            tls,
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: url.port_or_known_default()?,
            authority,
            path: url[url::Position::BeforePath..url::Position::AfterQuery].to_owned(),
        })
    }

    fn with_query(mut self, query: &str) -> Self {
        if !query.is_empty() {
            self.path.push(if self.path.contains('?') { '&' } else { '?' });
            self.path.push_str(query);
        }
        self
    }
}

type Key = (bool, String, u16);

struct Host {
    permits: Semaphore,
    idle: Mutex<Vec<Sender>>,
}

pub struct Hosts {
    hosts: Mutex<HashMap<Key, Arc<Host>>>,
    calls_max: usize,
}

impl Hosts {
    pub fn new(calls_max: usize) -> Self {
        Self { hosts: Mutex::default(), calls_max }
    }

    /// Sends and reads the answer. The time limit does not count the wait for a turn at this host.
    pub async fn send(&self, url: &str, request: &Request, timeout: Duration) -> Result<(StatusCode, Bytes), Error> {
        let bad_url = || Error::Url(url.to_owned());
        let mut target = Target::parse(url).ok_or_else(bad_url)?.with_query(&request.query);
        let mut request = request.clone();
        for _ in 0..=REDIRECTS_MAX {
            let host = self.host(&target);
            let _turn = host.permits.acquire().await.expect("the semaphore is never closed");
            let answer = tokio::time::timeout(timeout, host.send(&target, &request)).await;
            let (status, headers, body) = answer.map_err(|_| Error::Timeout(timeout.as_millis()))??;
            let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
            let Some(location) = location.filter(|_| status.is_redirection()) else { return Ok((status, body)) };
            let scheme = if target.tls { "https" } else { "http" };
            let next = url::Url::parse(&format!("{scheme}://{}{}", target.authority, target.path))
                .and_then(|base| base.join(location))
                .map_err(|_| bad_url())?;
            target = Target::parse(next.as_str()).ok_or_else(|| Error::Url(next.to_string()))?;
            if ![StatusCode::TEMPORARY_REDIRECT, StatusCode::PERMANENT_REDIRECT].contains(&status) {
                request.method = Method::GET;
                request.body = Bytes::new();
                request.headers.remove(CONTENT_TYPE);
            }
        }
        Err(Error::Redirects)
    }

    fn host(&self, target: &Target) -> Arc<Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() >= HOSTS_MAX {
            hosts.retain(|_, host| Arc::strong_count(host) > 1);
        }
        let host = || Host { permits: Semaphore::new(self.calls_max), idle: Mutex::default() };
        hosts.entry((target.tls, target.host.clone(), target.port)).or_insert_with(|| Arc::new(host())).clone()
    }
}

impl Host {
    async fn send(&self, target: &Target, request: &Request) -> Result<(StatusCode, HeaderMap, Bytes), Error> {
        let mut head = hyper::Request::builder().method(&request.method).uri(&target.path);
        if let Some(headers) = head.headers_mut() {
            headers.clone_from(&request.headers);
            headers.remove(CONTENT_LENGTH); // hyper knows it
            let authority = HeaderValue::from_str(&target.authority).map_err(|_| Error::Url(target.path.clone()))?;
            headers.entry(HOST).or_insert(authority);
        }
        let mut message = head.body(Full::new(request.body.clone())).map_err(|error| Error::Url(error.to_string()))?;
        loop {
            let kept = self.take_idle().await;
            let fresh = kept.is_none();
            let mut sender = match kept {
                Some(sender) => sender,
                None => connect(target).await?,
            };
            match sender.try_send_request(message).await {
                Ok(response) => {
                    let (status, headers) = (response.status(), response.headers().clone());
                    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
                    let body = body.map_err(|error| Error::Body(error.to_string()))?.to_bytes();
                    self.keep(sender);
                    return Ok((status, headers, body));
                }
                Err(mut error) => match error.take_message() {
                    // A kept connection was closed before anything was sent on it.
                    Some(unsent) if !fresh => message = unsent,
                    _ => return Err(Error::Broken(error.into_error().to_string())),
                },
            }
        }
    }

    async fn take_idle(&self) -> Option<Sender> {
        loop {
            let mut sender = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            if !sender.is_closed() && sender.ready().await.is_ok() {
                return Some(sender);
            }
        }
    }

    fn keep(&self, sender: Sender) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX && !sender.is_closed() {
            idle.push(sender);
        }
    }
}

async fn connect(target: &Target) -> Result<Sender, Error> {
    dial(&target.host, target.port, target.tls).await.map_err(Error::Connect)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_follow_the_query_that_is_there() {
        let path = |url: &str| Target::parse(url).unwrap().with_query("gid=g").path;
        assert_eq!(path("http://h/a"), "/a?gid=g");
        assert_eq!(path("http://h/a?b=c#d"), "/a?b=c&gid=g");
        assert_eq!(path("http://h"), "/?gid=g");
        let target = Target::parse("https://[::1]/x").unwrap();
        assert_eq!((target.tls, target.host.as_str(), target.port), (true, "::1", 443));
        for bad in ["", "h:1/a", "ftp://h/a", "http://", "topic://t"] {
            assert_eq!(Target::parse(bad), None, "{bad}");
        }
    }
}
