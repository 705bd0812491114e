//! The stock rules, told as stories. Each story runs on the plain-Rust rules and on the real scripts, in Redis 7.0 and
//! in Redis 8.2; after every line all counters of both sides are compared and every unit is accounted for.
//!
//! ```text
//! sale    a=3 b=2 limit=2            units by SKU; the limit per buyer, if there is one
//! order   k1 u1 a*1 b*2 -> WORD g1   key (- for none), buyer, items; the answer; a name for the order admitted
//! +       k1 u1 a*1     -> WORD g1   in one batch with the line above
//!         … body=2                   another payload under the same key
//! finish  g1=s g2=f                  the order service created g1 and refused g2
//! again                              the finish above is sent once more: STALE, and nothing changes
//! retry   g1                         no answer for g1; it waits for another try
//! restock r1 a +5 -> WORD n          request id, SKU, units; the answer, units changed
//! pause | resume | close | opens later | opens at-once | closes past | limit 3
//! drain n                            the records have taken n entries
//! forget yes|no                      is the buyers' ledger forgotten?
//! … | a=1/0/2                        after any line: available/reserved/sold
//! ```
//! A refusal and a replay leave nothing in Redis: the bytes of all keys are the same before and after.

use crate::support::servers::RedisVersion;
use crate::support::shared;
use crate::support::twin::{Ask, Sent, Twin, connect, same};
use rushline::domain::sale::SaleStatus;
use rushline::domain::stock::{Decision, Restock};
use std::collections::HashMap;
use std::sync::Arc;

const LATER_MS: u64 = 4_000_000_000_000; // in the year 2096

async fn check(story: &str) {
    for version in [RedisVersion::V7, RedisVersion::V8] {
        let server = shared::redis(version).await;
        let redis = connect(&server).await;
        let raw = redis::Client::open(server.socket_url()).unwrap();
        let mut teller = Teller { raw, redis, twin: None, named: HashMap::new(), sent: None };
        let lines: Vec<&str> = story.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let mut position = 0;
        while position < lines.len() {
            let batch = 1 + lines[position + 1..].iter().take_while(|line| line.starts_with('+')).count();
            let told = &lines[position..position + batch];
            eprintln!("{version:?}  {}", told.join("\n    "));
            teller.tell(told).await;
            position += batch;
        }
    }
}

struct Teller {
    raw: redis::Client,
    redis: Arc<rushline::store::redis::Redis>,
    twin: Option<Twin>,
    /// Names of orders in the story.
    named: HashMap<String, usize>,
    sent: Option<Sent>,
}

impl Teller {
    async fn tell(&mut self, lines: &[&str]) {
        let (line, counters) = lines[0].split_once('|').unwrap_or((lines[0], ""));
        let (said, expected) = line.split_once("->").unwrap_or((line, ""));
        let words: Vec<&str> = said.split_whitespace().collect();
        let expected: Vec<&str> = expected.split_whitespace().collect();
        match words.as_slice() {
            ["sale", rest @ ..] => self.open(rest).await,
            ["order", ..] => self.order(lines).await,
            ["finish", ends @ ..] => {
                let ends: Vec<(usize, bool)> = ends
                    .iter()
                    .map(|end| end.split_once('=').expect("finish NAME=s or NAME=f"))
                    .map(|(name, how)| (self.named[name], how == "s"))
                    .collect();
                self.sent = Some(self.twin().finish(&ends).await);
            }
            ["again"] => {
                let sent = self.sent.clone().expect("there is a finish above");
                self.twin().finish_again(&sent).await;
            }
            ["retry", names @ ..] => {
                let orders: Vec<usize> = names.iter().map(|name| self.named[*name]).collect();
                self.twin().retry(&orders).await;
            }
            ["restock", request_id, sku, units] => {
                let units = units.parse().unwrap();
                let (word, changed) = match self.twin().restock(request_id, sku, units).await {
                    Restock::Changed(units) => ("CHANGED", units),
                    Restock::Duplicate(units) => ("DUPLICATE", units),
                    Restock::Reused => ("REUSED", 0),
                    Restock::Closed => ("CLOSED", 0),
                    Restock::TooMany => ("TOOMANY", 0),
                    Restock::UnknownSku => ("NOSKU", 0),
                };
                assert_eq!(word, expected[0], "{line}");
                assert_eq!(changed, expected.get(1).map_or(0, |units| units.parse().unwrap()), "{line}");
            }
            ["pause"] => self.status(SaleStatus::Paused).await,
            ["resume"] => self.status(SaleStatus::Open).await,
            ["close"] => self.status(SaleStatus::Closed).await,
            ["opens", when] => {
                let opens_ms = (*when == "later").then_some(LATER_MS);
                self.twin().update(|settings| settings.window.opens_ms = opens_ms).await;
            }
            ["closes", "past"] => {
                self.twin().update(|settings| settings.window.closes_ms = Some(1)).await;
            }
            ["limit", units] => {
                let limit = units.parse().ok();
                self.twin().update(|settings| settings.limit_per_buyer = limit).await;
            }
            ["drain", entries] => assert_eq!(self.twin().drain().await, entries.parse::<u64>().unwrap(), "{line}"),
            ["forget", yes] => assert_eq!(self.twin().forget().await, *yes == "yes", "{line}"),
            _ => panic!("not a line of a story: {line}"),
        }
        for counters in counters.split_whitespace() {
            let (sku, numbers) = counters.split_once('=').unwrap();
            let stock = self.twin().ledger.stock[sku];
            assert_eq!(format!("{}/{}/{}", stock.available, stock.reserved, stock.sold), numbers, "{sku} after {line}");
        }
    }

