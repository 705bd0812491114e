//! The reconciler: drains finished orders from Redis to the records, and audits that nothing was lost on the way.
//! Finished global transactions go the same way: see [`transactions`].
//!
//! What this node ended it drains from memory ([`memory`]). What others left behind it finds by notices of finished entries
//! (`finished` stream, group `records`) and reads from Redis. Either way the orders are written to the sink first, and only
//! then has Redis forget them. Dying anywhere in between changes nothing: writing is idempotent by gid, and what was not
//! forgotten is read again, by this node or another.

mod address;
pub mod audit;
mod memory;
pub mod mongo;
pub mod repair;
mod returns;
pub mod search;
pub mod sink;
pub mod sql;
mod transaction;
pub mod transactions;

use crate::crash;
use crate::domain::ids::EntryId;
use crate::domain::order::{Item, Record, Status};
use crate::domain::reservation::State;
use crate::sale::Part;
use crate::sale::node::Node;
use crate::store;
use crate::store::hooks::Hook;
use crate::store::notices::Notice;
use crate::store::orders::{Address, Detail, Entry, status_of};
use crate::store::reservations::items_text;
use crate::webhook;
use crate::zoo;
use metrics::{counter, gauge};
use sink::Sink;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// Notices read by one command. Each names up to as many entries as one finish script ends.
const NOTICES_MAX: usize = 8;
/// Entries read back from Redis at once.
const ENTRIES_MAX: usize = 32;
/// How long a round lets finished orders gather: a write of many costs hardly more than a write of one.
const GATHER: Duration = Duration::from_millis(50);
/// Longest pause after the sink failed.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The records, opened when they can be: a database that is away must not keep a sale from opening.
pub struct Records {
    url: String,
    sink: OnceCell<Sink>,
    /// Since when nothing could be written; `None` while all is well, as far as this node knows.
    away_since: Mutex<Option<Instant>>,
}

impl Records {
    pub fn new(url: &str) -> Arc<Self> {
        Arc::new(Self { url: url.to_owned(), sink: OnceCell::new(), away_since: Mutex::default() })
    }

    /// Records that a simulator keeps.
    pub fn given(sink: Arc<dyn sink::Given>) -> Arc<Self> {
        Arc::new(Self {
            url: String::new(),
            sink: OnceCell::new_with(Some(Sink::Given(sink))),
            away_since: Mutex::default(),
        })
    }

    /// For how long nothing could be written; `None`: all is well, or nothing is to be written.
    pub fn away_for(&self) -> Option<Duration> {
        self.away().map(|since| since.elapsed())
    }

    fn note(&self, well: bool) {
        let mut since = self.away();
        *since = if well { None } else { since.or_else(|| Some(Instant::now())) };
    }

    fn away(&self) -> MutexGuard<'_, Option<Instant>> {
        self.away_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What kind it is, once it was opened.
    pub fn opened(&self) -> Option<&'static str> {
        self.sink.get().map(Sink::kind)
    }

    pub async fn sink(&self) -> Result<&Sink, sink::Error> {
        self.sink.get_or_try_init(|| Sink::open(&self.url)).await
    }
}

/// Why a round was cut short. Everything is tried again.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Sink(#[from] sink::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
}

pub struct Reconciler {
    pub node: Arc<Node>,
    pub records: Arc<Records>,
    /// Most records of one write.
    pub batch_max: usize,
    /// Undrained entries above which the log warns.
    pub backlog_alarm: u64,
    /// What was taken from memory and is not written yet.
    owed: Option<memory::Prepared>,
}

impl Reconciler {
    pub fn new(node: Arc<Node>, records: Arc<Records>, batch_max: usize, backlog_alarm: u64) -> Self {
        Self { node, records, batch_max, backlog_alarm, owed: None }
    }

