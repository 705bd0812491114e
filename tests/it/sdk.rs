//! Services that use dtm's SDKs point at rushline and work unchanged: each SDK's own stories (tests/sdk/), with the real
//! packages from their registries and real branch services, against a real server.
//!
//! `tests/sdk/install.sh` gets the packages, and marks what can be tried here. What cannot is left out; in CI it fails.

use crate::support::app::{App, AppOptions};
use crate::support::process::free_port;
use crate::support::servers::{MariaDb, Mongod, Postgres, RedisVersion};
use crate::support::shared;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// All stories of an SDK take less, on a busy machine; one that hangs must say so before the run is given up.
const STORIES_WAIT_MAX: Duration = Duration::from_secs(300);
/// Keys in rushline's Redis that are not its own: dtm loses topics among so many.
const OTHER_KEYS: usize = 5_000;

fn folder(sdk: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk").join(sdk)
}

/// Where install.sh put this SDK's packages; none if it is left out here.
pub fn packages(sdk: &str) -> Option<PathBuf> {
    let sdks = std::env::var_os("RUSHLINE_TEST_SDKS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-sdks"), PathBuf::from);
    if sdks.join(format!("{sdk}.ready")).exists() {
        return Some(sdks.join(sdk));
    }
    let why = std::fs::read_to_string(sdks.join(format!("{sdk}.left_out")));
    let why = why.unwrap_or_else(|_| String::from("nobody has looked for it\nhint: sh tests/sdk/install.sh"));
    assert!(std::env::var_os("CI").is_none(), "{sdk} cannot be tried, and CI tries all: {why}");
    eprintln!("{sdk} is left out: {why}");
    None
}

/// A server that loses no time over retries. Undecided transactions get long enough for a slow machine: those that
/// are to be given up say so themselves.
async fn rushline() -> (App, String) {
    let grpc = format!("127.0.0.1:{}", free_port());
    let options = AppOptions::default()
        .setting("trans.lease_ms", 2_000)
        .setting("trans.retry_interval_ms", 300)
        .setting("trans.retry_max_ms", 1_000)
        .setting("trans.timeout_to_fail_ms", 30_000)
        .setting("grpc.listen", &grpc);
    (App::start(options).await, grpc)
}

fn stories(app: &App, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env("RUSHLINE_HTTP", app.base());
    command
}

/// Runs the stories to their end; whatever they said is said again when they fail.
async fn tell(mut command: Command) {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let output = tokio::time::timeout(STORIES_WAIT_MAX, child.wait_with_output()).await;
    let output = output.unwrap_or_else(|_| panic!("{command:?}: no end within {STORIES_WAIT_MAX:?}")).unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{}\n{stdout}{stderr}", output.status);
}

async fn fill(redis_url: &str) {
    let client = redis::Client::open(redis_url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut all = redis::pipe();
    for i in 0..OTHER_KEYS {
        all.set(format!("somebody-else-{i}"), "x").ignore();
    }
    all.query_async::<()>(&mut connection).await.unwrap();
}

/// dtm-labs/client: message, saga, TCC, XA and workflow, with branches in four stores under its own barriers.
#[tokio::test(flavor = "multi_thread")]
async fn sdk_go() {
    if packages("go").is_none() {
        return;
    }
    let (mariadb, postgres, mongod, redis) =
        tokio::join!(MariaDb::start(), Postgres::start(), Mongod::start(), shared::redis(RedisVersion::V7));
    let (app, grpc) = rushline().await;
    fill(&app.redis_url()).await;
    let mut command = stories(&app, "go", &["test", "-count=1", "-parallel=16", "./..."]);
    command.current_dir(folder("go")).env("RUSHLINE_GRPC", grpc);
    command.env("SDK_MYSQL", mariadb.root_url()).env("SDK_POSTGRES", postgres.url());
    command.env("SDK_MONGO", mongod.url()).env("SDK_REDIS", redis.url());
    tell(command).await;
}

/// dtmcli 1.7.7.0: message, saga and TCC, with its barrier in MySQL.
#[tokio::test(flavor = "multi_thread")]
async fn sdk_python() {
    let Some(packages) = packages("python") else { return };
    let mariadb = MariaDb::start().await;
    let (app, _) = rushline().await;
    let mut command = stories(&app, "python3", &["stories.py"]);
    command.current_dir(folder("python")).env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("SDK_MYSQL", mariadb.root_url());
    tell(command).await;
}

/// grpcio, which learns `rushline.v1` by reflection. No SDK of dtm's, but it comes with that one's packages.
#[tokio::test(flavor = "multi_thread")]
async fn rushline_v1_python() {
    let Some(packages) = packages("python") else { return };
    let (app, grpc) = rushline().await;
    let mut command = stories(&app, "python3", &["rushline_v1.py"]);
    command.current_dir(folder("python")).env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("RUSHLINE_GRPC", grpc);
    tell(command).await;
}

/// dtmcli-java 2.1.5: saga and TCC, with its barrier in MySQL. Java compiles the one file as it runs it.
#[tokio::test(flavor = "multi_thread")]
async fn sdk_java() {
    let Some(packages) = packages("java") else { return };
    let mariadb = MariaDb::start().await;
    let (app, _) = rushline().await;
    let class_path = packages.join("*");
    let mut command = stories(&app, "java", &["-cp", class_path.to_str().unwrap(), "Stories.java"]);
    command.current_dir(folder("java")).env("SDK_MYSQL", mariadb.root_url());
    tell(command).await;
}

/// What dtm's SDK for Node sends, which is not on npm: message, saga and TCC.
#[tokio::test(flavor = "multi_thread")]
async fn sdk_node() {
    if packages("node").is_none() {
        return;
    }
    let (app, _) = rushline().await;
    let mut command = stories(&app, "node", &["stories.mjs"]);
    command.current_dir(folder("node"));
    tell(command).await;
}

/// No SDK at all.
#[tokio::test(flavor = "multi_thread")]
async fn sdk_curl() {
    if packages("curl").is_none() {
        return;
    }
    let (app, _) = rushline().await;
    let mut command = stories(&app, "sh", &["stories.sh"]);
    command.current_dir(folder("curl"));
    tell(command).await;
}
