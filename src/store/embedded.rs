//! A private redis-server: the real one, as a child process, on a unix socket in the data directory.
//!
//! Append-only file on, fsync before every answer, no eviction, no TCP port. It is stopped with the server. If the
//! server was killed, its Redis lives on; the next start finds it on the socket and takes it over.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

/// How long a private Redis may take to load its data before the start is given up.
const LOAD_MS_MAX: u64 = 120_000;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "there is no `{program}` to start\nhint: sudo apt install redis-server   (or: brew install redis)\nhint: set redis.url to use a Redis that runs already"
    )]
    NoProgram { program: String },
    #[error("{path}: {source}")]
    Directory { path: String, source: std::io::Error },
    #[error(
        "the path of the socket is too long for a unix socket ({length} bytes, at most {max}): {path}\nhint: choose a shorter data_dir"
    )]
    PathTooLong { path: String, length: usize, max: usize },
    #[error("redis-server did not come up: {log}")]
    NotUp { log: String },
}

/// A running private Redis.
pub struct Embedded {
    pub url: String,
    pub socket: PathBuf,
    child: Option<Child>,
    log: PathBuf,
}

/// sockaddr_un on macOS holds 104 bytes, on Linux 108; the smaller one holds everywhere.
const SOCKET_PATH_BYTES_MAX: usize = 103;

impl Embedded {
    /// Starts `program` with its files in `directory`, or takes over the one that an earlier start left behind.
    pub async fn start(program: &str, directory: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Directory { path: directory.display().to_string(), source };
        std::fs::create_dir_all(directory).map_err(failed)?;
        let directory = directory.canonicalize().map_err(failed)?;
        let socket = directory.join("redis.sock");
        let length = socket.as_os_str().len();
        if length > SOCKET_PATH_BYTES_MAX {
            return Err(Error::PathTooLong { path: socket.display().to_string(), length, max: SOCKET_PATH_BYTES_MAX });
        }
        let log = directory.join("redis.log");
        let mut embedded = Self { url: format!("redis+unix://{}", socket.display()), socket, child: None, log };
        if embedded.answers().await {
            tracing::info!(socket = %embedded.socket.display(), "taking over the private Redis of an earlier start");
            return Ok(embedded);
        }
        let mut command = Command::new(program);
        command
            .args(["--port", "0", "--daemonize", "no", "--save", "", "--appendonly", "yes", "--appendfsync", "always"])
            .args(["--maxmemory-policy", "noeviction", "--unixsocketperm", "700", "--protected-mode", "yes"])
            .arg("--unixsocket")
            .arg(&embedded.socket)
            .arg("--dir")
            .arg(&directory)
            .arg("--logfile")
            .arg(&embedded.log)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C goes to the whole foreground group: Redis must outlive it until we have drained.
            .process_group(0);
        let child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::NoProgram { program: program.into() },
            _ => Error::NotUp { log: error.to_string() },
        })?;
        embedded.child = Some(child);
        embedded.wait_until_up().await?;
        Ok(embedded)
    }

    async fn wait_until_up(&mut self) -> Result<(), Error> {
        let deadline = tokio::time::Instant::now() + Duration::from_millis(LOAD_MS_MAX);
        loop {
            if self.answers().await {
                return Ok(());
            }
            let ended = self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(Some(_)) | Err(_)));
            if ended || tokio::time::Instant::now() > deadline {
                return Err(Error::NotUp { log: self.last_words() });
            }
            tokio::time::sleep(Duration::from_millis(5)).await; // there is no event for a socket that will exist
        }
    }

    /// Loaded and answering? PING says LOADING until the data is in memory.
    async fn answers(&self) -> bool {
        let Ok(client) = redis::Client::open(self.url.as_str()) else { return false };
        let asking = async {
            let mut connection = client.get_multiplexed_async_connection().await?;
            redis::cmd("PING").query_async::<String>(&mut connection).await
        };
        matches!(tokio::time::timeout(Duration::from_secs(1), asking).await, Ok(Ok(_)))
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let mut lines: Vec<&str> = log.lines().rev().take(5).collect();
        lines.reverse();
        format!("{}\nlog: {}", lines.join("\n"), self.log.display())
    }

    /// Asks it to write everything and end; waits a bounded time.
    pub async fn stop(mut self, within: Duration) {
        let Ok(client) = redis::Client::open(self.url.as_str()) else { return };
        let asking = async {
            if let Ok(mut connection) = client.get_multiplexed_async_connection().await {
                // An ended server closes the connection instead of answering.
                let _: Result<(), _> = redis::cmd("SHUTDOWN").arg("NOSAVE").query_async(&mut connection).await;
            }
            if let Some(child) = &mut self.child {
                let _ = child.wait().await;
            }
        };
        if tokio::time::timeout(within, asking).await.is_err() {
            tracing::warn!("the private Redis takes long to stop; it is left to finish by itself");
        }
    }
}
