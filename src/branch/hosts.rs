//! Kept-alive HTTP/1 connections by host, and a bound on the calls that one host gets at a time.
//!
//! The bound is what paces recovery: after an outage thousands of transactions are due at once, and a service that has
//! just come back must not be knocked over by them.

use crate::dial::reach::{self, Place, Scheme};
use crate::domain::trans::check;
use crate::http1::{self, Address, Answer, Connection, Failed};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, StatusCode};
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// Connections kept open to a host while it is not called. As many as call it at once by default: with fewer, a busy
/// host costs a new connection for every few calls.
const IDLE_MAX: usize = 256;
/// And to all hosts together: each is a file descriptor. Those of hosts that are called no more make room.
const IDLE_ALL_MAX: usize = 2_048;
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
    #[error(transparent)]
    Failed(#[from] Failed),
    #[error("{status}: it redirects to `{to}`, which is not followed (setting calls.redirects_max)")]
    Redirected { status: StatusCode, to: String },
    /// The host of its URL is none that is called for others.
    #[error(transparent)]
    Refused(#[from] reach::Refused),
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

/// Can it be taken apart, and may it be called? That of the usual kind need not be taken apart.
pub fn check(url: &str) -> Result<(), Error> {
    let reach = reach::current();
    if let Some(place) = plain(url) {
        return Ok(reach.check(place)?);
    }
    let address = Address::parse(url).ok_or_else(|| Error::Url(url.to_owned()))?;
    Ok(reach.check(address.place())?)
}

/// Scheme, a host of small letters or an IPv4 address, perhaps a port: no rule of URLs refuses that, whatever follows.
fn plain(url: &str) -> Option<Place<'_>> {
    let (tls, rest) = match url.strip_prefix("http://") {
        Some(rest) => (false, rest),
        None => (true, url.strip_prefix("https://")?),
    };
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let (host, port) = authority.split_once(':').unwrap_or((authority, if tls { "443" } else { "80" }));
    let is_label = |label: &str| {
        label.starts_with(|first: char| first.is_ascii_lowercase())
            && !label.starts_with("xn--")
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    let port = Some(port).filter(|port| port.starts_with(|first: char| first.is_ascii_digit()))?.parse().ok()?;
    let is_host = host.split('.').all(is_label) || host.parse::<Ipv4Addr>().is_ok();
    is_host.then_some(Place { scheme: Scheme::http(tls), host, port })
}

type Key = (bool, String, u16);

struct Host {
    permits: Semaphore,
    idle: Mutex<Idle>,
    /// Places for connections that nobody uses just now, of all hosts together.
    places: Arc<Semaphore>,
}

/// Connections that nobody uses just now, each with its place; the one used last is used next.
struct Idle {
    connections: Vec<(Connection, OwnedSemaphorePermit)>,
    looked: Instant,
}

/// A URL as it was taken apart, with the connections it goes to.
struct Known {
    address: Address,
    host: Arc<Host>,
}

pub struct Hosts {
    hosts: Mutex<HashMap<Key, Arc<Host>>>,
    /// By URL: a service has few, and taking one apart costs as much as writing it.
    known: Mutex<HashMap<String, Arc<Known>>>,
    places: Arc<Semaphore>,
    calls_max: usize,
    redirects_max: usize,
}

impl Hosts {
    pub fn new(calls_max: usize, redirects_max: usize) -> Self {
        let places = Arc::new(Semaphore::new(IDLE_ALL_MAX));
        Self { hosts: Mutex::default(), known: Mutex::default(), places, calls_max, redirects_max }
    }

    /// Sends and reads the answer. The time limit holds twice: for the wait for a turn at this host, so that those who
    /// wait for a slow host do not take the place of others for long, and then for the call.
    pub async fn send(&self, url: &str, request: &Request, timeout: Duration) -> Result<(StatusCode, Bytes), Error> {
        let bad_url = || Error::Url(url.to_owned());
        let mut known = self.known(url).ok_or_else(bad_url)?;
        let mut path = known.address.with_query(&request.query);
        let mut redirected: Option<Request> = None;
        let mut redirects = 0..self.redirects_max;
        loop {
            let request = redirected.as_ref().unwrap_or(request);
            let here = known.clone();
            let _turn = turn(&here.host.permits, timeout).await.ok_or(Error::NoTurn(timeout.as_millis()))?;
            let answer = tokio::time::timeout(timeout, here.host.send(&here.address, &path, request)).await;
            let Answer { status, location, body } = answer.map_err(|_| Error::Timeout(timeout.as_millis()))??;
            let Some(location) = location.filter(|_| status.is_redirection()) else {
                return Ok((status, body));
            };
            if redirects.next().is_none() {
                return Err(Error::Redirected { status, to: location });
            }
            let address = here.address.redirected(&path, &location).ok_or(Error::Url(location))?;
            let mut request = request.clone();
            if ![StatusCode::TEMPORARY_REDIRECT, StatusCode::PERMANENT_REDIRECT].contains(&status) {
                request.method = Method::GET;
                request.body = Bytes::new();
                Arc::make_mut(&mut request.headers).remove(CONTENT_TYPE);
            }
            if (&address.host, address.port) != (&here.address.host, here.address.port) {
                // What was meant for one service is not told to another because the first says so.
                let headers = Arc::make_mut(&mut request.headers);
                check::CREDENTIALS.iter().for_each(|name| drop(headers.remove(*name)));
            }
            redirected = Some(request);
            path.clone_from(&address.path);
            known = Arc::new(Known { host: self.host(&address), address });
        }
    }

    fn known(&self, url: &str) -> Option<Arc<Known>> {
        let lock = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(url) {
            return Some(known.clone());
        }
        let address = Address::parse(url)?;
        if self.places.available_permits() == 0 {
            let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
            hosts.values().for_each(|host| host.idle().connections.clear());
        }
        let known = Arc::new(Known { host: self.host(&address), address });
        let mut all = lock();
        if all.len() >= URLS_MAX {
            all.clear();
            let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
            hosts.retain(|_, host| Arc::strong_count(host) > 1);
        }
        all.insert(url.to_owned(), known.clone());
        Some(known)
    }

    fn host(&self, address: &Address) -> Arc<Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = || Mutex::new(Idle { connections: Vec::new(), looked: Instant::now() });
        let host = || Host { permits: Semaphore::new(self.calls_max), idle: idle(), places: self.places.clone() };
        hosts.entry((address.tls, address.host.clone(), address.port)).or_insert_with(|| Arc::new(host())).clone()
    }
}

impl Host {
    async fn send(&self, address: &Address, path: &str, request: &Request) -> Result<Answer, Error> {
        let message = message(address, path, request);
        let (answer, connection) =
            http1::call(address, &message, || self.idle().connections.pop().map(|(kept, _)| kept)).await?;
        self.keep(connection);
        Ok(answer)
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, mut connection: Connection) {
        if !connection.is_open() {
            return;
        }
        let mut idle = self.idle();
        if idle.looked.elapsed() >= LOOK_EVERY {
            idle.looked = Instant::now();
            idle.connections.retain_mut(|(kept, _)| kept.is_open());
        }
        if idle.connections.len() < IDLE_MAX
            && let Ok(place) = self.places.clone().try_acquire_owned()
        {
            idle.connections.push((connection, place));
        }
    }
}

/// The whole request, as bytes. Header values have no line's end in them.
fn message(address: &Address, path: &str, request: &Request) -> Vec<u8> {
    let mut message = http1::Request::new(request.method.as_str(), address, path);
    for (name, value) in request.headers.iter() {
        message = message.field(name.as_str(), value.as_bytes());
    }
    match request.body.is_empty() && request.method == Method::GET {
        true => message.without_body(),
        false => message.with_body(&request.body),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_callable_at_first_sight_is() {
        let ends = ["", "/", "/a b?c=é#d", "?x", "#\u{1}", ":80/a", ":/a", ":0", ":65536", ":+1/a", ":8x", "@b", "\\x"];
        let hosts = "h localhost a.b-c.d1 127.0.0.1 999.1.1.1 1.2 a.1 1.a a..b . -a a- xn--a xn--a.b é H [::1] a_b %61 0x7f ab--c a.0x1";
        for host in hosts.split(' ').chain([""]) {
            for end in ends {
                let url = format!("http://{host}{end}");
                // Both ways lead to one place, or a check would look at another than the call goes to.
                let whole = Address::parse(&url);
                assert!(plain(&url).is_none_or(|place| whole.as_ref().map(Address::place) == Some(place)), "{url}");
            }
        }
        for url in ["http://127.0.0.1:8081/api/TransOut", "https://bank.example.com/a?b=c"] {
            assert_eq!(plain(url), Address::parse(url).as_ref().map(Address::place), "{url}");
            assert!(plain(url).is_some(), "{url}");
        }
    }

    #[test]
    fn a_request_is_written_with_its_length_and_the_own_headers_of_the_transaction() {
        let address = Address::parse("http://h:81/a").unwrap();
        let headers = [("x-a".parse().unwrap(), "b".parse().unwrap())];
        let mut request = Request {
            method: Method::POST,
            query: String::new(),
            headers: Arc::new(HeaderMap::from_iter(headers)),
            body: Bytes::from_static(b"{}"),
        };
        let text = |request: &Request| String::from_utf8(message(&address, "/a?gid=g", request)).unwrap();
        let expected = "POST /a?gid=g HTTP/1.1\r\nhost: h:81\r\nx-a: b\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(text(&request), expected);
        (request.method, request.body) = (Method::GET, Bytes::new());
        assert_eq!(text(&request), "GET /a?gid=g HTTP/1.1\r\nhost: h:81\r\nx-a: b\r\n\r\n");
    }
}
