//! Branches that are found in etcd, while their instances come, go, and are restarted one by one.

use super::instance::{Calls, Instance};
use super::{entries, redis};
use crate::support::app::{App, AppOptions, Http, eventually};
use crate::support::etcd::Etcd;
use crate::support::servers::{PASSWORD, Redis};
use http::Method;
use rushline::registry::etcd::Client;
use rushline::registry::target::Account;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const WITHIN: Duration = Duration::from_secs(60);
/// Clients that submit one transaction after the other.
const CLIENTS: usize = 4;

fn saga(gid: &str, target: &str) -> Value {
    let step = |name: &str| json!({ "action": format!("{target}/shop.Trans/{name}"), "compensate": format!("{target}/shop.Trans/{name}Undo") });
    json!({
        "gid": gid, "trans_type": "saga", "protocol": "grpc", "wait_result": true, "concurrent": false,
        "steps": [step("Out"), step("In")], "payloads": ["", ""],
    })
}

async fn submit(http: &Http, body: &Value) -> (u16, Value) {
    let reply = http.ask(Method::POST, "/api/dtmsvr/submit", &[], Some(body)).await.unwrap();
    (reply.status, reply.json)
}

async fn status(http: &Http, gid: &str) -> String {
    let reply = http.ask(Method::GET, &format!("/api/dtmsvr/query?gid={gid}"), &[], None).await.unwrap();
    reply.json["transaction"]["status"].as_str().unwrap_or_default().to_owned()
}

/// A server, an etcd, and transactions that go on until [`Load::end`].
struct Load {
    app: App,
    etcd: Etcd,
    client: Arc<Client>,
    stop: Arc<AtomicBool>,
    submitted: Arc<AtomicUsize>,
    clients: JoinSet<Vec<(String, bool)>>,
    _redis: Redis,
}

const NAME: &str = "trans.rpc";

impl Load {
    async fn new() -> Self {
        let (etcd, redis) = (Etcd::start().await, redis().await);
        let app = App::start(AppOptions::default().quick_trans().redis(&redis.url())).await;
        let client = etcd.client();
        Self {
            app,
            client,
            etcd,
            stop: Arc::default(),
            submitted: Arc::default(),
            clients: JoinSet::new(),
            _redis: redis,
        }
    }

    async fn instance(&self) -> Instance {
        Instance::start(&self.client, NAME).await
    }

    fn begin(&mut self) {
        let target = format!("etcd://{}/{NAME}", self.etcd.address());
        for client in 0..CLIENTS {
            let (http, target) = (self.app.http(), target.clone());
            let (stop, submitted) = (self.stop.clone(), self.submitted.clone());
            self.clients.spawn(async move {
                let mut done = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let gid = format!("g-{client}-{}", done.len());
                    let (status, _) = submit(&http, &saga(&gid, &target)).await;
                    submitted.fetch_add(1, Ordering::Relaxed);
                    done.push((gid, status == 200));
                }
                done
            });
        }
    }

    /// Waits until so many more transactions were submitted.
    async fn more(&self, count: usize) {
        let wanted = self.submitted.load(Ordering::Relaxed) + count;
        eventually("more transactions", WITHIN, async || self.submitted.load(Ordering::Relaxed) >= wanted).await;
    }

    /// Stops and looks at each: all must have succeeded. Returns how many there were, and how many not at once.
    async fn end(mut self) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        let (mut count, mut later) = (0, 0);
        while let Some(done) = self.clients.join_next().await {
            for (gid, at_once) in done.unwrap() {
                count += 1;
                later += usize::from(!at_once);
                let what = format!("{gid} succeeds");
                eventually(&what, WITHIN, async || status(&self.app.http(), &gid).await == "succeed").await;
            }
        }
        (count, later)
    }
}

fn ms_after(since: Instant, at: Instant) -> u128 {
    at.saturating_duration_since(since).as_millis()
}

fn last_call(calls: &Calls) -> Instant {
    calls.lock().unwrap().last().unwrap().0
}

