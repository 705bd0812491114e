//! Finished global transactions on their way out of Redis: the queue, the lease on it, and what stays behind for a while.
//!
//! The queue of the drain is the indexes of the final statuses; there is no list beside them that could disagree.
//! In a drained record's place stays its **word**, with a time to live: version, status, type and a digest of the
//! steps, which is all that a later call on the same gid asks for ([`Remembered`]). It is the one thing here that expires.

use super::lane::Lane;
use super::redis::Redis;
use super::trans_form::{self, Loaded};
use super::{Error, keys, scripts};
use crate::domain::trans::{Global, GlobalStatus, Remembered, TransGid, TransType};
use redis::Value;
use std::time::Duration;

/// Statuses whose indexes are the queue.
const FINAL: [GlobalStatus; 2] = [GlobalStatus::Succeed, GlobalStatus::Failed];
/// Read of a record at first. Few are longer; these are read whole, one by one.
const HEAD_BYTES: usize = 64 * 1024;
/// Records asked for by one pipeline: 16 MiB of reply at most.
const HEADS_MAX: usize = 256;
/// Before the type in a word. No record has it there: JSON and URLs have no such byte.
const WORD_MARK: char = '\u{3}';

/// What Redis has under a gid.
#[derive(Debug, Clone)]
pub enum Found {
    There(Box<Loaded>),
    /// It is over and in the records.
    Left(Remembered),
    Nothing,
}

/// One index of finished transactions, of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Queue {
    pub partition: u16,
    pub status: GlobalStatus,
    pub trans_type: TransType,
}

impl Queue {
    fn all() -> impl Iterator<Item = Self> {
        (0..keys::TRANS_PARTITIONS).flat_map(|partition| {
            FINAL.into_iter().flat_map(move |status| {
                TransType::ALL.iter().map(move |trans_type| Self { partition, status, trans_type: *trans_type })
            })
        })
    }

    /// The one that a transaction waits in; `None`: it is not over.
    pub fn of(global: &Global) -> Option<Self> {
        let partition = keys::trans_partition(global.gid.as_str());
        let queue = Self { partition, status: global.status, trans_type: global.trans_type };
        global.status.is_final().then_some(queue)
    }

    fn key(self, prefix: &str) -> String {
        keys::trans_index(prefix, self.partition, self.status.as_str(), self.trans_type.as_str())
    }
}

/// A finished transaction in its queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub create_ms: u64,
    pub gid: String,
    pub queue: Queue,
}

/// The word that stays of what was loaded with `version`. It counts as one version more: whoever still holds the record
/// finds it written by another.
fn word_of(over: &Remembered, version: u64) -> String {
    let (status, trans_type) = (over.status, over.trans_type);
    format!("{:010} {status} {WORD_MARK}{trans_type} {:016x}", version + 1, over.steps_digest)
}

/// `None`: this is a record.
fn read_word(gid: &TransGid, stored: &[u8]) -> Option<Remembered> {
    let text = std::str::from_utf8(stored).ok()?;
    let mut parts = text.split(' ').skip(1);
    let status = GlobalStatus::parse(parts.next()?)?;
    let trans_type = TransType::parse(parts.next()?.strip_prefix(WORD_MARK)?)?;
    let steps_digest = u64::from_str_radix(parts.next()?, 16).ok()?;
    Some(Remembered { gid: gid.clone(), trans_type, status, steps_digest })
}

/// Is this the word that stayed of a record?
pub(super) fn is_word(stored: &[u8]) -> bool {
    stored.splitn(3, |byte| *byte == b' ').nth(2).is_some_and(|rest| rest.first() == Some(&(WORD_MARK as u8)))
}

impl Redis {
    pub async fn find_trans(&self, gid: &TransGid) -> Result<Found, Error> {
        let (record, rows) = self.read_trans(gid).await?;
        if let Some(over) = record.as_deref().and_then(|stored| read_word(gid, stored)) {
            return Ok(Found::Left(over));
        }
        Ok(match trans_form::read(gid.as_str(), record, rows)? {
            Some(loaded) => Found::There(Box::new(loaded)),
            None => Found::Nothing,
        })
    }

    /// The oldest `each` of every queue, in one round trip.
    pub async fn finished_trans(&self, each: usize) -> Result<Vec<Waiting>, Error> {
        let queues: Vec<Queue> = Queue::all().collect();
        let mut pipeline = redis::pipe();
        for queue in &queues {
            pipeline.cmd("ZRANGE").arg(queue.key(self.prefix())).arg(0).arg(each - 1).arg("WITHSCORES");
        }
        let found: Vec<Vec<(String, f64)>> = pipeline.query_async(&mut self.slow()).await?;
        let waiting = |(queue, found): (&Queue, Vec<(String, f64)>)| {
            let queue = *queue;
            found.into_iter().map(move |(gid, score)| Waiting { create_ms: score as u64, gid, queue })
        };
        Ok(queues.iter().zip(found).flat_map(waiting).collect())
    }

