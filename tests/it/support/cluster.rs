//! Several Redis together: [`Cluster`], three primaries with a replica each, and [`Watched`], a primary and replicas that
//! three Sentinels watch. All on ports of this machine, with time-outs short enough for a story.

use super::app::eventually;
use super::crowd::ask_redis_at;
use super::process::{Process, free_port};
use super::servers::{Redis, RedisVersion, program};
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a server may be silent before the others take it for dead.
const SILENT_MS: u64 = 1_000;
const SOON: Duration = Duration::from_secs(60);
const PRIMARIES: usize = 3;

pub struct Cluster {
    /// The first three began as primaries.
    pub servers: Vec<Redis>,
    ids: Vec<String>,
}

impl Cluster {
    pub async fn start(extra_args: &[&str]) -> Self {
        let silent = SILENT_MS.to_string();
        let starting = (0..2 * PRIMARIES).map(async |_| {
            let bus = free_port().to_string();
            let mut arguments =
                vec!["--cluster-enabled", "yes", "--cluster-node-timeout", &silent, "--cluster-port", &bus];
            // What a server does not have is missing for its own sales only; the others go on.
            arguments.extend(["--cluster-require-full-coverage", "no", "--repl-diskless-sync-delay", "0"]);
            arguments.extend(extra_args);
            (Redis::start(RedisVersion::V7, &arguments).await, bus)
        });
        let (servers, buses): (Vec<_>, Vec<_>) = join_all(starting).await.into_iter().unzip();
        let mut cluster = Self { servers, ids: Vec::new() };
        for place in 0..cluster.servers.len() {
            cluster.ids.push(cluster.ask(place, &["CLUSTER", "MYID"]).await);
            let _: String = cluster.ask(place, &["CLUSTER", "SET-CONFIG-EPOCH", &(place + 1).to_string()]).await;
        }
        for place in 0..PRIMARIES {
            let (first, last) = (16_384 * place / PRIMARIES, 16_384 * (place + 1) / PRIMARIES - 1);
            let range = [first.to_string(), last.to_string()];
            let _: String = cluster.ask(place, &["CLUSTER", "ADDSLOTSRANGE", &range[0], &range[1]]).await;
        }
        for (server, bus) in cluster.servers.iter().zip(&buses).skip(1) {
            let port = server.port().to_string();
            let _: String = cluster.ask(0, &["CLUSTER", "MEET", "127.0.0.1", &port, bus]).await;
        }
        let all = format!("cluster_known_nodes:{}", 2 * PRIMARIES);
        cluster.until_all_say("they have met", &all).await;
        for place in PRIMARIES..2 * PRIMARIES {
            let _: String = cluster.ask(place, &["CLUSTER", "REPLICATE", &cluster.ids[place - PRIMARIES]]).await;
        }
        cluster.until_all_say("they are a Cluster", "cluster_state:ok").await;
        for place in PRIMARIES..2 * PRIMARIES {
            cluster.until_follows(place).await;
        }
        cluster
    }

    async fn until_all_say(&self, what: &str, word: &str) {
        let said = || async {
            let infos = join_all((0..self.servers.len()).map(|place| self.info(place))).await;
            infos.iter().all(|info| info.contains(word))
        };
        eventually(what, SOON, said).await;
    }

    async fn info(&self, place: usize) -> String {
        self.ask(place, &["CLUSTER", "INFO"]).await
    }

    /// Waits until this server is a replica that has caught up.
    pub async fn until_follows(&self, place: usize) {
        let follows = || async {
            let info: String = self.ask(place, &["INFO", "replication"]).await;
            info.contains("role:slave") && info.contains("master_link_status:up")
        };
        eventually("a replica follows", SOON, follows).await;
    }

