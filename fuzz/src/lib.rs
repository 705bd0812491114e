//! Everything that reads what others wrote, as functions of bytes that must never panic; and what must hold of what is read.
//!
//! Each is a target of cargo-fuzz (fuzz/targets/, `make fuzz`), and is run on its seeds (fuzz/seeds/NAME/) and on spoilt copies
//! of them by the integration tests. A byte string that broke one once belongs among the seeds.

use bytes::Bytes;
use futures_util::FutureExt;
use http::StatusCode;
use prost::Message;
use rushline::branch;
use rushline::dial::reach::{Place, Reach, Scheme};
use rushline::domain::trans::{Limits, RegisterBranch, TransRequest};
use rushline::http1::{Address, Connection};
use rushline::proto::dtmgimp::{DtmBranchRequest, DtmRequest, DtmTopicRequest};
use rushline::server::wire::{AddStock, CreateSale, PlaceOrder, UpdateSale};
use rushline::server::{length_of_order, read_grpc, read_json_rpc};
use rushline::store::{frame, trans_form};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A decoder: its name, which is that of its target and of its seeds, and the function.
pub type Decoder = (&'static str, fn(&[u8]));

pub const DECODERS: [Decoder; 10] = [
    ("order_body", order_body),
    ("dtm_request", dtm_request),
    ("grpc_message", grpc_message),
    ("stored_form", stored_form),
    ("order_frame", order_frame),
    ("order_head", order_head),
    ("http_answer", http_answer),
    ("address", address),
    ("branch_result", branch_result),
    ("config_file", config_file),
];

/// Bodies that operators and buyers send.
pub fn order_body(bytes: &[u8]) {
    if let Ok(order) = serde_json::from_slice::<PlaceOrder<'_>>(bytes)
        && let Ok(order) = order.into_order(None, None)
    {
        // What is taken has a form in Redis that says the same.
        let mut written = Vec::new();
        frame::encode(&order, &mut written);
        let read = frame::decode_all(&written).expect("what was written is read");
        assert_eq!((read.len(), &read[0].items, &read[0].buyer), (1, &order.items, &order.buyer));
        assert_eq!(read[0].payload.as_deref(), order.payload.as_ref().map(|payload| payload.get()));
    }
    if let Ok(sale) = serde_json::from_slice::<CreateSale>(bytes) {
        let _ = sale.into_new_sale();
    }
    let _ = serde_json::from_slice::<UpdateSale>(bytes);
    let _ = serde_json::from_slice::<AddStock>(bytes);
}

fn topics(name: &str) -> Option<Vec<String>> {
    (name.len() > 1).then(|| vec![format!("http://h/{name}")])
}

fn begun(request: TransRequest) {
    if let Ok(global) = request.into_global(1_795_000_000_000, &Limits::default(), &topics) {
        let record = trans_form::record_of(&global, 3).into_bytes();
        let read = trans_form::read(global.gid.as_str(), Some(record), Vec::new());
        let read = read.expect("what was written is read").expect("it is there");
        assert!(read.version == 3 && read.global == global, "{read:?} is not {global:?}");
    }
}

/// Bodies of dtm's calls over HTTP and JSON-RPC.
pub fn dtm_request(bytes: &[u8]) {
    if let Ok(request) = TransRequest::from_json(bytes) {
        begun(request);
    }
    let _ = RegisterBranch::from_json(bytes);
    if let Some(request) = read_json_rpc(bytes) {
        begun(request);
    }
}

/// Messages of dtm's calls over gRPC.
pub fn grpc_message(bytes: &[u8]) {
    if let Ok(message) = DtmRequest::decode(bytes)
        && let Ok(request) = read_grpc(message)
    {
        begun(request);
    }
    let _ = DtmBranchRequest::decode(bytes);
    let _ = DtmTopicRequest::decode(bytes);
}

/// Transactions as Redis has them: a record, and after a zero byte the rows of branches.
pub fn stored_form(bytes: &[u8]) {
    let mut parts = bytes.split(|byte| *byte == 0);
    let record = parts.next().map(<[u8]>::to_vec);
    let mut rows = Vec::new();
    while let (Some(field), Some(row)) = (parts.next(), parts.next()) {
        rows.push((String::from_utf8_lossy(field).into_owned(), String::from_utf8_lossy(row).into_owned()));
    }
    let _ = trans_form::read("g", record, rows);
}

/// Orders as Redis has them.
pub fn order_frame(bytes: &[u8]) {
    let _ = frame::decode_all(bytes);
}

/// Requests as they arrive on a connection.
pub fn order_head(bytes: &[u8]) {
    const BODY_MAX: usize = 4_096;
    if let Some(length) = length_of_order(bytes, BODY_MAX) {
        assert!(length <= bytes.len(), "an order of {length} bytes in {}", bytes.len());
        assert_eq!(length_of_order(&bytes[..length], BODY_MAX), Some(length), "what follows does not count");
        assert_eq!(length_of_order(&bytes[..length - 1], BODY_MAX), None, "a part of it is none");
    }
}

/// Answers of services; the first byte says in how many pieces they come, which must make no difference.
pub fn http_answer(bytes: &[u8]) {
    let Some((piece, answer)) = bytes.split_first() else { return };
    let read = |piece: usize| {
        let script = Script { bytes: answer.to_vec(), at: 0, piece };
        let mut connection = Connection::new(script);
        let answer = connection.call(b"GET / HTTP/1.1\r\n\r\n").now_or_never().expect("nothing is waited for");
        answer.ok().map(|answer| (answer.status, answer.body))
    };
    assert_eq!(read(usize::from(*piece).max(1)), read(usize::MAX));
}

/// A connection on which these bytes come, in pieces, and then the end.
struct Script {
    bytes: Vec<u8>,
    at: usize,
    piece: usize,
}

impl AsyncRead for Script {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let length = self.piece.min(self.bytes.len() - self.at).min(buffer.remaining());
        let end = self.at + length;
        buffer.put_slice(&self.bytes[self.at..end]);
        self.at = end;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Addresses of branches and services, and lists of whom may be called.
pub fn address(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let closed = Reach::parse("private").expect("it is one");
    if let Some(address) = Address::parse(&text) {
        let place = address.place();
        if let Ok(literal) = address.host.parse::<IpAddr>() {
            // A host that is an address is judged where it comes in just as it is when it is connected to.
            assert_eq!(closed.check(place).is_ok(), closed.check_address(place, literal).is_ok(), "{text}");
        }
        let scheme = if address.tls { "https" } else { "http" };
        let again = Address::parse(&format!("{scheme}://{}{}", address.authority, address.path));
        assert_eq!(again.as_ref(), Some(&address), "{text}: read again it is another place");
        let _ = address.redirected(&address.path, &text);
        // Nothing in it ends the line that it is written into.
        assert!(address.path.bytes().all(|byte| byte > b' ' && byte != 0x7f), "{text}");
        assert!(address.authority.bytes().all(|byte| byte > b' '), "{text}");
    }
    let _ = (branch::hosts::check(&text), branch::resolve::split(&text), rushline::registry::target::split(&text));
    let _ = rushline::registry::target::registration(&text);
    if let Ok(reach) = Reach::parse(&text) {
        assert_eq!(Reach::parse(&reach.to_string()).as_ref(), Ok(&reach), "shown it is the same list");
        let place = Place { scheme: Scheme::Http, host: "h", port: 80 };
        let _ = (reach.check(place), reach.check_address(place, IpAddr::from([169, 254, 169, 254])));
    }
}

/// What branches answer: a status out of the first two bytes, and a body.
pub fn branch_result(bytes: &[u8]) {
    let Some((code, body)) = bytes.split_at_checked(2) else { return };
    let status = 100 + u16::from_be_bytes([code[0], code[1]]) % 900;
    let answer = || Ok((StatusCode::from_u16(status).expect("it is 100 to 999"), Bytes::copy_from_slice(body)));
    let _ = (branch::http::result(answer()), branch::json_rpc::result(answer()));
}

/// Files of settings.
pub fn config_file(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Err(error) = rushline::config::resolve_text(&text) {
        assert!(!error.problems.is_empty());
        let _ = error.to_string();
    }
}
