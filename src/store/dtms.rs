//! The Redis store of another dtm server: reading what it has not finished, and taking that out of its reach.
//!
//! Any Redis that dtm runs on will do, so nothing here asks for scripts: what is taken is watched, compared with what was
//! read, and renamed in one transaction. It keeps its time to live there, and can be looked at until it runs out.

use super::keys::Dtms;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisError, RedisResult};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long one answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Members of the list that are read at once.
const PAGE: isize = 1_000;

/// One connection, which nobody else uses: what is watched is watched by it alone.
pub struct DtmStore {
    connection: MultiplexedConnection,
    keys: Dtms,
}

/// A transaction as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Theirs {
    pub gid: String,
    pub record: String,
    pub branches: Vec<String>,
    status: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    Done,
    /// Somebody changed it since it was read.
    Changed,
}

/// When each unfinished transaction is due, by gid; a running dtm moves these times.
pub type Unfinished = BTreeMap<String, String>;

impl DtmStore {
    pub async fn open(url: &str, prefix: &str) -> Result<Self, RedisError> {
        let client = redis::Client::open(url)?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ANSWER_MAX))
            .set_response_timeout(Some(ANSWER_MAX));
        let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        Ok(Self { connection, keys: Dtms::new(prefix) })
    }

    pub async fn unfinished(&mut self) -> Result<Unfinished, RedisError> {
        let mut all = Unfinished::new();
        for from in (0..).step_by(PAGE as usize) {
            let mut ask = redis::cmd("ZRANGE");
            ask.arg(self.keys.unfinished()).arg(from).arg(from + PAGE - 1).arg("WITHSCORES");
            let page: Vec<(String, String)> = ask.query_async(&mut self.connection).await?;
            let last = page.len() < PAGE as usize;
            all.extend(page);
            if last {
                break;
            }
        }
        Ok(all)
    }

    /// What an import began to take and did not end.
    pub async fn taking(&mut self) -> Result<Unfinished, RedisError> {
        redis::cmd("HGETALL").arg(self.keys.taking()).query_async(&mut self.connection).await
    }

    /// These transactions, from where dtm keeps them or from where they were put; `None`: it is gone.
    pub async fn read(&mut self, gids: &[String], taken: bool) -> Result<Vec<Option<Theirs>>, RedisError> {
        let mut pipeline = redis::pipe();
        for gid in gids {
            let [record, branches, status] = if taken { self.keys.taken(gid) } else { self.keys.of(gid) };
            pipeline.get(record).lrange(branches, 0, -1).get(status);
        }
        type Read = (Option<String>, Vec<String>, Option<String>);
        let read: Vec<redis::Value> = pipeline.query_async(&mut self.connection).await?;
        let one = |(gid, parts): (&String, &[redis::Value])| {
            let (record, branches, status): Read = redis::from_redis_value_ref(&redis::Value::Array(parts.to_vec()))?;
            Ok(record.map(|record| Theirs { gid: gid.clone(), record, branches, status }))
        };
        gids.iter().zip(read.chunks(3)).map(one).collect()
    }

    /// Takes it out of dtm's reach, if it still is as it was read.
    pub async fn take(&mut self, theirs: &Theirs, due: &str) -> Result<Take, RedisError> {
        let (from, to) = (self.keys.of(&theirs.gid), self.keys.taken(&theirs.gid));
        redis::cmd("WATCH").arg(&from).query_async::<()>(&mut self.connection).await?;
        let now = self.read(std::slice::from_ref(&theirs.gid), false).await;
        if now.as_ref().is_ok_and(|now| now.first() != Some(&Some(theirs.clone()))) {
            redis::cmd("UNWATCH").query_async::<()>(&mut self.connection).await?;
            return Ok(Take::Changed);
        }
        now?;
        let mut moves = redis::pipe();
        moves.atomic().zrem(self.keys.unfinished(), &theirs.gid).hset(self.keys.taking(), &theirs.gid, due);
        self.rename(&mut moves, theirs, &from, &to);
        // Nothing: what was watched has changed.
        let moved: RedisResult<Option<redis::Value>> = moves.query_async(&mut self.connection).await;
        Ok(if moved?.is_some() { Take::Done } else { Take::Changed })
    }

    /// It was taken over: nothing is left to be done about it.
    pub async fn taken(&mut self, gid: &str) -> Result<(), RedisError> {
        redis::cmd("HDEL").arg(self.keys.taking()).arg(gid).query_async(&mut self.connection).await
    }

    /// It cannot be taken over after all.
    pub async fn give_back(&mut self, theirs: &Theirs, due: &str) -> Result<(), RedisError> {
        let (from, to) = (self.keys.taken(&theirs.gid), self.keys.of(&theirs.gid));
        let mut moves = redis::pipe();
        moves.atomic().zadd(self.keys.unfinished(), &theirs.gid, due).hdel(self.keys.taking(), &theirs.gid);
        self.rename(&mut moves, theirs, &from, &to);
        moves.query_async::<redis::Value>(&mut self.connection).await.map(drop)
    }

    /// An empty list is no key, and some have none.
    fn rename(&self, moves: &mut redis::Pipeline, theirs: &Theirs, from: &[String; 3], to: &[String; 3]) {
        let there = [true, !theirs.branches.is_empty(), theirs.status.is_some()];
        for (at, _) in there.iter().enumerate().filter(|(_, there)| **there) {
            moves.cmd("RENAME").arg(&from[at]).arg(&to[at]);
        }
    }
}
