//! `rushline sale changes`, and what every change of a sale says of itself: who makes it and why.

use super::client::{self, Answer, ServerArgs};
use super::terminal::{self, plain};
use crate::domain::ids::SaleName;
use crate::fault::{Class, Fault};
use http::Method;
use serde_json::{Value, json};
use std::time::Duration;

/// Said with a change, and shown by `rushline sale changes`.
#[derive(Debug, Clone, clap::Args)]
pub struct NoteArgs {
    /// Who makes this change.
    #[arg(
        long,
        value_name = "NAME",
        env = "RUSHLINE_OPERATOR",
        hide_env_values = true,
        help_heading = "For the log of changes"
    )]
    operator: Option<String>,
    /// Why.
    #[arg(long, value_name = "TEXT", help_heading = "For the log of changes")]
    pub reason: Option<String>,
}

impl NoteArgs {
    /// Who is logged in is the best guess; a server asks for no passwords.
    pub fn operator(&self) -> String {
        self.operator.clone().or_else(|| std::env::var("USER").ok()).unwrap_or_default()
    }
}

/// Sends a change of a sale that happens once, however often it is sent; an answer that was lost says how to ask again.
pub async fn send(
    server: &ServerArgs,
    note: &NoteArgs,
    method: Method,
    path: &str,
    mut body: Value,
    again: &str,
) -> anyhow::Result<Answer> {
    let request_id = match body["request_id"].as_str() {
        Some(given) => given.to_owned(),
        None => format!("cli-{:016x}", fastrand::u64(..)),
    };
    body["request_id"] = json!(request_id);
    if let Some(reason) = &note.reason {
        body["reason"] = json!(reason);
    }
    let operator = note.operator();
    let headers = [("rushline-operator", operator.as_str())];
    server.connect()?.send_with(method, path, &headers, Some(&body), Duration::ZERO).await.map_err(|error| {
        let unknown = Fault::in_error(&error).is_some_and(|fault| fault.class == Class::Unreachable);
        match error.downcast::<Fault>() {
            Ok(fault) if unknown => fault.hint(format!("{again} --request-id {request_id}   repeats it safely")).into(),
            Ok(fault) => fault.into(),
            Err(error) => error,
        }
    })
}

pub async fn list(sale: SaleName, limit: u32, server: ServerArgs) -> anyhow::Result<()> {
    let body = server.connect()?.get(&format!("/v1/sales/{sale}/changes?limit={limit}")).await?;
    client::show(&server, &body, table)
}

fn table(body: &Value) -> String {
    let changes = body["changes"].as_array().map(Vec::as_slice).unwrap_or_default();
    if changes.is_empty() {
        return "no changes since it was created\n".into();
    }
    let rows = changes.iter().map(|change| {
        let text = |field: &str| change.get(field).map(plain).unwrap_or_default();
        vec![text("at"), text("who"), what(change), text("why")]
    });
    terminal::table(&["when", "who", "what", "why"], 4, rows)
}

/// In a line: `sku-1 +500`, or the settings that were named.
fn what(change: &Value) -> String {
    let asked = &change["change"];
    match (change["units"].as_i64(), asked["sku"].as_str()) {
        (Some(units), Some(sku)) => format!("{sku} {units:+}"),
        _ => {
            let fields = asked.as_object().into_iter().flatten();
            fields.map(|(name, value)| format!("{name} {}", plain(value))).collect::<Vec<_>>().join(", ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_in_a_line() {
        let stock = json!({"change": {"sku": "sku-1", "units": -50}, "units": -20});
        assert_eq!(what(&stock), "sku-1 -20", "what really happened");
        let settings = json!({"change": {"limit_per_buyer": 3, "status": "open"}});
        assert_eq!(what(&settings), "limit_per_buyer 3, status open");
    }
}
