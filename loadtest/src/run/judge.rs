//! After the last buyer: wait until the shop has done what it promised, bring the two lists together, and have the oracle
//! judge.

use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, sleep};

use super::parts::Parts;
use crate::http::Api;
use crate::ledger::{Ledger, Plan, Recorder, StockSample};
use crate::oracle::{self, Aftermath, Tolerance, Verdict};
use crate::resp::Redis;
use crate::scenario::Work;
use crate::sink_service::{self, now_unix_us};
use crate::target::dtm;

/// Orders that are on their way when the last buyer is gone get this long; a check-back of dtm's alone takes 40 s.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(120);
/// Units of an order that a killed server had in its hands come back when its lease (5 s) and a sweep (3 s) are over.
const RETURNS_US_AFTER_FAULTS: u64 = 15_000_000;
const POLL: Duration = Duration::from_millis(100);
/// A shop without an audit has settled when its order service heard nothing new for this long.
const QUIET: Duration = Duration::from_secs(3);

/// Judges what `recorder` has.
pub async fn judge(
    parts: &Parts,
    work: Work,
    plan: Plan,
    recorder: &Recorder,
    broken: bool,
) -> anyhow::Result<(Ledger, Aftermath, Verdict)> {
    let service = parts.service.context("no order service")?;
    let (ledger, after) = match parts.audited() {
        Some(shop) => oracle::conclude(shop, service, recorder, plan, SETTLE_TIME_MAX).await?,
        None => {
            quiet(service, parts.sale()).await?;
            recorder.called(sink_service::fetch(service, plan.began_unix_us).await?);
            let over_us = now_unix_us().saturating_sub(plan.began_unix_us);
            let ledger = recorder.finish(plan)?;
            let after = unaudited(parts, work, &ledger, over_us).await?;
            (ledger, after)
        }
    };
    let verdict = if work == Work::Orders {
        let marks_replays = parts.audited().is_some();
        let usual = Tolerance::default();
        let returns_us = if broken { RETURNS_US_AFTER_FAULTS } else { usual.returns_us };
        oracle::judge(&ledger, &after, Tolerance { marks_replays, returns_us, ..usual })
    } else {
        let mut verdict = Verdict::default();
        verdict.looked_at("sagas that were answered as done", ledger.counts.created);
        verdict
    };
    Ok((ledger, after, verdict))
}

async fn unaudited(parts: &Parts, work: Work, ledger: &Ledger, over_us: u64) -> anyhow::Result<Aftermath> {
    if work != Work::Orders {
        return Ok(Aftermath { settled: true, over_us, ..Aftermath::default() });
    }
    if parts.speaks_dtm() {
        return dtm_aftermath(parts, ledger, over_us).await;
    }
    let problem = Some("a shop described by a template cannot be asked".into());
    Ok(Aftermath { problem, over_us, ..Aftermath::default() })
}

/// Waits until the order service hears nothing new.
async fn quiet(service: Api, sale: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + SETTLE_TIME_MAX;
    let (mut before, mut since) = (None, Instant::now());
    while Instant::now() < deadline && since.elapsed() < QUIET {
        let now = service.expect("GET", &format!("/count?sale={sale}"), None).await?;
        if before.as_ref() != Some(&now) {
            (before, since) = (Some(now), Instant::now());
        }
        sleep(POLL).await;
    }
    Ok(())
}

/// Settled is a dtm target when every unit that left the stock is in an order.
async fn dtm_aftermath(parts: &Parts, ledger: &Ledger, over_us: u64) -> anyhow::Result<Aftermath> {
    let (service, place) = (parts.service.context("no order service")?, parts.stock.as_ref().context("no stock")?);
    let mut redis = Redis::at(place).await?;
    let deadline = Instant::now() + SETTLE_TIME_MAX;
    let sale = &ledger.plan.sales[0];
    let restocked: i64 = sale.restocks.iter().map(|restock| restock.units).sum();
    let loaded: i64 = restocked + sale.stock.iter().map(|stock| stock.units as i64).sum::<i64>();
    loop {
        let mut left = 0;
        for stock in &sale.stock {
            left += redis.number(&["GET", &dtm::stock_key(&sale.name, &stock.sku)]).await? as i64;
        }
        let count = service.expect("GET", &format!("/count?sale={}", sale.name), None).await?;
        let units = count["units"].as_object().map_or(0, |units| units.values().filter_map(|n| n.as_i64()).sum());
        let (taken, settled) = (loaded - left, loaded - left == units);
        if settled || Instant::now() >= deadline {
            let problem = (!settled).then(|| format!("{taken} units were taken, and orders were made of {units}"));
            return Ok(Aftermath { settled, problem, over_us, ..Aftermath::default() });
        }
        sleep(POLL).await;
    }
}

/// Asks the shop for its stock, every now and then, until dropped: for the plot.
pub async fn sample(shop: Option<Api>, sale: &str, began: std::time::Instant, recorder: &Recorder) {
    const EVERY: Duration = Duration::from_secs(1);
    let Some(shop) = shop else { return std::future::pending().await };
    loop {
        sleep(EVERY).await;
        // A shop that is being killed does not answer, and the plot has a gap.
        let Ok(Ok((200, view))) =
            tokio::time::timeout(EVERY, shop.call("GET", &format!("/v1/sales/{sale}"), None)).await
        else {
            continue;
        };
        let at_us = crate::engine::clock::micros(began.elapsed());
        for item in view["items"].as_array().into_iter().flatten() {
            let number = |name: &str| item[name].as_i64().unwrap_or_default();
            recorder.stock(StockSample {
                at_us,
                sku: item["sku"].as_str().unwrap_or_default().into(),
                available: number("available"),
                reserved: number("reserved"),
                sold: number("sold"),
            });
        }
    }
}
