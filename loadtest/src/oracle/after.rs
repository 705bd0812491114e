//! What is asked of the shop once the run is over: has it finished, does its own audit add up, and what became of the orders
//! that the two lists do not explain by themselves.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::audit::Audit;
use crate::http::Api;
use crate::ledger::{Kind, Ledger, Plan, Recorder, ServiceAnswer};
use crate::sink_service::{fetch, now_unix_us};

/// Orders asked about one by one; more than this and something is badly wrong already.
const ASKED_MAX: usize = 20_000;

/// How the shop left things. For a shop that cannot be asked: `settled` by other means, and the rest empty.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Aftermath {
    /// Nothing is on its way any more: what is not at the order service now will never be.
    pub settled: bool,
    /// Why not.
    #[serde(default)]
    pub problem: Option<String>,
    /// The shop's own audit per sale, if it has one.
    #[serde(default)]
    pub audits: Vec<Audit>,
    /// What the shop said about single orders, by gid.
    #[serde(default)]
    pub orders: HashMap<String, Told>,
    /// When the run was over, microseconds since it began; reservations that were due before must have ended.
    #[serde(default)]
    pub over_us: u64,
}

/// The shop's word on one order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    pub end: End,
    /// Whose order it is, if the shop says.
    pub buyer: Option<String>,
}

/// How an order stands with the shop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Taken, and not ended.
    Open,
    /// It exists.
    Stands,
    /// Refused by the order service, cancelled or run out.
    Failed,
    /// The shop does not know it.
    Unknown,
}

/// Ends a run against rushline: waits until every sale is settled (at most `time_max` each), takes the order service's list,
/// closes the ledger, and asks what is left to be asked. All shards must be back.
pub async fn conclude(
    shop: Api,
    service: Api,
    recorder: &Recorder,
    plan: Plan,
    time_max: Duration,
) -> anyhow::Result<(Ledger, Aftermath)> {
    let mut problem = None;
    for sale in &plan.sales {
        if let Err(error) = Audit::settled(shop, &sale.name, time_max).await {
            problem = Some(format!("{error:#}"));
        }
    }
    let over_us = now_unix_us().saturating_sub(plan.began_unix_us);
    recorder.called(fetch(service, plan.began_unix_us).await?);
    let ledger = recorder.finish(plan)?;
    let mut after = Aftermath::ask(shop, &ledger, over_us).await?;
    // What settled after the list was taken is not on it.
    after.settled &= problem.is_none();
    after.problem = problem.or(after.problem);
    Ok((ledger, after))
}

impl Aftermath {
    /// Asks how things are now. `ledger` must have the order service's list already, taken when the shop had settled: what
    /// it did not settle until then stays unsettled.
    pub async fn ask(shop: Api, ledger: &Ledger, over_us: u64) -> anyhow::Result<Self> {
        let mut after = Self { settled: true, over_us, ..Self::default() };
        for sale in &ledger.plan.sales {
            let audit = Audit::ask(shop, &sale.name, 0).await?;
            if !audit.settled {
                after.settled = false;
                after.problem = Some(format!("sale {} has orders on their way", sale.name));
            }
            after.audits.push(audit);
        }
        after.ask_orders(shop, ledger).await?;
        Ok(after)
    }

    /// Asks about each order that is on one list only, or refused by the order service.
    async fn ask_orders(&mut self, shop: Api, ledger: &Ledger) -> anyhow::Result<()> {
        let told: HashSet<&str> =
            ledger.told().filter(|told| told.kind == Kind::Order).filter_map(|told| told.gid()).collect();
        let made: HashSet<&str> =
            ledger.called.iter().filter(|call| made(call.answer)).map(|call| &*call.gid).collect();
        let one_list_only: Vec<&str> = told.symmetric_difference(&made).copied().collect();
        anyhow::ensure!(
            one_list_only.len() <= ASKED_MAX,
            "{} orders are known to buyers or to the order service only; the oracle asks about {ASKED_MAX} at most",
            one_list_only.len()
        );
        for gid in one_list_only {
            let (status, order) = shop.call("GET", &format!("/v1/orders/{gid}"), None).await?;
            let end = match (status, order["status"].as_str()) {
                (404, _) => End::Unknown,
                (200, Some("succeed" | "confirmed" | "returned")) => End::Stands,
                (200, Some("failed" | "cancelled" | "expired" | "released")) => End::Failed,
                (200, Some(_)) => End::Open,
                _ => anyhow::bail!("GET /v1/orders/{gid} answered {status}: {order}"),
            };
            let buyer = order.get("buyer").and_then(Value::as_str).map(str::to_owned);
            self.orders.insert(gid.into(), Told { end, buyer });
        }
        Ok(())
    }
}

fn made(answer: ServiceAnswer) -> bool {
    matches!(answer, ServiceAnswer::Made | ServiceAnswer::Again | ServiceAnswer::Lost)
}
