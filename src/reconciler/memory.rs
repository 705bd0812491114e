//! Draining from memory what this node ended itself: see [`crate::sale::finished`]. One write to the sink for all sales,
//! then one script a partition to have Redis forget.

use super::{Error, Reconciler, hooks, sold};
use crate::crash;
use crate::domain::ids::EntryId;
use crate::domain::order::{Order, Record};
use crate::sale::Part;
use crate::sale::finished::{Batch, EndedEntry};
use crate::store::notices::Notice;
use crate::store::orders::{Address, status_of};
use crate::zoo;
use metrics::{counter, histogram};
use std::collections::HashSet;
use std::sync::Arc;

/// Entries that one script forgets: it holds Redis for as long as that takes.
const ENTRIES_MAX: usize = 256;

/// Records ready to be written, and what Redis may forget once they are.
pub(super) struct Prepared {
    records: Vec<Record>,
    shares: Vec<Share>,
}

/// What there is of one partition: its records stand together.
struct Share {
    part: Arc<Part>,
    notices: Vec<Notice>,
    /// The ends of those that are known, a character an order.
    ended: Vec<(EntryId, Vec<u8>)>,
    unknown: Vec<EntryId>,
    details: Vec<Address>,
    records: std::ops::Range<usize>,
}

impl Prepared {
    fn new(mut batches: Vec<Batch>) -> Self {
        let orders = batches.iter().map(Batch::orders).sum();
        let mut prepared = Self { records: Vec::with_capacity(orders), shares: Vec::new() };
        // An end that a failover took back was written again, and waits here twice: the later one is what Redis has.
        let mut seen = HashSet::new();
        for batch in batches.iter_mut().rev() {
            let part = Arc::as_ptr(&batch.part);
            batch.entries.retain(|ended| seen.insert((part, ended.entry.id)));
        }
        // Stable: those of a partition stay in order.
        batches.sort_by(|a, b| (a.part.name.as_str(), a.part.number).cmp(&(b.part.name.as_str(), b.part.number)));
        for batch in batches {
            prepared.add(batch);
        }
        prepared
    }

    fn add(&mut self, batch: Batch) {
        let start = self.records.len();
        if self.shares.last().is_none_or(|share| !Arc::ptr_eq(&share.part, &batch.part)) {
            self.shares.push(Share {
                part: batch.part.clone(),
                notices: Vec::new(),
                ended: Vec::new(),
                unknown: Vec::new(),
                details: Vec::new(),
                records: start..start,
            });
        }
        let share = self.shares.last_mut().expect("pushed above");
        let known = batch.entries.iter().map(|ended| ended.entry.id);
        let entries = known.chain(batch.unknown.iter().copied()).collect();
        share.notices.push(Notice { id: batch.notice, entries });
        share.unknown.extend(batch.unknown);
        for ended in batch.entries {
            let entry = ended.entry.id;
            share.ended.push((entry, ended.codes.clone()));
            share.details.extend(ended.details.iter().map(|(index, _)| Address { entry, index: *index }));
            records(&share.part, ended, batch.notice.ms, &mut self.records);
        }
        share.records.end = self.records.len();
    }
}

impl Reconciler {
    /// Drains what waits in memory. What could not be written stays in `self.owed`, to be the first next time.
    pub(super) async fn drain_memory(&mut self) -> Result<(), Error> {
        loop {
            let prepared = match self.owed.take() {
                Some(owed) => owed,
                None => Prepared::new(self.node.finished.take(self.batch_max)),
            };
            if prepared.shares.is_empty() {
                return Ok(());
            }
            if let Err(error) = self.write_memory(&prepared).await {
                self.owed = Some(prepared);
                return Err(error);
            }
        }
    }

