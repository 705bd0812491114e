//! Scripts: the very files of `lua/`, in the Lua that Redis has, with `redis.call` going to the model.

use super::commands;
use super::db::Db;
use super::packed;
use super::reply::{self, Refused};
use mlua::{Function, Lua, LuaString, Table, Variadic};
use redis::Value;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a script works on while it runs.
#[derive(Default)]
struct Running {
    db: Db,
    now: Duration,
    wrote: bool,
    refused: Option<Refused>,
}

pub struct Scripts {
    lua: Lua,
    running: Arc<Mutex<Running>>,
    known: HashMap<String, Script>,
}

struct Script {
    run: Function,
    allow_oom: bool,
    read_only: bool,
}

impl Scripts {
    pub fn new() -> mlua::Result<Self> {
        let lua = Lua::new();
        let running = Arc::new(Mutex::new(Running::default()));
        let table = lua.create_table()?;
        let of_call = running.clone();
        table.set("call", lua.create_function(move |lua, args| call(lua, &of_call, &args))?)?;
        table.set("sha1hex", lua.create_function(|_, text: LuaString| Ok(digest(&text.as_bytes())))?)?;
        table.set("error_reply", lua.create_function(|lua, text: LuaString| error_table(lua, &text))?)?;
        lua.globals().set("redis", table)?;
        lua.globals().set("struct", packed::table(&lua)?)?;
        Ok(Self { lua, running, known: HashMap::new() })
    }

    /// As SCRIPT LOAD: its digest.
    pub fn load(&mut self, source: &[u8]) -> Result<String, Refused> {
        let digest = digest(source);
        if self.known.contains_key(&digest) {
            return Ok(digest);
        }
        let text = String::from_utf8_lossy(source);
        let (first, body) = text.split_once('\n').unwrap_or((&text, ""));
        // The line stays empty, so that errors name the right one.
        let body = if first.starts_with("#!lua") { format!("\n{body}") } else { text.clone().into_owned() };
        let run = self.lua.load(body).set_name("@user_script").into_function();
        let run = run.map_err(|error| format!("ERR Error compiling script (new function): {error}"))?;
        let script = Script { run, allow_oom: first.contains("allow-oom"), read_only: first.contains("no-writes") };
        self.known.insert(digest.clone(), script);
        Ok(digest)
    }

    /// Has one script run whenever another is asked for.
    pub fn replace(&mut self, digest: String, source: &[u8]) {
        let other = self.load(source).expect("a changed script still compiles");
        let script = self.known.remove(&other).expect("loaded above");
        self.known.insert(digest, script);
    }

    pub fn knows(&self, digest: &str) -> bool {
        self.known.contains_key(digest)
    }

    pub fn allows_oom(&self, digest: &str) -> bool {
        self.known.get(digest).is_some_and(|script| script.allow_oom)
    }

    pub fn only_reads(&self, digest: &str) -> bool {
        self.known.get(digest).is_some_and(|script| script.read_only)
    }

    /// Runs a script that is known. Answers too if it wrote. An error does not undo what was written before it.
    pub fn run(&self, db: &mut Db, now: Duration, digest: &str, keys: &[Vec<u8>], args: &[Vec<u8>]) -> (Value, bool) {
        let script = &self.known[digest];
        *self.lock() = Running { db: std::mem::take(db), now, wrote: false, refused: None };
        let result = self.call(&script.run, keys, args);
        let mut running = self.lock();
        *db = std::mem::take(&mut running.db);
        let reply = match (running.refused.take(), result) {
            (Some(refused), _) => reply::error(&refused),
            (None, Ok(value)) => value,
            (None, Err(error)) => reply::error(&format!("ERR {}", message(&error))),
        };
        (reply, running.wrote)
    }

