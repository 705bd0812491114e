//! This server's own entry in a registry: written, kept alive, written again, and taken back at the end.
//!
//! The form is go-zero's: key `NAME/<lease id in decimal>`, value `host:port`, a lease of ten seconds. A crashed server
//! is gone when its lease is; a stopped one at once. An etcd that is away, also at the start, is asked again every
//! second for as long as this server runs, and it is said so: a server that nobody finds must not look healthy.

use super::etcd::{Change, Client, Error, Keys, Session};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// As go-zero's.
pub const LEASE: Duration = Duration::from_secs(10);
/// A third of the lease: two renewals may fail before it ends.
const RENEW_EVERY: Duration = Duration::from_millis(3_300);
/// Without an answer for so long another member is asked, with time left to do so.
const SILENCE_MAX: Duration = Duration::from_secs(6);
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// After the first failure in a row, one in so many is logged.
const REPORT_EVERY: u32 = 60;
/// The end of a server waits no longer than this for its entry to go; the lease takes care of the rest.
const REVOKE_MAX: Duration = Duration::from_secs(2);

/// How the entry is at present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Not yet, or no longer: why not.
    Absent(String),
    /// Under this key.
    Registered(String),
}

/// The entry of one server. Dropped, it is taken back some time later.
pub struct Entry {
    stop: watch::Sender<bool>,
    state: watch::Receiver<State>,
    task: JoinHandle<()>,
}

impl Entry {
    /// Begins to register `endpoint` under `name`, and goes on until [`Entry::remove`].
    pub fn keep(client: Arc<Client>, name: String, endpoint: String) -> Self {
        let (stop, stopping) = watch::channel(false);
        let (telling, state) = watch::channel(State::Absent("not asked yet".into()));
        let keeper = Keeper { client, name, endpoint, stopping, telling, lease: None, failures: 0 };
        Self { stop, state, task: tokio::spawn(keeper.run()) }
    }

    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Leaves it to its lease, as a crash does.
    pub fn abandon(self) {
        self.task.abort();
    }

    /// Takes the entry back: from now on nobody new finds this server.
    pub async fn remove(self) {
        self.stop.send_replace(true);
        let _ = self.task.await;
    }
}

struct Keeper {
    client: Arc<Client>,
    name: String,
    endpoint: String,
    stopping: watch::Receiver<bool>,
    telling: watch::Sender<State>,
    /// Survives a lost connection: an etcd that was away for a moment still knows it, and then the key stays the same.
    lease: Option<i64>,
    failures: u32,
}

impl Keeper {
    async fn run(mut self) {
        metrics::gauge!("rushline_registry_registered").set(0.0);
        loop {
            let mut stopping = self.stopping.clone();
            let error = tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => break,
                error = self.keep() => error,
            };
            self.report(&error);
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => break,
                () = tokio::time::sleep(RETRY_EVERY) => {}
            }
        }
        if tokio::time::timeout(REVOKE_MAX, self.revoke()).await.is_err() {
            tracing::warn!(name = self.name, "etcd does not answer: the entry goes when its lease ends, in 10 s");
        }
        metrics::gauge!("rushline_registry_registered").set(0.0);
    }

    fn report(&mut self, error: &Error) {
        metrics::gauge!("rushline_registry_registered").set(0.0);
        metrics::counter!("rushline_registry_failures_total").increment(1);
        self.telling.send_replace(State::Absent(error.to_string()));
        if self.failures.is_multiple_of(REPORT_EVERY) {
            tracing::warn!(
                name = self.name, endpoint = self.endpoint, %error, failures = self.failures + 1,
                "not registered: services that look for this server in etcd do not find it; trying again every second"
            );
        }
        self.failures = self.failures.saturating_add(1);
    }

    /// Registers and stays registered; returns what went wrong.
    async fn keep(&mut self) -> Error {
        let session = match self.client.session().await {
            Ok(session) => session,
            Err(error) => return error,
        };
        let error = match self.keep_with(&session).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        if let Error::LeaseGone { .. } = error {
            self.lease = None; // and the connection is good
        } else {
            self.client.leave(&session).await;
        }
        error
    }

    async fn keep_with(&mut self, session: &Arc<Session>) -> Result<std::convert::Infallible, Error> {
        let (lease, key, written) = self.write(session).await?;
        let mut renewing = session.keep_alive(lease).await?;
        let mut watching = session.watch(&Keys::One(key.clone()), written + 1).await?;
        self.tell(&key, session.host());
        let mut every = tokio::time::interval(RENEW_EVERY);
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                _ = every.tick() => renewing.renew(),
                answer = renewing.renewed() => {
                    answer?;
                    renewed = Instant::now();
                }
                () = tokio::time::sleep_until(renewed + SILENCE_MAX) => {
                    return Err(Error::Timeout { host: session.host().to_owned() });
                }
                changes = watching.changes() => {
                    if changes?.iter().any(|change| matches!(change, Change::Gone(_))) {
                        tracing::warn!(key, "somebody deleted this server's entry in etcd; it is written again");
                        session.put(&key, &self.endpoint, Some(lease)).await?;
                    }
                }
            }
        }
    }

    /// Writes the entry under the lease that there is, if etcd still knows it, or else under a new one.
    async fn write(&mut self, session: &Session) -> Result<(i64, String, i64), Error> {
        let key = |lease: i64| format!("{}/{lease}", self.name);
        if let Some(lease) = self.lease {
            match session.put(&key(lease), &self.endpoint, Some(lease)).await {
                Err(Error::LeaseGone { .. }) => {} // it ran out while the connection was lost
                written => return written.map(|at| (lease, key(lease), at)),
            }
        }
        let lease = session.grant(LEASE).await?;
        self.lease = Some(lease);
        let at = session.put(&key(lease), &self.endpoint, Some(lease)).await?;
        Ok((lease, key(lease), at))
    }

    fn tell(&mut self, key: &str, host: &str) {
        self.failures = 0;
        metrics::gauge!("rushline_registry_registered").set(1.0);
        self.telling.send_replace(State::Registered(key.to_owned()));
        tracing::info!(key, endpoint = self.endpoint, etcd = host, "registered");
    }

    async fn revoke(&self) {
        let Some(lease) = self.lease else { return };
        match self.client.session().await {
            Ok(session) => match session.revoke(lease).await {
                Ok(()) => tracing::info!(name = self.name, "no longer registered"),
                Err(error) => tracing::warn!(%error, "the entry goes when its lease ends, in 10 s"),
            },
            Err(error) => tracing::warn!(%error, "the entry goes when its lease ends, in 10 s"),
        }
    }
}
