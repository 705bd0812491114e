//! What buyers do: their first steps when they arrive, and what follows from an answer.
//!
//! Every decision follows from the scenario's seed and the buyer's number, so a run can be repeated as far as the server's
//! answers are the same. Nothing here sends or waits; it makes [`Step`]s.

use std::collections::HashMap;
use std::iter::Peekable;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::queue::{Arrivals, Step};
use super::schedule::{Arrival, Phase, Schedule};
use crate::ledger::{Basket, BasketId, Item, Kind, Micros};
use crate::scenario::Manner;

/// Confirms and cancels are repeated until they are answered, within reason.
const SETTLE_TRIES_MAX: u16 = 100;

/// What an answer means to a buyer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Admitted,
    Created,
    Done,
    Refused,
    /// Nothing that settles it: ask again.
    Unknown,
}

/// Who may come, the same for all threads.
pub struct Crowd {
    seed: u64,
    manners: Vec<Manner>,
    /// Index of a manner for each unit of weight.
    lots: Vec<u16>,
    /// Number of the first basket for a manner's SKU and a quantity, and how many SKUs follow one another from there.
    baskets: HashMap<(String, u32), (BasketId, u32)>,
    /// Buyers that are not named by a trace have numbers from here on.
    unnamed_from: u32,
    accounts_max: u32,
    /// Latency counts from the moment of sending: buyers wait for their turn and not for a clock.
    pub closed_loop: bool,
}

impl Crowd {
    /// The crowd and all that it may ask for.
    pub fn new(seed: u64, manners: Vec<Manner>, skus: u64, phases: &[Phase], closed_loop: bool) -> (Self, Vec<Basket>) {
        let mut quantities: Vec<u32> = Vec::new();
        let mut unnamed_from = 0;
        for phase in phases {
            if let Phase::Trace(trace) = phase {
                quantities.extend(trace.who.iter().filter_map(|who| who.quantity));
                quantities.sort_unstable();
                quantities.dedup();
                let last = trace.who.iter().filter_map(|who| who.buyer).max();
                unnamed_from = unnamed_from.max(last.map_or(0, |last| last + 1));
            }
        }
        let mut all = Vec::new();
        let mut baskets = HashMap::new();
        for manner in &manners {
            for &quantity in quantities.iter().chain([&manner.quantity]) {
                baskets.entry((manner.sku.clone(), quantity)).or_insert_with(|| {
                    let first = all.len();
                    let basket = |sku: String| Basket { items: vec![Item { sku, quantity }] };
                    match &*manner.sku {
                        "*" => all.extend((1..=skus).map(|number| basket(format!("sku-{number}")))),
                        sku => all.push(basket(sku.into())),
                    }
                    (first as BasketId, (all.len() - first) as u32)
                });
            }
        }
        let lots = manners.iter().zip(0u16..).flat_map(|(manner, at)| vec![at; manner.weight as usize]).collect();
        let accounts_max = manners.iter().map(|manner| manner.accounts).max().unwrap_or(1);
        (Self { seed, manners, lots, baskets, unnamed_from, accounts_max, closed_loop }, all)
    }

    pub fn manner(&self, step: &Step) -> &Manner {
        &self.manners[usize::from(step.manner)]
    }

