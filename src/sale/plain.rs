//! One kept connection over plain TCP that speaks just enough HTTP/1.1 to call an order endpoint.
//!
//! A general client hands each call to a task that owns the connection, and back: that costs more than the call itself.
//! Here the caller writes and reads. Over TLS it is still hyper ([`super::call`]).

use super::call::{ANSWER_BYTES_MAX, Error};
use bytes::Bytes;
use http::StatusCode;
use std::pin::pin;
use std::task::{Context, Waker};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const HEADERS_MAX: usize = 100;
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Holds any usual answer in one read.
const READ_BYTES: usize = 4 * 1024;

pub struct Plain {
    stream: TcpStream,
    /// What was read of the present answer.
    buffer: Vec<u8>,
}

/// How the end of an answer's body is found.
enum Length {
    Bytes(usize),
    Chunked,
    UntilClosed,
}

struct Head {
    status: StatusCode,
    bytes: usize,
    length: Length,
    keep: bool,
}

impl Plain {
    pub async fn connect(host: &str, port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect((host, port)).await?;
        let _ = stream.set_nodelay(true);
        Ok(Self { stream, buffer: Vec::with_capacity(READ_BYTES) })
    }

    /// Nothing came since the last answer: not its end, and nothing that nobody asked for.
    pub fn is_quiet(&self) -> bool {
        pin!(self.stream.readable()).poll(&mut Context::from_waker(Waker::noop())).is_pending()
            || self.stream.try_read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// Sends one whole request and reads its answer. `true`: the connection is good for another call.
    pub async fn call(&mut self, request: &[u8]) -> Result<(StatusCode, Bytes, bool), Error> {
        self.stream.write_all(request).await.map_err(|error| Error::Broken(error.to_string()))?;
        self.buffer.clear();
        let head = loop {
            if self.fill().await? == 0 {
                return Err(Error::Broken("it was closed before an answer came".into()));
            }
            // An interim answer (100, 103) is not what was asked for.
            while let Some(head) = read_head(&self.buffer)? {
                if !head.status.is_informational() {
                    break;
                }
                self.buffer.drain(..head.bytes);
            }
            if let Some(head) = read_head(&self.buffer)? {
                break head;
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(Error::Broken("its answer's head has no end".into()));
            }
        };
        let (body, end) = self.body(&head).await?;
        let keep = head.keep && end == self.buffer.len();
        Ok((head.status, body, keep))
    }

    /// The body, and where it ends in the buffer.
    async fn body(&mut self, head: &Head) -> Result<(Bytes, usize), Error> {
        match head.length {
            Length::Bytes(bytes) if bytes > ANSWER_BYTES_MAX => Err(Error::Body(format!("{bytes} bytes announced"))),
            Length::Bytes(bytes) => {
                let end = head.bytes + bytes;
                while self.buffer.len() < end {
                    self.fill_body().await?;
                }
                Ok((Bytes::copy_from_slice(&self.buffer[head.bytes..end]), end))
            }
            Length::Chunked => loop {
                if let Some((body, end)) = joined(&self.buffer[head.bytes..])? {
                    return Ok((body.into(), head.bytes + end));
                }
                self.fill_body().await?;
            },
            Length::UntilClosed => {
                while self.fill().await? > 0 {
                    self.check_size()?;
                }
                Ok((Bytes::copy_from_slice(&self.buffer[head.bytes..]), self.buffer.len()))
            }
        }
    }

    async fn fill_body(&mut self) -> Result<(), Error> {
        self.check_size()?;
        match self.fill().await? {
            0 => Err(Error::Body("it was closed in the middle".into())),
            _ => Ok(()),
        }
    }

    fn check_size(&self) -> Result<(), Error> {
        // Chunks have heads of their own, so twice the size is looked at before giving up.
        match self.buffer.len() > HEAD_BYTES_MAX + 2 * ANSWER_BYTES_MAX {
            true => Err(Error::Body("it has no end".into())),
            false => Ok(()),
        }
    }

    async fn fill(&mut self) -> Result<usize, Error> {
        self.buffer.reserve(READ_BYTES / 2);
        self.stream.read_buf(&mut self.buffer).await.map_err(|error| Error::Broken(error.to_string()))
    }
}

/// Reads the head of an answer; `None` if it is not all there.
fn read_head(bytes: &[u8]) -> Result<Option<Head>, Error> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let broken = |what: &dyn std::fmt::Display| Error::Broken(format!("its answer is no HTTP: {what}"));
    let head_bytes = match response.parse(bytes) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(broken(&error)),
    };
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or_else(|| broken(&"no status"))?;
    let mut keep = response.version == Some(1);
    let (mut length, mut chunked) = (None, false);
    for header in response.headers.iter() {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        // Most names are told by their length from those that matter.
        match header.name.len() {
            14 if is("content-length") => {
                let text = std::str::from_utf8(header.value).unwrap_or_default().trim();
                let bytes = text.parse::<usize>().map_err(|_| broken(&"content-length is no length"))?;
                if length.is_some_and(|earlier| earlier != bytes) {
                    return Err(broken(&"two lengths"));
                }
                length = Some(bytes);
            }
            17 if is("transfer-encoding") => {
                if !header.value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                    return Err(broken(&"a transfer coding that was not asked for"));
                }
                chunked = true;
            }
            10 if is("connection") => {
                let has = |word: &[u8]| {
                    header.value.split(|byte| *byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(word))
                };
                keep = !has(b"close") && (keep || has(b"keep-alive"));
            }
            _ => {}
        }
    }
    let bodyless = status.is_informational() || matches!(status.as_u16(), 204 | 304);
    let length = match (bodyless, chunked, length) {
        (true, ..) => Length::Bytes(0),
        (false, true, _) => Length::Chunked,
        (false, false, Some(bytes)) => Length::Bytes(bytes),
        (false, false, None) => Length::UntilClosed,
    };
    Ok(Some(Head { status, bytes: head_bytes, keep: keep && !matches!(length, Length::UntilClosed), length }))
}

