//! After the last buyer: wait until the shop has done what it promised, bring the two lists together, and have the oracle
//! judge.

use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, sleep};

use super::parts::Parts;
use crate::audit::Audit;
use crate::http::Api;
use crate::ledger::{Ledger, Plan, Recorder, StockSample};
use crate::oracle::{self, Aftermath, Tolerance, Verdict};
use crate::resp::Redis;
use crate::scenario::Work;
use crate::sink_service;
use crate::target::dtm;

/// Orders that are on their way when the last buyer is gone get this long; a check-back of dtm's alone takes 40 s.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);
/// A shop without an audit has settled when its order service heard nothing new for this long.
const QUIET: Duration = Duration::from_secs(3);

/// Judges what `recorder` has. `over_us` is when the last buyer was gone.
pub async fn judge(
    parts: &Parts,
    work: Work,
    plan: Plan,
    recorder: &Recorder,
    over_us: u64,
) -> anyhow::Result<(Ledger, Verdict)> {
    let service = parts.service.context("no order service")?;
    let began = plan.began_unix_us;
    let with_audit = parts.audited();
    match with_audit {
        // What does not settle is said by the aftermath; here it is only waited for.
        Some(shop) => _ = Audit::settled(shop, parts.sale(), SETTLE_TIME_MAX).await,
        None => quiet(service, parts.sale()).await?,
    }
    recorder.called(sink_service::fetch(service, began).await?);
    let ledger = recorder.finish(plan)?;
    if work != Work::Orders {
        let mut verdict = Verdict::default();
        verdict.not_judged.push("sagas have no stock and no orders: there is nothing to judge".into());
        return Ok((ledger, verdict));
    }
    let after = match with_audit {
        Some(shop) => Aftermath::ask(shop, &ledger, over_us, SETTLE_TIME_MAX).await?,
        None if parts.speaks_dtm() => dtm_aftermath(parts, &ledger, over_us).await?,
        None => Aftermath {
            problem: Some("a shop described by a template cannot be asked".into()),
            over_us,
            ..Aftermath::default()
        },
    };
    let marks_replays = with_audit.is_some();
    let verdict = oracle::judge(&ledger, &after, Tolerance { marks_replays, ..Tolerance::default() });
    Ok((ledger, verdict))
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
