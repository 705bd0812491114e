//! The processes that a run starts: each with its log in a file, and stopped by its own id when the run ends.
//!
//! Children stand in a process group of their own, so that Ctrl-C reaches only the run, which then stops them in
//! order: buyers first, then the server, then what the server needs.

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::http::Api;

/// A server that starts Redis and loads its AOF is there in well under a second.
const START_TIME_MAX: Duration = Duration::from_secs(30);
/// Time for a process to finish what is in flight after SIGTERM, before it is killed.
const STOP_TIME_MAX: Duration = Duration::from_secs(20);
/// How often an address is tried until something answers there.
const READY_POLL: Duration = Duration::from_millis(5);

/// A process that this run started.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program`; what it prints goes to `log`.
    pub fn start(
        name: &str,
        program: &Path,
        args: &[&str],
        envs: &[(String, String)],
        log: &Path,
    ) -> anyhow::Result<Self> {
        let file = std::fs::File::create(log).with_context(|| format!("log of {name}: {}", log.display()))?;
        let mut command = Self::command(program, args, envs);
        command.stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot start {name}: {}", program.display()))?;
        Ok(Self { name: name.into(), child, log: log.into() })
    }

    /// Starts `program` and waits for its line `listening on ADDR`.
    pub async fn start_listening(
        name: &str,
        program: &Path,
        args: &[&str],
        log: &Path,
    ) -> anyhow::Result<(Self, SocketAddr)> {
        let file = std::fs::File::create(log).with_context(|| format!("log of {name}: {}", log.display()))?;
        let mut command = Self::command(program, args, &[]);
        command.stdout(Stdio::piped()).stderr(file);
        let mut child = command.spawn().with_context(|| format!("cannot start {name}: {}", program.display()))?;
        let stdout = child.stdout.take().context("stdout was to be piped")?;
        let mut process = Self { name: name.into(), child, log: log.into() };
        let mut lines = BufReader::new(stdout).lines();
        let first = timeout(START_TIME_MAX, lines.next_line()).await.ok().and_then(Result::ok).flatten();
        let address =
            first.as_deref().and_then(|line| line.strip_prefix("listening on ")).and_then(|text| text.parse().ok());
        let Some(address) = address else { bail!(process.failure("did not say where it listens")) };
        // Whatever else it prints must not fill the pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok((process, address))
    }

    fn command(program: &Path, args: &[&str], envs: &[(String, String)]) -> Command {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).process_group(0).kill_on_drop(true);
        command.envs(envs.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Waits until `GET target` answers 200, or the process has ended, or time is up.
    pub async fn ready(&mut self, api: Api, target: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_TIME_MAX;
        loop {
            if matches!(timeout_at(deadline, api.call("GET", target, None)).await, Ok(Ok((200, _)))) {
                return Ok(());
            }
            if self.child.try_wait()?.is_some() {
                bail!(self.failure("ended while starting"));
            }
            if Instant::now() >= deadline {
                bail!(self.failure(&format!("was not ready after {} s", START_TIME_MAX.as_secs())));
            }
            sleep(READY_POLL).await;
        }
    }

    /// Processor time of the process so far.
    pub fn processor_time(&self) -> anyhow::Result<Duration> {
        self.clock()?.spent()
    }

    /// Says what the process has spent, as long as it runs.
    pub fn clock(&self) -> anyhow::Result<Clock> {
        Ok(Clock { pid: self.child.id().with_context(|| format!("{} has ended", self.name))? })
    }

    /// Its memory that is really there.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        let text = self.of_proc("status")?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        Ok(kib.context("/proc/PID/status without VmRSS")? * 1024)
    }

    fn of_proc(&self, file: &str) -> anyhow::Result<String> {
        let pid = self.child.id().with_context(|| format!("{} has ended", self.name))?;
        let path = format!("/proc/{pid}/{file}");
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
    }

    /// What went wrong, with the last lines that the process wrote.
    fn failure(&mut self, what: &str) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(15).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        format!("{} {what}; its log {} ends:\n{}", self.name, self.log.display(), tail.join("\n"))
    }

    /// Has it ended, by itself or by a signal?
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Kills it without a word, as a power cut would.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().await.with_context(|| format!("cannot kill {}", self.name))
    }

    /// SIGTERM, wait, and only then SIGKILL. An error if it did not end by itself and well.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let Some(pid) = self.child.id() else { bail!(self.failure("had already ended")) };
        // By command, since sending a signal is `unsafe` in Rust and the standard library knows only SIGKILL.
        Command::new("kill").args(["-TERM", &pid.to_string()]).status().await.context("cannot run `kill`")?;
        let Ok(status) = timeout(STOP_TIME_MAX, self.child.wait()).await else {
            self.child.kill().await?;
            bail!(self.failure(&format!("had not ended {} s after SIGTERM and was killed", STOP_TIME_MAX.as_secs())));
        };
        let status = status?;
        // 15: a program without a handler for SIGTERM ends by it, and that is well.
        anyhow::ensure!(status.success() || status.signal() == Some(15), self.failure(&format!("ended with {status}")));
        Ok(())
    }
}

/// The processor time of a process.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    pid: u32,
}

impl Clock {
    /// Its own time so far and the kernel's for it; in steps of 10 ms.
    pub fn spent(&self) -> anyhow::Result<Duration> {
        let path = format!("/proc/{}/stat", self.pid);
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        // The name, in brackets, may hold spaces; user and system time are the 12th and 13th field behind it.
        let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok());
        let (user, system) = ticks(11).zip(ticks(12)).context("/proc/PID/stat without times")?;
        Ok(Duration::from_millis((user + system) * 10)) // USER_HZ is 100 on every Linux that there is
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A free port below those that the system lends to outgoing connections (from 32768 on): a server that is dead for a
/// while finds it free when it comes back.
pub fn lasting_port() -> anyhow::Result<u16> {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 20_000;
    // Runs side by side begin at different places.
    let start = std::process::id().wrapping_mul(61) as u16;
    for _ in 0..COUNT {
        let port = FIRST + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("there is no free port from {FIRST} to {}", FIRST + COUNT)
}

/// The program `name` beside our own, where cargo puts both.
pub fn sibling(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    anyhow::ensure!(path.exists(), "{} is missing\nhint: cargo build --release --workspace", path.display());
    Ok(path)
}

/// A directory that is new: whatever an earlier run left there is gone.
pub fn fresh_directory(path: &Path) -> anyhow::Result<()> {
    if path.exists() {
        std::fs::remove_dir_all(path).with_context(|| format!("cannot clear {}", path.display()))?;
    }
    std::fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))
}
