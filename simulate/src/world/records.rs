//! The records: a table that outlives every node, and sometimes is away, or writes and does not say so.

use super::shared::Shared;
use futures_util::future::BoxFuture;
use rushline::domain::order::{Record, Status};
use rushline::reconciler::sink::{Error, Given, Returned};
use std::sync::Arc;
use std::time::Duration;

/// A record as it was first written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub status: Status,
    pub buyer: String,
    pub payload: String,
    pub items: Vec<(String, u32)>,
}

impl Kept {
    fn of(record: &Record) -> Self {
        Self {
            status: record.status,
            buyer: record.buyer.as_str().to_owned(),
            payload: record.payload.clone(),
            items: record.items.iter().map(|item| (item.sku.as_str().to_owned(), item.quantity)).collect(),
        }
    }
}

/// A node's way to them.
pub struct Drawer {
    shared: Arc<Shared>,
}

impl Drawer {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

fn away() -> Error {
    Error::Url { redacted: "simulated".into(), problem: "is away".into() }
}

impl Given for Drawer {
    fn write(&self, records: Vec<Record>) -> BoxFuture<'static, Result<(), Error>> {
        let shared = self.shared.clone();
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(2)).await;
            let breaks_at = {
                let mut state = shared.lock();
                match (state.records_are_up, state.happens(10)) {
                    (false, _) => return Err(away()),
                    (true, false) => records.len() + 1,
                    // Of these so many are written, and then nobody hears so.
                    (true, true) => state.network.usize(0..=records.len()),
                }
            };
            for record in records.iter().take(breaks_at) {
                put(&shared, record);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
            if breaks_at <= records.len() { Err(away()) } else { Ok(()) }
        })
    }

    fn write_returns(&self, _: Vec<Returned>) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }
}

fn put(shared: &Shared, record: &Record) {
    let now = shared.now();
    let (gid, kept) = (record.gid.to_string(), Kept::of(record));
    shared.note(|| format!("record   {gid} {:?}", kept.status));
    let mut state = shared.lock();
    let state = &mut *state;
    state.count("records");
    let end = state.ledger.end_written(&gid);
    match end {
        None => state.wrong(format!("{gid} is put into the records, and its end is not in Redis")),
        Some(write) if !state.is_durable(&shared.plan, write, now) => {
            state.wrong(format!("{gid} is put into the records before its end is durable"));
        }
        Some(_) => {}
    }
    match state.records.get(&gid) {
        Some(earlier) if *earlier != kept => {
            let wrong = format!("{gid} was recorded as {earlier:?} and now is as {kept:?}");
            state.wrong(wrong);
        }
        Some(_) => {}
        None => {
            state.records.insert(gid, kept);
        }
    }
}
