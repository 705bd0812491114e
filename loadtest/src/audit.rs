//! The server's own audit, read and waited for.

use std::time::Duration;

use anyhow::{Context, bail};
use comfy_table::{Cell, CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::http::Api;

/// How long one audit waits for the sale to settle before it says how far it is.
const WAIT_MS: u64 = 5_000;
/// Pause between two audits, should the server not wait.
const POLL: Duration = Duration::from_millis(100);

/// `GET /v1/sales/{sale}/audit`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Audit {
    pub sale: String,
    /// Nothing is in flight: every order has ended and is in the records.
    pub settled: bool,
    /// Units by which the books differ; 0 or something is broken.
    pub drift: i64,
    pub items: Vec<Item>,
    pub records: Records,
    pub orders_at_service: Option<u64>,
    #[serde(default)]
    pub missing: Vec<String>,
    #[serde(default)]
    pub extra: Vec<String>,
    /// What the server could not check.
    #[serde(default)]
    pub problems: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Item {
    pub sku: String,
    pub loaded: i64,
    pub available: i64,
    pub reserved: i64,
    pub sold: i64,
    pub records_units: i64,
    pub service_units: Option<i64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Records {
    pub succeed: u64,
    pub failed: u64,
}

impl Audit {
    /// As things are now, or when the sale has settled within `wait_ms`.
    pub async fn ask(api: Api, sale: &str, wait_ms: u64) -> anyhow::Result<Self> {
        let answer = api.expect("GET", &format!("/v1/sales/{sale}/audit?wait_ms={wait_ms}"), None).await?;
        serde_json::from_value(answer).context("the audit is not of the form that was promised")
    }

    /// Asks until the sale is settled, at most for `time_max`.
    pub async fn settled(api: Api, sale: &str, time_max: Duration) -> anyhow::Result<Self> {
        let deadline = Instant::now() + time_max;
        loop {
            // A shop that has just been mended may have to be asked again: it says 503 rather than half of the truth.
            let asked = Self::ask(api, sale, WAIT_MS).await;
            match asked {
                Ok(audit) if audit.settled => return Ok(audit),
                Ok(audit) if Instant::now() >= deadline => {
                    let audit = serde_json::to_string(&audit)?;
                    bail!("sale {sale} was not settled after {} s: {audit}", time_max.as_secs());
                }
                Err(error) if Instant::now() >= deadline => return Err(error),
                _ => sleep(POLL).await,
            }
        }
    }

    /// What does not add up, in words; empty if all does.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut equal = |what: String, a: i64, b: i64| {
            if a != b {
                faults.push(format!("{what}: {a} and {b} differ"));
            }
        };
        equal("drift".into(), self.drift, 0);
        for item in &self.items {
            let Item { sku, loaded, available, reserved, sold, records_units, service_units } = item;
            equal(format!("{sku}: loaded, and available + reserved + sold"), *loaded, available + reserved + sold);
            equal(format!("{sku}: reserved after settling"), *reserved, 0);
            equal(format!("{sku}: units sold, and in the records"), *sold, *records_units);
            if let Some(units) = service_units {
                equal(format!("{sku}: units sold, and at the order service"), *sold, *units);
            }
        }
        if let Some(orders) = self.orders_at_service {
            equal(
                "orders in the records, and at the order service".into(),
                signed(self.records.succeed),
                signed(orders),
            );
        }
        equal("orders missing at the order service".into(), signed(self.missing.len() as u64), 0);
        equal("orders only at the order service".into(), signed(self.extra.len() as u64), 0);
        faults.extend(self.problems.iter().map(|problem| format!("the audit says: {problem}")));
        faults
    }

    pub fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        table.set_header(["sku", "loaded", "available", "reserved", "sold", "order service", "records"]);
        for item in &self.items {
            let mut row = vec![Cell::new(&item.sku)];
            let service = item.service_units.map_or("–".into(), |units| units.to_string());
            let numbers = [item.loaded, item.available, item.reserved, item.sold].map(|n| n.to_string());
            let cells = numbers.into_iter().chain([service, item.records_units.to_string()]);
            row.extend(cells.map(|text| Cell::new(text).set_alignment(CellAlignment::Right)));
            table.add_row(row);
        }
        table
    }
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audit(text: &str) -> Audit {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn an_audit_that_adds_up_has_no_faults() {
        let audit = audit(
            r#"{"sale":"s","settled":true,"drift":0,"records":{"succeed":3,"failed":1},"orders_at_service":3,"missing":[],"extra":[],
                "items":[{"sku":"a","loaded":5,"available":1,"reserved":0,"sold":4,"records_units":4,"service_units":4}]}"#,
        );
        assert_eq!(audit.faults(), Vec::<String>::new());
    }

    #[test]
    fn each_way_not_to_add_up_is_named() {
        let audit = audit(
            r#"{"sale":"s","settled":true,"drift":1,"records":{"succeed":3,"failed":1},"orders_at_service":4,"missing":["g"],"extra":["h"],
                "items":[{"sku":"a","loaded":6,"available":1,"reserved":1,"sold":3,"records_units":4,"service_units":5}]}"#,
        );
        assert_eq!(audit.faults().len(), 8);
    }
}
