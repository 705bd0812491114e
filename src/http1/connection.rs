//! One kept connection: a request out, an answer in, in the task of whoever calls.
//!
//! What is spoken is the part of RFC 9112 that a call needs: bodies by length, in chunks or up to the end, interim answers
//! passed over, no pipelining, no upgrades.

use bytes::Bytes;
use http::StatusCode;
use std::io;
use std::pin::Pin;
use std::task::{Context, Waker};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// Longest answer that is read. In a branch's only words and a reason are looked for; a hundred results of bulk mode fit
/// many times.
pub const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Longest head of an answer, and longest trailer.
const HEAD_BYTES_MAX: usize = 64 * 1024;
const HEADERS_MAX: usize = 100;
/// Holds the whole of a usual answer, so that one read is all it takes.
const BUFFER_BYTES: usize = 2 * 1024;
/// A buffer that has grown beyond this is not kept: one long answer must not cost memory for ever.
const KEPT_BYTES_MAX: usize = 16 * 1024;

/// What connections are made of: TCP, with TLS or without.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: StatusCode,
    /// Where to look instead, as text.
    pub location: Option<String>,
    pub body: Bytes,
}

/// Why nothing did.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request did not get out: a server that closed this connection earlier never saw it.
    #[error("{0}")]
    Unsent(io::Error),
    /// It may have been carried out, or not.
    #[error("{0}")]
    Broken(io::Error),
    /// As before; the answer began.
    #[error("{0}")]
    Body(io::Error),
}

pub struct Connection {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
    filled: usize,
    /// The answer was read to its end, and the other side goes on listening.
    open: bool,
}

/// How long a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Bytes(usize),
    Chunked,
    UntilEnd,
}

struct Head {
    status: StatusCode,
    bytes: usize,
    length: Length,
    closing: bool,
    location: Option<String>,
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

fn too_long() -> io::Error {
    invalid(format!("it has more than {ANSWER_BYTES_MAX} bytes"))
}

impl Connection {
    pub fn new(stream: impl Stream + 'static) -> Self {
        Self { stream: Box::new(stream), buffer: vec![0; BUFFER_BYTES], filled: 0, open: true }
    }

    /// May another call be made on it? A host that has closed it says so without being asked.
    pub fn is_open(&mut self) -> bool {
        let mut byte = [0];
        let mut unasked = ReadBuf::new(&mut byte);
        let asked = Pin::new(&mut self.stream).poll_read(&mut Context::from_waker(Waker::noop()), &mut unasked);
        // Bytes that nobody asked for are no answer to the next request.
        self.open && asked.is_pending()
    }

    /// Sends `request`, complete as bytes, and reads the answer.
    pub async fn call(&mut self, request: &[u8]) -> Result<Answer, Error> {
        let head = self.ask(request).await?;
        self.body(head).await.map_err(Error::Body)
    }

    /// As [`Self::call`], for who wants to know no more than that; the connection ends with it.
    pub async fn status(mut self, request: &[u8]) -> Result<StatusCode, Error> {
        Ok(self.ask(request).await?.status)
    }

    async fn ask(&mut self, request: &[u8]) -> Result<Head, Error> {
        self.open = false;
        self.filled = 0;
        self.stream.write_all(request).await.map_err(Error::Unsent)?;
        self.stream.flush().await.map_err(Error::Unsent)?;
        loop {
            self.fill(HEAD_BYTES_MAX).await.map_err(Error::Broken)?;
            while let Some(head) = parse_head(&self.buffer[..self.filled]).map_err(Error::Broken)? {
                let interim = head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS;
                if !interim {
                    return Ok(head);
                }
                self.forget(head.bytes);
            }
        }
    }

    async fn body(&mut self, head: Head) -> io::Result<Answer> {
        let (body, end) = match head.length {
            Length::Bytes(length) => {
                let end = head.bytes + length;
                while self.filled < end {
                    self.fill(end).await?;
                }
                (Bytes::copy_from_slice(&self.buffer[head.bytes..end]), end)
            }
            Length::Chunked => {
                self.forget(head.bytes);
                self.chunks().await?
            }
            Length::UntilEnd => {
                let most = head.bytes + ANSWER_BYTES_MAX;
                loop {
                    match self.fill(most + 1).await {
                        Ok(()) if self.filled > most => return Err(too_long()),
                        Ok(()) => {}
                        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                        Err(error) => return Err(error),
                    }
                }
                (Bytes::copy_from_slice(&self.buffer[head.bytes..self.filled]), self.filled)
            }
        };
        self.open = !head.closing && head.length != Length::UntilEnd && self.filled == end;
        if self.buffer.len() > KEPT_BYTES_MAX {
            self.buffer = vec![0; BUFFER_BYTES];
        }
        Ok(Answer { status: head.status, location: head.location, body })
    }

