//! The doors: HTTP and gRPC. They translate, and decide nothing.
//!
//! Placing an order and dtm's interface are one plain hyper service, because that is where the load is; everything else
//! is axum behind it.
//! Orders on HTTP/1.1 are read by `hot.rs` before hyper sees them.
//! HTTP/1 and HTTP/2 (prior knowledge) on one port, gRPC there too and on a port of its own, where dtm's clients look
//! for it. `port.rs` has the connections; these, heads and bodies are bounded.

mod again;
mod changes;
mod deed;
mod dtm;
mod entrance;
mod entry;
mod events;
mod grpc;
mod hot;
mod idle;
mod json;
mod live;
mod login;
mod metrics;
mod orders;
mod port;
mod problem;
mod repair;
mod reservations;
mod returns;
mod rpc;
mod sales;
mod search;
mod slow_body;
pub mod tls;
mod why;
pub mod wire;

pub use dtm::{adopt::TRANSACTIONS_MAX as IMPORT_MAX, grpc::read as read_grpc, json_rpc::decode as read_json_rpc};

use crate::access::Guard;
use crate::access::hosts::Hosts;
use crate::driver::Driver;
use crate::reconciler::Records;
use crate::sale::node::Node;
use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
pub use hot::length_of_order;
use http::header::{ALLOW, HeaderValue};
use http::{HeaderMap, Method, Request, StatusCode};
use hyper::body::Incoming;
pub use live::{Live, say_node};
use metrics_exporter_prometheus::PrometheusHandle;
pub use port::{listen, run};
use problem::Problem;
use slow_body::Timed;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tonic_health::server::HealthReporter;
use tower::ServiceExt;

/// The HTTP interface, described: OpenAPI 3.1. `tests/it/api.rs` holds it against the routes and against real answers.
const DESCRIPTION: &str = include_str!("openapi.json");
/// Where dtm has its metrics.
const METRICS_OF_DTM: &str = "/api/metrics";

/// Bounds of the door; their defaults stand in `config`.
#[derive(Debug, Clone)]
pub struct Settings {
    pub body_bytes_max: usize,
    pub connections_max: usize,
    /// Of one address.
    pub connections_per_ip_max: usize,
    pub header_timeout: Duration,
    /// How long a connection is kept on which nothing is asked.
    pub idle_timeout: Duration,
    pub wait_max: Duration,
    /// What is left of a granted wait once the server stops.
    pub wait_when_stopping: Duration,
    /// How often an event stream without news says that it is there.
    pub heartbeat: Duration,
    /// Do the ports speak TLS?
    pub tls: bool,
    /// May a GET of dtm's interface change something?
    pub dtm_get_changes: bool,
}

/// What the handlers share.
pub struct App {
    pub node: Arc<Node>,
    pub driver: Arc<Driver>,
    pub records: Arc<Records>,
    pub settings: Settings,
    pub guard: Arc<Guard>,
    pub hosts: Hosts,
    pub metrics: PrometheusHandle,
    /// Places for event streams.
    pub event_streams: Arc<Semaphore>,
    /// How things stand, for whoever asked last.
    pub live: Live,
    /// True once the server means to stop: it says so to all who ask, and serves on.
    pub leaving: watch::Receiver<bool>,
    /// True once the server stops: what would go on for long ends.
    pub stopping: watch::Receiver<bool>,
}

/// Describes the metrics once, when the server starts.
pub fn describe_metrics() {
    metrics::describe();
}

/// Which port a request came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    Http,
    Grpc,
}

/// What every request needs, behind one pointer.
pub struct Doors {
    app: Arc<App>,
    router: Router,
    grpc: Router,
    health: HealthReporter,
}

impl Doors {
    pub fn new(app: Arc<App>) -> Arc<Self> {
        let (grpc, health) = grpc::routes(app.clone());
        Arc::new(Self { router: routes(app.clone()), grpc, health, app })
    }

    /// Keeps gRPC's health what it is, until the server stops.
    pub async fn follow_health(self: Arc<Self>, stopping: watch::Receiver<bool>) {
        grpc::follow_health(self.app.clone(), self.health.clone(), stopping).await;
    }
}

