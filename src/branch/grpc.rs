//! A branch over gRPC: dtm's metadata, the message byte for byte as the client gave it, and dtm's reading of the status.
//!
//! One connection a service, kept and made anew when it breaks; it carries many calls at once. As with HTTP, the calls
//! to one service are bounded, and the time limit counts the wait for a turn and the call each by itself.

use super::Context;
use super::hosts::turn;
use super::resolve::Endpoint;
use crate::dial::Connector;
use crate::dial::reach::Scheme;
use crate::domain::trans::{BranchResult, CallSpec, Called};
use crate::proto::workflow::WorkflowData;
use crate::raw_codec::Raw;
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue};
use prost::Message;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, ClientTlsConfig};
use tonic::{Code, Request, Status};

/// Longest reply that is taken, though nobody reads it: as much as Go's client, which dtm uses, takes.
const REPLY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Longest list of headers and trailers of a reply.
const REPLY_HEADERS_BYTES_MAX: u32 = 64 * 1024;
/// Services that are remembered; URLs come from clients, so there must be a bound. Above it the unused are forgotten.
const SERVICES_MAX: usize = 4_096;
/// Calls in a row without any answer, after which a connection counts as dead: TCP alone would notice in a quarter of
/// an hour, and pings are taken amiss by Go's servers.
const SILENT_MAX: u32 = 3;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// Names that the protocol itself uses; a transaction's own headers may not set them.
const RESERVED: [&str; 11] = [
    "connection",
    "content-length",
    "content-type",
    "grpc-encoding",
    "grpc-message",
    "grpc-status",
    "grpc-timeout",
    "host",
    "te",
    "transfer-encoding",
    "user-agent",
];

/// A transaction's own headers as metadata.
pub fn metadata(branch_headers: &HeaderMap) -> MetadataMap {
    let mut headers = HeaderMap::with_capacity(branch_headers.len());
    for (name, value) in branch_headers {
        if RESERVED.contains(&name.as_str()) {
            continue;
        }
        let value = match name.as_str().ends_with("-bin") {
            // By their name these are bytes, which travel as base64.
            true => tonic::metadata::BinaryMetadataValue::from_bytes(value.as_bytes()).as_encoded_bytes().to_vec(),
            false => value.as_bytes().to_vec(),
        };
        if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(value)) {
            headers.insert(name, value);
        }
    }
    MetadataMap::from_headers(headers)
}

/// What goes over the wire. A workflow's input has a message around it; all else is sent as it came.
pub fn request(context: &Context, spec: &CallSpec) -> Result<Request<Bytes>, String> {
    let payload = match spec.called {
        Called::Workflow => WorkflowData { data: spec.payload.clone() }.encode_to_vec().into(),
        Called::QueryPrepared | Called::Branch(_) => spec.payload.clone(),
    };
    let mut headers = context.metadata.clone().into_headers();
    for (name, value) in [
        ("dtm-gid", context.gid.as_str()),
        ("dtm-trans_type", context.trans_type.as_str()),
        ("dtm-branch_id", &spec.branch_id),
        ("dtm-op", &spec.op),
        // The address of the coordinator for nested calls: its own clients know it, and it sends none.
        ("dtm-dtm", ""),
    ] {
        let printable = value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        let value = HeaderValue::from_str(value).ok().filter(|_| printable);
        let value = value.ok_or_else(|| format!("{name} is not printable ASCII, which gRPC's metadata must be"))?;
        headers.insert(HeaderName::from_static(name), value);
    }
    let mut request = Request::new(payload);
    *request.metadata_mut() = MetadataMap::from_headers(headers);
    request.set_timeout(context.timeout);
    Ok(request)
}

/// What a status means; the word in the message is from before dtm gave the codes a meaning.
pub fn result(answer: Result<(), Error>) -> BranchResult {
    match answer {
        Ok(()) => BranchResult::Success,
        Err(Error::Status(status)) => match status.code() {
            Code::Aborted if status.message() == "ONGOING" => BranchResult::Ongoing,
            Code::Aborted => BranchResult::Failure(status.message().to_owned()),
            Code::FailedPrecondition => BranchResult::Ongoing,
            _ => BranchResult::Unknown(describe(&status)),
        },
        Err(error @ Error::NoTurn(_)) => BranchResult::NotCalled(error.to_string()),
        Err(error) => BranchResult::Unknown(error.to_string()),
    }
}

/// In the words of Go's library, which dtm's users know, with the causes when there was no answer at all.
fn describe(status: &Status) -> String {
    let mut text = format!("rpc error: code = {:?} desc = {}", status.code(), status.message());
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

/// A call without a success.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no answer within {0} ms")]
    Timeout(u128),
    /// As [`super::hosts::Error::NoTurn`].
    #[error("not called: other calls to this service took more than {0} ms")]
    NoTurn(u128),
    #[error("cannot use {0}: {1}")]
    Endpoint(String, tonic::transport::Error),
    /// The service's, or that of a connection that was refused or broke.
    #[error("{0}")]
    Status(Status),
}

impl Error {
    /// There was no connection: the service did not hear of the call.
    pub fn is_unsent(&self) -> bool {
        let Self::Status(status) = self else { return matches!(self, Self::Endpoint(..)) };
        let mut cause = std::error::Error::source(status);
        while let Some(error) = cause {
            if error.is::<tonic::ConnectError>() {
                return true;
            }
            cause = error.source();
        }
        false
    }

