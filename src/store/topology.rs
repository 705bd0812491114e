//! Which servers there are, and which of them has a key: one, the primary that Sentinel names, or those of a Cluster.

use super::Error;
use super::connection::Connection;
use super::place::{HostPort, Place, Where};
use super::promise::Promise;
use super::server::{Manner, Server, manager_config};
use arc_swap::ArcSwap;
use futures_util::future::join_all;
use redis::{RedisResult, Value};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

/// Slots of a Redis Cluster.
const SLOTS: usize = 16_384;
/// A slot that no server is known to have.
const NOBODY: u16 = u16::MAX;
/// Most servers that are kept in mind. A Cluster has at most a thousand.
const SERVERS_MAX: usize = 1_024;

/// What is known at a moment.
struct Map {
    servers: Vec<Arc<Server>>,
    /// Slot → place in `servers`. Empty: there are no slots, the first server has everything.
    slots: Vec<u16>,
}

pub(super) struct Topology {
    place: Place,
    manner: Manner,
    map: ArcSwap<Map>,
    /// One change at a time: a change is made from what was there.
    changing: Mutex<()>,
    /// Connections to Sentinels, or to seeds of a Cluster, once they were needed.
    asked: Mutex<HashMap<HostPort, Connection>>,
    /// Something is not as the map has it.
    pub stale: Notify,
}

impl Topology {
    /// Finds the servers; none is verified yet.
    pub async fn find(place: Place, manner: Manner) -> Result<Arc<Self>, Error> {
        let (servers, slots) = match &place.at {
            Where::One(client) => (vec![Server::new(String::new(), client.clone(), &manner)?], Vec::new()),
            Where::Sentinel { .. } => (Vec::new(), Vec::new()),
            Where::Cluster { .. } => (Vec::new(), vec![NOBODY; SLOTS]),
        };
        let topology = Arc::new(Self {
            place,
            manner,
            map: ArcSwap::from_pointee(Map { servers, slots }),
            changing: Mutex::default(),
            asked: Mutex::default(),
            stale: Notify::new(),
        });
        topology.refresh().await?;
        Ok(topology)
    }

    pub fn patience(&self) -> Duration {
        self.manner.timeout
    }

    pub fn servers(&self) -> Vec<Arc<Server>> {
        self.map.load().servers.clone()
    }

    pub fn cluster(&self) -> bool {
        matches!(self.place.at, Where::Cluster { .. })
    }

    /// The server, if one has everything.
    pub fn only(&self) -> Option<Arc<Server>> {
        let map = self.map.load();
        if map.slots.is_empty() { map.servers.first().cloned() } else { None }
    }

    pub fn any(&self) -> RedisResult<Arc<Server>> {
        let map = self.map.load();
        let usable = map.servers.iter().find(|server| server.usable());
        usable.or(map.servers.first()).cloned().ok_or_else(nobody)
    }

    pub fn server_of(&self, key: &[u8]) -> RedisResult<Arc<Server>> {
        let map = self.map.load();
        if map.slots.is_empty() {
            return map.servers.first().cloned().ok_or_else(nobody);
        }
        map.servers.get(usize::from(map.slots[slot_of(key)])).cloned().ok_or_else(nobody)
    }

    pub fn knows(&self, name: &str) -> bool {
        self.map.load().servers.iter().any(|server| server.name == name)
    }

    /// A server told us that another has this key's slot.
    pub fn moved(&self, key: Option<&[u8]>, to: &str, told_by: &Server) -> RedisResult<Arc<Server>> {
        let server = self.server_at(to, told_by)?;
        if let Some(key) = key {
            let _one_at_a_time = self.changing.lock().expect("nobody panics while holding this lock");
            let map = self.map.load();
            let mut slots = map.slots.clone();
            if let Some(place) = map.servers.iter().position(|known| Arc::ptr_eq(known, &server)) {
                slots[slot_of(key)] = place as u16;
                self.map.store(Arc::new(Map { servers: map.servers.clone(), slots }));
            }
        }
        self.stale.notify_one();
        Ok(server)
    }

