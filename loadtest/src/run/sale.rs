//! Putting the sale up, where the target keeps it.

use std::time::Duration;

use anyhow::Context;
use serde_json::json;

use super::parts::Parts;
use crate::ledger::{SalePlan, Stock};
use crate::resp::Redis;
use crate::scenario::{Scenario, Work, seconds};
use crate::target::dtm;

impl Parts {
    /// Puts the sale up, and says what the oracle may expect of it.
    pub async fn open_sale(&self, scenario: &Scenario, began_unix: Duration) -> anyhow::Result<SalePlan> {
        let sale = &scenario.sale;
        let stock: Vec<Stock> =
            (1..=sale.skus).map(|sku| Stock { sku: format!("sku-{sku}"), units: sale.units }).collect();
        let micros = |s: f64| (s * 1e6) as i64;
        let plan = SalePlan {
            name: self.sale().to_owned(),
            limit_per_buyer: sale.limit_per_buyer.filter(|_| !self.speaks_dtm()),
            opens_us: sale.opens_s.map(micros).filter(|_| !self.speaks_dtm()),
            closes_us: sale.closes_s.map(micros).filter(|_| !self.speaks_dtm()),
            reserve_for_us: sale.reserve_for_s.map(|s| micros(s).unsigned_abs()),
            restocks: Vec::new(),
            stock,
        };
        if scenario.work != Work::Orders {
            return Ok(plan);
        }
        if self.speaks_dtm() {
            let place =
                self.stock.as_ref().context("a dtm target keeps its stock in a Redis\nhint: --stock HOST:PORT")?;
            let mut redis = Redis::at(place).await?;
            for stock in &plan.stock {
                redis.call(&["SET", &dtm::stock_key(self.sale(), &stock.sku), &stock.units.to_string()]).await?;
            }
        } else if let Some(shop) = self.shop {
            let body = self.sale_body(scenario, &plan, began_unix)?;
            shop.expect("POST", "/v1/sales", Some(&body)).await?;
        }
        Ok(plan)
    }

    fn sale_body(&self, scenario: &Scenario, plan: &SalePlan, began: Duration) -> anyhow::Result<serde_json::Value> {
        let (sale, service) = (&scenario.sale, &scenario.order_service);
        let (called, asked) = (self.for_orders.context("no order service")?, self.service.context("no order service")?);
        let mut body = json!({
            "sale": plan.name,
            "items": plan.stock,
            "order_endpoint": {
                "url": format!("http://{called}/orders"),
                "count_url": format!("http://{}/count", asked.address),
                "list_url": format!("http://{}/gids", asked.address),
                "timeout_ms": service.timeout_ms,
                "max_concurrency": service.max_concurrency,
                "mode": service.mode,
            },
        });
        let at = |s: f64| -> anyhow::Result<serde_json::Value> {
            let ms = i64::try_from(began.as_millis())? + (s * 1000.0) as i64;
            Ok(jiff::Timestamp::from_millisecond(ms)?.to_string().into())
        };
        if let Some(limit) = sale.limit_per_buyer {
            body["limit_per_buyer"] = limit.into();
        }
        if let Some(class) = &sale.durability {
            body["durability"] = class.as_str().into();
        }
        if let Some(s) = sale.opens_s {
            body["opens_at"] = at(s)?;
        }
        if let Some(s) = sale.closes_s {
            body["closes_at"] = at(s)?;
        }
        if let Some(s) = sale.reserve_for_s {
            body["reserve_for_ms"] = u64::try_from(seconds(s).as_millis())?.into();
        }
        Ok(body)
    }
}
