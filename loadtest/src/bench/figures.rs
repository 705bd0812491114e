//! The figures: one function each, from a fresh lab to a number, and each lab proves its exactness before it goes.

use std::time::{Duration, Instant};

use super::lab::{Class, Lab, Mode};
use super::load::{self, PAYLOAD};
use super::summary::{Figure, Goal};
use super::{Bench, Part};

/// Bound of the backlog while the order service holds its answers: above every run's orders.
const BACKLOG_HELD: u64 = 5_000_000;
/// Orders sent before anything is weighed, so that buffers and tables which stay have their size.
const SUSTAINED_WARM_UP: f64 = 0.1;
/// Part of the measured bulk rate at which orders come in for the sustained run: what a shop would plan for.
const SUSTAINED_LOAD: f64 = 0.8;
/// Weighings of a sustained run; each stops Redis for a moment.
const WEIGHINGS: f64 = 10.0;

/// Orders admitted a second while none is delivered, and the time that admission alone takes of Redis.
pub async fn admitted(bench: &mut Bench, class: Class) -> anyhow::Result<[Figure; 2]> {
    let (name, goal) = match class {
        Class::Memory => ("admitted_orders_memory", 0.60),
        Class::Fsync => ("admitted_orders_fsync", 0.45),
    };
    let (orders, connections) = (bench.orders(300_000), bench.connections);
    let lab = bench.open(name, class, Mode::Bulk, orders, Some(BACKLOG_HELD)).await?;
    lab.hold(true).await?;
    let before = (lab.server_time()?, lab.processor_time()?);
    let measured = load::run(lab.load(connections)).await?;
    measured.expect(&[201], orders)?;
    let value = measured.per_second();
    let effort = effort(lab, before, orders)?;
    let micros: u64 = lab.redis.command_micros().await?.iter().map(|(_, micros)| micros).sum();
    lab.hold(false).await?;
    lab.delivered().await?;
    lab.exact().await?;
    let detail = format!("{orders} orders, {}; {effort}", quantiles(&measured));
    let redis = micros as f64 / orders as f64;
    let redis_detail = format!("of it nothing for ends and the drain; {connections} clients");
    Ok([
        Figure::new(name, value, "orders/s", Goal::OfFloor(goal), detail),
        Figure::new(format!("{name}_redis_time"), redis, "µs", Goal::None, redis_detail),
    ])
}

/// Processor time an order since `before` (that of the server, and of server and Redis together).
fn effort(lab: &Lab, before: (Duration, Duration), orders: u64) -> anyhow::Result<String> {
    let each = |spent: Duration| spent.as_secs_f64() * 1e6 / orders as f64;
    let (server, both) = (each(lab.server_time()? - before.0), each(lab.processor_time()? - before.1));
    Ok(format!("processor time an order: server {server:.1} µs, Redis {:.1} µs", both - server))
}

/// Orders a second from the first request until the order service has the last order.
///
/// The goals are for the class `memory`: in `fsync` no more can be delivered than its own goal lets in.
pub async fn delivered(bench: &mut Bench, class: Class, mode: Mode) -> anyhow::Result<Figure> {
    let name = Part::Delivered(class, mode).name();
    let orders = match mode {
        Mode::Single => bench.orders(200_000),
        Mode::Bulk => bench.orders(300_000),
    };
    let goal = match (class, mode) {
        (Class::Memory, Mode::Single) => Goal::OfFloor(0.28),
        (Class::Memory, Mode::Bulk) => Goal::OfFloor(0.50),
        (Class::Fsync, _) => Goal::None,
    };
    let connections = bench.connections;
    let lab = bench.open(&name, class, mode, orders, Some(BACKLOG_HELD)).await?;
    let before = (lab.server_time()?, lab.processor_time()?);
    let began = Instant::now();
    let measured = load::run(lab.load(connections)).await?;
    measured.expect(&[201], orders)?;
    lab.delivered().await?;
    let value = orders as f64 / began.elapsed().as_secs_f64();
    lab.drained().await?;
    let drained = orders as f64 / began.elapsed().as_secs_f64();
    let effort = effort(lab, before, orders)?;
    let per_call = lab.exact().await?;
    let detail = format!(
        "{orders} orders, {per_call:.1} a call, {}; in the records {drained:.0}/s; {effort}",
        quantiles(&measured)
    );
    Ok(Figure::new(name, value, "orders/s", goal, detail))
}

/// What one order costs Redis from admission to the drain, in its own count of time.
pub async fn redis_micros(bench: &mut Bench, connections: usize) -> anyhow::Result<Figure> {
    let name = format!("redis_time_per_order_{connections}_clients");
    let orders = bench.orders(100_000);
    let lab = bench.open(&name, Class::Fsync, Mode::Single, orders, None).await?;
    let measured = load::run(lab.load(connections)).await?;
    measured.expect(&[201], orders)?;
    lab.delivered().await?;
    lab.drained().await?;
    let commands = lab.redis.command_micros().await?;
    lab.exact().await?;
    let per_order = |micros: u64| micros as f64 / orders as f64;
    let largest: Vec<String> =
        commands.iter().take(4).map(|(command, micros)| format!("{command} {:.2}", per_order(*micros))).collect();
    let value = per_order(commands.iter().map(|(_, micros)| micros).sum());
    let detail = format!("of it {}", largest.join(", "));
    Ok(Figure::new(name, value, "µs", Goal::AtMost(5.0), detail))
}

