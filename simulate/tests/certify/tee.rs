//! One connection to both: what the product sends goes to the server and to the model, and must be answered alike.
//!
//! The server's clock cannot be held, so each command goes in a transaction between two TIMEs. If they name the same
//! millisecond, that is the model's time too; if not, the model may have it either way.

use crate::redis_server::RedisServer;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::StatusCode;
use redis::aio::MultiplexedConnection;
use redis::{Arg, Cmd, Pipeline, RedisResult, Value};
use rushline::outside::{Gate, Outside};
use rushline::store::connection::Given;
use rushline::store::scripts;
use rushline_simulate::model::reply;
use rushline_simulate::model::server::{Fsync, Server};
use std::sync::{Arc, Weak};
use std::task::Context;
use std::time::Duration;
use tokio::sync::Mutex;

pub struct Tee {
    me: Weak<Tee>,
    both: Mutex<Both>,
    counts: std::sync::Mutex<Counts>,
}

struct Both {
    real: MultiplexedConnection,
    model: Server,
    rng: fastrand::Rng,
    /// Commands sent before, to be sent once more with something changed in them.
    earlier: Vec<Vec<Vec<u8>>>,
}

#[derive(Default, Clone, Copy)]
struct Counts {
    operations: u64,
    hostile: u64,
    refused: u64,
}

/// What a word is replaced by. A blank before a number is missing: 7 takes it in a score and 8 does not. No number is large enough to keep a loop in a script busy.
const HOSTILE: &[&[u8]] = &[
    b"",
    b"0",
    b"1",
    b"-1",
    b"2",
    b"7",
    b"99",
    b"00",
    b"+1",
    b"1 ",
    b"1.5",
    b"1e2",
    b"abc",
    b"0-0",
    b"0-1",
    b"5",
    b"1-1",
    b"-",
    b"+",
    b"(",
    b"a b c",
    b"\xc3\xa9",
    b".",
    b"s",
    b"f",
    b"rp.",
    b"a:available",
    b"sale",
    b"3 1 a",
    b">5",
    b"<5",
];

const KEPT_MAX: usize = 200;

impl Tee {
    pub async fn new(server: &RedisServer, seed: u64) -> Arc<Self> {
        let real = server.connect().await.unwrap();
        let version = if server.version.starts_with('7') { "7.0.15" } else { "8.2.3" };
        let both = Both {
            real,
            model: Server::new(version, Fsync::EverySecond, 0),
            rng: fastrand::Rng::with_seed(seed),
            earlier: Vec::new(),
        };
        Arc::new_cyclic(|me| Self { me: me.clone(), both: Mutex::new(both), counts: std::sync::Mutex::default() })
    }

    fn counts(&self) -> Counts {
        *self.counts.lock().unwrap()
    }

    fn count(&self, refused: bool) {
        let mut counts = self.counts.lock().unwrap();
        counts.operations += 1;
        counts.refused += u64::from(refused);
    }

    pub fn operations(&self) -> u64 {
        self.counts().operations
    }

    pub fn hostile(&self) -> u64 {
        self.counts().hostile
    }

    pub fn refused(&self) -> u64 {
        self.counts().refused
    }

    async fn send(&self, args: Vec<Vec<u8>>) -> Value {
        let mut both = self.both.lock().await;
        let name = args[0].to_ascii_lowercase();
        if matches!(&name[..], b"time" | b"info" | b"config" | b"bgrewriteaof" | b"ping") {
            return both.real(&[command(&args)]).await.remove(0);
        }
        if name == b"script" {
            let reply = both.real(&[command(&args)]).await.remove(0);
            assert_eq!(both.model.run(Duration::ZERO, &args).reply, reply);
            return reply;
        }
        if both.rng.u32(0..100) < 45 {
            let mut hostile = both.pick(&args);
            both.spoil(&mut hostile);
            self.counts.lock().unwrap().hostile += 1;
            self.both_do(&mut both, &hostile).await;
        }
        let reply = self.both_do(&mut both, &args).await;
        both.keep(args);
        reply
    }

