//! gRPC, as a client speaks it: a channel per host, messages as bytes, a time limit on every call.

use super::error::Error;
use crate::branch_error::BranchError;
use crate::raw_codec::Raw;
use bytes::Bytes;
use http::uri::PathAndQuery;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tonic::client::Grpc as Caller;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Beyond this, channels are let go and made anew: nobody talks to so many hosts at once.
const CHANNELS_MAX: usize = 256;

#[derive(Default)]
pub(crate) struct Grpc {
    channels: Mutex<HashMap<String, Channel>>,
}

/// `HOST:PORT/package.Service/Method`, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    pub server: &'a str,
    pub method: &'a str,
}

impl<'a> Target<'a> {
    pub fn parse(url: &'a str) -> Result<Self, Error> {
        let wrong =
            || Error::invalid(format!("`{url}` is no gRPC method; one looks like HOST:PORT/package.Service/Method"));
        if url.contains("://") {
            return Err(wrong());
        }
        let (server, rest) = url.split_once('/').ok_or_else(wrong)?;
        if server.is_empty() || rest.split('/').count() != 2 {
            return Err(wrong());
        }
        Ok(Self { server, method: &url[server.len()..] })
    }
}

impl Grpc {
    /// The channel to `HOST:PORT` or `https://HOST:PORT`; it connects when it is first used.
    pub fn channel(&self, server: &str) -> Result<Channel, Error> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(server) {
            return Ok(channel.clone());
        }
        let url = if server.contains("://") { server.to_owned() } else { format!("http://{server}") };
        let mut endpoint = Endpoint::from_shared(url).map_err(Error::invalid)?.connect_timeout(CONNECT_MAX);
        if server.starts_with("https://") {
            let tls = ClientTlsConfig::new().with_webpki_roots();
            endpoint = endpoint.tls_config(tls).map_err(Error::invalid)?;
        }
        let channel = endpoint.connect_lazy();
        if channels.len() >= CHANNELS_MAX {
            channels.clear();
        }
        channels.insert(server.to_owned(), channel.clone());
        Ok(channel)
    }

    /// One unary call.
    pub async fn unary(
        &self,
        server: &str,
        method: &str,
        metadata: MetadataMap,
        message: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, BranchError> {
        let channel = self.channel(server)?;
        let path: PathAndQuery = method.parse()?;
        let mut request = Request::new(message);
        *request.metadata_mut() = metadata;
        request.set_timeout(timeout);
        let calling = async {
            let mut caller = Caller::new(channel);
            caller.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            caller.unary(request, path, Raw).await
        };
        match tokio::time::timeout(timeout, calling).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(BranchError::from_status(status)),
            Err(_) => Err(Status::deadline_exceeded(format!("no answer within {} ms", timeout.as_millis())).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_url_is_server_and_method() {
        let target = Target::parse("localhost:50081/busi.Busi/TransIn").unwrap();
        assert_eq!(target, Target { server: "localhost:50081", method: "/busi.Busi/TransIn" });
        for wrong in ["", "localhost:1", "/busi.Busi/TransIn", "h:1/m", "etcd://h/trans/p.S/M"] {
            assert!(Target::parse(wrong).is_err(), "{wrong}");
        }
    }
}
