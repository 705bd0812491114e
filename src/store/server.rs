//! One Redis server: its connections, and a watch over which run of it we talk to.
//!
//! **A restarted Redis must not sell before it was looked at.** Its script cache is empty, so the first script answers
//! NOSCRIPT; only [`Server::verify`] loads the scripts, and it does so after the append-only file was rewritten if this
//! run loaded one (a file that was cut inside a script would otherwise swallow everything written after it: failure
//! F12) and after what this run can promise was read anew. In a Cluster that holds for each of its servers.

use super::Error;
use super::clock::Clock;
use super::connection::Connection;
use super::promise::Promise;
use super::scripts;
use arc_swap::ArcSwap;
use redis::aio::{ConnectionLike, ConnectionManagerConfig};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longest time a new connection may take; while one is made, order requests wait for it.
const CONNECT_MS_MAX: u64 = 1_000;
/// How long the rewrite of an append-only file may take before verifying gives up and is tried again.
const REWRITE_MS_MAX: u64 = 120_000;
/// What Redis may need to say that a WAIT came to nothing; it looks at its clocks ten times a second.
const WAIT_MARGIN: Duration = Duration::from_millis(500);
/// Longest wait for an answer with many entries in it.
const SLOW_TIMEOUT: Duration = Duration::from_secs(30);

/// What a server needs to know to be connected to.
#[derive(Debug, Clone)]
pub(super) struct Manner {
    pub connections: usize,
    pub timeout: Duration,
    pub rewrite_after_load: bool,
}

/// A server and the connections that are kept to it.
pub(super) struct Server {
    /// `host:port`; empty for the only one of a plain URL.
    pub name: String,
    client: redis::Client,
    manner: Manner,
    pub lanes: Vec<Link>,
    pub slow: Link,
    /// For operators' questions, and for watching.
    pub aside: Link,
    promise: ArcSwap<Promise>,
    pub clock: Clock,
    usable: AtomicBool,
    /// A connection broke: what is behind it now may be another run.
    unsure: AtomicBool,
    /// It was too full to take on more, the last time that somebody asked.
    pub short: AtomicBool,
    verifying: tokio::sync::Mutex<()>,
    /// How often it was verified.
    verified: AtomicU64,
    /// The watch asked and heard nothing: what was connected then is connected with nobody, as far as anyone knows.
    silent: AtomicBool,
    /// How often all connections were made anew.
    renewed: AtomicU64,
}

/// A connection that is made anew when it has fallen silent.
///
/// The driver makes one anew that broke. One whose other end vanished without a word (a firewall that forgot it, a machine
/// without power) does not break for a quarter of an hour: every command on it would time out until then.
pub(super) struct Link {
    client: redis::Client,
    timeout: Duration,
    now: ArcSwap<Connection>,
}

impl Link {
    fn new(client: redis::Client, timeout: Duration) -> redis::RedisResult<Self> {
        let now = ArcSwap::from_pointee(Self::connect(&client, timeout)?);
        Ok(Self { client, timeout, now })
    }

    fn connect(client: &redis::Client, timeout: Duration) -> redis::RedisResult<Connection> {
        Connection::lazy(client.clone(), manager_config(timeout), timeout)
    }

    pub fn get(&self) -> Arc<Connection> {
        self.now.load_full()
    }

    pub fn connection(&self) -> Connection {
        Connection::clone(&self.now.load())
    }

    /// From now on another one, unless that has happened since `silent` was got. Whoever waits on the old one goes on waiting.
    pub fn replace(&self, silent: &Arc<Connection>) {
        if Arc::ptr_eq(&self.now.load(), silent)
            && let Ok(new) = Self::connect(&self.client, self.timeout)
        {
            self.now.compare_and_swap(silent, Arc::new(new));
        }
    }
}

