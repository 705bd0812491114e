//! A primary with two replicas behind one address, and who is promoted when it dies.

use super::*;
use crate::support::crowd::Crowd;
use crate::support::switch::Switch;

/// `redis.timeout_ms`: also how long a replica is waited for.
const PATIENCE_MS: u64 = 500;

/// Three servers, one of them the primary, and an address that leads there.
struct Three {
    servers: Vec<Redis>,
    primary: usize,
    switch: Switch,
}

impl Three {
    async fn start() -> Self {
        let arguments = ["--appendonly", "no", "--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"];
        let mut servers = Vec::new();
        for version in [RedisVersion::V7, RedisVersion::V7, RedisVersion::V7] {
            servers.push(Redis::start(version, &arguments).await);
        }
        let switch = Switch::to(servers[0].port()).await;
        let three = Self { servers, primary: 0, switch };
        three.attach_others().await;
        three
    }

    /// Those that are no primary, the first of which is the one that lags in `turn`.
    fn others(&self, turn: usize) -> [usize; 2] {
        let (one, other) = ((self.primary + 1) % 3, (self.primary + 2) % 3);
        if turn.is_multiple_of(2) { [one, other] } else { [other, one] }
    }

    async fn attach(&self, replica: usize) {
        let port = self.servers[self.primary].port().to_string();
        ask_redis::<()>(&self.servers[replica], &["REPLICAOF", "127.0.0.1", &port]).await;
    }

    async fn attach_others(&self) {
        for other in self.others(0) {
            self.attach(other).await;
        }
        let attached = || async {
            let info: String = ask_redis(&self.servers[self.primary], &["INFO", "replication"]).await;
            info.matches("state=online").count() == 2
        };
        eventually("both replicas are attached", SOON, attached).await;
    }

    /// This one stays a replica and hears nothing more. A process that is only stopped would find in its socket, when it
    /// goes on, what was sent to it meanwhile.
    async fn cut_off(&self, replica: usize) {
        ask_redis::<()>(&self.servers[replica], &["REPLICAOF", "127.0.0.1", "1"]).await;
    }

    /// This one is the primary now, whatever it has.
    async fn promote(&mut self, replica: usize) {
        ask_redis::<()>(&self.servers[replica], &["REPLICAOF", "NO", "ONE"]).await;
        self.primary = replica;
        self.switch.turn_to(self.servers[replica].port());
    }
}

async fn start_behind(three: &Three, shop: &Shop, durability: &str) -> App {
    crowd::trying_shop(shop);
    let options = AppOptions::default().quick().redis(&three.switch.redis_url());
    let app = App::start(options.setting("redis.timeout_ms", PATIENCE_MS)).await;
    let mut sale = sale(shop);
    sale["durability"] = durability.into();
    app.create_sale(&sale).await;
    app
}

