//! Small named values with a version each, by category. The topics of two-phase messages are one.

use super::redis::Redis;
use super::{Error, keys, scripts};
use std::collections::BTreeMap;

/// A value and its version, which grows by one with every change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    pub version: u64,
    /// JSON text.
    pub value: String,
}

impl Redis {
    pub async fn kv_read(&self, category: &str, key: &str) -> Result<Option<Versioned>, Error> {
        let stored: Option<String> = redis::cmd("HGET")
            .arg(keys::trans_kv(self.prefix(), category))
            .arg(key)
            .query_async(&mut self.lane())
            .await?;
        stored.map(|stored| parse(&stored)).transpose()
    }

    /// The whole category, by key: what is kept here is set up by people, a few hundred at most.
    pub async fn kv_all(&self, category: &str) -> Result<BTreeMap<String, Versioned>, Error> {
        let stored: BTreeMap<String, String> =
            redis::cmd("HGETALL").arg(keys::trans_kv(self.prefix(), category)).query_async(&mut self.slow()).await?;
        stored.into_iter().map(|(key, stored)| Ok((key, parse(&stored)?))).collect()
    }

    /// Writes (`None`: deletes) a value that was read with `version`, 0 for none. `false`: somebody was faster.
    pub async fn kv_save(&self, category: &str, key: &str, version: u64, value: Option<&str>) -> Result<bool, Error> {
        let mut command = scripts::kv_save.call(&[&keys::trans_kv(self.prefix(), category)]);
        command.arg(key).arg(version).arg(value.unwrap_or_default());
        let reply = self.run(&mut self.lane(), &command).await?;
        match redis::from_redis_value_ref::<String>(&reply).as_deref() {
            Ok("SAVED") => Ok(true),
            Ok("STALE") => Ok(false),
            _ => Err(Error::Unexpected { what: "kv_save", reply: format!("{reply:?}") }),
        }
    }
}

fn parse(stored: &str) -> Result<Versioned, Error> {
    stored
        .split_once(' ')
        .and_then(|(version, value)| Some(Versioned { version: version.parse().ok()?, value: value.to_owned() }))
        .ok_or_else(|| Error::Unexpected { what: "a named value", reply: stored.to_owned() })
}