/// What one order in flight costs Redis in memory, beyond its payload.
pub async fn redis_bytes(bench: &mut Bench) -> anyhow::Result<Figure> {
    let (orders, connections) = (bench.orders(100_000), bench.connections);
    let name = "redis_bytes_per_order_in_flight_beyond_payload";
    let lab = bench.open(name, Class::Memory, Mode::Single, orders, Some(BACKLOG_HELD)).await?;
    lab.hold(true).await?;
    let before = lab.redis.used_memory().await?;
    let measured = load::run(lab.load(connections)).await?;
    measured.expect(&[201], orders)?;
    let after = lab.redis.used_memory().await?;
    let ledger = lab.weigh().await?.ledger;
    lab.hold(false).await?;
    lab.delivered().await?;
    lab.exact().await?;
    let per_order = |bytes: u64| bytes as f64 / orders as f64;
    let value = per_order(after.saturating_sub(before)) - PAYLOAD.len() as f64;
    let detail = format!("of it the buyer's ledger {:.0}; payload {} bytes", ledger / orders as f64, PAYLOAD.len());
    Ok(Figure::new(name, value, "bytes", Goal::AtMost(220.0), detail))
}

/// A long run: do the records keep up with the orders, and does Redis stay as small as it was?
pub async fn sustained(bench: &mut Bench, bulk_per_s: f64) -> anyhow::Result<[Figure; 2]> {
    let (orders, connections) = (bench.sustained_orders, bench.connections);
    let lab = bench.open("sustained", Class::Fsync, Mode::Bulk, orders, None).await?;
    let mut load = lab.load(connections);
    load.rate = Some(bulk_per_s * SUSTAINED_LOAD);
    let began = Instant::now();
    let mut sending = std::pin::pin!(load::run(load));
    let sending_s = orders as f64 / (bulk_per_s * SUSTAINED_LOAD);
    let warm = tokio::time::Instant::now() + Duration::from_secs_f64(sending_s * SUSTAINED_WARM_UP);
    let every = Duration::from_secs_f64(sending_s * (1.0 - SUSTAINED_WARM_UP) / WEIGHINGS);
    let mut tick = tokio::time::interval_at(warm, every);
    let mut samples = Vec::new();
    let measured = loop {
        tokio::select! {
            measured = &mut sending => break measured?,
            _ = tick.tick() => {
                let weight = lab.weigh().await?;
                samples.push(weight.used - weight.ledger);
            }
        }
    };
    let sent = began.elapsed();
    measured.expect(&[201], orders)?;
    lab.drained().await?;
    let drained = began.elapsed();
    lab.delivered().await?;
    lab.exact().await?;

    let (came_in, went_out) = (orders as f64 / sent.as_secs_f64(), orders as f64 / drained.as_secs_f64());
    let waits: u64 = [429, 503].iter().filter_map(|status| measured.statuses.get(status)).sum();
    let records = Figure {
        name: "sustained_records_drained".into(),
        value: went_out,
        unit: "orders/s",
        // The last orders are in flight when sending ends; a drain that fell behind would take much longer.
        goal: Goal::AtLeast(0.97 * came_in),
        floor_per_s: f64::NAN,
        detail: format!(
            "{orders} orders came in at {came_in:.0}/s, the last was in the records {:.2} s after the last answer; {waits} waits; {}",
            (drained - sent).as_secs_f64(),
            quantiles(&measured)
        ),
    };
    let half = samples.len() / 2;
    anyhow::ensure!(half > 0, "the sustained run was too short to weigh: {} weighings", samples.len());
    let (first, last) = (mean(&samples[..half]), mean(&samples[samples.len() - half..]));
    let (low, high) = samples.iter().fold((f64::MAX, f64::MIN), |(low, high), &x| (low.min(x), high.max(x)));
    let memory = Figure {
        name: "sustained_redis_memory_growth".into(),
        value: (last / first - 1.0) * 100.0,
        unit: "%",
        goal: Goal::Within(5.0),
        floor_per_s: f64::NAN,
        detail: format!(
            "ledger deducted: mean {:.2} MB in the first half, {:.2} MB in the second; lowest {:.2}, highest {:.2}",
            first / 1e6,
            last / 1e6,
            low / 1e6,
            high / 1e6
        ),
    };
    Ok([records, memory])
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

pub fn quantiles(measured: &load::Measured) -> String {
    let millis = |quantile| measured.latency.value_at_quantile(quantile) as f64 / 1000.0;
    format!("p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms", millis(0.5), millis(0.99), millis(0.999))
}
