//! How everything stands now: once (`GET /v1/overview`), or every second as server-sent events (`GET /v1/live`).
//!
//! However many look at it, it is made once a second at most.

use super::App;
use super::problem::Problem;
use super::sales;
use super::wire::{SaleView, time};
use crate::driver::now_ms;
use crate::store::nodes::NodeSaid;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How often a stream tells how things stand, and how old an answer may be.
const EVERY: Duration = Duration::from_secs(1);
/// Sales that are shown: the youngest ones.
const SALES_MAX: usize = 100;
/// Sales that are read at a time: each takes several questions of Redis, one after the other.
const AT_ONCE: usize = 16;
/// SKUs of one sale that are shown.
const ITEMS_MAX: usize = 200;
/// How long without a word until a node counts as silent.
const SILENT_MS: u64 = 10_000;

/// The last answer, for whoever asks within the same second.
#[derive(Default)]
pub struct Live {
    last: Mutex<Option<(Instant, Bytes)>>,
}

/// By name: upper bounds, and how many were at most that.
type Histograms = BTreeMap<&'static str, Vec<(f64, f64)>>;

#[derive(Serialize)]
struct Overview {
    at: Option<Timestamp>,
    /// Who says this.
    node: String,
    version: &'static str,
    redis: RedisView,
    records: RecordsView,
    sales: Vec<SaleNow>,
    /// There are more than are shown.
    more_sales: usize,
    transactions: TransactionsNow,
    nodes: Vec<NodeView>,
    /// Counters of this node since it started, and its histograms, as in /metrics.
    counters: BTreeMap<String, f64>,
    histograms: Histograms,
}

#[derive(Serialize)]
struct RedisView {
    usable: bool,
    version: String,
    promise: String,
}

#[derive(Serialize)]
struct RecordsView {
    reachable: bool,
    kind: Option<&'static str>,
}

#[derive(Serialize)]
struct SaleNow {
    #[serde(flatten)]
    view: SaleView,
    /// SKUs beyond those that are shown.
    more_items: usize,
    /// Units that the counters do not explain; anything but 0 is a bug.
    conservation_difference: i128,
    /// Orders that this node has in flight.
    in_flight_here: u64,
}

#[derive(Serialize)]
struct TransactionsNow {
    /// By status and type, as Redis has them.
    counts: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
    running_here: usize,
}

#[derive(Serialize)]
struct NodeView {
    node: String,
    version: String,
    address: String,
    started_at: Option<Timestamp>,
    seen_at: Option<Timestamp>,
    /// Heard of within the last seconds.
    alive: bool,
    orders_in_flight: u64,
    transactions_in_flight: u64,
}

impl NodeView {
    fn new(said: NodeSaid, now_ms: u64) -> Self {
        Self {
            alive: said.seen_ms.saturating_add(SILENT_MS) >= now_ms,
            node: said.node,
            version: said.version,
            address: said.address,
            started_at: time(Some(said.started_ms)),
            seen_at: time(Some(said.seen_ms)),
            orders_in_flight: said.orders_in_flight,
            transactions_in_flight: said.transactions_in_flight,
        }
    }
}

/// `GET /v1/overview`
pub async fn overview(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let json = now(&app).await?;
    Ok(([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], json).into_response())
}

async fn now(app: &App) -> Result<Bytes, Problem> {
    // Held while it is made: others who ask meanwhile get what comes of it.
    let mut last = app.live.last.lock().await;
    if let Some((made, json)) = &*last
        && made.elapsed() < EVERY / 2
    {
        return Ok(json.clone());
    }
    let json = Bytes::from(serde_json::to_vec(&look(app).await?).expect("an overview is plain data"));
    *last = Some((Instant::now(), json.clone()));
    Ok(json)
}

async fn look(app: &App) -> Result<Overview, Problem> {
    let redis = &app.node.redis;
    let names = redis.sale_names().await?;
    let mut all = Vec::new();
    for name in &names {
        all.extend(app.node.open(name).await?);
    }
    all.sort_by_key(|open| std::cmp::Reverse(open.sale.stored.load().created_ms));
    let more_sales = all.len().saturating_sub(SALES_MAX);
    all.truncate(SALES_MAX);
    let views = stream::iter(all).map(|open| async move {
        let view = sales::view(app, &open).await;
        (open, view)
    });
    let mut views = std::pin::pin!(views.buffered(AT_ONCE));
    let mut shown = Vec::new();
    while let Some((open, view)) = views.next().await {
        let mut view = view?;
        let conservation_difference = view.items.iter().map(|item| item.difference().abs()).sum();
        let more_items = view.items.len().saturating_sub(ITEMS_MAX);
        view.items.truncate(ITEMS_MAX);
        let in_flight_here = open.sale.backlog.load(std::sync::atomic::Ordering::Relaxed);
        shown.push(SaleNow { view, more_items, conservation_difference, in_flight_here });
    }
    let now_ms = now_ms();
    let promise = redis.promise();
    let sink = app.records.opened();
    let (counters, histograms) = metrics_of(&app.metrics.render());
    Ok(Overview {
        at: time(Some(now_ms)),
        node: app.node.name.to_string(),
        version: env!("CARGO_PKG_VERSION"),
        redis: RedisView { usable: redis.usable(), version: promise.version.clone(), promise: promise.describe() },
        records: RecordsView { reachable: sink.is_some(), kind: sink },
        sales: shown,
        more_sales,
        transactions: TransactionsNow { counts: redis.trans_counts().await?, running_here: app.driver.in_flight() },
        nodes: redis.nodes(now_ms).await?.into_iter().map(|said| NodeView::new(said, now_ms)).collect(),
        counters,
        histograms,
    })
}

