//! What the connected Redis can promise, read from itself.

use crate::domain::sale::Durability;
use std::collections::HashMap;

/// Facts about one run of a Redis server. `None` where it would not say (a managed Redis without CONFIG).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Promise {
    pub version: String,
    /// It is Valkey, and `version` the one of Redis that it says it is like.
    pub is_valkey: bool,
    pub run_id: String,
    /// Another one begins when a replica becomes a primary.
    pub replication_id: String,
    pub aof_on: bool,
    /// The append-only file was written anew since this run began: what it loaded, cut or not, is behind it.
    pub aof_rewritten: bool,
    /// `always`, `everysec` or `no`.
    pub fsync: Option<String>,
    /// `noeviction` is the only one that never loses a key.
    pub eviction: Option<String>,
    pub maxmemory: u64,
    pub used_memory: u64,
    pub aof_load_truncated: Option<bool>,
    pub replicas: u8,
    /// Milliseconds since 1970, by its clock when it was asked; 0 if it does not say.
    pub time_ms: u64,
}

/// How an answer is held back until its class is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Nothing to wait for: the class asks nothing, or Redis fsyncs before every answer (`appendfsync always`).
    Nothing,
    /// `WAITAOF 1 0`: the local append-only file is fsynced.
    LocalFsync,
    /// `WAIT n`: that many replicas have it.
    Replicas(u8),
}

