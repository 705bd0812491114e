//! The hot route read by hand: `POST /v1/sales/{sale}/orders` on HTTP/1.1, nothing else.
//!
//! A general HTTP server costs more for such a request than everything that rushline does with it. So a connection is
//! read here as long as it brings plain orders: one length, no transfer coding, nothing to negotiate. Whatever else
//! comes, the connection goes to hyper with all that was read of the request, and stays there. Nothing is refused here
//! for its form: that, and whoever is too slow or too long, is hyper's to judge.

use super::port::LINGER;
use super::tls::Stream;
use super::{Doors, Problem, orders, sale_of_orders_path};
use crate::access::hosts::Hosts;
use bytes::{Buf, Bytes, BytesMut};
use futures_util::FutureExt;
use http::Response;
use http_body_util::Full;
use hyper::body::Body;
use socket2::SockRef;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, ReadBuf, Ready};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

/// How every request begins that is read here.
const START: &[u8] = b"POST /v1/sales/";
/// Headers of one request; with more it is hyper's.
const HEADERS_MAX: usize = 32;
/// Bytes of a head; with more it is hyper's.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Room for a usual order; a larger one takes more.
const READ_BYTES: usize = 2 * 1024;

/// Serves orders until the connection ends (`None`), or brings something else: then what was read goes with it.
pub async fn serve(stream: Stream, doors: &Doors, stopping: watch::Receiver<bool>) -> Option<Rewound> {
    let leaving = doors.app.leaving.clone();
    let mut told = stopping;
    let stop = Box::pin(async move {
        let _ = told.wait_for(|stop| *stop).await;
        tokio::time::sleep(LINGER).await;
    });
    let settings = &doors.app.settings;
    let (patience, idle) = (settings.header_timeout, settings.idle_timeout);
    let (buffer, since) = (Vec::new(), Instant::now());
    let slow = Box::pin(tokio::time::sleep(patience));
    let mut connection = Connection { stream, buffer, stop, slow, since, served: false, patience, idle };
    loop {
        match look(&connection.buffer, doors.app.settings.body_bytes_max) {
            Next::Order(request) if !connection.may_ask(&request, &doors.app.hosts) => {
                return Some(connection.rewound());
            }
            // The dashboard's cookie is looked at there, and who else has one pays no more than a slower way.
            Next::Order(request) if request.cookie && doors.app.guard.is_on() => return Some(connection.rewound()),
            Next::Order(request) => {
                let response = match connection.take(&request, doors).await {
                    Ok((open, order, wait)) => match orders::turn(&open, &order).await {
                        Ok(_) if connection.is_left() => return None,
                        Ok(turn) => orders::decide(&doors.app, &open, order, wait, turn).await,
                        Err(problem) => problem.response(),
                    },
                    Err(problem) => problem.response(),
                };
                let closing = request.closing || *leaving.borrow();
                let bytes = written(response, closing);
                let sent = async {
                    connection.stream.write_all(&bytes).await?;
                    connection.stream.flush().await // what TLS made of it; TCP keeps nothing back
                };
                if sent.await.is_err() {
                    return None;
                }
                if closing {
                    let _ = connection.stream.shutdown().await; // TLS says that this is the end
                    return None;
                }
                (connection.since, connection.served) = (Instant::now(), true);
            }
            Next::More(bytes) => match connection.fill(bytes).await {
                Filled::Some => {}
                Filled::Ended => return None,
                Filled::Not => return Some(connection.rewound()),
            },
            Next::Other => return Some(connection.rewound()),
        }
    }
}

struct Connection {
    stream: Stream,
    /// What was read and not taken; without memory of its own while nothing is.
    buffer: Vec<u8>,
    stop: Pin<Box<dyn Future<Output = ()> + Send>>,
    slow: Pin<Box<Sleep>>,
    /// Since when a request, or the rest of one, is waited for.
    since: Instant,
    /// It has brought an order before.
    served: bool,
    patience: Duration,
    idle: Duration,
}

enum Filled {
    Some,
    /// The other side closed, or the server stops and nothing is under way.
    Ended,
    /// The rest does not come: hyper waits once more, and says so in the end.
    Not,
}