/// Counters and the buckets of two histograms, out of what /metrics shows.
fn metrics_of(text: &str) -> (BTreeMap<String, f64>, Histograms) {
    const HISTOGRAMS: [(&str, &str); 2] =
        [("rushline_admission_seconds_bucket", "admission_s"), ("rushline_delivery_seconds_bucket", "delivery_s")];
    let (mut counters, mut histograms) = (BTreeMap::new(), Histograms::new());
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, value)) = line.rsplit_once(' ') else { continue };
        let Ok(value) = value.parse::<f64>() else { continue };
        let bare = name.split('{').next().unwrap_or_default();
        if bare.ends_with("_total") {
            counters.insert(name.trim_start_matches("rushline_").to_owned(), value);
        } else if let Some((_, short)) = HISTOGRAMS.iter().find(|(full, _)| *full == bare) {
            let bound = name.split("le=\"").nth(1).and_then(|rest| rest.split('"').next());
            // JSON has no infinity; the last bucket holds them all.
            let bound = bound.and_then(|bound| bound.parse::<f64>().ok()).filter(|bound| bound.is_finite());
            histograms.entry(*short).or_default().push((bound.unwrap_or(f64::MAX), value));
        }
    }
    (counters, histograms)
}

/// `GET /v1/live`
pub async fn follow(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let permit = app.event_streams.clone().try_acquire_owned().map_err(|_| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_many_streams",
            "this server holds as many event streams as it may (setting http.event_streams_max); GET /v1/overview says the \
             same once",
        )
        .retry_after(1)
    })?;
    let state = (app, permit, None::<Instant>);
    let events = stream::unfold(state, |(app, permit, told)| async move {
        let mut stopping = app.stopping.clone();
        if let Some(told) = told {
            tokio::select! {
                () = tokio::time::sleep_until(told + EVERY) => {}
                // The client comes back, to another node.
                _ = stopping.wait_for(|stop| *stop) => return None,
            }
        }
        let chunk = match now(&app).await {
            Ok(json) => [b"event: overview\ndata: ", &json[..], b"\n\n"].concat(),
            Err(problem) => [b"event: problem\ndata: ", &problem.body()[..], b"\n\n"].concat(),
        };
        Some((Ok::<_, Infallible>(Bytes::from(chunk)), (app, permit, Some(Instant::now()))))
    });
    Ok(super::events::response(events))
}

/// Says every few seconds that this node is there, until the server ends.
pub async fn say_node(app: Arc<App>, address: String, every: Duration) {
    let started_ms = now_ms();
    loop {
        let said = NodeSaid {
            node: app.node.name.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            address: address.clone(),
            started_ms,
            seen_ms: now_ms(),
            orders_in_flight: app.node.in_flight(),
            transactions_in_flight: app.driver.in_flight() as u64,
        };
        if let Err(error) = app.node.redis.say_node(&said).await {
            tracing::debug!(%error, "this node could not say that it is there");
        }
        tokio::time::sleep(every).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_buckets_are_found_in_what_metrics_shows() {
        let text = "# HELP x\nrushline_orders_admitted_total 7\nrushline_orders_refused_total{reason=\"sold_out\"} 3\n\
            rushline_units{sale=\"s\"} 9\nrushline_admission_seconds_bucket{le=\"0.001\"} 5\n\
            rushline_admission_seconds_bucket{le=\"+Inf\"} 6\n";
        let (counters, histograms) = metrics_of(text);
        assert_eq!(counters["orders_admitted_total"], 7.0);
        assert_eq!(counters["orders_refused_total{reason=\"sold_out\"}"], 3.0);
        assert_eq!(counters.len(), 2);
        assert_eq!(histograms["admission_s"], [(0.001, 5.0), (f64::MAX, 6.0)]);
    }
}