    /// One operation on both.
    async fn both_do(&self, both: &mut Both, args: &[Vec<u8>]) -> Value {
        let time = || redis::cmd("TIME");
        let replies = both.real(&[redis::cmd("MULTI"), time(), command(args), time(), redis::cmd("EXEC")]).await;
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let (before, real, after) = match (&replies[2], &replies[4]) {
            // Refused before it was queued: no matter when.
            (Value::ServerError(_), _) => (now, &replies[2], now),
            (_, Value::Array(replies)) => (time_of(&replies[0]), &replies[1], time_of(&replies[2])),
            _ => panic!("the transaction came to nothing: {replies:?} for {}", show(args)),
        };
        self.count(matches!(real, Value::ServerError(_)));
        let earlier = both.model.db.clone();
        let mut modelled = both.model.run(before, args).reply;
        // When it was carried out may be told by what it left only.
        let real = real.clone();
        let mut at_ms = before.as_millis() as u64;
        while at_ms < after.as_millis() as u64 && (!same(args, &real, &modelled) || both.difference().await.is_some()) {
            at_ms += 1;
            both.model.db = earlier.clone();
            modelled = both.model.run(Duration::from_millis(at_ms), args).reply;
        }
        // A sale's term is made of the microsecond in which it began.
        let begins = [&scripts::sale_create.digest, &scripts::sale_spread.digest];
        if begins.iter().any(|digest| args.get(1).is_some_and(|word| word == digest.as_bytes())) {
            let look = [b"HGET".to_vec(), args[4].clone(), b":term".to_vec()];
            let term = both.real(&[command(&look)]).await.remove(0);
            let mut at = before;
            while both.model.run(at, &look).reply != term && at < after {
                at += Duration::from_micros(1);
                both.model.db = earlier.clone();
                modelled = both.model.run(at, args).reply;
            }
        }
        let real = &real;
        assert!(same(args, real, &modelled), "\n{}\nRedis: {real:?}\nmodel: {modelled:?}", show(args));
        real.clone()
    }

    /// All keys, with all that is in them.
    pub async fn compare_keys(&self) {
        assert_eq!(self.both.lock().await.difference().await, None);
    }

    pub async fn begin_anew(&self) {
        let mut both = self.both.lock().await;
        both.real(&[redis::cmd("FLUSHALL")]).await;
        both.model.db = Default::default();
        both.earlier.clear();
    }
}

impl Both {
    async fn real(&mut self, commands: &[Cmd]) -> Vec<Value> {
        let mut pipeline = Pipeline::with_capacity(commands.len());
        for command in commands {
            pipeline.add_command(command.clone());
        }
        let replies = self.real.send_packed_commands(&pipeline, 0, commands.len()).await;
        replies.unwrap_or_else(|error| panic!("the server gives no answer to {}: {error}", sent(commands)))
    }

