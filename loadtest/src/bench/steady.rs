//! Does an order cost the same whatever else there is? And what does the server take: to start, to hold what is in flight.
//!
//! The measure is processor time of server and Redis per order, drain included, against that of the bare server for a request
//! just before and after: it is steadier than the clock, and than the machine.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::json;

use super::Bench;
use super::floor::Floor;
use super::lab::{Class, Lab, Mode};
use super::load::{self, Load, Template};
use super::summary::{Figure, Goal};

/// Starts that are timed; the median counts.
const STARTS: usize = 5;
/// Orders in flight while the server is weighed.
const IN_FLIGHT: u64 = 50_000;
/// Orders of a sale before the first are counted.
const SMALL: u64 = 10_000;
const SKUS: u64 = 10_000;
const SALES: u64 = 1_000;

/// Milliseconds from starting the program to its first good `/readyz`, with a Redis that runs already.
pub async fn start_to_ready(bench: &mut Bench) -> anyhow::Result<Figure> {
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let lab = bench.open("start_to_ready", Class::Memory, Mode::Bulk, 1, None).await?;
        times.push(lab.ready_after);
        bench.close().await?;
    }
    times.sort();
    let detail = format!("median of {STARTS}; slowest {} ms", times[STARTS - 1].as_millis());
    let value = times[STARTS / 2].as_secs_f64() * 1000.0;
    Ok(Figure::new("start_to_ready", value, "ms", Goal::AtMost(200.0), detail))
}

/// The server's resident memory while the order service holds 50,000 orders.
pub async fn resident_memory(bench: &mut Bench) -> anyhow::Result<Figure> {
    let (name, connections) = ("resident_memory_50000_in_flight", bench.connections);
    let lab = bench.open(name, Class::Memory, Mode::Bulk, IN_FLIGHT, Some(IN_FLIGHT + 1)).await?;
    let before = lab.resident_bytes()?;
    lab.hold(true).await?;
    load::run(lab.load(connections)).await?.expect(&[201], IN_FLIGHT)?;
    let held = lab.resident_bytes()?;
    lab.hold(false).await?;
    lab.delivered().await?;
    lab.exact().await?;
    let detail = format!("{:.1} MB before the first order", before as f64 / 1e6);
    Ok(Figure::new(name, held as f64 / 1e6, "MB", Goal::AtMost(100.0), detail))
}

/// What an order costs in a large sale against the first of it, among many SKUs, and beside many other sales.
pub async fn flatness(bench: &mut Bench) -> anyhow::Result<[Figure; 3]> {
    let orders = bench.sustained_orders;
    let counted = (orders / 10).max(SMALL);
    ensure!(orders >= SMALL + 2 * counted, "for flatness at least {} orders are needed", SMALL + 2 * counted);

    let mut sale = Growing::open(bench, "flat_orders", orders, 1).await?;
    sale.sell(SMALL).await?;
    let first = sale.cost_of(counted).await?;
    sale.sell(orders - SMALL - 2 * counted).await?;
    let last = sale.cost_of(counted).await?;
    sale.lab.exact().await?;
    bench.close().await?;

    let mut sale = Growing::open(bench, "flat_skus", SMALL + counted, SKUS).await?;
    sale.sell(SMALL).await?;
    let skus = sale.cost_of(counted).await?;
    sale.lab.exact().await?;
    bench.close().await?;

    let mut sale = Growing::open(bench, "flat_sales", SMALL + counted, 1).await?;
    for number in 1..SALES {
        let (name, endpoint) = (format!("other-{number}"), json!({"url": "http://127.0.0.1:1/orders"}));
        let body = json!({"sale": name, "items": [{"sku": "other", "units": 1}], "durability": "memory", "order_endpoint": endpoint});
        sale.lab.server.expect("POST", "/v1/sales", Some(&body)).await?;
    }
    sale.sell(SMALL).await?;
    let sales = sale.cost_of(counted).await?;
    sale.lab.exact().await?;

    let against = |name: &str, cost: Cost, what: String| {
        let change = |now: f64, then: f64| (now / then - 1.0) * 100.0;
        let detail = format!(
            "{what}: {:.2} times a request of the bare server beside it, against {:.2}; {:.1} µs an order of server and Redis against {:.1}, the bare server {:.1} and {:.1}",
            cost.ratio(),
            first.ratio(),
            cost.micros,
            first.micros,
            cost.floor_micros,
            first.floor_micros,
        );
        Figure::new(name, change(cost.ratio(), first.ratio()), "%", Goal::Within(10.0), detail)
    };
    Ok([
        against("flat_orders", last, format!("the last {counted} of {orders} orders")),
        against("flat_skus", skus, format!("spread over {SKUS} SKUs")),
        against("flat_sales", sales, format!("one sale that sells among {SALES}")),
    ])
}

/// Processor time of an order, and of a request of the bare server just before and after: machines that many share change
/// their speed within minutes.
#[derive(Debug, Clone, Copy)]
struct Cost {
    micros: f64,
    floor_micros: f64,
}

impl Cost {
    fn ratio(self) -> f64 {
        self.micros / self.floor_micros
    }
}

/// A sale that gets its orders in parts.
struct Growing<'a> {
    lab: &'a mut Lab,
    floor: Floor,
    template: Template,
    all: u64,
    sent: u64,
}

impl<'a> Growing<'a> {
    async fn open(bench: &'a mut Bench, name: &str, orders: u64, skus: u64) -> anyhow::Result<Self> {
        let floor = bench.floor.clone();
        let lab = bench.open_with(name, Class::Memory, Mode::Bulk, orders, None, skus).await?;
        let template = Template::order_over(&lab.sale, skus);
        Ok(Self { lab, floor, template, all: orders, sent: 0 })
    }

    /// The next orders, until they are in the records.
    async fn sell(&mut self, orders: u64) -> anyhow::Result<()> {
        if orders == 0 {
            return Ok(());
        }
        let load = Load { first: self.sent, orders, ..self.lab.load_of(self.template.clone(), self.floor.connections) };
        load::run(load).await?.expect(&[201], orders)?;
        self.sent += orders;
        ensure!(self.sent <= self.all, "the sale has no stock for so many");
        self.lab.orders = self.sent;
        self.lab.delivered().await?;
        self.lab.drained().await
    }

    /// What each of the next orders costs, until they are in the records: processor time of server and Redis.
    async fn cost_of(&mut self, orders: u64) -> anyhow::Result<Cost> {
        let floor_before = self.floor.measure().await?;
        let before = self.lab.processor_time()?;
        self.sell(orders).await?;
        let spent: Duration = self.lab.processor_time()?.checked_sub(before).context("processor time ran backwards")?;
        let floor_after = self.floor.measure().await?;
        Ok(Cost {
            micros: spent.as_secs_f64() * 1e6 / orders as f64,
            floor_micros: (floor_before.micros + floor_after.micros) / 2.0,
        })
    }
}