    async fn write_memory(&self, prepared: &Prepared) -> Result<(), Error> {
        let mut shares = Vec::with_capacity(prepared.shares.len());
        for share in &prepared.shares {
            self.node.confirm_durable(&share.part).await?;
            match self.stands(share).await? {
                true => shares.push(share),
                false => {
                    tracing::warn!(sale = %share.part.name, "Redis came back without some ends of orders; their orders are called again before they are recorded");
                }
            }
        }
        let written = match shares.len() == prepared.shares.len() {
            true => self.write(&prepared.records).await,
            false => {
                let records = shares.iter().flat_map(|share| &prepared.records[share.records.clone()]);
                self.write(&records.cloned().collect::<Vec<_>>()).await
            }
        };
        match written {
            // One order that its database does not take must not hold up all others: by entries, as a sweep does it.
            Err(Error::Sink(super::sink::Error::Refused { .. })) => {
                for share in shares {
                    self.settle(&share.part, &share.notices).await?;
                }
                return Ok(());
            }
            other => other?,
        }
        for share in shares {
            if !share.unknown.is_empty() {
                let finished: Vec<_> = share
                    .notices
                    .iter()
                    .flat_map(|notice| notice.entries.iter().map(|entry| (*entry, notice.id.ms)))
                    .filter(|(entry, _)| share.unknown.contains(entry))
                    .collect();
                self.settle_entries(&share.part, &finished).await?;
            }
            let notices: Vec<EntryId> = share.notices.iter().map(|notice| notice.id).collect();
            let records = &prepared.records[share.records.clone()];
            let (sold, mut hooks) = (sold(records), hooks(&share.part, records));
            let keys = &share.part.keys;
            // Details first, or a crash in between leaves some of entries that are gone. Notices last: they find the rest.
            let mut details = &share.details[..];
            for some in sold.chunks(ENTRIES_MAX) {
                let entries: HashSet<EntryId> = some.iter().map(|(entry, _)| *entry).collect();
                // Hooks stand in the order of their entries.
                let later = hooks.split_off(hooks.partition_point(|(entry, _)| entries.contains(entry)));
                self.node.redis.drained(keys, &[], some, details, &hooks).await?;
                (details, hooks) = (&[], later);
            }
            self.node.redis.drained(keys, &notices, &[], &[], &[]).await?;
            share.part.hooked.notify_one();
        }
        crash::point("drain.after_forget");
        Ok(())
    }

    /// Are these ends still what Redis has? It may have been restarted since without the last of them, and then it is not
    /// known any more how their orders end. What is dropped here a sweep finds by its notice, when there is one again.
    async fn stands(&self, share: &Share) -> Result<bool, Error> {
        if zoo::planted("records trust memory after a restart") {
            return Ok(true);
        }
        for some in share.ended.chunks(ENTRIES_MAX) {
            let ids: Vec<EntryId> = some.iter().map(|(entry, _)| *entry).collect();
            let outcomes = self.node.redis.outcomes(&share.part.keys, &ids).await?;
            // One that is gone has been put into the records by another node.
            let stands = |((_, codes), outcome): (&(EntryId, Vec<u8>), Option<String>)| {
                outcome.is_none_or(|outcome| outcome.as_bytes() == codes)
            };
            if !some.iter().zip(outcomes).all(stands) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes records durably.
    pub(super) async fn write(&self, records: &[Record]) -> Result<(), Error> {
        let sink = self.records.sink().await?;
        crash::point("drain.before_write");
        let started = tokio::time::Instant::now();
        for batch in records.chunks(self.batch_max) {
            match sink.write(batch).await {
                Err(_) if zoo::planted("a failed write is taken for written") => {}
                other => other?,
            }
        }
        histogram!("rushline_records_write_seconds").record(started.elapsed());
        counter!("rushline_records_written_total").increment(records.len() as u64);
        crash::point("drain.after_write");
        Ok(())
    }
}

/// The records of one entry. Its orders are usually nobody else's any more, and then nothing is copied.
fn records(part: &Part, ended: EndedEntry, finished_ms: u64, records: &mut Vec<Record>) {
    let entry = ended.entry.id;
    let orders = match Arc::try_unwrap(ended.entry) {
        Ok(entry) => entry.orders,
        Err(shared) => shared.orders.clone(),
    };
    let mut details = ended.details;
    details.sort_unstable_by_key(|(index, _)| *index);
    let mut details = details.into_iter().peekable();
    for ((index, order), code) in (0..).zip(orders).zip(ended.codes) {
        let detail = details.next_if(|(of, _)| *of == index).map(|(_, detail)| detail).unwrap_or_default();
        let Order { buyer, items, payload, .. } = order;
        records.push(Record {
            gid: part.gid(Address { entry, index }),
            buyer,
            items,
            payload: payload.map_or_else(|| "null".to_owned(), |payload| Box::<str>::from(payload).into_string()),
            status: status_of(code),
            reason: detail.message.filter(|_| code == b'f'),
            attempts: detail.attempts.max(1),
            admitted_ms: entry.ms,
            finished_ms,
            returned: Vec::new(),
        });
    }
}