    /// What is not the same in the keys of both, if anything is.
    async fn difference(&mut self) -> Option<String> {
        let now = time_of(&self.real(&[redis::cmd("TIME")]).await[0]);
        let Value::Array(keys) = self.real(&[command(&words(&["KEYS", "*"]))]).await.remove(0) else {
            panic!("no keys")
        };
        let keys: Vec<Vec<u8>> = keys.iter().map(|key| redis::from_redis_value_ref(key).unwrap()).collect();
        self.model.run(now, &words(&["PING"])); // lets expire what is over
        // What runs out may have done so between two looks.
        let lasts = |key: &&Vec<u8>| self.model.db.keys.get(*key).is_none_or(|kept| kept.expires_ms.is_none());
        let mut there: Vec<String> = keys.iter().filter(lasts).map(|key| key.escape_ascii().to_string()).collect();
        there.sort();
        let mut modelled: Vec<String> =
            self.model.db.keys.keys().filter(lasts).map(|key| key.escape_ascii().to_string()).collect();
        modelled.sort();
        if there != modelled {
            return Some(format!("the keys: {there:?} in Redis, {modelled:?} in the model"));
        }
        let keys: Vec<Vec<u8>> = keys.iter().filter(lasts).cloned().collect();
        for key in keys {
            let kind = self.model.db.keys[&key].object.kind();
            let mut looks = vec![words(&["TYPE"]), words(&["PTTL"])];
            match kind {
                "string" => looks.push(words(&["GET"])),
                "hash" => looks.push(words(&["HGETALL"])),
                "set" => looks.push(words(&["SMEMBERS"])),
                "zset" => looks.push(words(&["ZRANGE", "0", "-1", "WITHSCORES"])),
                _ => {
                    looks.push(words(&["XRANGE", "-", "+"]));
                    for group in ["delivery", "records", "telling", "webhooks"] {
                        looks.push(words(&["XPENDING", group, "-", "+", "10000"]));
                        looks.push(words(&["XPENDING", group]));
                    }
                }
            }
            looks.iter_mut().for_each(|look| look.insert(1, key.clone()));
            let real = self.real(&looks.iter().map(|look| command(look)).collect::<Vec<_>>()).await;
            for (look, real) in looks.iter().zip(real) {
                let modelled = self.model.run(now, look).reply;
                let (real, modelled) = (settled(look, &real), settled(look, &modelled));
                if real != modelled {
                    return Some(format!("{}\nRedis: {real}\nmodel: {modelled}", show(look)));
                }
            }
        }
        None
    }

    fn pick(&mut self, now: &[Vec<u8>]) -> Vec<Vec<u8>> {
        match self.earlier.is_empty() || self.rng.bool() {
            true => now.to_vec(),
            false => self.earlier[self.rng.usize(0..self.earlier.len())].clone(),
        }
    }

    /// Changes a word or two of a command; not which command it is, nor how many keys a script has.
    fn spoil(&mut self, args: &mut Vec<Vec<u8>>) {
        let is_script = args[0].eq_ignore_ascii_case(b"evalsha");
        let from = match &args[0][..] {
            // Its words say how many streams there are; key and id are left to be spoilt.
            b"XREADGROUP" => args.len() - 2,
            _ if is_script => 3,
            _ => 1,
        };
        if args.len() <= from {
            return;
        }
        for _ in 0..self.rng.usize(0..=2) {
            let at = self.rng.usize(from..args.len());
            let before = args[at].clone();
            match self.rng.u32(0..10) {
                // Another word of the same command, as it is.
                0 | 1 => args[at] = args[self.rng.usize(from..args.len())].clone(),
                2 if is_script => args.push(b"more".to_vec()),
                _ => args[at] = HOSTILE[self.rng.usize(0..HOSTILE.len())].to_vec(),
            }
            // A time or an id where a script counts by it would keep both busy for years.
            // And an error with bytes in it that are no text is more than the driver can read.
            let readable = std::str::from_utf8(&args[at]).is_ok();
            if is_script && is_long(&args[at]) && !is_long(&before) || !readable {
                args[at] = before;
            }
            // From 7.4 on that means the last entry; nobody here asks for it.
            if args[0] == b"XREADGROUP" && args[at] == b"+" {
                args[at] = b"-".to_vec();
            }
        }
    }

    fn keep(&mut self, args: Vec<Vec<u8>>) {
        if self.earlier.len() < KEPT_MAX {
            self.earlier.push(args);
        } else {
            let at = self.rng.usize(0..KEPT_MAX);
            self.earlier[at] = args;
        }
    }
}

