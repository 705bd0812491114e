//! The stream of webhooks to be called: `entry_drained` writes it, [`crate::webhook`] works it off.

use super::Error;
use super::keys::Keys;
use super::redis::Redis;
use crate::domain::ids::EntryId;
use redis::Value;
use std::collections::HashMap;
use std::time::Duration;

const GROUP: &str = "webhooks";

/// One call to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Its `webhook-id`: the same for every try.
    pub id: String,
    pub body: String,
}

impl Redis {
    /// Hooks that no node has taken yet.
    pub async fn new_hooks(&self, keys: &Keys, node: &str, most: usize) -> Result<Vec<(EntryId, Hook)>, Error> {
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(GROUP).arg(node).arg("COUNT").arg(most);
        command.arg("STREAMS").arg(&keys.hooks).arg(">");
        let Some(reply) = unless_missing(command.query_async(&mut self.slow()).await)? else { return Ok(Vec::new()) };
        let Value::Array(streams) = reply else { return Ok(Vec::new()) };
        let Some(Value::Array(stream)) = streams.into_iter().next() else { return Ok(Vec::new()) };
        stream.get(1).map_or(Ok(Vec::new()), read)
    }

    /// Takes over hooks whose node has not been heard of for `idle`.
    pub async fn take_over_hooks(
        &self,
        keys: &Keys,
        node: &str,
        idle: Duration,
        most: usize,
    ) -> Result<Vec<(EntryId, Hook)>, Error> {
        if most == 0 {
            return Ok(Vec::new());
        }
        let mut command = redis::cmd("XAUTOCLAIM");
        command.arg(&keys.hooks).arg(GROUP).arg(node).arg(idle.as_millis() as u64).arg("0-0").arg("COUNT").arg(most);
        let reply: Result<(String, Value, Value), _> = command.query_async(&mut self.slow()).await;
        unless_missing(reply)?.map_or(Ok(Vec::new()), |(_, hooks, _)| read(&hooks))
    }

    /// These are still held by this node.
    pub async fn keep_hooks(&self, keys: &Keys, node: &str, ids: &[EntryId]) -> Result<(), Error> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut command = redis::cmd("XCLAIM");
        command.arg(&keys.hooks).arg(GROUP).arg(node).arg(0);
        for id in ids {
            command.arg(id.to_string());
        }
        let _: Option<Value> = unless_missing(command.arg("JUSTID").query_async(&mut self.slow()).await)?;
        Ok(())
    }

    /// It was told, or given up. First the entry goes, then who holds it: a crash in between leaves nothing to be told.
    pub async fn forget_hook(&self, keys: &Keys, id: EntryId) -> Result<(), Error> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("XDEL").arg(&keys.hooks).arg(id.to_string()).ignore();
        pipeline.cmd("XACK").arg(&keys.hooks).arg(GROUP).arg(id.to_string()).ignore();
        Ok(pipeline.query_async(&mut self.slow()).await?)
    }
}

/// Stream and group come with the first hook; before it there are none.
fn unless_missing<T>(reply: redis::RedisResult<T>) -> Result<Option<T>, Error> {
    match reply {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.code() == Some("NOGROUP") => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn read(reply: &Value) -> Result<Vec<(EntryId, Hook)>, Error> {
    let unexpected = |problem: String| Error::Unexpected { what: "a webhook to be called", reply: problem };
    let raw: Vec<(String, Option<HashMap<String, String>>)> =
        redis::from_redis_value_ref(reply).map_err(|error| unexpected(error.to_string()))?;
    raw.into_iter()
        .map(|(id, fields)| {
            let id = id.parse().map_err(|_| unexpected(id))?;
            let mut fields = fields.unwrap_or_default();
            let mut take = |name: &str| fields.remove(name).unwrap_or_default();
            Ok((id, Hook { id: take("id"), body: take("body") }))
        })
        .collect()
}
