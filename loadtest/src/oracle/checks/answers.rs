//! Answers against answers: a request asked again, a key used twice, and the window.

use std::collections::HashSet;

use super::super::facts::{Facts, Said, said};
use super::super::{Charge, Evidence, Verdict, seconds};
use crate::ledger::{Kind, Micros, Outcome, Told, buyer_name, key_text};

fn evidence(told: &Told<'_>, what: String) -> Evidence {
    Evidence::new(told.answered_us, format!("request {}: {what}", key_text(told.key))).buyer(buyer_name(told.buyer))
}

/// After a yes, the same request hears the same yes. A no may become a yes (losers leave nothing), never the opposite.
/// The one exception is `order_refused`: the order service's no, which comes after the yes.
pub fn replays(facts: &Facts<'_>, verdict: &mut Verdict) {
    for request in &facts.requests {
        let answers = facts.answers_to(request);
        let Some((first, gid)) = first_yes(answers.clone()) else { continue };
        let mut fresh = 0;
        for told in answers.filter(|told| (told.buyer, told.basket) == (first.buyer, first.basket)) {
            verdict.looked_at("answers to a request that heard yes", 1);
            match said(&told) {
                Said::Yes(other) if other != gid => {
                    let what = format!("told {gid} at {}, and then {other}", seconds(first.answered_us));
                    verdict.charge(Charge::Double, evidence(&told, what).gid(other));
                }
                Said::Yes(_) => fresh += u32::from(!told.replayed),
                Said::No("order_refused") | Said::Nothing => {}
                Said::No(reason) if told.sent_us > first.answered_us => {
                    let what = format!("told {gid} at {}, and then {reason}", seconds(first.answered_us));
                    verdict.charge(Charge::ReplayDiffers, evidence(&told, what).gid(gid));
                }
                Said::No(_) => {}
            }
        }
        if facts.tolerance.marks_replays && fresh > 1 {
            let what = format!("{fresh} answers with {gid} claim to be the first");
            verdict.charge(Charge::ReplayDiffers, evidence(&first, what).gid(gid));
        }
    }
    polls(facts, verdict);
}

/// The yes that was heard first.
fn first_yes<'a>(answers: impl Iterator<Item = Told<'a>>) -> Option<(Told<'a>, &'a str)> {
    let yes = answers.filter_map(|told| match said(&told) {
        Said::Yes(gid) => Some((told, gid)),
        _ => None,
    });
    yes.min_by_key(|(told, _)| told.answered_us)
}

/// Who heard that an order exists does not hear later that it is on its way.
fn polls(facts: &Facts<'_>, verdict: &mut Verdict) {
    for told in facts.ledger.told().filter(|told| told.kind == Kind::Poll) {
        verdict.looked_at("polls", 1);
        let Outcome::Admitted { gid } = told.outcome else { continue };
        let created_us = facts.orders.get(gid).and_then(|order| order.told_created_us);
        if let Some(created_us) = created_us.filter(|created_us| *created_us < told.sent_us) {
            let what = format!("told at {} that it exists, and then that it is on its way", seconds(created_us));
            verdict.charge(Charge::ReplayDiffers, evidence(&told, what).gid(gid));
        }
    }
}

/// One key, yes to two different orders.
pub fn keys(facts: &Facts<'_>, verdict: &mut Verdict) {
    for request in &facts.requests {
        let answers = facts.answers_to(request);
        let Some((first, _)) = first_yes(answers.clone()) else { continue };
        let other = answers.filter(|told| (told.buyer, told.basket) != (first.buyer, first.basket));
        for told in other {
            verdict.looked_at("keys used for another order", 1);
            if let Said::Yes(gid) = said(&told) {
                let what = format!("was {}'s order before, and is taken for another one", buyer_name(first.buyer));
                verdict.charge(Charge::KeyReused, evidence(&told, what).gid(gid));
            }
        }
    }
}

/// No sale before opening or after closing; and no `not_open` or `closed` in between. An answer counts as given somewhere
/// between sending and hearing, a repeat as given when the request was first answered.
pub fn window(facts: &Facts<'_>, verdict: &mut Verdict) {
    let clock_us = facts.tolerance.clock_us;
    let windows: Vec<_> =
        facts.ledger.plan.sales.iter().map(|sale| (time(sale.opens_us), time(sale.closes_us))).collect();
    for request in &facts.requests {
        let Some(&(opens_us, closes_us)) = windows.get(usize::from(request.sale)) else { continue };
        // A repeat of a request that was first sent in time tells what was decided in time.
        let mut decided = HashSet::new();
        for told in facts.answers_to(request) {
            verdict.looked_at("answers against the window", u64::from(opens_us.is_some() || closes_us.is_some()));
            match said(&told) {
                Said::Yes(gid) => {
                    if opens_us.is_some_and(|opens| told.answered_us + clock_us < opens) {
                        let what = format!("sold before the opening at {}", seconds(opens_us.unwrap_or_default()));
                        verdict.charge(Charge::WindowBroken, evidence(&told, what).gid(gid));
                    }
                    let late = |closes: Micros| request.first_sent_us > closes + clock_us;
                    if closes_us.is_some_and(late) && decided.insert(gid) {
                        let what = format!("sold after the closing at {}", seconds(closes_us.unwrap_or_default()));
                        verdict.charge(Charge::WindowBroken, evidence(&told, what).gid(gid));
                    }
                }
                Said::No("not_open") => {
                    let opened_us = opens_us.unwrap_or_default();
                    if told.sent_us > opened_us + facts.tolerance.opens_us {
                        let what = format!("refused as not open; it opened at {}", seconds(opened_us));
                        verdict.charge(Charge::WindowBroken, evidence(&told, what));
                    }
                }
                Said::No("closed") => {
                    if closes_us.is_none_or(|closes| told.answered_us + clock_us < closes) {
                        let at = closes_us.map_or("never".into(), seconds);
                        let what = format!("refused as closed; it closes: {at}");
                        verdict.charge(Charge::WindowBroken, evidence(&told, what));
                    }
                }
                Said::No(_) | Said::Nothing => {}
            }
        }
    }
}

/// A time before the run is its beginning.
fn time(at_us: Option<i64>) -> Option<Micros> {
    at_us.map(|at| u64::try_from(at).unwrap_or_default())
}
