//! Each reason for a charge, and each excuse, as a story of a few lines. Times are milliseconds; an answer takes one.

use super::super::*;
use crate::audit::{Audit, Item as Counter, Records};
use crate::ledger::{
    Asked, Basket, Called, Heard, Item, Kind, Outcome, Plan, Recorder, Restock, SalePlan, ServiceAnswer, Shard, Stock,
};
use std::collections::BTreeMap;

/// Two units of `a`, two a buyer, if a story says nothing else.
#[derive(Default)]
struct Teller {
    sale: SalePlan,
    baskets: Vec<Basket>,
    called: Vec<Called>,
    after: Aftermath,
    attempts: BTreeMap<u64, u16>,
}

/// Tells a story and compares the charges with `expected`.
///
/// ```text
/// sale stock=a:2,b:1 limit=1 opens=10 closes=99 reserve=20   (all optional)
/// AT buyer B kN ITEMS -> yes G | created G | no REASON | nothing | repeat G      ITEMS: a:1,b:2
/// AT confirm B G -> done | nothing      AT cancel B G -> …      AT poll B G -> yes | created | failed
/// AT service made|again|refused|lost|confirmed|cancelled G of B ITEMS
/// books loaded=2 available=0 sold=2
/// AT restock a:5     shop G stands|failed|open|unknown [of B]     over AT     unsettled
/// ```
fn check(story: &str, expected: &[Charge]) {
    let verdict = tell(story);
    let charges: Vec<Charge> = verdict.charges.keys().copied().collect();
    assert_eq!(charges, expected, "{story}\n{verdict}");
}

fn tell(story: &str) -> Verdict {
    let sale = SalePlan { name: "s".into(), limit_per_buyer: Some(2), stock: stock("a:2"), ..SalePlan::default() };
    let after = Aftermath { settled: true, ..Aftermath::default() };
    let mut teller = Teller { sale, after, ..Teller::default() };
    let recorder = Recorder::new(1000);
    let mut shard = recorder.shard();
    for line in story.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        teller.line(&words, &mut shard);
    }
    drop(shard);
    let Teller { sale, baskets, called, after, .. } = teller;
    recorder.called(called);
    let ledger = recorder.finish(Plan { began_unix_us: 0, sales: vec![sale], baskets }).unwrap();
    let tolerance = Tolerance { clock_us: 0, returns_us: 5_000, opens_us: 5_000, marks_replays: true };
    judge(&ledger, &after, tolerance)
}

fn us(ms: &str) -> u64 {
    ms.parse::<u64>().unwrap() * 1000
}

fn items(text: &str) -> Vec<Item> {
    let item = |part: &str| {
        let (sku, quantity) = part.split_once(':').unwrap();
        Item { sku: sku.into(), quantity: quantity.parse().unwrap() }
    };
    text.split(',').map(item).collect()
}

fn stock(text: &str) -> Vec<Stock> {
    items(text).into_iter().map(|item| Stock { sku: item.sku, units: item.quantity.into() }).collect()
}

