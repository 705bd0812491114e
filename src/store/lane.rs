//! A connection to Redis as everybody else uses it, to one server or to a Cluster alike.
//!
//! In a Cluster each command goes to the server that owns its key's slot. Redirections are followed here: a command that
//! was answered MOVED, ASK, TRYAGAIN or CLUSTERDOWN was not executed, so sending it again is safe. A connection that
//! broke is another matter: nobody knows what was executed, and the caller hears so.

use super::connection::Connection;
use super::server::{Link, Server};
use super::topology::Topology;
use futures_util::future::join_all;
use redis::aio::ConnectionLike;
use redis::{Cmd, Pipeline, RedisFuture, RedisResult, Value};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// How often a command is sent on: the slot may move on while it travels, but not for ever.
const HOPS_MAX: u32 = 16;
/// Pause before asking again while the keys of a slot are on their way, or the Cluster elects. There is no event for it.
const AGAIN: Duration = Duration::from_millis(10);

/// A connection, or one to each server. Cheap to clone; clones share what is under it.
#[derive(Clone)]
pub struct Lane {
    topology: Arc<Topology>,
    kind: Kind,
    /// Where the last command with a key went. WAIT and WAITAOF belong to it.
    last: Option<Last>,
}

#[derive(Clone)]
struct Last {
    server: Arc<Server>,
    used: Arc<Connection>,
}

#[derive(Clone)]
pub(super) enum Kind {
    /// One of the shared ones, by turn.
    Shared(usize),
    Slow,
    Aside,
    /// Connections that nobody else has, by server: WAIT and WAITAOF block theirs and count only its own writes.
    Own(Arc<Mutex<HashMap<String, Owned>>>),
}

/// A connection of one's own, made when the server's had been renewed so many times.
pub(super) struct Owned {
    renewed: u64,
    connection: Arc<Connection>,
}

/// Where an answer sends us.
#[derive(Debug, PartialEq, Eq)]
enum Hop {
    Moved(String),
    Ask(String),
    Again,
}

impl Lane {
    pub(super) fn new(topology: Arc<Topology>, kind: Kind) -> Self {
        Self { topology, kind, last: None }
    }

    /// The server that the last command went to.
    pub(super) fn server(&self) -> Option<&Arc<Server>> {
        self.last.as_ref().map(|last| &last.server)
    }

    /// Which of the server's connections it is; `Err`: one of its own.
    fn link<'a>(&'a self, server: &'a Server) -> Result<&'a Link, &'a Mutex<HashMap<String, Owned>>> {
        match &self.kind {
            Kind::Shared(turn) => Ok(&server.lanes[turn % server.lanes.len()]),
            Kind::Slow => Ok(&server.slow),
            Kind::Aside => Ok(&server.aside),
            Kind::Own(own) => Err(own),
        }
    }

    fn connection(&self, server: &Server) -> RedisResult<Arc<Connection>> {
        Ok(match self.link(server) {
            Ok(link) => link.get(),
            Err(own) => {
                let mut own = own.lock().expect("nobody panics while holding this lock");
                let renewed = server.renewed();
                if let Some(owned) = own.get(&server.name).filter(|owned| owned.renewed == renewed) {
                    return Ok(owned.connection.clone());
                }
                own.retain(|name, _| self.topology.knows(name)); // bounded by the servers there are
                let connection = Arc::new(server.own()?);
                own.insert(server.name.clone(), Owned { renewed, connection: connection.clone() });
                connection
            }
        })
    }

    /// Looks at an answer on `used`. A connection that broke may be to another run of Redis when it is whole again: nobody
    /// sells there before it was looked at. After silence, nobody is kept waiting on the same connection.
    fn heard<T>(&self, server: &Server, used: &Arc<Connection>, reply: &RedisResult<T>) {
        if reply.is_err() {
            server.unsure();
        }
        if let Err(error) = reply
            && error.is_timeout()
        {
            match self.link(server) {
                Ok(link) => link.replace(used),
                Err(own) => {
                    let mut own = own.lock().expect("nobody panics while holding this lock");
                    if own.get(&server.name).is_some_and(|owned| Arc::ptr_eq(&owned.connection, used)) {
                        own.remove(&server.name);
                    }
                }
            }
        }
        self.topology.heard(reply);
    }

    fn server_for(&self, command: &Cmd) -> RedisResult<Arc<Server>> {
        match (self.topology.only(), self.server()) {
            (Some(server), _) => Ok(server),
            (None, last) => match (key_of(command), last) {
                (Some(key), _) => self.topology.server_of(key),
                (None, Some(server)) => Ok(server.clone()),
                (None, None) => self.topology.any(),
            },
        }
    }

    async fn send(&mut self, command: &Cmd) -> RedisResult<Value> {
        let mut server = self.server_for(command)?;
        let mut asking = false;
        let deadline = Instant::now() + self.topology.patience();
        let mut hops = 0;
        loop {
            let used = match &self.last {
                // On a connection made since, there is nothing that they would wait for, and they would confirm it.
                Some(last) if counts_its_connection(command) => last.used.clone(),
                _ => self.connection(&server)?,
            };
            let mut connection = Connection::clone(&used);
            self.last = Some(Last { server: server.clone(), used: used.clone() });
            let reply = match asking {
                false => connection.send_packed_command(command).await,
                true => {
                    let mut both = Pipeline::with_capacity(2);
                    both.cmd("ASKING").add_command(command.clone());
                    let replies = connection.send_packed_commands(&both, 0, 2).await;
                    replies.map(|mut replies| replies.pop().unwrap_or(Value::Nil))
                }
            };
            let Some(hop) = self.topology.cluster().then(|| hop_of(&reply)).flatten() else {
                self.heard(&server, &used, &reply);
                return reply;
            };
            hops += u32::from(hop != Hop::Again);
            if hops > HOPS_MAX || Instant::now() > deadline {
                return reply;
            }
            asking = matches!(hop, Hop::Ask(_));
            server = match hop {
                Hop::Moved(to) => self.topology.moved(key_of(command), &to, &server)?,
                Hop::Ask(to) => self.topology.server_at(&to, &server)?,
                Hop::Again => {
                    tokio::time::sleep(AGAIN).await;
                    self.server_for(command)?
                }
            };
        }
    }

    /// Each command to where its key is; those for one server together, and all servers at once.
    async fn send_all(&mut self, pipeline: &Pipeline, offset: usize, count: usize) -> RedisResult<Vec<Value>> {
        if let Some(server) = self.topology.only() {
            let used = self.connection(&server)?;
            let replies = Connection::clone(&used).send_packed_commands(pipeline, offset, count).await;
            self.heard(&server, &used, &replies);
            self.last = Some(Last { server, used });
            return replies;
        }
        debug_assert!(!pipeline.is_transaction(), "a transaction would have to stay in one slot");
        let commands: Vec<&Cmd> = pipeline.cmd_iter().collect();
        let mut parts: Vec<(Last, Vec<usize>)> = Vec::new();
        for (at, command) in commands.iter().enumerate() {
            let server = self.server_for(command)?;
            let part = match parts.iter().position(|(to, _)| Arc::ptr_eq(&to.server, &server)) {
                Some(part) => part,
                None => {
                    let used = self.connection(&server)?;
                    parts.push((Last { server, used }, Vec::new()));
                    parts.len() - 1
                }
            };
            parts[part].1.push(at);
            self.last = Some(parts[part].0.clone()); // a command without a key goes along with the one before
        }
        let sent = parts.iter().map(|(to, places)| {
            let mut part = Pipeline::with_capacity(places.len());
            for at in places {
                part.add_command(commands[*at].clone());
            }
            let mut connection = Connection::clone(&to.used);
            async move { connection.send_packed_commands(&part, 0, places.len()).await }
        });
        let mut replies = vec![Value::Nil; commands.len()];
        for ((to, places), part) in parts.iter().zip(join_all(sent).await) {
            self.heard(&to.server, &to.used, &part);
            for (at, reply) in places.iter().zip(part?) {
                replies[*at] = reply;
            }
        }
        for (command, reply) in commands.iter().zip(&mut replies) {
            if let Value::ServerError(_) = reply
                && hop_of(&Ok(reply.clone())).is_some()
            {
                *reply = self.clone().send(command).await?;
            }
        }
        Ok(replies)
    }
}

