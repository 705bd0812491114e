//! HTTP/2 as nobody should speak it, frame by frame: whoever does is shut out, and the server serves on.

use super::SOON;
use crate::support::app::{App, AppOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;
/// `:method: GET`, `:scheme: http`, `:path: /`, each out of the static table of RFC 7541.
const GET: [u8; 3] = [0x82, 0x86, 0x84];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header field that enters no table.
fn field(name: &str, value: &str) -> Vec<u8> {
    let length = |length: usize| {
        let mut bytes = vec![length.min(127) as u8];
        let mut rest = length.saturating_sub(127);
        if length >= 127 {
            while rest >= 128 {
                bytes.push((rest % 128 + 128) as u8);
                rest /= 128;
            }
            bytes.push(rest as u8);
        }
        bytes
    };
    [vec![0], length(name.len()), name.as_bytes().to_vec(), length(value.len()), value.as_bytes().to_vec()].concat()
}

struct Abuser {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Abuser {
    async fn greet(address: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await.unwrap();
        Self { stream, read: Vec::new() }
    }

    /// Sends `next(0)`, `next(1)` … until the server has had enough, and says with which code it went; `None`: it only closed.
    /// Panics if it takes all `times`.
    async fn until_shut_out(mut self, times: u32, next: impl Fn(u32) -> Vec<u8>) -> Option<u32> {
        for n in 0..times {
            if self.stream.write_all(&next(n)).await.is_err() {
                return self.goaway().await;
            }
            let mut bytes = [0; 16 * 1024];
            while let Ok(length) = self.stream.try_read(&mut bytes) {
                self.read.extend_from_slice(&bytes[..length]);
                if length == 0 || self.code().is_some() {
                    return self.code();
                }
            }
            tokio::task::yield_now().await;
        }
        let ended = tokio::time::timeout(SOON, self.goaway()).await;
        ended.expect("the server takes all of it")
    }

    /// Reads to the end, or to a GOAWAY.
    async fn goaway(&mut self) -> Option<u32> {
        let mut bytes = [0; 16 * 1024];
        while self.code().is_none() {
            match self.stream.read(&mut bytes).await {
                Ok(length @ 1..) => self.read.extend_from_slice(&bytes[..length]),
                _ => break,
            }
        }
        self.code()
    }

    fn frames(&self) -> Vec<(u8, &[u8])> {
        let (mut frames, mut rest) = (Vec::new(), self.read.as_slice());
        while rest.len() >= 9 {
            let length = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
            let Some(payload) = rest.get(9..9 + length) else { break };
            frames.push((rest[3], payload));
            rest = &rest[9 + length..];
        }
        frames
    }

    fn code(&self) -> Option<u32> {
        let (_, payload) = self.frames().into_iter().find(|(kind, _)| *kind == GOAWAY)?;
        Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()))
    }
}

async fn serves(app: &App) {
    assert_eq!(app.get("/readyz").await.status, 200, "the server serves on");
    assert!(!app.log().contains("panicked"), "{}", app.log());
}