/// Every form of address reaches the same instances.
#[tokio::test]
async fn all_addresses_of_go_zero_reach_the_instances() {
    let (etcd, redis) = (Etcd::start().await, redis().await);
    let app = App::start(AppOptions::default().quick_trans().redis(&redis.url())).await;
    let client = etcd.client();
    let (first, second) = (Instance::start(&client, "shop/trans").await, Instance::start(&client, "shop/trans").await);
    let host = etcd.address();
    let targets = [
        format!("etcd://{host}/shop/trans"),
        format!("discov://{host}/shop/trans"),
        format!("etcd:///{host}?key=shop%2Ftrans"),
        format!("etcd://127.0.0.1:1,{host}/shop/trans"),
        format!("direct:///{},{}", first.address, second.address),
    ];
    for (at, target) in targets.iter().enumerate() {
        let reply = submit(&app.http(), &saga(&format!("g{at}"), target)).await;
        assert_eq!(reply, (200, json!({ "dtm_result": "SUCCESS" })), "{target}");
        // Of two calls in a row each instance had one.
        assert_eq!((first.count(), second.count()), (at + 1, at + 1), "{target}");
    }
    // An address that nobody listens at costs a moment, not a retry: the next one is called.
    let with_a_dead_one = format!("direct:///127.0.0.1:1,{},127.0.0.1:2", first.address);
    let before = first.count();
    let reply = submit(&app.http(), &saga("dead", &with_a_dead_one)).await;
    assert_eq!((reply, first.count()), ((200, json!({ "dtm_result": "SUCCESS" })), before + 2));
    for (target, code, words) in [
        (format!("etcd://{host}"), 400, "names no service"),
        ("consul://127.0.0.1:8500/shop".into(), 501, "Consul"),
        ("k8s://shop/trans:8080".into(), 501, "Kubernetes"),
    ] {
        let (status, json) = submit(&app.http(), &saga("never", &target)).await;
        assert!(status == code && json.to_string().contains(words), "{target}: {status} {json}");
    }
}

#[tokio::test]
async fn a_new_instance_is_called_and_a_gone_one_is_not() {
    let mut load = Load::new().await;
    // The transactions come before the service: they wait for it.
    load.begin();
    let first = load.instance().await;
    load.more(50).await;

    let mut unregistered = Instance::start_unregistered().await;
    let registering = Instant::now();
    unregistered.register(&load.client, NAME).await;
    let second = unregistered;
    eventually("calls of the new instance", WITHIN, async || second.count() > 0).await;
    let first_call = second.calls.lock().unwrap()[0].0;
    println!("a new instance was called {} ms after it began to register", ms_after(registering, first_call));
    load.more(50).await;

    // Its key goes, and it would still answer: nobody asks it.
    let mut second = second;
    let unregistering = Instant::now();
    second.unregister().await;
    load.more(CLIENTS * 2).await;
    let heard = second.count();
    load.more(50).await;
    assert_eq!(second.count(), heard, "called long after its key had gone");
    println!("an instance without a key was called for {} ms more", ms_after(unregistering, last_call(&second.calls)));

    // The etcd is away: the instances that were known are called on.
    load.etcd.kill9();
    let before = first.count();
    load.more(50).await;
    assert!(first.count() > before);
    load.etcd.restart().await;
    // What registers now is found again.
    let third = load.instance().await;
    eventually("calls after etcd came back", WITHIN, async || third.count() > 0).await;
    let (count, later) = load.end().await;
    println!("{count} transactions, 0 failed, {later} not at once");
}

