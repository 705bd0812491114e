//! The short part of `make chaos`: some rounds of everything that can go wrong, and the oracle's word.
//!
//! They need `rushline` beside this package's program, as `cargo test --workspace` leaves it.

use std::path::PathBuf;
use std::process::Command;

/// About twenty processes die, in two rounds or three.
const KILLS: &str = "18";
/// Another one by hand: `RUSHLINE_TEST_CHAOS_SEED`.
const SEED: &str = "8";

/// A Redis with WAITAOF, where `tests/servers/install.sh` puts it.
fn redis_waitaof() -> Option<PathBuf> {
    let default = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/test-servers");
    let servers = std::env::var_os("RUSHLINE_TEST_SERVERS").map_or(default, PathBuf::from);
    Some(servers.join("bin/redis-server-8")).filter(|path| path.exists())
}

/// Rounds of kills, sleeps, partitions, full disks and poisoned answers end with nothing lost and nothing made twice.
#[test]
fn twenty_kills_and_what_goes_with_them_are_judged_clean() {
    let directory = std::env::temp_dir().join(format!("chaos-{}", std::process::id()));
    let seed = std::env::var("RUSHLINE_TEST_CHAOS_SEED").unwrap_or_else(|_| SEED.into());
    let mut command = Command::new(env!("CARGO_BIN_EXE_rushline-loadtest"));
    command.args(["chaos", "--kills", KILLS, "--seed", &seed, "--round-s", "9", "--rate", "50", "--json"]);
    command.arg("--directory").arg(&directory);
    if let Some(program) = redis_waitaof() {
        command.arg("--redis-server-8").arg(program);
    }
    let output = command.env_remove("KILLS").env_remove("SEED").env_remove("MINUTES").output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}\nlogs are in {}", output.status, directory.display());
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(summary["kills"].as_u64() >= Some(18), "{out}");
    assert!(summary["orders"].as_u64() > Some(200) && summary["transactions"].as_u64() > Some(100), "{out}");
    // Kept if the test fails: the logs are in there.
    std::fs::remove_dir_all(&directory).unwrap();
}
