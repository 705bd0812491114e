//! A Redis that a run starts for itself: new, with an append-only file, on a socket and perhaps a port.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, sleep};

use crate::processes::{Process, fresh_directory};
use crate::resp::Redis;

/// Redis starts in milliseconds; ten seconds is a machine that stands still.
const START_TIME_MAX: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);

/// How it is to be.
pub struct Setup<'a> {
    pub program: &'a Path,
    /// Its data goes below, and its log.
    pub directory: &'a Path,
    pub socket: &'a Path,
    /// 0 for none.
    pub port: u16,
    pub appendfsync: &'a str,
}

impl Setup<'_> {
    /// Its command line; an empty data directory is made for it.
    pub fn args(&self) -> anyhow::Result<Vec<String>> {
        let data = self.directory.join("redis");
        fresh_directory(&data)?;
        let text = |path: &Path| path.to_str().map(str::to_owned).context("the directory's name must be UTF-8");
        let (data, socket, port) = (text(&data)?, text(self.socket)?, self.port.to_string());
        let args = [
            ("--port", &*port),
            ("--bind", "127.0.0.1"),
            ("--unixsocket", &socket),
            ("--dir", &data),
            ("--save", ""),
            ("--appendonly", "yes"),
            ("--appendfsync", self.appendfsync),
            ("--maxmemory-policy", "noeviction"),
        ];
        Ok(args.into_iter().flat_map(|(name, value)| [name.to_owned(), value.to_owned()]).collect())
    }

    /// Starts it; [`connect`] waits until it answers.
    pub fn start(&self, args: &[String]) -> anyhow::Result<Process> {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Process::start("redis-server", self.program, &args, &[], &self.directory.join("redis.log"))
    }
}

/// A connection, as soon as there can be one.
pub async fn connect(socket: &Path) -> anyhow::Result<Redis> {
    let deadline = Instant::now() + START_TIME_MAX;
    loop {
        match Redis::open(socket).await {
            Ok(redis) => return Ok(redis),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => sleep(POLL).await,
        }
    }
}
