//! A real server of this version, on a socket of its own, for as long as the test lasts.

use redis::aio::MultiplexedConnection;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub const REDIS_7: &str = "redis-server";
/// What `tests/servers/install.sh` took out of a wheel.
pub const REDIS_8: &str = "redis-server-8";

pub struct RedisServer {
    process: Child,
    _directory: tempfile::TempDir,
    socket: PathBuf,
    pub version: String,
}

fn find(name: &str) -> PathBuf {
    let fetched = std::env::var_os("RUSHLINE_TEST_SERVERS")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-servers"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::iter::once(fetched.join("bin")).chain(std::env::split_paths(&path)).map(|place| place.join(name));
    let found = found.into_iter().find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("no {name} here\nhint: tests/servers/install.sh gets what the tests need"))
}

impl RedisServer {
    pub async fn start(program: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("redis.sock");
        let process = Command::new(find(program))
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(&socket)
            .current_dir(directory.path())
            .stdout(if std::env::var_os("CERTIFY_LOG").is_some() { Stdio::inherit() } else { Stdio::null() })
            .spawn()
            .unwrap();
        let mut server = Self { process, _directory: directory, socket, version: String::new() };
        let mut connection = loop {
            assert!(server.process.try_wait().unwrap().is_none(), "{program} does not start");
            match server.connect().await {
                Ok(connection) => break connection,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        let info: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await.unwrap();
        let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap();
        server.version = version.trim().to_owned();
        server
    }

    pub async fn connect(&self) -> redis::RedisResult<MultiplexedConnection> {
        let client = redis::Client::open(format!("unix://{}", self.socket.display()))?;
        client.get_multiplexed_async_connection().await
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
