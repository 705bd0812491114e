//! What memory answers are renewed by: plain reads, no script, few and large.

use super::Error;
use super::keys::Keys;
use super::lane::Lane;
use super::orders::KeyDigest;
use super::redis::Redis;
use crate::domain::ids::Sku;
use redis::Value;

/// Field of the stock hash that mirrors the version of the sale's settings, so that one command reads both. No SKU has an
/// empty name.
pub const VERSION_FIELD: &str = ":version";

/// One look at a sale.
#[derive(Debug)]
pub struct Pulse {
    /// Version of the settings; a sale created by an older program has none here until its first change.
    pub version: Option<u64>,
    /// Units available of each SKU asked for; 0 for one that is not there.
    pub available: Vec<u64>,
    /// `TIME` of Redis in microseconds, if asked for.
    pub time_us: Option<u64>,
}

impl Redis {
    pub async fn pulse(&self, keys: &Keys, skus: &[Sku], with_time: bool) -> Result<Pulse, Error> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("HMGET").arg(&keys.stock).arg(VERSION_FIELD);
        for sku in skus {
            pipeline.arg(format!("{sku}:available"));
        }
        if with_time {
            pipeline.cmd("TIME");
        }
        let replies: Vec<Value> = pipeline.query_async(&mut self.lane()).await?;
        let unexpected = || Error::Unexpected { what: "a pulse", reply: format!("{replies:?}") };
        let fields: Vec<Option<i64>> =
            redis::from_redis_value_ref(replies.first().ok_or_else(unexpected)?).map_err(|_| unexpected())?;
        let time: Option<(u64, u64)> = match replies.get(1) {
            Some(time) => Some(redis::from_redis_value_ref(time).map_err(|_| unexpected())?),
            None => None,
        };
        let count = |field: Option<i64>| field.and_then(|units| u64::try_from(units).ok());
        let (version, units) = fields.split_first().ok_or_else(unexpected)?;
        Ok(Pulse {
            version: count(*version),
            available: units.iter().map(|units| count(*units).unwrap_or_default()).collect(),
            time_us: time.map(|(seconds, micros)| seconds * 1_000_000 + micros),
        })
    }

    /// For each key whether a request with it was admitted.
    pub async fn keys_won(&self, lane: &mut Lane, keys: &Keys, digests: &[KeyDigest]) -> Result<Vec<bool>, Error> {
        let mut command = redis::cmd("HMGET");
        command.arg(&keys.requests);
        for digest in digests {
            command.arg(&digest[..]);
        }
        let addresses: Vec<Value> = command.query_async(lane).await?;
        Ok(addresses.iter().map(|address| *address != Value::Nil).collect())
    }
}
