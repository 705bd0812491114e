//! F12: the append-only file of Redis ends in the middle of a script, wherever that is. Redis loads what is whole, and the
//! first thing that rushline does to a Redis that was started is to have the file rewritten: so what is acknowledged
//! afterwards is there after the next start too.

use crate::support::hazard::is_long_run;
use crate::support::servers::{Redis, RedisVersion};
use futures_util::StreamExt;
use rushline::domain::ids::{Buyer, IdempotencyKey, SaleName, Sku};
use rushline::domain::order::{Item, Order};
use rushline::domain::sale::{Durability, Endpoint, NewSale, SaleStatus, Settings, Window};
use rushline::domain::terms::Terms;
use rushline::store::keys::Keys;
use rushline::store::orders::{Decision, Prepared};
use rushline::store::promise::Wait;
use rushline::store::redis as store;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const UNITS: u64 = 100;
/// Orders before the cut, each a script of its own.
const ORDERS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(10);
/// Redis at the same time: more than there are processors, since most of it is waiting.
const AT_ONCE: usize = 6;
/// In `make test` not every place is tried. Prime, so that no part of a command is always left out.
const STRIDE: usize = 61;

async fn connect(server: &Redis) -> Arc<store::Redis> {
    let settings = store::Settings {
        url: server.url(),
        prefix: "t:".into(),
        connections: 1,
        timeout: PATIENCE,
        rewrite_after_load: true,
        tls: Default::default(),
    };
    store::Redis::connect(settings).await.unwrap()
}

fn order(name: &str) -> Prepared {
    Prepared::new(Order {
        key: Some(IdempotencyKey::parse(name).unwrap()),
        buyer: Buyer::parse(name).unwrap(),
        items: vec![Item { sku: Sku::parse("a").unwrap(), quantity: 1 }],
        payload: None,
        trace: None,
        limits_by: None,
    })
}

async fn admit(redis: &store::Redis, name: &str) -> Decision {
    let keys = Keys::new(redis.prefix(), &SaleName::parse("s").unwrap(), 0);
    let admitted = redis.admit(&mut redis.lane(), &keys, "n", &[order(name)], Wait::Nothing, PATIENCE).await;
    admitted.unwrap().decisions[0]
}

/// Units by field, after checking that none is lost or made.
async fn stock(server: &Redis) -> HashMap<String, u64> {
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let found: HashMap<String, String> =
        redis::cmd("HGETALL").arg("t:{s/0}:stock").query_async(&mut connection).await.unwrap();
    let units: HashMap<String, u64> = found.into_iter().filter_map(|(name, n)| Some((name, n.parse().ok()?))).collect();
    let count = |name: &str| units.get(&format!("a:{name}")).copied().unwrap_or_default();
    assert_eq!(count("loaded"), count("available") + count("reserved") + count("sold"), "{units:?}");
    units
}

/// All that the sale has in Redis, by key. Half a script that comes to life at the next load shows here, wherever it writes.
async fn contents(server: &Redis) -> BTreeMap<String, String> {
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
    let mut all = BTreeMap::new();
    for key in keys {
        let kind: String = redis::cmd("TYPE").arg(&key).query_async(&mut connection).await.unwrap();
        let found = match &*kind {
            "hash" => {
                let found: BTreeMap<Vec<u8>, Vec<u8>> =
                    redis::cmd("HGETALL").arg(&key).query_async(&mut connection).await.unwrap();
                format!("{found:?}")
            }
            "stream" => {
                let range = redis::cmd("XRANGE").arg(&key).arg("-").arg("+").to_owned();
                let entries: redis::Value = range.query_async(&mut connection).await.unwrap();
                let groups: redis::Value =
                    redis::cmd("XINFO").arg("GROUPS").arg(&key).query_async(&mut connection).await.unwrap();
                format!("{entries:?} {groups:?}")
            }
            _ => kind,
        };
        all.insert(key, found);
    }
    all
}

/// The files of a Redis that sold a little and was killed: the manifest and base as they are, and the part that grows.
struct Sold {
    files: Vec<(PathBuf, Vec<u8>)>,
    growing: PathBuf,
    bytes: Vec<u8>,
    /// Where the last two scripts begin.
    from: usize,
}

