//! One place to ask from: a keep-alive connection of HTTP/1, or a stream of an HTTP/2 connection that several share.
//! A connection that broke is opened again by the next request.

use std::cell::RefCell;
use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::http::{Answer, Connection};

/// An answer to a buyer has a few hundred bytes; a page of a megabyte is none.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// What is to be sent; its parts are overwritten by the next request and keep their memory.
#[derive(Debug, Default, Clone)]
pub struct Wire {
    pub method: &'static str,
    pub target: String,
    /// Empty, or lines that end with CRLF.
    pub headers: String,
    pub body: Vec<u8>,
    /// The whole request as HTTP/1 has it. Made by [`Wire::seal`], unless a target has its bytes ready.
    pub bytes: Vec<u8>,
}

impl Wire {
    pub fn clear(&mut self) {
        self.method = "POST";
        self.target.clear();
        self.headers.clear();
        self.body.clear();
        self.bytes.clear();
    }

    fn seal(&mut self, host: SocketAddr) {
        use std::io::Write;
        if self.bytes.is_empty() {
            let Self { method, target, headers, body, bytes } = self;
            write!(
                bytes,
                "{method} {target} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{headers}\r\n",
                body.len()
            )
            .expect("writing to memory");
            bytes.extend_from_slice(body);
        }
    }

    fn request(&self, host: SocketAddr) -> Result<http::Request<Full<Bytes>>> {
        let mut request = http::Request::builder()
            .method(self.method)
            .uri(format!("http://{host}{}", self.target))
            .header("content-type", "application/json");
        for line in self.headers.lines() {
            if let Some((name, value)) = line.split_once(':') {
                request = request.header(name.trim(), value.trim());
            }
        }
        request.body(Full::new(Bytes::copy_from_slice(&self.body))).map_err(invalid)
    }
}

/// See the module.
pub enum Line {
    One { address: SocketAddr, connection: Option<Connection> },
    Two { shared: Shared, body: Bytes },
}

/// An HTTP/2 connection of several lines.
#[derive(Clone)]
pub struct Shared {
    address: SocketAddr,
    sender: Rc<RefCell<Option<SendRequest<Full<Bytes>>>>>,
}

impl Shared {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, sender: Rc::default() }
    }

    async fn sender(&self) -> Result<SendRequest<Full<Bytes>>> {
        if let Some(sender) = self.sender.borrow().as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(OnThisThread, TokioIo::new(stream)).await.map_err(broken)?;
        // It ends with the connection; what ended it, the requests on it hear.
        tokio::task::spawn_local(async move { _ = connection.await });
        self.sender.replace(Some(sender.clone()));
        Ok(sender)
    }
}

#[derive(Clone)]
struct OnThisThread;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for OnThisThread {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

impl Line {
    pub fn one(address: SocketAddr) -> Self {
        Self::One { address, connection: None }
    }

    pub fn two(shared: Shared) -> Self {
        Self::Two { shared, body: Bytes::new() }
    }

    /// Opens the connection, if there is none that can be used.
    pub async fn open(&mut self) -> Result<()> {
        match self {
            Self::One { address, connection } => open(*address, connection).await.map(|_| ()),
            Self::Two { shared, .. } => shared.sender().await.map(|_| ()),
        }
    }

    /// Sends `wire` and reads the answer. After an error, the next call has a new connection.
    pub async fn call(&mut self, wire: &mut Wire) -> Result<Answer<'_>> {
        match self {
            Self::One { address, connection } => {
                wire.seal(*address);
                let open = open(*address, connection).await?;
                open.call(&wire.bytes).await
            }
            Self::Two { shared, body } => {
                let request = wire.request(shared.address)?;
                let answer = shared.sender().await?.send_request(request).await.map_err(broken)?;
                let (head, rest) = answer.into_parts();
                let rest = Limited::new(rest, ANSWER_BYTES_MAX).collect().await;
                *body = rest.map_err(|error| Error::new(ErrorKind::InvalidData, error.to_string()))?.to_bytes();
                let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
                Ok(Answer {
                    status: head.status.as_u16(),
                    replayed: text("idempotency-replayed") == Some("true"),
                    retry_after_s: text("retry-after").and_then(|text| text.parse().ok()),
                    body,
                })
            }
        }
    }

    /// Sends `wire` and leaves: the answer is never read. On HTTP/2 the stream is reset.
    pub async fn send_and_leave(&mut self, wire: &mut Wire, wait_for_answer: bool) -> Result<()> {
        match self {
            Self::One { address, connection } => {
                wire.seal(*address);
                let open = open(*address, connection).await?;
                open.send(&wire.bytes).await?;
                if wait_for_answer {
                    open.answer_arrives().await?;
                }
            }
            Self::Two { shared, .. } => {
                let answer = shared.sender().await?.send_request(wire.request(shared.address)?);
                if wait_for_answer {
                    answer.await.map_err(broken)?;
                } else {
                    drop(answer);
                    tokio::task::yield_now().await;
                }
            }
        }
        self.give_up();
        Ok(())
    }

    /// An answer that is not waited for any more must not be taken for the next one's.
    pub fn give_up(&mut self) {
        if let Self::One { connection, .. } = self {
            *connection = None;
        }
    }
}

async fn open(address: SocketAddr, connection: &mut Option<Connection>) -> Result<&mut Connection> {
    if connection.as_ref().is_none_or(|connection| connection.closing) {
        *connection = Some(Connection::open(address).await?);
    }
    connection.as_mut().ok_or_else(|| Error::other("opened above"))
}

fn broken(error: hyper::Error) -> Error {
    Error::new(ErrorKind::BrokenPipe, error)
}

fn invalid(error: http::Error) -> Error {
    Error::new(ErrorKind::InvalidInput, error)
}