    fn twin(&mut self) -> &mut Twin {
        self.twin.as_mut().expect("a story begins with a sale")
    }

    async fn open(&mut self, settings: &[&str]) {
        let pairs: Vec<(&str, u64)> = settings
            .iter()
            .map(|pair| pair.split_once('=').unwrap())
            .map(|(name, number)| (name, number.parse().unwrap()))
            .collect();
        let limit = pairs.iter().find(|(name, _)| *name == "limit").map_or(0, |(_, limit)| *limit as u32);
        let units: Vec<(&str, u64)> = pairs.into_iter().filter(|(name, _)| *name != "limit").collect();
        let twin = Twin::open(self.redis.clone(), self.raw.clone(), &shared::unique("story"), &units, limit).await;
        self.twin = Some(twin);
    }

    async fn status(&mut self, status: SaleStatus) {
        self.twin().update(|settings| settings.status = status).await;
    }

    /// One batch of order requests, a line each.
    async fn order(&mut self, lines: &[&str]) {
        let split = |line: &&str| -> (Vec<String>, Vec<String>) {
            let line = line.split('|').next().unwrap();
            let (said, expected) = line.split_once("->").expect("an order has an answer");
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
            (words(said), words(expected))
        };
        let (said, expected): (Vec<_>, Vec<_>) = lines.iter().map(split).unzip();
        let batch: Vec<Ask> = said.iter().map(|words| ask(words)).collect();
        let before = self.twin().dump().await;
        let decisions = self.twin().admit(&batch).await;
        let mut won = false;
        for ((decision, expected), line) in decisions.iter().zip(&expected).zip(lines) {
            let (word, order) = match decision {
                Decision::Admitted(order) => ("ADMITTED", Some(*order)),
                Decision::Replayed(order) => ("REPLAYED", Some(*order)),
                Decision::KeyReused => ("KEY_REUSED", None),
                Decision::NotOpen => ("NOT_OPEN", None),
                Decision::Paused => ("PAUSED", None),
                Decision::Closed => ("CLOSED", None),
                Decision::UnknownSku => ("UNKNOWN_SKU", None),
                Decision::LimitReached => ("LIMIT_REACHED", None),
                Decision::SoldOut => ("SOLD_OUT", None),
            };
            assert_eq!(word, expected[0], "{line}");
            won |= word == "ADMITTED";
            if let (Some(name), Some(order)) = (expected.get(1), order) {
                assert_eq!(*self.named.entry(name.clone()).or_insert(order), order, "{line}");
            }
        }
        if !won {
            same(&before, &self.twin().dump().await, "who wins nothing leaves nothing");
        }
    }
}

fn ask(words: &[String]) -> Ask {
    let (items, rest): (Vec<&String>, Vec<&String>) = words[3..].iter().partition(|word| word.contains('*'));
    Ask {
        key: Some(&words[1]).filter(|key| *key != "-").cloned(),
        buyer: words[2].clone(),
        items: items
            .iter()
            .map(|item| item.split_once('*').unwrap())
            .map(|(sku, quantity)| (sku.to_owned(), quantity.parse().unwrap()))
            .collect(),
        payload: rest.first().map_or(0, |body| body.strip_prefix("body=").unwrap().parse().unwrap()),
    }
}