    /// The body, and where it ends in the buffer.
    async fn chunks(&mut self) -> io::Result<(Bytes, usize)> {
        let mut body = Vec::new();
        loop {
            let (at, size) = loop {
                match httparse::parse_chunk_size(&self.buffer[..self.filled]) {
                    Ok(httparse::Status::Complete((at, size))) => {
                        break (at, usize::try_from(size).unwrap_or(usize::MAX));
                    }
                    Ok(httparse::Status::Partial) => self.fill(HEAD_BYTES_MAX).await?,
                    Err(_) => return Err(invalid("a chunk without a size")),
                }
            };
            if size == 0 {
                return Ok((body.into(), self.trailers(at).await?));
            }
            if size > ANSWER_BYTES_MAX - body.len() {
                return Err(too_long());
            }
            let end = at + size + 2;
            while self.filled < end {
                self.fill(end).await?;
            }
            body.extend_from_slice(&self.buffer[at..at + size]);
            self.forget(end);
        }
    }

    /// Fields after the last chunk, up to an empty line; nobody looks at them. Where they end.
    async fn trailers(&mut self, at: usize) -> io::Result<usize> {
        loop {
            let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
            match httparse::parse_headers(&self.buffer[at..self.filled], &mut fields) {
                Ok(httparse::Status::Complete((length, _))) => return Ok(at + length),
                Ok(httparse::Status::Partial) => self.fill(at + HEAD_BYTES_MAX).await?,
                Err(error) => return Err(invalid(error.to_string())),
            }
        }
    }

    /// What follows becomes the beginning.
    fn forget(&mut self, bytes: usize) {
        self.buffer.copy_within(bytes..self.filled, 0);
        self.filled -= bytes;
    }

    /// Reads what is there. `most`: that so much has come and more is wanted is a fault.
    async fn fill(&mut self, most: usize) -> io::Result<()> {
        if self.filled >= most {
            return Err(invalid(format!("a part of it has more than {most} bytes")));
        }
        if self.filled == self.buffer.len() {
            self.buffer.resize(self.filled * 2, 0);
        }
        match self.stream.read(&mut self.buffer[self.filled..]).await? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed before the answer ended")),
            n => {
                self.filled += n;
                Ok(())
            }
        }
    }
}

