//! When Redis is too full to take on more: well before `maxmemory`, so that finishing and draining, which free memory, have
//! room for what they write first.

use super::promise::Promise;
use super::redis::Redis;
use super::{Error, keys};
use crate::domain::trans::TransGid;
use std::sync::atomic::Ordering;

/// Percent of `maxmemory` that new orders may fill, unless the setting `redis.memory_share_percent` says another.
pub const SHARE: u8 = 85;
/// So much of that must be free again before admission opens: or it would open and shut with every batch.
const REOPEN_AT: u64 = 95;

/// How many bytes may be used while new work is taken on; `None` without a limit.
fn budget(promise: &Promise, share: u8, was_short: bool) -> Option<u64> {
    let budget = match promise.maxmemory {
        0 => return None,
        max => max / 100 * u64::from(share),
    };
    Some(if was_short { budget / 100 * REOPEN_AT } else { budget })
}

/// Is there too little room, by what Redis said last?
pub(super) fn is_short(promise: &Promise, share: u8, was_short: bool) -> bool {
    budget(promise, share, was_short).is_some_and(|budget| promise.used_memory > budget)
}

impl Redis {
    /// New work may fill so many percent of Redis's memory.
    pub fn share_memory(&self, percent: u8) {
        self.memory_share.store(percent, Ordering::Relaxed);
    }

    /// May new work be taken on by the server that has `key`? Known from the last look at it, a quarter of a second ago.
    pub fn has_room_at(&self, key: &str) -> Result<(), Error> {
        let Ok(server) = self.topology.server_of(key.as_bytes()) else { return Ok(()) };
        let promise = server.promise();
        let share = self.memory_share.load(Ordering::Relaxed);
        let short = is_short(&promise, share, server.short.load(Ordering::Relaxed));
        if server.short.swap(short, Ordering::Relaxed) != short {
            match short {
                true => tracing::error!(
                    used = promise.used_memory,
                    maxmemory = promise.maxmemory,
                    share,
                    "Redis is nearly full: no new orders, sales or transactions until some end and leave; more memory, or records that are written again, help"
                ),
                false => tracing::info!(used = promise.used_memory, "Redis has room again; new orders are taken on"),
            }
        }
        match budget(&promise, share, false) {
            Some(budget) if short => Err(Error::MemoryShort { used: promise.used_memory, budget }),
            _ => Ok(()),
        }
    }
}

impl Redis {
    /// The same for a new global transaction.
    pub fn has_room_for(&self, gid: &TransGid) -> Result<(), Error> {
        self.has_room_at(&keys::trans(self.prefix(), gid.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn using(used_memory: u64, maxmemory: u64) -> Promise {
        Promise { used_memory, maxmemory, ..Promise::default() }
    }

    #[test]
    fn admission_stops_at_the_share_and_begins_again_below_it() {
        assert!(!is_short(&using(850, 1_000), 85, false));
        assert!(is_short(&using(851, 1_000), 85, false));
        assert!(is_short(&using(801, 1_000), 85, true), "still too close");
        assert!(!is_short(&using(759, 1_000), 85, true));
    }

    #[test]
    fn without_a_limit_there_is_always_room() {
        assert!(!is_short(&using(u64::MAX, 0), 1, true));
    }
}
