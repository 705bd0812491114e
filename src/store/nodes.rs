//! The nodes of a shop: each says every few seconds that it is there. Nothing is decided by this; people look at it.

use super::redis::Redis;
use super::{Error, keys};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Who has said nothing for so long is forgotten by whoever looks.
const FORGET_MS: u64 = 60 * 60 * 1000;

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSaid {
    pub node: String,
    pub version: String,
    /// Where it listens for HTTP, as it sees itself.
    pub address: String,
    pub started_ms: u64,
    /// When it said this, by its own clock.
    pub seen_ms: u64,
    /// Orders and transactions that it works on.
    pub orders_in_flight: u64,
    pub transactions_in_flight: u64,
}

impl Redis {
    pub async fn say_node(&self, said: &NodeSaid) -> Result<(), Error> {
        let json = serde_json::to_string(said).expect("what a node says is plain data");
        let key = keys::nodes(self.prefix());
        Ok(redis::cmd("HSET").arg(key).arg(&said.node).arg(json).query_async(&mut self.aside()).await?)
    }

    /// A node that stops is gone at once.
    pub async fn forget_node(&self, node: &str) -> Result<(), Error> {
        Ok(redis::cmd("HDEL").arg(keys::nodes(self.prefix())).arg(node).query_async(&mut self.aside()).await?)
    }

    /// By name; those that went silent long ago are forgotten.
    pub async fn nodes(&self, now_ms: u64) -> Result<Vec<NodeSaid>, Error> {
        let key = keys::nodes(self.prefix());
        let said: HashMap<String, String> = redis::cmd("HGETALL").arg(&key).query_async(&mut self.aside()).await?;
        let (mut nodes, mut gone) = (Vec::new(), Vec::new());
        for (name, json) in said {
            match serde_json::from_str::<NodeSaid>(&json) {
                Ok(said) if said.seen_ms.saturating_add(FORGET_MS) > now_ms => nodes.push(said),
                _ => gone.push(name),
            }
        }
        if !gone.is_empty() {
            let _: u64 = redis::cmd("HDEL").arg(&key).arg(gone).query_async(&mut self.aside()).await?;
        }
        nodes.sort_unstable_by(|a, b| a.node.cmp(&b.node));
        Ok(nodes)
    }
}