#[tokio::test]
async fn units_are_sold_until_they_are_gone() {
    check(
        "
        sale   a=2
        order  - u1 a*1 -> ADMITTED g1   | a=1/1/0
        order  - u2 a*2 -> SOLD_OUT      | a=1/1/0
        order  - u2 a*1 -> ADMITTED g2   | a=0/2/0
        order  - u3 a*1 -> SOLD_OUT
        finish g1=s                      | a=0/1/1
        order  - u3 a*1 -> SOLD_OUT
        finish g2=s                      | a=0/0/2
    ",
    )
    .await;
}

/// Whoever got the last unit and retries must hear so, not SOLD_OUT.
#[tokio::test]
async fn a_retry_for_the_last_unit_is_a_replay() {
    check(
        "
        sale   a=1
        order  k1 u1 a*1 -> ADMITTED g1  | a=0/1/0
        order  k1 u1 a*1 -> REPLAYED g1  | a=0/1/0
        order  k2 u2 a*1 -> SOLD_OUT
        order  k1 u1 a*1 -> REPLAYED g1
        finish g1=s                      | a=0/0/1
        order  k1 u1 a*1 -> REPLAYED g1
        drain  1
        order  k1 u1 a*1 -> REPLAYED g1  | a=0/0/1
    ",
    )
    .await;
}

#[tokio::test]
async fn a_replay_is_heard_in_every_state_of_the_sale() {
    check(
        "
        sale   a=3
        order  k1 u1 a*1 -> ADMITTED g1
        pause
        order  k1 u1 a*1 -> REPLAYED g1
        order  k2 u2 a*1 -> PAUSED
        resume
        opens  later
        order  k1 u1 a*1 -> REPLAYED g1
        order  k2 u2 a*1 -> NOT_OPEN
        opens  at-once
        closes past
        order  k1 u1 a*1 -> REPLAYED g1
        order  k2 u2 a*1 -> CLOSED
        close
        order  k1 u1 a*1 -> REPLAYED g1
        order  k1 u1 a*2 -> KEY_REUSED
        order  k2 u2 a*1 -> CLOSED
    ",
    )
    .await;
}

/// An answer that is refused is not remembered: the same key may win later.
#[tokio::test]
async fn a_refused_request_may_be_sent_again() {
    check(
        "
        sale    a=1
        order   k1 u1 a*2 -> SOLD_OUT
        restock r1 a +1   -> CHANGED 1
        order   k1 u1 a*2 -> ADMITTED g1 | a=0/2/0
        finish  g1=f                     | a=2/0/0
        order   k1 u1 a*2 -> REPLAYED g1
    ",
    )
    .await;
}

#[tokio::test]
async fn one_key_is_one_request() {
    check(
        "
        sale  a=9 b=9
        order k1 u1 a*1        -> ADMITTED g1
        order k1 u1 a*2        -> KEY_REUSED
        order k1 u2 a*1        -> KEY_REUSED
        order k1 u1 b*1        -> KEY_REUSED
        order k1 u1 a*1 b*1    -> KEY_REUSED
        order k1 u1 a*1 body=2 -> KEY_REUSED
        order k1 u1 a*1        -> REPLAYED g1  | a=8/1/0 b=9/0/0
        pause
        order k1 u1 a*2        -> KEY_REUSED
    ",
    )
    .await;
}

#[tokio::test]
async fn several_items_are_taken_all_or_none() {
    check(
        "
        sale   a=5 b=1
        order  - u1 a*2 b*2     -> SOLD_OUT     | a=5/0/0 b=1/0/0
        order  - u1 b*2 a*2     -> SOLD_OUT     | a=5/0/0 b=1/0/0
        order  - u1 a*2 b*1     -> ADMITTED g1  | a=3/2/0 b=0/1/0
        order  - u2 a*1 b*1     -> SOLD_OUT     | a=3/2/0
        order  - u2 a*1 x*1     -> UNKNOWN_SKU  | a=3/2/0
        order  - u2 b*1 x*1     -> UNKNOWN_SKU
        finish g1=f                             | a=5/0/0 b=1/0/0
        order  - u2 b*1 a*5     -> ADMITTED g2  | a=0/5/0 b=0/1/0
        finish g2=s                             | a=0/0/5 b=0/0/1
    ",
    )
    .await;
}

