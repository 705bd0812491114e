//! `rushline audit`: the equation per SKU, and the gids that differ.

use super::client::{Server, ServerArgs};
use super::orders_file::{Comparison, Differences, Differing, OrdersFile};
use super::progress::Progress;
use super::terminal::{self, grouped};
use crate::domain::ids::SaleName;
use crate::fault::Fault;
use anyhow::Context;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub const EXAMPLES: &str = "\
Examples:
  rushline audit                                 every sale
  rushline audit nov22 --wait 60                 once nothing is in flight any more
  rushline audit nov22 --orders orders.csv       against the shop's own list";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// One sale; without it, all of them.
    #[arg(value_name = "SALE", value_parser = |text: &str| SaleName::parse(text).map_err(|invalid| invalid.rule))]
    sale: Option<SaleName>,
    /// The shop's own list of orders: a gid a line, CSV with the gid first, or NDJSON with "gid"; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    orders: Option<PathBuf>,
    /// Wait up to this long until nothing is in flight and all is in the records; fail if that does not come.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=86_400))]
    wait: Option<u64>,
    #[command(flatten)]
    server: ServerArgs,
}

/// Longest single question; the server grants no more than its `http.wait_ms_max`.
const ASK_MAX: Duration = Duration::from_secs(10);
/// Between questions, should the server answer at once.
const ASK_PAUSE: Duration = Duration::from_millis(200);
const PAGE_RECORDS: u64 = 1_000;