    /// Chance that is the same whenever the same buyer asks for the same thing.
    fn chance(&self, buyer: u32, salt: u64) -> fastrand::Rng {
        let mixed = (self.seed ^ salt << 40 ^ u64::from(buyer)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        fastrand::Rng::with_seed(mixed ^ mixed >> 32)
    }

    /// The first steps of arrival `number`; `nth` is the key that the buyer has come to.
    fn arrive(&self, number: u64, arrival: Arrival, nth: u32, steps: &mut Vec<Step>) {
        let unnamed = || self.unnamed_from.wrapping_add((number as u32).wrapping_mul(self.accounts_max));
        let buyer = arrival.who.buyer.unwrap_or_else(unnamed);
        let mut chance = self.chance(buyer, u64::from(nth));
        let lot = if self.lots.len() == 1 { 0 } else { chance.usize(..self.lots.len()) };
        let manner = &self.manners[usize::from(self.lots[lot])];
        let quantity = arrival.who.quantity.unwrap_or(manner.quantity);
        let (first, count) = self.basket_of(manner, quantity);
        let due = arrival.at_us + between(&mut chance, manner.think_ms);
        for account in 0..manner.accounts {
            for device in 0..u32::from(manner.devices) {
                let basket = first + if count == 1 { 0 } else { chance.u32(..count) };
                for click in 0..manner.clicks {
                    steps.push(Step {
                        due: due
                            + ms(u64::from(account) * manner.account_gap_ms)
                            + ms(u64::from(click) * manner.click_gap_ms),
                        kind: Kind::Order,
                        leads: click == 0,
                        manner: self.lots[lot],
                        buyer: buyer + account,
                        nth: nth + device,
                        basket,
                        attempt: 1 + click,
                        returns: 0,
                        bought: 0,
                        gid: None,
                    });
                }
            }
        }
    }

    /// Looked up by a string, once an arrival: only where there is a choice.
    fn basket_of(&self, manner: &Manner, quantity: u32) -> (BasketId, u32) {
        if self.baskets.len() == 1 {
            return *self.baskets.values().next().expect("there is one");
        }
        self.baskets.get(&(manner.sku.clone(), quantity)).copied().expect("made for every manner and quantity")
    }

    /// Does this request lose its answer?
    pub fn loses(&self, step: &Step) -> Option<bool> {
        let manner = self.manner(step);
        if manner.lose_percent == 0.0 || step.kind != Kind::Order || step.attempt != 1 {
            return None;
        }
        let mut chance = self.chance(step.buyer, u64::from(step.nth) << 8 | 1);
        (chance.f64() * 100.0 < manner.lose_percent).then(|| chance.bool())
    }

    /// What the buyer does after `step` was answered at `now`. `gid` is the order's, if the answer named one.
    pub fn after(
        &self,
        step: Step,
        verdict: Verdict,
        gid: &str,
        retry_after: Option<Duration>,
        now: Micros,
        steps: &mut Vec<Step>,
    ) {
        let manner = self.manner(&step);
        let mut chance = self.chance(step.buyer, u64::from(step.nth) << 16 | u64::from(step.attempt));
        match (step.kind, verdict) {
            (kind, Verdict::Unknown) => {
                let tries = match kind {
                    Kind::Order => manner.tries,
                    Kind::Poll => manner.polls,
                    Kind::Confirm | Kind::Cancel => SETTLE_TRIES_MAX,
                };
                if step.attempt < tries {
                    let wait = backoff(manner.backoff_ms, step.attempt, retry_after, &mut chance);
                    steps.push(Step { due: now + wait, attempt: step.attempt + manner.clicks.max(1), ..step });
                }
            }
            (Kind::Order, Verdict::Admitted | Verdict::Created | Verdict::Done) if step.leads => {
                self.has_order(manner, &step, verdict, gid, now, &mut chance, steps);
            }
            (Kind::Order, Verdict::Refused) if step.leads && step.returns < manner.come_back => steps.push(Step {
                due: now + between(&mut chance, manner.come_back_after_ms),
                attempt: 1,
                nth: step.nth + u32::from(manner.devices),
                returns: step.returns + 1,
                ..step
            }),
            (Kind::Poll, Verdict::Admitted) if step.attempt < manner.polls => {
                steps.push(Step { due: now + ms(manner.poll_ms), attempt: step.attempt + 1, ..step });
            }
            _ => {}
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one decision")]
    fn has_order(
        &self,
        manner: &Manner,
        step: &Step,
        verdict: Verdict,
        gid: &str,
        now: Micros,
        chance: &mut fastrand::Rng,
        steps: &mut Vec<Step>,
    ) {
        let about = |kind, after: Micros| Step {
            due: now + after,
            kind,
            attempt: 1,
            gid: Some(Rc::from(gid)),
            leads: true,
            ..step.clone()
        };
        if manner.polls > 0 && verdict == Verdict::Admitted {
            steps.push(about(Kind::Poll, ms(manner.poll_ms)));
        }
        if manner.pay_percent > 0.0 || manner.cancel_percent > 0.0 {
            let lot = chance.f64() * 100.0;
            if lot < manner.pay_percent {
                steps.push(about(Kind::Confirm, between(chance, manner.pay_after_ms)));
            } else if lot < manner.pay_percent + manner.cancel_percent {
                steps.push(about(Kind::Cancel, between(chance, manner.cancel_after_ms)));
            }
        }
        if manner.repeat_percent > 0.0 && step.attempt == 1 && chance.f64() * 100.0 < manner.repeat_percent {
            steps.push(Step { due: now, leads: false, attempt: 2, ..step.clone() });
        }
        if step.bought + 1 < manner.orders {
            steps.push(Step {
                due: now + between(chance, manner.order_gap_ms),
                attempt: 1,
                nth: step.nth + u32::from(manner.devices),
                bought: step.bought + 1,
                ..step.clone()
            });
        }
    }
}

/// Doubling from the first to the second, at least what the server asked for, half of it by chance: buyers whose answers
/// were lost in one moment do not come back in one.
fn backoff([from, to]: [u64; 2], attempt: u16, retry_after: Option<Duration>, chance: &mut fastrand::Rng) -> Micros {
    let doubled = from.saturating_mul(1 << attempt.saturating_sub(1).min(20)).min(to);
    let asked = retry_after.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)).min(to);
    let full = ms(doubled.max(asked));
    full / 2 + chance.u64(..=full / 2)
}

fn between(chance: &mut fastrand::Rng, [from, to]: [u64; 2]) -> Micros {
    if to == 0 { 0 } else { chance.u64(ms(from)..=ms(to)) }
}

fn ms(ms: u64) -> Micros {
    ms * 1000
}

/// Those of a schedule that come to one thread.
pub struct Door {
    crowd: Rc<Crowd>,
    schedule: Peekable<Part>,
    /// Keys that buyers named by a trace have used.
    known: HashMap<u32, u32>,
}

/// Every `of`th arrival, or the arrivals of every `of`th buyer.
struct Part {
    schedule: Schedule,
    number: u64,
    mine: u64,
    of: u64,
}

impl Iterator for Part {
    type Item = (u64, Arrival);

