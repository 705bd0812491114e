//! Connections of the command line to its server: plain or with TLS.

use crate::dial::{self, Stream};
use crate::fault::{Class, Fault};
use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::Service;

/// Trusts those who signed for `ca`, or else whom browsers trust.
pub fn trusting(ca: Option<&Path>) -> anyhow::Result<TlsConnector> {
    let Some(path) = ca else { return Ok(dial::TLS.clone()) };
    let bad = |error: String| {
        Fault::new(Class::Usage, format!("--ca {} is no certificate: {error}", path.display()))
            .hint("it is a PEM file, and begins with -----BEGIN CERTIFICATE-----")
    };
    let mut roots = RootCertStore::empty();
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let (added, _) = roots.add_parsable_certificates(read.map_err(|error| bad(error.to_string()))?);
    if added == 0 {
        return Err(bad("there is none in it that can be used".into()).into());
    }
    Ok(dial::trusting(roots))
}

#[derive(Clone)]
pub struct Connector {
    tcp: HttpConnector,
    tls: TlsConnector,
    patience: Duration,
}

impl Connector {
    /// `patience` is for TCP, and once more for TLS.
    pub fn new(tls: TlsConnector, patience: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(patience));
        tcp.enforce_http(false);
        Self { tcp, tls, patience }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream<TlsStream<TcpStream>>>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let with_tls = uri.scheme_str() == Some("https");
        let (connecting, tls, patience) = (self.tcp.call(uri), self.tls.clone(), self.patience);
        Box::pin(async move {
            let stream = connecting.await?.into_inner();
            if !with_tls {
                return Ok(TokioIo::new(Stream::Plain(stream)));
            }
            let connecting = tls.connect(ServerName::try_from(host)?, stream);
            let stream =
                tokio::time::timeout(patience, connecting).await.map_err(|_| "no TLS within the time for it")??;
            Ok(TokioIo::new(Stream::Tls(Box::new(stream))))
        })
    }
}
