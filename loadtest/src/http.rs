//! A very sparing HTTP/1.1 client: request bytes made beforehand, one buffer a connection, nothing kept of an answer
//! but its status and body.
//!
//! The generator shares two cores with what it measures, so each instruction here is one that the server does not get.
//! One thread drives any number of keep-alive connections. Not a general client: no TLS, no redirects, no pipelining.

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;

use anyhow::Context;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Headers in one answer; rushline sends about six.
const HEADERS_MAX: usize = 32;
/// The buffer for answers grows to what is needed; this holds any answer of the hot path in one read.
const BUFFER_BYTES: usize = 4096;
/// An audit that lists missing gids is the largest answer by far.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// One keep-alive connection.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
    /// Body of a chunked answer, put together.
    joined: Vec<u8>,
    /// The server said that it closes after this answer.
    pub closing: bool,
}

/// What came back.
#[derive(Debug)]
pub struct Answer<'a> {
    pub status: u16,
    /// The server says that it gave this answer before.
    pub replayed: bool,
    /// Seconds of `Retry-After`.
    pub retry_after_s: Option<u64>,
    pub body: &'a [u8],
}

/// What the head of an answer says about the rest.
struct Head {
    status: u16,
    head_bytes: usize,
    body_bytes: usize,
    chunked: bool,
    replayed: bool,
    closing: bool,
    retry_after_s: Option<u64>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; BUFFER_BYTES], filled: 0, joined: Vec::new(), closing: false })
    }

    /// Sends `request` (complete, as bytes) and reads the answer. After an error the connection is of no more use.
    pub async fn call(&mut self, request: &[u8]) -> std::io::Result<Answer<'_>> {
        self.send(request).await?;
        self.filled = 0;
        let head = loop {
            self.fill().await?;
            if let Some(head) = parse_head(&self.buffer[..self.filled])? {
                break head;
            }
        };
        self.closing = head.closing;
        let (status, replayed, retry_after_s) = (head.status, head.replayed, head.retry_after_s);
        if !head.chunked {
            let end = head.head_bytes + head.body_bytes;
            while self.filled < end {
                self.fill().await?;
            }
            return Ok(Answer { status, replayed, retry_after_s, body: &self.buffer[head.head_bytes..end] });
        }
        while !join_chunks(&self.buffer[head.head_bytes..self.filled], &mut self.joined)? {
            self.fill().await?;
        }
        Ok(Answer { status, replayed, retry_after_s, body: &self.joined })
    }

    /// Sends `request` and waits for nothing: the first half of a lost reply.
    pub async fn send(&mut self, request: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(request).await
    }

    /// Waits until the answer has begun to arrive, and reads nothing of it.
    pub async fn answer_arrives(&self) -> std::io::Result<()> {
        self.stream.readable().await
    }

    /// Reads what is there, after `filled`. Reading into room to spare lets tokio know that the socket is empty
    /// without asking the kernel a second time.
    async fn fill(&mut self) -> std::io::Result<()> {
        if self.filled == self.buffer.len() {
            if self.filled >= ANSWER_BYTES_MAX {
                return Err(Error::new(ErrorKind::InvalidData, "the answer is larger than 64 MiB"));
            }
            self.buffer.resize(self.filled * 2, 0);
        }
        match self.stream.read(&mut self.buffer[self.filled..]).await? {
            0 => Err(Error::new(ErrorKind::UnexpectedEof, "the server closed the connection before its answer ended")),
            n => {
                self.filled += n;
                Ok(())
            }
        }
    }
}

