//! Orders against answers: lost, ghost, double, shared, and not what was asked for.

use std::collections::HashSet;

use super::super::facts::{Facts, Order, Request, Said, said};
use super::super::{Charge, End, Evidence, Verdict, seconds};
use crate::ledger::{Item, Outcome, buyer_name, buyer_number, key_text};

/// Told yes, and there is no order. The order service's own no ends an order well, unless the buyer heard that it exists.
pub fn lost(facts: &Facts<'_>, verdict: &mut Verdict) {
    for (gid, order) in &facts.orders {
        let Some((told_us, buyer, _)) = order.told else { continue };
        verdict.looked_at("promises", 1);
        let evidence = |what: String| Evidence::new(told_us, what).gid(gid).buyer(buyer_name(buyer));
        match &order.service {
            Some(service) if service.made_us.is_some() => {}
            Some(service) if service.refused_us.is_some() => {
                if let Some(created_us) = order.told_created_us {
                    let at = seconds(created_us);
                    let what = format!("told at {at} that the order exists, and the order service has refused it");
                    verdict.charge(Charge::Lost, evidence(what));
                } else if facts.shop_says(gid) == Some(End::Stands) {
                    let what = "the shop says that it exists, and the order service has refused it";
                    verdict.charge(Charge::Lost, evidence(what.into()));
                }
            }
            // Cancelled or run out before the order service heard of it: nobody is owed anything.
            None if order.cancel_done_us.is_some() && facts.shop_says(gid) != Some(End::Stands) => {}
            None if reserved_only(facts, order) && facts.shop_says(gid) == Some(End::Failed) => {}
            Some(_) => verdict.charge(
                Charge::Lost,
                evidence("told yes; the order service was called, and never made or refused it".into()),
            ),
            None => verdict.charge(Charge::Lost, evidence("told yes, and the order service never heard of it".into())),
        }
    }
}

/// A reservation that nobody confirmed may run out.
fn reserved_only(facts: &Facts<'_>, order: &Order<'_>) -> bool {
    let reserves = order.sale.and_then(|sale| facts.sale(sale)).is_some_and(|sale| sale.reserve_for_us.is_some());
    reserves && order.confirm_done_us.is_none() && order.told_created_us.is_none()
}

/// Orders that stand and that nobody was told of: a request that got no answer may have made one, if the shop knows it. Every
/// other is a second order of a request that has one, or an order of somebody who heard no.
pub fn untold(facts: &Facts<'_>, verdict: &mut Verdict) {
    let mut unanswered = Unanswered { facts, used: HashSet::new() };
    // By time: a request that can explain an order can explain every later one, so none is taken from another's only excuse.
    let mut standing: Vec<_> = facts.orders.iter().filter(|(_, order)| order.stands()).collect();
    standing.sort_by_key(|(gid, order)| (order.service.as_ref().map(|service| service.call.at_us), **gid));
    for (gid, order) in standing {
        verdict.looked_at("orders that stand", 1);
        let Some(service) = &order.service else { continue };
        let evidence = |what: String| Evidence::new(service.call.at_us, what).gid(gid).buyer(order.buyer_text());
        if let Some(failed_us) = order.told_failed_us {
            let what = format!("told at {} that the order failed, and it stands", seconds(failed_us));
            verdict.charge(Charge::Ghost, evidence(what));
            continue;
        }
        if order.told.is_some() {
            continue;
        }
        let asked = order.sale.zip(order.buyer()).and_then(|of| facts.of_buyer.get(&of));
        let Some(asked) = asked else {
            verdict.charge(Charge::Ghost, evidence("this buyer never asked for anything".into()));
            continue;
        };
        let known = match facts.after.orders.get(*gid) {
            Some(told) => {
                told.end != End::Unknown && told.buyer.as_deref().is_none_or(|name| *name == service.call.buyer)
            }
            None => false,
        };
        match unanswered.take(asked, &service.call.items, service.call.at_us) {
            Some(_) if known => verdict.looked_at("orders of buyers who got no answer", 1),
            Some(request) => {
                let key = key_text(facts.requests[request].key);
                let what =
                    format!("request {key} got no answer, and the shop does not know the order to tell of it later");
                verdict.charge(Charge::Ghost, evidence(what));
            }
            None => match told_another(facts, asked, &service.call.items) {
                Some((key, other)) => {
                    let what = format!("request {key} was answered with {other}; this is a second order");
                    verdict.charge(Charge::Double, evidence(what));
                }
                None => verdict.charge(Charge::Ghost, evidence(heard(facts, asked))),
            },
        }
    }
}

/// Requests that may have made an order untold; each explains one order.
struct Unanswered<'f, 'a> {
    facts: &'f Facts<'a>,
    used: HashSet<usize>,
}

