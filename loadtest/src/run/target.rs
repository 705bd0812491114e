//! From the command line's target to the one that each thread gets.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, ensure};

use super::Settings;
use super::parts::Parts;
use crate::ledger::{Kind, Plan};
use crate::scenario::{Manner, Scenario, Work};
use crate::target::{Dtm, Rushline, Target, Template, dtm};

/// Makes targets, one a thread.
pub type Maker = Arc<dyn Fn() -> anyhow::Result<Target> + Send + Sync>;

/// Checks that the target can do what the scenario asks for.
pub async fn maker(settings: &Settings, scenario: &Scenario, parts: &Parts, plan: &Plan) -> anyhow::Result<Maker> {
    let address = parts.for_buyers.context("no target")?;
    let (sale, baskets) = (parts.sale().to_owned(), plan.baskets.clone());
    let settles = |manner: &Manner| manner.pay_percent > 0.0 || manner.cancel_percent > 0.0;
    if parts.speaks_dtm() {
        ensure!(
            !scenario.buyers.iter().any(settles),
            "buyers[]: dtm's protocol has no paying and cancelling of orders"
        );
        let refuses = scenario.order_service.refuse_percent > 0.0;
        ensure!(!refuses, "order_service.refuse_percent: the branch of a dtm message cannot refuse");
        let work = scenario.work;
        let service = match (&parts.stock, work) {
            (Some(stock), Work::Orders) => dtm::service::start(stock.clone()).await?,
            _ => address,
        };
        let parts = dtm::Parts {
            coordinator: address,
            stock: parts.stock.clone(),
            service,
            branches: parts.for_orders.context("no order service")?,
        };
        let waits: Vec<bool> = scenario.buyers.iter().map(|manner| manner.wait_ms > 0).collect();
        return Ok(Arc::new(move || Ok(Target::Dtm(Dtm::new(&parts, &sale, work, &baskets, waits.clone())))));
    }
    ensure!(
        scenario.work == Work::Orders,
        "work: sagas need a target that speaks dtm's protocol\nhint: --target dtm:http://…"
    );
    if let Some(file) = settings.target().strip_prefix("template:") {
        let file = PathBuf::from(file);
        let make = move || {
            let mut template = Template::read_file(&file, &sale, &baskets)?;
            template.address = address;
            anyhow::Ok(template)
        };
        let can = make()?;
        let needs = |kind, wanted: fn(&Manner) -> bool| can.can(kind) || !scenario.buyers.iter().any(wanted);
        ensure!(needs(Kind::Poll, |manner| manner.polls > 0), "buyers[].polls: the template has no [poll]");
        ensure!(
            needs(Kind::Confirm, |manner| manner.pay_percent > 0.0),
            "buyers[].pay_percent: the template has no [confirm]"
        );
        ensure!(
            needs(Kind::Cancel, |manner| manner.cancel_percent > 0.0),
            "buyers[].cancel_percent: the template has no [cancel]"
        );
        return Ok(Arc::new(move || Ok(Target::Template(Box::new(make()?)))));
    }
    let waits_ms: Vec<u64> = scenario.buyers.iter().map(|manner| manner.wait_ms).collect();
    Ok(Arc::new(move || Ok(Target::Rushline(Rushline::new(address, &sale, &baskets, waits_ms.clone())))))
}
