//! What a scenario stands on: a rushline of its own, the databases it needs, and its services as processes that can be
//! killed. Everything works in temporary directories on free ports, and is gone when the [`Lab`] is.

pub mod http;
#[allow(dead_code)] // the tests use all of it
#[path = "../../../tests/it/support/process.rs"]
pub mod process;
#[allow(dead_code)]
#[path = "../../../tests/it/support/servers.rs"]
pub mod servers;

use anyhow::{Context, bail};
use process::{Process, free_port};
use servers::{MariaDb, Mongod, Postgres, Redis, RedisVersion};
use std::convert::Infallible;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Longest time until a service dies by its own hand.
const DEATH_WAIT_MAX: Duration = Duration::from_secs(30);

/// What a scenario keeps its data in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    MySql,
    Postgres,
    Mongo,
    /// A Redis of the business, beside the coordinator's.
    Cache,
}

/// Settings of the coordinator that make a story short: what is unclear is asked again after a fraction of a second.
const QUICK: [(&str, &str); 6] = [
    ("--trans-lease-ms", "600"),
    ("--trans-retry-interval-ms", "100"),
    ("--trans-retry-max-ms", "400"),
    ("--trans-timeout-to-fail-ms", "1000"),
    ("--delivery-retry-max-ms", "400"),
    ("--delivery-lease-ms", "600"),
];

pub struct Lab {
    pub coordinator: Coordinator,
    mysql: Option<MariaDb>,
    postgres: Option<Postgres>,
    mongo: Option<Mongod>,
    /// Of the business; a story may kill it.
    pub cache: Option<Redis>,
}

impl Lab {
    /// Starts rushline and what is needed, all at once.
    pub async fn start(needs: &[Need]) -> anyhow::Result<Self> {
        let wanted = |need| needs.contains(&need);
        let mysql = begin(wanted(Need::MySql), "MySQL", "MariaDB, empty", MariaDb::start());
        let postgres = begin(wanted(Need::Postgres), "PostgreSQL", "empty", Postgres::start());
        let mongo = begin(wanted(Need::Mongo), "MongoDB", "a replica set of one, empty", Mongod::start());
        let cache = begin(wanted(Need::Cache), "Redis", "of the business, empty", Redis::start(RedisVersion::V7, &[]));
        let coordinator = Coordinator::start().await?;
        say("rushline", &coordinator.url());
        let (mysql, postgres) = (mysql.await?, postgres.await?);
        Ok(Self { coordinator, mysql, postgres, mongo: mongo.await?, cache: cache.await? })
    }

    /// The address of a store that was asked for.
    pub fn url(&self, need: Need) -> anyhow::Result<String> {
        let url = match need {
            Need::MySql => self.mysql.as_ref().map(MariaDb::url),
            Need::Postgres => self.postgres.as_ref().map(Postgres::url),
            Need::Mongo => self.mongo.as_ref().map(Mongod::url),
            Need::Cache => self.cache.as_ref().map(Redis::url),
        };
        url.with_context(|| format!("this scenario did not ask for {need:?}"))
    }
}

/// A server that begins to start now, if it is wanted, and tells of itself when it is there.
fn begin<T: Send + 'static>(
    wanted: bool,
    name: &'static str,
    text: &'static str,
    start: impl Future<Output = T> + Send + 'static,
) -> impl Future<Output = anyhow::Result<Option<T>>> {
    let starting = wanted.then(|| tokio::spawn(start));
    async move {
        let Some(starting) = starting else { return Ok(None) };
        let server = starting.await.with_context(|| format!("{name} did not start; the lines above say why"))?;
        say(name, text);
        Ok(Some(server))
    }
}

pub fn say(what: &str, text: &str) {
    println!("  {what:<12} {text}");
}

/// The rushline of a scenario: the program beside this one.
pub struct Coordinator {
    process: Process,
    /// One that rushline starts for itself would outlive a rushline that is killed.
    _redis: Redis,
    port: u16,
}

impl Coordinator {
    async fn start() -> anyhow::Result<Self> {
        let mut process = Process::new("rushline", beside("rushline")?, None);
        let data = process.directory().join("d");
        let port = free_port();
        process.arguments(["serve", "--http-listen", &format!("127.0.0.1:{port}")]);
        // Not the neighbouring port, which a service may have.
        process.arguments(["--grpc-listen", "127.0.0.1:0", "--data-dir"]);
        process.arguments([data.into_os_string()]);
        let redis = Redis::start(RedisVersion::V7, &[]).await;
        process.arguments(["--redis-url", &redis.url()]);
        for (flag, value) in QUICK {
            process.arguments([flag, value]);
        }
        let mut coordinator = Self { process, _redis: redis, port };
        coordinator.restart().await;
        Ok(coordinator)
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    pub async fn restart(&mut self) {
        let port = self.port;
        self.process.start(|| answers(port, "/api/ping")).await;
    }
}

/// A service of the business: this program again, in one of its roles.
pub struct Service {
    role: String,
    process: Process,
    port: u16,
}

impl Service {
    /// Starts `role` of `scenario`; `arguments` go to it as they are.
    pub async fn start(scenario: &'static str, role: &str, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut process = Process::new(scenario, std::env::current_exe()?, None);
        let port = free_port();
        process.arguments(["service", scenario, role, "--port", &port.to_string()]);
        process.arguments(arguments);
        let mut service = Self { role: role.to_owned(), process, port };
        service.restart().await;
        say(role, &service.url());
        Ok(service)
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub async fn restart(&mut self) {
        let port = self.port;
        self.process.start(|| answers(port, "/ready")).await;
    }

    /// Waits until it has died by its own hand, at its `--die-at`.
    pub async fn death(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + DEATH_WAIT_MAX;
        while !self.process.has_ended() {
            if Instant::now() >= deadline {
                bail!("the service {} did not come to where it was to die", self.role);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Starts it again whenever it has ended, as whatever runs services in production does. Never returns; to be dropped.
    pub async fn supervise(&mut self) -> Infallible {
        loop {
            if self.process.has_ended() {
                say(&self.role, &format!("{}; started again", self.death_told().as_deref().unwrap_or("died")));
                self.restart().await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What it left when it died by its own hand, the last time.
    fn death_told(&self) -> Option<String> {
        let files = std::fs::read_dir(self.process.directory()).ok()?.flatten();
        let marks = files.filter(|file| file.file_name().to_string_lossy().starts_with("died at "));
        let last = marks.max_by_key(|mark| mark.metadata().and_then(|data| data.modified()).ok())?;
        Some(last.file_name().to_string_lossy().into_owned())
    }
}

/// A program of this workspace, built into the same directory as this one.
fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    if !path.is_file() {
        bail!("{} is not built\nhint: cargo build --workspace", path.display());
    }
    Ok(path)
}

/// Does a GET there bring a 200?
async fn answers(port: u16, path: &str) -> anyhow::Result<()> {
    match http::request("GET", &format!("http://127.0.0.1:{port}{path}"), "").await? {
        (200, _) => Ok(()),
        (status, body) => bail!("{status}: {body}"),
    }
}