/// Puts chunks together: the body and how many bytes it took; `None` if the last chunk is not there yet.
fn joined(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, Error> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let (start, size) = match httparse::parse_chunk_size(&bytes[at..]) {
            Ok(httparse::Status::Complete((start, size))) => (at + start, size),
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(Error::Body("a chunk has no size".into())),
        };
        if size > ANSWER_BYTES_MAX as u64 || body.len() > ANSWER_BYTES_MAX {
            return Err(Error::Body("in chunks".into()));
        }
        if size == 0 {
            return Ok(end_of_trailers(&bytes[start..]).map(|end| (body, start + end)));
        }
        let end = start + size as usize;
        if bytes.len() < end + 2 {
            return Ok(None);
        }
        body.extend_from_slice(&bytes[start..end]);
        at = end + 2;
    }
}

/// Trailers end with an empty line; usually there are none.
fn end_of_trailers(bytes: &[u8]) -> Option<usize> {
    if bytes.starts_with(b"\r\n") {
        return Some(2);
    }
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// One call to a server that sends `parts`, one write each, and then closes if it is told to.
    async fn called(parts: &'static [&'static str], closes: bool) -> Result<(u16, String, bool), Error> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_exact(&mut [0; 4]).await.unwrap();
            for part in parts {
                stream.write_all(part.as_bytes()).await.unwrap();
                tokio::task::yield_now().await;
            }
            if !closes {
                std::future::pending::<()>().await;
            }
        });
        let mut plain = Plain::connect("127.0.0.1", address.port()).await.unwrap();
        let (status, body, keep) = plain.call(b"CALL").await?;
        Ok((status.as_u16(), String::from_utf8(body.to_vec()).unwrap(), keep))
    }

    #[tokio::test]
    async fn answers_are_read_by_length_by_chunks_and_until_the_end() {
        let read = |status, body: &str, keep| (status, body.to_owned(), keep);
        let length = called(&["HTTP/1.1 201 Created\r\nContent-Le", "ngth: 2\r\n\r\n{", "}"], false).await;
        assert_eq!(length.unwrap(), read(201, "{}", true));
        let chunks = ["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r", "\n1\r\n!\r\n0\r\n", "\r\n"];
        let chunks: &'static [&'static str] = Box::leak(Box::new(chunks));
        assert_eq!(called(chunks, false).await.unwrap(), read(200, "{}!", true));
        let closed = called(&["HTTP/1.1 200 OK\r\n\r\nall ", "of it"], true).await;
        assert_eq!(closed.unwrap(), read(200, "all of it", false));
        let nothing = called(&["HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"], false).await;
        assert_eq!(nothing.unwrap(), read(204, "", true));
    }

    #[tokio::test]
    async fn a_connection_is_kept_only_if_both_sides_mean_it() {
        for (answer, keeps) in [
            ("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\nconnection: Keep-Alive\r\ncontent-length: 0\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nmore than asked for", false),
        ] {
            let parts: &'static [&'static str] = Box::leak(Box::new([answer]));
            assert_eq!(called(parts, false).await.unwrap().2, keeps, "{answer}");
        }
    }

    #[tokio::test]
    async fn what_breaks_off_or_is_no_http_is_no_answer() {
        for answer in [
            "",
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            "SMTP ready\r\n",
        ] {
            let parts: &'static [&'static str] = Box::leak(Box::new([answer]));
            assert!(called(parts, true).await.is_err(), "{answer}");
        }
    }
}
