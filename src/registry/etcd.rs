//! A small client of etcd v3: keys, leases, watches and accounts, over gRPC, at whichever member answers.
//!
//! [`Client::session`] is a connection to one member, with a token where the etcd wants an account. Whoever meets an
//! error on it says so with [`Client::leave`], and the next session is with the next member. Nothing is retried in here:
//! those who use it ([`super::register`], [`super::resolve`]) begin anew at a pace of their own.

use super::target::Account;
use crate::dial::Connector;
use crate::dial::reach::Scheme;
use crate::proto::etcdserverpb as pb;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use pb::{
    auth_client::AuthClient, kv_client::KvClient, lease_client::LeaseClient, watch_client::WatchClient,
    watch_request::RequestUnion,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status, Streaming};

/// A member that takes longer is not the one to talk to.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// go-zero's clients wait as long.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// How a connection that died in silence is found. etcd breaks one that is asked more often than every 5 s.
const PING_EVERY: Duration = Duration::from_secs(10);
const PONG_MAX: Duration = Duration::from_secs(5);
/// Most keys that are read of one prefix: more instances of one service than anybody runs.
const KEYS_MAX: i64 = 4_096;

const FOREIGN: Connector = Connector { scheme: Scheme::Etcd, patience: CONNECT_MAX, keepalive: None };

/// What went wrong, with the member at which it did. All of them may be different the next time.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot connect to etcd at {host}: {why}")]
    Connect { host: String, why: String },
    #[error("etcd at {host} did not answer within {} s", ANSWER_MAX.as_secs())]
    Timeout { host: String },
    /// The lease ran out, or this etcd never heard of it.
    #[error("the lease is not known to etcd at {host}")]
    LeaseGone { host: String },
    #[error("etcd at {host} says: {why}")]
    Refused { host: String, why: String },
    #[error("etcd at {host} ended a stream{why}")]
    Ended { host: String, why: String },
}

/// Files for TLS, read once.
#[derive(Clone)]
pub struct Tls {
    /// Who may have signed the members' certificates, PEM.
    pub ca: Vec<u8>,
    /// Own certificate and key, PEM, for an etcd that asks for them.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// One etcd.
pub struct Client {
    hosts: Vec<String>,
    account: Option<Account>,
    tls: Option<Tls>,
    /// It was named by somebody else than the configuration: only what may be called for others is connected to.
    foreign: bool,
    session: Mutex<Option<Arc<Session>>>,
    /// The member that is tried first.
    first: AtomicUsize,
}

impl Client {
    pub fn new(hosts: Vec<String>, account: Option<Account>, tls: Option<Tls>) -> Self {
        Self { hosts, account, tls, foreign: false, session: Mutex::default(), first: AtomicUsize::default() }
    }

    /// One that a branch's address names.
    pub fn foreign(hosts: Vec<String>) -> Self {
        Self { foreign: true, ..Self::new(hosts, None, None) }
    }

    pub fn has_account(&self) -> bool {
        self.account.is_some()
    }

