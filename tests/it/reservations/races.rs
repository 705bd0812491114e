//! A hundred thousand payments race the clock, on two connections at once: one verdict each, and not a unit goes astray.

use super::rules::{Lives, order};
use crate::support::servers::RedisVersion;
use crate::support::shared;
use crate::support::twin::connect;
use rushline::domain::reservation::{End, Move, State};
use rushline::store::keys::Keys;
use rushline::store::redis::Redis;
use rushline::store::reservations::{Moved, Notes, Row, When};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

const ORDERS: usize = 100_000;
const BATCH: usize = 250;
/// Rows of one script; a payment in real life is one of one.
const ROWS: usize = 25;
/// Races at a time.
const RUNNERS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_payments_race_their_expiry_with_one_verdict_each() {
    let server = shared::redis(RedisVersion::V7).await;
    let raw = redis::Client::open(server.socket_url()).unwrap();
    let mut lives = Lives::open(connect(&server).await, raw, "races", &[("a", ORDERS as u64)]).await;
    for first in (0..ORDERS).step_by(BATCH) {
        lives.admit((first..first + BATCH).map(|n| order(&format!("u{n}"), &[("a", 1)])).collect()).await;
    }
    // A payment and its expiry are sent at once, from two connections, within a millisecond or two of the deadline.
    let keys = Arc::new(lives.keys.clone());
    let (a, b) = (connect(&server).await, connect(&server).await);
    let mut races = Vec::new();
    for some in lives.orders.chunks(ORDERS / RUNNERS) {
        let row = |life, what| lives.row(life, State::SUBMITTED, what, None, When::Any).unwrap().0;
        let pairs: Vec<(Row, Row)> =
            some.iter().map(|life| (row(life, Move::Confirm), row(life, Move::Expire))).collect();
        let (a, b, keys) = (a.clone(), b.clone(), keys.clone());
        races.push(tokio::spawn(async move {
            let mut verdicts = Vec::with_capacity(pairs.len());
            for (round, pairs) in pairs.chunks(ROWS).enumerate() {
                let deadline = now_ms() + (round % 4) as u64;
                let (paying, expiring): (Vec<Row>, Vec<Row>) = pairs
                    .iter()
                    .map(|(pay, expire)| {
                        let pay = Row { when: When::Before(deadline), ..pay.clone() };
                        (pay, Row { when: When::From(deadline), ..expire.clone() })
                    })
                    .unzip();
                let paid = async { a.move_orders(&mut a.lane(), &keys, &paying, Notes::default()).await.unwrap() };
                let (paid, expired) = tokio::join!(paid, expire(&b, &keys, &expiring));
                verdicts.extend(paid.into_iter().zip(expired));
            }
            verdicts
        }));
    }
    let mut verdicts = Vec::with_capacity(ORDERS);
    for race in races {
        verdicts.extend(race.await.unwrap());
    }
    let mut won = [0_u64, 0];
    for (n, (paid, expired)) in verdicts.iter().enumerate() {
        let code = |end| State::SUBMITTED.after(end).unwrap().0.code();
        match (paid, expired) {
            (Moved::Done, Moved::Stale(outcome)) => {
                won[0] += 1;
                assert_eq!(outcome.as_bytes()[n % BATCH], code(Move::Confirm), "order {n}");
            }
            (Moved::TooLate | Moved::Stale(_), Moved::Done) => won[1] += 1,
            both => panic!("order {n}: {both:?}"),
        }
    }
    eprintln!("{} paid, {} expired", won[0], won[1]);
    assert!(won[0] > ORDERS as u64 / 100 && won[1] > ORDERS as u64 / 100, "no race: {won:?}");
    let stock = lives.redis.stock(&lives.keys).await.unwrap()["a"].stock;
    assert_eq!((stock.available, stock.reserved, stock.sold), (won[1], 0, won[0]));
    // Written once, each verdict is the same to everybody who asks.
    let entries = lives.redis.entries_after(&lives.keys, None, None, ORDERS).await.unwrap();
    let ends: Vec<Option<End>> = entries
        .iter()
        .flat_map(|entry| entry.outcome.bytes())
        .map(|code| State::of_code(code).unwrap().end())
        .collect();
    for (n, (end, (paid, _))) in ends.iter().zip(&verdicts).enumerate() {
        let expected = if *paid == Moved::Done { End::Confirmed } else { End::Expired };
        assert_eq!(*end, Some(expected), "order {n}");
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// Too early is no verdict: an expiry is tried until it is time.
async fn expire(redis: &Redis, keys: &Keys, rows: &[Row]) -> Vec<Moved> {
    loop {
        let answers = redis.move_orders(&mut redis.lane(), keys, rows, Notes::default()).await.unwrap();
        // Rows of one call have one clock and one deadline.
        if !answers.contains(&Moved::TooEarly) {
            return answers;
        }
    }
}