/// The server's audit of one sale.
#[derive(Debug, Deserialize)]
struct Audit {
    sale: String,
    settled: bool,
    in_flight: i64,
    undrained: i64,
    drift: i64,
    items: Vec<Item>,
    records: Tally,
    orders_at_service: Option<i64>,
    #[serde(default)]
    missing: Vec<String>,
    #[serde(default)]
    extra: Vec<String>,
    #[serde(default)]
    problems: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Item {
    sku: String,
    loaded: i64,
    available: i64,
    reserved: i64,
    sold: i64,
    records_units: i64,
    service_units: Option<i64>,
    drift: i64,
}

#[derive(Debug, Deserialize)]
struct Tally {
    succeed: u64,
    failed: u64,
}

/// An audit, with the shop's list if there is one.
struct Finding {
    audit: Audit,
    /// As the server sent it, for `--json`.
    raw: Value,
    list: Option<Differences>,
}

impl Finding {
    fn is_good(&self) -> bool {
        let list = self.list.as_ref().is_none_or(|list| list.missing.count == 0 && list.extra.count == 0);
        let audit = &self.audit;
        let equations =
            audit.items.iter().all(|item| item.drift == 0 && item.loaded == item.available + item.reserved + item.sold);
        audit.drift == 0
            && equations
            && audit.missing.is_empty()
            && audit.extra.is_empty()
            && audit.problems.is_empty()
            && list
    }
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let server = args.server.connect()?;
    let file = args.orders.as_deref().map(OrdersFile::read).transpose()?;
    let sales = match &args.sale {
        Some(sale) => vec![sale.to_string()],
        None => sales(&server).await?,
    };
    let deadline = args.wait.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut findings = Vec::new();
    for sale in &sales {
        let (audit, raw) = ask(&server, sale, deadline).await?;
        let list = match &file {
            Some(file) => Some(compare(&server, &audit, file.of_sale(sale)).await?),
            None => None,
        };
        findings.push(Finding { audit, raw, list });
    }
    // A sale that the server does not know has no audit of its own to name its orders.
    let strangers = match (&file, &args.sale) {
        (Some(file), None) => file.of_other_sales(&sales),
        _ => Differing::default(),
    };
    let twice = file.map(|file| file.twice).unwrap_or_default();
    if args.server.json {
        terminal::print_json(&as_json(&findings, args.sale.is_some(), &strangers, &twice))?;
    } else {
        terminal::print(&as_text(&findings, &strangers, &twice))?;
    }
    verdict(&findings, args.wait, strangers.count, twice.count)
}

async fn sales(server: &Server) -> anyhow::Result<Vec<String>> {
    let body = server.get("/v1/sales").await?;
    let sales = body.get("sales").unwrap_or(&body).as_array().context("the server's list of sales is no list")?;
    Ok(sales.iter().filter_map(|sale| Some(sale.get("sale")?.as_str()?.to_owned())).collect())
}

/// Asks until the sale is settled or the deadline is over; without a deadline, once.
async fn ask(server: &Server, sale: &str, deadline: Option<Instant>) -> anyhow::Result<(Audit, Value)> {
    loop {
        let left = deadline.map_or(Duration::ZERO, |deadline| deadline.saturating_duration_since(Instant::now()));
        let wait = left.min(ASK_MAX);
        let path = format!("/v1/sales/{sale}/audit?wait_ms={}", wait.as_millis());
        let raw = server.send(Method::GET, &path, None, wait).await?.body;
        let audit: Audit = serde_json::from_value(raw.clone())
            .context("the server's audit has a form that this version does not know")?;
        if audit.settled || left.is_zero() {
            return Ok((audit, raw));
        }
        tokio::time::sleep(ASK_PAUSE.min(left)).await;
    }
}

/// Walks all records of the sale beside the shop's list.
async fn compare(server: &Server, audit: &Audit, orders: &[String]) -> anyhow::Result<Differences> {
    #[derive(Deserialize)]
    struct Page {
        records: Vec<Record>,
        next: Option<String>,
    }
    #[derive(Deserialize)]
    struct Record {
        gid: String,
        status: String,
    }
    let mut comparison = Comparison::new(orders);
    let mut progress = Progress::new("comparing records", audit.records.succeed + audit.records.failed);
    let mut done = 0;
    let mut after = String::new();
    loop {
        let path = format!("/v1/sales/{}/records?after={after}&limit={PAGE_RECORDS}", audit.sale);
        let page: Page = serde_json::from_value(server.get(&path).await?)
            .context("the server's records have a form that this version does not know")?;
        for record in &page.records {
            comparison.record(&record.gid, record.status == "succeed")?;
        }
        done += page.records.len() as u64;
        progress.at(done);
        match page.next {
            // A page that leads to itself would be read for ever.
            Some(next) => {
                anyhow::ensure!(next > after, "the server's next page of records, after {next}, is not after {after}");
                after = next;
            }
            None => return Ok(comparison.finish()),
        }
    }
}

fn verdict(findings: &[Finding], wait: Option<u64>, strangers: u64, twice: u64) -> anyhow::Result<()> {
    let bad: Vec<&str> =
        findings.iter().filter(|finding| !finding.is_good()).map(|finding| finding.audit.sale.as_str()).collect();
    if !bad.is_empty() || strangers > 0 || twice > 0 {
        let mut what = Vec::new();
        if !bad.is_empty() {
            what.push(format!("the books of {} do not add up", bad.join(", ")));
        }
        if strangers > 0 {
            what.push(format!("{strangers} orders are of sales that the server does not know"));
        }
        if twice > 0 {
            what.push(format!("{twice} gids stand in the file more than once"));
        }
        let fault = Fault::failed(what.join("; "));
        let moving = findings.iter().any(|finding| !finding.audit.settled);
        return Err(if moving {
            fault.hint("orders are still in flight; rushline audit --wait 60   waits for them").into()
        } else {
            fault.into()
        });
    }
    let unsettled: Vec<&str> =
        findings.iter().filter(|finding| !finding.audit.settled).map(|finding| finding.audit.sale.as_str()).collect();
    match wait {
        Some(seconds) if !unsettled.is_empty() => {
            let what = format!("{} did not settle within {seconds} s", unsettled.join(", "));
            Err(Fault::failed(what).hint("is the order endpoint answering? rushline sale show SALE").into())
        }
        _ => Ok(()),
    }
}

fn as_json(findings: &[Finding], one: bool, strangers: &Differing, twice: &Differing) -> Value {
    let mut audits: Vec<Value> = findings
        .iter()
        .map(|finding| {
            let mut audit = finding.raw.clone();
            if let (Some(list), Some(fields)) = (&finding.list, audit.as_object_mut()) {
                fields.insert("orders_file".into(), json!(list));
            }
            audit
        })
        .collect();
    if one && audits.len() == 1 {
        return audits.remove(0);
    }
    let good = findings.iter().all(Finding::is_good) && strangers.count == 0 && twice.count == 0;
    json!({ "good": good, "sales": audits, "orders_of_unknown_sales": strangers, "orders_listed_twice": twice })
}

/// Writing to a String cannot fail, so its results are dropped here and below.
fn as_text(findings: &[Finding], strangers: &Differing, twice: &Differing) -> String {
    let mut out = String::new();
    if findings.is_empty() {
        out.push_str("no sales to audit\n");
    }
    for finding in findings {
        one_text(&mut out, finding);
    }
    names(&mut out, "of unknown sales", &strangers.first, strangers.count);
    names(&mut out, "more than once in the file", &twice.first, twice.count);
    out
}

fn one_text(out: &mut String, finding: &Finding) {
    let audit = &finding.audit;
    let state = match audit.settled {
        true => "settled".to_owned(),
        false => format!(
            "not settled: {} in flight, {} not yet in the records",
            grouped(audit.in_flight),
            grouped(audit.undrained)
        ),
    };
    let _ = writeln!(out, "sale {} · {state}", audit.sale);
    let rows = audit.items.iter().map(|item| {
        let mut row = vec![item.sku.clone()];
        row.extend([item.loaded, item.available, item.reserved, item.sold, item.records_units].map(grouped));
        row.push(item.service_units.map_or("–".into(), grouped));
        row.push(grouped(item.drift));
        row
    });
    let header = ["SKU", "loaded", "= available", "+ reserved", "+ sold", "records", "order service", "drift"];
    out.push_str(&terminal::table(&header, 1, rows));
    let count = |n: u64| grouped(i64::try_from(n).unwrap_or(i64::MAX));
    let at_service = audit.orders_at_service.map_or("not asked".into(), grouped);
    let _ = writeln!(
        out,
        "orders: {} made, {} refused in the records · at the order service: {at_service}",
        count(audit.records.succeed),
        count(audit.records.failed)
    );
    for problem in &audit.problems {
        let _ = writeln!(out, "problem: {problem}");
    }
    names(out, "missing at the order service", &audit.missing, audit.missing.len() as u64);
    names(out, "extra at the order service", &audit.extra, audit.extra.len() as u64);
    if let Some(list) = &finding.list {
        let _ = writeln!(
            out,
            "orders file: {} match, {} missing, {} extra",
            count(list.matched),
            count(list.missing.count),
            count(list.extra.count)
        );
        names(out, "missing in the file", &list.missing.first, list.missing.count);
        names(out, "extra in the file", &list.extra.first, list.extra.count);
    }
    let verdict = match (finding.is_good(), audit.drift) {
        (true, _) => "✓ adds up: drift 0".to_owned(),
        (false, 0) => "✗ does not add up: see above".to_owned(),
        (false, drift) => format!("✗ does not add up: drift {}", grouped(drift)),
    };
    let _ = writeln!(out, "{verdict}\n");
}

/// The first twenty gids, a line each, and how many more there are.
fn names(out: &mut String, what: &str, gids: &[String], count: u64) {
    if count == 0 {
        return;
    }
    let _ = writeln!(out, "{what}:");
    let shown = &gids[..gids.len().min(20)];
    for gid in shown {
        let _ = writeln!(out, "  {gid}");
    }
    if count > shown.len() as u64 {
        let _ = writeln!(out, "  … and {} more", count - shown.len() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(change: Value, list: Option<Differences>) -> Finding {
        let mut raw = json!({
            "sale": "s", "settled": true, "in_flight": 0, "undrained": 0, "drift": 0,
            "items": [{ "sku": "a", "loaded": 10, "available": 4, "reserved": 0, "sold": 6, "records_units": 6, "service_units": null, "drift": 0 }],
            "records": { "succeed": 6, "failed": 0 }, "orders_at_service": null, "missing": [], "extra": [], "problems": []
        });
        for (name, value) in change.as_object().unwrap() {
            raw[name] = value.clone();
        }
        Finding { audit: serde_json::from_value(raw.clone()).unwrap(), raw, list }
    }

    #[test]
    fn books_that_add_up_are_good() {
        let good = finding(json!({}), None);
        assert!(
            as_text(&[finding(json!({}), None)], &Differing::default(), &Differing::default()).contains("✓ adds up")
        );
        assert!(verdict(&[good], None, 0, 0).is_ok());
    }

    /// The client adds up for itself: a server that says "drift 0" beside figures that do not add up is not believed.
    #[test]
    fn anything_that_differs_is_exit_code_1() {
        let leak = json!([{ "sku": "a", "loaded": 10, "available": 4, "reserved": 0, "sold": 5, "records_units": 5, "drift": 0 }]);
        for change in [
            json!({ "drift": 1 }),
            json!({ "missing": ["s.0.1-1.0"] }),
            json!({ "extra": ["s.0.1-1.0"] }),
            json!({ "problems": ["the order service did not answer"] }),
            json!({ "items": leak }),
        ] {
            let error = verdict(&[finding(change.clone(), None)], None, 0, 0).unwrap_err();
            assert_eq!(terminal::exit_code(&error), 1, "{change}");
        }
        let list =
            Differences { missing: Differing { count: 1, first: vec!["s.0.1-1.0".into()] }, ..Differences::default() };
        let found = [finding(json!({}), Some(list))];
        assert!(
            as_text(&found, &Differing::default(), &Differing::default()).contains("missing in the file:\n  s.0.1-1.0")
        );
        assert!(verdict(&found, None, 0, 0).is_err());
        assert!(verdict(&[finding(json!({}), None)], None, 1, 0).is_err());
        assert!(verdict(&[finding(json!({}), None)], None, 0, 1).is_err());
    }

    #[test]
    fn a_sale_in_motion_fails_only_who_asked_to_wait() {
        let moving = || [finding(json!({ "settled": false, "in_flight": 3 }), None)];
        assert!(verdict(&moving(), None, 0, 0).is_ok());
        assert!(verdict(&moving(), Some(1), 0, 0).is_err());
    }
}
