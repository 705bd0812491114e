//! The limit per buyer: kept, and not held against those who are below it.

use std::collections::HashMap;

use super::super::facts::{Facts, Order, Said, said};
use super::super::{Charge, End, Evidence, Verdict};
use crate::ledger::{Kind, Micros, buyer_name};

/// When units of a buyer can have been taken at the earliest, when they are certainly back, and how many.
type Hold = (Micros, Option<Micros>, u64);

fn units(facts: &Facts<'_>, order: &Order<'_>) -> u64 {
    order.items(facts.ledger).iter().map(|item| u64::from(item.quantity)).sum()
}

/// Units of a buyer's orders that stand, by what the order service has.
pub fn broken(facts: &Facts<'_>, verdict: &mut Verdict) {
    let mut held: HashMap<(u16, &str), (u64, Micros, Vec<&str>)> = HashMap::new();
    for (gid, order) in &facts.orders {
        let (Some(sale), Some(service)) = (order.sale, &order.service) else { continue };
        if order.stands() && facts.sale(sale).is_some_and(|sale| sale.limit_per_buyer.is_some()) {
            let (sum, last_us, gids) = held.entry((sale, &service.call.buyer)).or_default();
            *sum += units(facts, order);
            *last_us = (*last_us).max(service.call.at_us);
            gids.push(gid);
        }
    }
    verdict.looked_at("buyers with a limit", held.len() as u64);
    for ((sale, buyer), (sum, last_us, mut gids)) in held {
        let Some(limit) = facts.sale(sale).and_then(|sale| sale.limit_per_buyer) else { continue };
        if sum > u64::from(limit) {
            gids.sort_unstable();
            gids.truncate(5);
            let what = format!("has {sum} units, the limit is {limit}: {}", gids.join(", "));
            verdict.charge(Charge::LimitBroken, Evidence::new(last_us, what).buyer(buyer));
        }
    }
}

/// Told `limit_reached`, while everything that this buyer can have held by then, and what was asked for, is within the limit.
pub fn misjudged(facts: &Facts<'_>, verdict: &mut Verdict) {
    let refused =
        || facts.ledger.told().filter(|told| told.kind == Kind::Order && said(told) == Said::No("limit_reached"));
    let mut held: HashMap<(u16, u32), Vec<Hold>> =
        refused().map(|told| ((told.sale, told.buyer), Vec::new())).collect();
    if held.is_empty() {
        return;
    }
    for (gid, order) in &facts.orders {
        let (Some(sale), Some(buyer)) = (order.sale, order.buyer()) else { continue };
        if let Some(holds) = held.get_mut(&(sale, buyer)) {
            let back_us = facts.back_us(order).filter(|_| facts.shop_says(gid) != Some(End::Stands));
            holds.push((facts.since_us(order), back_us, units(facts, order)));
        }
    }
    for told in refused() {
        verdict.looked_at("limit answers", 1);
        let Some(limit) = facts.sale(told.sale).and_then(|sale| sale.limit_per_buyer) else { continue };
        let asked: u64 = facts.basket(told.basket).iter().map(|item| u64::from(item.quantity)).sum();
        let most: u64 = (held[&(told.sale, told.buyer)].iter())
            .filter(|(since_us, back_us, _)| {
                *since_us <= told.answered_us && back_us.is_none_or(|back| back > told.sent_us)
            })
            .map(|(.., units)| units)
            .sum();
        if most + asked <= u64::from(limit) {
            let what = format!(
                "asked for {asked} units with at most {most} before, was told limit_reached; the limit is {limit}"
            );
            let evidence = Evidence::new(told.answered_us, what).buyer(buyer_name(told.buyer));
            verdict.charge(Charge::LimitMisjudged, evidence);
        }
    }
}
