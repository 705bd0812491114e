//! Global transactions in Redis: load, register branches, claim what is due, list. [`super::trans_writer`] writes them.

use super::redis::Redis;
use super::trans_form::{self, Loaded, field_of, row_of};
use super::{Error, keys, scripts};
use crate::domain::trans::timing::PAUSED_MS;
use crate::domain::trans::{Branch, GlobalStatus, TransGid, TransType};
use redis::Value;
use std::collections::BTreeMap;

/// When a transaction must be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// By whoever comes first, from this moment on (ms).
    At(u64),
    /// Somebody works on it; by others from this moment on (ms). Half a millisecond tells it from the other.
    Leased(u64),
    /// Never again: it has finished.
    Never,
}

impl Due {
    pub fn score(self) -> String {
        match self {
            Due::At(ms) => ms.to_string(),
            Due::Leased(ms) => format!("{ms}.5"),
            Due::Never => String::new(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    New,
    /// There is one by this gid already.
    Exists,
}

/// A record and its rows, as Redis answers them.
pub(super) type Stored = (Option<Vec<u8>>, Vec<(String, String)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saved {
    /// As this version.
    Saved(u64),
    /// Somebody else wrote it since it was read.
    Stale,
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    Done,
    /// Exactly these are there already.
    Same,
    Conflict,
    /// It takes no branches (any more).
    NotPrepared,
    Gone,
}

/// What a list is to hold. Newest first.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub status: Option<GlobalStatus>,
    pub trans_type: Option<TransType>,
    /// Time of creation, ms, both ends included.
    pub created: (Option<u64>, Option<u64>),
    /// The last one of the page before: time of creation and gid.
    pub after: Option<(u64, String)>,
    pub limit: usize,
}

fn unexpected(what: &'static str, reply: &Value) -> Error {
    Error::Unexpected { what, reply: format!("{reply:?}") }
}

impl Redis {
    /// `None` also when it has left for the records; [`Redis::find_trans`] tells.
    pub async fn load_trans(&self, gid: &TransGid) -> Result<Option<Loaded>, Error> {
        let (record, rows) = self.read_trans(gid).await?;
        trans_form::read(gid.as_str(), record, rows)
    }

    pub(super) async fn read_trans(&self, gid: &TransGid) -> Result<Stored, Error> {
        let mut pipeline = redis::pipe();
        self.ask_for(&mut pipeline, gid.as_str());
        Ok(pipeline.query_async(&mut self.lane()).await?)
    }

    /// Many at a time, in one round trip; one that cannot be read is an error of its own.
    pub async fn load_all_trans(&self, gids: &[String]) -> Result<Vec<Result<Option<Loaded>, Error>>, Error> {
        if gids.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = redis::pipe();
        for gid in gids {
            self.ask_for(&mut pipeline, gid);
        }
        let replies: Vec<Value> = pipeline.query_async(&mut self.slow()).await?;
        let read = |(gid, reply): (&String, &[Value])| {
            let (record, rows): Stored = redis::from_redis_value_ref(&Value::Array(reply.to_vec()))
                .map_err(|error| Error::Unexpected { what: "a transaction", reply: error.to_string() })?;
            trans_form::read(gid, record, rows)
        };
        Ok(gids.iter().zip(replies.chunks(2)).map(read).collect())
    }

    fn ask_for(&self, pipeline: &mut redis::Pipeline, gid: &str) {
        pipeline.cmd("GET").arg(keys::trans(self.prefix(), gid));
        pipeline.cmd("HGETALL").arg(keys::trans_rows(self.prefix(), gid));
    }

    pub async fn append_branches(&self, gid: &TransGid, branches: &[Branch]) -> Result<Appended, Error> {
        let mut command = scripts::trans_append
            .call(&[&keys::trans(self.prefix(), gid.as_str()), &keys::trans_rows(self.prefix(), gid.as_str())]);
        command.arg(GlobalStatus::Prepared.as_str()).arg(branches.len());
        for branch in branches {
            command.arg(field_of(branch)).arg(row_of(branch));
        }
        let reply = self.run(&mut self.lane(), &command).await?;
        match word(Some(&reply)).as_deref() {
            Some("APPENDED") => Ok(Appended::Done),
            Some("SAME") => Ok(Appended::Same),
            Some("CONFLICT") => Ok(Appended::Conflict),
            Some("STATUS") => Ok(Appended::NotPrepared),
            Some("GONE") => Ok(Appended::Gone),
            _ => Err(unexpected("trans_append", &reply)),
        }
    }

    /// For each partition, when its first transaction is due (ms); all in one round trip.
    pub async fn next_due(&self) -> Result<Vec<Option<u64>>, Error> {
        let mut pipeline = redis::pipe();
        for partition in 0..keys::TRANS_PARTITIONS {
            pipeline.cmd("ZRANGE").arg(keys::trans_due(self.prefix(), partition)).arg(0).arg(0).arg("WITHSCORES");
        }
        let first: Vec<Vec<(String, f64)>> = pipeline.query_async(&mut self.lane()).await?;
        Ok(first.into_iter().map(|first| first.first().map(|(_, score)| score.ceil() as u64)).collect())
    }

    /// Takes up to `limit` due ones of a partition, oldest first, until `until_ms`.
    pub async fn claim_trans(
        &self,
        partition: u16,
        now_ms: u64,
        until_ms: u64,
        limit: usize,
    ) -> Result<Vec<String>, Error> {
        let mut command = scripts::trans_claim.call(&[&keys::trans_due(self.prefix(), partition)]);
        command.arg(now_ms).arg(Due::Leased(until_ms).score()).arg(limit);
        let reply = self.run(&mut self.lane(), &command).await?;
        redis::from_redis_value_ref(&reply).map_err(|_| unexpected("trans_claim", &reply))
    }

    /// Moves the due times of those that still have one.
    pub async fn move_due(&self, gids: &[TransGid], due: Due) -> Result<(), Error> {
        let mut partitions: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
        for gid in gids {
            partitions.entry(keys::trans_partition(gid.as_str())).or_default().push(gid.as_str());
        }
        if partitions.is_empty() {
            return Ok(());
        }
        let score = due.score();
        let mut pipeline = redis::pipe();
        for (partition, gids) in partitions {
            let command = pipeline.cmd("ZADD").arg(keys::trans_due(self.prefix(), partition)).arg("XX");
            for gid in gids {
                command.arg(&score).arg(gid);
            }
            command.ignore();
        }
        Ok(pipeline.query_async(&mut self.lane()).await?)
    }

    /// Does somebody work on it now?
    pub async fn is_leased(&self, gid: &TransGid, now_ms: u64) -> Result<bool, Error> {
        let partition = keys::trans_partition(gid.as_str());
        let score: Option<f64> = redis::cmd("ZSCORE")
            .arg(keys::trans_due(self.prefix(), partition))
            .arg(gid.as_str())
            .query_async(&mut self.lane())
            .await?;
        Ok(score.is_some_and(|score| score.fract() != 0.0 && score > now_ms as f64))
    }

    /// Makes up to `limit` due now that would be due from `far_ms` on. How many, and are there more?
    pub async fn reset_due(&self, now_ms: u64, far_ms: u64, limit: usize) -> Result<(usize, bool), Error> {
        let (mut moved, mut more) = (0, false);
        for partition in 0..keys::TRANS_PARTITIONS {
            let mut command = scripts::trans_reset.call(&[&keys::trans_due(self.prefix(), partition)]);
            command.arg(now_ms).arg(far_ms).arg(limit - moved);
            let reply = self.run(&mut self.lane(), &command).await?;
            let (some, rest): (usize, u8) =
                redis::from_redis_value_ref(&reply).map_err(|_| unexpected("trans_reset", &reply))?;
            moved += some;
            more |= rest == 1;
        }
        Ok((moved, more))
    }

    /// Looks at `count` unfinished ones of a partition, oldest first, created from `from_ms` on, and makes due what waits
    /// for its next try. Where to go on; `None`: there are no more.
    pub async fn hurry_trans(
        &self,
        partition: u16,
        status: GlobalStatus,
        trans_type: TransType,
        now_ms: u64,
        from_ms: u64,
        count: usize,
    ) -> Result<Option<u64>, Error> {
        let mut command = scripts::trans_hurry.call(&[
            &keys::trans_due(self.prefix(), partition),
            &keys::trans_index(self.prefix(), partition, status.as_str(), trans_type.as_str()),
        ]);
        command.arg(now_ms).arg(from_ms).arg(count).arg(PAUSED_MS);
        let reply = self.run(&mut self.lane(), &command).await?;
        let (found, last_ms): (usize, u64) =
            redis::from_redis_value_ref(&reply).map_err(|_| unexpected("trans_hurry", &reply))?;
        // More of one millisecond than one look takes: the rest of them keep their times.
        let on = if last_ms > from_ms { last_ms } else { from_ms + 1 };
        Ok((found == count).then_some(on))
    }

    /// Gids and times of creation of one page, newest first, by the indexes.
    pub async fn list_trans(&self, filter: &Filter) -> Result<Vec<(u64, String)>, Error> {
        let statuses = filter.status.map_or(GlobalStatus::ALL.to_vec(), |status| vec![status]);
        let types = filter.trans_type.map_or(TransType::ALL.to_vec(), |trans_type| vec![trans_type]);
        let low = filter.created.0.unwrap_or(0);
        let mut high = filter.created.1.map_or("+inf".to_owned(), |ms| ms.to_string());
        if let Some((ms, _)) = &filter.after
            && filter.created.1.is_none_or(|end| *ms <= end)
        {
            high = format!("({ms}");
        }
        let mut pipeline = redis::pipe();
        for partition in 0..keys::TRANS_PARTITIONS {
            for status in &statuses {
                for trans_type in &types {
                    let index = keys::trans_index(self.prefix(), partition, status.as_str(), trans_type.as_str());
                    let range = |pipeline: &mut redis::Pipeline, high: &str, low: u64, limit: i64| {
                        pipeline
                            .cmd("ZREVRANGEBYSCORE")
                            .arg(&index)
                            .arg(high)
                            .arg(low)
                            .arg("WITHSCORES")
                            .arg("LIMIT")
                            .arg(0)
                            .arg(limit);
                    };
                    range(&mut pipeline, &high, low, filter.limit as i64);
                    // Those of the very millisecond where the last page ended: the gid tells which were on it.
                    if let Some((ms, _)) = &filter.after {
                        range(&mut pipeline, &ms.to_string(), *ms, -1);
                    }
                }
            }
        }
        let found: Vec<Vec<(String, f64)>> = pipeline.query_async(&mut self.slow()).await?;
        let mut found: Vec<(u64, String)> =
            found.into_iter().flatten().map(|(gid, score)| (score as u64, gid)).collect();
        if let Some(after) = &filter.after {
            found.retain(|one| one < after && one.0 >= low);
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.dedup();
        found.truncate(filter.limit);
        Ok(found)
    }
}

fn word(value: Option<&Value>) -> Option<String> {
    redis::from_redis_value_ref(value?).ok()
}
