//! A round that does not settle: everything that is still open goes into a file, for whoever looks for the reason.
//!
//! Keys are read by `redis-cli`, which comes with the server.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Context;
use tokio::process::Command;

use super::world::World;

/// Keys and lines of each that are shown: what is stuck is rarely more than a few orders.
const KEYS_MAX: usize = 400;
const LINES_MAX: usize = 400;
/// Calls of the order service, newest last.
const CALLS_MAX: usize = 200;

/// Writes `stuck.txt` beside the logs.
pub async fn dump(world: &World) -> anyhow::Result<PathBuf> {
    let mut text = String::new();
    for node in &world.nodes {
        for path in [format!("/v1/sales/{}/audit", world.sale), "/readyz".into(), "/api/dtmsvr/all".into()] {
            let answer = node.api.call("GET", &path, None).await;
            writeln!(text, "==== {} GET {path}\n{answer:?}", node.part.name)?;
        }
    }
    let port = world.servers[world.primary].address.port().to_string();
    let keys = ask(&port, &["--scan"]).await?;
    for key in keys.lines().take(KEYS_MAX) {
        let kind = ask(&port, &["TYPE", key]).await?;
        let commands: &[&[&str]] = match kind.trim() {
            "string" => &[&["GET", key]],
            "hash" => &[&["HGETALL", key]],
            "set" => &[&["SMEMBERS", key]],
            "zset" => &[&["ZRANGE", key, "0", "-1", "WITHSCORES"]],
            // Entries, and whose they are since when: the leases.
            "stream" => &[&["XRANGE", key, "-", "+"], &["XINFO", "STREAM", key, "FULL"]],
            _ => &[],
        };
        for command in commands {
            writeln!(text, "==== {}", command.join(" "))?;
            let found = ask(&port, command).await?;
            found.lines().take(LINES_MAX).try_for_each(|line| writeln!(text, "{line}"))?;
        }
    }
    let journal = std::fs::read_to_string(world.directory.join("orders.journal")).unwrap_or_default();
    writeln!(text, "==== the order service's last {CALLS_MAX} calls")?;
    let calls: Vec<&str> = journal.lines().rev().take(CALLS_MAX).collect();
    calls.into_iter().rev().try_for_each(|line| writeln!(text, "{line}"))?;
    let path = world.directory.join("stuck.txt");
    std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    Ok(path)
}

async fn ask(port: &str, words: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("redis-cli").args(["-p", port]).args(words).output().await;
    let output = output.context("cannot run redis-cli")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
