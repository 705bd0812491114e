//! Repairing a sale that was fenced because Redis lost what it had acknowledged.
//!
//! 1. Books that are gone are put back from what this node read of them last.
//! 2. What nodes remembered (the `lost` hash) is brought back, the oldest first: an order that the records have takes its
//!    units and no more; one that they do not have is open again under its own gid, and delivered as any other. Where
//!    younger entries stand in the way it is settled here: the order service is asked with the same gid, and the records
//!    get its answer.
//! 3. If somebody may have been forgotten (a node that died too, a dump, a FLUSHALL), everything is counted anew from the
//!    records and the order service's list (`recount`), once nothing is on its way any more.
//! 4. The sale opens in a new term.
//!
//! Each step is one script that happens once, so a repair may be broken off anywhere, run twice, and run by two at a time.

mod recount;
pub mod watch;

use super::Records;
use super::sink::Sink;
use crate::domain::ids::Gid;
use crate::domain::order::{Item, Order, Record, Status};
use crate::domain::terms::{BY_BUYER, Terms};
use crate::driver::now_ms;
use crate::sale::delivery::{self, Verdict};
use crate::sale::node::Node;
use crate::sale::open::Open;
use crate::sale::{Entry, Job, Part};
use crate::store;
use crate::store::lost::LostEntry;
use crate::store::orders::Address;
use crate::store::repair::{Opened, Restored, Takes};
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How old a fence must be: every node that is there has written down by then what it remembers.
const GRACE: Duration = Duration::from_millis(1_000);
/// Gids that are named of each kind; the rest is counted.
const NAMED_MAX: usize = 10_000;
/// Between two looks at what there is no event for.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What was found and done.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    pub sale: String,
    /// It was fenced when this began.
    pub fenced: bool,
    /// It sells now.
    pub open: bool,
    /// Redis knew nothing of it, and its books were put back.
    pub rebuilt: bool,
    /// Open again, to be delivered once more with the same gid.
    pub replayed: Gids,
    /// In the records already: their units were taken.
    pub recorded: Gids,
    /// Could not be open again under their gid: the order service was asked, and the records have its answer.
    pub settled: Gids,
    /// Made at the order service and known to nobody here: records were written of them.
    pub found_at_service: Gids,
    /// Of the orders above, those for whose units there was no room any more: more was sold than there is.
    pub oversold: Gids,
    /// SKU → units by which more was sold than there is; they were added to `loaded`.
    pub oversold_units: std::collections::BTreeMap<String, u64>,
    /// Orders that were acknowledged and that no node remembers, at least.
    pub forgotten: u64,
    /// Units that the records have and Redis did not know of, when all was counted anew.
    pub recounted_units: u64,
    /// What is left to do, and by whom.
    pub problems: Vec<String>,
}

/// Some gids, and how many there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gids {
    pub count: u64,
    pub first: Vec<String>,
}

impl Gids {
    fn add(&mut self, gids: impl Iterator<Item = Gid>) {
        for gid in gids {
            self.count += 1;
            if self.first.len() < NAMED_MAX {
                self.first.push(gid.to_string());
            }
        }
    }
}

/// Repairs one sale, waiting up to `wait` for what is on its way. A sale that is not fenced is left alone, unless it is
/// to be counted anew as a `whole`: then it is fenced first, because somebody knows of a loss that no node knows of.
pub async fn repair(
    node: &Node,
    records: &Records,
    open: &Open,
    wait: Duration,
    whole: bool,
) -> anyhow::Result<Report> {
    let deadline = Instant::now() + wait;
    let mut report = Report { sale: open.sale.name.to_string(), ..Report::default() };
    report.rebuilt = rebuild(node, open).await?;
    let mut forgotten = report.rebuilt || whole;
    if whole {
        for part in open.parts() {
            node.redis.suspect(&part.keys).await?;
        }
    }
    let mut fenced = Vec::new();
    for part in open.parts() {
        node.redis.meet(&node.redis.seen(&part.keys)).await?;
        if let Some(fence) = node.redis.read_fence(&part.keys).await? {
            report.forgotten += fence.forgotten;
            forgotten |= fence.forgotten > 0;
            tokio::time::sleep(GRACE.saturating_sub(Duration::from_millis(fence.age_ms))).await;
            fenced.push(part);
        }
    }
    report.fenced = !fenced.is_empty();
    if fenced.is_empty() {
        report.open = true;
        return Ok(report);
    }
    let sink = records.sink().await.context("the records cannot be read; nothing was changed")?;
    let mut all_back = true;
    for part in &fenced {
        all_back &= bring_back(node, sink, part, deadline, &mut report).await?;
    }
    if all_back && forgotten {
        all_back = recount::recount(node, sink, open, deadline, &mut report).await?;
    }
    if all_back {
        report.open = true;
        for part in &fenced {
            // Nobody hears of an open sale before what was brought back is as durable as it was to be.
            node.confirm_durable(part).await?;
            report.open &= node.redis.unfence(&part.keys).await? != Opened::Left;
        }
        node.refresh(open).await?;
    }
    if open.sale.reserve_ms.is_some() {
        report.problems.push(
            "payments, cancellations and extensions that were acknowledged just before are gone: confirm again what was paid".into(),
        );
    }
    if !report.open {
        report.problems.push("the sale stays fenced; run the repair again".into());
    }
    tracing::warn!(
        sale = report.sale,
        open = report.open,
        replayed = report.replayed.count,
        recorded = report.recorded.count,
        settled = report.settled.count,
        oversold = report.oversold.count,
        forgotten = report.forgotten,
        "a fenced sale was repaired"
    );
    Ok(report)
}

