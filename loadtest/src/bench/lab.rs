//! What one figure is measured on: a Redis, an order service and a server of its own, all new and all stopped after.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::load::{Load, SKU, Template};
use crate::audit::Audit;
use crate::http::Api;
use crate::processes::{Process, free_port, fresh_directory, sibling};
use crate::redis_server::{self, Setup};
use crate::resp::Redis;

/// How often a counter is read while waiting for it: rare enough to cost nothing, often enough to time a run by.
pub const POLL: Duration = Duration::from_millis(5);
/// The slowest figure is done in a minute; this is for slow machines.
pub const WAIT_TIME_MAX: Duration = Duration::from_secs(300);
/// The longest that a sale may have: while the order service holds its answers, calls must not be repeated.
const ENDPOINT_TIMEOUT_MS: u64 = 60_000;

/// The place of Redis among the processes.
const REDIS: usize = 0;
/// The place of the order service among the processes: after Redis.
const SINK: usize = 1;

/// Entries of the hash that is weighed; enough for the fixed costs to vanish.
const WEIGHED_ENTRIES: u32 = 50_000;

/// What an answer promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Memory,
    Fsync,
}

impl Class {
    pub fn name(self) -> &'static str {
        match self {
            Class::Memory => "memory",
            Class::Fsync => "fsync",
        }
    }

    fn appendfsync(self) -> &'static str {
        match self {
            Class::Memory => "everysec",
            Class::Fsync => "always",
        }
    }
}

/// How the order endpoint is called.
#[derive(Debug, Clone, Copy)]
pub enum Mode {
    Single,
    Bulk,
}

/// How a lab is set up.
pub struct Plan<'a> {
    pub class: Class,
    pub mode: Mode,
    pub orders: u64,
    /// Different SKUs, the orders in turn for each.
    pub skus: u64,
    /// Variables of the server's.
    pub envs: &'a [(&'a str, &'a str)],
    /// Orders admitted and not delivered that the server bears before it says 429; its own default if absent.
    pub backlog_max: Option<u64>,
    pub rushline: &'a Path,
    pub redis_server: &'a Path,
    pub max_concurrency: u32,
    /// Data and logs.
    pub directory: PathBuf,
}

/// Bytes in Redis.
pub struct Weight {
    pub used: f64,
    pub ledger: f64,
}

/// The running parts. Must be closed: dropping it kills the server, and what that started stays.
pub struct Lab {
    processes: Vec<Process>,
    pub server: Api,
    pub sink: Api,
    pub redis: Redis,
    pub sale: String,
    pub orders: u64,
    /// From starting the server's program to its first good `/readyz`.
    pub ready_after: Duration,
    /// Bytes that the allocator gives each hash entry beyond what MEMORY USAGE says.
    entry_surplus: f64,
    directory: PathBuf,
    socket_directory: PathBuf,
}

impl Lab {
    /// Starts everything and creates the sale `bench`. What was started before a failure is stopped.
    pub async fn open(plan: &Plan<'_>) -> anyhow::Result<Self> {
        let mut processes = Vec::new();
        match Self::start(plan, &mut processes).await {
            Ok(lab) => Ok(Self { processes, ..lab }),
            Err(error) => {
                stop(processes)
                    .await
                    .context("stopping after a failed start")
                    .unwrap_or_else(|error| eprintln!("{error:#}"));
                Err(error)
            }
        }
    }