    /// How many finished transactions wait for the records.
    pub async fn finished_trans_count(&self) -> Result<u64, Error> {
        let mut pipeline = redis::pipe();
        for queue in Queue::all() {
            pipeline.cmd("ZCARD").arg(queue.key(self.prefix()));
        }
        let counts: Vec<u64> = pipeline.query_async(&mut self.slow()).await?;
        Ok(counts.into_iter().sum())
    }

    /// Takes or renews the lease on the drain of a partition; zero gives it back. Does `node` have it now?
    ///
    /// On `lane`, because it is also what makes WAITAOF on that very connection cover all that came before.
    pub async fn lease_drain(
        &self,
        lane: &mut Lane,
        partition: u16,
        node: &str,
        lease: Duration,
    ) -> Result<bool, Error> {
        let mut command = scripts::trans_drain_lease.call(&[&keys::trans_drain(self.prefix(), partition)]);
        command.arg(node).arg(lease.as_millis() as u64);
        let reply = self.run(lane, &command).await?;
        let held: u8 = redis::from_redis_value_ref(&reply)
            .map_err(|_| Error::Unexpected { what: "trans_drain_lease", reply: format!("{reply:?}") })?;
        Ok(held == 1)
    }

    /// Reads finished ones, as many from the first on as fit into `bytes_max`, at least one. `None`: it has left.
    pub async fn read_finished(
        &self,
        gids: &[&str],
        bytes_max: usize,
    ) -> Result<Vec<Result<Option<Loaded>, Error>>, Error> {
        let mut read = Vec::with_capacity(gids.len());
        let mut bytes = 0;
        for some in gids.chunks(HEADS_MAX) {
            let mut pipeline = redis::pipe();
            for gid in some {
                pipeline.cmd("GETRANGE").arg(keys::trans(self.prefix(), gid)).arg(0).arg(HEAD_BYTES - 1);
            }
            let heads: Vec<Vec<u8>> = pipeline.query_async(&mut self.slow()).await?;
            for (gid, head) in some.iter().zip(heads) {
                if bytes > bytes_max {
                    return Ok(read);
                }
                let record = match head.len() {
                    0 => None,
                    HEAD_BYTES => {
                        redis::cmd("GET").arg(keys::trans(self.prefix(), gid)).query_async(&mut self.slow()).await?
                    }
                    _ => Some(head),
                };
                bytes += record.as_ref().map_or(0, Vec::len);
                // Rows of their own are taken in by the save that decides.
                read.push(trans_form::read(gid, record, Vec::new()));
            }
        }
        Ok(read)
    }

    /// Has Redis forget what the records have, but for its word. `written` is of one queue, as it was loaded; `keep` is
    /// how long the word stays. How many left by this call: another node may have been first.
    pub async fn forget_trans(
        &self,
        queue: Queue,
        written: &[(Remembered, u64)],
        keep: Duration,
    ) -> Result<u64, Error> {
        let records: Vec<String> =
            written.iter().map(|(over, _)| keys::trans(self.prefix(), over.gid.as_str())).collect();
        let index = queue.key(self.prefix());
        let all: Vec<&str> = std::iter::once(index.as_str()).chain(records.iter().map(String::as_str)).collect();
        let mut command = scripts::trans_drained.call(&all);
        command.arg(keep.as_millis() as u64);
        for (over, version) in written {
            command.arg(over.gid.as_str()).arg(format!("{version:010}")).arg(word_of(over, *version));
        }
        match self.run(&mut self.slow(), &command).await? {
            Value::Int(left) => Ok(left.unsigned_abs()),
            other => Err(Error::Unexpected { what: "trans_drained", reply: format!("{other:?}") }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_read_as_it_was_written_and_is_no_record() {
        for (status, trans_type) in
            FINAL.into_iter().flat_map(|status| TransType::ALL.iter().map(move |one| (status, *one)))
        {
            let over = Remembered { gid: TransGid::parse("g").unwrap(), trans_type, status, steps_digest: 0x1f };
            let word = word_of(&over, 41);
            assert!(word.starts_with("0000000042 "), "{word}");
            assert!(is_word(word.as_bytes()));
            assert_eq!(read_word(&over.gid, word.as_bytes()), Some(over));
        }
        let gid = TransGid::parse("g").unwrap();
        for record in ["0000000002 succeed {\"t\":\"saga\"}", "0000000002 failed http://h/\u{2}{}", "", "1 2"] {
            assert!(!is_word(record.as_bytes()) && read_word(&gid, record.as_bytes()).is_none(), "{record:?}");
        }
    }
}
