//! The questions. Each file has one function a charge; none knows of another.

mod answers;
mod ends;
mod limit;
mod orders;
mod stock;

use super::facts::Facts;
use super::{Charge, Evidence, Verdict};

/// All of them. Those that need a settled shop are left out while it is not.
pub fn all(facts: &Facts<'_>, verdict: &mut Verdict) {
    stock::oversold(facts, verdict);
    limit::broken(facts, verdict);
    answers::replays(facts, verdict);
    answers::keys(facts, verdict);
    answers::window(facts, verdict);
    orders::shared(facts, verdict);
    orders::wrong(facts, verdict);
    if facts.after.settled {
        // An order that is still on its way, untold, holds units that these two would miss.
        stock::undersold(facts, verdict);
        limit::misjudged(facts, verdict);
        orders::lost(facts, verdict);
        orders::untold(facts, verdict);
        ends::cancelled(facts, verdict);
        ends::confirmed(facts, verdict);
        ends::expired(facts, verdict);
        books(facts, verdict);
    }
}

/// The shop's own audit: within itself, and against the order service's books.
fn books(facts: &Facts<'_>, verdict: &mut Verdict) {
    for audit in &facts.after.audits {
        verdict.looked_at("audits", 1);
        for fault in audit.faults() {
            verdict.charge(Charge::BooksDiffer, Evidence::new(facts.after.over_us, format!("{}: {fault}", audit.sale)));
        }
        for item in &audit.items {
            let at_service: i64 = (facts.orders.values().filter(|order| order.stands()))
                .filter_map(|order| order.service.as_ref())
                .filter(|service| service.call.sale == audit.sale)
                .flat_map(|service| &service.confirmed.unwrap_or(service.call).items)
                .filter(|line| line.sku == item.sku)
                .map(|line| i64::from(line.quantity))
                .sum();
            if item.sold != at_service {
                let what = format!(
                    "{} {}: the shop sold {} units, and its order service has orders of {at_service}",
                    audit.sale, item.sku, item.sold
                );
                verdict.charge(Charge::BooksDiffer, Evidence::new(facts.after.over_us, what));
            }
        }
    }
}
