//! Units: never more than there were, and none withheld.

use std::collections::{BTreeSet, HashMap};

use super::super::facts::{Facts, Order, Said, Service, said};
use super::super::{Charge, End, Evidence, Verdict, seconds};
use crate::ledger::{Kind, Micros, SalePlan, buyer_name};

/// Units of one SKU that one order held.
struct Hold {
    /// The earliest moment at which they can have been taken.
    since_us: Micros,
    /// They are certainly on sale again from then on.
    back_us: Option<Micros>,
    units: u64,
}

/// Units that can have been on sale up to `at_us`: whatever was asked to be added by then counts, whatever was withdrawn
/// does not, since nobody knows what was sold first.
fn loaded_most(sale: &SalePlan, sku: &str, at_us: Micros) -> u64 {
    let added = sale.restocks.iter().filter(|restock| restock.sku == sku && restock.sent_us <= at_us);
    begun(sale, sku) + added.filter_map(|restock| u64::try_from(restock.units).ok()).sum::<u64>()
}

/// Units that were certainly put on sale by `at_us`, less whatever can have been withdrawn.
fn loaded_least(sale: &SalePlan, sku: &str, at_us: Micros, returns_us: Micros) -> i64 {
    let mut units = signed(begun(sale, sku));
    for restock in sale.restocks.iter().filter(|restock| restock.sku == sku) {
        let in_effect = restock.answered_us.is_some_and(|answered| answered + returns_us <= at_us);
        if restock.units < 0 || in_effect {
            units += restock.units;
        }
    }
    units
}

fn begun(sale: &SalePlan, sku: &str) -> u64 {
    sale.stock.iter().filter(|stock| stock.sku == sku).map(|stock| stock.units).sum()
}

fn signed(units: u64) -> i64 {
    i64::try_from(units).unwrap_or(i64::MAX)
}

/// Units taken (or, negative, given back) of one SKU, when, and by which order.
type Change<'a> = (Micros, i64, &'a str);
/// A sum that grows with time.
type Sums = Vec<(Micros, u64)>;

/// At no moment may more be held than was put on sale by then. An order holds its units for certain from the moment
/// anybody knows of it until the shop can first have heard that it ended.
pub fn oversold(facts: &Facts<'_>, verdict: &mut Verdict) {
    let mut events: HashMap<(u16, &str), Vec<Change<'_>>> = HashMap::new();
    for (gid, order) in &facts.orders {
        let (Some(sale), Some((from_us, to_us))) = (order.sale, held(facts, gid, order)) else { continue };
        for item in order.items(facts.ledger) {
            let of_sku = events.entry((sale, &item.sku)).or_default();
            of_sku.push((from_us, item.quantity.into(), gid));
            of_sku.extend(to_us.map(|to_us| (to_us, -i64::from(item.quantity), *gid)));
        }
    }
    for (at, sale) in (0u16..).zip(&facts.ledger.plan.sales) {
        let planned = sale.stock.iter().map(|stock| &*stock.sku);
        let restocked = sale.restocks.iter().map(|restock| &*restock.sku);
        let found = events.keys().filter(|(of, _)| *of == at).map(|(_, sku)| *sku);
        for sku in planned.chain(restocked).chain(found).collect::<BTreeSet<_>>() {
            verdict.looked_at("SKUs", 1);
            let Some(of_sku) = events.get_mut(&(at, sku)) else { continue };
            of_sku.sort_unstable(); // what goes back goes back first
            let (mut units, mut most, mut over) = (0, 0, None);
            for &(at_us, change, gid) in of_sku.iter() {
                units += change;
                most = most.max(units);
                if over.is_none() && units > signed(loaded_most(sale, sku, at_us)) {
                    over = Some((at_us, gid, units));
                }
            }
            let Some((at_us, gid, held)) = over else { continue };
            let what = format!(
                "sale {}, {sku}: {held} units were taken of {} by then; at most {most}, and {units} of {} in the end",
                sale.name,
                loaded_most(sale, sku, at_us),
                loaded_most(sale, sku, Micros::MAX)
            );
            verdict.charge(Charge::Oversold, Evidence::new(at_us, what).gid(gid));
        }
    }
}

