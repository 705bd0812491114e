//! Counting a sale anew, when orders may have been acknowledged that no node remembers: from the records, and from the
//! order service's list where it has one.
//!
//! It waits until nothing is on its way. From then on `archived` must be the units of the records, and what is missing there
//! is taken from what is available.

use super::{LOOK_AGAIN, Report};
use crate::domain::ids::{Buyer, Gid, Sku};
use crate::domain::order::{Item, Record, Status};
use crate::driver::now_ms;
use crate::reconciler::audit::service_orders;
use crate::reconciler::sink::Sink;
use crate::sale::node::Node;
use crate::sale::open::Open;
use std::collections::{BTreeMap, HashMap, HashSet};
use tokio::time::Instant;

/// Records read at a time.
const PAGE: u32 = 1_000;

/// What the records say of one partition.
#[derive(Default)]
struct Sums {
    units: BTreeMap<String, u64>,
    buyers: HashMap<String, u64>,
}

/// Takes what the records have and Redis does not. False: that cannot be said yet.
pub(super) async fn recount(
    node: &Node,
    sink: &Sink,
    open: &Open,
    deadline: Instant,
    report: &mut Report,
) -> anyhow::Result<bool> {
    loop {
        let backlog = node.backlog(open).await?;
        if backlog.entries == 0 && backlog.finished == 0 {
            break;
        }
        if Instant::now() >= deadline {
            report.problems.push(format!(
                "{} batches of orders are still on their way, and nothing can be counted before they have ended: is the order service answering?",
                backlog.entries
            ));
            return Ok(false);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let mut sums: HashMap<u16, Sums> = HashMap::new();
    let mut known = HashSet::new();
    let mut after: Option<String> = None;
    loop {
        let page = sink.page(&open.sale.name, after.as_deref(), PAGE).await?;
        for record in &page {
            add(&mut sums, record);
            known.insert(record.gid.to_string());
        }
        match page.last() {
            Some(last) if page.len() == PAGE as usize => after = Some(last.gid.to_string()),
            _ => break,
        }
    }
    for record in made_by_nobody_here(open, &known, report).await? {
        sink.write(std::slice::from_ref(&record)).await?;
        add(&mut sums, &record);
        report.found_at_service.add(std::iter::once(record.gid));
    }
    for part in open.parts() {
        let Some(sums) = sums.get(&part.number) else { continue };
        let stock = node.redis.stock(&part.keys).await?;
        let mut skus = BTreeMap::new();
        for (sku, units) in &sums.units {
            let archived = stock.get(sku).map_or(0, |counters| counters.archived);
            if *units > archived {
                skus.insert(sku.clone(), (archived, units - archived));
            }
        }
        let ledger = node.redis.ledger(&part.keys).await?;
        let held = |buyer: &str| ledger.get(buyer).copied().unwrap_or_default();
        let buyers: Vec<(&str, u64)> =
            sums.buyers.iter().filter(|(buyer, units)| held(buyer) < **units).map(|(b, u)| (b.as_str(), *u)).collect();
        if skus.is_empty() && buyers.is_empty() {
            continue;
        }
        // A thousand buyers at a time: a script must not block Redis for long. The units come with the first.
        let none = BTreeMap::new();
        let mut parts: Vec<&[(&str, u64)]> = buyers.chunks(1_000).collect();
        if parts.is_empty() {
            parts.push(&[]);
        }
        for (at, some) in parts.into_iter().enumerate() {
            let skus = if at == 0 { &skus } else { &none };
            let Some(missing) = node.redis.recount(&part.keys, skus, some).await? else {
                report.problems.push("somebody else counts this sale anew at the same time".into());
                return Ok(false);
            };
            for (sku, units) in missing {
                *report.oversold_units.entry(sku).or_default() += units;
            }
        }
        report.recounted_units += skus.values().map(|(_, units)| units).sum::<u64>();
    }
    Ok(true)
}

fn add(sums: &mut HashMap<u16, Sums>, record: &Record) {
    if record.status != Status::Succeed {
        return;
    }
    let sums = sums.entry(record.gid.partition).or_default();
    for item in &record.items {
        let back = record.returned.iter().find(|back| back.sku == item.sku).map_or(0, |back| back.quantity);
        *sums.units.entry(item.sku.to_string()).or_default() += u64::from(item.quantity);
        // What came back may not count for its buyer any more: at least so many do.
        *sums.buyers.entry(record.buyer.as_str().to_owned()).or_default() +=
            u64::from(item.quantity - back.min(item.quantity));
    }
}

/// Orders that the order service has made, of this sale, and that neither Redis nor the records know: as records, where
/// its list says what they are.
async fn made_by_nobody_here(open: &Open, known: &HashSet<String>, report: &mut Report) -> anyhow::Result<Vec<Record>> {
    let mut records = Vec::new();
    let mut silent = 0;
    for order in service_orders(open).await? {
        let Some(gid) = order.gid.parse::<Gid>().ok().filter(|gid| gid.sale == open.sale.name) else { continue };
        if known.contains(&order.gid) {
            continue;
        }
        let items: Option<Vec<Item>> = order
            .items
            .iter()
            .map(|(sku, quantity)| Some(Item { sku: Sku::parse(sku.as_str()).ok()?, quantity: *quantity }))
            .collect();
        match (Buyer::parse(order.buyer), items) {
            (Ok(buyer), Some(items)) if !items.is_empty() => records.push(Record {
                admitted_ms: gid.entry.ms,
                gid,
                buyer,
                items,
                payload: "null".into(),
                status: Status::Succeed,
                reason: Some("found at the order service after Redis had lost it".into()),
                attempts: 1,
                finished_ms: now_ms(),
                returned: Vec::new(),
            }),
            _ => silent += 1,
        }
    }
    if silent > 0 {
        report.problems.push(format!(
            "the order service has {silent} orders that nobody here knows, and its list does not say what they are (list_url with `orders`): see the audit's `extra`"
        ));
    }
    Ok(records)
}