/// `None`: more bytes are needed.
fn parse_head(bytes: &[u8]) -> io::Result<Option<Head>> {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(invalid(error.to_string())),
    };
    let status = StatusCode::from_u16(response.code.unwrap_or_default()).map_err(|error| invalid(error.to_string()))?;
    let old = response.version != Some(1); // HTTP/1.0 closes unless it says that it does not
    let mut head = Head { status, bytes: length, length: Length::UntilEnd, closing: old, location: None };
    let mut coded = false;
    for field in response.headers.iter() {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        let text = || String::from_utf8_lossy(field.value);
        // The length of a name tells these apart from most others.
        match field.name.len() {
            14 if is("content-length") => {
                let length = text().trim().parse().map_err(|_| invalid("content-length is no length"))?;
                if head.length != Length::UntilEnd && head.length != Length::Bytes(length) {
                    return Err(invalid("content-length is given twice"));
                }
                head.length = Length::Bytes(length);
            }
            17 if is("transfer-encoding") => {
                if !text().trim().eq_ignore_ascii_case("chunked") {
                    return Err(invalid("it has a transfer coding that nobody asked for"));
                }
                coded = true;
            }
            10 if is("connection") => {
                let text = text();
                let has = |wanted: &str| text.split(',').any(|word| word.trim().eq_ignore_ascii_case(wanted));
                head.closing = has("close") || (head.closing && !has("keep-alive"));
            }
            8 if is("location") => head.location = Some(text().trim().to_owned()),
            _ => {}
        }
    }
    if coded {
        head.length = Length::Chunked;
    }
    if status.is_informational() || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status) {
        head.length = Length::Bytes(0);
    }
    if matches!(head.length, Length::Bytes(length) if length > ANSWER_BYTES_MAX) {
        return Err(too_long());
    }
    Ok(Some(head))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives `sent` in parts of `size` bytes, then closes.
    async fn answer(sent: &[u8], size: usize) -> (Result<Answer, Error>, bool) {
        let (ours, mut theirs) = tokio::io::duplex(size);
        let mut connection = Connection::new(ours);
        let call = async { connection.call(b"GET / HTTP/1.1\r\n\r\n").await };
        let serve = async {
            let mut request = [0; 18];
            theirs.read_exact(&mut request).await.unwrap();
            theirs.write_all(sent).await.ok();
            let close = !sent.windows(7).any(|part| part == b"#keeps#");
            if close { None } else { Some(theirs) }
        };
        let (answer, kept) = tokio::join!(call, serve);
        let open = connection.is_open();
        drop(kept);
        (answer, open)
    }

    #[tokio::test]
    async fn an_answer_is_read_however_it_is_cut() {
        let chunked: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\nx: #keeps#\r\n\r\n3;a=b\r\nabc\r\n4\r\ndefg\r\n0\r\nt: u\r\n\r\n";
        let interim: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 409 Conflict\r\nContent-Length: 7\r\nx: #keeps#\r\n\r\nabcdefg";
        let to_the_end: &[u8] = b"HTTP/1.1 200 OK\r\n\r\nabcdefg";
        let old: &[u8] = b"HTTP/1.0 200 OK\r\ncontent-length: 7\r\nx: #keeps#\r\n\r\nabcdefg";
        let old_kept: &[u8] =
            b"HTTP/1.0 200 OK\r\nconnection: Keep-Alive\r\ncontent-length: 7\r\nx: #keeps#\r\n\r\nabcdefg";
        let closing: &[u8] = b"HTTP/1.1 302 Found\r\ncontent-length: 7\r\nlocation: /b\r\nconnection: x, Close\r\n#keeps#: 1\r\n\r\nabcdefg";
        let more: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\nx: #keeps#\r\n\r\nabcdefgh";
        for size in [1, 2, 7, 4096] {
            for (sent, status, open) in [
                (chunked, 200, true),
                (interim, 409, true),
                (to_the_end, 200, false),
                (old, 200, false),
                (old_kept, 200, true),
                (closing, 302, false),
                (more, 200, false),
            ] {
                let (answer, is_open) = answer(sent, size).await;
                let answer = answer.unwrap();
                let text = String::from_utf8_lossy(sent);
                assert_eq!((answer.status.as_u16(), &*answer.body, is_open), (status, &b"abcdefg"[..], open), "{text}");
                assert_eq!(answer.location.is_some(), status == 302);
            }
            let (empty, open) = self::answer(b"HTTP/1.1 204 No Content\r\nx: #keeps#\r\n\r\n", size).await;
            assert_eq!((empty.unwrap().body.len(), open), (0, true));
        }
    }

    #[tokio::test]
    async fn what_is_no_answer_is_refused() {
        let long = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", ANSWER_BYTES_MAX + 1);
        let long_chunk = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n", ANSWER_BYTES_MAX + 1);
        let endless = ["HTTP/1.1 200 OK\r\n\r\n", &"x".repeat(ANSWER_BYTES_MAX + 1)].concat();
        let long_head = ["HTTP/1.1 200 OK\r\nx: ", &"x".repeat(HEAD_BYTES_MAX)].concat();
        for sent in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "SMTP ready\r\n",
            "nonsense\r\n\r\n",
            &long,
            &long_chunk,
            &endless,
            &long_head,
        ] {
            let (answer, open) = answer(sent.as_bytes(), 4096).await;
            let start = sent.get(..60).unwrap_or(sent);
            assert!(matches!(answer, Err(Error::Broken(_) | Error::Body(_))) && !open, "{start}: {answer:?}");
        }
    }

    #[tokio::test]
    async fn who_wants_the_status_alone_does_not_wait_for_the_body() {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        theirs.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 9\r\n\r\n").await.unwrap();
        assert_eq!(Connection::new(ours).status(b"POST / HTTP/1.1\r\n\r\n").await.unwrap(), StatusCode::ACCEPTED);
    }
}