    /// The server at `host:port`, which may be new to us. Without a host it is on the host that told of it.
    pub fn server_at(&self, to: &str, told_by: &Server) -> RedisResult<Arc<Server>> {
        let (host, port) = to.rsplit_once(':').ok_or_else(nobody)?;
        let host = if host.is_empty() { told_by.name.rsplit_once(':').map_or("", |(host, _)| host) } else { host };
        let port = port.parse().map_err(|_| nobody())?;
        let _one_at_a_time = self.changing.lock().expect("nobody panics while holding this lock");
        let map = self.map.load();
        let server = self.keep(&map.servers, &(host.to_owned(), port)).map_err(|_| nobody())?;
        if !map.servers.iter().any(|known| Arc::ptr_eq(known, &server)) {
            if map.servers.len() >= SERVERS_MAX {
                return Err(nobody());
            }
            let mut servers = map.servers.clone();
            servers.push(server.clone());
            self.map.store(Arc::new(Map { servers, slots: map.slots.clone() }));
            self.stale.notify_one();
        }
        Ok(server)
    }

    /// Looks at an answer: one that did not come may mean that another server is to be asked from now on.
    pub fn heard<T>(&self, reply: &RedisResult<T>) {
        if reply.is_err() {
            self.stale.notify_one();
        }
    }

    /// The known server at an address, or a new one.
    fn keep(&self, known: &[Arc<Server>], at: &HostPort) -> Result<Arc<Server>, Error> {
        let name = format!("{}:{}", at.0, at.1);
        match known.iter().find(|server| server.name == name) {
            Some(server) => Ok(server.clone()),
            None => Server::new(name, self.place.client_of(at)?, &self.manner),
        }
    }