impl Unanswered<'_, '_> {
    /// A request among `asked` for these items that can explain an order known to the order service at `at_us`.
    fn take(&mut self, asked: &[usize], items: &[Item], at_us: u64) -> Option<usize> {
        let fits =
            |at: &usize| !self.used.contains(at) && may_be_untold(self.facts, &self.facts.requests[*at], items, at_us);
        // A key that was used for several orders can explain one of any; it is kept for those that nothing else explains.
        let baskets = |at: &usize| {
            let answers = self.facts.answers_to(&self.facts.requests[*at]);
            answers.map(|told| told.basket).collect::<HashSet<_>>().len()
        };
        let found = asked.iter().copied().filter(fits).min_by_key(baskets)?;
        self.used.insert(found);
        Some(found)
    }
}

/// Some attempt of it got no answer, none heard yes, and no attempt that was sent after the order existed heard no: that one
/// should have heard of it.
fn may_be_untold(facts: &Facts<'_>, request: &Request, items: &[Item], at_us: u64) -> bool {
    let (mut nothing, mut yes, mut no_too_late) = (false, false, false);
    for told in facts.answers_to(request) {
        match said(&told) {
            Said::Nothing => nothing |= same(facts.basket(told.basket), items),
            Said::Yes(_) => yes = true,
            Said::No("key_reused") => {}
            Said::No(_) => no_too_late |= told.sent_us > at_us,
        }
    }
    nothing && !yes && !no_too_late
}

/// A request for the same items that was told another gid.
fn told_another<'a>(facts: &Facts<'a>, asked: &[usize], items: &[Item]) -> Option<(String, &'a str)> {
    asked.iter().find_map(|&at| {
        let request = &facts.requests[at];
        facts.answers_to(request).find_map(|told| match said(&told) {
            Said::Yes(gid) if same(facts.basket(told.basket), items) => Some((key_text(request.key), gid)),
            _ => None,
        })
    })
}

/// What a buyer heard last, for evidence.
fn heard(facts: &Facts<'_>, asked: &[usize]) -> String {
    let last = asked.iter().flat_map(|&at| facts.answers_to(&facts.requests[at])).max_by_key(|told| told.answered_us);
    match last.map(|told| (told.outcome, told.answered_us, told.key)) {
        Some((Outcome::Refused { reason }, at, key)) => {
            format!("request {} was told {reason} at {}", key_text(key), seconds(at))
        }
        Some((_, at, key)) => {
            format!("nothing that this buyer asked for explains it; last asked: {} at {}", key_text(key), seconds(at))
        }
        None => "this buyer never asked for anything".into(),
    }
}

/// One gid, told to more than one request.
pub fn shared(facts: &Facts<'_>, verdict: &mut Verdict) {
    for (gid, order) in &facts.orders {
        let [first, second, ..] = order.told_to[..] else { continue };
        let [one, other] = [first, second].map(|at| {
            let request = &facts.requests[at];
            let buyer = facts.answers_to(request).next().map_or_else(String::new, |told| buyer_name(told.buyer));
            format!("request {} of {buyer}", key_text(request.key))
        });
        let at_us = order.told.map_or(0, |(at, ..)| at);
        verdict.charge(Charge::SharedGid, Evidence::new(at_us, format!("told to {one} and to {other}")).gid(gid));
    }
}

/// What the order service got, against what the buyer asked for.
pub fn wrong(facts: &Facts<'_>, verdict: &mut Verdict) {
    for (gid, order) in &facts.orders {
        let Some(service) = &order.service else { continue };
        let mut charge = |at_us: u64, what: String| {
            verdict.charge(Charge::WrongOrder, Evidence::new(at_us, what).gid(gid).buyer(order.buyer_text()));
        };
        if let Some(other) = service.other {
            charge(
                other.at_us,
                format!(
                    "the order service heard {} of {} first, then {} of {}",
                    list(&service.call.items),
                    service.call.buyer,
                    list(&other.items),
                    other.buyer
                ),
            );
        }
        let Some((_, buyer, basket)) = order.told else { continue };
        let (wanted, call) = (facts.basket(basket), service.call);
        if !same(wanted, &call.items) {
            charge(call.at_us, format!("asked for {}, the order service got {}", list(wanted), list(&call.items)));
        }
        if buyer_number(&call.buyer) != Some(buyer) {
            charge(call.at_us, format!("the order service heard that it is {}'s", call.buyer));
        }
        if order.sale.and_then(|sale| facts.sale(sale)).is_some_and(|sale| sale.name != call.sale) {
            charge(call.at_us, format!("the order service heard that it is of sale {}", call.sale));
        }
    }
}

/// The same SKUs and quantities, in whatever order.
fn same(one: &[Item], other: &[Item]) -> bool {
    if one == other {
        return true;
    }
    let sorted = |items: &[Item]| {
        let mut items = items.to_vec();
        items.sort_unstable();
        items
    };
    one.len() == other.len() && sorted(one) == sorted(other)
}

fn list(items: &[Item]) -> String {
    let items: Vec<String> = items.iter().map(|item| format!("{} × {}", item.quantity, item.sku)).collect();
    if items.is_empty() { "nothing".into() } else { items.join(" + ") }
}
