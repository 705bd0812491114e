//! The client itself: an address, a pool of connections, two time limits.

use super::coordinator::{self, Door};
use super::error::Error;
use super::grpc::Grpc;
use super::http::Http;
use super::msg::Msg;
use super::orders::Sale;
use super::saga::Saga;
use super::tcc::TccBuilder;
use super::workflow::Workflows;
use super::xa::XaBuilder;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// For one call of the coordinator, or of a branch by this client.
const TIMEOUT: Duration = Duration::from_secs(10);
/// For a submit that waits for its transaction.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Talks to one coordinator. Cheap to clone; the clones share their connections.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    timeout: Duration,
    wait_max: Duration,
    /// `Bearer TOKEN`
    authorization: Option<HeaderValue>,
}

struct Shared {
    door: Door,
    http: Http,
    grpc: Grpc,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.address()).finish()
    }
}

impl Client {
    /// A coordinator's HTTP address: `http://HOST:36789`, with or without `/api/dtmsvr`. Nothing is sent yet.
    pub fn http(url: impl AsRef<str>) -> Result<Self, Error> {
        Ok(Self::at(Door::Http(coordinator::base(url.as_ref())?)))
    }

    /// A coordinator's gRPC address: `HOST:36790`, or `https://HOST:36790` for TLS. Nothing is sent yet.
    ///
    /// It needs a tokio runtime around it when it is first used.
    pub fn grpc(address: impl Into<String>) -> Result<Self, Error> {
        let address = address.into();
        let address = address.trim_start_matches("http://").trim_end_matches('/');
        if address.is_empty() {
            return Err(Error::invalid("a gRPC address looks like HOST:36790"));
        }
        Ok(Self::at(Door::Grpc(address.to_owned())))
    }

    fn at(door: Door) -> Self {
        let shared = Arc::new(Shared { door, http: Http::new(), grpc: Grpc::default() });
        Self { shared, timeout: TIMEOUT, wait_max: WAIT_MAX, authorization: None }
    }

    /// What the coordinator knows this client by, where it asks for tokens: of the role `client` for global transactions, of
    /// `buyer` for orders. Branches never hear it.
    pub fn with_token(mut self, token: impl AsRef<str>) -> Result<Self, Error> {
        let bearer = HeaderValue::from_str(&format!("Bearer {}", token.as_ref()));
        let mut bearer = bearer.map_err(|_| Error::invalid("the token has characters that no token has"))?;
        bearer.set_sensitive(true);
        self.authorization = Some(bearer);
        Ok(self)
    }

    /// How long one call may take, 10 s by default; then it is [`Error::Unreachable`].
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long a submit with `wait_result` may take, 60 s by default.
    pub fn with_wait_max(mut self, wait_max: Duration) -> Self {
        self.wait_max = wait_max;
        self
    }

    /// A two-phase message.
    pub fn msg(&self, gid: impl Into<String>) -> Msg {
        Msg::new(self.clone(), gid.into())
    }

    /// A saga.
    pub fn saga(&self, gid: impl Into<String>) -> Saga {
        Saga::new(self.clone(), gid.into())
    }

    /// Try, confirm, cancel.
    pub fn tcc(&self, gid: impl Into<String>) -> TccBuilder {
        TccBuilder::new(self.clone(), gid.into())
    }

    /// Two-phase commit of databases.
    pub fn xa(&self, gid: impl Into<String>) -> XaBuilder {
        XaBuilder::new(self.clone(), gid.into())
    }

    /// Workflows of this process; `callback` is where the coordinator finds it: an HTTP URL whose handler calls
    /// [`Workflows::resume`], or a gRPC method served by [`Workflows::resume_grpc`].
    pub fn workflows(&self, callback: impl Into<String>) -> Workflows {
        Workflows::new(self.clone(), callback.into())
    }

    /// A flash sale. Over HTTP only.
    pub fn sale(&self, name: impl Into<String>) -> Sale {
        Sale::new(self.clone(), name.into())
    }

    /// As branches hear it in `dtm`, to register further ones.
    pub(crate) fn address(&self) -> String {
        match &self.shared.door {
            Door::Http(base) => base.to_string(),
            Door::Grpc(server) => server.clone(),
        }
    }

    pub(crate) fn door(&self) -> &Door {
        &self.shared.door
    }

    pub(crate) fn http_pool(&self) -> &Http {
        &self.shared.http
    }

    pub(crate) fn grpc_pool(&self) -> &Grpc {
        &self.shared.grpc
    }

    /// These headers, and who asks.
    pub(crate) fn authorized(&self, mut headers: HeaderMap) -> HeaderMap {
        if let Some(bearer) = &self.authorization {
            headers.insert(AUTHORIZATION, bearer.clone());
        }
        headers
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(crate) fn wait_max(&self) -> Duration {
        self.wait_max
    }
}
