//! Open reservations: what a million of them cost Redis in memory, and how soon after their deadline the units are back.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::json;
use tokio::time::sleep;

use super::Bench;
use super::figures::quantiles;
use super::lab::{Class, Lab, Mode};
use super::load::{self, Load, PAYLOAD, SKU};
use super::summary::{Figure, Goal};
use crate::http::{Connection, write_request};

/// As many as are open at a time, and for how long each is: the last must be admitted before the first runs out.
const FULL: (u64, u64) = (1_000_000, 180_000);
const QUICK: (u64, u64) = (50_000, 20_000);
/// Orders that the server bears undelivered.
const BACKLOG: u64 = 2_000_000;
const POLL: Duration = Duration::from_millis(20);
const SALE: &str = "held";

/// Bytes of Redis for each open reservation above payload and ledger, and the 99th percentile of the time from a
/// deadline to the release.
pub async fn open_and_released(bench: &mut Bench) -> anyhow::Result<[Figure; 2]> {
    let (orders, for_ms) = if bench.quick() { QUICK } else { FULL };
    let connections = bench.connections;
    let lab = bench.open("reservations", Class::Memory, Mode::Single, 1, Some(BACKLOG)).await?;
    let endpoint = json!({
        "url": format!("http://{}/orders", lab.sink.address), "max_concurrency": 64, "mode": "bulk",
    });
    let sale = json!({
        "sale": SALE, "items": [{"sku": SKU, "units": orders}], "durability": "memory", "reserve_for_ms": for_ms,
        "order_endpoint": endpoint,
    });
    lab.server.expect("POST", "/v1/sales", Some(&sale)).await?;
    lab.sale = SALE.into();
    let before = lab.redis.used_memory().await?;
    let began = Instant::now();
    let measured = load::run(Load { orders, ..lab.load(connections) }).await?;
    measured.expect(&[201], orders)?;
    // Made by the order service, and waiting for nothing but their payment.
    while pending(lab).await? > 0 {
        ensure!(began.elapsed().as_millis() < for_ms.into(), "the first ran out before the last was made");
        sleep(POLL).await;
    }
    let weight = lab.weigh().await?;
    ensure!(
        available(lab).await? == 0,
        "the first ran out before all were weighed; a slower machine needs longer ones"
    );
    let bytes = (weight.used - before as f64 - weight.ledger) / orders as f64 - PAYLOAD.len() as f64;
    while available(lab).await? < orders {
        ensure!(began.elapsed().as_millis() < u128::from(for_ms) * 4, "not all came back");
        sleep(POLL).await;
    }
    let p99_ms = p99(lab).await? * 1000.0;
    let detail = format!("{orders} open, {}", quantiles(&measured));
    let ledger = format!("{orders} open; the ledger beside it {:.0}", weight.ledger / orders as f64);
    Ok([
        Figure::new("reservations_redis_bytes_beyond_payload_and_ledger", bytes, "bytes", Goal::AtMost(200.0), ledger),
        Figure::new("reservations_release_p99", p99_ms, "ms", Goal::AtMost(100.0), detail),
    ])
}

/// Batches with an order that the order service has not made yet.
async fn pending(lab: &Lab) -> anyhow::Result<u64> {
    let sale = lab.server.expect("GET", &format!("/v1/sales/{SALE}"), None).await?;
    sale["backlog"]["undelivered_batches"].as_u64().context("a sale tells of its backlog")
}

async fn available(lab: &mut Lab) -> anyhow::Result<u64> {
    let key = lab.key("stock");
    lab.redis.number(&["HGET", &key, &format!("{SKU}:available")]).await
}

/// From the server's own histogram, a moment a batch: by the clock that it shares with Redis here. The upper edge of the
/// bucket, so rather too much than too little.
async fn p99(lab: &Lab) -> anyhow::Result<f64> {
    let mut request = Vec::new();
    write_request(&mut request, "GET", "/metrics", "", b"");
    let mut connection = Connection::open(lab.server.address).await?;
    let text = String::from_utf8_lossy(connection.call(&request).await?.body).into_owned();
    let buckets: Vec<(&str, f64)> = text
        .lines()
        .filter_map(|line| {
            line.strip_prefix(r#"rushline_reservation_expiry_seconds_bucket{le=""#)?.split_once(r#""} "#)
        })
        .filter_map(|(edge, count)| Some((edge, count.parse().ok()?)))
        .collect();
    let all = buckets.last().context("the server tells how late it was")?.1;
    let (edge, _) = buckets.iter().find(|(_, count)| *count >= 0.99 * all).context("the last bucket has all")?;
    edge.parse().with_context(|| format!("a release took longer than every bucket: {edge}"))
}
