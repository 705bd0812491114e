//! The servers of a round, each real, and the links between them.
//!
//! ```text
//!            ┌─► node 0 ──link──┐                            records
//! buyers ─ front ─► node 1 ──link──┼─► Redis (and a replica)    (SQLite, or a database)
//!            └─► node 2 ──link──┘
//!                 └──────────► spoiler ─ link ─► order service, which keeps a journal
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::time::{Instant, sleep};

use super::database::Database;
use super::part::Part;
use super::plan::{Round, Sale, Store};
use super::poison::Spoiler;
use crate::http::Api;
use crate::processes::{fresh_directory, lasting_port, sibling};
use crate::resp::{Place, Redis};
use crate::run::proxy::Proxy;

/// Short, so that sleepers oversleep it and the dead are missed soon.
pub const LEASE_MS: u64 = 1_000;
/// The disk of Redis: what a round writes fits many times, and filling it up takes no time.
const DISK_BYTES: u64 = 64 << 20;
const READY_WAIT_MAX: Duration = Duration::from_secs(60);
/// How the last word of a node begins that could not start for that reason.
const NO_REDIS: &str = "cannot use Redis";
const START_AGAIN_AFTER: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_millis(25);
/// Where Debian and others put it.
const FAKETIME: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

/// The programs.
#[derive(Debug, Clone)]
pub struct Programs {
    pub rushline: PathBuf,
    pub redis: PathBuf,
    /// One with WAITAOF.
    pub redis_waitaof: Option<PathBuf>,
    pub faketime: Option<PathBuf>,
    pub mounts: bool,
}

/// One node.
pub struct Node {
    pub part: Part,
    pub api: Api,
    /// To Redis.
    pub link: Proxy,
}

/// One Redis.
pub struct Server {
    pub part: Part,
    pub address: SocketAddr,
    pub data: PathBuf,
}

pub struct World {
    pub directory: PathBuf,
    pub sale: String,
    pub nodes: Vec<Node>,
    pub servers: Vec<Server>,
    /// Index into `servers`.
    pub primary: usize,
    pub records: Option<Database>,
    pub orders: Part,
    pub service: Api,
    pub service_link: Proxy,
    pub spoiler: Spoiler,
    pub front: Proxy,
    mounted: Option<PathBuf>,
    clocks: bool,
}

pub fn faketime() -> Option<PathBuf> {
    FAKETIME.iter().map(PathBuf::from).find(|path| path.exists())
}

/// Can a small file system be mounted here?
pub fn can_mount(directory: &Path) -> bool {
    let place = directory.join("mount-trial");
    let mounted = std::fs::create_dir_all(&place).is_ok() && mount(&place).is_ok() && unmount(&place).is_ok();
    // Empty, and in nobody's way.
    let _ = std::fs::remove_dir(&place);
    mounted
}

