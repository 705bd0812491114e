//! Services made with go-zero itself, unchanged: they find rushline in etcd, and rushline finds them (tests/sdk/gozero).
//!
//! Twice, with one source: go-zero v1.10.3, whose addresses are `etcd:///HOSTS?key=KEY` (`go.mod`), and v1.4.4 with
//! `etcd://HOSTS/KEY` (`classic.mod`), each with dtm's driver for go-zero and dtm's client.

use super::redis;
use crate::sdk::packages;
use crate::support::app::{App, AppOptions};
use crate::support::etcd::Etcd;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// All stories take less, on a busy machine; they are built already.
const STORIES_WAIT_MAX: Duration = Duration::from_secs(300);

async fn tell(modules: &str, target: &str) {
    if packages("gozero").is_none() {
        return;
    }
    let (etcd, redis) = (Etcd::start().await, redis().await);
    // Everything by configuration: what is registered is the gRPC door itself.
    let options = AppOptions::default()
        .redis(&redis.url())
        .setting("trans.lease_ms", 2_000)
        .setting("trans.retry_interval_ms", 300)
        .setting("trans.retry_max_ms", 1_000)
        .setting("grpc.listen", "127.0.0.1:0")
        .setting("registry.target", format!("etcd://{}/dtmservice", etcd.address()));
    let _app = App::start(options).await;
    let mut command = Command::new("go");
    // As install.sh built them.
    command.args(["test", "-count=1", "-tags=no_k8s", &format!("-modfile={modules}"), "-v", "."]);
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/gozero"));
    command.env("SDK_ETCD", etcd.address()).stdin(Stdio::null()).kill_on_drop(true);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let output = tokio::time::timeout(STORIES_WAIT_MAX, child.wait_with_output()).await;
    let output = output.unwrap_or_else(|_| panic!("no end within {STORIES_WAIT_MAX:?}")).unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{}\n{stdout}{stderr}", output.status);
    // The form of address that this version of go-zero makes of its configuration, and that its stories used.
    assert!(stdout.contains(&target.replace("HOST", &etcd.address())), "{stdout}");
    assert!(stdout.contains("--- PASS: TestInstancesComeAndGo"), "{stdout}");
}

#[tokio::test]
async fn services_of_go_zero_1_10_and_rushline_find_each_other() {
    tell("go.mod", "etcd:///HOST?key=trans.rpc").await;
}

#[tokio::test]
async fn services_of_go_zero_1_4_and_rushline_find_each_other() {
    tell("classic.mod", "etcd://HOST/trans.rpc").await;
}
