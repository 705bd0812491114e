//! What does it cost to be watched? Processor time of the server for an order, drain included, with and without traces of
//! one order in a hundred and logs as JSON. By turns, each round on a fresh lab, so that a machine whose speed changes does
//! not decide.

use anyhow::Context;

use super::Bench;
use super::lab::{Class, Mode};
use super::load;
use super::summary::{Figure, Goal};

const ROUNDS: usize = 5;
/// Orders of one round.
const ORDERS: u64 = 150_000;
/// Before the first are counted: connections, buffers, tables.
const WARM_UP: u64 = 20_000;
/// What the server says of itself only when it must.
const QUIET: [(&str, &str); 1] = [("RUSHLINE_LOG_LEVEL", "error")];

/// Percent more of the server's processor time for an order that is watched.
pub async fn cost(bench: &mut Bench) -> anyhow::Result<Figure> {
    let collector = format!("http://{}", bench.floor_address());
    let watched = [
        ("RUSHLINE_LOG_LEVEL", "info"),
        ("RUSHLINE_LOG_FORMAT", "json"),
        ("RUSHLINE_TELEMETRY_OTLP_ENDPOINT", collector.as_str()),
        ("RUSHLINE_TELEMETRY_OTLP_PROTOCOL", "http"),
        ("RUSHLINE_TELEMETRY_SAMPLE_SHARE", "0.01"),
    ];
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // Each side goes first as often as the other.
        for side in [round % 2, 1 - round % 2] {
            match side {
                0 => without.push(micros(bench, &QUIET).await?),
                _ => with.push(micros(bench, &watched).await?),
            }
        }
    }
    let (quiet, watched) = (median(&mut without), median(&mut with));
    let spread = |times: &[f64]| format!("{:.2} to {:.2}", times[0], times[times.len() - 1]);
    let detail = format!(
        "{watched:.2} µs an order ({}) against {quiet:.2} ({}), medians of {ROUNDS} rounds by turns",
        spread(&with),
        spread(&without)
    );
    Ok(Figure::new("observability_cost", (watched / quiet - 1.0) * 100.0, "%", Goal::AtMost(3.0), detail))
}

async fn micros(bench: &mut Bench, envs: &[(&str, &str)]) -> anyhow::Result<f64> {
    let (orders, warm, connections) = (bench.orders(ORDERS), bench.orders(WARM_UP), bench.connections);
    let all = warm + orders;
    let lab = bench.open_as("observability", Class::Memory, Mode::Bulk, all, envs).await?;
    let mut load = lab.load(connections);
    load.orders = warm;
    load::run(load).await?.expect(&[201], warm)?;
    lab.drained().await?;
    let before = lab.server_time()?;
    let mut load = lab.load(connections);
    (load.first, load.orders) = (warm, orders);
    load::run(load).await?.expect(&[201], orders)?;
    lab.delivered().await?;
    lab.drained().await?;
    let spent = lab.server_time()?.checked_sub(before).context("processor time ran backwards")?;
    lab.exact().await?;
    bench.close().await?;
    Ok(spent.as_secs_f64() * 1e6 / orders as f64)
}

/// Sorts them on the way.
fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
