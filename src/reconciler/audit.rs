//! The audit: does what Redis says, what the records say and what the order service says agree?
//!
//! Per SKU: `loaded = available + reserved + sold` at any moment; and once nothing is on its way,
//! `sold = units in the records = units at the order service`. Read-only.

use super::Records;
use crate::domain::order::{Record, Status};
use crate::sale::call;
use crate::sale::node::Node;
use crate::sale::open::Open;
use crate::store::sales::Counters;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Records read at a time.
const PAGE: u32 = 1000;
/// Differing gids that are named, each way; the rest is counted.
const NAMED_MAX: usize = 100;
/// Pause between two looks at a sale that is not settled yet.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    pub sale: String,
    /// Nothing was on its way: the comparison is exact. Otherwise only what can be said meanwhile was checked.
    pub settled: bool,
    /// Units of orders that have not ended.
    pub in_flight: u64,
    /// Entries that wait in Redis for the records.
    pub undrained: u64,
    /// Sum over all that does not agree; 0 is what everybody wants.
    pub drift: u64,
    pub items: Vec<Line>,
    pub records: Recorded,
    pub orders_at_service: Option<u64>,
    /// Recorded as succeeded, but not at the order service.
    pub missing: Vec<String>,
    /// At the order service, but not recorded as succeeded.
    pub extra: Vec<String>,
    /// What could not be checked, and what to do about what differs.
    pub problems: Vec<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Line {
    pub sku: String,
    pub loaded: u64,
    pub available: u64,
    pub reserved: u64,
    pub sold: u64,
    /// Units between two partitions: gone from one, not yet at the other.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub in_transit: u64,
    /// Units that came back after they were sold: `sold` is without them, records and order service are with them.
    #[serde(default)]
    pub returned: u64,
    pub records_units: u64,
    pub service_units: Option<u64>,
    pub drift: u64,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Recorded {
    pub succeed: u64,
    pub failed: u64,
}

fn is_zero(units: &u64) -> bool {
    *units == 0
}

/// What a `count_url` answers.
#[derive(Deserialize)]
struct Count {
    orders: u64,
    #[serde(default)]
    units: BTreeMap<String, u64>,
}

/// What a `list_url` answers.
#[derive(Deserialize)]
struct List {
    gids: Vec<String>,
    /// What the orders of these gids are, where it says so when it is asked for `details`.
    #[serde(default)]
    orders: Vec<ServiceOrder>,
}

/// An order as the order service has it.
#[derive(Debug, Default, Deserialize)]
pub struct ServiceOrder {
    pub gid: String,
    #[serde(default)]
    pub buyer: String,
    /// SKU → units.
    #[serde(default)]
    pub items: BTreeMap<String, u32>,
}

/// Audits one sale, after waiting up to `wait` for it to settle.
pub async fn audit(node: &Node, records: &Records, open: &Open, wait: Duration) -> anyhow::Result<Report> {
    let settled = until_settled(node, open, wait).await?;
    let before = node.stock(open).await?;
    let mut report = Report { sale: open.sale.name.to_string(), ..Report::default() };
    let mut units: BTreeMap<String, u64> = BTreeMap::new();
    let gids = count_records(records, open, &mut report, &mut units).await?;
    let service_units = ask_service(open, &mut report, &gids).await;
    let after = node.stock(open).await?;
    let backlog = node.backlog(open).await?;
    // Something moved while we counted: not settled after all.
    report.settled = settled && before == after;
    report.in_flight = after.values().map(|counters| counters.stock.reserved).sum();
    report.undrained = backlog.entries.saturating_sub(backlog.undelivered_entries);
    for (sku, counters) in &after {
        let earlier = before.get(sku).copied().unwrap_or_default();
        report.items.push(line(sku, earlier, *counters, &units, &service_units, report.settled));
    }
    for sku in units.keys().filter(|sku| !after.contains_key(*sku)) {
        report.problems.push(format!("the records have orders of {sku}, which the sale does not know"));
        report.drift += units[sku];
    }
    report.drift += report.items.iter().map(|line| line.drift).sum::<u64>();
    if report.settled {
        report.drift += (report.missing.len() + report.extra.len()) as u64;
        if let Some(orders) = report.orders_at_service {
            report.drift += orders.abs_diff(report.records.succeed);
        }
    }
    advise(&mut report);
    Ok(report)
}

async fn until_settled(node: &Node, open: &Open, wait: Duration) -> anyhow::Result<bool> {
    let deadline = tokio::time::Instant::now() + wait;
    loop {
        let backlog = node.backlog(open).await?;
        if backlog.entries == 0 && backlog.finished == 0 {
            return Ok(true);
        }
        if tokio::time::Instant::now() >= deadline {
            return Ok(false);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Reads all records of the sale: counts, units by SKU, and the gids of those that succeeded, in byte order.
async fn count_records(
    records: &Records,
    open: &Open,
    report: &mut Report,
    units: &mut BTreeMap<String, u64>,
) -> anyhow::Result<Vec<String>> {
    let sink = records.sink().await?;
    let mut gids = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page: Vec<Record> = sink.page(&open.sale.name, after.as_deref(), PAGE).await?;
        for record in &page {
            match record.status {
                Status::Succeed => {
                    report.records.succeed += 1;
                    for item in &record.items {
                        *units.entry(item.sku.to_string()).or_default() += u64::from(item.quantity);
                    }
                    gids.push(record.gid.to_string());
                }
                _ => report.records.failed += 1,
            }
        }
        match page.last() {
            Some(last) if page.len() == PAGE as usize => after = Some(last.gid.to_string()),
            _ => return Ok(gids),
        }
    }
}

/// Asks the order service to count, and to list where it can. A service that does not answer is a problem, not a drift.
async fn ask_service(open: &Open, report: &mut Report, recorded: &[String]) -> Option<BTreeMap<String, u64>> {
    let endpoint = open.sale.settings().endpoint;
    let timeout = Duration::from_millis(endpoint.timeout_ms.max(10_000));
    let sale = open.sale.name.as_str();
    let mut units = None;
    if let Some(url) = &endpoint.count_url {
        match ask::<Count>(url, &format!("sale={sale}"), timeout).await {
            Ok(count) => {
                report.orders_at_service = Some(count.orders);
                units = Some(count.units);
            }
            Err(error) => report.problems.push(format!("count_url: {error}")),
        }
    }
    if let Some(url) = &endpoint.list_url
        && let Err(error) = compare_lists(url, sale, timeout, recorded, report).await
    {
        report.problems.push(format!("list_url: {error}"));
    }
    units
}

/// All orders of a sale that its order service lists; those of which it says nothing but the gid are empty.
pub(super) async fn service_orders(open: &Open) -> anyhow::Result<Vec<ServiceOrder>> {
    let endpoint = open.sale.settings().endpoint;
    let Some(url) = &endpoint.list_url else { return Ok(Vec::new()) };
    let timeout = Duration::from_millis(endpoint.timeout_ms.max(10_000));
    let (mut orders, mut after) = (Vec::new(), String::new());
    loop {
        let query = format!("sale={}&after={after}&limit={PAGE}&details=true", open.sale.name);
        let page: List = ask(url, &query, timeout).await?;
        let Some(last) = page.gids.last().cloned() else { return Ok(orders) };
        anyhow::ensure!(last > after, "the order service's list does not go on after {after}");
        let mut details: BTreeMap<String, ServiceOrder> =
            page.orders.into_iter().map(|order| (order.gid.clone(), order)).collect();
        for gid in page.gids {
            orders.push(details.remove(&gid).unwrap_or_else(|| ServiceOrder { gid, ..ServiceOrder::default() }));
        }
        after = last;
    }
}

/// Walks both lists, each in byte order, side by side.
async fn compare_lists(
    url: &str,
    sale: &str,
    timeout: Duration,
    recorded: &[String],
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut ours = recorded.iter().peekable();
    let mut after = String::new();
    let (mut missing, mut extra) = (0usize, 0usize);
    let name = |list: &mut Vec<String>, count: &mut usize, gid: &str| {
        *count += 1;
        if list.len() < NAMED_MAX {
            list.push(gid.to_owned());
        }
    };
    loop {
        let page: List = ask(url, &format!("sale={sale}&after={after}&limit={PAGE}"), timeout).await?;
        let Some(last) = page.gids.last().cloned() else { break };
        anyhow::ensure!(last > after, "the list does not go on after {after}");
        for theirs in &page.gids {
            while let Some(gid) = ours.next_if(|gid| *gid < theirs) {
                name(&mut report.missing, &mut missing, gid);
            }
            if ours.next_if(|gid| *gid == theirs).is_none() {
                name(&mut report.extra, &mut extra, theirs);
            }
        }
        after = last;
    }
    for gid in ours {
        name(&mut report.missing, &mut missing, gid);
    }
    for (count, what) in [(missing, "missing at the order service"), (extra, "unknown to the records")] {
        if count > NAMED_MAX {
            report.problems.push(format!("{count} orders {what}; the first {NAMED_MAX} are named"));
        }
    }
    Ok(())
}

async fn ask<T: serde::de::DeserializeOwned>(url: &str, query: &str, timeout: Duration) -> anyhow::Result<T> {
    let (status, body) = call::get(url, query, timeout).await?;
    anyhow::ensure!(status.is_success(), "answered {status}");
    Ok(serde_json::from_slice(&body)?)
}

fn line(
    sku: &str,
    before: Counters,
    after: Counters,
    units: &BTreeMap<String, u64>,
    service: &Option<BTreeMap<String, u64>>,
    settled: bool,
) -> Line {
    let records_units = units.get(sku).copied().unwrap_or_default();
    let service_units = service.as_ref().map(|units| units.get(sku).copied().unwrap_or_default());
    let stock = after.stock;
    let mut drift = u64::try_from(after.difference().unsigned_abs()).unwrap_or(u64::MAX);
    let ever_sold = stock.sold + after.returned;
    if settled {
        drift += ever_sold.abs_diff(records_units) + ever_sold.abs_diff(after.archived);
        drift += service_units.map_or(0, |units| units.abs_diff(records_units));
    } else {
        // Meanwhile: the records have at least what was archived before we read them, and at most what is sold now.
        drift += before.archived.saturating_sub(records_units) + records_units.saturating_sub(ever_sold);
    }
    Line {
        sku: sku.to_owned(),
        loaded: stock.loaded,
        available: stock.available,
        reserved: stock.reserved,
        sold: stock.sold,
        in_transit: after.in_transit,
        returned: after.returned,
        records_units,
        service_units,
        drift,
    }
}

fn advise(report: &mut Report) {
    if !report.missing.is_empty() {
        report.problems.push(
            "orders are recorded but missing at the order service: post them to it again with the same gid; it made them once".into(),
        );
    }
    if !report.extra.is_empty() {
        report.problems.push(
            "the order service has orders that were not recorded as succeeded: check if it answered 409 for an order it made".into(),
        );
    }
}