    fn next(&mut self) -> Option<(u64, Arrival)> {
        loop {
            let arrival = self.schedule.next()?;
            let number = self.number;
            self.number += 1;
            if arrival.who.buyer.map_or(number, u64::from) % self.of == self.mine {
                return Some((number, arrival));
            }
        }
    }
}

impl Door {
    pub fn new(crowd: Rc<Crowd>, phases: Vec<Phase>, mine: usize, of: usize) -> Self {
        let schedule = Schedule::new(phases, crowd.seed);
        let part = Part { schedule, number: 0, mine: mine as u64, of: of as u64 };
        Self { crowd, schedule: part.peekable(), known: HashMap::new() }
    }
}

impl Arrivals for Door {
    fn next_due(&mut self) -> Option<Micros> {
        self.schedule.peek().map(|(_, arrival)| arrival.at_us)
    }

    fn arrive(&mut self, steps: &mut Vec<Step>) {
        let Some((number, arrival)) = self.schedule.next() else { return };
        let nth = match arrival.who.buyer {
            Some(buyer) => {
                let known = self.known.entry(buyer).or_insert(1);
                // Room for the keys of all that one visit may come to.
                std::mem::replace(known, *known + 1_000_000)
            }
            None => 1,
        };
        self.crowd.arrive(number, arrival, nth, steps);
    }
}

/// The phases of a scenario's arrivals; `true` if it is a closed loop.
pub fn phases(scenario: &crate::scenario::Scenario) -> anyhow::Result<(Vec<Phase>, bool)> {
    use super::trace::Trace;
    use crate::scenario::{Arrivals, seconds};
    use anyhow::Context;
    let mut phases = Vec::new();
    for (at, arrivals) in scenario.arrivals.iter().enumerate() {
        match arrivals {
            Arrivals::Burst { buyers, within_s } => {
                phases.push(Phase::Burst { count: *buyers, within: seconds(*within_s) });
            }
            Arrivals::Closed { buyers } => {
                return Ok((vec![Phase::Burst { count: *buyers, within: Duration::ZERO }], true));
            }
            Arrivals::Constant { rate, lasts_s } => {
                phases.push(Phase::Constant { rate: *rate, lasts: seconds(*lasts_s) });
            }
            Arrivals::Steps { rates, each_s } => {
                phases.extend(rates.iter().map(|&rate| Phase::Constant { rate, lasts: seconds(*each_s) }));
            }
            Arrivals::Ramp { from, to, lasts_s } => {
                phases.push(Phase::Ramp { from: *from, to: *to, lasts: seconds(*lasts_s) });
            }
            Arrivals::Poisson { rate, lasts_s } => {
                phases.push(Phase::Poisson { rate: *rate, lasts: seconds(*lasts_s) })
            }
            Arrivals::Pause { lasts_s } => phases.push(Phase::Pause { lasts: seconds(*lasts_s) }),
            Arrivals::Trace { file, speed } => {
                let path = scenario.directory.join(file);
                let what = || format!("arrivals[{at}].file: {}", path.display());
                let text = std::fs::read_to_string(&path).with_context(what)?;
                phases.push(Phase::Trace(Arc::new(Trace::parse(&text, *speed).with_context(what)?)));
            }
        }
    }
    Ok((phases, false))
}