    /// Nothing came back; what was asked may have been done or not.
    pub fn is_silence(&self) -> bool {
        match self {
            Self::Timeout(_) | Self::Endpoint(..) => true,
            Self::NoTurn(_) => false,
            Self::Status(status) => std::error::Error::source(status).is_some(),
        }
    }
}

struct Peer {
    permits: Semaphore,
    channel: Mutex<Channel>,
    silent: AtomicU32,
}

/// The connections, and the bound on the calls that one service gets at a time.
pub struct Peers {
    peers: Mutex<HashMap<Endpoint, Arc<Peer>>>,
    calls_max: usize,
}

impl Peers {
    pub fn new(calls_max: usize) -> Self {
        Self { peers: Mutex::default(), calls_max }
    }

    pub async fn call(
        &self,
        endpoint: &Endpoint,
        method: PathAndQuery,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> Result<(), Error> {
        let peer = self.peer(endpoint)?;
        let _turn = turn(&peer.permits, timeout).await.ok_or(Error::NoTurn(timeout.as_millis()))?;
        let channel = peer.channel.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match tokio::time::timeout(timeout, unary(channel, method, request)).await {
            Ok(answer) => {
                peer.silent.store(0, Ordering::Relaxed);
                answer.map_err(Error::Status)
            }
            Err(_) => {
                if peer.silent.fetch_add(1, Ordering::Relaxed) + 1 >= SILENT_MAX {
                    peer.silent.store(0, Ordering::Relaxed);
                    let fresh = connect(endpoint)?;
                    *peer.channel.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
                }
                Err(Error::Timeout(timeout.as_millis()))
            }
        }
    }

    fn peer(&self, endpoint: &Endpoint) -> Result<Arc<Peer>, Error> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = peers.get(endpoint) {
            return Ok(known.clone());
        }
        if peers.len() >= SERVICES_MAX {
            peers.retain(|_, peer| Arc::strong_count(peer) > 1);
        }
        let channel = Mutex::new(connect(endpoint)?);
        let peer = Arc::new(Peer { permits: Semaphore::new(self.calls_max), channel, silent: AtomicU32::new(0) });
        peers.insert(endpoint.clone(), peer.clone());
        Ok(peer)
    }
}

/// Connects when it is first used, and again whenever the connection is gone.
fn connect(endpoint: &Endpoint) -> Result<Channel, Error> {
    let scheme = if endpoint.tls { "https" } else { "http" };
    let address = format!("{scheme}://{}", endpoint.authority);
    let bad = |error| Error::Endpoint(address.clone(), error);
    let mut channel = Channel::from_shared(address.clone())
        .map_err(|_| Error::Status(Status::invalid_argument(format!("{address} is no address"))))?
        .user_agent(concat!("rushline/", env!("CARGO_PKG_VERSION")))
        .map_err(bad)?
        .http2_max_header_list_size(REPLY_HEADERS_BYTES_MAX);
    if endpoint.tls {
        channel = channel.tls_config(ClientTlsConfig::new().with_webpki_roots()).map_err(bad)?;
    }
    let scheme = Scheme::grpc(endpoint.tls);
    Ok(channel.connect_with_connector_lazy(Connector {
        scheme,
        patience: CONNECT_TIMEOUT,
        keepalive: Some(TCP_KEEPALIVE),
    }))
}

async fn unary(channel: Channel, method: PathAndQuery, request: Request<Bytes>) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel).max_decoding_message_size(REPLY_BYTES_MAX);
    client.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
    // What the branch answers is for nobody; its status is.
    client.unary(request, method, Raw).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_as_dtm_reads_it() {
        let read = |code: Code, message: &str| result(Err(Error::Status(Status::new(code, message))));
        assert_eq!(result(Ok(())), BranchResult::Success);
        assert_eq!(read(Code::Aborted, "no stock"), BranchResult::Failure("no stock".into()));
        assert_eq!(read(Code::Aborted, "ONGOING"), BranchResult::Ongoing);
        assert_eq!(read(Code::FailedPrecondition, "wait"), BranchResult::Ongoing);
        let unknown = BranchResult::Unknown("rpc error: code = Internal desc = oops".into());
        assert_eq!(read(Code::Internal, "oops"), unknown);
        for code in [Code::Unknown, Code::Unimplemented, Code::Unavailable, Code::NotFound, Code::AlreadyExists] {
            assert!(matches!(read(code, "FAILURE"), BranchResult::Unknown(_)), "{code:?}");
        }
    }

    #[test]
    fn what_the_protocol_uses_is_no_header_of_a_transaction() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("X-Tenant", "7"), ("grpc-timeout", "1n"), ("TE", "x"), ("trace-bin", "ab")] {
            headers.insert(HeaderName::try_from(name).unwrap(), HeaderValue::from_static(value));
        }
        let metadata = metadata(&headers);
        assert_eq!(metadata.len(), 2, "{metadata:?}");
        assert_eq!(metadata.get("x-tenant").unwrap(), "7");
        assert_eq!(metadata.get_bin("trace-bin").unwrap().to_bytes().unwrap(), "ab");
    }
}
