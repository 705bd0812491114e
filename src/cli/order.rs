//! `rushline order …`.

use super::client::{self, ServerArgs};
use super::query::{self, Query};
use super::terminal::{self, plain};
use crate::domain::ids::{Gid, SaleName};
use http::Method;
use serde_json::Value;
use std::fmt::Write;
use std::time::Duration;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show how far an order is.
    #[command(after_help = "Example:\n  rushline order show nov22.0.1763800000000-3.17 --wait-ms 2000")]
    Show {
        /// The id that the order request was answered with.
        #[arg(value_name = "GID", value_parser = gid)]
        gid: Gid,
        /// Wait this long for the order service's answer.
        #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=600_000))]
        wait_ms: u64,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// List the orders of a sale, live and finished, newest first.
    #[command(
        after_help = "Examples:\n  rushline order list nov22 --buyer u1\n  rushline order list nov22 --status submitted --from -10m"
    )]
    List(ListArgs),
    /// Try again now: one, or all of a sale that a filter finds and that wait for their next call.
    #[command(
        after_help = "Examples:\n  rushline order retry nov22.0.1763800000000-3.17\n  rushline order retry nov22 --attention --reason 'the shop is back'"
    )]
    Retry(super::order_retry::RetryArgs),
}

#[derive(Debug, clap::Args)]
pub struct ListArgs {
    #[arg(value_name = "SALE", value_parser = |text: &str| SaleName::parse(text).map_err(|invalid| invalid.rule))]
    sale: SaleName,
    /// submitted, reserved, succeed, failed, cancelled or expired.
    #[arg(long, value_name = "WORD")]
    status: Option<String>,
    #[arg(long, value_name = "BUYER")]
    buyer: Option<String>,
    #[command(flatten)]
    span: query::Span,
    /// A text in its gid, buyer, payload or the order service's words.
    #[arg(long, value_name = "TEXT")]
    q: Option<String>,
    /// Those that were called so often without a verdict that somebody should look (setting delivery.attention_after).
    #[arg(long)]
    attention: bool,
    /// How many.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Where the page before ended: its `next`.
    #[arg(long, value_name = "PLACE")]
    after: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

fn gid(text: &str) -> Result<Gid, String> {
    text.parse::<Gid>().map_err(|invalid| invalid.rule)
}

pub async fn run(command: Command) -> anyhow::Result<()> {
    let (gid, wait_ms, server) = match command {
        Command::Show { gid, wait_ms, server } => (gid, wait_ms, server),
        Command::List(args) => return list(args).await,
        Command::Retry(args) => return super::order_retry::run(args).await,
    };
    let query = if wait_ms > 0 { format!("?wait_ms={wait_ms}") } else { String::new() };
    let path = format!("/v1/orders/{gid}{query}");
    let answer = server.connect()?.send(Method::GET, &path, None, Duration::from_millis(wait_ms)).await?;
    client::show(&server, &answer.body, human)
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let query = args
        .span
        .of(Query::default().with("status", args.status).with("buyer", args.buyer))
        .with("q", args.q)
        .with("attention", args.attention.then_some(true))
        .with("limit", Some(args.limit))
        .with("after", args.after);
    let body = args.server.connect()?.get(&format!("/v1/sales/{}/orders{query}", args.sale)).await?;
    client::show(&args.server, &body, table)
}

fn table(body: &Value) -> String {
    let orders = body["orders"].as_array().map(Vec::as_slice).unwrap_or_default();
    if orders.is_empty() && body["next"].is_null() {
        return "no orders\n".into();
    }
    let row = |order: &Value| {
        let items = order["items"].as_array().into_iter().flatten().map(item).collect::<Vec<_>>().join(", ");
        let said = order["last_error"].as_str().unwrap_or_default();
        vec![
            plain(&order["gid"]),
            terminal::safe(&plain(&order["buyer"]), 40),
            plain(&order["status"]),
            items,
            plain(&order["admitted_at"]),
            terminal::safe(said, 60),
        ]
    };
    let out = terminal::table(&["gid", "buyer", "status", "items", "admitted", "said"], 6, orders.iter().map(row));
    out + &query::more(body)
}

/// A line per field, gid and status first; items as `2 × sku-1`.
fn human(order: &Value) -> String {
    let mut out = String::new();
    let mut fields: Vec<_> = order.as_object().into_iter().flatten().collect();
    fields.sort_by_key(|(name, _)| !["gid", "status"].contains(&name.as_str()));
    for (name, value) in fields {
        let text = match value {
            Value::Array(items) => items.iter().map(item).collect::<Vec<_>>().join(", "),
            other => plain(other),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{name:<14} {text}");
    }
    out
}

fn item(item: &Value) -> String {
    match (item.get("quantity"), item.get("sku").and_then(Value::as_str)) {
        (Some(quantity), Some(sku)) => format!("{} × {sku}", plain(quantity)),
        _ => plain(item),
    }
}
