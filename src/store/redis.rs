//! Connections to Redis, and a watch over which run of it we talk to.
//!
//! The hot path uses a few multiplexed connections, held for ever: a pool's checkout costs a round trip. Reading whole
//! entries back (drain, takeover) has one of its own, so that it does not stand in the way; operators' questions take
//! from a pool.
//!
//! **A restarted Redis must not sell before it was looked at.** Its script cache is empty, so the first script answers
//! NOSCRIPT; only [`Redis::verify`] loads the scripts, and it does so after the append-only file was rewritten if this
//! run loaded one (a file that was cut inside a script would otherwise swallow everything written after it: failure
//! F12) and after what this run can promise was read anew.

use super::promise::Promise;
use super::scripts;
use super::{Error, keys};
use arc_swap::ArcSwap;
use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig};
use redis::{Cmd, IntoConnectionInfo, Value};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Longest time a new connection may take; while one is made, order requests wait for it.
const CONNECT_MS_MAX: u64 = 1_000;
/// How long the rewrite of an append-only file may take before verifying gives up and is tried again.
const REWRITE_MS_MAX: u64 = 120_000;
/// What Redis may need to say that a WAIT came to nothing; it looks at its clocks ten times a second.
const WAIT_MARGIN: Duration = Duration::from_millis(500);
/// How often a script is sent that Redis does not know: somebody may flush them just after they were loaded.
const SCRIPT_TRIES_MAX: u32 = 5;
/// Longest wait for an answer with many entries in it.
const SLOW_TIMEOUT: Duration = Duration::from_secs(30);

/// How to reach Redis and how patient to be.
#[derive(Debug, Clone)]
pub struct Settings {
    pub url: String,
    pub prefix: String,
    /// Multiplexed connections for scripts.
    pub connections: usize,
    /// Longest wait for one answer.
    pub timeout: Duration,
    /// Rewrite an append-only file that was loaded, before anything is sold.
    pub rewrite_after_load: bool,
}

pub struct Redis {
    settings: Settings,
    client: redis::Client,
    lanes: Vec<ConnectionManager>,
    slow: ConnectionManager,
    next_lane: AtomicUsize,
    pool: deadpool_redis::Pool,
    promise: ArcSwap<Promise>,
    usable: AtomicBool,
    verifying: tokio::sync::Mutex<()>,
    /// How often the server was verified.
    verified: AtomicU64,
}

impl Redis {
    /// Connects and verifies. Fails when Redis cannot be reached or used.
    pub async fn connect(settings: Settings) -> Result<Arc<Self>, Error> {
        let info = settings.url.as_str().into_connection_info()?;
        let info = match info.addr() {
            redis::ConnectionAddr::Unix(_) => info,
            // Small requests must not wait on Nagle's algorithm; the driver's default leaves it on.
            _ => info.set_tcp_settings(redis::io::tcp::TcpSettings::default().set_nodelay(true)),
        };
        let client = redis::Client::open(info)?;
        let pool = deadpool_redis::Config::from_url(settings.url.as_str())
            .builder()
            .map_err(|error| Error::NoAnswer(error.to_string()))?
            .max_size(16)
            .wait_timeout(Some(settings.timeout))
            .create_timeout(Some(settings.timeout))
            .recycle_timeout(Some(settings.timeout))
            .runtime(deadpool_redis::Runtime::Tokio1)
            .build()
            .map_err(|error| Error::NoAnswer(error.to_string()))?;
        let lanes = (0..settings.connections.max(1))
            .map(|_| ConnectionManager::new_lazy_with_config(client.clone(), manager_config(settings.timeout)))
            .collect::<Result<_, _>>()?;
        let slow = ConnectionManager::new_lazy_with_config(client.clone(), manager_config(SLOW_TIMEOUT))?;
        let redis = Arc::new(Self {
            settings,
            client,
            lanes,
            slow,
            next_lane: AtomicUsize::new(0),
            pool,
            promise: ArcSwap::default(),
            usable: AtomicBool::new(false),
            verifying: tokio::sync::Mutex::new(()),
            verified: AtomicU64::new(0),
        });
        redis.verify().await?;
        Ok(redis)
    }

    pub fn prefix(&self) -> &str {
        &self.settings.prefix
    }

    /// What the present run of Redis promises.
    pub fn promise(&self) -> Arc<Promise> {
        self.promise.load_full()
    }

    /// Did Redis answer the last time we asked, and are the scripts loaded?
    pub fn usable(&self) -> bool {
        self.usable.load(Ordering::Relaxed)
    }

    /// Longest wait for one answer.
    pub fn patience(&self) -> Duration {
        self.settings.timeout
    }

    /// One of the shared connections, in turn.
    pub fn lane(&self) -> ConnectionManager {
        let turn = self.next_lane.fetch_add(1, Ordering::Relaxed);
        self.lanes[turn % self.lanes.len()].clone()
    }

    /// A connection of its own, for whoever blocks it with WAIT or WAITAOF for up to `redis.timeout_ms`.
    pub fn own_lane(&self) -> Result<ConnectionManager, Error> {
        // Redis must be the one to give up, or "not durable" is taken for "no answer".
        let timeout = self.settings.timeout + WAIT_MARGIN;
        Ok(ConnectionManager::new_lazy_with_config(self.client.clone(), manager_config(timeout))?)
    }