/// hyper moves what this returns several times a request, and keeps room for it in every connection: what is large and is
/// not on the way of a submit is in a box.
async fn answer(doors: &Doors, port: Port, peer: SocketAddr, mut request: Request<Incoming>) -> Response {
    match entry::admit(&doors.app, port, peer, &mut request) {
        Ok(None) => pass_on(doors, port, request).await,
        Ok(Some(deed)) => {
            let response = Box::pin(pass_on(doors, port, request)).await;
            deed.log_answer(&response);
            response
        }
        Err(refusal) => *refusal,
    }
}

/// To the door that it is for.
async fn pass_on(doors: &Doors, port: Port, request: Request<Incoming>) -> Response {
    if request.method() == Method::POST
        && port == Port::Http
        && let Some(sale) = sale_of_orders_path(request.uri().path())
    {
        let sale = sale.to_owned();
        return Box::pin(orders::place(&doors.app, &sale, request)).await.map(axum::body::Body::new);
    }
    if from_another_site(&request) {
        return Problem::new(
            StatusCode::FORBIDDEN,
            "cross_site",
            "a page of another site asked the browser for this; nothing was changed. Programs are not concerned",
        )
        .into_response();
    }
    if grpc::is_grpc(&request) {
        return Box::pin(grpc::answer(doors.grpc.clone(), request, doors.app.settings.header_timeout)).await;
    }
    match port {
        Port::Http if is_dtms(request.uri().path()) => dtm::answer(&doors.app, request).await,
        Port::Http => {
            let places_orders = sale_of_orders_path(request.uri().path()).is_some();
            let request = request.map(|body| Timed::new(body, doors.app.settings.header_timeout));
            let answer = Box::pin(doors.router.clone().oneshot(request)).await;
            let mut response = answer.unwrap_or_else(|never| match never {});
            if places_orders && response.status() == StatusCode::METHOD_NOT_ALLOWED {
                // The router does not know the method that is answered before it.
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET,HEAD,POST"));
            }
            response
        }
        Port::Grpc => Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "grpc_only",
            "this port speaks gRPC only; the HTTP interface is on the port of http.listen",
        )
        .into_response(),
    }
}

/// A browser that has this server's pages open says of every request who asked for it. What a page of somebody else asks
/// for in an operator's name is refused; reading is harmless, for the other page cannot see it, except where dtm changes
/// things by GET.
fn from_another_site<B>(request: &Request<B>) -> bool {
    let asked_by = request.headers().get("sec-fetch-site").map(http::HeaderValue::as_bytes);
    let other = matches!(asked_by, Some(b"cross-site" | b"same-site"));
    let reads = [Method::GET, Method::HEAD].contains(request.method()) && !is_dtms(request.uri().path());
    other && !reads
}

/// Is it part of dtm's interface? Its metrics are ours.
fn is_dtms(path: &str) -> bool {
    path.starts_with("/api/") && path != METRICS_OF_DTM
}

/// The sale of `/v1/sales/{sale}/orders`.
fn sale_of_orders_path(path: &str) -> Option<&str> {
    path.strip_prefix("/v1/sales/")?.strip_suffix("/orders").filter(|sale| !sale.contains('/'))
}

