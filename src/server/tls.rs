//! TLS on the ports: certificates from files, read again when these change, and connections that may have it or not.

use crate::config::ListenerTls;
use crate::dial;
use crate::fault::{Class, Fault};
use arc_swap::ArcSwap;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What the ports speak.
pub struct Tls {
    files: ListenerTls,
    config: ArcSwap<ServerConfig>,
}

impl Tls {
    /// `None` where no certificate is set. A file that cannot be used stops the start.
    pub fn open(files: &ListenerTls) -> Result<Option<Self>, Fault> {
        if files.cert.is_none() {
            return Ok(None);
        }
        let config = read(files).map_err(|error| {
            Fault::new(Class::Config, error).hint("openssl x509 -in FILE -noout -text   shows what is in a certificate")
        })?;
        Ok(Some(Self { files: files.clone(), config: ArcSwap::from_pointee(config) }))
    }

    pub fn files(&self) -> Vec<PathBuf> {
        [&self.files.cert, &self.files.key, &self.files.client_ca].into_iter().flatten().cloned().collect()
    }

    /// For connections from now on; those that are open stay as they are. With an error all stays as it was.
    pub fn reload(&self) {
        match read(&self.files) {
            Ok(config) => {
                self.config.store(Arc::new(config));
                tracing::info!("the certificates of the ports were read again");
            }
            Err(error) => tracing::error!("{error}; those read before stay in use"),
        }
    }

    /// Shakes hands, for so long.
    pub async fn accept(&self, stream: TcpStream, patience: Duration) -> io::Result<Stream> {
        let acceptor = TlsAcceptor::from(self.config.load_full());
        match tokio::time::timeout(patience, acceptor.accept(Pieces(stream))).await {
            Ok(stream) => stream.map(|stream| Stream::Tls(Box::new(stream))),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

fn read(files: &ListenerTls) -> Result<ServerConfig, String> {
    let file = |setting: &str, path: &Option<PathBuf>| {
        path.clone().ok_or_else(|| format!("tls.cert is set, and {setting} is not"))
    };
    let (cert, key) = (file("tls.cert", &files.cert)?, file("tls.key", &files.key)?);
    let chain = certificates("tls.cert", &cert)?;
    let key = PrivateKeyDer::from_pem_file(&key).map_err(|error| unusable("tls.key", &key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("ring speaks the default versions of TLS");
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates("tls.client_ca", path)? {
                roots.add(certificate).map_err(|error| unusable("tls.client_ca", path, &error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if files.require_client { verifier } else { verifier.allow_unauthenticated() };
            builder
                .with_client_cert_verifier(verifier.build().map_err(|error| unusable("tls.client_ca", path, &error))?)
        }
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| format!("tls.cert {} and tls.key do not go together: {error}", cert.display()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(setting: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let read = read.map_err(|error| unusable(setting, path, &error))?;
    if read.is_empty() { Err(unusable(setting, path, &"there is no certificate in it")) } else { Ok(read) }
}

fn unusable(setting: &str, path: &Path, why: &dyn std::fmt::Display) -> String {
    format!("{setting} {} cannot be used: {why}", path.display())
}

/// A connection of a client.
pub type Stream = dial::Stream<TlsStream<Pieces>>;

impl Stream {
    /// What it runs on.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => &stream.get_ref().0.0,
        }
    }
}

/// TCP below TLS. rustls hands on a list of records, mostly of one: the kernel takes one piece at less cost than a list of
/// one, by a thirtieth of all that a small answer costs.
pub struct Pieces(TcpStream);

impl AsyncRead for Pieces {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Pieces {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match pieces {
            [one] => Pin::new(&mut self.0).poll_write(cx, one),
            _ => Pin::new(&mut self.0).poll_write_vectored(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
