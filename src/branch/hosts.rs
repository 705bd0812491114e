//! Kept-alive HTTP/1 connections by host, and a bound on the calls that one host gets at a time.
//!
//! The bound is what paces recovery: after an outage thousands of transactions are due at once, and a service that has
//! just come back must not be knocked over by them.

use super::connection::{self, Answer, Connection};
use crate::dial;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, Method, StatusCode};
use std::collections::HashMap;
use std::io::Write;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, SemaphorePermit};

/// As many as Go's client, which dtm's users are used to, follows.
const REDIRECTS_MAX: usize = 10;
/// Connections kept open to a host while it is not called. As many as call it at once by default: with fewer, a busy
/// host costs a new connection for every few calls.
const IDLE_MAX: usize = 256;
/// How often the kept connections of a host are looked at for those that it has closed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
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
    #[error("the answer is too long, or broke off: {0}")]
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

/// Can it be taken apart? That of the usual kind need not be.
pub fn is_callable(url: &str) -> bool {
    is_plain(url) || Target::parse(url).is_some()
}

/// Scheme, a host of small letters or an IPv4 address, perhaps a port: no rule of URLs refuses that, whatever follows.
fn is_plain(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")) else { return false };
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let (host, port) = authority.split_once(':').unwrap_or((authority, "80"));
    let is_label = |label: &str| {
        label.starts_with(|first: char| first.is_ascii_lowercase())
            && !label.starts_with("xn--")
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    let is_port = port.starts_with(|first: char| first.is_ascii_digit()) && port.parse::<u16>().is_ok();
    is_port && (host.split('.').all(is_label) || host.parse::<Ipv4Addr>().is_ok())
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
    idle: Mutex<Idle>,
}

/// Connections that nobody uses just now; the one used last is used next.
struct Idle {
    connections: Vec<Connection>,
    looked: Instant,
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
            let Answer { status, location, body } = answer.map_err(|_| Error::Timeout(timeout.as_millis()))??;
            let Some(location) = location.filter(|_| status.is_redirection()) else {
                return Ok((status, body));
            };
            let scheme = if here.target.tls { "https" } else { "http" };
            let next = url::Url::parse(&format!("{scheme}://{}{path}", here.target.authority))
                .and_then(|base| base.join(&location))
                .map_err(|_| bad_url())?;
            let target = Target::parse(next.as_str()).ok_or_else(|| Error::Url(next.to_string()))?;
            let mut request = request.clone();
            if ![StatusCode::TEMPORARY_REDIRECT, StatusCode::PERMANENT_REDIRECT].contains(&status) {
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
        let idle = || Mutex::new(Idle { connections: Vec::new(), looked: Instant::now() });
        let host = || Host { permits: Semaphore::new(self.calls_max), idle: idle() };
        hosts.entry((target.tls, target.host.clone(), target.port)).or_insert_with(|| Arc::new(host())).clone()
    }
}

impl Host {
    async fn send(&self, target: &Target, path: &str, request: &Request) -> Result<Answer, Error> {
        let message = message(target, path, request);
        loop {
            let kept = self.take_idle();
            let fresh = kept.is_none();
            let mut connection = match kept {
                Some(connection) => connection,
                None => connect(target).await?,
            };
            match connection.call(&message).await {
                Ok(answer) => {
                    self.keep(connection);
                    return Ok(answer);
                }
                // A kept connection was closed before anything was sent on it.
                Err(connection::Error::Unsent(_)) if !fresh => {}
                Err(connection::Error::Body(error)) => return Err(Error::Body(error.to_string())),
                Err(error) => return Err(Error::Broken(error.to_string())),
            }
        }
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_idle(&self) -> Option<Connection> {
        loop {
            let mut connection = self.idle().connections.pop()?;
            if connection.is_open() {
                return Some(connection);
            }
        }
    }

    fn keep(&self, mut connection: Connection) {
        if !connection.is_open() {
            return;
        }
        let mut idle = self.idle();
        if idle.looked.elapsed() >= LOOK_EVERY {
            idle.looked = Instant::now();
            idle.connections.retain_mut(Connection::is_open);
        }
        if idle.connections.len() < IDLE_MAX {
            idle.connections.push(connection);
        }
    }
}

/// The whole request, as bytes. Neither URLs that were taken apart nor header values can have a line's end in them.
fn message(target: &Target, path: &str, request: &Request) -> Vec<u8> {
    let mut message = Vec::with_capacity(256 + path.len() + request.body.len());
    let start = [request.method.as_str(), " ", path, " HTTP/1.1\r\n"];
    start.into_iter().for_each(|part| message.extend_from_slice(part.as_bytes()));
    let mut field = |name: &str, value: &[u8]| {
        [name.as_bytes(), b": ", value, b"\r\n"].into_iter().for_each(|part| message.extend_from_slice(part));
    };
    if !request.headers.contains_key(HOST) {
        field(HOST.as_str(), target.authority.as_bytes());
    }
    for (name, value) in request.headers.iter() {
        // How long the body is, is known here.
        if *name != CONTENT_LENGTH && *name != TRANSFER_ENCODING {
            field(name.as_str(), value.as_bytes());
        }
    }
    if !request.body.is_empty() || request.method != Method::GET {
        let _ = write!(message, "content-length: {}\r\n", request.body.len()); // a Vec takes all
    }
    message.extend_from_slice(b"\r\n");
    message.extend_from_slice(&request.body);
    message
}

/// One of the calls that a host gets at a time; `None` if it takes longer than `patience` until it is this one's turn.
pub async fn turn(permits: &Semaphore, patience: Duration) -> Option<SemaphorePermit<'_>> {
    if let Ok(turn) = permits.try_acquire() {
        return Some(turn);
    }
    let turn = tokio::time::timeout(patience, permits.acquire()).await.ok()?;
    Some(turn.expect("the semaphore is never closed"))
}

async fn connect(target: &Target) -> Result<Connection, Error> {
    let stream = dial::tcp(&target.host, target.port).await.map_err(Error::Connect)?;
    match target.tls {
        false => Ok(Connection::new(stream)),
        true => Ok(Connection::new(dial::encrypt(stream, &target.host).await.map_err(Error::Connect)?)),
    }
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

    #[test]
    fn what_looks_callable_at_first_sight_is() {
        let ends = ["", "/", "/a b?c=é#d", "?x", "#\u{1}", ":80/a", ":/a", ":0", ":65536", ":+1/a", ":8x", "@b", "\\x"];
        let hosts = "h localhost a.b-c.d1 127.0.0.1 999.1.1.1 1.2 a.1 1.a a..b . -a a- xn--a xn--a.b é H [::1] a_b %61 0x7f ab--c a.0x1";
        for host in hosts.split(' ').chain([""]) {
            for end in ends {
                let url = format!("http://{host}{end}");
                assert!(!is_plain(&url) || Target::parse(&url).is_some(), "{url}");
            }
        }
        assert!(is_plain("http://127.0.0.1:8081/api/TransOut") && is_plain("https://bank.example.com/a?b=c"));
    }

    #[test]
    fn a_request_is_written_with_its_length_and_the_own_headers_of_the_transaction() {
        let target = Target::parse("http://h:81/a").unwrap();
        let headers = [("content-length", "9"), ("transfer-encoding", "chunked"), ("x-a", "b")];
        let headers = headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let mut request = Request {
            method: Method::POST,
            query: String::new(),
            headers: Arc::new(HeaderMap::from_iter(headers)),
            body: Bytes::from_static(b"{}"),
        };
        let text = |request: &Request| String::from_utf8(message(&target, "/a?gid=g", request)).unwrap();
        let expected = "POST /a?gid=g HTTP/1.1\r\nhost: h:81\r\nx-a: b\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(text(&request), expected);
        (request.method, request.body) = (Method::GET, Bytes::new());
        assert_eq!(text(&request), "GET /a?gid=g HTTP/1.1\r\nhost: h:81\r\nx-a: b\r\n\r\n");
    }
}