/// Puts back what Redis knows nothing of any more.
async fn rebuild(node: &Node, open: &Open) -> anyhow::Result<bool> {
    let mut rebuilt = false;
    for part in open.parts() {
        let seen = node.redis.seen(&part.keys);
        if node.redis.load_sale(&part.keys).await?.is_some() {
            continue;
        }
        let books = seen.books().with_context(|| {
            format!(
                "Redis knows nothing of partition {} of sale {} any more, and this node never read its books; create the sale again as it was, with the same units, and repair it then",
                part.number, open.sale.name
            )
        })?;
        rebuilt |= node.redis.rebuild(&open.sale.name, &seen, &books).await?;
    }
    Ok(rebuilt)
}

/// Brings back what nodes remembered of one partition. Is all of it dealt with?
async fn bring_back(
    node: &Node,
    sink: &Sink,
    part: &Arc<Part>,
    deadline: Instant,
    report: &mut Report,
) -> anyhow::Result<bool> {
    let mut short = Vec::new();
    let mut all = true;
    for entry in node.redis.lost(&part.keys).await? {
        match bring_entry_back(node, sink, part, entry, false, report).await? {
            Some(entry) if entry.short => short.push(entry.entry),
            Some(_) => all = false,
            None => {}
        }
    }
    if short.is_empty() {
        return Ok(all);
    }
    // Orders that are refused once more give their units back; what is missing then was sold to others.
    while node.redis.backlog(&part.keys).await?.undelivered_entries > 0 && Instant::now() < deadline {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    for entry in short {
        all &= bring_entry_back(node, sink, part, entry, true, report).await?.is_none();
    }
    Ok(all)
}

/// An entry that is not dealt with: for want of units, or of an answer.
struct Left {
    entry: LostEntry,
    short: bool,
}

async fn bring_entry_back(
    node: &Node,
    sink: &Sink,
    part: &Arc<Part>,
    entry: LostEntry,
    whatever: bool,
    report: &mut Report,
) -> anyhow::Result<Option<Left>> {
    let terms = part.stored.load().settings.terms.clone();
    let lease = part.limits.lease;
    let mut settled = false;
    let mut recorded = recorded(sink, &gids_of(part, &entry)).await?;
    loop {
        let takes = takes(&terms, &entry, recorded.as_deref());
        let is_recorded = recorded.is_some();
        match node.redis.restore(&part.keys, &entry, &takes, is_recorded, lease, whatever).await? {
            Restored::Done(missing) => {
                let gids = gids_of(part, &entry).into_iter();
                match (is_recorded, settled) {
                    (_, true) => report.settled.add(gids),
                    (true, false) => report.recorded.add(gids),
                    (false, false) => report.replayed.add(gids),
                }
                if !missing.is_empty() {
                    let concerned = entry.orders.iter().zip(gids_of(part, &entry)).filter(|(order, _)| {
                        order.frame.items.iter().any(|item| missing.iter().any(|(sku, _)| sku == item.sku.as_str()))
                    });
                    report.oversold.add(concerned.map(|(_, gid)| gid));
                }
                for (sku, units) in missing {
                    *report.oversold_units.entry(sku).or_default() += units;
                }
                return Ok(None);
            }
            Restored::Nothing => return Ok(None),
            Restored::Short => return Ok(Some(Left { entry, short: true })),
            Restored::Late if part.reserve_ms.is_some() => {
                report.problems.push(format!(
                    "entry {} of partition {} is a reservation of before others that were made since, and cannot be open again: ask the order service to cancel what it made of it",
                    entry.id, part.number
                ));
                return Ok(Some(Left { entry, short: false }));
            }
            Restored::Late => match settle(part, &entry).await {
                Ok(answered) => {
                    sink.write(&answered).await?;
                    settled = true;
                    recorded = Some(answered);
                }
                Err(problem) => {
                    report.problems.push(problem);
                    return Ok(Some(Left { entry, short: false }));
                }
            },
        }
    }
}

fn gids_of(part: &Part, entry: &LostEntry) -> Vec<Gid> {
    (0..entry.orders.len() as u16).map(|index| part.gid(Address { entry: entry.id, index })).collect()
}

/// The records of all these orders; `None` if there is one that they do not have: then the entry has not left for them.
async fn recorded(sink: &Sink, gids: &[Gid]) -> anyhow::Result<Option<Vec<Record>>> {
    let mut records = Vec::with_capacity(gids.len());
    for gid in gids {
        match sink.read(gid).await? {
            Some(record) => records.push(record),
            None => return Ok(None),
        }
    }
    Ok(Some(records))
}

/// What an entry takes when it is brought back: all of it, or what the records say was made.
fn takes(terms: &Terms, entry: &LostEntry, records: Option<&[Record]>) -> Takes {
    let mut takes = Takes::default();
    for (index, order) in entry.orders.iter().enumerate() {
        if let Some(key) = order.key {
            let id = entry.id;
            let mut answer = order.body.to_vec();
            answer.extend_from_slice(&id.ms.to_be_bytes()[2..]);
            answer.extend_from_slice(&(id.seq as u32).to_be_bytes());
            answer.extend_from_slice(&(index as u16).to_be_bytes());
            takes.requests.push((key.to_vec(), answer));
        }
        let items: &[Item] = match records.map(|records| &records[index]) {
            None => &order.frame.items,
            Some(record) if record.status == Status::Succeed => &record.items,
            Some(_) => continue,
        };
        let buyer = order.frame.buyer.as_str();
        for item in items {
            let units = u64::from(item.quantity);
            *takes.skus.entry(item.sku.clone()).or_default() += units;
            *takes.buyers.entry(buyer.to_owned()).or_default() += units;
            for limit in terms.counting(item.sku.as_str()) {
                let value = match limit.by.as_str() {
                    BY_BUYER => Some(buyer),
                    by => order.frame.limits_by.as_ref().and_then(|keys| keys.get(by)).map(String::as_str),
                };
                if let Some(value) = value {
                    *takes.limits.entry(format!("{}:{value}", limit.name())).or_default() += units;
                }
            }
        }
    }
    takes
}

/// Asks the order service about each order of an entry, with its gid: it made it once, or makes it now, or refuses.
async fn settle(part: &Arc<Part>, entry: &LostEntry) -> Result<Vec<Record>, String> {
    let orders: Vec<Order> = entry.orders.iter().map(|order| Order::from(order.frame.clone())).collect();
    let held = Arc::new(Entry::new(part.clone(), entry.id, orders, Instant::now()));
    let mut records = Vec::with_capacity(entry.orders.len());
    for (index, order) in (0u16..).zip(&entry.orders) {
        let job = Job { entry: held.clone(), index, attempts: 1 };
        let gid = job.gid();
        let (status, reason) = match delivery::ask_once(&part.sale, &job).await {
            Verdict::Created => (Status::Succeed, None),
            Verdict::Refused { message } => (Status::Failed, Some(message)),
            Verdict::Ongoing => return Err(format!("the order service is still at work on {gid}")),
            Verdict::Unknown { error } => return Err(format!("the order service says nothing of {gid}: {error}")),
        };
        records.push(Record {
            gid,
            buyer: order.frame.buyer.clone(),
            items: order.frame.items.clone(),
            payload: order.frame.payload.clone().unwrap_or_else(|| "null".into()),
            status,
            reason,
            attempts: 1,
            admitted_ms: entry.id.ms,
            finished_ms: now_ms(),
            returned: Vec::new(),
        });
    }
    Ok(records)
}

/// What of this sale is lost and not brought back yet.
pub async fn lost(node: &Node, open: &Open) -> Result<Gids, store::Error> {
    let mut gids = Gids::default();
    for part in open.parts() {
        for entry in node.redis.lost(&part.keys).await? {
            gids.add(gids_of(&part, &entry).into_iter());
        }
    }
    Ok(gids)
}
