//! What losers cost: requests after the last unit, with idempotency keys and without, and how soon the next unit sells.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;

use super::Bench;
use super::figures::quantiles;
use super::lab::{Class, Mode};
use super::load::{self, Load, MARK, PAYLOAD, SKU, Template};
use super::summary::{Figure, Goal};
use crate::http::Connection;

/// Restocks that are timed, one after the other.
const RESTOCKS: u64 = 20;
/// A restocked unit that nobody gets in this time is lost.
const WIN_TIME_MAX: Duration = Duration::from_secs(10);

/// A loser's order. Its key, if it has one, is of no winner.
fn loser(sale: &str, keyed: bool) -> Template {
    let body = format!(r#"{{"buyer":"l{MARK}","items":[{{"sku":"{SKU}","quantity":1}}],"payload":{PAYLOAD}}}"#);
    let key = if keyed { format!("idempotency-key: l{MARK}\r\n") } else { String::new() };
    Template::post(&format!("/v1/sales/{sale}/orders"), &key, &body)
}

/// Refusals a second after the last unit, and the commands that Redis ran for them, in per cent of their number.
pub async fn after_sell_out(bench: &mut Bench, keyed: bool) -> anyhow::Result<[Figure; 2]> {
    let name = if keyed { "refusals_after_sell_out_keyed" } else { "refusals_after_sell_out" };
    let (losers, connections) = (bench.orders(300_000), bench.connections);
    let lab = bench.open(name, Class::Memory, Mode::Single, 1, None).await?;
    load::run(lab.load(1)).await?.expect(&[201], 1)?;
    lab.delivered().await?;
    lab.drained().await?;
    let load = Load { orders: losers, ..lab.load_of(loser(&lab.sale, keyed), connections) };
    lab.redis.call(&["CONFIG", "RESETSTAT"]).await?;
    let measured = load::run(load).await?;
    let calls = lab.redis.calls().await?;
    measured.expect(&[409], losers)?;
    lab.exact().await?;
    let total: u64 = calls.iter().map(|(_, calls)| calls).sum();
    let share = total as f64 / losers as f64 * 100.0;
    let largest: Vec<String> = calls.iter().take(4).map(|(command, calls)| format!("{command} {calls}")).collect();
    let detail = format!("{losers} refusals, {}", quantiles(&measured));
    Ok([
        Figure::new(name, measured.per_second(), "requests/s", Goal::OfFloor(0.85), detail),
        Figure::new(format!("{name}_redis_calls"), share, "%", Goal::AtMost(1.0), largest.join(", ")),
    ])
}

/// From a restock's beginning to the answer of the first who wins, under a flood of losers: the slowest of some.
pub async fn next_win(bench: &mut Bench) -> anyhow::Result<Figure> {
    let name = "restock_to_next_win";
    let (losers, connections) = (bench.orders(300_000), bench.connections / 4);
    let lab = bench.open(name, Class::Memory, Mode::Single, 1, None).await?;
    load::run(lab.load(1)).await?.expect(&[201], 1)?;
    let flood = Load { orders: losers, ..lab.load_of(loser(&lab.sale, false), connections) };
    let mut flood = tokio::spawn(load::run(flood));
    let mut times = Vec::new();
    let mut asking = Connection::open(lab.server.address).await?;
    for number in 1..=RESTOCKS {
        let body = json!({"sku": SKU, "units": 1, "request_id": format!("r{number}")});
        let began = Instant::now();
        lab.server.expect("POST", &format!("/v1/sales/{}/stock", lab.sale), Some(&body)).await?;
        let mut request = Vec::new();
        let order = format!(r#"{{"buyer":"w{number}","items":[{{"sku":"{SKU}","quantity":1}}]}}"#);
        let target = format!("/v1/sales/{}/orders", lab.sale);
        crate::http::write_request(&mut request, "POST", &target, "", order.as_bytes());
        // One of the flood may win instead; then the stock says so.
        while asking.call(&request).await?.status != 201 {
            if lab.redis.number(&["HGET", &lab.key("stock"), &format!("{SKU}:available")]).await? == 0 {
                break;
            }
            ensure!(began.elapsed() < WIN_TIME_MAX, "nobody wins a restocked unit");
        }
        times.push(began.elapsed());
        ensure!(!flood.is_finished(), "the flood ended before the restocks");
    }
    let measured = (&mut flood).await??;
    lab.orders += RESTOCKS;
    measured.expect(&[201, 409], losers)?;
    lab.delivered().await?;
    lab.exact().await?;
    times.sort();
    let millis = |time: Duration| time.as_secs_f64() * 1000.0;
    let detail = format!(
        "{RESTOCKS} restocks in a flood of {connections} connections, median {:.1} ms",
        millis(times[times.len() / 2])
    );
    Ok(Figure::new(name, millis(times[times.len() - 1]), "ms", Goal::AtMost(20.0), detail))
}