async fn sell(version: RedisVersion) -> Sold {
    let mut server = Redis::start(version, &[]).await;
    let redis = connect(&server).await;
    let settings = Settings {
        status: SaleStatus::Open,
        window: Window::default(),
        limit_per_buyer: None,
        endpoint: Endpoint::at("http://127.0.0.1:9/orders"),
        durability: Durability::Memory,
        webhook: None,
        terms: Terms::default(),
    };
    let items = vec![(Sku::parse("a").unwrap(), UNITS)];
    redis.create_sale(&NewSale { sale: SaleName::parse("s").unwrap(), items, settings }, "body").await.unwrap();
    for number in 0..ORDERS {
        assert!(matches!(admit(&redis, &format!("before-{number}")).await, Decision::Admitted(_)));
    }
    server.kill9();
    let directory = server.process().directory().join("appendonlydir");
    let mut files: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    let mut growing = None;
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        let (name, bytes) = (PathBuf::from(path.file_name().unwrap()), std::fs::read(&path).unwrap());
        match name.to_str().unwrap().ends_with(".incr.aof") {
            true if !bytes.is_empty() => growing = Some((name, bytes)),
            _ => files.push((name, bytes)),
        }
    }
    let (growing, bytes) = growing.expect("it appended");
    let multi = b"*1\r\n$5\r\nMULTI\r\n";
    let begins: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at..].starts_with(multi)).collect();
    let from = begins[begins.len() - 2];
    Sold { files, growing, bytes, from }
}

impl Sold {
    /// Puts the files where a Redis looks for them, the last one cut.
    fn lay_out(&self, directory: &Path, length: usize) {
        let place = directory.join("appendonlydir");
        std::fs::create_dir_all(&place).unwrap();
        for (name, bytes) in &self.files {
            std::fs::write(place.join(name), bytes).unwrap();
        }
        std::fs::write(place.join(&self.growing), &self.bytes[..length]).unwrap();
    }
}

/// Every place in the last two scripts (in `make test` every sixty-first, and those where commands begin).
#[tokio::test(flavor = "multi_thread")]
async fn a_file_cut_anywhere_in_a_script_keeps_all_that_comes_later() {
    for version in [RedisVersion::V7, RedisVersion::V8] {
        let sold = Arc::new(sell(version).await);
        let (from, to) = (sold.from, sold.bytes.len());
        let edge =
            |at: usize| at == from || at == to || at + 1 == to || sold.bytes[at..].starts_with(b"*1\r\n$4\r\nEXEC");
        let tried = |at: &usize| is_long_run() || at % STRIDE == from % STRIDE || edge(*at);
        let places: Vec<usize> = (from..=to).filter(tried).collect();
        println!("{version:?}: {} of {} places", places.len(), to - from + 1);
        futures_util::stream::iter(places)
            .map(|length| tokio::spawn(cut_and_go_on(sold.clone(), version, length)))
            .buffer_unordered(AT_ONCE)
            .for_each(|ended| async { ended.unwrap() })
            .await;
    }
}

async fn cut_and_go_on(sold: Arc<Sold>, version: RedisVersion, length: usize) {
    let data = tempfile::tempdir().unwrap();
    sold.lay_out(data.path(), length);
    let mut server = Redis::start(version, &["--dir", data.path().to_str().unwrap()]).await;
    // A script is there as a whole or not at all: whole ones are before the cut.
    let before = stock(&server).await;
    let redis = connect(&server).await;
    let admitted = match admit(&redis, "after").await {
        Decision::Admitted(address) => address,
        other => panic!("cut at {length}: {other:?}"),
    };
    drop(redis);
    let acknowledged = contents(&server).await;
    server.kill9();
    server.restart().await;
    assert_eq!(contents(&server).await, acknowledged, "cut at {length}: another Redis than was killed");
    let after = stock(&server).await;
    assert_eq!(after["a:reserved"], before["a:reserved"] + 1, "cut at {length}: the order is gone");
    let redis = connect(&server).await;
    match admit(&redis, "after").await {
        Decision::Replayed(address) => assert_eq!(address, admitted, "cut at {length}"),
        other => panic!("cut at {length}: {other:?}"),
    }
}