#[tokio::test]
async fn a_rolling_restart_fails_no_transaction() {
    let mut load = Load::new().await;
    let mut instances = vec![load.instance().await, load.instance().await, load.instance().await];
    load.begin();
    load.more(50).await;
    for round in 0..6 {
        // The new one first, then the old one goes; every other time it crashes instead: its key stays for a lease.
        instances.push(load.instance().await);
        let old = instances.remove(0);
        if round % 2 == 0 {
            old.stop().await;
        } else {
            old.crash();
        }
        load.more(50).await;
    }
    // The last one that crashed is tried again and again until its lease ends, and each time passed over.
    let left = async || entries(&load.client, NAME).await.map_or(usize::MAX, |entries| entries.len());
    eventually("only those that live are left", WITHIN, async || left().await == instances.len()).await;
    for instance in &instances {
        assert!(instance.count() > 0);
    }
    let (count, later) = load.end().await;
    println!("{count} transactions over 6 restarts, 0 failed, {later} not at once");
}

/// The account of the configured etcd also counts for what is looked up there.
#[tokio::test]
async fn branches_are_found_in_an_etcd_that_wants_an_account() {
    let (etcd, redis) = (Etcd::start().await, redis().await);
    etcd.want_account().await;
    let account = Account { user: "root".into(), password: PASSWORD.into() };
    let client = Arc::new(Client::new(vec![etcd.address()], Some(account), None));
    let instance = Instance::start(&client, NAME).await;
    let options = AppOptions::default().quick_trans().redis(&redis.url());
    let with_account = format!("etcd://{}/?user=root&password={PASSWORD}", etcd.address());
    let app = App::start(options.clone().setting("registry.target", with_account)).await;
    let target = format!("etcd://{}/{NAME}", etcd.address());
    let reply = submit(&app.http(), &saga("g1", &target)).await;
    assert_eq!(reply, (200, json!({ "dtm_result": "SUCCESS" })));
    assert_eq!(instance.count(), 2);

    // Without one it is no failure either: the transaction waits for somebody to set it right.
    let stranger = App::start(options).await;
    submit(&stranger.http(), &saga("g2", &target)).await;
    eventually("a reason in the log", WITHIN, async || stranger.log().contains("user name is empty")).await;
    assert_eq!(instance.count(), 2);
}

/// Of three members any one may die: the entry moves to another member, under its old key, and so do the watches.
#[tokio::test]
async fn a_member_of_the_etcd_may_die() {
    let (mut members, redis) = (Etcd::start_three().await, redis().await);
    let hosts: Vec<String> = members.iter().map(Etcd::address).collect();
    let options = AppOptions::default().quick_trans().redis(&redis.url());
    let options = options.setting("registry.target", format!("etcd://{}/dtmservice", hosts.join(",")));
    let app = App::start(options.setting("registry.endpoint", "h:1")).await;
    let client = Arc::new(Client::new(hosts.clone(), None, None));
    let target = format!("etcd://{}/{NAME}", hosts.join(","));
    let first = Instance::start(&client, NAME).await;
    assert_eq!(submit(&app.http(), &saga("g1", &target)).await.0, 200);

    // As the log tells it: the key, and the member that it was written at.
    let registrations = || -> Vec<(String, String)> {
        let log = app.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let registered = lines.filter(|line| line["fields"]["message"] == "registered");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        registered.map(|line| (text(&line["fields"]["key"]), text(&line["fields"]["etcd"]))).collect()
    };
    eventually("a registration", WITHIN, async || registrations().len() == 1).await;
    let (key, member) = registrations().remove(0);
    let dying = hosts.iter().position(|host| *host == member).unwrap();
    members[dying].kill9();
    eventually("a registration elsewhere", WITHIN, async || registrations().len() > 1).await;
    let (key_now, member_now) = registrations().pop().unwrap();
    assert!(key_now == key && member_now != member, "{key} at {member}, then {key_now} at {member_now}");
    // Whoever comes now is found through the members that are left.
    let second = Instance::start(&client, NAME).await;
    let gids = AtomicUsize::default();
    eventually("calls of the second instance", WITHIN, async || {
        let gid = format!("h{}", gids.fetch_add(1, Ordering::Relaxed));
        assert_eq!(submit(&app.http(), &saga(&gid, &target)).await.0, 200);
        second.count() > 0
    })
    .await;
    assert!(first.count() > 0);
}
