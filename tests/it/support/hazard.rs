//! What it takes to break a machine on purpose: rights and tools that not every machine has.
//!
//! Where one is missing, a test says so and ends, except where nothing may be left out (`CI=true`): there it fails.

use super::servers::Redis;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// True if the test cannot go on. `error` says why.
pub fn is_missing<T>(what: &str, found: &Result<T, String>) -> bool {
    let Err(error) = found else { return false };
    let ci = std::env::var("CI").is_ok_and(|value| !["", "false", "0"].contains(&&*value));
    assert!(!ci, "{what} is needed, and in CI nothing is left out: {error}");
    println!("LEFT OUT, since {what} is not to be had here: {error}");
    true
}

/// Is it the long run, of everything that takes more time than `make test` has? `RUSHLINE_TEST_LONG=1` asks for it.
pub fn is_long_run() -> bool {
    std::env::var_os("RUSHLINE_TEST_LONG").is_some_and(|value| value == "1")
}

/// Runs a command to its end; the error is what it said.
pub fn run(command: &[&str]) -> Result<(), String> {
    let output = Command::new(command[0]).args(&command[1..]).output().map_err(|e| format!("{}: {e}", command[0]))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{}: {}", command.join(" "), String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// A small disk, in memory. Dropping it takes it away, full or not: whoever writes there must be gone by then.
pub struct SmallDisk {
    place: tempfile::TempDir,
}

impl SmallDisk {
    pub fn mount(size: &str) -> Result<Self, String> {
        let place = tempfile::Builder::new().prefix("rl-disk-").tempdir().unwrap();
        let path = place.path().to_str().unwrap();
        run(&["mount", "-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", path])?;
        Ok(Self { place })
    }

    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// Not a byte more fits.
    pub fn fill(&self) {
        use std::io::Write;
        let mut ballast = std::fs::File::create(self.path().join("ballast")).unwrap();
        for size in [64 * 1024, 512, 1] {
            while ballast.write_all(&vec![0; size]).is_ok() {}
        }
    }

    pub fn make_room(&self) {
        std::fs::remove_file(self.path().join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let path = self.path().to_str().unwrap().to_owned();
        if run(&["umount", &path]).is_err() {
            let _ = run(&["umount", "-l", &path]);
        }
    }
}

/// strace on a Redis that runs: its system calls are slow, or fail. Dropping it lets them be.
pub struct Inject {
    strace: Child,
}

impl Inject {
    /// `what` as strace has it after `inject=`: `fdatasync:error=EIO`, `fdatasync:delay_enter=1500000`.
    pub async fn into(redis: &Redis, what: &str) -> Result<Self, String> {
        let pid = redis.process().pid().to_string();
        let call = what.split(':').next().unwrap();
        let log = redis.process().directory().join("strace.log");
        let strace = Command::new("strace")
            .args(["-f", "-p", &pid, "-e", &format!("trace={call}"), "-e", &format!("inject={what}")])
            .args(["-e", "signal=none", "-o"])
            .arg(&log)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("strace: {error}"))?;
        let mut inject = Self { strace };
        let status = format!("/proc/{pid}/status");
        let traced = || !std::fs::read_to_string(&status).unwrap_or_default().contains("TracerPid:\t0\n");
        for _ in 0..500 {
            if traced() {
                return Ok(inject);
            }
            // It may all be over by now: what was made to fail has ended, and strace with it.
            match inject.strace.try_wait().unwrap() {
                Some(status) if status.success() => return Ok(inject),
                Some(_) => break,
                None => {}
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let mut said = String::new();
        let _ = inject.strace.kill();
        let _ = std::io::Read::read_to_string(&mut inject.strace.stderr.take().unwrap(), &mut said);
        Err(format!("strace cannot attach: {}", said.trim()))
    }
}

impl Drop for Inject {
    fn drop(&mut self) {
        // It detaches when it is told to end; killed outright it would leave its process stopped.
        let _ = run(&["kill", "-s", "INT", &self.strace.id().to_string()]);
        let _ = self.strace.wait();
    }
}

/// The library that tells a process another time.
pub fn faketime() -> Result<PathBuf, String> {
    let beside = std::fs::read_dir("/usr/lib").map_err(|error| error.to_string())?;
    let found = beside.filter_map(|entry| Some(entry.ok()?.path().join("faketime/libfaketimeMT.so.1")));
    found.into_iter().find(|path| path.exists()).ok_or_else(|| "no libfaketimeMT.so.1 below /usr/lib".into())
}

/// A clock that can be set, for one process.
pub struct Clock {
    file: tempfile::NamedTempFile,
    library: PathBuf,
}

impl Clock {
    pub fn new() -> Result<Self, String> {
        let clock = Self { file: tempfile::NamedTempFile::new().unwrap(), library: faketime()? };
        clock.set(0);
        Ok(clock)
    }

    /// This far from the real time.
    pub fn set(&self, seconds: i64) {
        std::fs::write(self.file.path(), format!("{seconds:+}")).unwrap();
    }

    /// What the process must have in its environment. Durations are measured by a clock that nobody sets.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.path().display().to_string()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            ("DONT_FAKE_MONOTONIC", "1".into()),
            ("FAKETIME_CACHE_DURATION", "1".into()),
        ]
    }
}

/// A network of its own with one machine in it, reached by a cable that can be pulled.
pub struct Island {
    name: String,
    /// The address of whoever runs inside.
    pub host: String,
}

impl Island {
    /// Two of a process's islands, and those of processes side by side, are told apart by their numbers.
    pub fn found(number: u8) -> Result<Self, String> {
        let mine = std::process::id() % 200 + 20;
        let name = format!("rl{}x{number}", std::process::id());
        let (outside, inside) = (format!("{name}o"), format!("{name}i"));
        let host = format!("10.{mine}.{number}.2");
        let island = Self { name: name.clone(), host: host.clone() };
        run(&["ip", "netns", "add", &name])?;
        run(&["ip", "link", "add", &outside, "type", "veth", "peer", "name", &inside, "netns", &name])?;
        run(&["ip", "addr", "add", &format!("10.{mine}.{number}.1/24"), "dev", &outside])?;
        run(&["ip", "link", "set", &outside, "up"])?;
        run(&["ip", "-n", &name, "addr", "add", &format!("{host}/24"), "dev", &inside])?;
        run(&["ip", "-n", &name, "link", "set", &inside, "up"])?;
        run(&["ip", "-n", &name, "link", "set", "lo", "up"])?;
        Ok(island)
    }

    /// What starts a program inside.
    pub fn launcher(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.name]
    }

    pub fn pull_cable(&self) {
        run(&["ip", "link", "set", &format!("{}o", self.name), "down"]).unwrap();
    }

    pub fn plug_in(&self) {
        run(&["ip", "link", "set", &format!("{}o", self.name), "up"]).unwrap();
    }

    /// What is sent from inside is lost; what is sent to it arrives.
    pub fn mute(&self) -> Result<(), String> {
        let inside = |words: &[&str]| run(&[&self.launcher(), &["nft"][..], words].concat());
        inside(&["add", "table", "ip", "silence"])?;
        let chain = "{ type filter hook output priority 0 ; policy accept ; }";
        inside(&["add", "chain", "ip", "silence", "out", chain])?;
        inside(&["add", "rule", "ip", "silence", "out", "oifname", &format!("{}i", self.name), "drop"])
    }

    pub fn unmute(&self) {
        run(&[&self.launcher(), &["nft", "delete", "table", "ip", "silence"][..]].concat()).unwrap();
    }
}

impl Drop for Island {
    fn drop(&mut self) {
        // The cable goes with it.
        let _ = run(&["ip", "netns", "del", &self.name]);
        let _ = run(&["ip", "link", "del", &format!("{}o", self.name)]);
    }
}
