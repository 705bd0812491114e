//! What queries read of Redis: orders newest first, who has a batch now, how many transactions there are of each status.

use super::Error;
use super::keys::{self, Keys};
use super::orders::{Entry, read_entries};
use super::redis::Redis;
use crate::domain::ids::EntryId;
use crate::domain::trans::{GlobalStatus, TransType};
use redis::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// Who has a batch in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub node: String,
    /// Since it last said that it works on it.
    pub idle: Duration,
    /// How often the batch was taken up, by whomever.
    pub deliveries: u64,
}

impl Redis {
    /// Up to `count` entries, newest first, admitted at `latest_ms` or before (`None`: all) and before `below`, from
    /// `earliest_ms` on. Says how many there were, with those that were drained between two reads.
    pub async fn entries_before(
        &self,
        keys: &Keys,
        latest_ms: Option<u64>,
        below: Option<EntryId>,
        earliest_ms: u64,
        count: usize,
    ) -> Result<(Vec<Entry>, usize, Option<EntryId>), Error> {
        let from = match below {
            Some(below) => format!("({below}"),
            None => latest_ms.map_or_else(|| "+".to_owned(), |ms| ms.to_string()),
        };
        let mut command = redis::cmd("XREVRANGE");
        command.arg(&keys.intake).arg(from).arg(earliest_ms.to_string()).arg("COUNT").arg(count);
        let reply: Value = command.query_async(&mut self.slow()).await?;
        let entries = read_entries(&reply)?;
        let (read, last) = (entries.len(), entries.last().map(|(id, _)| *id));
        Ok((self.with_outcomes(keys, entries).await?, read, last))
    }

    /// Which node has this batch; `None`: nobody needs to work on it.
    pub async fn holder(&self, keys: &Keys, entry: EntryId) -> Result<Option<Holder>, Error> {
        let id = entry.to_string();
        let pending: Vec<(String, String, u64, u64)> = redis::cmd("XPENDING")
            .arg(&keys.intake)
            .arg("delivery")
            .arg(&id)
            .arg(&id)
            .arg(1)
            .query_async(&mut self.slow())
            .await?;
        let holder = |(_, node, idle_ms, deliveries)| Holder { node, idle: Duration::from_millis(idle_ms), deliveries };
        Ok(pending.into_iter().next().map(holder))
    }

    /// Units that a buyer holds or has bought, as the limit counts them, in one partition.
    pub async fn units_of(&self, keys: &Keys, buyer: &str) -> Result<u64, Error> {
        let units: Option<u64> = redis::cmd("HGET").arg(&keys.buyers).arg(buyer).query_async(&mut self.slow()).await?;
        Ok(units.unwrap_or_default())
    }

    /// How many global transactions Redis has, by status and type; those that are over wait for the records.
    pub async fn trans_counts(&self) -> Result<BTreeMap<&'static str, BTreeMap<&'static str, u64>>, Error> {
        let indexes = || {
            (0..keys::TRANS_PARTITIONS).flat_map(|partition| {
                GlobalStatus::ALL.iter().flat_map(move |status| {
                    TransType::ALL.iter().map(move |trans_type| (partition, status.as_str(), trans_type.as_str()))
                })
            })
        };
        let mut pipeline = redis::pipe();
        for (partition, status, trans_type) in indexes() {
            pipeline.cmd("ZCARD").arg(keys::trans_index(self.prefix(), partition, status, trans_type));
        }
        let counts: Vec<u64> = pipeline.query_async(&mut self.aside()).await?;
        let mut sums: BTreeMap<&'static str, BTreeMap<&'static str, u64>> = BTreeMap::new();
        for ((_, status, trans_type), count) in indexes().zip(counts) {
            *sums.entry(status).or_default().entry(trans_type).or_default() += count;
        }
        for types in sums.values_mut() {
            types.retain(|_, count| *count > 0);
        }
        Ok(sums)
    }
}
