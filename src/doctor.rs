//! `rushline doctor`: configuration, connections, and what this Redis can promise. Changes nothing.

mod holes;

use crate::access::Guard;
use crate::access::bind::{self, Openness};
use crate::config::Config;
use crate::domain::sale::Durability;
use crate::reconciler::sink::Sink;
use crate::registry::Registry;
use crate::serve;
use crate::server::tls::Tls;
use crate::store::promise::{Promise, Wait};
use crate::store::redis::Redis;
use serde::Serialize;
use std::time::Duration;

/// How long one connection may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// How a check went. `Bad` stops a sale; `Warning` may cost one later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    Good,
    Warning,
    Bad,
}

#[derive(Debug, Clone, Serialize)]
pub struct Check {
    pub what: &'static str,
    pub health: Health,
    pub found: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Check {
    fn new(what: &'static str, health: Health, found: impl Into<String>) -> Self {
        Self { what, health, found: found.into(), hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Looks at everything that `serve` would use.
pub async fn examine(config: &Config) -> Vec<Check> {
    let mut checks = Vec::new();
    match &config.redis.url {
        None => checks.push(private_redis(config).await),
        Some(url) => match ask(config, url.expose()).await {
            Ok((promise, servers)) => {
                let found = match servers {
                    1 => format!("{} at {url}", promise.version),
                    _ => {
                        format!("{} at {url}, {servers} primaries; what follows holds for the weakest", promise.version)
                    }
                };
                checks.push(Check::new("Redis", Health::Good, found));
                checks.extend(promises(&promise));
            }
            Err(error) => checks.push(
                Check::new("Redis", Health::Bad, format!("cannot be used at {url}: {error}"))
                    .hint("is it running, and are host, port, user and password right?"),
            ),
        },
    }
    checks.push(records(config).await);
    checks.push(access(config).await);
    checks.extend(tls(config));
    checks.extend(registry(config).await);
    checks
}

/// Who may do what, and whether that is how one listens beyond this machine.
async fn access(config: &Config) -> Check {
    let bad = |fault: &str| Check::new("access", Health::Bad, fault.to_owned());
    match bind::check(config) {
        Err(fault) => fault.hints.iter().fold(bad(&fault.what), |check, hint| match check.hint {
            None => check.hint(hint.clone()),
            Some(_) => check,
        }),
        Ok(Openness::ThisMachine) => {
            Check::new("access", Health::Good, "no tokens: everybody on this machine may do everything")
        }
        Ok(Openness::Everybody) => Check::new(
            "access",
            Health::Warning,
            format!("no tokens, and {} is reached from other machines (security.allow_open)", config.http.listen),
        )
        .hint("rushline token new ops --role operator   makes one"),
        Ok(Openness::Tokens) => match Guard::new(config).await {
            Ok(guard) => Check::new("access", Health::Good, format!("by token, {} known", guard.tokens())),
            Err(error) => bad(&format!("{error:#}")),
        },
    }
}

fn tls(config: &Config) -> Option<Check> {
    match Tls::open(&config.tls) {
        Ok(None) => None,
        Ok(Some(_)) => Some(Check::new("TLS", Health::Good, "the certificate and its key go together")),
        Err(fault) => Some(Check::new("TLS", Health::Bad, fault.what)),
    }
}

/// The etcd in which this server is to be found, if there is one.
async fn registry(config: &Config) -> Option<Check> {
    let hint = "rushline runs without, and goes on asking; services that look for it there do not find it";
    let bad = |found: String| Some(Check::new("registry", Health::Bad, found).hint(hint));
    let registry = match Registry::open(&config.registry, config.grpc_listen()) {
        Ok(registry) => registry,
        Err(fault) => return bad(fault.to_string()),
    };
    match tokio::time::timeout(CONNECT_MAX, registry.look()).await {
        Ok(None) => None,
        Ok(Some(Ok(found))) => Some(Check::new("registry", Health::Good, found)),
        Ok(Some(Err(error))) => bad(error.to_string()),
        Err(_) => bad(format!("no answer within {CONNECT_MAX:?}")),
    }
}

async fn ask(config: &Config, url: &str) -> anyhow::Result<(Promise, usize)> {
    let settings = serve::redis_settings(config, url.to_owned());
    let found = tokio::time::timeout(CONNECT_MAX, Redis::examine(&settings)).await;
    Ok(found.map_err(|_| anyhow::anyhow!("no answer within {CONNECT_MAX:?}"))??)
}

async fn private_redis(config: &Config) -> Check {
    let program = &config.redis.program;
    let output = tokio::process::Command::new(program).arg("--version").output().await;
    match output {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            // "Redis server v=7.0.15 sha=00000000:0 malloc=…"
            let version = text.split_whitespace().find_map(|word| word.strip_prefix("v=")).unwrap_or(text.trim());
            Check::new(
                "Redis",
                Health::Good,
                format!("a private one will be started: {program} {version}; AOF, fsync always, no eviction"),
            )
        }
        Ok(output) => Check::new("Redis", Health::Bad, format!("`{program} --version` failed: {}", output.status)),
        Err(error) => {
            Check::new("Redis", Health::Bad, format!("no redis.url is set, and `{program}` cannot be started: {error}"))
                .hint("sudo apt install redis-server   (or: brew install redis)")
        }
    }
}

/// What may be promised to buyers on this Redis.
fn promises(promise: &Promise) -> Vec<Check> {
    let mut checks = Vec::new();
    if promise.version_number() < (7, 0) {
        checks.push(
            Check::new("version", Health::Bad, format!("{} is too old: the scripts need Redis 7.0", promise.version))
                .hint("install Redis 7.2 or later"),
        );
    }
    let holes = if promise.is_valkey { Vec::new() } else { holes::of(&promise.version) };
    if !holes.is_empty() {
        let found =
            format!("{} is known for {}, unless its distribution mended it", promise.version, holes.join(" and "));
        checks.push(Check::new("known holes", Health::Warning, found).hint(
            "update Redis, give rushline an account of its own (docs/redis.md), and let nobody else send it scripts",
        ));
    }
    let class = |class: Durability| promise.wait_for(class);
    checks.push(match class(Durability::Memory) {
        Ok(_) => Check::new("eviction", Health::Good, promise.eviction.clone().unwrap_or_else(|| "not told".into())),
        Err(problem) => {
            Check::new("eviction", Health::Bad, problem).hint("redis-cli CONFIG SET maxmemory-policy noeviction")
        }
    });
    checks.push(match class(Durability::Fsync) {
        Ok(Wait::LocalFsync) => Check::new("durability fsync", Health::Good, "by WAITAOF, a batch at a time"),
        Ok(_) => Check::new("durability fsync", Health::Good, promise.describe()),
        Err(problem) => Check::new("durability fsync", Health::Warning, problem)
            .hint("redis-cli CONFIG SET appendonly yes; redis-cli CONFIG SET appendfsync always"),
    });
    checks.push(match promise.replicas {
        0 => {
            Check::new("durability replica:N", Health::Warning, "no replica is connected: one machine holds everything")
        }
        n => Check::new("durability replica:N", Health::Good, format!("up to replica:{n}")),
    });
    if promise.aof_on {
        checks.push(match promise.aof_load_truncated {
            Some(false) => {
                Check::new("aof-load-truncated", Health::Good, "no: a cut file stops the start, and a person decides")
            }
            _ => Check::new(
                "aof-load-truncated",
                Health::Good,
                "yes: rushline rewrites the file after every load, before anything is sold (redis.rewrite_after_load)",
            ),
        });
    }
    if promise.maxmemory == 0 {
        checks.push(
            Check::new("maxmemory", Health::Warning, "not set: the system may end Redis when memory runs out").hint(
                "set maxmemory below what the machine has; an order in flight takes about 250 bytes and its payload",
            ),
        );
    }
    checks
}

async fn records(config: &Config) -> Check {
    let url = config.records_url();
    match tokio::time::timeout(CONNECT_MAX, Sink::open(url.expose())).await {
        Ok(Ok(sink)) => Check::new("records", Health::Good, format!("{} at {url}", sink.kind())),
        Ok(Err(error)) => Check::new("records", Health::Bad, error.to_string())
            .hint("selling works without; finished orders wait in Redis"),
        Err(_) => Check::new("records", Health::Bad, format!("{url} does not answer within {CONNECT_MAX:?}")),
    }
}