    async fn start(plan: &Plan<'_>, processes: &mut Vec<Process>) -> anyhow::Result<Self> {
        fresh_directory(&plan.directory)?;
        // A socket's path has 107 bytes at most, and a checkout may lie deep.
        let socket_directory = std::env::temp_dir().join(format!("rushline-bench-{}", std::process::id()));
        fresh_directory(&socket_directory)?;
        let socket = socket_directory.join("redis.sock");
        let setup = Setup {
            program: plan.redis_server,
            directory: &plan.directory,
            socket: &socket,
            port: 0,
            appendfsync: plan.class.appendfsync(),
        };
        processes.push(setup.start(&setup.args()?)?);
        let mut redis = redis_server::connect(&socket).await?;
        let entry_surplus = weigh_entries(&mut redis).await?;

        let (process, sink) = start_sink(&plan.directory, SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        processes.push(process);

        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let mut envs = vec![
            ("RUSHLINE_HTTP_LISTEN".into(), address.to_string()),
            ("RUSHLINE_GRPC_LISTEN".into(), "127.0.0.1:0".into()),
            ("RUSHLINE_DATA_DIR".into(), plan.directory.join("data").display().to_string()),
            ("RUSHLINE_REDIS_URL".into(), format!("redis+unix://{}", socket.display())),
        ];
        if let Some(orders) = plan.backlog_max {
            envs.push(("RUSHLINE_DELIVERY_BACKLOG_MAX".into(), orders.to_string()));
        }
        envs.extend(plan.envs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let log = plan.directory.join("server.log");
        let server = Api { address };
        let started = Instant::now();
        processes.push(Process::start("rushline serve", plan.rushline, &["serve"], &envs, &log)?);
        processes.last_mut().expect("pushed above").ready(server, "/readyz").await?;
        let ready_after = started.elapsed();

        let sale = "bench".to_owned();
        let body = json!({
            "sale": sale,
            "items": items(plan),
            "limit_per_buyer": 2,
            "durability": plan.class.name(),
            "order_endpoint": {
                "url": format!("http://{}/orders", sink.address),
                "count_url": format!("http://{}/count", sink.address),
                "list_url": format!("http://{}/gids", sink.address),
                "timeout_ms": ENDPOINT_TIMEOUT_MS,
                "max_concurrency": plan.max_concurrency,
                "mode": match plan.mode { Mode::Single => "single", Mode::Bulk => "bulk" },
            },
        });
        server.expect("POST", "/v1/sales", Some(&body)).await?;
        redis.call(&["CONFIG", "RESETSTAT"]).await?;
        Ok(Self {
            processes: Vec::new(),
            server,
            sink,
            redis,
            sale,
            orders: plan.orders,
            ready_after,
            entry_surplus,
            directory: plan.directory.clone(),
            socket_directory,
        })
    }

    /// The service is gone, and its books with it: whoever calls it now is refused the connection.
    pub async fn stop_sink(&mut self) -> anyhow::Result<()> {
        self.processes.remove(SINK).stop().await
    }

    /// It is back, at the same address.
    pub async fn start_sink(&mut self) -> anyhow::Result<()> {
        let (process, _) = start_sink(&self.directory, self.sink.address).await?;
        self.processes.insert(SINK, process);
        Ok(())
    }

    /// The load of all orders of this lab.
    pub fn load(&self, connections: usize) -> Load {
        self.load_of(Template::order(&self.sale), connections)
    }

    /// As many requests of another kind.
    pub fn load_of(&self, template: Template, connections: usize) -> Load {
        Load { address: self.server.address, template, connections, first: 0, orders: self.orders, rate: None }
    }

    pub fn key(&self, part: &str) -> String {
        format!("rl:{{{}/0}}:{part}", self.sale)
    }

    /// Redis's memory and the part of it that is the ledger: buyers and answered requests, which stay after the drain.
    /// One step for Redis, and every field is weighed: a sample of fields that differ by an allocator's step is off by
    /// a byte a field, a megabyte in the end. It stops Redis for 0.1 to 0.4 s with a million orders.
    pub async fn weigh(&mut self) -> anyhow::Result<Weight> {
        let script = "local used, ledger, fields = redis.call('INFO', 'memory'):match('used_memory:(%d+)'), 0, 0
            for _, key in ipairs(KEYS) do
                ledger = ledger + (redis.call('MEMORY', 'USAGE', key, 'SAMPLES', '0') or 0)
                fields = fields + redis.call('HLEN', key)
            end
            return string.format('%s %d %d', used, ledger, fields)";
        let (buyers, requests) = (self.key("buyers"), self.key("requests"));
        let reply = self.redis.call(&["EVAL", script, "2", &buyers, &requests]).await?.unwrap_or_default();
        let numbers: Vec<f64> = reply.split(' ').map_while(|number| number.parse().ok()).collect();
        let [used, ledger, fields] = numbers[..] else { bail!("weighing gave {reply:?}") };
        Ok(Weight { used, ledger: ledger + fields * self.entry_surplus })
    }

    /// Lets calls at the order service hang, or go on.
    pub async fn hold(&self, hold: bool) -> anyhow::Result<()> {
        self.sink.expect("POST", if hold { "/hold" } else { "/release" }, None).await?;
        Ok(())
    }

    /// Waits until the order service has every order.
    pub async fn delivered(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + WAIT_TIME_MAX;
        loop {
            let count = self.sink.expect("GET", &format!("/count?sale={}", self.sale), None).await?;
            if count["orders"].as_u64() == Some(self.orders) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "of {} orders the order service has {}", self.orders, count["orders"]);
            sleep(POLL).await;
        }
    }

    /// Waits until every order is finished and in the records: then its entry is gone from Redis.
    pub async fn drained(&mut self) -> anyhow::Result<()> {
        let key = self.key("intake");
        let deadline = Instant::now() + WAIT_TIME_MAX;
        while self.redis.number(&["XLEN", &key]).await? > 0 {
            ensure!(Instant::now() < deadline, "{key} did not become empty");
            sleep(POLL).await;
        }
        Ok(())
    }

    /// The books agree, every order was made once, and none was delivered twice. Answers the orders per call.
    pub async fn exact(&self) -> anyhow::Result<f64> {
        let audit = Audit::settled(self.server, &self.sale, WAIT_TIME_MAX).await?;
        let mut faults = audit.faults();
        let count = self.sink.expect("GET", &format!("/count?sale={}", self.sale), None).await?;
        for (what, found, wanted) in [
            ("orders at the order service", count["orders"].as_u64(), self.orders),
            ("orders delivered twice", count["doubles"].as_u64(), 0),
            ("records", Some(audit.records.succeed), self.orders),
        ] {
            if found != Some(wanted) {
                faults.push(format!("{what}: {found:?}, wanted {wanted}"));
            }
        }
        ensure!(faults.is_empty(), "this does not add up: {}", faults.join("; "));
        Ok(self.orders as f64 / count["calls"].as_f64().unwrap_or(f64::NAN))
    }

    /// Processor time of server and Redis so far.
    pub fn processor_time(&self) -> anyhow::Result<Duration> {
        Ok(self.processes[REDIS].processor_time()? + self.server_process()?.processor_time()?)
    }

    /// Processor time of the server so far.
    pub fn server_time(&self) -> anyhow::Result<Duration> {
        self.server_process()?.processor_time()
    }

    /// What the server has in memory.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        self.server_process()?.resident_bytes()
    }