    /// The connection for reading whole entries back.
    pub fn slow(&self) -> ConnectionManager {
        self.slow.clone()
    }

    /// A pooled connection, for operators' questions.
    pub async fn pooled(&self) -> Result<deadpool_redis::Connection, Error> {
        let mut connection = self.pool.get().await?;
        // The driver's own limit is 500 ms, whatever redis.timeout_ms says, and the pool has no setting for it.
        connection.set_response_timeout(self.settings.timeout);
        Ok(connection)
    }

    /// Runs a script that [`scripts::Script::call`] began. On NOSCRIPT verifies the server and asks again: the refusal is
    /// definite, so nothing can happen twice. The scripts may be forgotten again in between, so a few times.
    pub async fn run(&self, lane: &mut impl ConnectionLike, command: &Cmd) -> Result<Value, Error> {
        let mut tries = 1;
        loop {
            // What the server says is a value to the driver; only what kept it from saying anything is an error.
            let error = match lane.req_packed_command(command).await.and_then(Value::extract_error) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if is_noscript(&error) && tries < SCRIPT_TRIES_MAX {
                tries += 1;
                self.verify_soon().await?;
                continue;
            }
            let error = Error::from(error);
            if matches!(error, Error::NoAnswer(_)) {
                self.usable.store(false, Ordering::Relaxed);
            }
            return Err(error);
        }
    }

    /// Verifies, but keeps an order waiting no longer than any other answer of Redis may; the watch goes on with it.
    async fn verify_soon(&self) -> Result<(), Error> {
        let result = match tokio::time::timeout(self.settings.timeout, self.verify()).await {
            Ok(result) => result,
            Err(_) => Err(Error::Refused { code: "NOSCRIPT".into(), message: "Redis is being verified".into() }),
        };
        if result.is_err() {
            self.usable.store(false, Ordering::Relaxed);
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
        let mut connection = self.own_lane()?;
        let promise = read_promise(&mut connection).await?;
        if promise.run_id != self.promise.load().run_id {
            self.usable.store(false, Ordering::Relaxed); // nobody queues up behind the rewrite
        }
        if self.settings.rewrite_after_load && promise.aof_on && promise.aof_load_truncated != Some(false) {
            self.rewrite_once(&mut connection, &promise.run_id).await?;
        }
        for script in scripts::all() {
            let _: String = redis::cmd("SCRIPT").arg("LOAD").arg(script.source).query_async(&mut connection).await?;
        }
        let earlier = self.promise.swap(Arc::new(promise.clone()));
        if earlier.run_id != promise.run_id {
            tracing::info!(
                version = promise.version,
                run_id = promise.run_id,
                durability = promise.describe(),
                "Redis is ready"
            );
        }
        self.verified.fetch_add(1, Ordering::Release);
        self.usable.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Rewrites the append-only file, unless it was done for this run of Redis, by us or by another node.
    async fn rewrite_once(&self, connection: &mut ConnectionManager, run_id: &str) -> Result<(), Error> {
        let key = keys::verified_run(self.prefix());
        let done: Option<String> = redis::cmd("GET").arg(&key).query_async(connection).await?;
        if done.as_deref() == Some(run_id) {
            return Ok(());
        }
        let started: Result<String, _> = redis::cmd("BGREWRITEAOF").query_async(connection).await;
        // Another node's rewrite may be under way: waiting for that one is as good.
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
            Ok(result) => result?,
            Err(_) => return Err(Error::NoAnswer("the rewrite of the append-only file takes too long".into())),
        }
        let noted: Result<(), _> = redis::cmd("SET").arg(&key).arg(run_id).query_async(connection).await;
        if let Err(error) = noted {
            // A full Redis refuses it, and must be verified all the same: only ending its orders frees memory.
            tracing::debug!(%error, "the rewrite is not noted; other nodes will ask for it again");
        }
        Ok(())
    }

    /// Looks after Redis for as long as the server runs: finds out that it is back, or another run, or was
    /// reconfigured, without waiting for an order to stumble over it.
    pub async fn watch(self: Arc<Self>, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            if !self.usable() {
                match self.verify().await {
                    Ok(()) => tracing::info!("Redis answers again"),
                    Err(error) => tracing::debug!(%error, "Redis is away"),
                }
                continue;
            }
            match read_promise(&mut self.lane()).await {
                Ok(promise) => {
                    if promise.run_id == self.promise.load().run_id {
                        self.promise.store(Arc::new(promise));
                    } else {
                        self.usable.store(false, Ordering::Relaxed);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "Redis does not answer; orders get 503 until it does");
                    self.usable.store(false, Ordering::Relaxed);
                }
            }
        }
    }
}

fn is_noscript(error: &redis::RedisError) -> bool {
    error.code() == Some("NOSCRIPT")
}

fn manager_config(timeout: Duration) -> ConnectionManagerConfig {
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
    let mut config = HashMap::new();
    for name in ["appendfsync", "aof-load-truncated"] {
        let value: Result<HashMap<String, String>, _> =
            redis::cmd("CONFIG").arg("GET").arg(name).query_async(connection).await;
        config.extend(value.unwrap_or_default());
    }
    Ok(Promise::read(&info, &config))
}