impl Teller {
    fn line(&mut self, words: &[&str], shard: &mut Shard) {
        match *words {
            ["sale", ref settings @ ..] => settings.iter().for_each(|setting| self.setting(setting)),
            [at, "buyer", buyer, key, wanted, "->", ref heard @ ..] => {
                let basket = self.basket(wanted);
                let key = key[1..].parse().unwrap();
                let attempt = self.attempts.entry(key).or_default();
                *attempt += 1;
                let asked = asked(Kind::Order, at, buyer, key, basket, *attempt, None);
                answer(shard, asked, heard);
            }
            [at, kind @ ("confirm" | "cancel" | "poll"), buyer, gid, "->", ref heard @ ..] => {
                let kind = match kind {
                    "confirm" => Kind::Confirm,
                    "cancel" => Kind::Cancel,
                    _ => Kind::Poll,
                };
                let heard: Vec<&str> = heard.iter().copied().chain([gid]).collect();
                answer(shard, asked(kind, at, buyer, 0, 0, 1, Some(gid)), &heard);
            }
            [at, "service", what, gid, "of", buyer, wanted] => {
                let (op, answer) = match what {
                    "made" => ("action", ServiceAnswer::Made),
                    "again" => ("action", ServiceAnswer::Again),
                    "refused" => ("action", ServiceAnswer::Refused),
                    "lost" => ("action", ServiceAnswer::Lost),
                    "away" => ("action", ServiceAnswer::NotNow),
                    "confirmed" => ("confirm", ServiceAnswer::Made),
                    "cancelled" => ("cancel", ServiceAnswer::Made),
                    _ => panic!("{what}"),
                };
                self.called.push(Called {
                    at_us: us(at),
                    answered_us: us(at) + 1000,
                    gid: gid.into(),
                    sale: "s".into(),
                    buyer: format!("buyer-{buyer}"),
                    items: items(wanted),
                    op: op.into(),
                    answer,
                });
            }
            [at, "restock", what] => {
                let Item { sku, quantity } = items(what).remove(0);
                let answered_us = Some(us(at) + 1000);
                self.sale.restocks.push(Restock { sent_us: us(at), answered_us, sku, units: quantity.into() });
            }
            ["shop", gid, end, ref of @ ..] => {
                let end = match end {
                    "stands" => End::Stands,
                    "failed" => End::Failed,
                    "open" => End::Open,
                    "unknown" => End::Unknown,
                    _ => panic!("{end}"),
                };
                let buyer = of.get(1).map(|buyer| format!("buyer-{buyer}"));
                self.after.orders.insert(gid.into(), ToldAfter { end, buyer });
            }
            ["books", ref numbers @ ..] => {
                let [loaded, available, sold] =
                    [0, 1, 2].map(|at| numbers[at].split_once('=').unwrap().1.parse().unwrap());
                let item = Counter {
                    sku: "a".into(),
                    loaded,
                    available,
                    reserved: 0,
                    sold,
                    records_units: sold,
                    service_units: None,
                };
                let records = Records { succeed: 1, failed: 0 };
                let (orders_at_service, missing, extra, problems) = (None, vec![], vec![], vec![]);
                let sale = self.sale.name.clone();
                let items = vec![item];
                let audit = Audit {
                    sale,
                    settled: true,
                    drift: 0,
                    items,
                    records,
                    orders_at_service,
                    missing,
                    extra,
                    problems,
                };
                self.after.audits.push(audit);
            }
            ["over", at] => self.after.over_us = us(at),
            ["unsettled"] => self.after.settled = false,
            _ => panic!("{words:?}"),
        }
    }

    fn setting(&mut self, setting: &str) {
        let (name, value) = setting.split_once('=').unwrap();
        match name {
            "stock" => self.sale.stock = stock(value),
            "limit" => self.sale.limit_per_buyer = Some(value.parse().unwrap()),
            "opens" => self.sale.opens_us = Some(i64::try_from(us(value)).unwrap()),
            "closes" => self.sale.closes_us = Some(i64::try_from(us(value)).unwrap()),
            "reserve" => self.sale.reserve_for_us = Some(us(value)),
            _ => panic!("{setting}"),
        }
    }

    fn basket(&mut self, text: &str) -> u32 {
        let basket = Basket { items: items(text) };
        let known = self.baskets.iter().position(|known| *known == basket);
        let at = known.unwrap_or_else(|| {
            self.baskets.push(basket);
            self.baskets.len() - 1
        });
        u32::try_from(at).unwrap()
    }
}

fn asked<'a>(
    kind: Kind,
    at: &str,
    buyer: &str,
    key: u64,
    basket: u32,
    attempt: u16,
    about: Option<&'a str>,
) -> Asked<'a> {
    let buyer = buyer.parse().unwrap();
    Asked { kind, intended_us: us(at), sent_us: us(at), buyer, sale: 0, key, basket, attempt, about }
}