impl Server {
    pub fn new(name: String, client: redis::Client, manner: &Manner) -> Result<Arc<Self>, Error> {
        let manager = |timeout| Link::new(client.clone(), timeout);
        Ok(Arc::new(Self {
            name,
            lanes: (0..manner.connections.max(1)).map(|_| manager(manner.timeout)).collect::<Result<_, _>>()?,
            slow: manager(SLOW_TIMEOUT)?,
            aside: manager(manner.timeout)?,
            client,
            manner: manner.clone(),
            promise: ArcSwap::default(),
            clock: Clock::default(),
            usable: AtomicBool::new(false),
            unsure: AtomicBool::new(false),
            short: AtomicBool::new(false),
            verifying: tokio::sync::Mutex::new(()),
            verified: AtomicU64::new(0),
            silent: AtomicBool::new(false),
            renewed: AtomicU64::new(0),
        }))
    }

    pub fn promise(&self) -> Arc<Promise> {
        self.promise.load_full()
    }

    pub fn usable(&self) -> bool {
        self.usable.load(Ordering::Relaxed)
    }

    /// Nobody is kept waiting for it until it was verified again.
    pub fn doubt(&self) {
        self.usable.store(false, Ordering::Relaxed);
    }

    /// Whoever sells next has to look first.
    pub fn unsure(&self) {
        self.unsure.store(true, Ordering::Release);
    }

    /// If a connection broke since the last look: is this still the run that was verified? If not, it is verified.
    pub async fn make_sure(&self) -> Result<(), Error> {
        if !self.unsure.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let looked = match self.read_promise(&mut self.aside.connection()).await {
            Ok(promise) if promise.run() == self.promise.load().run() => Ok(()),
            // Another run, or this very connection broke too: a new one is made.
            looked => {
                self.silent.fetch_or(looked.is_err(), Ordering::Relaxed);
                self.verify_soon().await
            }
        };
        if looked.is_err() {
            self.unsure();
        }
        looked
    }

    /// A connection of its own, for whoever blocks it with WAIT or WAITAOF for up to `redis.timeout_ms`.
    pub fn own(&self) -> redis::RedisResult<Connection> {
        // Redis must be the one to give up, or "not durable" is taken for "no answer".
        Link::connect(&self.client, self.manner.timeout + WAIT_MARGIN)
    }

    /// How often all connections were made anew: those of their own that somebody keeps are to be thrown away then too.
    pub fn renewed(&self) -> u64 {
        self.renewed.load(Ordering::Acquire)
    }

    fn renew(&self) {
        for link in self.lanes.iter().chain([&self.slow, &self.aside]) {
            link.replace(&link.get());
        }
        self.renewed.fetch_add(1, Ordering::Release);
    }

    /// Verifies, but keeps an order waiting no longer than any other answer of Redis may; the watch goes on with it.
    pub async fn verify_soon(&self) -> Result<(), Error> {
        let result = match tokio::time::timeout(self.manner.timeout, self.verify()).await {
            Ok(result) => result,
            Err(_) => Err(Error::Refused { code: "NOSCRIPT".into(), message: "Redis is being verified".into() }),
        };
        if result.is_err() {
            self.doubt();
        }
        result
    }