impl Promise {
    /// Reads `INFO` and, where allowed, `CONFIG GET`.
    pub fn read(info: &str, config: &HashMap<String, String>) -> Self {
        let field = |name: &str| {
            info.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        Self {
            version: field("redis_version"),
            is_valkey: !field("valkey_version").is_empty(),
            run_id: field("run_id"),
            replication_id: field("master_replid"),
            aof_on: field("aof_enabled") == "1",
            aof_rewritten: field("aof_rewrites").parse::<u64>().is_ok_and(|rewrites| rewrites > 0)
                && field("aof_rewrite_in_progress") == "0"
                && field("aof_last_bgrewrite_status") == "ok",
            fsync: config.get("appendfsync").cloned(),
            eviction: Some(field("maxmemory_policy")).filter(|policy| !policy.is_empty()),
            maxmemory: field("maxmemory").parse().unwrap_or_default(),
            used_memory: field("used_memory").parse().unwrap_or_default(),
            aof_load_truncated: config.get("aof-load-truncated").map(|value| value == "yes"),
            replicas: field("connected_slaves").parse().unwrap_or_default(),
            time_ms: field("server_time_usec").parse().map_or(0, |us: u64| us / 1000),
        }
    }

    /// What two servers promise together.
    pub fn weaker(self, other: Self) -> Self {
        let first_is_older = self.version_number() <= other.version_number();
        Self {
            is_valkey: if first_is_older { self.is_valkey } else { other.is_valkey },
            version: if first_is_older { self.version } else { other.version },
            replication_id: if self.run_id <= other.run_id { self.replication_id } else { other.replication_id },
            run_id: if self.run_id <= other.run_id { self.run_id } else { other.run_id },
            used_memory: self.used_memory.max(other.used_memory),
            aof_on: self.aof_on && other.aof_on,
            aof_rewritten: self.aof_rewritten && other.aof_rewritten,
            fsync: if self.fsync.as_deref() == Some("always") { other.fsync } else { self.fsync },
            eviction: if self.eviction.as_deref() == Some("noeviction") { other.eviction } else { self.eviction },
            // The one that is full first: 0 is without a limit.
            maxmemory: match (self.maxmemory, other.maxmemory) {
                (0, some) | (some, 0) => some,
                (one, other) => one.min(other),
            },
            aof_load_truncated: if self.aof_load_truncated == Some(false) {
                other.aof_load_truncated
            } else {
                self.aof_load_truncated
            },
            replicas: self.replicas.min(other.replicas),
            time_ms: self.time_ms.max(other.time_ms),
        }
    }

    /// Names the data that is there: a process, and its time as a primary. Empty if nothing is known.
    pub fn run(&self) -> String {
        match self.run_id.as_str() {
            "" => String::new(),
            run_id => format!("{run_id}/{}", self.replication_id),
        }
    }

    /// Major and minor version.
    pub fn version_number(&self) -> (u32, u32) {
        let mut parts = self.version.split('.').map(|part| part.parse().unwrap_or_default());
        (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
    }

    /// WAITAOF came with 7.2.
    pub fn has_waitaof(&self) -> bool {
        self.version_number() >= (7, 2)
    }

    /// How `class` is met here, or why nothing may be sold in it.
    pub fn wait_for(&self, class: Durability) -> Result<Wait, String> {
        if let Some(policy) = self.eviction.as_deref().filter(|policy| *policy != "noeviction") {
            return Err(format!(
                "Redis may evict keys (maxmemory-policy {policy}), and with them orders; set maxmemory-policy noeviction"
            ));
        }
        self.confirms(class)
    }

    /// How to make sure that what was written meets `class`, or why there is no way to.
    pub fn confirms(&self, class: Durability) -> Result<Wait, String> {
        match class {
            Durability::Memory => Ok(Wait::Nothing),
            Durability::Fsync if !self.aof_on => {
                Err("Redis keeps no append-only file (appendonly no); set appendonly yes, or choose durability memory"
                    .into())
            }
            Durability::Fsync if self.fsync.as_deref() == Some("always") => Ok(Wait::Nothing),
            Durability::Fsync if self.has_waitaof() => Ok(Wait::LocalFsync),
            Durability::Fsync => Err(format!(
                "Redis {} fsyncs {} and has no WAITAOF (7.2 and later have); set appendfsync always, or choose durability memory",
                self.version,
                self.fsync.as_deref().unwrap_or("at moments it does not tell"),
            )),
            Durability::Replica(n) if self.replicas < n => {
                Err(format!("Redis has {} replicas connected, and replica:{n} needs {n}", self.replicas))
            }
            Durability::Replica(n) => Ok(Wait::Replicas(n)),
        }
    }

    /// In a word, for the banner: what an admitted order survives at best.
    pub fn describe(&self) -> String {
        match (self.aof_on, self.fsync.as_deref()) {
            (false, _) => "memory only, no append-only file".into(),
            (true, Some(policy)) => format!("AOF, appendfsync {policy}"),
            (true, None) => "AOF, fsync policy not told".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redis(version: &str, aof: bool, fsync: Option<&str>, policy: &str) -> Promise {
        let info = format!(
            "# Server\r\nredis_version:{version}\r\nrun_id:abc\r\naof_enabled:{}\r\nmaxmemory:0\r\nmaxmemory_policy:{policy}\r\nconnected_slaves:1\r\n",
            u8::from(aof)
        );
        let config = fsync.map(|value| ("appendfsync".to_string(), value.to_string())).into_iter().collect();
        Promise::read(&info, &config)
    }

    #[test]
    fn fsync_is_promised_only_where_it_holds() {
        let wait = |promise: Promise| promise.wait_for(Durability::Fsync);
        assert_eq!(wait(redis("7.0.15", true, Some("always"), "noeviction")), Ok(Wait::Nothing));
        assert_eq!(wait(redis("8.2.3", true, Some("everysec"), "noeviction")), Ok(Wait::LocalFsync));
        assert_eq!(wait(redis("8.2.3", true, None, "noeviction")), Ok(Wait::LocalFsync));
        assert!(
            wait(redis("7.0.15", true, Some("everysec"), "noeviction")).unwrap_err().contains("appendfsync always")
        );
        assert!(wait(redis("7.0.15", true, None, "noeviction")).is_err());
        assert!(wait(redis("8.2.3", false, Some("always"), "noeviction")).unwrap_err().contains("appendonly yes"));
    }

    #[test]
    fn an_evicting_redis_gets_no_sale_of_any_class() {
        let promise = redis("7.0.15", true, Some("always"), "allkeys-lru");
        for class in [Durability::Memory, Durability::Fsync, Durability::Replica(1)] {
            assert!(promise.wait_for(class).unwrap_err().contains("noeviction"));
        }
    }

    #[test]
    fn replicas_are_counted() {
        let promise = redis("7.0.15", true, Some("always"), "noeviction");
        assert_eq!(promise.wait_for(Durability::Replica(1)), Ok(Wait::Replicas(1)));
        assert!(promise.wait_for(Durability::Replica(2)).is_err());
    }
}