fn answer(shard: &mut Shard, asked: Asked<'_>, heard: &[&str]) {
    let (status, outcome) = match *heard {
        ["yes" | "repeat", gid] => (201, Outcome::Admitted { gid }),
        ["created", gid] => (201, Outcome::Created { gid }),
        ["done", gid] => (200, Outcome::Done { gid }),
        ["failed", _] => (200, Outcome::Refused { reason: "order_refused" }),
        ["busy", ..] => (503, Outcome::Refused { reason: "busy" }),
        ["no", reason, ..] => (409, Outcome::Refused { reason }),
        ["nothing", ..] => (0, Outcome::Unknown { error: "timeout" }),
        _ => panic!("{heard:?}"),
    };
    let replayed = heard[0] == "repeat";
    shard.tell(asked, Heard { answered_us: asked.sent_us + 1000, status, replayed, outcome });
}

use Charge::*;

/// The common beginning: buyer 1 has both units, as one order that the order service made.
const SOLD: &str = "10 buyer 1 k1 a:2 -> yes g1
    12 service made g1 of 1 a:2
    ";

#[test]
fn an_order_that_was_told_and_made_is_right() {
    check(SOLD, &[]);
    check(&format!("{SOLD} 15 service again g1 of 1 a:2"), &[]);
    check(&format!("{SOLD} 20 buyer 2 k2 a:1 -> no sold_out"), &[]);
    check("10 buyer 1 k1 a:1 -> yes g1\n 12 service lost g1 of 1 a:1", &[]);
}

#[test]
fn more_units_than_there_are_is_oversold() {
    let second = "20 buyer 2 k2 a:1 -> yes g2\n 22 service made g2 of 2 a:1";
    check(&format!("{SOLD}{second}"), &[Oversold]);
    check(&format!("{SOLD} 15 restock a:1\n {second}"), &[]);
    check(&format!("{SOLD}{second}\n 30 restock a:1"), &[Oversold]); // it was not there yet
    let refused = "5 buyer 3 k3 a:1 -> yes g3\n 8 service refused g3 of 3 a:1\n";
    check(&format!("{refused}{SOLD}"), &[]); // its unit came back in time
    let too_late = "5 buyer 3 k3 a:1 -> yes g3\n 14 service refused g3 of 3 a:1\n";
    check(&format!("{too_late}{SOLD}"), &[Oversold]);
    check("sale stock=a:2,b:1\n 1 buyer 1 k1 c:1 -> yes g1\n 2 service made g1 of 1 c:1", &[Oversold]);
}

#[test]
fn sold_out_while_units_are_there_is_undersold() {
    check("10 buyer 1 k1 a:1 -> no sold_out", &[Undersold]);
    check("10 buyer 1 k1 a:3 -> no sold_out", &[]);
    check(
        "sale stock=a:1,b:1\n 5 buyer 2 k2 b:1 -> yes g2\n 6 service made g2 of 2 b:1\n 10 buyer 1 k1 a:1,b:1 -> no sold_out",
        &[],
    );
    // Someone who asks at the same time may have had it first.
    check("10 buyer 2 k2 a:1 -> no sold_out\n 11 buyer 1 k1 a:2 -> yes g1\n 12 service made g1 of 1 a:2", &[]);
    check("10 buyer 2 k2 a:1 -> no sold_out\n 12 buyer 1 k1 a:2 -> yes g1\n 13 service made g1 of 1 a:2", &[Undersold]);
    let refused = "10 buyer 1 k1 a:2 -> yes g1\n 12 service refused g1 of 1 a:2\n";
    check(&format!("{refused} 17 buyer 2 k2 a:1 -> no sold_out"), &[]); // given back, but only just
    check(&format!("{refused} 18 buyer 2 k2 a:1 -> no sold_out"), &[Undersold]);
    // Whoever heard the refusal was killed before it was written down: the order service is asked again, later.
    let again = format!("{refused} 30 service refused g1 of 1 a:2\n");
    check(&format!("{again} 20 buyer 2 k2 a:1 -> no sold_out\n 35 buyer 2 k3 a:1 -> no sold_out"), &[]);
    check(&format!("{again} 36 buyer 2 k2 a:1 -> no sold_out"), &[Undersold]);
    check(&format!("{SOLD} 20 restock a:1\n 25 buyer 2 k2 a:1 -> no sold_out"), &[]);
    check(&format!("{SOLD} 20 restock a:1\n 26 buyer 2 k2 a:1 -> no sold_out"), &[Undersold]);
}