fn mount(place: &Path) -> anyhow::Result<()> {
    let size = format!("size={DISK_BYTES}");
    let output = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(place).output();
    let output = output.context("cannot run `mount`")?;
    ensure!(output.status.success(), "mount: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn unmount(place: &Path) -> anyhow::Result<()> {
    let status = Command::new("umount").arg(place).status().context("cannot run `umount`")?;
    ensure!(status.success(), "umount {} failed", place.display());
    Ok(())
}

fn text(path: &Path) -> anyhow::Result<String> {
    path.to_str().map(str::to_owned).context("the directory's name must be UTF-8")
}

impl World {
    /// Everything new, except for the database of the records (`None`: SQLite).
    pub async fn start(
        round: &Round,
        programs: &Programs,
        directory: &Path,
        database: Option<Database>,
    ) -> anyhow::Result<Self> {
        fresh_directory(directory)?;
        let directory = directory.canonicalize()?;
        let mut mounted = None;
        let mut servers = Vec::new();
        for at in 0..if round.store == Store::Replica { 2 } else { 1 } {
            let data = directory.join(format!("redis-{at}"));
            fresh_directory(&data)?;
            if programs.mounts && round.store != Store::Replica {
                mount(&data)?;
                mounted = Some(data.clone());
            }
            let master = servers.first().map(|server: &Server| server.address);
            servers.push(redis(round, programs, &directory, data, at, master)?);
        }
        for server in &mut servers {
            server.part.start()?;
        }
        for server in &servers {
            answers(server.address).await?;
        }
        if round.store == Store::Replica {
            follows(servers[0].address).await?;
        }

        let journal = text(&directory.join("orders.journal"))?;
        let service = SocketAddr::from(([127, 0, 0, 1], lasting_port()?));
        let args = [
            "sink-service",
            "--listen",
            &service.to_string(),
            "--journal",
            &journal,
            "--refuse-permille=20",
            "--lose-permille=20",
            "--delay-ms=3",
        ];
        let args = args.map(str::to_owned).to_vec();
        let mut orders = Part::new("orders", &sibling("rushline-loadtest")?, args, Vec::new(), &directory);
        orders.start()?;
        let local = || "127.0.0.1:0".parse::<SocketAddr>();
        let service_link = Proxy::listen(local()?, vec![service]).await?;
        let spoiler = Spoiler::start(local()?, service_link.address, round.seed).await?;

        let records_url = match &database {
            Some(database) => database.url.clone(),
            None => format!("sqlite:{}", directory.join("orders.db").display()),
        };
        let mut nodes = Vec::new();
        for at in 0..round.nodes {
            let link = Proxy::listen(local()?, vec![servers[0].address]).await?;
            nodes.push(node(at, programs, round.clocks, &directory, &records_url, link)?);
        }
        let front = Proxy::listen(local()?, nodes.iter().map(|node| node.api.address).collect()).await?;
        let mut world = Self {
            sale: format!("chaos-{}", round.number),
            directory,
            nodes,
            servers,
            primary: 0,
            records: database,
            orders,
            service: Api { address: service },
            service_link,
            spoiler,
            front,
            mounted,
            clocks: round.clocks,
        };
        for node in &mut world.nodes {
            node.part.start()?;
        }
        world.ready().await?;
        Ok(world)
    }

    /// The Redis that is primary now.
    pub fn redis(&mut self) -> &mut Server {
        &mut self.servers[self.primary]
    }

    pub async fn ask_redis(&self) -> anyhow::Result<Redis> {
        Redis::at(&Place::Address(self.servers[self.primary].address)).await
    }

    /// Waits until every node can sell. One that found no Redis that it can use when it started (its disk was full) has
    /// ended, and is started again, as whatever keeps servers running would do.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_WAIT_MAX;
        for node in &mut self.nodes {
            while !matches!(node.api.call("GET", "/readyz", None).await, Ok((200, _))) {
                if !node.part.runs() {
                    let tail = node.part.log_tail(20);
                    ensure!(tail.contains(NO_REDIS), "{} has ended by itself; its log ends:\n{tail}", node.part.name);
                    sleep(START_AGAIN_AFTER).await;
                    node.part.start()?;
                }
                if Instant::now() >= deadline {
                    bail!(
                        "{} is not ready after {READY_WAIT_MAX:?}; its log ends:\n{}",
                        node.part.name,
                        node.part.log_tail(20)
                    );
                }
                sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// The file whose content a process takes for its clock's distance from the real one.
    pub fn clock_file(&self, name: &str) -> Option<PathBuf> {
        self.clocks.then(|| clock_file(&self.directory, name))
    }

    /// In the order in which they need each other; the database goes on. The error is that of the first that ended badly.
    pub async fn stop(mut self) -> (Option<Database>, anyhow::Result<()>) {
        let mut stopped = Ok(());
        for node in &mut self.nodes {
            stopped = stopped.and(node.part.stop().await);
        }
        for server in &mut self.servers {
            stopped = stopped.and(server.part.stop().await);
        }
        stopped = stopped.and(self.orders.stop().await);
        (self.records.take(), stopped)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(place) = self.mounted.take() {
            // Its processes are killed when they are dropped, after this; what holds a file open lets go then.
            if unmount(&place).is_err() {
                let _ = Command::new("umount").arg("-l").arg(&place).status();
            }
        }
    }
}

fn clock_file(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.clock"))
}

/// The environment of a process whose clock can be set.
fn clock(programs: &Programs, clocks: bool, directory: &Path, name: &str) -> anyhow::Result<Vec<(String, String)>> {
    let Some(library) = programs.faketime.as_ref().filter(|_| clocks) else { return Ok(Vec::new()) };
    let file = clock_file(directory, name);
    std::fs::write(&file, "+0").with_context(|| file.display().to_string())?;
    Ok(vec![
        ("LD_PRELOAD".into(), text(library)?),
        ("FAKETIME_TIMESTAMP_FILE".into(), text(&file)?),
        // Durations are measured by a clock that nobody sets.
        ("DONT_FAKE_MONOTONIC".into(), "1".into()),
        ("FAKETIME_DONT_FAKE_MONOTONIC".into(), "1".into()),
        ("FAKETIME_CACHE_DURATION".into(), "1".into()),
    ])
}

fn redis(
    round: &Round,
    programs: &Programs,
    directory: &Path,
    data: PathBuf,
    at: usize,
    master: Option<SocketAddr>,
) -> anyhow::Result<Server> {
    // The system's Redis has an allocator that asks for the time before libfaketime is there, and ends.
    let program = match (&programs.redis_waitaof, round.store, round.clocks) {
        (Some(program), Store::Everysec, _) | (Some(program), _, true) => program,
        (None, Store::Everysec, _) => bail!("no Redis with WAITAOF"),
        _ => &programs.redis,
    };
    let port = lasting_port()?;
    let fsync = if round.store == Store::Everysec { "everysec" } else { "always" };
    let (port_text, data_text) = (port.to_string(), text(&data)?);
    let mut args: Vec<String> = [
        ("--port", &*port_text),
        ("--bind", "127.0.0.1"),
        ("--dir", &data_text),
        ("--save", ""),
        ("--appendonly", "yes"),
        ("--appendfsync", fsync),
        ("--maxmemory-policy", "noeviction"),
        ("--repl-diskless-sync-delay", "0"),
        // Longer than any command takes that is not a script of ours, and shorter than 5 ms.
        ("--slowlog-log-slower-than", "1000"),
        ("--slowlog-max-len", "1000"),
    ]
    .into_iter()
    .flat_map(|(name, value)| [name.to_owned(), value.to_owned()])
    .collect();
    if let Some(master) = master {
        args.extend(["--replicaof".into(), "127.0.0.1".into(), master.port().to_string()]);
    }
    let name = format!("redis-{at}");
    let envs = clock(programs, round.clocks, directory, &name)?;
    let part = Part::new(&name, program, args, envs, directory);
    Ok(Server { part, address: SocketAddr::from(([127, 0, 0, 1], port)), data })
}

fn node(
    at: usize,
    programs: &Programs,
    clocks: bool,
    directory: &Path,
    records_url: &str,
    link: Proxy,
) -> anyhow::Result<Node> {
    let address = SocketAddr::from(([127, 0, 0, 1], lasting_port()?));
    let name = format!("node-{at}");
    let mut envs = clock(programs, clocks, directory, &name)?;
    let millis = |ms: u64| ms.to_string();
    let settings = [
        ("HTTP_LISTEN", address.to_string()),
        ("GRPC_LISTEN", "127.0.0.1:0".into()),
        ("NODE_NAME", name.clone()),
        ("DATA_DIR", text(&directory.join(format!("{name}-data")))?),
        ("REDIS_URL", format!("redis://{}", link.address)),
        ("REDIS_TIMEOUT_MS", millis(1_500)),
        ("RECORDS_URL", records_url.into()),
        ("DELIVERY_LEASE_MS", millis(LEASE_MS)),
        ("DELIVERY_RETRY_BASE_MS", millis(50)),
        ("DELIVERY_RETRY_MAX_MS", millis(500)),
        ("TRANS_LEASE_MS", millis(LEASE_MS)),
        ("TRANS_RETRY_INTERVAL_MS", millis(100)),
        ("TRANS_RETRY_MAX_MS", millis(500)),
        ("TRANS_TIMEOUT_TO_FAIL_MS", millis(1_000)),
        ("TRANS_REQUEST_TIMEOUT_MS", millis(1_000)),
    ];
    envs.extend(settings.map(|(name, value)| (format!("RUSHLINE_{name}"), value)));
    let part = Part::new(&name, &programs.rushline, vec!["serve".into()], envs, directory);
    Ok(Node { part, api: Api { address }, link })
}

/// Waits until a Redis answers.
pub async fn answers(address: SocketAddr) -> anyhow::Result<()> {
    let deadline = Instant::now() + READY_WAIT_MAX;
    loop {
        let answer = async { Redis::at(&Place::Address(address)).await?.call(&["PING"]).await };
        match answer.await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() >= deadline => return Err(error.context(format!("Redis at {address}"))),
            Err(_) => sleep(POLL).await,
        }
    }
}

/// Waits until a primary has a replica that follows it.
async fn follows(primary: SocketAddr) -> anyhow::Result<()> {
    let deadline = Instant::now() + READY_WAIT_MAX;
    let mut redis = Redis::at(&Place::Address(primary)).await?;
    while !redis.info("replication").await?.iter().any(|(_, value)| value.contains("state=online")) {
        ensure!(Instant::now() < deadline, "no replica follows {primary} after {READY_WAIT_MAX:?}");
        sleep(POLL).await;
    }
    Ok(())
}

/// What the sale is created with.
pub fn sale_body(world: &World, round: &Round, plan: &crate::ledger::SalePlan) -> serde_json::Value {
    let service = world.service.address;
    let mut body = serde_json::json!({
        "sale": plan.name,
        "items": plan.stock,
        "limit_per_buyer": plan.limit_per_buyer,
        "durability": if round.store == Store::Replica { "replica:1" } else { "fsync" },
        "order_endpoint": {
            "url": format!("http://{}/orders", world.spoiler.address),
            "count_url": format!("http://{service}/count"),
            "list_url": format!("http://{service}/gids"),
            "timeout_ms": 800,
            "max_concurrency": 32,
        },
    });
    match round.sale {
        Sale::Reserved => body["reserve_for_ms"] = plan.reserve_for_us.map(|us| us / 1_000).into(),
        Sale::Spread => body["partitions"] = 4.into(),
        Sale::Plain => {}
    }
    body
}
