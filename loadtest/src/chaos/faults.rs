//! Makes things go wrong, and mends them.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, sleep, sleep_until};

use super::plan::{Deed, Fault, Who};
use super::world::{World, answers};
use crate::resp::{Place, Redis};
use crate::run::proxy::Held;

/// What fills the disk of Redis, as a file beside its own.
const BALLAST: &str = "ballast";
const BALLAST_PIECE: usize = 256 * 1024;
/// Of a file's end, where the last script is looked for.
const TAIL_BYTES: u64 = 256 * 1024;
const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";
/// SCRIPT FLUSH, this often and in these pauses.
const FLUSHES: u32 = 15;
const FLUSH_EVERY: Duration = Duration::from_millis(100);

/// What was done in a round.
#[derive(Debug, Default)]
pub struct Done {
    /// Processes that SIGKILL reached.
    pub kills: u64,
    pub sleeps: u64,
    /// Everything, by name.
    pub faults: std::collections::BTreeMap<String, u64>,
}

/// Does each deed at its time, and undoes it when it is over.
pub async fn play(world: &mut World, deeds: &[Deed], began: Instant, seed: u64, done: &mut Done) -> anyhow::Result<()> {
    let mut chance = fastrand::Rng::with_seed(seed);
    let mut steps: Vec<(Duration, &Deed, bool)> = Vec::new();
    for deed in deeds {
        steps.extend([(deed.at, deed, true), (deed.at + deed.lasts, deed, false)]);
    }
    steps.sort_by_key(|(at, ..)| *at);
    for (at, deed, begins) in steps {
        sleep_until(began + at).await;
        let what = || format!("{:?} at {at:?} ({})", deed.fault, if begins { "begins" } else { "ends" });
        if begins {
            *done.faults.entry(deed.fault.name()).or_default() += 1;
            begin(world, deed.fault, &mut chance, done).await.with_context(what)?;
        } else {
            end(world, deed.fault).await.with_context(what)?;
        }
    }
    Ok(())
}

async fn begin(world: &mut World, fault: Fault, chance: &mut fastrand::Rng, done: &mut Done) -> anyhow::Result<()> {
    match fault {
        Fault::Kill(who) => done.kills += u64::from(kill(world, who).await?),
        Fault::KillNodes => {
            for node in &mut world.nodes {
                done.kills += u64::from(node.part.kill().await?);
            }
        }
        Fault::TornTail => {
            done.kills += u64::from(kill(world, Who::Redis).await?);
            let data = world.redis().data.clone();
            // A full disk has no room for a torn tail either.
            let _ = tear(&data, chance);
        }
        Fault::Promote => done.kills += u64::from(promote(world).await?),
        Fault::Sleep(who) => {
            done.sleeps += 1;
            signal(world, who, "STOP").await?;
        }
        Fault::Partition { node, requests, answers } => world.nodes[node].link.hold(Held { requests, answers }),
        Fault::Cut { node } => world.nodes[node].link.cut(true),
        Fault::Delay { node, ms } => world.nodes[node].link.delay(Duration::from_millis(ms)),
        Fault::Lose { node } => world.nodes[node].link.lose(),
        Fault::CutBuyers => world.front.cut(true),
        Fault::PartitionOrders { requests, answers } => world.service_link.hold(Held { requests, answers }),
        Fault::Poison(poison) => world.spoiler.spoil(Some(poison)),
        Fault::Full => full(world).await,
        Fault::DiskFull => fill(&world.redis().data.clone()).await?,
        Fault::Flush => {
            let address = world.redis().address;
            tokio::spawn(async move {
                for _ in 0..FLUSHES {
                    // A Redis that is dead has forgotten its scripts by itself.
                    if let Ok(mut redis) = Redis::at(&Place::Address(address)).await {
                        let _ = redis.call(&["SCRIPT", "FLUSH"]).await;
                    }
                    sleep(FLUSH_EVERY).await;
                }
            });
        }
        Fault::Clock { who, by_s } => set_clock(world, who, by_s)?,
    }
    Ok(())
}