#[test]
fn a_yes_without_an_order_is_lost() {
    check("10 buyer 1 k1 a:1 -> yes g1", &[Lost]);
    check("10 buyer 1 k1 a:1 -> yes g1\n 12 service away g1 of 1 a:1", &[Lost]);
    check("10 buyer 1 k1 a:1 -> yes g1\n 12 service refused g1 of 1 a:1", &[]);
    check("10 buyer 1 k1 a:1 -> created g1\n 12 service refused g1 of 1 a:1", &[Lost]);
    check("10 buyer 1 k1 a:1 -> yes g1\n 12 service refused g1 of 1 a:1\n shop g1 stands", &[Lost]);
    check("10 buyer 1 k1 a:1 -> yes g1\n unsettled", &[]);
    check("sale reserve=20\n 10 buyer 1 k1 a:1 -> yes g1\n shop g1 failed", &[]); // ran out before it was made
    check("sale reserve=20\n 10 buyer 1 k1 a:1 -> yes g1\n shop g1 stands", &[Lost]);
    check("sale reserve=20\n 10 buyer 1 k1 a:1 -> yes g1\n 12 cancel 1 g1 -> done", &[]);
}

#[test]
fn an_order_of_somebody_who_heard_no_is_a_ghost() {
    let made = "12 service made g1 of 1 a:1\n shop g1 stands of 1\n";
    check(&format!("10 buyer 1 k1 a:1 -> no paused\n {made}"), &[Ghost]);
    check(made, &[Ghost]); // who never asked
    check(&format!("{made} 10 buyer 1 k1 a:1 -> yes g1\n 15 poll 1 g1 -> failed"), &[Ghost]);
    // Who hung up can still learn of it, if the shop knows it as theirs.
    check(&format!("10 buyer 1 k1 a:1 -> nothing\n {made}"), &[]);
    check(&format!("10 buyer 1 k1 a:1 -> busy\n {made}"), &[]);
    check("10 buyer 1 k1 a:1 -> nothing\n 12 service made g1 of 1 a:1\n shop g1 unknown", &[Ghost]);
    check("10 buyer 1 k1 a:1 -> nothing\n 12 service made g1 of 1 a:1\n shop g1 stands of 2", &[Ghost]);
    check("10 buyer 1 k1 a:1 -> nothing\n 12 service made g1 of 1 a:1", &[Ghost]);
    // A lost request that arrives after the same request was refused: odd, and nobody's fault.
    check(&format!("5 buyer 1 k1 a:1 -> nothing\n 10 buyer 1 k1 a:1 -> no paused\n {made}"), &[]);
    check(&format!("5 buyer 1 k1 a:1 -> nothing\n 15 buyer 1 k1 a:1 -> no paused\n {made}"), &[Ghost]);
    // One request without an answer explains one order.
    let two = format!("{made} 13 service made g2 of 1 a:1\n shop g2 stands of 1");
    check(&format!("10 buyer 1 k1 a:1 -> nothing\n {two}"), &[Ghost]);
    check(&format!("10 buyer 1 k1 a:1 -> nothing\n 11 buyer 1 k2 a:1 -> nothing\n {two}"), &[]);
    check(&format!("10 buyer 1 k1 a:2 -> nothing\n {made}"), &[Ghost]); // of another order
    // The request that can explain either order is left to the one that nothing else explains.
    let two = "12 service made g1 of 1 a:1\n 30 service made g2 of 1 a:1\n shop g1 stands\n shop g2 stands\n";
    let asked = "10 buyer 1 k1 a:1 -> nothing\n 11 buyer 1 k2 a:1 -> nothing\n 20 buyer 1 k2 a:1 -> no paused\n";
    check(&format!("{asked}{two}"), &[]);
    let either = "10 buyer 1 k1 a:1 -> nothing\n 11 buyer 1 k1 b:1 -> nothing\n 12 buyer 1 k2 a:1 -> nothing\n";
    let one_of_each = "12 service made g1 of 1 a:1\n 13 service made g2 of 1 b:1\n shop g1 stands\n shop g2 stands\n";
    check(&format!("sale stock=a:2,b:2\n {either}{one_of_each}"), &[]);
    check(&format!("10 buyer 1 k1 a:1 -> no paused\n {made} unsettled"), &[]);
}