impl Connection {
    /// Reads what is there, at least something, making room for `bytes`.
    async fn fill(&mut self, bytes: usize) -> Filled {
        let first = self.buffer.is_empty();
        poll_fn(|context| {
            self.buffer.reserve(bytes);
            let read = pin!(self.stream.read_buf(&mut self.buffer)).poll(context);
            match read {
                Poll::Ready(Ok(1..)) => {
                    if first {
                        self.since = Instant::now();
                    }
                    return Poll::Ready(Filled::Some);
                }
                Poll::Ready(_) => return Poll::Ready(Filled::Ended),
                Poll::Pending if self.buffer.is_empty() => self.buffer = Vec::new(),
                Poll::Pending => {}
            }
            if self.stop.as_mut().poll(context).is_ready() {
                return Poll::Ready(if self.buffer.is_empty() { Filled::Ended } else { Filled::Not });
            }
            while self.slow.as_mut().poll(context).is_ready() {
                let between = self.served && self.buffer.is_empty();
                let now = Instant::now();
                let until = self.since + if between { self.idle } else { self.patience };
                if until <= now {
                    return Poll::Ready(if self.buffer.is_empty() { Filled::Ended } else { Filled::Not });
                }
                // A request that begins meanwhile has less time than there is between two.
                self.slow.as_mut().reset(until.min(now + self.patience));
            }
            Poll::Pending
        })
        .await
    }

    /// Has the other side gone? Whoever left without an answer may be back already, on another connection and with the same
    /// key, and may have been refused there: what was left behind must not win after that. Asked when it is this
    /// request's turn, for then whatever came later with its key has its answer.
    ///
    /// A connection that has had an answer is known by its events, at no cost: the runtime has seen a buyer go before it
    /// sees what comes from them later. A new one is read before its first event has come (tokio takes what was just
    /// accepted for ready), so the socket itself is asked.
    fn is_left(&self) -> bool {
        let tcp = self.stream.tcp();
        if !self.served && matches!(SockRef::from(tcp).peek(&mut [MaybeUninit::uninit()]), Ok(0)) {
            return true;
        }
        tcp.ready(Interest::READABLE)
            .now_or_never()
            .is_some_and(|ready| ready.is_ok_and(|ready: Ready| ready.is_read_closed()))
    }

    /// Is this server asked for by a name that may? hyper's side says so where not.
    fn may_ask(&self, request: &Request, hosts: &Hosts) -> bool {
        hosts.allow(request.host.as_ref().map(|range| &self.buffer[range.clone()]))
    }

    /// Reads the order and lets go of its bytes.
    async fn take(&mut self, request: &Request, doors: &Doors) -> Result<orders::Read, Problem> {
        let bytes = |range: &Range<usize>| &self.buffer[range.clone()];
        let text = |range: &Range<usize>| std::str::from_utf8(bytes(range)).expect("a target is ASCII");
        let sale = text(&request.sale);
        let may = doors.app.guard.may_place(sale, request.authorization.as_ref().map(bytes));
        let head = orders::Head {
            query: request.query.as_ref().map(text),
            key: request.key.as_ref().map(bytes),
            traceparent: request.traceparent.as_ref().map(bytes),
            tracestate: request.tracestate.as_ref().map(bytes),
        };
        let body = &self.buffer[request.head_bytes..request.bytes];
        let read = match may {
            Ok(()) => orders::read(&doors.app, sale, head, body).await,
            Err(denied) => Err(Problem::from(denied)),
        };
        if self.buffer.len() == request.bytes {
            self.buffer = Vec::new();
        } else {
            self.buffer.drain(..request.bytes);
        }
        read
    }

    fn rewound(self) -> Rewound {
        Rewound { read: self.buffer.into(), stream: self.stream }
    }
}

/// A whole order request, as places in the buffer.
struct Request {
    sale: Range<usize>,
    query: Option<Range<usize>>,
    host: Option<Range<usize>>,
    key: Option<Range<usize>>,
    traceparent: Option<Range<usize>>,
    tracestate: Option<Range<usize>>,
    authorization: Option<Range<usize>>,
    /// Is there a cookie, and no `authorization`?
    cookie: bool,
    head_bytes: usize,
    /// Head and body.
    bytes: usize,
    /// The client wants no other after it.
    closing: bool,
}

/// What the bytes read so far begin with.
enum Next {
    Order(Request),
    /// An order that is not all there; room for so many bytes is needed.
    More(usize),
    Other,
}