    /// The connection that there is, or one to the first member that takes it.
    pub async fn session(&self) -> Result<Arc<Session>, Error> {
        let mut kept = self.session.lock().await;
        if let Some(session) = kept.as_ref() {
            return Ok(session.clone());
        }
        let first = self.first.load(Ordering::Relaxed);
        let mut last = None;
        for at in 0..self.hosts.len() {
            let place = first.wrapping_add(at) % self.hosts.len();
            match self.open(&self.hosts[place]).await {
                Ok(session) => {
                    self.first.store(place, Ordering::Relaxed);
                    return Ok(kept.insert(Arc::new(session)).clone());
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or(Error::Connect { host: "nowhere".into(), why: "no host is named".into() }))
    }

    async fn open(&self, host: &str) -> Result<Session, Error> {
        Session::open(host, self.account.as_ref(), self.tls.as_ref(), self.foreign).await
    }

    /// This session brought an error: the next one is with the next member, and with a new token.
    pub async fn leave(&self, session: &Arc<Session>) {
        let mut kept = self.session.lock().await;
        if kept.as_ref().is_some_and(|there| Arc::ptr_eq(there, session)) {
            *kept = None;
            self.first.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A connection to one member.
pub struct Session {
    host: String,
    channel: Channel,
    token: Option<MetadataValue<Ascii>>,
}

impl Session {
    async fn open(host: &str, account: Option<&Account>, tls: Option<&Tls>, foreign: bool) -> Result<Self, Error> {
        let failed = |why: String| Error::Connect { host: host.to_owned(), why };
        let scheme = if tls.is_some() { "https" } else { "http" };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{host}")).map_err(|error| failed(words(&error)))?;
        let mut endpoint = endpoint
            .connect_timeout(CONNECT_MAX)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PONG_MAX)
            .keep_alive_while_idle(true);
        if let Some(tls) = tls {
            let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&tls.ca));
            if let Some((certificate, key)) = &tls.identity {
                config = config.identity(Identity::from_pem(certificate, key));
            }
            endpoint = endpoint.tls_config(config).map_err(|error| failed(words(&error)))?;
        }
        let connecting = async {
            match foreign {
                true => endpoint.connect_with_connector(FOREIGN).await,
                false => endpoint.connect().await,
            }
        };
        let channel = tokio::time::timeout(CONNECT_MAX * 2, connecting).await;
        let channel = channel.map_err(|_| Error::Timeout { host: host.to_owned() })?;
        let channel = channel.map_err(|error| failed(words(&error)))?;
        let mut session = Self { host: host.to_owned(), channel, token: None };
        if let Some(account) = account {
            session.token = session.authenticate(account).await?;
        }
        Ok(session)
    }

    /// The member that this is with.
    pub fn host(&self) -> &str {
        &self.host
    }

    async fn authenticate(&self, account: &Account) -> Result<Option<MetadataValue<Ascii>>, Error> {
        let request = pb::AuthenticateRequest { name: account.user.clone(), password: account.password.clone() };
        let mut client = AuthClient::new(self.channel.clone());
        match self.ask(client.authenticate(self.request(request))).await {
            Ok(answer) => {
                let token = answer.token.parse().map_err(|_| self.refused("its token is no text"))?;
                Ok(Some(token))
            }
            // An account that nobody asks for does no harm; etcd's own clients go on as well.
            Err(Error::Refused { why, .. }) if why.contains("authentication is not enabled") => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        // A member that has lost its leader knows nothing new, and would not say so.
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }

    async fn ask<T>(&self, call: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, Error> {
        match tokio::time::timeout(ANSWER_MAX, call).await {
            Ok(answer) => answer.map(tonic::Response::into_inner).map_err(|status| self.error(&status)),
            Err(_) => Err(Error::Timeout { host: self.host.clone() }),
        }
    }

    fn error(&self, status: &Status) -> Error {
        let host = self.host.clone();
        match status.code() {
            Code::NotFound if status.message().contains("lease not found") => Error::LeaseGone { host },
            Code::Unavailable | Code::Unknown | Code::Internal if status.message().is_empty() => {
                Error::Connect { host, why: words(status) }
            }
            _ => Error::Refused { host, why: status.message().to_owned() },
        }
    }

    fn refused(&self, why: &str) -> Error {
        Error::Refused { host: self.host.clone(), why: why.to_owned() }
    }

    fn ended(&self, why: &str) -> Error {
        let why = if why.is_empty() { String::new() } else { format!(": {why}") };
        Error::Ended { host: self.host.clone(), why }
    }

    fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone())
    }

    fn leases(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel.clone())
    }

    /// Writes a key; with a lease it goes when that ends. Returns the store's revision after it.
    pub async fn put(&self, key: &str, value: &str, lease: Option<i64>) -> Result<i64, Error> {
        let request = pb::PutRequest {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Bytes::copy_from_slice(value.as_bytes()),
            lease: lease.unwrap_or_default(),
        };
        let answer = self.ask(self.kv().put(self.request(request))).await?;
        Ok(revision(answer.header))
    }

    /// Deletes the key, or with `below` all that begin with it; returns how many there were.
    pub async fn delete(&self, keys: &Keys) -> Result<i64, Error> {
        let (key, range_end) = keys.range();
        let answer = self.ask(self.kv().delete_range(self.request(pb::DeleteRangeRequest { key, range_end }))).await?;
        Ok(answer.deleted)
    }

    /// Keys and values, and the revision at which they are so.
    pub async fn list(&self, keys: &Keys) -> Result<(Vec<(Bytes, Bytes)>, i64), Error> {
        let (key, range_end) = keys.range();
        let request = pb::RangeRequest { key, range_end, limit: KEYS_MAX };
        let answer = self.ask(self.kv().range(self.request(request))).await?;
        Ok((answer.kvs.into_iter().map(|pair| (pair.key, pair.value)).collect(), revision(answer.header)))
    }

    /// A lease of `ttl`, in whole seconds.
    pub async fn grant(&self, ttl: Duration) -> Result<i64, Error> {
        let ttl = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let answer = self.ask(self.leases().lease_grant(self.request(pb::LeaseGrantRequest { ttl }))).await?;
        if answer.error.is_empty() { Ok(answer.id) } else { Err(self.refused(&answer.error)) }
    }

    /// Ends a lease, and with it its keys.
    pub async fn revoke(&self, lease: i64) -> Result<(), Error> {
        self.ask(self.leases().lease_revoke(self.request(pb::LeaseRevokeRequest { id: lease }))).await?;
        Ok(())
    }

    /// A stream over which a lease is renewed.
    pub async fn keep_alive(&self, lease: i64) -> Result<KeepAlive<'_>, Error> {
        let (asking, asked) = mpsc::channel(4);
        let first = pb::LeaseKeepAliveRequest { id: lease };
        let _ = asking.try_send(first); // there is room; a server may wait for it before it answers at all
        let stream = self.ask(self.leases().lease_keep_alive(self.request(received(asked)))).await?;
        Ok(KeepAlive { session: self, lease, asking, answers: stream })
    }

