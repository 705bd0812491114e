//! `rushline top`: sales, transactions and nodes, drawn anew every second. Without a terminal it is drawn once.

use super::client::ServerArgs;
use super::terminal::{self, grouped, plain};
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

pub const EXAMPLES: &str = "\
Examples:
  rushline top
  rushline top --once --json | jq .sales     one look, for a program
  rushline top --json                        a line of JSON a second

Ctrl-C ends it.";

const EVERY: Duration = Duration::from_secs(1);
const BAR_CHARS: usize = 24;
/// Its own screen, so that the shell's lines are there again afterwards; and no cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Look once.
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let server = args.server.connect()?;
    let terminal = io::stdout().is_terminal();
    if args.server.json {
        loop {
            terminal::print(&(server.get("/v1/overview").await?.to_string() + "\n"))?;
            if args.once {
                return Ok(());
            }
            tokio::time::sleep(EVERY).await;
        }
    }
    let first = server.get("/v1/overview").await?; // a server that is not there is said before the screen is taken
    if args.once || !terminal {
        return terminal::print(&picture(&first, None));
    }
    let _screen = Screen::take()?;
    let mut earlier = (Instant::now(), first);
    loop {
        let shown = match server.get("/v1/overview").await {
            Ok(now) => {
                let at = Instant::now();
                let shown = picture(&now, Some((&earlier.1, at - earlier.0)));
                earlier = (at, now);
                shown
            }
            Err(error) => format!("{error:#}\n\nasking again; Ctrl-C ends it\n"),
        };
        draw(&shown)?;
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

/// Gives the terminal back however this ends.
struct Screen;

impl Screen {
    fn take() -> io::Result<Self> {
        let mut out = io::stdout().lock();
        out.write_all(ENTER.as_bytes())?;
        out.flush()?;
        Ok(Self)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut out = io::stdout().lock();
        // If it cannot be written there is no terminal any more.
        let _ = out.write_all(LEAVE.as_bytes());
        let _ = out.flush();
    }
}

/// In place, line by line: no flicker.
fn draw(text: &str) -> io::Result<()> {
    let mut frame = String::from("\x1b[H");
    for line in text.lines() {
        let _ = write!(frame, "{line}\x1b[K\r\n");
    }
    frame.push_str("\x1b[J");
    let mut out = io::stdout().lock();
    out.write_all(frame.as_bytes())?;
    out.flush()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_default()
}

fn sum(values: &Value) -> f64 {
    values.as_object().into_iter().flatten().map(|(_, value)| number(value)).sum()
}

/// `earlier`: what was seen so long before, for rates.
fn picture(now: &Value, earlier: Option<(&Value, Duration)>) -> String {
    let mut out = String::new();
    let redis = if now["redis"]["usable"] == true { "usable" } else { "NOT USABLE" };
    let records =
        if now["records"]["reachable"] == true { plain(&now["records"]["kind"]) } else { "not reached yet".into() };
    let _ = writeln!(
        out,
        "rushline {}  {}  Redis {} {redis}  records {records}",
        plain(&now["version"]),
        plain(&now["at"]),
        plain(&now["redis"]["version"])
    );
    let rate = |name: &str| -> String {
        let Some((before, passed)) = earlier else { return "–".into() };
        let delta = number(&now["counters"][name]) - number(&before["counters"][name]);
        grouped((delta / passed.as_secs_f64().max(0.001)).round() as i64)
    };
    let refused: f64 = match earlier {
        None => 0.0,
        Some((before, passed)) => {
            let all = |of: &Value| -> f64 {
                let sales = of["sales"].as_array().into_iter().flatten();
                sales.map(|sale| sum(&sale["refused"])).sum()
            };
            (all(now) - all(before)).max(0.0) / passed.as_secs_f64().max(0.001)
        }
    };
    let _ = writeln!(
        out,
        "orders admitted {}/s  refused {}/s  written to the records {}/s\n",
        rate("orders_admitted_total"),
        grouped(refused.round() as i64),
        rate("records_written_total")
    );
    sales(now, &mut out);
    transactions(now, &mut out);
    nodes(now, &mut out);
    out
}

fn sales(now: &Value, out: &mut String) {
    let mut rows = Vec::new();
    for sale in now["sales"].as_array().into_iter().flatten() {
        let items = sale["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        let total = |field: &str| -> f64 { items.iter().map(|item| number(&item[field])).sum() };
        let (loaded, available) = (total("loaded"), total("available"));
        let share = if loaded > 0.0 { available / loaded } else { 0.0 };
        let full = (share * BAR_CHARS as f64).round() as usize;
        let differs = sale["conservation_difference"] != 0;
        rows.push(vec![
            plain(&sale["sale"]),
            plain(&sale["status"]),
            format!("{}{}", "█".repeat(full.min(BAR_CHARS)), "·".repeat(BAR_CHARS.saturating_sub(full))),
            grouped(available as i64),
            grouped(total("reserved") as i64),
            grouped(total("sold") as i64),
            grouped(sum(&sale["refused"]) as i64),
            grouped(number(&sale["backlog"]["retries"]) as i64),
            if sale["fenced"].is_object() {
                "FENCED: rushline repair".into()
            } else if differs {
                format!("OFF BY {}", plain(&sale["conservation_difference"]))
            } else {
                "adds up".into()
            },
        ]);
    }
    if rows.is_empty() {
        out.push_str("no sales yet\n");
        return;
    }
    let header = ["sale", "status", "stock", "available", "reserved", "sold", "refused", "retries", "books"];
    out.push_str(&terminal::table(&header, 3, rows));
}

fn transactions(now: &Value, out: &mut String) {
    let counts = now["transactions"]["counts"].as_object();
    let words: Vec<String> = counts
        .into_iter()
        .flatten()
        .map(|(status, types)| (status, sum(types)))
        .filter(|(_, count)| *count > 0.0)
        .map(|(status, count)| format!("{status} {}", grouped(count as i64)))
        .collect();
    let words = if words.is_empty() { "none in Redis".to_owned() } else { words.join("  ") };
    let _ = writeln!(out, "\ntransactions  {words}");
}

fn nodes(now: &Value, out: &mut String) {
    for node in now["nodes"].as_array().into_iter().flatten() {
        let alive = if node["alive"] == true { "" } else { "  SILENT" };
        let _ = writeln!(
            out,
            "node {}  {}  {} orders and {} transactions in flight{alive}",
            terminal::safe(&plain(&node["node"]), 60),
            plain(&node["address"]),
            plain(&node["orders_in_flight"]),
            plain(&node["transactions_in_flight"])
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_picture_says_what_sells_and_what_is_wrong() {
        let look = |admitted: u64, difference: i64| {
            json!({
                "at": "2026-11-22T10:00:00Z", "version": "0.1.0", "redis": {"usable": true, "version": "8.2"},
                "records": {"reachable": true, "kind": "SQLite"}, "counters": {"orders_admitted_total": admitted},
                "sales": [{"sale": "nov22", "status": "open", "refused": {"sold_out": 5}, "backlog": {"retries": 2},
                    "items": [{"loaded": 1000, "available": 500, "reserved": 100, "sold": 400}],
                    "conservation_difference": difference}],
                "transactions": {"counts": {"submitted": {"saga": 3, "tcc": 1}, "failed": {}}},
                "nodes": [{"node": "a", "alive": false, "orders_in_flight": 1, "transactions_in_flight": 0}],
            })
        };
        let shown = picture(&look(300, 0), Some((&look(100, 0), Duration::from_secs(2))));
        for part in ["admitted 100/s", "nov22", "████████████············", "adds up", "submitted 4", "SILENT"]
        {
            assert!(shown.contains(part), "no {part} in\n{shown}");
        }
        assert!(picture(&look(0, 3), None).contains("OFF BY 3"));
    }
}