fn look(buffer: &[u8], body_bytes_max: usize) -> Next {
    let compared = buffer.len().min(START.len());
    if buffer[..compared] != START[..compared] {
        return Next::Other;
    }
    if buffer.len() <= START.len() {
        return Next::More(READ_BYTES);
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    let head_bytes = match head.parse(buffer) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) if buffer.len() < HEAD_BYTES_MAX => return Next::More(READ_BYTES),
        _ => return Next::Other,
    };
    let place = |part: &[u8]| {
        let start = part.as_ptr() as usize - buffer.as_ptr() as usize;
        start..start + part.len()
    };
    let target = head.path.unwrap_or_default();
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(place(query.as_bytes()))),
        None => (target, None),
    };
    let Some(sale) = sale_of_orders_path(path) else { return Next::Other };
    if head.version != Some(1) || !target.is_ascii() || target.contains('#') {
        return Next::Other;
    }
    let (mut length, mut key, mut traceparent, mut tracestate, mut closing) = (None, None, None, None, false);
    let (mut host, mut authorization, mut cookie) = (None, None, false);
    for header in head.headers.iter() {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        // Most names are told by their length from those that matter.
        match header.name.len() {
            14 if is("content-length") => match (length, decimal(header.value)) {
                (None, Some(bytes)) => length = Some(bytes),
                _ => return Next::Other,
            },
            15 if is("idempotency-key") => _ = key.get_or_insert_with(|| place(header.value)),
            11 if is("traceparent") => _ = traceparent.get_or_insert_with(|| place(header.value)),
            10 if is("tracestate") => _ = tracestate.get_or_insert_with(|| place(header.value)),
            10 if is("connection") => match header.value {
                value if value.eq_ignore_ascii_case(b"keep-alive") => {}
                value if value.eq_ignore_ascii_case(b"close") => closing = true,
                _ => return Next::Other,
            },
            17 if is("transfer-encoding") => return Next::Other,
            4 if is("host") => match host {
                None => host = Some(place(header.value)),
                Some(_) => return Next::Other,
            },
            13 if is("authorization") => _ = authorization.get_or_insert_with(|| place(header.value)),
            6 if is("cookie") => cookie = true,
            6 if is("expect") => return Next::Other,
            7 if is("upgrade") => return Next::Other,
            _ => {}
        }
    }
    let Some(length) = length.filter(|bytes| *bytes <= body_bytes_max) else { return Next::Other };
    let bytes = head_bytes + length;
    if buffer.len() < bytes {
        return Next::More(bytes - buffer.len());
    }
    let cookie = cookie && authorization.is_none();
    let sale = place(sale.as_bytes());
    Next::Order(Request {
        sale,
        query,
        host,
        key,
        traceparent,
        tracestate,
        authorization,
        cookie,
        head_bytes,
        bytes,
        closing,
    })
}

/// The length of the order that `buffer` begins with, if it is one that is read here and all there: for those who try what
/// the reading makes of bytes of any kind.
pub fn length_of_order(buffer: &[u8], body_bytes_max: usize) -> Option<usize> {
    match look(buffer, body_bytes_max) {
        Next::Order(request) => Some(request.bytes),
        Next::More(_) | Next::Other => None,
    }
}

/// Plain digits, few enough for any body that is taken.
fn decimal(value: &[u8]) -> Option<usize> {
    if value.is_empty() || value.len() > 9 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(value.iter().fold(0, |number, digit| number * 10 + usize::from(digit - b'0')))
}

/// An answer as bytes.
fn written(response: Response<Full<Bytes>>, closing: bool) -> Vec<u8> {
    let (head, mut body) = response.into_parts();
    let body = match Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
        _ => Bytes::new(),
    };
    let mut out = Vec::with_capacity(256 + body.len());
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(head.status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.status.canonical_reason().unwrap_or_default().as_bytes());
    for (name, value) in &head.headers {
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
    }
    out.extend_from_slice(b"\r\ncontent-length: ");
    out.extend_from_slice(body.len().to_string().as_bytes());
    out.extend_from_slice(b"\r\ndate: ");
    DATE.with_borrow_mut(|date| out.extend_from_slice(date.now().as_bytes()));
    if closing {
        out.extend_from_slice(b"\r\nconnection: close");
    }
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(&body);
    out
}

/// The time as HTTP spells it, spelled once a second.
#[derive(Default)]
struct Date {
    second: u64,
    text: String,
}

thread_local! {
    static DATE: RefCell<Date> = RefCell::default();
}

impl Date {
    fn now(&mut self) -> &str {
        let second = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if self.second != second || self.text.is_empty() {
            let time = jiff::Timestamp::from_second(second as i64).unwrap_or_default();
            *self = Self { second, text: time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string() };
        }
        &self.text
    }
}

/// A connection of which something was read already: that comes first.
pub struct Rewound {
    read: Bytes,
    stream: Stream,
}

