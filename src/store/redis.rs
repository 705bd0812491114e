//! Redis as the rest of the program has it: lanes to send by, what it promises, and a watch over it.
//!
//! The hot path uses a few multiplexed connections, held for ever: a pool's checkout costs a round trip. Reading whole
//! entries back (drain, takeover) has one of its own, so that it does not stand in the way, and so have operators'
//! questions.

use super::clock::Clock;
use super::lane::{Kind, Lane};
use super::place::{Place, Tls};
use super::promise::Promise;
use super::server::Manner;
use super::topology::Topology;
use super::witness::Witness;
use super::{Error, memory, server};
use crate::zoo;
use redis::{Cmd, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// How often a script is sent that Redis does not know: somebody may flush them just after they were loaded.
const SCRIPT_TRIES_MAX: u32 = 5;
/// Longest look at one server; whoever rewrites its file goes on by itself and is found at it by the next look.
const LOOK_MAX: Duration = Duration::from_secs(5);
/// How often it is asked who is who, if nothing gives cause to sooner.
const REFRESH_EVERY: Duration = Duration::from_secs(1);
/// And how often at most, whatever gives cause.
const REFRESH_PAUSE: Duration = Duration::from_millis(50);

/// How to reach Redis and how patient to be.
#[derive(Debug, Clone)]
pub struct Settings {
    /// One server, Sentinels or a Cluster: see [`super::place`].
    pub url: String,
    pub tls: Tls,
    pub prefix: String,
    /// Multiplexed connections for scripts, to each server.
    pub connections: usize,
    /// Longest wait for one answer.
    pub timeout: Duration,
    /// Rewrite an append-only file that was loaded, before anything is sold.
    pub rewrite_after_load: bool,
}

impl Settings {
    async fn find(&self) -> Result<Arc<Topology>, Error> {
        let manner = Manner {
            connections: self.connections,
            timeout: self.timeout,
            rewrite_after_load: self.rewrite_after_load,
        };
        Topology::find(Place::read(&self.url, &self.tls)?, manner).await
    }
}

pub struct Redis {
    settings: Settings,
    pub(super) topology: Arc<Topology>,
    next_lane: AtomicUsize,
    /// What was acknowledged: see [`super::witness`].
    pub(super) witness: Witness,
    /// Percent of `maxmemory` that new work may fill.
    pub(super) memory_share: AtomicU8,
}

impl Redis {
    /// Connects and verifies. Fails when Redis, or a server of the Cluster, cannot be reached or used.
    pub async fn connect(settings: Settings) -> Result<Arc<Self>, Error> {
        let topology = settings.find().await?;
        topology.verify().await?;
        Ok(Arc::new(Self {
            settings,
            topology,
            next_lane: AtomicUsize::new(0),
            witness: Witness::default(),
            memory_share: AtomicU8::new(memory::SHARE),
        }))
    }

    /// What is there promises, and how many servers that is. Changes nothing there.
    pub async fn examine(settings: &Settings) -> Result<(Promise, usize), Error> {
        let servers = settings.find().await?.servers();
        let mut sum: Option<Promise> = None;
        for server in &servers {
            let promise = server::read_promise(&mut server.aside.connection()).await?;
            sum = Some(match sum {
                Some(sum) => sum.weaker(promise),
                None => promise,
            });
        }
        Ok((sum.unwrap_or_default(), servers.len()))
    }

    pub fn prefix(&self) -> &str {
        &self.settings.prefix
    }

    /// What Redis promises at present; of a Cluster what its weakest server does.
    pub fn promise(&self) -> Arc<Promise> {
        self.topology.promise()
    }

    /// What the server that has `key` promises.
    pub fn promise_at(&self, key: &str) -> Arc<Promise> {
        self.topology.server_of(key.as_bytes()).map_or_else(|_| Arc::default(), |server| server.promise())
    }

    /// Milliseconds since 1970, by the clock that all nodes of this Redis share; of a Cluster's servers one has it.
    pub fn now_ms(&self) -> u64 {
        let server = self.topology.server_of(self.settings.prefix.as_bytes());
        server.map_or_else(|_| Clock::default().now_ms(), |server| server.clock.now_ms())
    }

    /// Did Redis, and every server of a Cluster, answer the last time we asked, and are the scripts loaded?
    pub fn usable(&self) -> bool {
        let servers = self.topology.servers();
        !servers.is_empty() && servers.iter().all(|server| server.usable())
    }

    /// The same of the server that has `key`.
    pub fn usable_at(&self, key: &str) -> bool {
        self.topology.server_of(key.as_bytes()).is_ok_and(|server| server.usable())
    }

    /// Are keys spread over several servers?
    pub fn is_cluster(&self) -> bool {
        self.topology.cluster()
    }

    /// Longest wait for one answer.
    pub fn patience(&self) -> Duration {
        self.settings.timeout
    }

    /// One of the shared connections, in turn.
    pub fn lane(&self) -> Lane {
        self.lane_as(Kind::Shared(self.next_lane.fetch_add(1, Ordering::Relaxed)))
    }

    /// A connection of its own, for whoever blocks it with WAIT or WAITAOF for up to `redis.timeout_ms`.
    pub fn own_lane(&self) -> Result<Lane, Error> {
        Ok(self.lane_as(Kind::Own(Arc::default())))
    }

    /// The connection for reading whole entries back.
    pub fn slow(&self) -> Lane {
        self.lane_as(Kind::Slow)
    }

    /// The connection for operators' questions.
    pub fn aside(&self) -> Lane {
        self.lane_as(Kind::Aside)
    }

    fn lane_as(&self, kind: Kind) -> Lane {
        Lane::new(self.topology.clone(), kind)
    }

    /// Runs a script that [`super::scripts::Script::call`] began. On NOSCRIPT verifies the server and asks again: the
    /// refusal is definite, so nothing can happen twice. The scripts may be forgotten again in between, so a few times.
    pub async fn run(&self, lane: &mut Lane, command: &Cmd) -> Result<Value, Error> {
        let mut tries = 1;
        loop {
            // What the server says is a value to the driver; only what kept it from saying anything is an error.
            let reply = redis::aio::ConnectionLike::req_packed_command(lane, command).await;
            let error = match reply.and_then(Value::extract_error) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if error.code().is_none() && tries == 1 && zoo::planted("what had no answer is sent again") {
                tries += 1;
                continue;
            }
            let Some(server) = lane.server() else { return Err(error.into()) };
            if error.code() == Some("NOSCRIPT") && tries < SCRIPT_TRIES_MAX {
                tries += 1;
                Box::pin(server.verify_soon()).await?;
                continue;
            }
            // A replica now, or on its way to being one or the other: the watch finds out who is to be asked.
            let demoted = matches!(error.code(), Some("READONLY" | "MASTERDOWN" | "LOADING"));
            let error = Error::from(error);
            if demoted || matches!(error, Error::NoAnswer(_)) {
                server.doubt();
                self.topology.stale.notify_one();
            }
            return Err(error);
        }
    }

    /// Makes sure of every server, and loads the scripts.
    pub async fn verify(&self) -> Result<(), Error> {
        self.topology.verify().await
    }

    /// Looks after Redis for as long as the server runs.
    pub async fn watch(self: Arc<Self>, every: Duration) {
        let mut refreshed = Instant::now();
        loop {
            let cause = tokio::time::timeout(every, self.topology.stale.notified()).await.is_ok();
            if cause || refreshed.elapsed() >= REFRESH_EVERY {
                refreshed = Instant::now();
                if let Err(error) = self.topology.refresh().await {
                    tracing::debug!(%error, "nobody tells where Redis is; it is asked where it was");
                }
            }
            let servers = self.topology.servers();
            let looks = servers.iter().map(|server| tokio::time::timeout(LOOK_MAX, server.look()));
            futures_util::future::join_all(looks).await;
            if cause {
                tokio::time::sleep(REFRESH_PAUSE).await;
            }
        }
    }
}