/// Reads the head of an answer; `None` if more bytes are needed.
fn parse_head(bytes: &[u8]) -> std::io::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let head_bytes = match response.parse(bytes) {
        Ok(httparse::Status::Complete(n)) => n,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(Error::new(ErrorKind::InvalidData, error)),
    };
    let status = response.code.unwrap_or_default();
    let mut head = Head {
        status,
        head_bytes,
        body_bytes: 0,
        chunked: false,
        replayed: false,
        closing: false,
        retry_after_s: None,
    };
    for header in response.headers.iter() {
        let number = || std::str::from_utf8(header.value).ok().and_then(|text| text.trim().parse::<u64>().ok());
        // The length of the name tells these apart from all others that our servers send.
        match header.name.len() {
            14 if header.name.eq_ignore_ascii_case("content-length") => {
                let bytes = number().and_then(|n| usize::try_from(n).ok()).filter(|&n| n <= ANSWER_BYTES_MAX);
                head.body_bytes =
                    bytes.ok_or_else(|| Error::new(ErrorKind::InvalidData, "content-length is no length"))?;
            }
            17 if header.name.eq_ignore_ascii_case("transfer-encoding") => {
                head.chunked = header.value.eq_ignore_ascii_case(b"chunked");
            }
            20 if header.name.eq_ignore_ascii_case("idempotency-replayed") => {
                head.replayed = header.value.eq_ignore_ascii_case(b"true");
            }
            11 if header.name.eq_ignore_ascii_case("retry-after") => head.retry_after_s = number(),
            10 if header.name.eq_ignore_ascii_case("connection") => {
                head.closing = header.value.eq_ignore_ascii_case(b"close");
            }
            _ => {}
        }
    }
    Ok(Some(head))
}

/// Puts the chunks in `bytes` together into `joined`; false if the last chunk is not there yet.
/// Starts from the first chunk each time: chunked answers are rare here and small.
fn join_chunks(mut bytes: &[u8], joined: &mut Vec<u8>) -> std::io::Result<bool> {
    joined.clear();
    loop {
        let (at, size) = match httparse::parse_chunk_size(bytes) {
            Ok(httparse::Status::Complete((at, size))) => (at, usize::try_from(size).unwrap_or(usize::MAX)),
            Ok(httparse::Status::Partial) => return Ok(false),
            Err(_) => return Err(Error::new(ErrorKind::InvalidData, "a chunk has no size")),
        };
        // Trailers are not used by any server here: the end is the empty line after the empty chunk.
        let Some(end) = at.checked_add(size).and_then(|end| end.checked_add(2)) else {
            return Err(Error::new(ErrorKind::InvalidData, "a chunk is larger than memory"));
        };
        if bytes.len() < end {
            return Ok(false);
        }
        if size == 0 {
            return Ok(true);
        }
        joined.extend_from_slice(&bytes[at..at + size]);
        bytes = &bytes[end..];
    }
}

/// Appends one whole request. `headers` is empty or ends with CRLF.
pub fn write_request(out: &mut Vec<u8>, method: &str, target: &str, headers: &str, body: &[u8]) {
    use std::io::Write;
    write!(
        out,
        "{method} {target} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{headers}\r\n",
        body.len()
    )
    .expect("writing to memory");
    out.extend_from_slice(body);
}

/// A server's operations that are not on the hot path: one connection each, JSON in and out.
#[derive(Debug, Clone, Copy)]
pub struct Api {
    pub address: SocketAddr,
}

impl Api {
    /// Status and JSON; a body that is no JSON becomes null.
    pub async fn call(&self, method: &str, target: &str, body: Option<&Value>) -> anyhow::Result<(u16, Value)> {
        let what = || format!("{method} http://{}{target}", self.address);
        let mut request = Vec::new();
        write_request(&mut request, method, target, "", &body.map(Value::to_string).unwrap_or_default().into_bytes());
        let mut connection = Connection::open(self.address).await.with_context(what)?;
        let answer = connection.call(&request).await.with_context(what)?;
        Ok((answer.status, serde_json::from_slice(answer.body).unwrap_or(Value::Null)))
    }

    /// As [`Api::call`], and anything but 2xx is an error with the server's words in it.
    pub async fn expect(&self, method: &str, target: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let (status, answer) = self.call(method, target, body).await?;
        anyhow::ensure!(
            (200..300).contains(&status),
            "{method} http://{}{target} answered {status}: {answer}",
            self.address
        );
        Ok(answer)
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