async fn end(world: &mut World, fault: Fault) -> anyhow::Result<()> {
    match fault {
        Fault::Kill(who) => start(world, who)?,
        Fault::KillNodes => {
            for node in &mut world.nodes {
                node.part.start()?;
            }
        }
        Fault::TornTail => start(world, Who::Redis)?,
        // The old primary comes back as a replica.
        Fault::Promote => {
            for server in &mut world.servers {
                server.part.start()?;
            }
        }
        Fault::Sleep(who) => signal(world, who, "CONT").await?,
        Fault::Partition { node, .. } => world.nodes[node].link.hold(Held::default()),
        Fault::Cut { node } => world.nodes[node].link.up(),
        Fault::Delay { node, .. } => world.nodes[node].link.delay(Duration::ZERO),
        Fault::CutBuyers => world.front.up(),
        Fault::PartitionOrders { .. } => world.service_link.hold(Held::default()),
        Fault::Poison(_) => world.spoiler.spoil(None),
        Fault::Full => room(world).await,
        Fault::DiskFull => {
            free(&world.redis().data.clone())?;
            start(world, Who::Redis)?;
        }
        Fault::Flush | Fault::Lose { .. } => {}
        // That of Redis stays: what was due by it would be an hour late if it went back.
        Fault::Clock { who: Who::Redis, .. } => {}
        Fault::Clock { who, .. } => set_clock(world, who, 0)?,
    }
    Ok(())
}

/// Nothing is broken any more: every process runs and is awake, every node has the right time, every link is free.
pub async fn mend(world: &mut World) -> anyhow::Result<()> {
    for at in 0..world.nodes.len() {
        signal(world, Who::Node(at), "CONT").await?;
        set_clock(world, Who::Node(at), 0)?;
        let link = &world.nodes[at].link;
        link.hold(Held::default());
        link.delay(Duration::ZERO);
        link.up();
    }
    world.front.up();
    world.service_link.hold(Held::default());
    world.spoiler.spoil(None);
    signal(world, Who::Orders, "CONT").await?;
    signal(world, Who::Records, "CONT").await?;
    for server in &world.servers {
        free(&server.data)?;
    }
    for server in &mut world.servers {
        server.part.signal("CONT").await?;
        server.part.start()?;
        answers(server.address).await?;
    }
    room(world).await;
    start(world, Who::Orders)?;
    start(world, Who::Records)?;
    if let Some(records) = &mut world.records {
        records.ready().await?;
    }
    for node in &mut world.nodes {
        node.part.start()?;
    }
    world.ready().await
}

async fn kill(world: &mut World, who: Who) -> anyhow::Result<bool> {
    match who {
        Who::Node(at) => world.nodes[at].part.kill().await,
        Who::Redis => world.redis().part.kill().await,
        Who::Orders => world.orders.kill().await,
        Who::Records => match &mut world.records {
            Some(records) => records.part.kill().await,
            None => Ok(false),
        },
    }
}

fn start(world: &mut World, who: Who) -> anyhow::Result<()> {
    match who {
        Who::Node(at) => world.nodes[at].part.start(),
        Who::Redis => world.redis().part.start(),
        Who::Orders => world.orders.start(),
        Who::Records => world.records.as_mut().map_or(Ok(()), |records| records.part.start()),
    }
}

async fn signal(world: &mut World, who: Who, signal: &str) -> anyhow::Result<()> {
    match who {
        Who::Node(at) => world.nodes[at].part.signal(signal).await,
        Who::Redis => world.redis().part.signal(signal).await,
        Who::Orders => world.orders.signal(signal).await,
        Who::Records => match &mut world.records {
            Some(records) => records.part.signal(signal).await,
            None => Ok(()),
        },
    }
}

