//! What a scenario stands on: a rushline of its own, the databases it needs, and its services as processes that can be
//! killed. Everything works in temporary directories on free ports, and is gone when the [`Lab`] is.

#[allow(dead_code)] // the tests use all of it
#[path = "../../../tests/it/support/process.rs"]
pub mod process;
#[allow(dead_code)]
#[path = "../../../tests/it/support/servers.rs"]
pub mod servers;

use anyhow::{Context, bail};
use process::{Process, free_port};
use servers::{MariaDb, Mongod, Postgres, Redis, RedisVersion};
use std::path::PathBuf;

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
const QUICK: [(&str, &str); 5] = [
    ("--trans-lease-ms", "600"),
    ("--trans-retry-interval-ms", "100"),
    ("--trans-retry-max-ms", "400"),
    ("--trans-timeout-to-fail-ms", "1000"),
    ("--delivery-retry-max-ms", "400"),
];

pub struct Lab {
    pub coordinator: Coordinator,
    mysql: Option<MariaDb>,
    postgres: Option<Postgres>,
    mongo: Option<Mongod>,
    cache: Option<Redis>,
}

impl Lab {
    /// Starts rushline and what is needed, and tells of each as it is there.
    pub async fn start(needs: &[Need]) -> anyhow::Result<Self> {
        let wanted = |need| needs.contains(&need);
        let coordinator = Coordinator::start().await?;
        say("rushline", &coordinator.url());
        let mut lab = Self { coordinator, mysql: None, postgres: None, mongo: None, cache: None };
        if wanted(Need::MySql) {
            lab.mysql = Some(MariaDb::start().await);
            say("MySQL", "MariaDB, empty");
        }
        if wanted(Need::Postgres) {
            lab.postgres = Some(Postgres::start().await);
            say("PostgreSQL", "empty");
        }
        if wanted(Need::Mongo) {
            lab.mongo = Some(Mongod::start().await);
            say("MongoDB", "a replica set of one, empty");
        }
        if wanted(Need::Cache) {
            lab.cache = Some(Redis::start(RedisVersion::V7, &[]).await);
            say("Redis", "of the business, empty");
        }
        Ok(lab)
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

fn say(what: &str, text: &str) {
    println!("  {what:<12} {text}");
}

/// The rushline of a scenario: the program beside this one.
pub struct Coordinator {
    process: Process,
    port: u16,
}

impl Coordinator {
    async fn start() -> anyhow::Result<Self> {
        let mut process = Process::new("rushline", beside("rushline")?, None);
        let data = process.directory().join("d");
        let port = free_port();
        process.arguments(["serve", "--http-listen", &format!("127.0.0.1:{port}"), "--data-dir"]);
        process.arguments([data.into_os_string()]);
        for (flag, value) in QUICK {
            process.arguments([flag, value]);
        }
        let mut coordinator = Self { process, port };
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
        let mut service = Self { process, port };
        service.restart().await;
        say(role, &service.url());
        Ok(service)
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// As `kill -9`: whatever it was doing stops there.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    pub async fn restart(&mut self) {
        let port = self.port;
        self.process.start(|| answers(port, "/ready")).await;
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut connection = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    connection.take(4096).read_to_end(&mut answer).await?;
    if !answer.starts_with(b"HTTP/1.0 200") && !answer.starts_with(b"HTTP/1.1 200") {
        bail!("{}", String::from_utf8_lossy(&answer).lines().next().unwrap_or("no answer"));
    }
    Ok(())
}
