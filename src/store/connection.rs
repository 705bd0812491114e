//! One connection to one Redis server: the driver's, which reconnects by itself, or one that was given by whoever
//! simulates the network ([`crate::outside`]).

use crate::outside;
use futures_util::future::{BoxFuture, join_all};
use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Cmd, Pipeline, RedisFuture, RedisResult, Value};
use std::sync::Arc;
use std::time::Duration;

/// A connection of somebody else's making. Commands of one connection are carried out in the order in which they are sent.
pub trait Given: Send + Sync {
    /// Sends at once; the answer comes with the future.
    fn send(&self, command: &Cmd) -> BoxFuture<'static, RedisResult<Value>>;
}

/// Cheap to clone; clones share the connection.
#[derive(Clone)]
pub enum Connection {
    Driver(ConnectionManager),
    Given(Arc<dyn Given>),
}

impl Connection {
    pub fn lazy(client: Client, config: ConnectionManagerConfig, patience: Duration) -> RedisResult<Self> {
        match outside::current() {
            None => Ok(Self::Driver(ConnectionManager::new_lazy_with_config(client, config)?)),
            Some(outside) => Ok(Self::Given(outside.redis(patience))),
        }
    }

    pub async fn send_packed_command(&mut self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Self::Driver(manager) => manager.send_packed_command(command).await,
            Self::Given(given) => given.send(command).await,
        }
    }

    pub async fn send_packed_commands(
        &mut self,
        pipeline: &Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisResult<Vec<Value>> {
        match self {
            Self::Driver(manager) => manager.send_packed_commands(pipeline, offset, count).await,
            Self::Given(given) => {
                let sent: Vec<_> = pipeline.cmd_iter().map(|command| given.send(command)).collect();
                join_all(sent).await.into_iter().skip(offset).take(count).collect()
            }
        }
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(self.send_packed_command(command))
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(self.send_packed_commands(pipeline, offset, count))
    }

    fn get_db(&self) -> i64 {
        0 // the driver asks only to show it
    }
}