fn routes(app: Arc<App>) -> Router {
    let body_bytes_max = app.settings.body_bytes_max.max(4 * 1024 * 1024); // a sale of 10,000 SKUs is created in one body
    Router::new()
        .route("/v1/sales", get(sales::list).post(sales::create))
        .route("/v1/sales/{sale}", get(sales::show).patch(sales::update))
        .route("/v1/sales/{sale}/stock", post(sales::add_stock))
        .route("/v1/sales/{sale}/changes", get(sales::changes))
        .route("/v1/sales/{sale}/audit", get(sales::audit))
        .route("/v1/sales/{sale}/lost", get(repair::lost))
        .route("/v1/sales/{sale}/repair", post(repair::repair))
        .route("/v1/sales/{sale}/records", get(sales::records))
        .route("/v1/sales/{sale}/orders", get(search::orders::list))
        .route("/v1/sales/{sale}/buyers/{buyer}", get(why::of_buyer))
        .route("/v1/transactions", get(search::transactions::list))
        .route("/v1/transactions/import", post(dtm::adopt::import))
        .route("/v1/transactions/{gid}", get(search::transactions::show))
        .route("/v1/transactions/{gid}/retry", post(search::transactions::retry))
        .route("/v1/transactions/{gid}/stop", post(search::transactions::stop))
        .route("/v1/login", post(login::login))
        .route("/v1/logout", post(login::logout))
        .route("/v1/whoami", get(login::whoami))
        .route("/v1/overview", get(live::overview))
        .route("/v1/live", get(live::follow))
        .route("/v1/openapi.json", get(async || ([(http::header::CONTENT_TYPE, "application/json")], DESCRIPTION)))
        .route("/v1/orders/{gid}", get(show_order))
        .route("/v1/orders/{gid}/why", get(why::of_order))
        .route("/v1/orders/{gid}/retry", post(again::retry))
        .route("/v1/orders/{gid}/events", get(follow_order))
        .route("/v1/orders/{gid}/confirm", post(reservations::confirm))
        .route("/v1/orders/{gid}/cancel", post(reservations::cancel))
        .route("/v1/orders/{gid}/extend", post(reservations::extend))
        .route("/v1/orders/{gid}/return", post(returns::place))
        .route(METRICS_OF_DTM, get(show_metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(show_metrics))
        .merge(crate::dashboard::routes())
        .fallback(async || {
            Problem::new(
                StatusCode::NOT_FOUND,
                "unknown_route",
                "there is nothing at this address; README.md lists what there is",
            )
        })
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this address does not know that method")
        })
        .layer(axum::extract::DefaultBodyLimit::max(body_bytes_max))
        .with_state(app)
}

async fn show_order(State(app): State<Arc<App>>, Path(gid): Path<String>, RawQuery(query): RawQuery) -> Response {
    match orders::show(&app, &gid, query.as_deref()).await {
        Ok(view) => axum::Json(view).into_response(),
        Err(problem) => problem.into_response(),
    }
}

async fn follow_order(State(app): State<Arc<App>>, Path(gid): Path<String>, headers: HeaderMap) -> Response {
    events::stream(&app, &gid, &headers).await.unwrap_or_else(IntoResponse::into_response)
}

/// Ready: Redis answers and has the scripts, and the server means to stay. A database that is away does not stop the selling.
async fn ready(State(app): State<Arc<App>>) -> Response {
    if *app.leaving.borrow() {
        return Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "leaving",
            "this server is about to stop; what reaches it until then is answered. Send new requests to another one",
        )
        .into_response();
    }
    if app.node.redis.usable() {
        return axum::Json(serde_json::json!({ "ready": true, "redis": app.node.redis.promise().describe() }))
            .into_response();
    }
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "redis_unavailable", "Redis does not answer, or is not verified yet")
        .retry_after(1)
        .into_response()
}

async fn show_metrics(State(app): State<Arc<App>>) -> Response {
    metrics::refresh(&app).await;
    ([(http::header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.metrics.render()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_another_site_changes_nothing() {
        let request = |method: &str, path: &str, site: &str| {
            let request = Request::builder().method(method).uri(path);
            let request = if site.is_empty() { request } else { request.header("sec-fetch-site", site) };
            from_another_site(&request.body(()).unwrap())
        };
        assert!(request("POST", "/v1/sales/s/stock", "cross-site"));
        assert!(request("GET", "/api/dtmsvr/unsubscribe?topic=t", "same-site"));
        assert!(!request("GET", "/v1/sales", "cross-site"), "a link to here is fine");
        for site in ["", "same-origin", "none"] {
            assert!(!request("POST", "/v1/sales/s/stock", site), "{site}");
        }
    }

    #[test]
    fn the_hot_route_is_told_from_all_others() {
        assert_eq!(sale_of_orders_path("/v1/sales/nov22/orders"), Some("nov22"));
        for path in ["/v1/sales/nov22", "/v1/sales/a/b/orders", "/v1/orders/x", "/v1/sales//orders/"] {
            assert_eq!(sale_of_orders_path(path), None, "{path}");
        }
    }
}