/// WAIT and WAITAOF wait for what was written on the connection that they come by, and for nothing else.
fn counts_its_connection(command: &Cmd) -> bool {
    let name = command.args_iter().next();
    matches!(name, Some(redis::Arg::Simple(name)) if name.eq_ignore_ascii_case(b"WAIT") || name.eq_ignore_ascii_case(b"WAITAOF"))
}

impl ConnectionLike for Lane {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(self.send(command))
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(self.send_all(pipeline, offset, count))
    }

    fn get_db(&self) -> i64 {
        0 // the driver asks only to show it
    }
}

fn hop_of(reply: &RedisResult<Value>) -> Option<Hop> {
    let Ok(Value::ServerError(error)) = reply else { return None };
    // "MOVED 3999 127.0.0.1:6381"
    let to = || error.details().and_then(|details| details.split(' ').nth(1)).map(str::to_owned);
    match error.code() {
        "MOVED" => to().map(Hop::Moved),
        "ASK" => to().map(Hop::Ask),
        "TRYAGAIN" | "CLUSTERDOWN" => Some(Hop::Again),
        _ => None,
    }
}

/// The key by which a command finds its server. Of the commands that this program sends, a few have none.
fn key_of(command: &Cmd) -> Option<&[u8]> {
    let arg = |at: usize| {
        command.args_iter().nth(at).and_then(|arg| if let redis::Arg::Simple(arg) = arg { Some(arg) } else { None })
    };
    match arg(0)? {
        b"EVALSHA" => arg(3),
        b"XREADGROUP" => {
            let streams = command.args_iter().position(|arg| matches!(arg, redis::Arg::Simple(b"STREAMS")))?;
            arg(streams + 1)
        }
        b"XINFO" | b"XGROUP" => arg(2),
        b"WAIT" | b"WAITAOF" | b"INFO" | b"CONFIG" | b"SCRIPT" | b"TIME" | b"PING" | b"BGREWRITEAOF" | b"CLUSTER"
        | b"ROLE" => None,
        _ => arg(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_goes_where_its_first_key_is() {
        let mut script = redis::cmd("EVALSHA");
        script.arg("digest").arg(2).arg("rl:{a/0}:sale").arg("rl:{a/0}:stock").arg("x");
        assert_eq!(key_of(&script), Some(&b"rl:{a/0}:sale"[..]));
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg("records").arg("n").arg("COUNT").arg(1).arg("STREAMS").arg("s").arg(">");
        assert_eq!(key_of(&read), Some(&b"s"[..]));
        assert_eq!(key_of(redis::cmd("HGETALL").arg("h")), Some(&b"h"[..]));
        assert_eq!(key_of(redis::cmd("WAIT").arg(1).arg(5)), None);
    }
}