#[test]
fn one_request_is_one_order() {
    check(
        "10 buyer 1 k1 a:1 -> yes g1\n 12 service made g1 of 1 a:1\n 13 service made g2 of 1 a:1\n shop g2 stands",
        &[Double],
    );
    let two = "12 service made g1 of 1 a:1\n 13 service made g2 of 1 a:1\n";
    check(&format!("{two} 10 buyer 1 k1 a:1 -> yes g1\n 14 buyer 1 k1 a:1 -> yes g2"), &[Double]);
    check(&format!("{two} 10 buyer 1 k1 a:1 -> yes g1\n 14 buyer 1 k2 a:1 -> yes g2"), &[]);
    check("10 buyer 1 k1 a:1 -> yes g1\n 11 buyer 2 k2 a:1 -> yes g1\n 12 service made g1 of 1 a:1", &[SharedGid]);
}

#[test]
fn a_limit_is_kept_and_not_held_against_anybody_below_it() {
    let three =
        "sale stock=a:9\n 10 buyer 1 k1 a:2 -> yes g1\n 12 service made g1 of 1 a:2\n 13 buyer 1 k2 a:1 -> yes g2\n";
    check(&format!("{three} 14 service made g2 of 1 a:1"), &[LimitBroken]);
    check(&format!("{three} 14 service refused g2 of 1 a:1"), &[]);
    check("10 buyer 1 k1 a:2 -> no limit_reached", &[LimitMisjudged]);
    check("10 buyer 1 k1 a:3 -> no limit_reached", &[]);
    check(&format!("{SOLD} 20 buyer 1 k2 a:1 -> no limit_reached"), &[]);
    let refused = "10 buyer 1 k1 a:2 -> yes g1\n 12 service refused g1 of 1 a:2\n";
    check(&format!("{refused} 14 buyer 1 k2 a:1 -> no limit_reached"), &[]);
    check(&format!("{refused} 20 buyer 1 k2 a:1 -> no limit_reached"), &[LimitMisjudged]);
}

#[test]
fn a_request_hears_the_same_again() {
    check(&format!("{SOLD} 20 buyer 1 k1 a:2 -> repeat g1"), &[]);
    check(&format!("{SOLD} 20 buyer 1 k1 a:2 -> yes g1"), &[ReplayDiffers]); // two claim to be the first
    check(&format!("{SOLD} 20 buyer 1 k1 a:2 -> no sold_out"), &[ReplayDiffers]);
    check(&format!("{SOLD} 20 buyer 1 k1 a:2 -> busy"), &[]);
    check(&format!("8 buyer 1 k1 a:2 -> no not_open\n {SOLD}"), &[WindowBroken]); // there is no window
    check(&format!("5 buyer 1 k1 a:2 -> no paused\n {SOLD}"), &[]); // a no may become a yes
    check("10 buyer 1 k1 a:1 -> yes g1\n 12 service refused g1 of 1 a:1\n 20 buyer 1 k1 a:1 -> no order_refused", &[]);
    check(&format!("{SOLD} 20 poll 1 g1 -> created\n 22 poll 1 g1 -> yes"), &[ReplayDiffers]);
    check(&format!("{SOLD} 20 poll 1 g1 -> yes\n 22 poll 1 g1 -> created"), &[]);
}

#[test]
fn a_key_is_for_one_order() {
    check(&format!("{SOLD} 20 buyer 1 k1 b:1 -> no key_reused"), &[]);
    check(&format!("{SOLD} 20 buyer 1 k1 b:1 -> repeat g1"), &[KeyReused]);
    check(&format!("{SOLD} 20 buyer 2 k1 a:2 -> repeat g1"), &[KeyReused]);
}

#[test]
fn nothing_is_sold_outside_the_window_or_refused_inside() {
    let sale = format!("sale opens=5 closes=30\n {SOLD}");
    check(&sale, &[]);
    check(&format!("sale opens=12\n {SOLD}"), &[WindowBroken]);
    check(&format!("sale closes=9\n {SOLD}"), &[WindowBroken]);
    check(&format!("{sale} 40 buyer 1 k1 a:2 -> repeat g1"), &[]);
    check(&format!("{sale} 40 buyer 2 k2 a:1 -> no closed"), &[]);
    check(&format!("{sale} 20 buyer 2 k2 a:1 -> no closed"), &[WindowBroken]);
    check(&format!("{sale} 2 buyer 2 k2 a:1 -> no not_open"), &[]);
    check(&format!("{sale} 11 buyer 2 k2 a:1 -> no not_open"), &[WindowBroken]);
}

