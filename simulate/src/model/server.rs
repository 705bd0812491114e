//! A Redis server around the data: what it tells of itself, when something it wrote is on disk or at a replica, and what
//! is left of it after a crash.
//!
//! The state after each write is kept until it is on disk and everywhere else; a crash goes back to one of these. So a
//! script is either there as a whole or not at all, as Redis has it from 7 on: it writes a script as one MULTI, and leaves
//! out one that is cut. The cut itself stays in the file, and swallows what is written after it, until the file is
//! rewritten (F12): that is `dangling`.

use super::commands::{self, is};
use super::db::Db;
use super::reply::{self, text};
use super::script::Scripts;
use redis::Value;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// How the append-only file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// Before any answer.
    Always,
    /// In the background, from time to time.
    EverySecond,
}

/// How a rewrite of the append-only file stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rewrite {
    Never,
    Until(Duration),
    Done,
}

/// Something that keeps the server from doing what it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Memory is full, and nothing is evicted.
    OutOfMemory,
    /// The disk is.
    DiskFull,
}

/// A state that a crash may go back to.
struct Past {
    write: u64,
    /// From when on it is on disk; `None` is not known yet.
    on_disk: Option<Duration>,
    db: Db,
}

pub struct Server {
    pub db: Db,
    pub scripts: Scripts,
    /// Scripts that this run of the server was told.
    loaded: BTreeSet<String>,
    pub version: &'static str,
    pub fsync: Fsync,
    pub trouble: Option<Trouble>,
    /// What its clock is ahead of the world's.
    pub clock_ahead: Duration,
    pub runs: u64,
    rewrite: Rewrite,
    /// What a restart finds if the file still has a cut in it.
    dangling: Option<Db>,
    /// Writes so far.
    pub writes: u64,
    past: VecDeque<Past>,
    /// Up to which write each replica has everything.
    pub replicas: Vec<u64>,
}

/// What a command came to.
pub struct Done {
    pub reply: Value,
    pub wrote: bool,
}

const REWRITE_TAKES: Duration = Duration::from_millis(20);

impl Server {
    pub fn new(version: &'static str, fsync: Fsync, replicas: usize) -> Self {
        let mut server = Self {
            db: Db::default(),
            scripts: Scripts::new().expect("Lua starts"),
            loaded: BTreeSet::new(),
            version,
            fsync,
            trouble: None,
            clock_ahead: Duration::ZERO,
            runs: 1,
            rewrite: Rewrite::Never,
            dangling: None,
            writes: 0,
            past: VecDeque::new(),
            replicas: vec![0; replicas],
        };
        server.past.push_back(Past { write: 0, on_disk: Some(Duration::ZERO), db: Db::default() });
        server
    }

    /// Its own clock, at a moment of the world.
    pub fn clock(&self, now: Duration) -> Duration {
        now + self.clock_ahead
    }

    /// Carries out a command, at once and alone.
    pub fn run(&mut self, now: Duration, args: &[Vec<u8>]) -> Done {
        let clock = self.clock(now);
        self.db.expire_until(clock.as_millis() as u64);
        let name = args.first().map_or(&b""[..], Vec::as_slice);
        let (reply, wrote) = match name {
            name if is(name, "evalsha") => self.evalsha(clock, args),
            name if is(name, "script") => (self.script(args), false),
            name if is(name, "info") => (text(self.info(now)), false),
            name if is(name, "config") => (self.config(args), false),
            name if is(name, "ping") => (Value::SimpleString("PONG".into()), false),
            name if is(name, "bgrewriteaof") => {
                self.rewrite = Rewrite::Until(now + REWRITE_TAKES);
                (Value::SimpleString("Background append only file rewriting started".into()), false)
            }
            name => {
                let writes = commands::writes(name);
                match self.refusal(writes, true) {
                    Some(refused) => (reply::error(refused), false),
                    None => match commands::run(&mut self.db, clock, args, false) {
                        Ok(value) => (value, writes),
                        Err(refused) => (reply::error(&refused), false),
                    },
                }
            }
        };
        if wrote {
            self.writes += 1;
            self.past.push_back(Past { write: self.writes, on_disk: None, db: self.db.clone() });
        }
        Done { reply, wrote }
    }

