//! A node's connection to Redis: what is sent arrives later, in order, and is answered in order; or the connection breaks
//! before or after the command was carried out, which from the node looks the same.

use super::checks::ledger::Now;
use super::node::Instance;
use super::shared::Shared;
use crate::model::commands::{self, is};
use crate::model::reply;
use crate::model::server::Fsync;
use futures_util::future::BoxFuture;
use redis::{Arg, Cmd, RedisResult, Value};
use rushline::store::connection::Given;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

pub struct Line {
    shared: Arc<Shared>,
    instance: Arc<Instance>,
    patience: Duration,
    /// The connection there is, and from which epoch it is.
    open: Mutex<Option<(u64, mpsc::UnboundedSender<Sent>)>>,
}

struct Sent {
    args: Vec<Vec<u8>>,
    at: Duration,
    answer: oneshot::Sender<Value>,
}

struct Back {
    reply: Value,
    at: Duration,
    answer: oneshot::Sender<Value>,
}

/// How long a connection takes that comes to nothing.
const CONNECT: Duration = Duration::from_millis(1_000);
const REFUSED_AFTER: Duration = Duration::from_millis(60);

impl Line {
    pub fn new(shared: Arc<Shared>, instance: Arc<Instance>, patience: Duration) -> Self {
        Self { shared, instance, patience, open: Mutex::new(None) }
    }

    /// The sending end of a connection that works, as far as anybody knows.
    fn connected(&self) -> Result<mpsc::UnboundedSender<Sent>, Duration> {
        let (epoch, is_up) = {
            let state = self.shared.lock();
            (state.epoch, state.redis_is_up)
        };
        let mut open = self.open.lock().expect("nobody panics while holding this lock");
        if let Some((of, sender)) = &*open
            && *of == epoch
            && !sender.is_closed()
        {
            return Ok(sender.clone());
        }
        if !is_up {
            return Err(REFUSED_AFTER);
        }
        if self.instance.is_cut() {
            return Err(CONNECT);
        }
        let (sender, sent) = mpsc::unbounded_channel();
        let (back, backs) = mpsc::unbounded_channel();
        tokio::spawn(serve(self.shared.clone(), self.instance.clone(), epoch, sent, back));
        tokio::spawn(bring_back(self.shared.clone(), self.instance.clone(), epoch, backs));
        *open = Some((epoch, sender.clone()));
        Ok(sender)
    }
}

impl Given for Line {
    fn send(&self, command: &Cmd) -> BoxFuture<'static, RedisResult<Value>> {
        let args: Vec<Vec<u8>> =
            command.args_iter().map(|arg| if let Arg::Simple(arg) = arg { arg.to_vec() } else { Vec::new() }).collect();
        let (answer, hear) = oneshot::channel();
        let connected = self.connected();
        if let Ok(sender) = &connected {
            let _ = sender.send(Sent { args, at: self.shared.now(), answer });
        }
        let patience = self.patience;
        Box::pin(async move {
            if let Err(after) = connected {
                tokio::time::sleep(after).await;
                return Err(io::Error::from(io::ErrorKind::ConnectionRefused).into());
            }
            match tokio::time::timeout(patience, hear).await {
                Ok(Ok(value)) => Ok(value),
                Ok(Err(_)) => Err(io::Error::from(io::ErrorKind::BrokenPipe).into()),
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
            }
        })
    }
}

/// What a message needs to get to the other side.
fn travel(shared: &Shared) -> Duration {
    let mut state = shared.lock();
    let slow = state.happens(shared.plan.network.slow);
    Duration::from_millis(match (state.calm, slow) {
        (true, _) => 1,
        (false, false) => u64::from(state.network.u32(0..4) == 0) + 1,
        (false, true) => state.network.u64(3..=60),
    })
}

/// Whether the connection of this epoch still stands, once nothing is cut.
async fn passes(shared: &Shared, instance: &Instance, epoch: u64) -> bool {
    loop {
        let weather = shared.weather.notified();
        if shared.lock().epoch != epoch {
            return false;
        }
        if !instance.is_cut() {
            return true;
        }
        weather.await;
    }
}

