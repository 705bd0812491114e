//! The commands that the product and its scripts send: no more, and these as Redis answers them.
//!
//! A file of its own for each type of key; [`run`] finds the command and counts its arguments, as Redis does first.

use super::db::Db;
use super::reply::{NOT_A_FLOAT, NOT_AN_INTEGER, Refused, count, text};
use super::{hashes, streams, strings, zsets};
use redis::Value;
use std::time::Duration;

pub type Outcome = Result<Value, Refused>;

/// One command as it is carried out.
pub struct Call<'a> {
    pub db: &'a mut Db,
    pub now: Duration,
    pub args: &'a [Vec<u8>],
}

impl Call<'_> {
    pub fn key(&self) -> &[u8] {
        &self.args[1]
    }

    pub fn now_ms(&self) -> u64 {
        self.now.as_millis() as u64
    }
}

type Run = fn(&mut Call<'_>) -> Outcome;

/// Name, arguments with the name (negative: at least so many), does it write, does it use memory, how.
const COMMANDS: &[(&str, i32, bool, Run)] = &[
    ("get", 2, false, strings::get),
    ("set", -3, true, strings::set),
    ("mget", -2, false, strings::mget),
    ("mset", -3, true, strings::mset),
    ("msetnx", -3, true, strings::msetnx),
    ("getrange", 4, false, strings::getrange),
    ("setrange", 4, true, strings::setrange),
    ("incrby", 3, true, strings::incrby),
    ("del", -2, true, strings::del),
    ("unlink", -2, true, strings::del),
    ("exists", -2, false, strings::exists),
    ("type", 2, false, strings::kind),
    ("pttl", 2, false, strings::pttl),
    ("pexpire", 3, true, strings::pexpire),
    ("ttl", 2, false, strings::ttl),
    ("sadd", -3, true, strings::sadd),
    ("smembers", 2, false, strings::smembers),
    ("keys", 2, false, strings::keys),
    ("time", 1, false, time),
    ("hget", 3, false, hashes::hget),
    ("hset", -4, true, hashes::hset),
    ("hmget", -3, false, hashes::hmget),
    ("hdel", -3, true, hashes::hdel),
    ("hlen", 2, false, hashes::hlen),
    ("hexists", 3, false, hashes::hexists),
    ("hgetall", 2, false, hashes::hgetall),
    ("hincrby", 4, true, hashes::hincrby),
    ("zadd", -4, true, zsets::zadd),
    ("zrem", -3, true, zsets::zrem),
    ("zcard", 2, false, zsets::zcard),
    ("zscore", 3, false, zsets::zscore),
    ("zmscore", -3, false, zsets::zmscore),
    ("zrange", -4, false, zsets::zrange),
    ("zrangebyscore", -4, false, zsets::zrangebyscore),
    ("zrevrangebyscore", -4, false, zsets::zrevrangebyscore),
    ("xadd", -5, true, streams::xadd),
    ("xlen", 2, false, streams::xlen),
    ("xdel", -3, true, streams::xdel),
    ("xack", -4, true, streams::xack),
    ("xrange", -4, false, streams::xrange),
    ("xrevrange", -4, false, streams::xrevrange),
    ("xgroup", -2, true, streams::xgroup),
    ("xpending", -3, false, streams::xpending),
    ("xclaim", -6, true, streams::xclaim),
    ("xautoclaim", -6, true, streams::xautoclaim),
    ("xreadgroup", -7, true, streams::xreadgroup),
];

pub fn writes(name: &[u8]) -> bool {
    find(name).is_some_and(|(_, _, writes, _)| *writes)
}

fn find(name: &[u8]) -> Option<&'static (&'static str, i32, bool, Run)> {
    COMMANDS.iter().find(|(known, ..)| known.as_bytes().eq_ignore_ascii_case(name))
}

/// Carries out a command. `in_script`: refusals are worded as scripts hear them.
pub fn run(db: &mut Db, now: Duration, args: &[Vec<u8>], in_script: bool) -> Outcome {
    let Some((name, arity, _, run)) = args.first().and_then(|name| find(name)) else {
        return Err(match in_script {
            true => "ERR Unknown Redis command called from script".into(),
            false => format!("ERR unknown command '{}'", args.first().map_or_else(String::new, |name| show(name))),
        });
    };
    let given = args.len() as i32;
    if (*arity > 0 && given != *arity) || given < arity.abs() {
        return Err(match in_script {
            true => "ERR Wrong number of args calling Redis command from script".into(),
            false => wrong_number(name),
        });
    }
    run(&mut Call { db, now, args })
}

pub fn wrong_number(name: &str) -> Refused {
    format!("ERR wrong number of arguments for '{name}' command")
}

fn time(call: &mut Call<'_>) -> Outcome {
    let micros = call.now.subsec_micros();
    Ok(Value::Array(vec![text(call.now.as_secs().to_string()), text(micros.to_string())]))
}

pub fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A whole number as Redis reads one: no sign but `-`, no blanks, no leading zeros.
pub fn integer(bytes: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

pub fn integer_or(bytes: &[u8], refused: &str) -> Result<i64, Refused> {
    integer(bytes).ok_or_else(|| refused.to_owned())
}

pub fn an_integer(bytes: &[u8]) -> Result<i64, Refused> {
    integer_or(bytes, NOT_AN_INTEGER)
}

pub fn float(bytes: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(bytes).ok()?;
    text.parse::<f64>().ok().filter(|number| !number.is_nan())
}

pub fn a_float(bytes: &[u8]) -> Result<f64, Refused> {
    float(bytes).ok_or_else(|| NOT_A_FLOAT.to_owned())
}

pub fn is(word: &[u8], option: &str) -> bool {
    word.eq_ignore_ascii_case(option.as_bytes())
}

pub fn yes(was: bool) -> Value {
    count(usize::from(was))
}
