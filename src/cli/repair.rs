//! `rushline repair`: brings back what Redis lost of a sale, says what that was, and opens the sale again.

use super::client::{self, ServerArgs};
use super::terminal::grouped;
use crate::domain::ids::SaleName;
use crate::fault::Fault;
use http::Method;
use serde_json::Value;
use std::fmt::Write;
use std::time::{Duration, Instant};

pub const EXAMPLES: &str = "\
Examples:
  rushline repair nov22 --dry-run          which orders are lost, as far as anybody remembers
  rushline repair nov22                    bring them back and open the sale
  rushline audit nov22 --wait 60           (then)";

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(value_name = "SALE", value_parser = |text: &str| SaleName::parse(text).map_err(|invalid| invalid.rule))]
    sale: SaleName,
    /// Count everything anew, also of a sale that is not fenced; it is fenced meanwhile. For a loss that no node knows of,
    /// such as one that an audit shows.
    #[arg(long, conflicts_with = "dry_run")]
    whole: bool,
    /// Only show which orders are lost.
    #[arg(long)]
    dry_run: bool,
    /// Wait up to this long for orders that are on their way.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    wait: u64,
    #[command(flatten)]
    server: ServerArgs,
}

/// Longest single question; the server grants no more than its `http.wait_ms_max`.
const ASK_MAX: Duration = Duration::from_secs(10);
/// A server that counts a large sale anew reads all its records.
const ANSWER_EXTRA: Duration = Duration::from_secs(120);

pub async fn run(args: Args) -> anyhow::Result<()> {
    let server = args.server.connect()?;
    if args.dry_run {
        let lost = server.get(&format!("/v1/sales/{}/lost", args.sale)).await?;
        return client::show(&args.server, &lost, |lost| gids_text("lost and not brought back", lost));
    }
    let deadline = Instant::now() + Duration::from_secs(args.wait);
    // What one round did the next does not tell again.
    let mut rounds: Vec<Value> = Vec::new();
    loop {
        let wait = deadline.saturating_duration_since(Instant::now()).min(ASK_MAX);
        // Once: a second round goes on with the first one's fence.
        let whole = if args.whole && rounds.is_empty() { "&whole=true" } else { "" };
        let path = format!("/v1/sales/{}/repair?wait_ms={}{whole}", args.sale, wait.as_millis());
        let report = server.send(Method::POST, &path, None, wait + ANSWER_EXTRA).await?.body;
        let open = report["open"] == true;
        rounds.push(report);
        if open || Instant::now() >= deadline {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for report in &rounds {
        client::show(&args.server, report, text)?;
    }
    match rounds.last() {
        Some(last) if last["open"] == true => Ok(()),
        _ => Err(Fault::failed(format!("sale {} is still fenced", args.sale))
            .hint("rushline repair SALE --wait 600   goes on from there; nothing happens twice")
            .into()),
    }
}

/// Writing to a String cannot fail, so its results are dropped here and below.
fn text(report: &Value) -> String {
    let mut out = String::new();
    let sale = report["sale"].as_str().unwrap_or_default();
    if report["fenced"] != true {
        return format!("sale {sale} is not fenced: nothing to repair\n");
    }
    if report["rebuilt"] == true {
        out.push_str("Redis knew nothing of the sale; its books were put back\n");
    }
    for (field, what) in [
        ("replayed", "replayed: open again, to be delivered once more with the same gid"),
        ("recorded", "in the records already: their units are taken"),
        ("settled", "settled: the order service was asked, the records have its answer"),
        ("found_at_service", "found at the order service, and recorded"),
        ("oversold", "oversold: of these there were no units left"),
    ] {
        out.push_str(&gids_text(what, &report[field]));
    }
    for (sku, units) in report["oversold_units"].as_object().into_iter().flatten() {
        let _ = writeln!(out, "oversold: {sku} by {units} units; they were added to what is loaded");
    }
    for (field, what) in [
        ("forgotten", "orders were acknowledged that no node remembers any more"),
        ("recounted_units", "units were taken because the records have them"),
    ] {
        if let Some(count) = report[field].as_i64().filter(|count| *count > 0) {
            let _ = writeln!(out, "{} {what}", grouped(count));
        }
    }
    for problem in report["problems"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let _ = writeln!(out, "problem: {problem}");
    }
    let state = if report["open"] == true { "it sells again" } else { "it stays fenced" };
    let _ = writeln!(out, "sale {sale}: {state}");
    out
}

fn gids_text(what: &str, gids: &Value) -> String {
    let mut out = String::new();
    let count = gids["count"].as_i64().unwrap_or_default();
    if count > 0 {
        let _ = writeln!(out, "{} {what}", grouped(count));
    }
    let first = gids["first"].as_array().map(Vec::as_slice).unwrap_or_default();
    for gid in first.iter().filter_map(Value::as_str) {
        let _ = writeln!(out, "  {gid}");
    }
    if let Some(more) = count.checked_sub(first.len() as i64).filter(|more| *more > 0 && count > 0) {
        let _ = writeln!(out, "  … and {} more", grouped(more));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_lost_is_named() {
        let report = json!({
            "sale": "s", "fenced": true, "open": true,
            "replayed": {"count": 2, "first": ["s.0.1-1.0"]}, "oversold_units": {"a": 1}, "forgotten": 3, "problems": [],
        });
        let text = text(&report);
        for line in ["2 replayed", "  s.0.1-1.0\n  … and 1 more", "a by 1 units", "3 orders were", "sells again"] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
}