/// `replica:1`, and the replica that is promoted is one that acknowledged: nothing that a buyer heard of is lost, however
/// far the other one lags.
#[tokio::test(flavor = "multi_thread")]
async fn a_failover_to_a_replica_that_acknowledged_loses_nothing() {
    failovers(6).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes long: a figure for docs/reliability.md"]
async fn two_hundred_failovers_lose_nothing() {
    let rounds = std::env::var("RUSHLINE_TEST_RUNS").ok().and_then(|text| text.parse().ok());
    failovers(rounds.unwrap_or(200)).await;
}

async fn failovers(rounds: usize) {
    let mut three = Three::start().await;
    let shop = Shop::start().await;
    let app = start_behind(&three, &shop, "replica:1").await;
    let buyers = Crowd::start(&[app.http()], 6);
    for round in 0..rounds {
        let dead = three.primary;
        let [laggard, promoted] = three.others(round);
        buyers.wait_for_more(5, SOON).await;
        three.cut_off(laggard).await;
        buyers.wait_for_more(10, SOON).await;
        // From here on nobody confirms anything: what is only in the primary dies with it, and nobody may have heard of it.
        three.cut_off(promoted).await;
        let before = buyers.heard().count("not_durable");
        let put_off = || async { buyers.heard().count("not_durable") > before };
        eventually("buyers are told that it is not sure yet", SOON, put_off).await;
        three.servers[dead].kill9();
        three.promote(promoted).await;
        three.servers[dead].restart().await;
        three.attach_others().await;
        assert!(!is_fenced(&app).await, "round {round}");
    }
    buyers.wait_for_more(5, SOON).await;
    let heard = buyers.stop().await;
    println!("{rounds} failovers, {} orders acknowledged", heard.gids.len());
    assert_eq!(app.metric("rushline_fences_total").await, 0.0);
    assert_exact(&app, &shop, &heard).await;
}

/// Failure F13: the one that lags is promoted. It is found out, the lost orders are named, and the repair brings them back.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lags_is_found_out_when_it_is_promoted() {
    let mut three = Three::start().await;
    let shop = Shop::start().await;
    let app = start_behind(&three, &shop, "replica:1").await;
    let mut heard = Heard::default();
    buy(&app, &mut heard, [0, 1, 2]).await;
    app.wait_until_settled(SALE).await;
    let [laggard, _] = three.others(0);
    let synced = || all_have_it(&three.servers[three.primary]);
    eventually("the laggard has all of this", SOON, synced).await;
    three.cut_off(laggard).await;
    let gone = buy(&app, &mut heard, [10, 12, 14]).await;
    let dead = three.primary;
    three.servers[dead].kill9();
    three.promote(laggard).await;
    until_fenced(&app).await;
    let reply = app.order(SALE, "k-20", &order_of("k-20")).await;
    assert_eq!((reply.status, reply.code()), (423, "fenced"), "{}", reply.json);
    assert_eq!(lost(&app).await, sorted(gone));
    three.servers[dead].restart().await;
    three.attach_others().await;
    repaired(&app).await;
    assert_exact(&app, &shop, &heard).await;
}

/// WAIT waits for what its own connection wrote last, so something must be written there; all before it is there then too.
async fn all_have_it(primary: &Redis) -> bool {
    let client = redis::Client::open(primary.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd("SET").arg("so-far").arg(1).query_async::<()>(&mut connection).await.unwrap();
    let replicas: u64 = redis::cmd("WAIT").arg(2).arg(100).query_async(&mut connection).await.unwrap();
    replicas == 2
}

/// Failure F14: the old primary lives on beside the new one, and the node is led back to it. It is not asked for units that
/// the new one has sold; led to the new one again the node goes on.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_primary_cannot_sell() {
    let mut three = Three::start().await;
    let shop = Shop::start().await;
    let app = start_behind(&three, &shop, "memory").await;
    let mut heard = Heard::default();
    buy(&app, &mut heard, [0, 2]).await;
    app.wait_until_settled(SALE).await;
    let old = three.primary;
    let [new, _] = three.others(0);
    let synced = || all_have_it(&three.servers[old]);
    eventually("the new one has all of this", SOON, synced).await;
    three.promote(new).await;
    let sold = || async { app.order(SALE, "k-10", &order_of("k-10")).await.status == 201 };
    eventually("the new primary sells", SOON, sold).await;
    buy(&app, &mut heard, [10, 11, 12]).await;
    app.wait_until_settled(SALE).await;

    three.switch.turn_to(three.servers[old].port());
    until_fenced(&app).await;
    let intake: u64 = ask_redis(&three.servers[old], &["HGET", &format!("rl:{{{SALE}/0}}:stock"), ":seq"]).await;
    for number in 0..20 {
        let key = format!("k-{}", 50 + number);
        let reply = app.order(SALE, &key, &order_of(&key)).await;
        assert_eq!((reply.status, reply.code()), (423, "fenced"), "{}", reply.json);
    }
    let after: u64 = ask_redis(&three.servers[old], &["HGET", &format!("rl:{{{SALE}/0}}:stock"), ":seq"]).await;
    assert_eq!(intake, after, "the old primary sold");

    three.switch.turn_to(three.servers[new].port());
    let sold = || async { app.order(SALE, "k-20", &order_of("k-20")).await.status == 201 };
    eventually("the new primary sells again", SOON, sold).await;
    buy(&app, &mut heard, [20]).await;
    assert_exact(&app, &shop, &heard).await;
}