fn doors(app: &App) -> [String; 2] {
    [app.base().replace("http://", ""), app.grpc()]
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_opened_to_be_reset_end_the_connection() {
    let app = App::start(AppOptions::default()).await;
    for door in doors(&app) {
        let burst = |n: u32| {
            let one = |at: u32| {
                let stream = 2 * (n * 500 + at) + 1;
                [
                    frame(HEADERS, END_STREAM | END_HEADERS, stream, &GET),
                    frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()),
                ]
                .concat()
            };
            (0..500).flat_map(one).collect()
        };
        let code = Abuser::greet(&door).await.until_shut_out(200, burst).await;
        assert!(matches!(code, None | Some(ENHANCE_YOUR_CALM)), "{door}: {code:?}");
        serves(&app).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_without_end_ends_the_connection() {
    let app = App::start(AppOptions::default()).await;
    let (many, none) = (field("x-flood", &"x".repeat(1_000)), Vec::new());
    for door in doors(&app) {
        // With fields, and with nothing at all in each frame.
        for payload in [&many, &none] {
            let flood = |n: u32| match n {
                0 => frame(HEADERS, END_STREAM, 1, &GET),
                _ => frame(CONTINUATION, 0, 1, payload),
            };
            Abuser::greet(&door).await.until_shut_out(100_000, flood).await;
            serves(&app).await;
        }
    }
}

/// More fields than are taken, in a head that ends: no request, and no memory for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_too_large_is_refused() {
    let app = App::start(AppOptions::default()).await;
    for door in doors(&app) {
        let mut abuser = Abuser::greet(&door).await;
        let large = field("x-large", &"x".repeat(12_000));
        for (n, kind) in [HEADERS, CONTINUATION, CONTINUATION, CONTINUATION].into_iter().enumerate() {
            let payload = if n == 0 { [&GET[..], &large].concat() } else { large.clone() };
            let flags = if n == 3 { END_HEADERS } else { 0 } | if n == 0 { END_STREAM } else { 0 };
            abuser.stream.write_all(&frame(kind, flags, 1, &payload)).await.unwrap();
        }
        let refused = tokio::time::timeout(SOON, async {
            let mut bytes = [0; 4096];
            loop {
                // `:status: 431` is no entry of the static table: it is sent as text.
                let said = abuser.frames().iter().any(|(kind, payload)| {
                    *kind == RST_STREAM
                        || *kind == GOAWAY
                        || (*kind == HEADERS && (payload.windows(3).any(|part| part == b"431") || payload[0] != 0x88))
                });
                if said {
                    return;
                }
                match abuser.stream.read(&mut bytes).await {
                    Ok(length @ 1..) => abuser.read.extend_from_slice(&bytes[..length]),
                    _ => return,
                }
            }
        });
        refused.await.expect("an answer");
        serves(&app).await;
    }
}

/// Bodies that are announced and never sent: no more of them at once than a connection may have, and each for a bounded time.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_never_come_are_let_go() {
    let app = App::start(AppOptions::default().setting("http.header_timeout_ms", 300)).await;
    // `:method: POST`, `:scheme: http`, and a path of its own.
    let head = |path: &str, kind: &str| {
        let mut head = vec![0x83, 0x86, 0x04, path.len() as u8];
        head.extend_from_slice(path.as_bytes());
        head.extend(field("content-type", kind));
        head
    };
    for (door, path, kind) in [
        (0, "/v1/sales", "application/json"),
        (0, "/api/dtmsvr/submit", "application/json"),
        (1, "/dtmgimp.Dtm/Submit", "application/grpc"),
    ] {
        let mut abuser = Abuser::greet(&doors(&app)[door]).await;
        let streams: u32 = 300;
        for stream in 0..streams {
            abuser.stream.write_all(&frame(HEADERS, END_HEADERS, 2 * stream + 1, &head(path, kind))).await.unwrap();
        }
        let answered = tokio::time::timeout(SOON, async {
            let mut bytes = [0; 64 * 1024];
            loop {
                let ended = abuser.frames().iter().filter(|(kind, _)| [HEADERS, RST_STREAM].contains(kind)).count();
                if ended >= streams as usize || abuser.code().is_some() {
                    return;
                }
                match abuser.stream.read(&mut bytes).await {
                    Ok(length @ 1..) => abuser.read.extend_from_slice(&bytes[..length]),
                    _ => return,
                }
            }
        });
        answered.await.unwrap_or_else(|_| panic!("{path}: some are waited for still"));
        serves(&app).await;
    }
}

/// Frames that want an answer, sent by somebody who reads none.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_do_not_pile_up() {
    let app = App::start(AppOptions::default()).await;
    for kind in [PING, SETTINGS, DATA] {
        let mut abuser = Abuser::greet(&app.grpc()).await;
        let one = match kind {
            PING => frame(PING, 0, 0, &[7; 8]),
            SETTINGS => frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]),
            _ => frame(DATA, 0, 0, b"on no stream"),
        };
        let burst = one.repeat(1_000);
        // Until nothing more is taken, or a few megabytes were.
        for _ in 0..200 {
            let wrote =
                tokio::time::timeout(std::time::Duration::from_millis(200), abuser.stream.write_all(&burst)).await;
            if !matches!(wrote, Ok(Ok(()))) {
                break;
            }
        }
        serves(&app).await;
    }
}

/// A connection on which nothing is asked goes in good order, pings or not.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_requests_is_told_to_go() {
    let app = App::start(AppOptions::default().setting("http.idle_timeout_ms", 300)).await;
    for door in doors(&app) {
        let mut abuser = Abuser::greet(&door).await;
        abuser.stream.write_all(&frame(SETTINGS, ACK, 0, &[])).await.unwrap();
        abuser.stream.write_all(&frame(PING, 0, 0, &[1; 8])).await.unwrap();
        let code = tokio::time::timeout(SOON, abuser.goaway()).await.expect("it is told");
        assert_eq!(code, Some(0), "{door}: nobody did anything wrong");
    }
}