async fn serve(
    shared: Arc<Shared>,
    instance: Arc<Instance>,
    epoch: u64,
    mut sent: mpsc::UnboundedReceiver<Sent>,
    back: mpsc::UnboundedSender<Back>,
) {
    let mut last_write = 0;
    while let Some(Sent { args, at, answer }) = sent.recv().await {
        shared.sleep_until(at + travel(&shared)).await;
        if !passes(&shared, &instance, epoch).await {
            return; // whoever waits for an answer finds the connection broken
        }
        let breaks = shared.plan.network.redis_line_breaks;
        let (breaks_before, breaks_after) = {
            let mut state = shared.lock();
            let breaks = !state.calm && state.network.u32(0..10_000) < breaks;
            let before = state.network.bool();
            (breaks && before, breaks && !before)
        };
        if breaks_before {
            shared.note(|| format!("broken   {} {}", instance.name, name_of(&args)));
            return;
        }
        let waits = is(&args[0], "wait") || is(&args[0], "waitaof");
        let reply = match waits {
            true => wait(&shared, epoch, &args, last_write).await,
            false => Some(carry_out(&shared, &instance.name, &args, &mut last_write)),
        };
        let Some(reply) = reply else { return };
        if breaks_after {
            shared.note(|| format!("broken   {} {}, carried out", instance.name, name_of(&args)));
            return;
        }
        let from = shared.now().max(shared.lock().synced_at);
        if back.send(Back { reply, at: from + travel(&shared), answer }).is_err() {
            return;
        }
    }
}

async fn bring_back(
    shared: Arc<Shared>,
    instance: Arc<Instance>,
    epoch: u64,
    mut backs: mpsc::UnboundedReceiver<Back>,
) {
    while let Some(Back { reply, at, answer }) = backs.recv().await {
        shared.sleep_until(at).await;
        if !passes(&shared, &instance, epoch).await {
            return;
        }
        let _ = answer.send(reply); // who asked may have gone
    }
}

fn name_of(args: &[Vec<u8>]) -> String {
    let name = commands::show(&args[0]);
    if !is(&args[0], "evalsha") {
        return name;
    }
    let digest = commands::show(&args[1]);
    let scripts = rushline::store::scripts::all();
    scripts.iter().find(|script| script.digest == digest).map_or(name, |script| script.name.to_owned())
}

/// Has Redis carry out a command, and looks at what that did.
fn carry_out(shared: &Shared, who: &str, args: &[Vec<u8>], last_write: &mut u64) -> Value {
    let (now, elapsed) = (shared.now(), shared.elapsed());
    let mut state = shared.lock();
    let state = &mut *state;
    state.server.settle_rewrite(now);
    let done = state.server.run(now, args);
    state.count("commands");
    if done.wrote || is(&args[0], "evalsha") {
        let reply = short(&done.reply);
        state.trace.note(elapsed, || format!("redis    {who} {} {reply}", name_of(args)));
    } else if let Some(error) = reply::message_of(&done.reply) {
        state.trace.note(elapsed, || format!("redis    {who} {} {error}", name_of(args)));
    } else {
        let reply = format!("{who} {} {:?}", args.len(), done.reply);
        state.trace.add(reply.as_bytes());
    }
    if done.wrote {
        *last_write = state.server.writes;
        if state.server.fsync == Fsync::Always {
            let synced = now + Duration::from_millis(u64::from(!state.calm) * state.network.u64(0..=2));
            state.synced_at = synced.max(state.synced_at);
            state.server.synced_from(state.synced_at, now);
        }
        state.count("writes");
        let at = Now { world: now, redis_ms: state.server.clock(now).as_millis() as u64 };
        let wrong = state.ledger.look(&state.server.db, state.server.writes, at, &state.records);
        for wrong in wrong {
            state.wrong(format!("after {} of {who}: {wrong}", name_of(args)));
        }
    }
    done.reply
}

fn short(reply: &Value) -> String {
    let text = format!("{reply:?}").replace("bulk-string", "");
    text.chars().take(160).collect()
}

/// WAIT and WAITAOF: `None` if the connection breaks meanwhile.
async fn wait(shared: &Shared, epoch: u64, args: &[Vec<u8>], write: u64) -> Option<Value> {
    let number = |at: usize| args.get(at).and_then(|arg| commands::integer(arg)).unwrap_or_default();
    let on_disk = is(&args[0], "waitaof");
    let patience = Duration::from_millis(number(args.len() - 1) as u64);
    let deadline = shared.now() + patience;
    loop {
        let progress = shared.progress.notified();
        {
            let now = shared.now();
            let state = shared.lock();
            if state.epoch != epoch {
                return None;
            }
            let disk = i64::from(state.server.on_disk(now) >= write);
            let replicas = state.server.replicas.iter().filter(|has| **has >= write).count() as i64;
            let enough = if on_disk { disk >= number(1) && replicas >= number(2) } else { replicas >= number(1) };
            if enough || now >= deadline {
                return Some(match on_disk {
                    true => Value::Array(vec![Value::Int(disk), Value::Int(replicas)]),
                    false => Value::Int(replicas),
                });
            }
        }
        tokio::select! {
            biased;
            () = progress => {}
            () = shared.sleep_until(deadline) => {}
        }
    }
}
