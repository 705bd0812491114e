//! F20: a script is not undone by its own error. So each checks everything before it writes anything; here every script that
//! a server sends gets every one of its keys as another type, and every argument as something else, and where it then
//! answers with an error, its keys are as they were.
//!
//! The calls are real ones: Redis itself (MONITOR) tells what servers sent it while they sold.

use crate::support::app::{App, AppOptions, eventually};
use crate::support::servers::{Redis, RedisVersion};
use crate::support::services::Service;
use crate::support::shop::{Answer, Shop};
use redis::aio::MultiplexedConnection;
use rushline::store::scripts;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

const SOON: Duration = Duration::from_secs(40);
/// Calls that are tried of each script: the first few differ most.
const CALLS_EACH: usize = 3;
/// Arguments that are spoilt one by one; a batch repeats itself.
const ARGUMENTS_EACH: usize = 14;
/// What no story here makes a server send, and why.
const NOT_SENT: [&str; 9] = [
    // A closed sale's, a day later (`ledger.keep_s`).
    "ledger_forget",
    // Topics, which have a door of their own.
    "kv_save",
    // By operators, one transaction at a time.
    "trans_hurry",
    // Where WAIT or WAITAOF is needed. It has one key and no argument.
    "sale_touch",
    // After a loss, by whoever repairs: `honesty/` has these.
    "order_restore",
    "sale_lost",
    "sale_rebuild",
    "sale_recount",
    "sale_unfence",
];

/// One EVALSHA as it was sent.
#[derive(Debug, Clone)]
struct Sent {
    script: &'static str,
    digest: String,
    keys: Vec<Vec<u8>>,
    arguments: Vec<Vec<u8>>,
}

/// Takes down every script that Redis runs, until it is dropped.
struct Listener {
    sent: Arc<Mutex<Vec<Sent>>>,
    listening: tokio::task::JoinHandle<()>,
}

impl Listener {
    async fn start(redis: &Redis) -> Self {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", redis.port())).await.unwrap();
        let mut stream = BufReader::new(stream);
        stream.write_all(b"MONITOR\r\n").await.unwrap();
        let mut line = Vec::new();
        stream.read_until(b'\n', &mut line).await.unwrap();
        assert_eq!(line, b"+OK\r\n");
        let sent = Arc::<Mutex<Vec<Sent>>>::default();
        let names: BTreeMap<String, &'static str> =
            scripts::all().into_iter().map(|script| (script.digest.clone(), script.name)).collect();
        let listening = tokio::spawn({
            let sent = sent.clone();
            async move {
                loop {
                    line.clear();
                    if stream.read_until(b'\n', &mut line).await.unwrap_or(0) == 0 {
                        return;
                    }
                    sent.lock().unwrap().extend(read(&line, &names));
                }
            }
        });
        Self { sent, listening }
    }

    fn heard(&self) -> BTreeSet<&'static str> {
        self.sent.lock().unwrap().iter().map(|sent| sent.script).collect()
    }
}

/// `+1700000000.000000 [0 127.0.0.1:1] "EVALSHA" "digest" "2" "key" …`
fn read(line: &[u8], names: &BTreeMap<String, &'static str>) -> Option<Sent> {
    let mut words = words(line).into_iter();
    if !words.next()?.eq_ignore_ascii_case(b"EVALSHA") {
        return None;
    }
    let digest = String::from_utf8(words.next()?).ok()?;
    let count: usize = String::from_utf8(words.next()?).ok()?.parse().ok()?;
    let keys = words.by_ref().take(count).collect();
    Some(Sent { script: names.get(&digest)?, digest, keys, arguments: words.collect() })
}

/// The quoted words of a line, as bytes.
fn words(line: &[u8]) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut bytes = line.iter().copied();
    while bytes.any(|byte| byte == b'"') {
        let mut word = Vec::new();
        while let Some(byte) = bytes.next() {
            match byte {
                b'"' => break,
                b'\\' => word.push(match bytes.next().unwrap_or_default() {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'a' => 7,
                    b'b' => 8,
                    b'x' => {
                        let digits = [bytes.next().unwrap_or(b'0'), bytes.next().unwrap_or(b'0')];
                        u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                    }
                    other => other,
                }),
                _ => word.push(byte),
            }
        }
        words.push(word);
    }
    words
}