    /// Asks who is who now. What cannot be found out stays as it is.
    pub async fn refresh(&self) -> Result<(), Error> {
        match &self.place.at {
            Where::One(_) => Ok(()),
            Where::Sentinel { sentinels, primary, sentinel_account } => {
                let ask = async |sentinel: &HostPort| {
                    let client = self.place.sentinel_client(sentinel, sentinel_account)?;
                    let mut connection = self.asking(sentinel, client)?;
                    let found: Option<(String, u16)> = redis::cmd("SENTINEL")
                        .arg("GET-MASTER-ADDR-BY-NAME")
                        .arg(primary)
                        .query_async(&mut connection)
                        .await?;
                    found.ok_or_else(|| Error::NoAnswer(format!("Sentinel knows no primary `{primary}`")))
                };
                let mut last = Error::NoAnswer("no Sentinel answers".into());
                for sentinel in sentinels {
                    match ask(sentinel).await {
                        Ok(found) => return self.follow(&found).await,
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
            Where::Cluster { seeds } => self.refresh_cluster(seeds).await,
        }
    }

    /// Another server is the primary now: it is verified before anything is sent there.
    async fn follow(&self, found: &HostPort) -> Result<(), Error> {
        let known = self.servers();
        let server = self.keep(&known, found)?;
        if known.first().is_some_and(|first| Arc::ptr_eq(first, &server)) {
            return Ok(());
        }
        if !known.is_empty() {
            server.verify().await?;
            tracing::warn!(primary = server.name, "Sentinel names another primary; from now on it is used");
        }
        let _one_at_a_time = self.changing.lock().expect("nobody panics while holding this lock");
        self.map.store(Arc::new(Map { servers: vec![server], slots: Vec::new() }));
        Ok(())
    }

    async fn refresh_cluster(&self, seeds: &[HostPort]) -> Result<(), Error> {
        let mut servers = self.servers();
        servers.sort_by_key(|server| !server.usable());
        let mut last = Error::NoAnswer("no server of the Cluster answers".into());
        for server in servers {
            match self.read_slots(server.aside.connection(), &server.name).await {
                Ok(()) => return Ok(()),
                Err(error) => last = error,
            }
        }
        for seed in seeds {
            let connection = self.asking(seed, self.place.client_of(seed)?)?;
            match self.read_slots(connection, &format!("{}:{}", seed.0, seed.1)).await {
                Ok(()) => return Ok(()),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// `CLUSTER SLOTS`: ranges of slots, each with its primary first.
    async fn read_slots(&self, mut connection: Connection, asked: &str) -> Result<(), Error> {
        let reply: Value = redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut connection).await?;
        let ranges = read_ranges(reply)
            .ok_or_else(|| Error::Unexpected { what: "CLUSTER SLOTS", reply: "something else".into() })?;
        if ranges.is_empty() {
            return Err(Error::NoAnswer(format!("{asked} is in no Cluster that has slots")));
        }
        let _one_at_a_time = self.changing.lock().expect("nobody panics while holding this lock");
        let known = self.servers();
        let (mut servers, mut slots) = (Vec::<Arc<Server>>::new(), vec![NOBODY; SLOTS]);
        for (first, last, primary) in ranges {
            let (Some(host), Some(port)) = (primary.first(), primary.get(1)) else { continue };
            let host: Option<String> = redis::from_redis_value_ref(host).unwrap_or_default();
            let Ok(port) = redis::from_redis_value_ref::<u16>(port) else { continue };
            let same_host = || asked.rsplit_once(':').map_or("", |(host, _)| host).to_owned();
            let host = host.filter(|host| !host.is_empty() && host != "?").unwrap_or_else(same_host);
            let name = format!("{host}:{port}");
            let place = match servers.iter().position(|other| other.name == name) {
                Some(place) => place,
                None => {
                    servers.push(self.keep(&known, &(host, port))?);
                    servers.len() - 1
                }
            };
            if let Some(range) = slots.get_mut(first..=last) {
                range.fill(place as u16);
            }
        }
        self.map.store(Arc::new(Map { servers, slots }));
        Ok(())
    }

    fn asking(&self, server: &HostPort, client: redis::Client) -> Result<Connection, Error> {
        let mut asked = self.asked.lock().expect("nobody panics while holding this lock");
        if let Some(connection) = asked.get(server) {
            return Ok(connection.clone());
        }
        let connection = Connection::lazy(client, manager_config(self.manner.timeout), self.manner.timeout)?;
        asked.insert(server.clone(), connection.clone()); // as many as the URL names
        Ok(connection)
    }

    pub async fn verify(&self) -> Result<(), Error> {
        for result in join_all(self.servers().iter().map(|server| server.verify())).await {
            result?;
        }
        Ok(())
    }

    /// What all of them promise: as much as the weakest.
    pub fn promise(&self) -> Arc<Promise> {
        let servers = self.servers();
        match servers.as_slice() {
            [server] => server.promise(),
            servers => Arc::new(
                servers
                    .iter()
                    .map(|server| Promise::clone(&server.promise()))
                    .reduce(|one, other| one.weaker(other))
                    .unwrap_or_default(),
            ),
        }
    }
}

fn nobody() -> redis::RedisError {
    redis::make_extension_error("CLUSTERDOWN".into(), Some("no server is known to have this key".into()))
}

/// First slot, last slot, and the primary: host, port and more.
type Range = (usize, usize, Vec<Value>);

fn read_ranges(reply: Value) -> Option<Vec<Range>> {
    let Value::Array(ranges) = reply else { return None };
    ranges
        .into_iter()
        .map(|range| {
            let Value::Array(parts) = range else { return None };
            let number = |at: usize| parts.get(at).and_then(|part| redis::from_redis_value_ref::<usize>(part).ok());
            let Some(Value::Array(primary)) = parts.get(2) else { return None };
            Some((number(0)?, number(1)?, primary.clone()))
        })
        .collect()
}

/// The slot of a key: CRC16 (XMODEM) of its hash tag, or of the whole key without one.
fn slot_of(key: &[u8]) -> usize {
    let tag = key
        .iter()
        .position(|byte| *byte == b'{')
        .and_then(|open| {
            let rest = &key[open + 1..];
            rest.iter().position(|byte| *byte == b'}').filter(|length| *length > 0).map(|length| &rest[..length])
        })
        .unwrap_or(key);
    let crc = tag.iter().fold(0u16, |crc, byte| {
        (0..8)
            .fold(crc ^ (u16::from(*byte) << 8), |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 })
    });
    usize::from(crc) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_what_redis_says_it_is() {
        // As CLUSTER KEYSLOT answers them.
        assert_eq!(slot_of(b"123456789"), 0x31c3 % SLOTS);
        assert_eq!(slot_of(b"foo"), 12_182);
        assert_eq!(slot_of(b"rl:{foo}:stock"), 12_182);
        assert_eq!(slot_of(b"{}foo"), slot_of(b"{}foo"));
        assert_ne!(slot_of(b"{}foo"), slot_of(b""));
    }
}