    fn server_process(&self) -> anyhow::Result<&Process> {
        self.processes.last().context("the server was stopped")
    }

    pub async fn close(self) -> anyhow::Result<()> {
        drop(self.redis);
        let stopped = stop(self.processes).await;
        // The system clears its temporary directory, should this fail.
        let _ = std::fs::remove_dir_all(&self.socket_directory);
        stopped
    }
}

/// The stock of the sale: enough of each SKU.
fn items(plan: &Plan<'_>) -> serde_json::Value {
    if plan.skus == 1 {
        return json!([{"sku": SKU, "units": plan.orders}]);
    }
    let units = plan.orders.div_ceil(plan.skus) + 1;
    (0..plan.skus).map(|number| json!({"sku": format!("sku-{number:010}"), "units": units})).collect()
}

/// Stops in the opposite order of starting: the server, the order service, Redis.
async fn stop(processes: Vec<Process>) -> anyhow::Result<()> {
    let mut stopped = Ok(());
    for process in processes.into_iter().rev() {
        stopped = stopped.and(process.stop().await);
    }
    stopped
}

/// What MEMORY USAGE does not see of a large hash: it adds up sizes asked for, and allocators round up (a dict entry
/// of 24 bytes takes 32 from jemalloc as Debian builds it). Weighed on a hash that is gone before the server comes.
async fn weigh_entries(redis: &mut Redis) -> anyhow::Result<f64> {
    let script =
        "for i = 1, ARGV[1] do redis.call('HSET', KEYS[1], string.format('u%010d', i), string.rep('x', 60)) end";
    // The first script of a Redis makes it allocate what stays: 1.5 bytes an entry here, if it were counted.
    redis.call(&["EVAL", script, "1", "weighed", &WEIGHED_ENTRIES.to_string()]).await?;
    redis.call(&["DEL", "weighed"]).await?;
    let before = redis.used_memory().await?;
    redis.call(&["EVAL", script, "1", "weighed", &WEIGHED_ENTRIES.to_string()]).await?;
    let grown = redis.used_memory().await?.saturating_sub(before);
    let said = redis.number(&["MEMORY", "USAGE", "weighed", "SAMPLES", "0"]).await?;
    redis.call(&["DEL", "weighed"]).await?;
    Ok((grown as f64 - said as f64) / WEIGHED_ENTRIES as f64)
}

async fn start_sink(directory: &Path, listen: SocketAddr) -> anyhow::Result<(Process, Api)> {
    let (ours, listen) = (sibling("rushline-loadtest")?, listen.to_string());
    let args = ["sink-service", "--listen", &listen];
    let log = directory.join("sink-service.log");
    let (process, address) = Process::start_listening("sink service", &ours, &args, &log).await?;
    Ok((process, Api { address }))
}