#[test]
fn the_order_service_hears_what_the_buyer_asked_for() {
    let yes = "10 buyer 1 k1 a:1 -> yes g1\n";
    check(&format!("{yes} 12 service made g1 of 1 a:2"), &[WrongOrder]);
    check(&format!("{yes} 12 service made g1 of 2 a:1"), &[WrongOrder]);
    check(&format!("{yes} 12 service lost g1 of 1 a:1\n 14 service again g1 of 1 a:2"), &[WrongOrder]);
    check("sale stock=a:1,b:1\n 10 buyer 1 k1 a:1,b:1 -> yes g1\n 12 service made g1 of 1 b:1,a:1", &[]);
}

#[test]
fn a_reservation_ends_as_its_buyer_was_told() {
    let sale = "sale reserve=20\n 10 buyer 1 k1 a:2 -> yes g1\n 12 service made g1 of 1 a:2\n over 100\n";
    check(sale, &[ExpiredKept]);
    check(&format!("{sale} over 30"), &[]); // not due yet
    check(&format!("{sale} 40 service cancelled g1 of 1 a:2"), &[]);
    let confirmed = format!("{sale} 15 confirm 1 g1 -> done\n");
    check(&confirmed, &[]);
    check(&format!("{confirmed} 16 service confirmed g1 of 1 a:1"), &[]);
    check(&format!("{confirmed} 40 service cancelled g1 of 1 a:2"), &[ConfirmedReleased]);
    check(&format!("{sale} 15 confirm 1 g1 -> nothing"), &[]); // it may have happened
    let cancelled = format!("{sale} 15 cancel 1 g1 -> done\n");
    check(&cancelled, &[CancelledKept, ExpiredKept]);
    check(&format!("{cancelled} 16 service cancelled g1 of 1 a:2"), &[]);
    check(&format!("{cancelled} 16 service cancelled g1 of 1 a:2\n shop g1 stands"), &[CancelledKept]);
    check(&format!("{confirmed} 16 cancel 1 g1 -> done"), &[CancelledKept]);
    check(
        "sale reserve=20\n 10 buyer 1 k1 a:1 -> yes g1\n 11 confirm 1 g1 -> done\n 13 service refused g1 of 1 a:1",
        &[],
    );
    check("sale reserve=20\n 10 buyer 1 k1 a:1 -> yes g1\n 11 confirm 1 g1 -> done", &[Lost, ConfirmedReleased]);
}

#[test]
fn the_shops_own_books_are_held_against_it() {
    check(&format!("{SOLD} books loaded=2 available=0 sold=2"), &[]);
    check(&format!("{SOLD} books loaded=3 available=0 sold=2"), &[BooksDiffer]);
    check(&format!("{SOLD} books loaded=2 available=1 sold=1"), &[BooksDiffer]);
    check(&format!("{SOLD} books loaded=3 available=0 sold=2\n unsettled"), &[]);
}

#[test]
fn what_cannot_be_judged_is_said() {
    assert_eq!(tell("").word(), Word::Undecided);
    assert_eq!(tell(&format!("{SOLD} unsettled")).word(), Word::Undecided);
    assert_eq!(tell(SOLD).word(), Word::Clean);
    let recorder = Recorder::new(1);
    let mut shard = recorder.shard();
    for at in ["1", "2"] {
        answer(&mut shard, asked(Kind::Order, at, "1", 1, 0, 1, None), &["yes", "g1"]);
    }
    drop(shard);
    let ledger = recorder.finish(Plan::default()).unwrap();
    let verdict = judge(&ledger, &Aftermath { settled: true, ..Aftermath::default() }, Tolerance::default());
    assert_eq!((verdict.word(), verdict.charges.len()), (Word::Undecided, 0));
}