    /// Drains until the server ends. Rounds follow the news of finished orders; a slower beat finds what other nodes
    /// left behind.
    pub async fn run(mut self) {
        let beat = self.node.limits.lease / 2;
        let mut pause = Duration::ZERO;
        let mut swept = tokio::time::Instant::now() - beat;
        loop {
            let thorough = swept.elapsed() >= beat;
            let result = if thorough { self.sweep().await } else { self.drain_memory().await };
            if thorough {
                swept = tokio::time::Instant::now();
            }
            match result {
                Ok(()) => {
                    self.records.note(true);
                    pause = Duration::ZERO;
                    let news = self.node.finished.news();
                    if tokio::time::timeout(beat.saturating_sub(swept.elapsed()), news).await.is_ok() {
                        tokio::time::sleep(GATHER).await;
                    }
                }
                Err(error) => {
                    if matches!(error, Error::Sink(_)) {
                        self.records.note(false);
                    }
                    counter!("rushline_records_errors_total").increment(1);
                    pause = (pause * 2).clamp(Duration::from_millis(100), PAUSE_MAX);
                    tracing::warn!(%error, retry_ms = pause.as_millis() as u64, "finished orders wait in Redis for the records");
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    /// Drains what is in memory, and then for every sale there is what this node owes or silent ones left behind.
    async fn sweep(&mut self) -> Result<(), Error> {
        self.drain_memory().await?;
        let mut undrained = 0;
        for name in self.node.redis.sale_names().await? {
            let Some(open) = self.node.open(&name).await? else { continue };
            for part in &open.parts() {
                undrained += self.sweep_part(part).await?;
            }
        }
        gauge!("rushline_records_backlog_entries").set(undrained as f64);
        if undrained > self.backlog_alarm {
            tracing::warn!(
                entries = undrained,
                "more finished entries wait for the records than records.backlog_alarm allows"
            );
        }
        Ok(())
    }

    /// Answers how many entries wait here.
    async fn sweep_part(&self, part: &Part) -> Result<u64, Error> {
        self.carry_returns(part).await?;
        let waiting = self.node.redis.backlog(&part.keys).await?;
        if waiting.finished > 0 && !zoo::planted("notices of a dead node are not drained") {
            self.drain_owed(part).await?;
            let (node, lease) = (&self.node.name, self.node.limits.lease);
            loop {
                let notices = self.node.redis.old_notices(&part.keys, node, lease, NOTICES_MAX).await?;
                if notices.is_empty() {
                    break;
                }
                self.settle(part, &notices).await?;
            }
            // A slow write is no death: wait for several leases before taking another reconciler's notices.
            loop {
                let notices = self.node.redis.take_over_notices(&part.keys, node, lease * 3, NOTICES_MAX).await?;
                if notices.is_empty() {
                    break;
                }
                self.settle(part, &notices).await?;
            }
        }
        Ok(waiting.entries.saturating_sub(waiting.undelivered_entries))
    }

    /// Works through the notices that this node was given and still owes.
    async fn drain_owed(&self, part: &Part) -> Result<(), Error> {
        let mut from = "0".to_owned();
        loop {
            let notices = self.node.redis.notices(&part.keys, &self.node.name, &from, NOTICES_MAX).await?;
            let Some(last) = notices.last() else { return Ok(()) };
            from = last.id.to_string(); // a notice that stays owed must not be read for ever
            self.settle(part, &notices).await?;
        }
    }

    /// Writes all entries of these notices to the records, then has Redis forget them.
    async fn settle(&self, part: &Part, notices: &[Notice]) -> Result<(), Error> {
        let finished: Vec<(EntryId, u64)> =
            notices.iter().flat_map(|notice| notice.entries.iter().map(|entry| (*entry, notice.id.ms))).collect();
        self.node.confirm_durable(part).await?;
        let mut stuck = false;
        for some in finished.chunks(ENTRIES_MAX) {
            match self.settle_entries(part, some).await {
                // One order that its database does not take must not hold up all others; it stays in Redis.
                Err(Error::Sink(error @ sink::Error::Refused { .. })) => {
                    counter!("rushline_records_errors_total").increment(1);
                    tracing::error!(sale = %part.name, %error, "a finished order is refused by the records; its batch stays in Redis");
                    stuck = true;
                }
                other => other?,
            }
        }
        if !stuck {
            let notices: Vec<EntryId> = notices.iter().map(|notice| notice.id).collect();
            self.node.redis.drained(&part.keys, &notices, &[], &[], &[]).await?;
        }
        Ok(())
    }

    async fn settle_entries(&self, part: &Part, finished: &[(EntryId, u64)]) -> Result<(), Error> {
        let keys = &part.keys;
        let ids: Vec<EntryId> = finished.iter().map(|(id, _)| *id).collect();
        let mut entries = self.node.redis.entries(keys, &ids).await?;
        // A notice may outlive what it tells of: in the hands of a node, while Redis came back without it.
        entries.retain(|entry| has_ended(&entry.outcome));
        let details = self.details(part, &entries).await?;
        let finished_ms: HashMap<EntryId, u64> = finished.iter().copied().collect();
        let paid = self.paid_in_part(part, &entries).await?;
        let records = records(part, &entries, &details, &paid, &finished_ms);
        self.write(&records).await?;
        let with_detail: Vec<Address> = details.keys().copied().collect();
        let hooks = hooks(part, &records);
        self.node.redis.drained(keys, &[], &sold(&records), &with_detail, &hooks).await?;
        self.node.redis.forget_parts(keys, paid.keys()).await?;
        part.hooked.notify_one();
        crash::point("drain.after_forget");
        Ok(())
    }

    /// What is paid of orders that are paid in part.
    async fn paid_in_part(&self, part: &Part, entries: &[Entry]) -> Result<HashMap<Address, Vec<Item>>, Error> {
        if part.reserve_ms.is_none() {
            return Ok(HashMap::new());
        }
        let paid = |entry: &Entry| -> Vec<Address> {
            let codes = entry.outcome.bytes().zip(0..);
            codes.filter(|(code, _)| *code == b's').map(|(_, index)| Address { entry: entry.id, index }).collect()
        };
        let paid: Vec<Address> = entries.iter().flat_map(paid).collect();
        let extras = self.node.redis.reservation_extras(&part.keys, &paid).await?;
        Ok(paid.into_iter().zip(extras).filter_map(|(address, (_, part))| Some((address, part?))).collect())
    }

    async fn details(&self, part: &Part, entries: &[Entry]) -> Result<HashMap<Address, Detail>, Error> {
        let keys = &part.keys;
        if entries.is_empty() || self.node.redis.detail_count(keys).await? == 0 {
            return Ok(HashMap::new()); // the usual case: every order went well at the first call
        }
        let addresses: Vec<Address> = entries
            .iter()
            .flat_map(|entry| (0..entry.frames.len() as u16).map(|index| Address { entry: entry.id, index }))
            .collect();
        let details = self.node.redis.details(keys, &addresses).await?;
        Ok(addresses.into_iter().zip(details).filter_map(|(address, (detail, _))| Some((address, detail?))).collect())
    }
}

/// Will nothing more happen to any order of an entry?
fn has_ended(outcome: &str) -> bool {
    outcome.bytes().all(|code| State::of_code(code).is_some_and(State::is_final))
}

fn records(
    part: &Part,
    entries: &[Entry],
    details: &HashMap<Address, Detail>,
    paid: &HashMap<Address, Vec<Item>>,
    finished_ms: &HashMap<EntryId, u64>,
) -> Vec<Record> {
    let mut records = Vec::new();
    for entry in entries {
        for (index, (frame, code)) in entry.frames.iter().zip(entry.outcome.bytes()).enumerate() {
            let address = Address { entry: entry.id, index: index as u16 };
            let detail = details.get(&address);
            let status = status_of(code);
            let paid = paid.get(&address);
            let refusal = detail.filter(|_| status == Status::Failed).and_then(|detail| detail.message.clone());
            records.push(Record {
                gid: part.gid(address),
                buyer: frame.buyer.clone(),
                items: paid.unwrap_or(&frame.items).clone(),
                payload: frame.payload.clone().unwrap_or_else(|| "null".into()),
                status,
                reason: paid.map(|_| format!("paid in part; ordered: {}", items_text(&frame.items))).or(refusal),
                attempts: detail.map_or(1, |detail| detail.attempts),
                admitted_ms: entry.id.ms,
                finished_ms: finished_ms.get(&entry.id).copied().unwrap_or(entry.id.ms),
                returned: Vec::new(),
            });
        }
    }
    records
}

/// What the shop is to be told of these orders; nothing if it wants to hear nothing.
fn hooks(part: &Part, records: &[Record]) -> Vec<(EntryId, Hook)> {
    if part.stored.load().settings.webhook.is_none() {
        return Vec::new();
    }
    let hook = |record: &Record| {
        let (id, body) = webhook::message(record);
        (record.gid.entry, Hook { id, body })
    };
    records.iter().map(hook).collect()
}

/// Units of each SKU that each entry's orders bought. The records of an entry stand together.
fn sold(records: &[Record]) -> Vec<(EntryId, HashMap<&str, u64>)> {
    records
        .chunk_by(|a, b| a.gid.entry == b.gid.entry)
        .map(|records| {
            let (mut sold, mut seen) = (HashMap::new(), HashSet::new());
            // Once, also where two notices tell of the same entry.
            let once = records.iter().filter(|record| seen.insert(record.gid.index));
            for record in once.filter(|record| record.status == Status::Succeed) {
                for item in &record.items {
                    *sold.entry(item.sku.as_str()).or_default() += u64::from(item.quantity);
                }
            }
            (records[0].gid.entry, sold)
        })
        .collect()
}