    /// What changes from `revision` on.
    pub async fn watch(&self, keys: &Keys, revision: i64) -> Result<Watch<'_>, Error> {
        let (key, range_end) = keys.range();
        let create = pb::WatchCreateRequest { key, range_end, start_revision: revision };
        let create = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        // The watch lasts as long as the asking half stays open.
        let asking = stream::iter([create]).chain(stream::pending());
        let mut client = WatchClient::new(self.channel.clone());
        let answers = self.ask(client.watch(self.request(asking))).await?;
        Ok(Watch { session: self, answers })
    }
}

/// One key, or all that begin alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keys {
    One(String),
    /// All below `NAME/`, the slash given here as part of it.
    Below(String),
}

impl Keys {
    fn range(&self) -> (Bytes, Bytes) {
        match self {
            Self::One(key) => (Bytes::copy_from_slice(key.as_bytes()), Bytes::new()),
            Self::Below(prefix) => {
                // The end is the next text that does not begin so: the last byte, one higher. Texts have no byte 0xff.
                let mut end = prefix.clone().into_bytes();
                if let Some(last) = end.last_mut() {
                    *last += 1;
                }
                (Bytes::copy_from_slice(prefix.as_bytes()), end.into())
            }
        }
    }
}

/// A lease that is being renewed.
pub struct KeepAlive<'a> {
    session: &'a Session,
    lease: i64,
    asking: mpsc::Sender<pb::LeaseKeepAliveRequest>,
    answers: Streaming<pb::LeaseKeepAliveResponse>,
}

impl KeepAlive<'_> {
    /// Asks once more. The answer comes from [`KeepAlive::renewed`].
    pub fn renew(&self) {
        // A full queue means that the last ones are not out yet: then one more helps nobody.
        let _ = self.asking.try_send(pb::LeaseKeepAliveRequest { id: self.lease });
    }

    /// Waits for an answer.
    pub async fn renewed(&mut self) -> Result<(), Error> {
        match self.answers.message().await {
            Ok(Some(answer)) if answer.ttl > 0 => Ok(()),
            Ok(Some(_)) => Err(Error::LeaseGone { host: self.session.host.clone() }),
            Ok(None) => Err(self.session.ended("")),
            Err(status) => Err(self.session.error(&status)),
        }
    }
}

/// A change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Put(Bytes, Bytes),
    Gone(Bytes),
}

pub struct Watch<'a> {
    session: &'a Session,
    answers: Streaming<pb::WatchResponse>,
}

impl Watch<'_> {
    /// Waits for changes. After an error the keys must be listed anew.
    pub async fn changes(&mut self) -> Result<Vec<Change>, Error> {
        loop {
            let answer = self.answers.message().await.map_err(|status| self.session.error(&status))?;
            let answer = answer.ok_or_else(|| self.session.ended(""))?;
            if answer.canceled || answer.compact_revision > 0 {
                return Err(self.session.ended(&answer.cancel_reason));
            }
            if !answer.events.is_empty() {
                let changes = answer.events.into_iter().filter_map(|event| {
                    let gone = event.r#type() == pb::event::EventType::Delete;
                    let pair = event.kv?;
                    Some(if gone { Change::Gone(pair.key) } else { Change::Put(pair.key, pair.value) })
                });
                return Ok(changes.collect());
            }
        }
    }
}

fn received<T: Send + 'static>(receiver: mpsc::Receiver<T>) -> impl Stream<Item = T> + Send {
    stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) })
}

fn revision(header: Option<pb::ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

/// An error with its causes: tonic's own words are mostly `transport error`.
fn words(error: &(dyn std::error::Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        cause = inner.source();
    }
    words
}