    fn call(&self, script: &Function, keys: &[Vec<u8>], args: &[Vec<u8>]) -> mlua::Result<Value> {
        let list = |items: &[Vec<u8>]| {
            let strings: mlua::Result<Vec<LuaString>> = items.iter().map(|item| self.lua.create_string(item)).collect();
            self.lua.create_sequence_from(strings?)
        };
        self.lua.globals().set("KEYS", list(keys)?)?;
        self.lua.globals().set("ARGV", list(args)?)?;
        let value: mlua::Value = script.call(())?;
        to_reply(&value)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Running> {
        self.running.lock().expect("nobody panics while holding this lock")
    }
}

/// The first line of what went wrong, without where Rust came in.
fn message(error: &mlua::Error) -> String {
    let mut error = error;
    while let mlua::Error::CallbackError { cause, .. } = error {
        error = cause;
    }
    let text = match error {
        mlua::Error::RuntimeError(text) => text.clone(),
        other => other.to_string(),
    };
    text.lines().next().unwrap_or_default().to_owned()
}

pub fn digest(text: &[u8]) -> String {
    redis::Script::new(&String::from_utf8_lossy(text)).get_hash().to_owned()
}

fn error_table(lua: &Lua, text: &LuaString) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.set("err", text)?;
    Ok(table)
}

/// A number as Redis passes it from Lua to a command.
fn number_text(number: f64) -> Vec<u8> {
    if number == number.trunc() && number.abs() < 1e17 {
        return format!("{}", number as i64).into_bytes();
    }
    super::object::score_text(number).into_bytes()
}

fn call(lua: &Lua, running: &Mutex<Running>, args: &Variadic<mlua::Value>) -> mlua::Result<mlua::Value> {
    let mut running = running.lock().expect("nobody panics while holding this lock");
    let words: Option<Vec<Vec<u8>>> = args
        .iter()
        .map(|arg| match arg {
            mlua::Value::String(text) => Some(text.as_bytes().to_vec()),
            mlua::Value::Integer(number) => Some(number.to_string().into_bytes()),
            mlua::Value::Number(number) => Some(number_text(*number)),
            _ => None,
        })
        .collect();
    let Some(words) = words else {
        return refuse(&mut running, "ERR Lua redis lib command arguments must be strings or integers".into());
    };
    if words.is_empty() {
        return refuse(&mut running, "ERR Please specify at least one argument for this redis.call() call".into());
    }
    let now = running.now;
    match commands::run(&mut running.db, now, &words, true) {
        Ok(value) => {
            running.wrote |= commands::writes(&words[0]);
            to_lua(lua, &value)
        }
        Err(refused) => refuse(&mut running, refused),
    }
}

fn refuse(running: &mut Running, refused: Refused) -> mlua::Result<mlua::Value> {
    running.refused = Some(refused);
    Err(mlua::Error::runtime("refused"))
}

fn to_lua(lua: &Lua, value: &Value) -> mlua::Result<mlua::Value> {
    Ok(match value {
        Value::Nil => mlua::Value::Boolean(false),
        Value::Int(number) => mlua::Value::Number(*number as f64),
        Value::BulkString(bytes) => mlua::Value::String(lua.create_string(bytes)?),
        Value::Array(items) => {
            let table = lua.create_table_with_capacity(items.len(), 0)?;
            for (at, item) in items.iter().enumerate() {
                table.raw_set(at + 1, to_lua(lua, item)?)?;
            }
            mlua::Value::Table(table)
        }
        Value::Okay | Value::SimpleString(_) => {
            let table = lua.create_table()?;
            table.set("ok", if let Value::SimpleString(text) = value { text } else { "OK" })?;
            mlua::Value::Table(table)
        }
        other => return Err(mlua::Error::runtime(format!("no command here answers {other:?}"))),
    })
}

fn to_reply(value: &mlua::Value) -> mlua::Result<Value> {
    Ok(match value {
        mlua::Value::String(text) => reply::text(text.as_bytes()),
        mlua::Value::Integer(number) => Value::Int(*number),
        mlua::Value::Number(number) => Value::Int(*number as i64),
        mlua::Value::Boolean(true) => Value::Int(1),
        mlua::Value::Table(table) => {
            if let Some(error) = table.raw_get::<Option<LuaString>>("err")? {
                return Ok(reply::error(&error.to_string_lossy()));
            }
            if let Some(status) = table.raw_get::<Option<LuaString>>("ok")? {
                let status = status.to_string_lossy();
                return Ok(if status == "OK" { Value::Okay } else { Value::SimpleString(status) });
            }
            let mut items = Vec::new();
            for at in 1.. {
                match table.raw_get::<mlua::Value>(at)? {
                    mlua::Value::Nil => break,
                    item => items.push(to_reply(&item)?),
                }
            }
            Value::Array(items)
        }
        _ => Value::Nil,
    })
}
