//! The HTTP interface. It translates, and decides nothing.
//!
//! Placing an order is one plain hyper service, because that is where the load is; everything else is axum behind it.
//! HTTP/1 and HTTP/2 (prior knowledge) on one port; connections, heads and bodies are bounded.

mod dtm;
mod json;
mod metrics;
mod orders;
mod problem;
mod sales;
pub mod wire;

use crate::driver::Driver;
use crate::reconciler::Records;
use crate::sale::node::Node;
use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use metrics_exporter_prometheus::PrometheusHandle;
use problem::Problem;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tower::ServiceExt;

/// Bounds of the door; their defaults stand in `config`.
#[derive(Debug, Clone)]
pub struct Settings {
    pub body_bytes_max: usize,
    pub connections_max: usize,
    pub header_timeout: Duration,
    pub wait_max: Duration,
}

/// What the handlers share.
pub struct App {
    pub node: Arc<Node>,
    pub driver: Arc<Driver>,
    pub records: Arc<Records>,
    pub settings: Settings,
    pub metrics: PrometheusHandle,
}

/// Describes the metrics once, when the server starts.
pub fn describe_metrics() {
    metrics::describe();
}

/// Accepts connections until `stopping` says so; then lets requests under way end, for at most `grace`.
pub async fn run(listener: TcpListener, app: Arc<App>, mut stopping: watch::Receiver<bool>, grace: Duration) {
    let door = Arc::new(Door { router: routes(app.clone()), app: app.clone() });
    let connections = Arc::new(Semaphore::new(app.settings.connections_max));
    let graceful = GracefulShutdown::new();
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(app.settings.header_timeout)
        .max_buf_size(64 * 1024)
        // A client that closes its half still hears its answer, and hyper need not look for the end of each request's
        // connection while it is worked on: a system call and a buffer less for every order.
        .half_close(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(256)
        .max_header_list_size(32 * 1024)
        .keep_alive_interval(Duration::from_secs(30));
    loop {
        let permit = tokio::select! {
            permit = connections.clone().acquire_owned() => permit.expect("the semaphore is never closed"),
            () = told_to_stop(&mut stopping) => break,
        };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, mostly: give connections a moment to end.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = told_to_stop(&mut stopping) => break,
        };
        let _ = stream.set_nodelay(true);
        let door = door.clone();
        let service = hyper::service::service_fn(move |request| {
            let door = door.clone();
            async move { Ok::<_, std::convert::Infallible>(answer(&door, request).await) }
        });
        let connection = graceful.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned());
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended badly");
            }
            drop(permit);
        });
    }
    drop(listener);
    if tokio::time::timeout(grace, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not end within the grace period");
    }
}

async fn told_to_stop(stopping: &mut watch::Receiver<bool>) {
    // The error says that nobody is left to say it: stop as well.
    let _ = stopping.wait_for(|stop| *stop).await.map(|_| ());
}

/// What every request needs, behind one pointer.
struct Door {
    app: Arc<App>,
    router: Router,
}

async fn answer(door: &Door, request: Request<Incoming>) -> Response {
    if request.method() == Method::POST
        && let Some(sale) = sale_of_orders_path(request.uri().path())
    {
        let sale = sale.to_owned();
        return orders::place(&door.app, &sale, request).await.map(axum::body::Body::new);
    }
    door.router.clone().oneshot(request).await.unwrap_or_else(|never| match never {})
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
        .route("/v1/sales/{sale}/audit", get(sales::audit))
        .route("/v1/sales/{sale}/records", get(sales::records))
        .route("/v1/orders/{gid}", get(show_order))
        .route("/api/metrics", get(show_metrics))
        .route("/api/{*path}", any(dtm::answer))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(show_metrics))
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

/// Ready: Redis answers and has the scripts. A database that is away does not stop the selling.
async fn ready(State(app): State<Arc<App>>) -> Response {
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
    fn the_hot_route_is_told_from_all_others() {
        assert_eq!(sale_of_orders_path("/v1/sales/nov22/orders"), Some("nov22"));
        for path in ["/v1/sales/nov22", "/v1/sales/a/b/orders", "/v1/orders/x", "/v1/sales//orders/"] {
            assert_eq!(sale_of_orders_path(path), None, "{path}");
        }
    }
}
