//! The floor: the least that an HTTP server in Rust can do. Every figure is held against it, so that a slow machine
//! does not look like a slow rushline.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket};

/// 100 bytes, about what rushline answers.
const ANSWER: &[u8] =
    br#"{"gid":"floor.0.1763800000000-0.00","status":"submitted","items":[{"sku":"sku-1","quantity":1}]}    "#;
const _: () = assert!(ANSWER.len() == 100);

/// Reads each body and answers 200 with the same 100 bytes, for ever. Prints `listening on ADDR` first.
pub async fn run(listen: SocketAddr) -> anyhow::Result<()> {
    let listener = open(listen)?;
    println!("listening on {}", listener.local_addr()?);
    serve(listener, |request: Request<Incoming>| async {
        // A body that breaks off ends the connection; there is nobody to tell.
        let _ = request.into_body().collect().await;
        json_bytes(200, Bytes::from_static(ANSWER))
    })
    .await
}

/// A listener with as much room for those who come at once as the server's own.
pub fn open(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(4096)
}

/// Put into an answer's extensions, it cuts the connection instead: a reply that is lost.
#[derive(Debug, Clone, Copy)]
pub struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cut on purpose")
    }
}

impl std::error::Error for Cut {}

/// Answers every connection of `listener` with `answer`, for ever.
pub async fn serve<A, F>(listener: TcpListener, answer: A) -> anyhow::Result<()>
where
    A: Fn(Request<Incoming>) -> F + Copy + Send + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = service_fn(move |request| {
            let answered = answer(request);
            async move {
                let answer = answered.await;
                if answer.extensions().get::<Cut>().is_some() { Err(Cut) } else { Ok(answer) }
            }
        });
        tokio::spawn(async move {
            // An error here is a connection cut by the caller.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

pub fn json_bytes(status: u16, body: Bytes) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(Full::new(body))
        .expect("a fixed header and a status from 200 to 599 are valid")
}