#[tokio::test]
async fn a_limit_counts_units_over_all_skus() {
    check(
        "
        sale   a=9 b=9 limit=3
        order  - u1 a*4      -> LIMIT_REACHED
        order  - u1 a*2 b*2  -> LIMIT_REACHED
        order  - u1 a*1 b*1  -> ADMITTED g1
        order  - u1 b*2      -> LIMIT_REACHED
        order  - u2 a*3      -> ADMITTED g2
        order  - u1 b*1      -> ADMITTED g3
        order  - u1 a*1      -> LIMIT_REACHED   | a=5/4/0 b=7/2/0
        finish g1=s g2=s
        order  - u1 a*1      -> LIMIT_REACHED
    ",
    )
    .await;
}

#[tokio::test]
async fn units_of_a_refused_order_count_no_more() {
    check(
        "
        sale   a=9 limit=2
        order  - u1 a*2 -> ADMITTED g1
        order  - u1 a*1 -> LIMIT_REACHED
        finish g1=f                      | a=9/0/0
        order  - u1 a*1 -> ADMITTED g2
        order  - u1 a*1 -> ADMITTED g3
        order  - u1 a*1 -> LIMIT_REACHED
        finish g2=f g3=s                 | a=8/0/1
        order  - u1 a*2 -> LIMIT_REACHED
        order  - u1 a*1 -> ADMITTED g4
    ",
    )
    .await;
}

/// The limit is heard before the stock: it will not change by waiting for units to come back.
#[tokio::test]
async fn the_limit_is_heard_before_the_stock_and_an_unknown_sku_before_both() {
    check(
        "
        sale  a=1 limit=2
        order - u1 a*3     -> LIMIT_REACHED
        order - u1 a*2     -> SOLD_OUT
        order - u1 a*3 x*1 -> UNKNOWN_SKU
        order - u1 x*1     -> UNKNOWN_SKU
    ",
    )
    .await;
}

#[tokio::test]
async fn a_limit_can_change_while_the_sale_runs() {
    check(
        "
        sale  a=9
        order - u1 a*3 -> ADMITTED
        limit 2
        order - u1 a*1 -> LIMIT_REACHED
        order - u2 a*2 -> ADMITTED
        limit 4
        order - u1 a*1 -> ADMITTED
        order - u1 a*1 -> LIMIT_REACHED
        limit none
        order - u1 a*3 -> ADMITTED       | a=0/9/0
    ",
    )
    .await;
}

#[tokio::test]
async fn a_sale_sells_inside_its_window_only() {
    check(
        "
        sale   a=1
        opens  later
        order  - u1 a*1 -> NOT_OPEN
        order  - u1 x*1 -> NOT_OPEN
        opens  at-once
        closes past
        order  - u1 a*1 -> CLOSED
        pause
        order  - u1 a*1 -> CLOSED        | a=1/0/0
    ",
    )
    .await;
}

#[tokio::test]
async fn a_paused_sale_sells_nothing_and_finishes_what_it_sold() {
    check(
        "
        sale   a=3
        order  - u1 a*1 -> ADMITTED g1
        order  - u2 a*1 -> ADMITTED g2
        pause
        order  - u3 a*1 -> PAUSED
        opens  later
        order  - u3 a*1 -> PAUSED
        finish g1=s g2=f                 | a=2/0/1
        opens  at-once
        resume
        order  - u3 a*1 -> ADMITTED
    ",
    )
    .await;
}

/// A double click may end up in one batch with itself.
#[tokio::test]
async fn one_batch_may_hold_the_same_key_and_the_same_buyer_twice() {
    check(
        "
        sale  a=3 limit=2
        order k1 u1 a*1 -> ADMITTED g1
        +     k1 u1 a*1 -> REPLAYED g1
        +     k1 u1 a*2 -> KEY_REUSED
        +     -  u1 a*1 -> ADMITTED g2
        +     -  u1 a*1 -> LIMIT_REACHED
        +     k2 u2 a*2 -> SOLD_OUT
        +     k3 u3 a*1 -> ADMITTED g3
        +     k3 u3 a*1 -> REPLAYED g3
        +     k4 u4 a*1 -> SOLD_OUT
        +     k4 u4 x*1 -> UNKNOWN_SKU
        order k1 u1 a*1 -> REPLAYED g1
        +     k3 u3 a*1 -> REPLAYED g3   | a=0/3/0
        finish g1=s g2=f                 | a=1/1/1
        order k4 u4 a*1 -> ADMITTED g4
        +     k1 u1 a*1 -> REPLAYED g1
        +     k4 u4 a*1 -> REPLAYED g4
        finish g3=s
        finish g4=s                      | a=0/0/3
        drain 2
    ",
    )
    .await;
}