    /// Why nothing that writes is done now. Only some of it takes memory.
    fn refusal(&self, writes: bool, uses_memory: bool) -> Option<&'static str> {
        match self.trouble {
            Some(Trouble::OutOfMemory) if writes && uses_memory => {
                Some("OOM command not allowed when used memory > 'maxmemory'.")
            }
            Some(Trouble::DiskFull) if writes => {
                Some("MISCONF Errors writing to the AOF file: No space left on device")
            }
            _ => None,
        }
    }

    fn evalsha(&mut self, clock: Duration, args: &[Vec<u8>]) -> (Value, bool) {
        if args.len() < 3 {
            return (reply::error(&commands::wrong_number("evalsha")), false);
        }
        let Some(count) = commands::integer(&args[2]) else {
            return (reply::error(reply::NOT_AN_INTEGER), false);
        };
        if count > args.len() as i64 - 3 {
            return (reply::error("ERR Number of keys can't be greater than number of args"), false);
        }
        let Ok(count) = usize::try_from(count) else {
            return (reply::error("ERR Number of keys can't be negative"), false);
        };
        let digest = commands::show(&args[1]).to_lowercase();
        if !self.loaded.contains(&digest) {
            return (reply::error("NOSCRIPT No matching script. Please use EVAL."), false);
        }
        if let Some(refused) = self.refusal(!self.scripts.only_reads(&digest), !self.scripts.allows_oom(&digest)) {
            return (reply::error(refused), false);
        }
        let (keys, args) = args[3..].split_at(count);
        self.scripts.run(&mut self.db, clock, &digest, keys, args)
    }

    fn script(&mut self, args: &[Vec<u8>]) -> Value {
        match args {
            [_, word, source] if is(word, "load") => match self.scripts.load(source) {
                Ok(digest) => {
                    self.loaded.insert(digest.clone());
                    text(digest)
                }
                Err(refused) => reply::error(&refused),
            },
            _ => reply::error("ERR unknown subcommand or wrong number of arguments for 'script'"),
        }
    }

    /// As SCRIPT FLUSH.
    pub fn forget_scripts(&mut self) {
        self.loaded.clear();
    }

    fn info(&self, now: Duration) -> String {
        let (rewrites, going) = match self.rewrite {
            Rewrite::Never => (0, 0),
            Rewrite::Until(end) if now < end => (0, 1),
            Rewrite::Until(_) | Rewrite::Done => (1, 0),
        };
        format!(
            "# Server\r\nredis_version:{}\r\nrun_id:run{}\r\nloading:0\r\naof_enabled:1\r\naof_rewrites:{rewrites}\r\n\
             aof_rewrite_in_progress:{going}\r\naof_rewrite_scheduled:0\r\naof_last_bgrewrite_status:ok\r\n\
             maxmemory:0\r\nmaxmemory_policy:noeviction\r\nrole:master\r\nconnected_slaves:{}\r\n",
            self.version,
            self.runs,
            self.replicas.len(),
        )
    }

    fn config(&self, args: &[Vec<u8>]) -> Value {
        let value = match args {
            [_, word, name] if is(word, "get") && is(name, "appendfsync") => match self.fsync {
                Fsync::Always => ("appendfsync", "always"),
                Fsync::EverySecond => ("appendfsync", "everysec"),
            },
            [_, word, name] if is(word, "get") && is(name, "aof-load-truncated") => ("aof-load-truncated", "yes"),
            _ => return Value::Array(Vec::new()),
        };
        Value::Array(vec![text(value.0), text(value.1)])
    }

    /// A rewrite that has come to its end leaves a file without a cut.
    pub fn settle_rewrite(&mut self, now: Duration) {
        if let Rewrite::Until(end) = self.rewrite
            && now >= end
        {
            self.rewrite = Rewrite::Done;
            self.dangling = None;
        }
    }

    /// All that was written so far is on disk from `at` on.
    pub fn synced_from(&mut self, at: Duration, now: Duration) {
        for past in &mut self.past {
            past.on_disk.get_or_insert(at);
        }
        self.forget_past(now);
    }

    /// Up to which write everything is on disk.
    pub fn on_disk(&self, now: Duration) -> u64 {
        let on_disk = |past: &&Past| past.on_disk.is_some_and(|at| at <= now);
        self.past.iter().rev().find(on_disk).map_or(0, |past| past.write)
    }

    fn forget_past(&mut self, now: Duration) {
        let needed = self.replicas.iter().copied().fold(self.on_disk(now), u64::min);
        while self.past.len() > 1 && self.past[1].write <= needed {
            self.past.pop_front();
        }
    }

    /// A replica has everything up to this write.
    pub fn replicated(&mut self, replica: usize, write: u64, now: Duration) {
        if let Some(has) = self.replicas.get_mut(replica) {
            *has = write.max(*has);
        }
        self.forget_past(now);
    }

    /// Restarts with what is on disk, and as much of the rest as `choose` says, given how many writes were not on disk.
    /// `cut`: what went was cut in the middle of a script. Answers how many writes are gone.
    pub fn crash(&mut self, now: Duration, choose: impl FnOnce(u64) -> u64, cut: bool) -> u64 {
        self.settle_rewrite(now);
        let latest = self.writes;
        let safe = self.on_disk(now);
        let kept = match self.dangling.take() {
            // Whatever was written since the last start is behind the cut.
            Some(db) => {
                self.db = db;
                None
            }
            None => Some(safe + choose(latest - safe).min(latest - safe)),
        };
        if let Some(kept) = kept {
            let past = self.past.iter().find(|past| past.write == kept).expect("kept until it is on disk");
            self.db = past.db.clone();
        }
        let lost = latest - kept.unwrap_or(0);
        if cut && kept.is_some_and(|kept| kept < latest) {
            self.dangling = Some(self.db.clone());
        }
        self.begin_run(now);
        lost
    }

    /// Another server goes on, with what that replica has. Answers how many writes are gone.
    pub fn promote(&mut self, replica: usize, now: Duration) -> u64 {
        let has = self.replicas[replica];
        let past = self.past.iter().find(|past| past.write == has).expect("kept until every replica has it");
        self.db = past.db.clone();
        let lost = self.writes - has;
        self.dangling = None;
        self.begin_run(now);
        lost
    }

    fn begin_run(&mut self, now: Duration) {
        self.runs += 1;
        self.loaded.clear();
        self.rewrite = Rewrite::Never;
        self.past.clear();
        self.past.push_back(Past { write: self.writes, on_disk: Some(now), db: self.db.clone() });
        self.replicas.fill(self.writes);
    }
}
