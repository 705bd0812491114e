//! What stands before the order service and spoils its answers, in every way that a shop's HTTP endpoint has been seen to.
//!
//! It never lies: whoever is told that an order exists finds it in the order service's books. So the oracle, which goes by
//! these books, can judge a poisoned run like any other.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::http::Connection;

/// Of 100 calls, how many are spoilt while it lasts: those who ask again must get through now and then.
const SPOILT_PERCENT: u32 = 70;
const HEADERS_MAX: usize = 64;
/// rushline's calls are small; a request of this size is none of its.
const REQUEST_BYTES_MAX: usize = 4 << 20;
/// An endless body ends when its reader has had enough; this is for a reader that never has.
const ENDLESS_BYTES_MAX: usize = 256 << 20;
const DRIP: Duration = Duration::from_millis(40);
/// The order service may be dead or stopped: then the caller's own time runs out first.
const SERVICE_WAIT_MAX: Duration = Duration::from_secs(60);

/// How answers are spoilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Poison {
    /// The call hangs, and the order service never hears of it.
    Hang,
    /// An error page, with FAILURE in it.
    ErrorPage,
    /// Yes, and a body that does not end.
    Endless,
    /// The order is made, the connection is reset.
    ResetAfter,
    ResetBefore,
    /// Yes, and half of a JSON document.
    HalfJson,
    /// Yes, of a product that is called FAILURE.
    FailureInName,
    /// Somewhere else: back here.
    Redirect,
    /// A few bytes at a time.
    Drip,
    /// What is no HTTP.
    Noise,
}

impl Poison {
    pub const ALL: [Self; 10] = [
        Self::Hang,
        Self::ErrorPage,
        Self::Endless,
        Self::ResetAfter,
        Self::ResetBefore,
        Self::HalfJson,
        Self::FailureInName,
        Self::Redirect,
        Self::Drip,
        Self::Noise,
    ];

    /// Does the order service hear of the call?
    fn lets_through(self) -> bool {
        !matches!(self, Self::Hang | Self::ErrorPage | Self::ResetBefore | Self::Redirect | Self::Noise)
    }
}

/// See the module.
pub struct Spoiler {
    pub address: SocketAddr,
    now: watch::Sender<Option<Poison>>,
}

impl Spoiler {
    /// Listens on `address` and passes on to `service`.
    pub async fn start(address: SocketAddr, service: SocketAddr, seed: u64) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (now, seen) = watch::channel(None);
        let chance = Arc::new(Mutex::new(fastrand::Rng::with_seed(seed)));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, chance) = (seen.clone(), chance.clone());
                tokio::spawn(async move {
                    // An error is a connection that either side has ended.
                    let _ = serve(stream, service, seen, &chance).await;
                });
            }
        });
        Ok(Self { address, now })
    }

    pub fn spoil(&self, poison: Option<Poison>) {
        self.now.send_replace(poison);
    }
}

async fn serve(
    mut stream: TcpStream,
    service: SocketAddr,
    mut seen: watch::Receiver<Option<Poison>>,
    chance: &Mutex<fastrand::Rng>,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    while let Some(bytes) = request(&mut stream, &mut buffer).await? {
        let call: Vec<u8> = buffer.drain(..bytes).collect();
        let lot = chance.lock().expect("no panic while locked").u32(..100);
        let poison = seen.borrow_and_update().filter(|_| lot < SPOILT_PERCENT);
        let answer = match poison {
            Some(poison) if !poison.lets_through() => None,
            _ => Some(pass_on(service, &call).await?),
        };
        match (poison, answer) {
            (None, Some((status, body))) => write(&mut stream, status, &body).await?,
            // A refusal is passed on as it is: only a yes can be told in many ways.
            (Some(_), Some((status, body))) if !(200..300).contains(&status) => {
                write(&mut stream, status, &body).await?;
            }
            (Some(poison), answer) => {
                return spoil(stream, poison, answer.map(|(_, body)| body).unwrap_or_default(), &mut seen).await;
            }
            (None, None) => unreachable!("what is not spoilt is passed on"),
        }
    }
    Ok(())
}

/// Gives one spoilt answer; the connection is of no more use.
async fn spoil(
    mut stream: TcpStream,
    poison: Poison,
    body: Vec<u8>,
    seen: &mut watch::Receiver<Option<Poison>>,
) -> std::io::Result<()> {
    match poison {
        Poison::Hang => {
            // Its sender is gone when the run is over.
            let _ = seen.changed().await;
        }
        Poison::ErrorPage => write(&mut stream, 500, b"<h1>CONNECTION FAILURE</h1> see ONGOING incidents").await?,
        Poison::ResetAfter | Poison::ResetBefore => stream.set_zero_linger()?,
        Poison::HalfJson => write(&mut stream, 201, br#"{"order":17,"dtm_result":"SUCC"#).await?,
        Poison::FailureInName => {
            write(&mut stream, 200, br#"{"order":17,"title":"FAILURE is an option, a poster"}"#).await?;
        }
        Poison::Redirect => {
            stream
                .write_all(b"HTTP/1.1 307 Temporary Redirect\r\nlocation: /orders\r\ncontent-length: 0\r\n\r\n")
                .await?;
        }
        Poison::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
            let chunk = [b"4000\r\n".as_slice(), &[b' '; 0x4000], b"\r\n"].concat();
            for _ in 0..ENDLESS_BYTES_MAX / chunk.len() {
                stream.write_all(&chunk).await?;
            }
        }
        Poison::Drip => {
            let head = format!("HTTP/1.1 201 Created\r\ncontent-length: {}\r\n\r\n", body.len());
            for piece in [head.as_bytes(), &body].concat().chunks(8) {
                stream.write_all(piece).await?;
                sleep(DRIP).await;
            }
        }
        Poison::Noise => stream.write_all(b"\x16\x03\x01\x02\x00 this is no HTTP\r\n\r\n").await?,
    }
    Ok(())
}

/// The order service's answer. While it is away there is none, and the connection breaks.
async fn pass_on(service: SocketAddr, call: &[u8]) -> std::io::Result<(u16, Vec<u8>)> {
    let passing = async {
        let mut connection = Connection::open(service).await?;
        let answer = connection.call(call).await?;
        Ok((answer.status, answer.body.to_vec()))
    };
    timeout(SERVICE_WAIT_MAX, passing).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}

/// Reads until a whole request is in `buffer`; how long it is. `None` when the caller has ended the connection.
async fn request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<Option<usize>> {
    let broken = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned());
    loop {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut head = httparse::Request::new(&mut headers);
        if let httparse::Status::Complete(head_bytes) =
            head.parse(buffer).map_err(|error| broken(&error.to_string()))?
        {
            let length = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
            let length = length.map_or(Some(0), |header| std::str::from_utf8(header.value).ok()?.trim().parse().ok());
            let bytes = head_bytes + length.filter(|&n: &usize| n <= REQUEST_BYTES_MAX).ok_or(broken("length"))?;
            if buffer.len() >= bytes {
                return Ok(Some(bytes));
            }
        }
        if buffer.len() > REQUEST_BYTES_MAX {
            return Err(broken("too long"));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

async fn write(stream: &mut TcpStream, status: u16, body: &[u8]) -> std::io::Result<()> {
    let head =
        format!("HTTP/1.1 {status} so\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body].concat()).await
}
