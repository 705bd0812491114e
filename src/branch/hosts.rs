//! Kept-alive HTTP/1 connections by host, and a bound on the calls that one host gets at a time.
//!
//! The bound is what paces recovery: after an outage thousands of transactions are due at once, and a service that has
//! just come back must not be knocked over by them.

use crate::dial::{Sender, dial};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Longest answer of a branch that is read: only words and a reason are looked for in it.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// As many as Go's client, which dtm's users are used to, follows.
const REDIRECTS_MAX: usize = 10;
/// Connections kept open to a host while it is not called. As many as call it at once by default: with fewer, a busy
/// host costs a new connection for every few calls.
const IDLE_MAX: usize = 256;
/// URLs that are remembered; they come from clients, so there must be a bound. Above it the unused hosts are forgotten.
const URLS_MAX: usize = 4_096;

/// A call that brought no answer: nobody knows if it had an effect.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("`{0}` is no http or https URL")]
    Url(String),
    #[error("no answer within {0} ms")]
    Timeout(u128),
    /// Nothing was sent: so many calls to this host are under way that it never was this one's turn.
    #[error("not called: other calls to this host took more than {0} ms")]
    NoTurn(u128),
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
    pub headers: Arc<HeaderMap>,
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

    fn with_query(&self, query: &str) -> String {
        if query.is_empty() {
            return self.path.clone();
        }
        let mut path = String::with_capacity(self.path.len() + 1 + query.len());
        path.push_str(&self.path);
        path.push(if self.path.contains('?') { '&' } else { '?' });
        path.push_str(query);
        path
    }
}

type Key = (bool, String, u16);

struct Host {
    permits: Semaphore,
    idle: Mutex<Vec<Sender>>,
}

/// A URL as it was taken apart, with the connections it goes to.
struct Known {
    target: Target,
    host: Arc<Host>,
}

pub struct Hosts {
    hosts: Mutex<HashMap<Key, Arc<Host>>>,
    /// By URL: a service has few, and taking one apart costs as much as writing it.
    known: Mutex<HashMap<String, Arc<Known>>>,
    calls_max: usize,
}

impl Hosts {
    pub fn new(calls_max: usize) -> Self {
        Self { hosts: Mutex::default(), known: Mutex::default(), calls_max }
    }

    /// Sends and reads the answer. The time limit holds twice: for the wait for a turn at this host, so that those who
    /// wait for a slow host do not take the place of others for long, and then for the call.
    pub async fn send(&self, url: &str, request: &Request, timeout: Duration) -> Result<(StatusCode, Bytes), Error> {
        let bad_url = || Error::Url(url.to_owned());
        let mut known = self.known(url).ok_or_else(bad_url)?;
        let mut path = known.target.with_query(&request.query);
        let mut redirected: Option<Request> = None;
        for _ in 0..=REDIRECTS_MAX {
            let request = redirected.as_ref().unwrap_or(request);
            let here = known.clone();
            let _turn = turn(&here.host.permits, timeout).await.ok_or(Error::NoTurn(timeout.as_millis()))?;
            let answer = tokio::time::timeout(timeout, here.host.send(&here.target, &path, request)).await;
            let (head, body) = answer.map_err(|_| Error::Timeout(timeout.as_millis()))??;
            let location = head.headers.get(LOCATION).and_then(|value| value.to_str().ok());
            let Some(location) = location.filter(|_| head.status.is_redirection()) else {
                return Ok((head.status, body));
            };
            let scheme = if here.target.tls { "https" } else { "http" };
            let next = url::Url::parse(&format!("{scheme}://{}{path}", here.target.authority))
                .and_then(|base| base.join(location))
                .map_err(|_| bad_url())?;
            let target = Target::parse(next.as_str()).ok_or_else(|| Error::Url(next.to_string()))?;
            let mut request = request.clone();
            if ![StatusCode::TEMPORARY_REDIRECT, StatusCode::PERMANENT_REDIRECT].contains(&head.status) {
                request.method = Method::GET;
                request.body = Bytes::new();
                Arc::make_mut(&mut request.headers).remove(CONTENT_TYPE);
            }
            redirected = Some(request);
            path.clone_from(&target.path);
            known = Arc::new(Known { host: self.host(&target), target });
        }
        Err(Error::Redirects)
    }

    fn known(&self, url: &str) -> Option<Arc<Known>> {
        let lock = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(url) {
            return Some(known.clone());
        }
        let target = Target::parse(url)?;
        let known = Arc::new(Known { host: self.host(&target), target });
        let mut all = lock();
        if all.len() >= URLS_MAX {
            all.clear();
            let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
            hosts.retain(|_, host| Arc::strong_count(host) > 1);
        }
        all.insert(url.to_owned(), known.clone());
        Some(known)
    }

    fn host(&self, target: &Target) -> Arc<Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let host = || Host { permits: Semaphore::new(self.calls_max), idle: Mutex::default() };
        hosts.entry((target.tls, target.host.clone(), target.port)).or_insert_with(|| Arc::new(host())).clone()
    }
}

impl Host {
    async fn send(&self, target: &Target, path: &str, request: &Request) -> Result<(Parts, Bytes), Error> {
        let bad_url = || Error::Url(format!("{}{path}", target.authority));
        let mut message = hyper::Request::new(Full::new(request.body.clone()));
        *message.method_mut() = request.method.clone();
        *message.uri_mut() = Uri::try_from(path).map_err(|_| bad_url())?;
        let headers = message.headers_mut();
        headers.clone_from(&request.headers);
        headers.remove(CONTENT_LENGTH); // hyper knows it
        if !headers.contains_key(HOST) {
            headers.insert(HOST, HeaderValue::from_str(&target.authority).map_err(|_| bad_url())?);
        }
        loop {
            let kept = self.take_idle().await;
            let fresh = kept.is_none();
            let mut sender = match kept {
                Some(sender) => sender,
                None => connect(target).await?,
            };
            match sender.try_send_request(message).await {
                Ok(response) => {
                    let (head, body) = response.into_parts();
                    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
                    let body = body.map_err(|error| Error::Body(error.to_string()))?.to_bytes();
                    self.keep(sender);
                    return Ok((head, body));
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

/// One of the calls that a host gets at a time; `None` if it takes longer than `patience` until it is this one's turn.
pub async fn turn(permits: &Semaphore, patience: Duration) -> Option<SemaphorePermit<'_>> {
    if let Ok(turn) = permits.try_acquire() {
        return Some(turn);
    }
    let turn = tokio::time::timeout(patience, permits.acquire()).await.ok()?;
    Some(turn.expect("the semaphore is never closed"))
}

async fn connect(target: &Target) -> Result<Sender, Error> {
    dial(&target.host, target.port, target.tls).await.map_err(Error::Connect)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_follow_the_query_that_is_there() {
        let path = |url: &str| Target::parse(url).unwrap().with_query("gid=g");
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