fn words(words: &[&str]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

fn command(args: &[Vec<u8>]) -> Cmd {
    let mut command = Cmd::new();
    args.iter().for_each(|arg| {
        command.arg(&arg[..]);
    });
    command
}

fn show(args: &[Vec<u8>]) -> String {
    args.iter().map(|arg| arg.escape_ascii().to_string()).map(|arg| format!("{arg:?}")).collect::<Vec<_>>().join(" ")
}

fn time_of(reply: &Value) -> Duration {
    let (seconds, micros): (u64, u64) = redis::from_redis_value_ref(reply).unwrap();
    Duration::from_secs(seconds) + Duration::from_micros(micros)
}

fn is_long(word: &[u8]) -> bool {
    word.split(|byte| !byte.is_ascii_digit()).any(|digits| digits.len() > 4)
}

fn sent(commands: &[Cmd]) -> String {
    let args = |command: &Cmd| {
        let args = command.args_iter().map(|arg| if let Arg::Simple(arg) = arg { arg.to_vec() } else { Vec::new() });
        show(&args.collect::<Vec<_>>())
    };
    commands.iter().map(args).collect::<Vec<_>>().join("; ")
}

/// Equal, but for the order of what has none, and for where in a script an error was. What Lua itself says of an error in
/// a script is not compared, only that there is one.
fn same(args: &[Vec<u8>], real: &Value, modelled: &Value) -> bool {
    let (real, modelled) = match args[0].eq_ignore_ascii_case(b"HGETALL") || args[0] == b"SMEMBERS" {
        true => return settled(args, real) == settled(args, modelled),
        false => (real, modelled),
    };
    let words = |value: &Value| {
        let message = reply::message_of(value)?;
        Some(
            message
                .split(" script: ")
                .next()
                .unwrap_or_default()
                .split('\0')
                .next()
                .unwrap_or_default()
                .trim_end()
                .to_owned(),
        )
    };
    match (words(real), words(modelled)) {
        (Some(real), Some(modelled)) if real.contains("user_script:") => modelled.starts_with("ERR"),
        (Some(real), Some(modelled)) => real == modelled,
        (None, None) => real == modelled,
        _ => false,
    }
}

/// A look at a key without what hangs on the moment or on how Redis keeps it.
fn settled(look: &[Vec<u8>], reply: &Value) -> String {
    let mut parts = match reply {
        Value::Array(parts) => parts.clone(),
        Value::Int(number) if look[0] == b"PTTL" => vec![Value::Int((*number).min(0))],
        other => return reply::message_of(other).unwrap_or_else(|| format!("{other:?}")),
    };
    if look[0] == b"HGETALL" {
        let mut pairs: Vec<String> = parts.chunks(2).map(|pair| format!("{pair:?}")).collect();
        pairs.sort();
        return pairs.join("\n");
    }
    if look[0] == b"SMEMBERS" {
        parts.sort_by_key(|part| format!("{part:?}"));
    }
    if look[0] == b"XPENDING" && look.len() > 3 {
        for row in &mut parts {
            if let Value::Array(row) = row {
                row[2] = Value::Nil; // its idle time
            }
        }
    }
    format!("{parts:?}")
}

impl Given for Tee {
    fn send(&self, command: &Cmd) -> BoxFuture<'static, RedisResult<Value>> {
        let arg = |arg| if let Arg::Simple(arg) = arg { Vec::from(arg) } else { Vec::new() };
        let args: Vec<Vec<u8>> = command.args_iter().map(arg).collect();
        let me = self.me.upgrade().expect("the test holds it");
        Box::pin(async move { Ok(Tee::send(&me, args).await) })
    }
}

impl Outside for Tee {
    fn gate(&self, _: &mut Context<'_>) -> Gate {
        Gate::Open
    }

    fn redis(&self, _: Duration) -> Arc<dyn Given> {
        self.me.upgrade().expect("the test holds it")
    }

    fn post(&self, _: &str, _: &str, _: Vec<u8>) -> BoxFuture<'static, Result<(StatusCode, Bytes), String>> {
        Box::pin(async { Err("there is no order service here".into()) })
    }
}
