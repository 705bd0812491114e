//! A server's process: started, killed and started again by the tests that own it, and gone when they are.

use std::ffi::OsString;
use std::fs::File;
use std::future::Future;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A server takes a second or two; one that recovers on a busy machine takes longer.
const READY_WAIT_MAX: Duration = Duration::from_secs(60);
const POLL_EVERY: Duration = Duration::from_millis(25);
/// A start that fails at once is tried again: the port may have been taken in between, and PostgreSQL refuses to start
/// while processes of its killed predecessor are still on their way out.
const STARTS_MAX: u32 = 20;

/// Whom a server runs as: PostgreSQL refuses to be root.
#[derive(Clone, Copy)]
pub struct Account {
    pub uid: u32,
    pub gid: u32,
}

/// One server and its temporary directory. Dropping it kills the server (by its process id) and removes the directory.
pub struct Process {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<OsString>,
    account: Option<Account>,
    directory: TempDir,
    child: Option<Child>,
}

impl Process {
    pub fn new(name: &'static str, program: PathBuf, account: Option<Account>) -> Self {
        let directory = tempfile::Builder::new().prefix(&format!("rushline-{name}-")).tempdir().unwrap();
        if let Some(account) = account {
            std::os::unix::fs::chown(directory.path(), Some(account.uid), Some(account.gid)).unwrap();
        }
        Self { name, program, arguments: Vec::new(), account, directory, child: None }
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn arguments<A: Into<OsString>>(&mut self, arguments: impl IntoIterator<Item = A>) {
        self.arguments.extend(arguments.into_iter().map(Into::into));
    }

    /// In place of all that there were.
    pub fn replace_arguments<A: Into<OsString>>(&mut self, arguments: impl IntoIterator<Item = A>) {
        self.arguments.clear();
        self.arguments(arguments);
    }

    /// Runs a program to its end as the server's account, as `initdb` wants.
    pub fn run(&self, program: &Path, arguments: &[&str]) {
        let mut command = Command::new(program);
        self.as_account(&mut command);
        let output = command.args(arguments).output().unwrap_or_else(|e| panic!("{}: {e}", program.display()));
        let Output { status, stdout, stderr } = output;
        let words = [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert!(status.success(), "{} {status}\n{words}", program.display());
    }

    /// Starts the server and waits until `ready` says so.
    pub async fn start<E: std::fmt::Display, F: Future<Output = Result<(), E>>>(&mut self, ready: impl Fn() -> F) {
        let deadline = Instant::now() + READY_WAIT_MAX;
        let mut starts = 0;
        let mut reason = String::from("not asked yet");
        while Instant::now() < deadline {
            let stopped = self.has_ended();
            if stopped && starts < STARTS_MAX {
                starts += 1;
                self.spawn();
            }
            tokio::time::sleep(POLL_EVERY * if stopped { 8 } else { 1 }).await;
            match tokio::time::timeout(Duration::from_secs(5), ready()).await {
                Ok(Ok(())) => return,
                Ok(Err(e)) => reason = e.to_string(),
                Err(_) => reason = "no answer within 5 s".into(),
            }
            if stopped && starts == STARTS_MAX {
                break;
            }
        }
        panic!("{} does not start: {reason}\nend of its log:\n{}", self.name, self.log_tail());
    }

    /// Does nothing run: not started yet, killed, or ended by itself?
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some())
    }

    fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = Command::new(&self.program);
        self.as_account(&mut command);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap_or_else(|e| {
            panic!("{}: {e}\nhint: tests/servers/install.sh gets what the tests need", self.program.display())
        });
        self.child = Some(child);
    }

    fn as_account(&self, command: &mut Command) {
        // A MariaDB that starts clears away what it takes for leavings in the directory for temporary files, and
        // another one's tables with them.
        command.current_dir(self.directory()).env("TMPDIR", self.directory());
        if let Some(account) = self.account {
            command.uid(account.uid).gid(account.gid);
        }
    }

    /// As `kill -9`: no handler runs, nothing is flushed.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Its process id; for whoever looks into it from outside.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it was started").id()
    }

    /// Sends a signal by name, such as `STOP`: a server that is there and does not answer.
    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("it was started").id();
        send_signal(pid, name);
    }

    fn log_path(&self) -> PathBuf {
        self.directory().join("server.log")
    }

    fn log_tail(&self) -> String {
        let log = std::fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(4000)..]).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // PostgreSQL's children are ended by their parent, on SIGQUIT at once; the others are just killed.
        if self.name == "postgres" {
            let _ = Command::new("kill").args(["-s", "QUIT", &child.id().to_string()]).status();
            let deadline = Instant::now() + Duration::from_secs(5);
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(POLL_EVERY);
            }
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// A port that nobody listens on. Below those that the system lends to outgoing connections (from 32768 on): one of
/// these could take the port while its server is down.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 20_000;
    // Test binaries that run side by side begin at different places.
    let start = std::process::id().wrapping_mul(61) as u16;
    for _ in 0..COUNT {
        let port = FIRST + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from {FIRST} on");
}

/// Watches how long this machine lets a process wait for a moment of its processor and its disk: a story that bounds a
/// wait must not count what the machine itself was away for (a build next door can hold a disk for many seconds, and
/// with it a server that writes a line of its log).
pub struct Machine {
    stop: std::sync::mpsc::Sender<()>,
    watching: std::thread::JoinHandle<Duration>,
}

impl Machine {
    pub fn watch() -> Self {
        use std::io::Write;
        let (stop, stopped) = std::sync::mpsc::channel();
        let watching = std::thread::spawn(move || {
            let mut file = tempfile::tempfile().unwrap();
            let mut longest = Duration::ZERO;
            loop {
                let started = Instant::now();
                let ended = stopped.recv_timeout(POLL_EVERY) != Err(std::sync::mpsc::RecvTimeoutError::Timeout);
                file.write_all(b"x").and_then(|()| file.sync_data()).unwrap();
                longest = longest.max(started.elapsed());
                if ended {
                    return longest;
                }
            }
        });
        Self { stop, watching }
    }

    /// The longest that it was away.
    pub fn longest_pause(self) -> Duration {
        drop(self.stop);
        self.watching.join().unwrap()
    }
}

/// The ids of an account, such as `postgres`; none if there is no such account.
pub fn account(name: &str) -> Option<Account> {
    let id = |flag: &str| -> Option<u32> {
        let output = Command::new("id").args([flag, name]).output().ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    };
    Some(Account { uid: id("-u")?, gid: id("-g")? })
}

pub fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().expect("`id` is everywhere");
    output.stdout.trim_ascii() == b"0"
}

/// Sends a signal; STOP holds when this returns.
pub fn send_signal(pid: u32, name: &str) {
    let status = Command::new("kill").args(["-s", name, &pid.to_string()]).status().unwrap();
    assert!(status.success(), "kill -s {name}: {status}");
    let deadline = Instant::now() + Duration::from_secs(10);
    // One thread is told and stops the others: until it runs, they do.
    while name == "STOP" && some_thread_runs(pid) {
        assert!(Instant::now() < deadline, "process {pid} does not stop");
        std::thread::yield_now();
    }
}

/// Is a thread of it not stopped? Where the system does not say: no.
fn some_thread_runs(pid: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().any(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // The name before it is in brackets and may hold anything.
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['T', 'Z', 'X']))
    })
}
