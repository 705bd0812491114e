//! How reservations end: cancelled ones are gone, confirmed ones stay, and none outlives its deadline.

use super::super::facts::Facts;
use super::super::{Charge, End, Evidence, Verdict, seconds};

/// The buyer was told that the order is cancelled, and it stands at the order service or with the shop.
pub fn cancelled(facts: &Facts<'_>, verdict: &mut Verdict) {
    for (gid, order) in &facts.orders {
        let Some(at_us) = order.cancel_done_us else { continue };
        verdict.looked_at("cancels", 1);
        let evidence = |what: &str| Evidence::new(at_us, what).gid(gid).buyer(order.buyer_text());
        if order.confirm_done_us.is_some() {
            let what = "told that it is confirmed, and told that it is cancelled";
            verdict.charge(Charge::CancelledKept, evidence(what));
        } else if order.stands() {
            let what = "told that it is cancelled, and the order service still has the order";
            verdict.charge(Charge::CancelledKept, evidence(what));
        } else if facts.shop_says(gid) == Some(End::Stands) {
            verdict
                .charge(Charge::CancelledKept, evidence("told that it is cancelled, and the shop says that it stands"));
        }
    }
}

/// The buyer was told that the order is confirmed, and it does not stand.
pub fn confirmed(facts: &Facts<'_>, verdict: &mut Verdict) {
    for (gid, order) in &facts.orders {
        let Some(at_us) = order.confirm_done_us else { continue };
        verdict.looked_at("confirms", 1);
        if order.stands() || order.cancel_done_us.is_some() {
            continue; // both at once is charged above
        }
        // As with any yes: the order service may still say no to an order that it has not made yet.
        if order.service.as_ref().is_some_and(|service| service.made_us.is_none() && service.refused_us.is_some()) {
            continue;
        }
        let what = match order.service.as_ref().and_then(|service| service.cancelled_us) {
            Some(cancelled_us) => {
                format!(
                    "told that it is confirmed, and the order service was told at {} to cancel it",
                    seconds(cancelled_us)
                )
            }
            None => "told that it is confirmed, and the order service has no such order".into(),
        };
        verdict.charge(Charge::ConfirmedReleased, Evidence::new(at_us, what).gid(gid).buyer(order.buyer_text()));
    }
}

/// Nobody confirmed it, its time is long over, and the order service still has it as it was.
pub fn expired(facts: &Facts<'_>, verdict: &mut Verdict) {
    for (gid, order) in &facts.orders {
        let Some(service) = &order.service else { continue };
        let Some(reserve_for_us) = order.sale.and_then(|sale| facts.sale(sale)?.reserve_for_us) else { continue };
        verdict.looked_at("reservations", 1);
        if order.confirm_done_us.is_some() || order.end_unknown || service.confirmed_us.is_some() || !order.stands() {
            continue;
        }
        let due_us = service.call.answered_us + reserve_for_us;
        if due_us + facts.tolerance.returns_us < facts.after.over_us {
            let what =
                format!("not confirmed, due at {}, and the order service was never told to cancel it", seconds(due_us));
            verdict.charge(Charge::ExpiredKept, Evidence::new(due_us, what).gid(gid).buyer(order.buyer_text()));
        }
    }
}
