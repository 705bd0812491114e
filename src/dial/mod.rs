//! Opening a connection to a service of the shop: TCP, and TLS on it where the URL says https.
//!
//! Order endpoints, branches and webhooks are reached the same way and trust the same roots; how long it may take and how
//! many there may be is their callers' to say. Whom they may reach at all is [`reach`]'s: no connection is opened past it.
//! Proxies that the environment names are nobody's here: they would call whom this server must not.

#[cfg(feature = "server")]
pub mod reach;
#[cfg(feature = "server")]
mod special;
#[cfg(feature = "server")]
mod tcp;

#[cfg(feature = "server")]
pub(crate) use tcp::{Connector, encrypt, tcp};

mod stream;

pub use stream::Stream;

use rustls::RootCertStore;
use std::sync::{Arc, LazyLock};
use tokio_rustls::TlsConnector;

/// Mozilla's roots, as the Redis and database drivers here use them.
pub(crate) static TLS: LazyLock<TlsConnector> =
    LazyLock::new(|| trusting(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }));

/// TLS with whom these vouch for.
pub(crate) fn trusting(roots: RootCertStore) -> TlsConnector {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring speaks the default versions of TLS")
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}
