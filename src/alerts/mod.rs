//! Alerts: tells somebody, once, that something needs a person, and once more when it is over.
//!
//! What is wrong is noted here by whoever finds it ([`raise`], [`resolve`]; neither waits). One task tells of it: a key in
//! Redis says that it was told, so that of all nodes one does, and a node that starts anew does not again. The key runs out
//! after `alerts.repeat_after_s`: what nobody ended is told again then. Without Redis each node goes by its own memory.
//!
//! An alert is a warning in the log, a count in the metrics and, where `alerts.url` is set, a webhook, signed as those of
//! sales are. It names what is wrong and where, never a payload, and of a URL the host alone.

mod tell;
mod watch;

use crate::outside;
use crate::store::redis::Redis;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

pub use watch::watch;

/// Alerts of one kind that a node has open at once. When a service is down thousands of orders wait for it: whoever has
/// read the first hundred knows.
const OPEN_MAX: usize = 100;
/// Ends of alerts that another node raised, waiting to be told.
const FOREIGN_MAX: usize = 1_000;

static ALERTS: OnceLock<Alerts> = OnceLock::new();

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The order endpoint has not answered for good, `delivery.attention_after` times.
    OrderStuck,
    /// A branch has not answered clearly, `trans.alert_after` times in a row.
    TransactionStuck,
    /// A sale sells nothing, because Redis lost what it had acknowledged.
    SaleFenced,
    /// Finished orders cannot be written to the records, for `alerts.records_down_s`.
    RecordsAway,
    /// New orders and transactions are refused, because Redis is nearly full.
    RedisFull,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OrderStuck => "order.stuck",
            Self::TransactionStuck => "transaction.stuck",
            Self::SaleFenced => "sale.fenced",
            Self::RecordsAway => "records.away",
            Self::RedisFull => "redis.full",
        }
    }
}

#[derive(Clone)]
pub struct Settings {
    pub url: Option<String>,
    /// What signs; a secret in the form of Standard Webhooks.
    pub secret: Option<String>,
    pub repeat_after: Duration,
    /// This node's name.
    pub node: String,
}

struct Alerts {
    open: Mutex<Open>,
    changed: Notify,
}

#[derive(Default)]
struct Open {
    by_subject: HashMap<(Kind, String), Known>,
    /// Over, and raised by another node if at all.
    foreign: Vec<(Kind, String)>,
}

/// Something that is wrong, or was until a moment ago.
struct Known {
    text: String,
    over: bool,
    /// When it was last said to be wrong.
    raised: Instant,
    /// When Redis was last asked whether it is told of; `None`: not yet.
    asked: Option<Instant>,
}

/// Has alerts told from now on.
pub fn start(redis: Arc<Redis>, settings: Settings) {
    let alerts = ALERTS.get_or_init(|| Alerts { open: Mutex::default(), changed: Notify::new() });
    outside::chore((redis, settings), move |(redis, settings)| tell::run(alerts, redis, settings));
}

/// Something is wrong with `subject`. Said again while it goes on, it is one alert. `text` is for people.
pub fn raise(kind: Kind, subject: &str, text: impl FnOnce() -> String) {
    let Some(alerts) = ALERTS.get() else { return };
    let mut open = alerts.open();
    let key = (kind, subject.to_owned());
    if let Some(known) = open.by_subject.get_mut(&key) {
        (known.over, known.raised) = (false, Instant::now());
        alerts.changed.notify_one();
        return;
    }
    if open.by_subject.keys().filter(|(of, _)| *of == kind).count() >= OPEN_MAX {
        metrics::counter!("rushline_alerts_total", "kind" => kind.as_str(), "result" => "suppressed").increment(1);
        return;
    }
    open.by_subject.insert(key, Known { text: text(), over: false, raised: Instant::now(), asked: None });
    alerts.changed.notify_one();
}

/// What may have been wrong with `subject` is over, whoever raised it.
pub fn resolve(kind: Kind, subject: &str) {
    let Some(alerts) = ALERTS.get() else { return };
    let mut open = alerts.open();
    let key = (kind, subject.to_owned());
    if let Some(known) = open.by_subject.get_mut(&key) {
        known.over = true;
    } else if open.foreign.len() < FOREIGN_MAX {
        open.foreign.push(key); // above it, a key in Redis runs out
    }
    alerts.changed.notify_one();
}

impl Alerts {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