/// How HTTP/2 begins.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl Rewound {
    pub fn untouched(stream: Stream) -> Self {
        Self { read: Bytes::new(), stream }
    }

    /// Waits until its first bytes tell which HTTP is spoken; `None` if they do not within `patience`.
    pub async fn begun(mut self, patience: Duration) -> Option<Self> {
        let mut read = BytesMut::from(self.read);
        let reading = async {
            while read.len() < PREFACE.len() && read[..] == PREFACE[..read.len()] {
                if self.stream.read_buf(&mut read).await.ok()? == 0 {
                    return None;
                }
            }
            Some(())
        };
        tokio::time::timeout(patience, reading).await.ok()??;
        self.read = read.freeze();
        Some(self)
    }
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let bytes = self.read.len().min(buffer.remaining());
        buffer.put_slice(&self.read[..bytes]);
        self.read.advance(bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY_MAX: usize = 1000;
    const HEAD: &str = "POST /v1/sales/s/orders?wait_ms=5 HTTP/1.1\r\nhost: x\r\nIdempotency-Key: k1\r\n";

    fn order(headers: &str, body: &str) -> Vec<u8> {
        format!("{HEAD}{headers}\r\n{body}").into_bytes()
    }

    #[test]
    fn an_order_is_taken_apart() {
        let bytes = order("content-length: 4\r\n", "bodyPOST");
        let Next::Order(request) = look(&bytes, BODY_MAX) else { panic!("this is an order") };
        let text = |range: Range<usize>| std::str::from_utf8(&bytes[range]).unwrap();
        assert_eq!(text(request.sale.clone()), "s");
        assert_eq!(text(request.query.clone().unwrap()), "wait_ms=5");
        assert_eq!(text(request.key.clone().unwrap()), "k1");
        assert_eq!(text(request.head_bytes..request.bytes), "body", "what follows is the next request's");
        assert!(!request.closing);
    }

    #[test]
    fn a_token_is_found_where_it_is() {
        let look_for = |headers: &str| {
            let bytes = order(&format!("content-length: 0\r\n{headers}"), "");
            let Next::Order(request) = look(&bytes, BODY_MAX) else { panic!("this is an order") };
            let token = request.authorization.map(|range| String::from_utf8(bytes[range].to_vec()).unwrap());
            (token, request.cookie)
        };
        assert_eq!(look_for(""), (None, false));
        assert_eq!(look_for("Authorization: Bearer rl_x\r\n"), (Some("Bearer rl_x".into()), false));
        assert_eq!(look_for("cookie: a=b\r\n"), (None, true));
        assert_eq!(look_for("cookie: a=b\r\nauthorization: Bearer y\r\n"), (Some("Bearer y".into()), false));
    }

    #[test]
    fn whatever_is_missing_is_waited_for() {
        let bytes = order("content-length: 4\r\n", "body");
        for cut in 0..bytes.len() {
            assert!(matches!(look(&bytes[..cut], BODY_MAX), Next::More(1..)), "cut at {cut}");
        }
    }

    #[test]
    fn what_is_not_plain_is_hypers() {
        let not_plain = [
            order("transfer-encoding: chunked\r\n", ""),
            order("content-length: 4\r\ntransfer-encoding: chunked\r\n", "body"),
            order("content-length: 4\r\ncontent-length: 4\r\n", "body"),
            order("content-length: +4\r\n", "body"),
            order("content-length: 4000\r\n", "body"),
            order("content-length: 4\r\nexpect: 100-continue\r\n", "body"),
            order("content-length: 4\r\nconnection: upgrade\r\n", "body"),
            order("", ""),
            b"GET /metrics HTTP/1.1\r\n\r\n".to_vec(),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            b"POST /v1/sales/s/stock HTTP/1.1\r\ncontent-length: 0\r\n\r\n".to_vec(),
            b"POST /v1/sales/s/orders HTTP/1.0\r\ncontent-length: 0\r\n\r\n".to_vec(),
        ];
        for bytes in not_plain {
            assert!(matches!(look(&bytes, BODY_MAX), Next::Other), "{}", String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn an_answer_has_its_length_and_date() {
        let mut response = Response::new(Full::new(Bytes::from_static(b"{}")));
        response.headers_mut().insert("x", http::HeaderValue::from_static("y"));
        let text = String::from_utf8(written(response, true)).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\nx: y\r\ncontent-length: 2\r\ndate: "), "{text}");
        assert!(text.ends_with(" GMT\r\nconnection: close\r\n\r\n{}"), "{text}");
    }
}
