//! Opening a connection to a service of the shop: TCP, TLS where the URL says https, HTTP/1 on top.
//!
//! Order endpoints ([`crate::sale::call`]) and branches ([`crate::branch`]) are reached the same way and trust the same
//! roots; how long it may take and how many there may be is their callers' to say.

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::sync::{Arc, LazyLock};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// The sending half of a connection; its end is seen here when the other side closes.
pub type Sender = http1::SendRequest<Full<Bytes>>;

/// Connects. The error says in words what went wrong; nothing was sent.
pub async fn dial(host: &str, port: u16, tls: bool) -> Result<Sender, String> {
    let stream = tcp(host, port).await?;
    if !tls {
        return handshake(TokioIo::new(stream)).await;
    }
    handshake(TokioIo::new(encrypt(stream, host).await?)).await
}

/// The connection alone, ready for small messages.
pub(crate) async fn tcp(host: &str, port: u16) -> Result<TcpStream, String> {
    let stream = TcpStream::connect((host, port)).await.map_err(|error| error.to_string())?;
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// TLS on it; the certificate must be `host`'s.
pub(crate) async fn encrypt(stream: TcpStream, host: &str) -> Result<TlsStream<TcpStream>, String> {
    let name = rustls_pki_types::ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    TLS.connect(name, stream).await.map_err(|error| error.to_string())
}

async fn handshake<S>(stream: S) -> Result<Sender, String>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(stream).await.map_err(|error| error.to_string())?;
    tokio::spawn(async move {
        let _ = connection.await; // its end is seen by the sender
    });
    Ok(sender)
}

/// Mozilla's roots, as the Redis and database drivers here use them.
pub(crate) static TLS: LazyLock<tokio_rustls::TlsConnector> = LazyLock::new(|| {
    let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring speaks the default versions of TLS")
        .with_root_certificates(roots)
        .with_no_client_auth();
    tokio_rustls::TlsConnector::from(Arc::new(config))
});
