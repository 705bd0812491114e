//! Connecting to what a URL names, if it may be called: the name is looked up once, and what was looked up is what is
//! judged and connected to.

use super::TLS;
use super::reach::{self, Place, Scheme};
use futures_util::future::BoxFuture;
use http::Uri;
use hyper_util::rt::TokioIo;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tower::Service;

/// Addresses of one name that are tried; a name of our services has few.
const ADDRESSES_MAX: usize = 8;

/// A connection, ready for small messages. The error says in words why there is none, or may be none.
pub(crate) async fn tcp(place: Place<'_>) -> Result<TcpStream, String> {
    let host = place.host.trim_start_matches('[').trim_end_matches(']');
    let found = tokio::net::lookup_host((host, place.port)).await.map_err(|error| error.to_string())?;
    let (mut refused, mut failed) = (None, None);
    for address in found.take(ADDRESSES_MAX) {
        // Of a name's addresses those are tried that may be.
        if let Err(error) = reach::current().check_address(place, address.ip()) {
            refused.get_or_insert(error);
            continue;
        }
        match connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = Some(error),
        }
    }
    Err(match (failed, refused) {
        (Some(error), _) => error.to_string(),
        (None, Some(refused)) => refused.to_string(),
        (None, None) => format!("{host} has no address"),
    })
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// TLS on it; the certificate must be `host`'s.
pub(crate) async fn encrypt(stream: TcpStream, host: &str) -> Result<TlsStream<TcpStream>, String> {
    let name = rustls_pki_types::ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    TLS.connect(name, stream).await.map_err(|error| error.to_string())
}

/// Opens connections for tonic, whose own connector asks nobody whom it may call. TLS is tonic's to add.
#[derive(Clone)]
pub(crate) struct Connector {
    pub scheme: Scheme,
    pub patience: Duration,
    /// How long a connection may be silent before the system asks whether the other side is there.
    pub keepalive: Option<Duration>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { scheme, patience, keepalive } = self.clone();
        Box::pin(async move {
            let host = uri.host().unwrap_or_default();
            let place = Place { scheme, host, port: uri.port_u16().unwrap_or_default() };
            let stream = tokio::time::timeout(patience, tcp(place)).await;
            let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {patience:?}"));
            let stream = stream.map_err(late)?.map_err(io::Error::other)?;
            if let Some(keepalive) = keepalive {
                let keepalive = socket2::TcpKeepalive::new().with_time(keepalive);
                let _ = socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive);
            }
            Ok(TokioIo::new(stream))
        })
    }
}