/// From when to when an order certainly holds its units; without an end if it stands. `None` for those that may have been
/// given back at any time: cancelled, run out, or nobody knows.
fn held(facts: &Facts<'_>, gid: &str, order: &Order<'_>) -> Option<(Micros, Option<Micros>)> {
    let from_us = order.known_us();
    if order.stands() {
        return Some((from_us, None));
    }
    match &order.service {
        Some(service) if service.made_us.is_some() || service.cancelled_us.is_some() => None,
        Some(service) if order.cancel_done_us.is_none() && !order.end_unknown => {
            Some((from_us, Some(service.refused_from_us?.max(from_us))))
        }
        Some(_) => None,
        None => {
            let ended =
                order.cancel_done_us.is_some() || order.end_unknown || facts.shop_says(gid) == Some(End::Failed);
            (order.told.is_some() && !ended).then_some((from_us, None))
        }
    }
}

/// Units that were certainly there while a buyer was told `sold_out`: loaded, less everything that any order can have held
/// in that time. Of an order with several SKUs one must have been short.
pub fn undersold(facts: &Facts<'_>, verdict: &mut Verdict) {
    let holds = Holds::gather(facts);
    for told in facts.ledger.told().filter(|told| told.kind == Kind::Order) {
        let Said::No("sold_out") = said(&told) else { continue };
        verdict.looked_at("sold-out answers", 1);
        let Some(sale) = facts.sale(told.sale) else { continue };
        let basket = facts.basket(told.basket);
        let spare = |sku: &str| {
            let held = holds.most(told.sale, sku, told.sent_us, told.answered_us);
            loaded_least(sale, sku, told.sent_us, facts.tolerance.returns_us) - signed(held)
        };
        let there = !basket.is_empty() && basket.iter().all(|item| spare(&item.sku) >= i64::from(item.quantity));
        if there {
            let item = &basket[0];
            let what = format!(
                "asked for {} × {} from {} on, was told sold_out, and at least {} were there all the time",
                item.quantity,
                item.sku,
                seconds(told.sent_us),
                spare(&item.sku)
            );
            verdict.charge(Charge::Undersold, Evidence::new(told.answered_us, what).buyer(buyer_name(told.buyer)));
        }
    }
}

/// All holds of each SKU, so that the most that can have been held is two look-ups.
struct Holds<'a> {
    of: HashMap<(u16, &'a str), [Sums; 2]>,
}

impl<'a> Holds<'a> {
    fn gather(facts: &'a Facts<'_>) -> Self {
        let mut of: HashMap<_, [Sums; 2]> = HashMap::new();
        for (gid, order) in &facts.orders {
            let Some(sale) = order.sale else { continue };
            let told = order.told.map_or(&[][..], |(.., basket)| facts.basket(basket));
            let at_service = order.service.as_ref().map_or(&[][..], |service: &Service<'_>| &service.call.items);
            let skus: BTreeSet<&str> = told.iter().chain(at_service).map(|item| &*item.sku).collect();
            for sku in skus {
                // Should the two lists differ, the larger is to the shop's favour.
                let sum = |items: &[crate::ledger::Item]| -> u64 {
                    items.iter().filter(|item| item.sku == sku).map(|item| u64::from(item.quantity)).sum()
                };
                let hold = Hold {
                    since_us: facts.since_us(order),
                    back_us: facts.back_us(order).filter(|_| facts.shop_says(gid) != Some(End::Stands)),
                    units: sum(told).max(sum(at_service)),
                };
                let [taken, back] = of.entry((sale, sku)).or_default();
                taken.push((hold.since_us, hold.units));
                back.extend(hold.back_us.map(|at| (at, hold.units)));
            }
        }
        for list in of.values_mut().flatten() {
            list.sort_unstable();
            let mut sum = 0;
            list.iter_mut().for_each(|(_, units)| {
                sum += *units;
                *units = sum;
            });
        }
        Self { of }
    }

    /// The most that can have been held at any moment between the two.
    fn most(&self, sale: u16, sku: &str, from_us: Micros, to_us: Micros) -> u64 {
        let Some([taken, back]) = self.of.get(&(sale, sku)) else { return 0 };
        let up_to = |list: &Sums, at_us| match list.partition_point(|(at, _)| *at <= at_us) {
            0 => 0,
            n => list[n - 1].1,
        };
        up_to(taken, to_us).saturating_sub(up_to(back, from_us))
    }
}
