//! What the shop's people do while buyers buy: more units, a pause, the end.

use std::time::Instant;

use anyhow::Context;
use serde_json::json;
use tokio::time::sleep_until;

use super::parts::Parts;
use crate::engine::clock::micros;
use crate::http::Api;
use crate::ledger::Restock;
use crate::resp::Redis;
use crate::scenario::{Event, Scenario, seconds};
use crate::target::dtm;

/// Where the sale can be changed.
pub struct Shop {
    api: Option<Api>,
    /// The stock of a dtm target.
    stock: Option<crate::resp::Place>,
    sale: String,
}

impl Shop {
    pub fn of(parts: &Parts) -> Self {
        let stock = parts.stock.clone().filter(|_| parts.speaks_dtm());
        Self { api: parts.shop, stock, sale: parts.sale().into() }
    }

    /// Lets each event happen at its time. What was added goes to `restocks` also when a later one fails.
    pub async fn play(&self, scenario: &Scenario, began: Instant, restocks: &mut Vec<Restock>) -> anyhow::Result<()> {
        let mut events: Vec<(usize, &Event)> = scenario.events.iter().enumerate().collect();
        events.sort_by(|one, other| one.1.at_s.total_cmp(&other.1.at_s));
        for (at, event) in events {
            sleep_until((began + seconds(event.at_s)).into()).await;
            self.happen(at, event, scenario.sale.skus, began, restocks)
                .await
                .with_context(|| format!("events[{at}]"))?;
        }
        Ok(())
    }

    async fn happen(
        &self,
        at: usize,
        event: &Event,
        skus: u64,
        began: Instant,
        restocks: &mut Vec<Restock>,
    ) -> anyhow::Result<()> {
        if let Some(units) = event.restock {
            let skus =
                event.sku.clone().map_or_else(|| (1..=skus).map(|n| format!("sku-{n}")).collect(), |sku| vec![sku]);
            for sku in skus {
                let sent_us = micros(began.elapsed());
                restocks.push(Restock { sent_us, answered_us: None, sku: sku.clone(), units });
                self.restock(&format!("event-{at}-{sku}"), &sku, units).await?;
                if let Some(restock) = restocks.last_mut() {
                    restock.answered_us = Some(micros(began.elapsed()));
                }
            }
        }
        if let Some(status) = &event.status {
            let api = self.api.filter(|_| self.stock.is_none()).context("this target's sale cannot be changed")?;
            api.expect("PATCH", &format!("/v1/sales/{}", self.sale), Some(&json!({ "status": status }))).await?;
        }
        Ok(())
    }

    async fn restock(&self, request_id: &str, sku: &str, units: i64) -> anyhow::Result<()> {
        if let Some(stock) = &self.stock {
            Redis::at(stock).await?.call(&["INCRBY", &dtm::stock_key(&self.sale, sku), &units.to_string()]).await?;
            return Ok(());
        }
        let api = self.api.context("this target's stock cannot be changed")?;
        let body = json!({"sku": sku, "units": units, "request_id": request_id});
        api.expect("POST", &format!("/v1/sales/{}/stock", self.sale), Some(&body)).await?;
        Ok(())
    }
}
