//! The drain's side of Redis: notices of finished entries, and forgetting what the records hold.

use super::hooks::Hook;
use super::keys::Keys;
use super::orders::Address;
use super::redis::Redis;
use super::{Error, scripts};
use crate::domain::ids::EntryId;
use redis::Value;
use std::collections::HashMap;
use std::time::Duration;

/// A notice of finished entries.
#[derive(Debug, Clone)]
pub struct Notice {
    pub id: EntryId,
    pub entries: Vec<EntryId>,
}

impl Redis {
    /// New notices for this consumer (`from` = `>`), or those it was given and still owes (`from` = `0`), oldest first.
    pub async fn notices(&self, keys: &Keys, node: &str, from: &str, count: usize) -> Result<Vec<Notice>, Error> {
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg("records").arg(node).arg("COUNT").arg(count);
        command.arg("STREAMS").arg(&keys.finished).arg(from);
        let reply: Value = command.query_async(&mut self.slow()).await?;
        let Value::Array(streams) = reply else { return Ok(Vec::new()) };
        let Some(Value::Array(stream)) = streams.into_iter().next() else { return Ok(Vec::new()) };
        stream.get(1).map_or(Ok(Vec::new()), read_notices)
    }

    /// New notices for this consumer once the oldest that there is has lain for `age`: whoever ended these entries drains
    /// them from memory, unless it died or had no room for them.
    pub async fn old_notices(
        &self,
        keys: &Keys,
        node: &str,
        age: Duration,
        count: usize,
    ) -> Result<Vec<Notice>, Error> {
        let (oldest, (seconds, micros)): (Value, (u64, u64)) = redis::pipe()
            .cmd("XRANGE")
            .arg(&keys.finished)
            .arg(&["-", "+", "COUNT", "1"])
            .cmd("TIME")
            .query_async(&mut self.slow())
            .await?;
        let Some(oldest) = read_notices(&oldest)?.pop() else { return Ok(Vec::new()) };
        let now_ms = seconds * 1000 + micros / 1000;
        if oldest.id.ms + age.as_millis() as u64 > now_ms {
            return Ok(Vec::new());
        }
        self.notices(keys, node, ">", count).await
    }

    /// Takes over notices whose reconciler has not been heard of for `idle`.
    pub async fn take_over_notices(
        &self,
        keys: &Keys,
        node: &str,
        idle: Duration,
        count: usize,
    ) -> Result<Vec<Notice>, Error> {
        let mut connection = self.slow();
        let (_, notices, _): (String, Value, Value) = redis::cmd("XAUTOCLAIM")
            .arg(&keys.finished)
            .arg("records")
            .arg(node)
            .arg(idle.as_millis() as u64)
            .arg("0-0")
            .arg("COUNT")
            .arg(count)
            .query_async(&mut connection)
            .await?;
        read_notices(&notices)
    }

    /// The records hold `entries` durably: forgets them here. For each its units sold by SKU. `hooks` are what
    /// the shop is to be told of them.
    pub async fn drained(
        &self,
        keys: &Keys,
        notices: &[EntryId],
        entries: &[(EntryId, HashMap<&str, u64>)],
        details: &[Address],
        hooks: &[(EntryId, Hook)],
    ) -> Result<u64, Error> {
        let mut command = scripts::entry_drained.call(&[
            &keys.stock,
            &keys.intake,
            &keys.outcome,
            &keys.detail,
            &keys.finished,
            &keys.hooks,
        ]);
        command.arg(format!("{} {} {} {}", notices.len(), entries.len(), details.len(), hooks.len()));
        for notice in notices {
            command.arg(notice.to_string());
        }
        for (id, sold) in entries {
            command.arg(id.to_string()).arg(sold.len());
            for (sku, units) in sold {
                command.arg(*sku).arg(*units);
            }
        }
        for address in details {
            command.arg(address.to_string());
        }
        for (entry, hook) in hooks {
            command.arg(entry.to_string()).arg(&hook.id).arg(&hook.body);
        }
        let reply = self.run(&mut self.lane(), &command).await?;
        redis::from_redis_value(reply)
            .map_err(|error| Error::Unexpected { what: "entry_drained", reply: error.to_string() })
    }
}

fn read_notices(reply: &Value) -> Result<Vec<Notice>, Error> {
    let unexpected = |problem: String| Error::Unexpected { what: "a notice of finished entries", reply: problem };
    let raw: Vec<(String, Option<HashMap<String, String>>)> =
        redis::from_redis_value_ref(reply).map_err(|error| unexpected(error.to_string()))?;
    raw.into_iter()
        .map(|(id, fields)| {
            let id = id.parse().map_err(|_| unexpected(id))?;
            // A notice that was deleted while pending comes back empty: acknowledge it and go on.
            let entries = fields.unwrap_or_default().remove("ids").unwrap_or_default();
            let entries = entries.split_ascii_whitespace().filter_map(|id| id.parse().ok()).collect();
            Ok(Notice { id, entries })
        })
        .collect()
}