/// Has a server do about everything that it can.
async fn live(app: &App, other: &App, shop: &Shop, service: &Service) {
    let items = json!([{"sku": "a", "units": 12}, {"sku": "b", "units": 12}]);
    let plain = json!({"sale": "plain", "items": items, "limit_per_buyer": 3,
        "order_endpoint": shop.endpoint(), "durability": "memory"});
    let mut reserved = plain.clone();
    (reserved["sale"], reserved["reserve_for_ms"]) = (json!("reserved"), json!(2_000));
    let mut spread = plain.clone();
    (spread["sale"], spread["partitions"]) = (json!("spread"), json!(3));
    for sale in [&plain, &reserved, &spread] {
        app.create_sale(sale).await;
    }
    shop.behave(|asked| match (asked.order["buyer"].as_str().unwrap_or_default(), asked.attempt) {
        ("b1", _) => Answer::Refused("no".into()),
        ("b2", 1) => Answer::Status(500, "not now".into()),
        // Until the call's time is over, which is many leases long: it is renewed.
        ("b3", 1) => Answer::Hang,
        _ => Answer::Created,
    });
    let mut gids = Vec::new();
    for sale in ["plain", "reserved", "spread"] {
        for number in 0..14 {
            let order = json!({"buyer": format!("b{number}"), "items": [{"sku": "a", "quantity": 1}]});
            let reply = [app, other][number % 2].order(sale, &format!("k{number}"), &order).await;
            gids.extend(reply.gid().map(str::to_owned));
        }
        let more = json!({"sku": "b", "units": 3, "request_id": "more"});
        app.post(&format!("/v1/sales/{sale}/stock"), &[], &more).await;
        app.patch(&format!("/v1/sales/{sale}"), &json!({"limit_per_buyer": 4})).await;
    }
    app.patch("/v1/sales/plain", &json!({"partitions": 2})).await;
    for gid in gids.iter().filter(|gid| gid.starts_with("reserved")).step_by(2) {
        eventually("it is reserved", SOON, || async {
            app.post(&format!("/v1/orders/{gid}/confirm"), &[], &json!({})).await.status != 503
        })
        .await;
    }
    // The last is called again and again: nobody listens there.
    for (number, action) in [("s1", service.url("/a")), ("s2", "http://127.0.0.1:1/a".into())] {
        let step = json!({"action": action, "compensate": service.url("/back")});
        let saga = json!({"gid": number, "trans_type": "saga", "steps": [step], "payloads": ["{}"]});
        app.post("/api/dtmsvr/submit", &[], &saga).await;
    }
    let tcc = json!({"gid": "t1", "trans_type": "tcc"});
    app.post("/api/dtmsvr/prepare", &[], &tcc).await;
    let branch = json!({"gid": "t1", "trans_type": "tcc", "branch_id": "01", "data": "{}",
        "confirm": service.url("/a"), "cancel": service.url("/a"), "try": service.url("/a")});
    app.post("/api/dtmsvr/registerBranch", &[], &branch).await;
    app.post("/api/dtmsvr/submit", &[], &tcc).await;
    let _ = app.get("/api/dtmsvr/resetCronTime?timeout=3").await;
    let gid = gids.iter().find(|gid| gid.starts_with("plain")).unwrap();
    let back = json!({"items": [{"sku": "a", "quantity": 1}], "request_id": "back"});
    eventually("it is sold", SOON, || async {
        app.post(&format!("/v1/orders/{gid}/return"), &[], &back).await.status == 200
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_errs_has_changed_nothing() {
    let redis = Redis::start(RedisVersion::V7, &["--appendonly", "no"]).await;
    let listener = Listener::start(&redis).await;
    let shop = Shop::start().await;
    let service = Service::start().await;
    let options = AppOptions::default().quick().quick_trans().redis(&redis.url());
    let app = App::start(options.clone()).await;
    let other = App::start(options.beside(&app)).await;
    live(&app, &other, &shop, &service).await;
    let wanted: BTreeSet<&str> =
        scripts::all().iter().map(|script| script.name).filter(|name| !NOT_SENT.contains(name)).collect();
    let missing = || wanted.difference(&listener.heard()).copied().collect::<Vec<_>>();
    let deadline = std::time::Instant::now() + SOON;
    while !missing().is_empty() {
        assert!(std::time::Instant::now() < deadline, "no server has sent {:?}", missing());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop((app, other));
    listener.listening.abort();
    let sent = listener.sent.lock().unwrap().clone();

    let client = redis::Client::open(redis.url()).unwrap();
    let mut raw = client.get_multiplexed_async_connection().await.unwrap();
    let (mut cases, mut errors) = (0, 0);
    for script in scripts::all() {
        for call in sent.iter().filter(|call| call.script == script.name).take(CALLS_EACH) {
            let (some, of_these) = spoil(&mut raw, call).await;
            (cases, errors) = (cases + some, errors + of_these);
        }
    }
    println!("{cases} calls, {errors} of them answered by an error");
    assert!(errors > 200, "{errors} errors in {cases} calls: hardly anything was spoilt");
}

/// Spoils each key and each argument in each way; how many calls that were, and how many of them erred.
async fn spoil(raw: &mut MultiplexedConnection, call: &Sent) -> (usize, usize) {
    let (mut cases, mut errors) = (0, 0);
    for place in 0..call.keys.len() {
        for kind in ["SET", "RPUSH", "HSET", "ZADD"] {
            let key = &call.keys[place];
            let kept: Option<Vec<u8>> = redis::cmd("DUMP").arg(key).query_async(raw).await.unwrap();
            redis::cmd("DEL").arg(key).query_async::<()>(raw).await.unwrap();
            let mut other = redis::cmd(kind);
            other.arg(key).arg("1");
            if !matches!(kind, "SET" | "RPUSH") {
                other.arg("not what is expected");
            }
            other.query_async::<()>(raw).await.unwrap();
            errors += usize::from(errs(raw, call, &format!("KEYS[{}] by {kind}", place + 1)).await);
            cases += 1;
            redis::cmd("DEL").arg(key).query_async::<()>(raw).await.unwrap();
            if let Some(kept) = kept {
                redis::cmd("RESTORE").arg(key).arg(0).arg(kept).query_async::<()>(raw).await.unwrap();
            }
        }
    }
    let long = vec![b'x'; 1 << 20];
    // Not a number without end: counts are the server's own, and a loop over so many says nothing of what it would write.
    let strange: [&[u8]; 7] = [b"", b"-1", b"nan", b"40", b"0.5", b"\xff\x00\xfe", &long];
    for place in 0..call.arguments.len().min(ARGUMENTS_EACH) {
        for value in strange {
            let mut call = call.clone();
            call.arguments[place] = value.to_vec();
            let what = format!("ARGV[{}] = {:?}", place + 1, String::from_utf8_lossy(&value[..value.len().min(20)]));
            errors += usize::from(errs(raw, &call, &what).await);
            cases += 1;
        }
    }
    for length in 0..call.arguments.len().min(ARGUMENTS_EACH) {
        let mut call = call.clone();
        call.arguments.truncate(length);
        errors += usize::from(errs(raw, &call, &format!("only {length} arguments")).await);
        cases += 1;
    }
    (cases, errors)
}

/// What the call's keys hold. A hash by its fields: their order in a dump changes when it is only read, while Redis is moving
/// it to a larger table.
async fn state(raw: &mut MultiplexedConnection, call: &Sent) -> Vec<Option<Vec<u8>>> {
    let mut all = Vec::with_capacity(call.keys.len());
    for key in &call.keys {
        let kind: String = redis::cmd("TYPE").arg(key).query_async(raw).await.unwrap();
        all.push(if kind == "hash" {
            let fields: BTreeMap<Vec<u8>, Vec<u8>> = redis::cmd("HGETALL").arg(key).query_async(raw).await.unwrap();
            Some(format!("{fields:?}").into_bytes())
        } else {
            redis::cmd("DUMP").arg(key).query_async(raw).await.unwrap()
        });
    }
    all
}

/// Runs it; true if it answered with an error, and then its keys must be as they were.
async fn errs(raw: &mut MultiplexedConnection, call: &Sent, what: &str) -> bool {
    let before = state(raw, call).await;
    let mut command = redis::cmd("EVALSHA");
    command.arg(&call.digest).arg(call.keys.len());
    for word in call.keys.iter().chain(&call.arguments) {
        command.arg(&word[..]);
    }
    let Err(error) = command.query_async::<redis::Value>(raw).await else { return false };
    assert!(!error.is_timeout(), "{}, {what}: it does not come to an end", call.script);
    let after = state(raw, call).await;
    for (at, key) in call.keys.iter().enumerate() {
        let key = String::from_utf8_lossy(key);
        assert!(before[at] == after[at], "{}, {what}: {error}\nand {key} has changed", call.script);
    }
    true
}

#[test]
fn a_line_of_monitor_is_read_as_it_was_sent() {
    let line = br#"+1795394693.5 [0 127.0.0.1:56746] "EVALSHA" "d1" "1" "k\"\\" "a\x00\xff\r\n" """#;
    let sent = read(line, &[("d1".to_owned(), "s")].into()).unwrap();
    assert_eq!((sent.keys, sent.arguments), (vec![b"k\"\\".to_vec()], vec![b"a\x00\xff\r\n".to_vec(), Vec::new()]));
}
