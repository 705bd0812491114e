//! Webhooks: tells a shop of each order's end, signed, again and again until it says 2xx or time is up.
//!
//! What is to be told stands in Redis, in the stream `hooks` of the order's partition: the drain puts it there in the very
//! step that takes the finished order away (`entry_drained`), so nothing is lost between the two, and an order's end is
//! told after the records have it. From there a node takes it by a consumer group; what a dead node held, another takes
//! over. A receiver may hear the same twice, with the same `webhook-id`.

pub mod call;
mod signature;

use crate::domain::ids::EntryId;
use crate::domain::order::Record;
use crate::domain::retry::backoff;
use crate::outside;
use crate::sale::Part;
use crate::sale::node::Node;
use crate::store;
use crate::store::hooks::Hook;
use metrics::counter;
use serde_json::json;
use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Hooks of one partition that a node holds; the others wait in Redis.
const HELD_MAX: usize = 256;
/// Calls under way for one partition.
const CALLS_MAX: usize = 16;
/// How often a partition is looked at without news.
const LOOK_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, Clone)]
pub struct Settings {
    /// Delay before the first repeat; it doubles from there.
    pub retry_base: Duration,
    pub retry_max: Duration,
    /// How long after an order's end its webhook is still called.
    pub give_up_after: Duration,
}

/// What a shop hears of an order that ended: `(webhook-id, body)`.
pub fn message(record: &Record) -> (String, String) {
    let id = format!("{}.{}", record.gid, record.status.as_str());
    let at = jiff::Timestamp::from_millisecond(record.finished_ms as i64).unwrap_or_default();
    let body = json!({
        "id": id, "type": "order.ended", "gid": record.gid.to_string(), "sale": record.gid.sale.as_str(),
        "buyer": record.buyer, "status": record.status, "reason": record.reason, "items": record.items, "at": at,
    });
    (id, body.to_string())
}

/// Starts a worker for every partition of every sale that is open here and has a webhook.
pub async fn run(node: Arc<Node>, settings: Settings) {
    let mut working: HashSet<String> = HashSet::new();
    loop {
        for open in node.all_opened() {
            if open.sale.stored.load().settings.webhook.is_none() {
                continue;
            }
            for part in open.parts() {
                if working.insert(part.keys.hooks.clone()) {
                    let with = (node.clone(), part.clone(), settings.clone());
                    outside::chore(with, |(node, part, settings)| Worker::new(node, part, settings).run());
                }
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

struct Held {
    hook: Hook,
    attempts: u32,
    due: Instant,
    calling: bool,
}

struct Worker {
    node: Arc<Node>,
    part: Arc<Part>,
    settings: Settings,
    held: BTreeMap<EntryId, Held>,
    renew_at: Instant,
}

impl Worker {
    fn new(node: Arc<Node>, part: Arc<Part>, settings: Settings) -> Self {
        Self { node, part, settings, held: BTreeMap::new(), renew_at: Instant::now() }
    }

    async fn run(mut self) {
        let mut calls: JoinSet<(EntryId, Result<(), String>)> = JoinSet::new();
        loop {
            if let Err(error) = self.take().await {
                tracing::debug!(sale = %self.part.name, %error, "webhooks wait for Redis");
            }
            self.start_due(&mut calls);
            let wake = self.held.values().filter(|held| !held.calling).map(|held| held.due).min();
            let wake = wake.unwrap_or(self.renew_at).min(Instant::now() + LOOK_EVERY);
            // Those that are due and found no place begin when a call ends.
            let wake = if calls.len() < CALLS_MAX { wake } else { Instant::now() + LOOK_EVERY };
            tokio::select! {
                Some(Ok((id, answer))) = calls.join_next() => self.answered(id, answer).await,
                () = self.part.hooked.notified() => {}
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    /// Takes new hooks, and in every lease keeps its own and looks for those of dead nodes.
    async fn take(&mut self) -> Result<(), store::Error> {
        let (redis, keys, node) = (&self.node.redis, &self.part.keys, &self.node.name);
        let lease = self.node.limits.lease;
        let mut found = Vec::new();
        if Instant::now() >= self.renew_at {
            self.renew_at = Instant::now() + lease;
            let held: Vec<EntryId> = self.held.keys().copied().collect();
            redis.keep_hooks(keys, node, &held).await?;
            // A slow call is no death: several leases.
            found = redis.take_over_hooks(keys, node, lease * 3, HELD_MAX - self.held.len()).await?;
        }
        if self.held.len() + found.len() < HELD_MAX {
            found.extend(redis.new_hooks(keys, node, HELD_MAX - self.held.len() - found.len()).await?);
        }
        for (id, hook) in found {
            let held = Held { hook, attempts: 0, due: Instant::now(), calling: false };
            self.held.entry(id).or_insert(held);
        }
        Ok(())
    }

    fn start_due(&mut self, calls: &mut JoinSet<(EntryId, Result<(), String>)>) {
        let now = Instant::now();
        for (id, held) in &mut self.held {
            if calls.len() >= CALLS_MAX {
                return;
            }
            if held.calling || held.due > now {
                continue;
            }
            held.calling = true;
            held.attempts += 1;
            let (id, hook) = (*id, held.hook.clone());
            // Each try goes where the sale says now: a wrong address can be mended while its calls wait.
            let webhook = self.part.stored.load().settings.webhook.clone();
            calls.spawn(async move {
                let answer = match webhook {
                    Some(webhook) => call::call(&webhook, &hook).await,
                    None => Err("the sale has no webhook any more".into()),
                };
                (id, answer)
            });
        }
    }

    async fn answered(&mut self, id: EntryId, answer: Result<(), String>) {
        let Some(held) = self.held.get_mut(&id) else { return };
        held.calling = false;
        let gid = held.hook.id.clone();
        match answer {
            Ok(()) => counter!("rushline_webhooks_total", "result" => "delivered").increment(1),
            Err(error) if age_of(id) < self.settings.give_up_after => {
                let retry = NonZeroU32::new(held.attempts).expect("a call was made");
                let ceiling = backoff(retry, self.settings.retry_base, self.settings.retry_max);
                let delay = ceiling.mul_f64(0.5 + fastrand::f64() / 2.0);
                tracing::debug!(webhook_id = gid, attempts = held.attempts, error, "a webhook is called again later");
                counter!("rushline_webhooks_total", "result" => "failed").increment(1);
                held.due = Instant::now() + delay;
                return;
            }
            Err(error) => {
                tracing::warn!(
                    webhook_id = gid,
                    attempts = held.attempts,
                    error,
                    "a webhook is given up; the records have the order"
                );
                counter!("rushline_webhooks_total", "result" => "given_up").increment(1);
            }
        }
        crate::crash::point("webhook.after_call");
        match self.node.redis.forget_hook(&self.part.keys, id).await {
            Ok(()) => {
                self.held.remove(&id);
            }
            Err(error) => {
                // It is told once more, with the same id.
                tracing::debug!(webhook_id = gid, %error, "a webhook that was told is not forgotten yet");
                held.due = Instant::now() + self.settings.retry_base;
            }
        }
    }
}

/// Since its order was drained, as far as this machine's clock agrees with that of Redis.
fn age_of(id: EntryId) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_millis(id.ms))
}