#[tokio::test]
async fn stock_is_added_and_withdrawn_while_it_sells() {
    check(
        "
        sale    a=2
        order   - u1 a*2   -> ADMITTED g1
        restock r1 a +5    -> CHANGED 5         | a=5/2/0
        restock r1 a +5    -> DUPLICATE 5       | a=5/2/0
        restock r1 a +6    -> REUSED
        restock r1 b +5    -> REUSED
        restock r2 a -2    -> CHANGED -2        | a=3/2/0
        restock r3 a -100  -> CHANGED -3        | a=0/2/0
        restock r3 a -100  -> DUPLICATE -3
        restock r4 a -1    -> CHANGED 0         | a=0/2/0
        restock r5 b -1    -> NOSKU
        restock r5 b +0    -> NOSKU
        restock r5 b +4    -> CHANGED 4         | b=4/0/0
        order   - u2 b*4   -> ADMITTED g2       | b=0/4/0
        restock r6 a +999999999999 -> TOOMANY   | a=0/2/0
        finish  g1=f g2=s                       | a=2/0/0 b=0/0/4
        pause
        restock r7 a +1    -> CHANGED 1         | a=3/0/0
        close
        restock r8 a +1    -> CLOSED
        restock r7 a +1    -> DUPLICATE 1       | a=3/0/0
    ",
    )
    .await;
}

#[tokio::test]
async fn a_finish_whose_answer_was_lost_changes_nothing_when_it_comes_again() {
    check(
        "
        sale   a=4
        order  - u1 a*1 -> ADMITTED g1
        +      - u2 a*2 -> ADMITTED g2
        order  - u3 a*1 -> ADMITTED g3
        finish g1=s                      | a=0/3/1
        again
        finish g2=f g3=s                 | a=2/0/2
        again
        drain  2
        again
        order  - u4 a*2 -> ADMITTED g4   | a=0/2/2
    ",
    )
    .await;
}

#[tokio::test]
async fn an_order_that_waited_for_a_retry_is_forgotten_when_it_ends() {
    check(
        "
        sale   a=4
        order  - u1 a*1 -> ADMITTED g1
        +      - u2 a*1 -> ADMITTED g2
        +      - u3 a*1 -> ADMITTED g3
        retry  g1 g2
        retry  g1
        finish g1=s
        retry  g1
        finish g2=f g3=s                 | a=2/0/2
        retry  g2 g3
        drain  1
        retry  g1 g3
    ",
    )
    .await;
}

#[tokio::test]
async fn a_ledger_is_forgotten_once_the_sale_is_closed_and_drained() {
    check(
        "
        sale   a=4 limit=1
        order  k1 u1 a*1 -> ADMITTED g1
        forget no
        close
        forget no
        finish g1=s
        forget no
        drain  1
        order  k1 u1 a*1 -> REPLAYED g1
        forget yes
        order  k1 u1 a*1 -> CLOSED        | a=3/0/1
        forget no
        resume
        order  k1 u1 a*1 -> CLOSED        | a=3/0/1
    ",
    )
    .await;
}

/// Words that Lua, JSON or Redis might take for something else are just names.
#[tokio::test]
async fn names_with_a_meaning_elsewhere_are_names() {
    check(
        "
        sale   1e3=2 -1=2 nil=2
        order  nil  nil  1e3*1       -> ADMITTED g1
        order  0    0    -1*1        -> ADMITTED g2
        order  true {}   nil*2       -> ADMITTED g3
        order  nil  nil  1e3*1       -> REPLAYED g1
        order  nan  '\\' 1000*1      -> UNKNOWN_SKU
        order  -    9007199254740993 1e3*1 -> ADMITTED g4
        order  -    9007199254740992 1e3*1 -> SOLD_OUT
        finish g1=s g2=f g3=s        | 1e3=0/1/1 -1=2/0/0 nil=0/0/2
        again
    ",
    )
    .await;
}