    /// Makes sure of the server at the other end, and loads the scripts. Callers at the same time share one run.
    pub async fn verify(&self) -> Result<(), Error> {
        let seen = self.verified.load(Ordering::Acquire);
        let _one_at_a_time = self.verifying.lock().await;
        if self.verified.load(Ordering::Acquire) != seen && self.usable() {
            return Ok(()); // another caller has just done it
        }
        let mut connection = self.own()?;
        let promise = self.read_promise(&mut connection).await?;
        if promise.run() != self.promise.load().run() {
            self.doubt(); // nobody queues up behind the rewrite
        }
        let rewrite = self.manner.rewrite_after_load && promise.aof_on && promise.aof_load_truncated != Some(false);
        if rewrite && !promise.aof_rewritten {
            rewrite_aof(&mut connection).await?;
        }
        for script in scripts::all() {
            let _: String = redis::cmd("SCRIPT").arg("LOAD").arg(script.source).query_async(&mut connection).await?;
        }
        let earlier = self.promise.swap(Arc::new(promise.clone()));
        if earlier.run() != promise.run() {
            tracing::info!(
                server = self.name,
                version = promise.version,
                run_id = promise.run_id,
                durability = promise.describe(),
                "Redis is ready"
            );
        }
        if self.silent.swap(false, Ordering::Relaxed) {
            self.renew();
        }
        self.verified.fetch_add(1, Ordering::Release);
        self.usable.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn read_promise(&self, connection: &mut Connection) -> Result<Promise, Error> {
        let asked = Instant::now();
        let promise = read_promise(connection).await?;
        self.clock.follow(promise.time_ms, asked, Instant::now());
        Ok(promise)
    }

    /// Finds out that it is back, or another run, or was reconfigured, without waiting for an order to stumble over it.
    pub async fn look(&self) {
        if !self.usable() {
            match self.verify().await {
                Ok(()) => tracing::info!(server = self.name, "Redis answers again"),
                Err(error) => tracing::debug!(server = self.name, %error, "Redis is away"),
            }
            return;
        }
        match self.read_promise(&mut self.aside.connection()).await {
            Ok(promise) if promise.run() == self.promise.load().run() => self.promise.store(Arc::new(promise)),
            Ok(_) => {
                self.doubt();
                if let Err(error) = self.verify().await {
                    tracing::debug!(server = self.name, %error, "another run of Redis is not usable yet");
                }
            }
            Err(error) => {
                tracing::warn!(server = self.name, %error, "Redis does not answer; orders get 503 until it does");
                self.silent.store(true, Ordering::Relaxed);
                self.doubt();
            }
        }
    }
}

/// Rewrites the append-only file. By whom and when it was asked for does not matter: one that another node has under way
/// is waited for.
async fn rewrite_aof(connection: &mut Connection) -> Result<(), Error> {
    let started: Result<String, _> = redis::cmd("BGREWRITEAOF").query_async(connection).await;
    if let Err(error) = started
        && !error.to_string().contains("already in progress")
    {
        return Err(error.into());
    }
    let waiting = async {
        loop {
            let info: String = redis::cmd("INFO").arg("persistence").query_async(connection).await?;
            if info.contains("aof_rewrite_in_progress:0") && info.contains("aof_rewrite_scheduled:0") {
                return match info.contains("aof_last_bgrewrite_status:ok") {
                    true => Ok(()),
                    false => Err(Error::Refused {
                        code: "REWRITE".into(),
                        message: "the append-only file could not be rewritten; see the log of Redis".into(),
                    }),
                };
            }
            tokio::time::sleep(Duration::from_millis(5)).await; // Redis has no event for this
        }
    };
    match tokio::time::timeout(Duration::from_millis(REWRITE_MS_MAX), waiting).await {
        Ok(result) => result,
        Err(_) => Err(Error::NoAnswer("the rewrite of the append-only file takes too long".into())),
    }
}

pub(super) fn manager_config(timeout: Duration) -> ConnectionManagerConfig {
    ConnectionManagerConfig::new()
        .set_connection_timeout(Some(Duration::from_millis(CONNECT_MS_MAX)))
        .set_response_timeout(Some(timeout))
        // One quick second try; whoever waits hears 503 soon and may come back.
        .set_number_of_retries(1)
        .set_min_delay(Duration::from_millis(50))
        .set_max_delay(Duration::from_millis(100))
        .set_pipeline_buffer_size(1024)
        .set_write_backpressure_boundary(256 * 1024)
}

/// Asks Redis what it is; without rights to CONFIG the answer is only less sure.
pub async fn read_promise(connection: &mut impl ConnectionLike) -> Result<Promise, Error> {
    let info: String = redis::cmd("INFO").arg("everything").query_async(connection).await?;
    if info.contains("\nloading:1") {
        return Err(Error::Refused { code: "LOADING".into(), message: "Redis is loading its data".into() });
    }
    if info.contains("\nrole:slave") {
        return Err(Error::Refused { code: "READONLY".into(), message: "this Redis is a replica".into() });
    }
    let mut config = HashMap::new();
    for name in ["appendfsync", "aof-load-truncated"] {
        let value: Result<HashMap<String, String>, _> =
            redis::cmd("CONFIG").arg("GET").arg(name).query_async(connection).await;
        config.extend(value.unwrap_or_default());
    }
    Ok(Promise::read(&info, &config))
}