/// Kills the primary, makes the replica primary, and aims every node at it. Nothing happens while the replica is away or
/// still learning: then whoever promoted it would lose what it never had.
async fn promote(world: &mut World) -> anyhow::Result<bool> {
    let (old, new) = (world.primary, 1 - world.primary);
    let learnt = async {
        let mut replica = Redis::at(&Place::Address(world.servers[new].address)).await?;
        let info = replica.info("replication").await?;
        let says = |name: &str, value: &str| info.iter().any(|(n, v)| n == name && v == value);
        anyhow::Ok(says("role", "slave") && says("master_link_status", "up") && says("master_sync_in_progress", "0"))
    };
    if !matches!(tokio::time::timeout(Duration::from_secs(1), learnt).await, Ok(Ok(true))) {
        return Ok(false);
    }
    let killed = world.servers[old].part.kill().await?;
    let address = world.servers[new].address;
    Redis::at(&Place::Address(address)).await?.call(&["REPLICAOF", "NO", "ONE"]).await?;
    world.primary = new;
    let of = |args: &[String]| args.iter().position(|arg| arg == "--replicaof");
    // From its next start on, each knows its new part.
    for (at, master) in [(new, None), (old, Some(address))] {
        let args = &mut world.servers[at].part.args;
        if let Some(from) = of(args) {
            args.drain(from..from + 3);
        }
        args.extend(master.into_iter().flat_map(|master: std::net::SocketAddr| {
            ["--replicaof".to_owned(), "127.0.0.1".into(), master.port().to_string()]
        }));
    }
    for node in &world.nodes {
        node.link.aim(vec![address]);
        node.link.cut(false);
    }
    Ok(killed)
}

/// No more memory than Redis uses now. One that is dead cannot be full.
async fn full(world: &World) {
    let fill = async {
        let mut redis = world.ask_redis().await?;
        let used = redis.used_memory().await?;
        redis.call(&["CONFIG", "SET", "maxmemory", &used.to_string()]).await
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), fill).await;
}

async fn room(world: &World) {
    let free = async { world.ask_redis().await?.call(&["CONFIG", "SET", "maxmemory", "0"]).await };
    // One that was restarted has forgotten the limit.
    let _ = tokio::time::timeout(Duration::from_secs(1), free).await;
}

/// Writes until nothing goes any more.
async fn fill(data: &Path) -> anyhow::Result<()> {
    let path = data.join(BALLAST);
    let mut file = std::fs::File::create(&path).with_context(|| path.display().to_string())?;
    let piece = vec![0; BALLAST_PIECE];
    while file.write_all(&piece).is_ok() {
        tokio::task::yield_now().await;
    }
    Ok(())
}

fn free(data: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(data.join(BALLAST)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Appends the beginning of the last script once more: the script that Redis was writing when it died. Nothing that was
/// acknowledged is touched, as nothing acknowledged can be torn where `fsync` holds.
fn tear(data: &Path, chance: &mut fastrand::Rng) -> anyhow::Result<()> {
    let path = newest(&data.join("appendonlydir"))?;
    let mut file = std::fs::File::options().read(true).append(true).open(&path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    let find = |word: &[u8]| (0..tail.len().saturating_sub(word.len())).rev().find(|&at| tail[at..].starts_with(word));
    let (Some(multi), Some(exec)) = (find(MULTI), find(EXEC)) else { return Ok(()) };
    if multi < exec && tail[exec..].len() == EXEC.len() {
        let script = &tail[multi..];
        file.write_all(&script[..chance.usize(1..script.len())])?;
    }
    Ok(())
}

fn newest(directory: &Path) -> anyhow::Result<PathBuf> {
    let mut newest = None;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(".incr.aof") {
            newest = newest.max(Some((entry.metadata()?.modified()?, entry.path())));
        }
    }
    Ok(newest.context("Redis has no append-only file")?.1)
}

fn set_clock(world: &mut World, who: Who, by_s: i64) -> anyhow::Result<()> {
    let name = match who {
        Who::Node(at) => world.nodes[at].part.name.clone(),
        Who::Redis => world.redis().part.name.clone(),
        Who::Orders | Who::Records => return Ok(()),
    };
    let Some(path) = world.clock_file(&name) else { return Ok(()) };
    let now: i64 = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let by_s = if who == Who::Redis { now + by_s } else { by_s };
    std::fs::write(&path, format!("{by_s:+}")).with_context(|| path.display().to_string())
}
