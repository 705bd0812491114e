//! Latency as buyers feel it: orders that come by the clock, at half of what the server can take, each counted from the
//! moment it was meant to leave.

use std::time::Duration;

use anyhow::ensure;

use super::Bench;
use super::lab::{Class, Mode};
use super::load::{self, Load};
use super::summary::{Figure, Goal};
use crate::engine::open_loop::{OpenLoop, open_loop};

/// Of the orders of this lab, the part that finds the maximum.
const FINDING: f64 = 1.0 / 3.0;

/// Latency p99 and p99.9 at half of the maximum, and how late the generator itself was.
pub async fn at_half(bench: &mut Bench) -> anyhow::Result<[Figure; 3]> {
    let (orders, connections) = (bench.orders(300_000), bench.connections);
    let lab = bench.open("open_loop", Class::Fsync, Mode::Bulk, orders, None).await?;
    let first = (orders as f64 * FINDING) as u64;
    let found = load::run(Load { orders: first, ..lab.load(connections) }).await?;
    found.expect(&[201], first)?;
    let (rate, rest) = (found.per_second() / 2.0, orders - first);
    let measured = open_loop(OpenLoop {
        address: lab.server.address,
        template: load::Template::order(&lab.sale),
        rate: Some(rate),
        lasts: Duration::from_secs_f64(rest as f64 / rate),
        poisson: false,
        connections,
        streams: 0,
        threads: 1,
        first,
    })
    .await?;
    let created = measured.counts.created;
    ensure!(created == rest, "of {rest} orders {created} were accepted: {:?}", measured.counts);
    lab.delivered().await?;
    lab.exact().await?;
    let ms = |micros: u64| micros as f64 / 1000.0;
    let at = |quantile| ms(measured.latency.value_at_quantile(quantile));
    let late = &measured.effort.schedule_error;
    let detail = format!(
        "{rest} orders at {rate:.0}/s, p50 {:.2} ms, longest {:.1} ms; {} waited for a connection",
        at(0.5),
        ms(measured.latency.max()),
        measured.effort.waited
    );
    let lateness = format!("p50 {:.3} ms, longest {:.1} ms", ms(late.value_at_quantile(0.5)), ms(late.max()));
    Ok([
        Figure::new("open_loop_at_half_p99", at(0.99), "ms", Goal::AtMost(5.0), detail),
        Figure::new("open_loop_at_half_p99.9", at(0.999), "ms", Goal::AtMost(20.0), String::new()),
        Figure::new(
            "open_loop_schedule_error_p99",
            ms(late.value_at_quantile(0.99)),
            "ms",
            Goal::AtMost(1.0),
            lateness,
        ),
    ])
}
