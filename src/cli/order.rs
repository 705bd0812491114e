//! `rushline order …`.

use super::client::{self, ServerArgs};
use super::terminal::plain;
use crate::domain::ids::Gid;
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
}

fn gid(text: &str) -> Result<Gid, String> {
    text.parse::<Gid>().map_err(|invalid| invalid.rule)
}

pub async fn run(command: Command) -> anyhow::Result<()> {
    let Command::Show { gid, wait_ms, server } = command;
    let query = if wait_ms > 0 { format!("?wait_ms={wait_ms}") } else { String::new() };
    let path = format!("/v1/orders/{gid}{query}");
    let answer = server.connect()?.send(Method::GET, &path, None, Duration::from_millis(wait_ms)).await?;
    client::show(&server, &answer.body, human)
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