    pub fn url(&self) -> String {
        let hosts: Vec<String> = self.servers.iter().map(|server| format!("127.0.0.1:{}", server.port())).collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    pub async fn ask<T: redis::FromRedisValue>(&self, place: usize, command: &[&str]) -> T {
        ask_redis_at(&self.servers[place].url(), command).await
    }

    /// Which server has this slot now, as the server at `asked` sees it.
    pub async fn owner(&self, asked: usize, slot: u16) -> usize {
        let ranges: Vec<(u16, u16, Vec<redis::Value>)> = self
            .ask::<Vec<Vec<redis::Value>>>(asked, &["CLUSTER", "SLOTS"])
            .await
            .into_iter()
            .map(|range| {
                let number = |at: usize| redis::from_redis_value_ref::<u16>(&range[at]).unwrap();
                let redis::Value::Array(primary) = &range[2] else { panic!("{range:?}") };
                (number(0), number(1), primary.clone())
            })
            .collect();
        let (_, _, primary) = ranges.iter().find(|(first, last, _)| (*first..=*last).contains(&slot)).unwrap();
        let port: u16 = redis::from_redis_value_ref(&primary[1]).unwrap();
        self.servers.iter().position(|server| server.port() == port).unwrap()
    }

    pub async fn slot_of(&self, key: &str) -> u16 {
        self.ask(0, &["CLUSTER", "KEYSLOT", key]).await
    }

    /// Moves a slot with all its keys, one key after the other as `redis-cli --cluster reshard` does.
    pub async fn move_slot(&self, slot: u16, from: usize, to: usize) {
        let slot = slot.to_string();
        let _: String = self.ask(to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &self.ids[from]]).await;
        let _: String = self.ask(from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &self.ids[to]]).await;
        let port = self.servers[to].port().to_string();
        loop {
            let keys: Vec<String> = self.ask(from, &["CLUSTER", "GETKEYSINSLOT", &slot, "1"]).await;
            let Some(key) = keys.first() else { break };
            let _: String = self.ask(from, &["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]).await;
        }
        for place in [to, from] {
            let _: String = self.ask(place, &["CLUSTER", "SETSLOT", &slot, "NODE", &self.ids[to]]).await;
        }
    }
}

/// A primary, two replicas, and three Sentinels that agree by two.
pub struct Watched {
    pub servers: Vec<Redis>,
    sentinels: BTreeMap<u16, Process>,
}

impl Watched {
    pub async fn start() -> Self {
        let first = Redis::start(RedisVersion::V7, &["--repl-diskless-sync-delay", "0"]).await;
        let port = first.port().to_string();
        let mut servers = vec![first];
        for _ in 0..2 {
            let follow = ["--repl-diskless-sync-delay", "0", "--replicaof", "127.0.0.1", &port];
            servers.push(Redis::start(RedisVersion::V7, &follow).await);
        }
        let replicas = || async {
            let info: String = ask_redis_at(&servers[0].url(), &["INFO", "replication"]).await;
            info.matches("state=online").count() == 2
        };
        eventually("both replicas follow", SOON, replicas).await;
        let mut watched = Self { servers, sentinels: BTreeMap::new() };
        for _ in 0..3 {
            let mut sentinel = Process::new("sentinel", program("redis-server", &[]), None);
            let own = free_port();
            let file = sentinel.directory().join("sentinel.conf");
            let lines = format!(
                "port {own}\nbind 127.0.0.1\nsentinel monitor shop 127.0.0.1 {port} 2\n\
                 sentinel down-after-milliseconds shop {SILENT_MS}\nsentinel failover-timeout shop 10000\n"
            );
            std::fs::write(&file, lines).unwrap();
            sentinel.arguments([file.as_os_str().to_owned(), "--sentinel".into()]);
            let url = format!("redis://127.0.0.1:{own}/");
            let client = redis::Client::open(url).unwrap();
            let ready = || async {
                let mut connection = client.get_multiplexed_async_connection().await?;
                redis::cmd("PING").query_async::<()>(&mut connection).await
            };
            sentinel.start(ready).await;
            watched.sentinels.insert(own, sentinel);
        }
        for own in watched.sentinels.keys() {
            let url = format!("redis://127.0.0.1:{own}/");
            let met = || async {
                let primary: BTreeMap<String, String> = ask_redis_at(&url, &["SENTINEL", "MASTER", "shop"]).await;
                primary["num-other-sentinels"] == "2" && primary["num-slaves"] == "2"
            };
            eventually("the Sentinels know each other and the replicas", SOON, met).await;
        }
        watched
    }

    pub fn url(&self) -> String {
        let hosts: Vec<String> = self.sentinels.keys().map(|port| format!("127.0.0.1:{port}")).collect();
        format!("redis+sentinel://{}/shop", hosts.join(","))
    }

    /// Which server the first Sentinel names.
    pub async fn primary(&self) -> usize {
        let url = format!("redis://127.0.0.1:{}/", self.sentinels.keys().next().unwrap());
        let (_, port): (String, u16) = ask_redis_at(&url, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "shop"]).await;
        self.servers.iter().position(|server| server.port() == port).unwrap()
    }
}
