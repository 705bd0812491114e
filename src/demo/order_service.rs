//! A small real order service: one process, one SQLite table, and all the bad habits of a real one.
//!
//! It can refuse a share of the orders, be slow, and commit an order without ever answering. What it must never do is
//! make two rows of one gid, or answer before the row is on disk.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use std::borrow::Cow;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::order_book::OrderBook;

/// A bulk call carries up to 100 orders of up to 64 KiB.
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
const REFUSAL: &str = "card declined";
/// Refusing and losing are decided by the same hash of the gid; other salts make them independent.
const SALT_REFUSE: u64 = 1;
const SALT_LOSE: u64 = 2;

/// How the service behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address to listen on; port 0 takes a free one and prints it.
    pub listen: SocketAddr,
    /// The SQLite file, made if missing.
    pub db: PathBuf,
    /// Of 100 orders, how many are refused: always the same ones, chosen by a hash of the gid.
    pub refuse_percent: u8,
    /// How long each call is kept waiting before it is looked at.
    pub delay_ms: u64,
    /// Of 100 new orders, how many are committed while the connection is cut instead of answered.
    pub lose_replies_percent: u8,
}

/// Serves until SIGTERM or SIGINT. Prints `listening on ADDR` as the first line of stdout.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let listener = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("order service cannot listen on {}", settings.listen))?;
    let book = OrderBook::open(&settings.db).await?;
    println!("listening on {}", listener.local_addr()?);
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        () = serve(listener, book, settings) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Answers every connection of `listener`, for ever.
async fn serve(listener: TcpListener, book: OrderBook, settings: Settings) {
    let shop: &'static Shop = Box::leak(Box::new(Shop { book, settings }));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, mostly: others must close first.
                tracing::warn!(error = %error, "order service could not accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        tokio::spawn(async move {
            // An error here is a connection cut by the caller, or by us on purpose.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(|request| shop.answer(request)))
                .await;
        });
    }
}

/// The answer is not sent and the connection is cut.
#[derive(Debug, thiserror::Error)]
#[error("the reply was lost on purpose")]
struct ReplyLost;

struct Shop {
    book: OrderBook,
    settings: Settings,
}

/// The fields that must be there; the row is made from the text itself.
#[derive(Deserialize)]
struct Order<'a> {
    #[serde(borrow)]
    gid: Cow<'a, str>,
    #[serde(borrow, rename = "sale")]
    _sale: Cow<'a, str>,
    #[serde(borrow, rename = "buyer")]
    _buyer: Cow<'a, str>,
    #[serde(rename = "items")]
    _items: Vec<Item<'a>>,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow, rename = "sku")]
    _sku: Cow<'a, str>,
    #[serde(rename = "quantity")]
    _quantity: u32,
}

#[derive(Deserialize)]
struct Bulk<'a> {
    #[serde(borrow)]
    orders: Vec<&'a RawValue>,
}

#[derive(Serialize)]
struct BulkResult<'a> {
    gid: &'a str,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
}

impl Shop {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, ReplyLost> {
        let (head, body) = request.into_parts();
        let query = head.uri.query().unwrap_or_default();
        let answered = match (&head.method, head.uri.path()) {
            (&Method::POST, "/orders") => match Limited::new(body, BODY_BYTES_MAX).collect().await {
                Ok(body) => self.order(&body.to_bytes()).await?,
                Err(error) => Ok(problem(StatusCode::PAYLOAD_TOO_LARGE, &error.to_string())),
            },
            (&Method::GET, "/count") => self.count(query).await,
            (&Method::GET, "/gids") => self.gids(query).await,
            _ => Ok(problem(StatusCode::NOT_FOUND, "POST /orders, GET /count or GET /gids")),
        };
        Ok(answered.unwrap_or_else(|error| problem(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error:#}"))))
    }

    /// Makes the order or the orders in `body`. The outer error cuts the connection.
    async fn order(&self, body: &[u8]) -> Result<anyhow::Result<Response<Full<Bytes>>>, ReplyLost> {
        if self.settings.delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(self.settings.delay_ms)).await;
        }
        let why_not_single = match serde_json::from_slice::<Order>(body) {
            Ok(order) => return self.order_single(&order.gid, body).await,
            Err(error) => error,
        };
        match serde_json::from_slice::<Bulk>(body) {
            Ok(bulk) => self.order_bulk(&bulk).await,
            Err(_) => Ok(Ok(problem(StatusCode::BAD_REQUEST, &why_not_single.to_string()))),
        }
    }

    async fn order_single(&self, gid: &str, body: &[u8]) -> Result<anyhow::Result<Response<Full<Bytes>>>, ReplyLost> {
        if self.refuses(gid) {
            return Ok(Ok(answer(StatusCode::CONFLICT, &json!({"dtm_result": "FAILURE", "message": REFUSAL}))));
        }
        let text = String::from_utf8_lossy(body).into_owned();
        Ok(match self.book.insert(vec![text]).await {
            Err(error) => Err(error),
            Ok(news) if news == [true] && self.loses(gid) => return Err(ReplyLost),
            Ok(news) if news == [true] => Ok(answer(StatusCode::CREATED, &json!({"gid": gid, "result": "SUCCESS"}))),
            Ok(_) => Ok(answer(StatusCode::OK, &json!({"gid": gid, "result": "SUCCESS"}))),
        })
    }

    async fn order_bulk(&self, bulk: &Bulk<'_>) -> Result<anyhow::Result<Response<Full<Bytes>>>, ReplyLost> {
        let parsed: Result<Vec<Order>, _> = bulk.orders.iter().map(|text| serde_json::from_str(text.get())).collect();
        let orders = match parsed {
            Ok(orders) => orders,
            Err(error) => return Ok(Ok(problem(StatusCode::BAD_REQUEST, &error.to_string()))),
        };
        let accepted: Vec<usize> = (0..orders.len()).filter(|&i| !self.refuses(&orders[i].gid)).collect();
        let texts = accepted.iter().map(|&i| bulk.orders[i].get().to_owned()).collect();
        let news = match self.book.insert(texts).await {
            Ok(news) => news,
            Err(error) => return Ok(Err(error)),
        };
        if accepted.iter().zip(news).any(|(&i, new)| new && self.loses(&orders[i].gid)) {
            return Err(ReplyLost);
        }
        let results: Vec<BulkResult> = orders
            .iter()
            .map(|order| match self.refuses(&order.gid) {
                true => BulkResult { gid: &order.gid, result: "FAILURE", message: Some(REFUSAL) },
                false => BulkResult { gid: &order.gid, result: "SUCCESS", message: None },
            })
            .collect();
        Ok(Ok(answer(StatusCode::OK, &json!({ "results": results }))))
    }

    async fn count(&self, query: &str) -> anyhow::Result<Response<Full<Bytes>>> {
        let Some(sale) = parameter(query, "sale") else {
            return Ok(problem(StatusCode::BAD_REQUEST, "sale: missing from the query"));
        };
        let count = self.book.count(&sale).await?;
        let units: serde_json::Map<_, _> = count.units.into_iter().map(|(sku, n)| (sku, n.into())).collect();
        Ok(answer(StatusCode::OK, &json!({"orders": count.orders, "units": units})))
    }

    async fn gids(&self, query: &str) -> anyhow::Result<Response<Full<Bytes>>> {
        let Some(sale) = parameter(query, "sale") else {
            return Ok(problem(StatusCode::BAD_REQUEST, "sale: missing from the query"));
        };
        let after = parameter(query, "after").unwrap_or_default();
        let limit = parameter(query, "limit").and_then(|text| text.parse().ok()).unwrap_or(1000);
        let gids = self.book.gids(&sale, &after, limit).await?;
        Ok(answer(StatusCode::OK, &json!({ "gids": gids })))
    }

    fn refuses(&self, gid: &str) -> bool {
        hash_percent(gid, SALT_REFUSE) < self.settings.refuse_percent
    }

    fn loses(&self, gid: &str) -> bool {
        hash_percent(gid, SALT_LOSE) < self.settings.lose_replies_percent
    }
}

fn parameter<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value)
}

fn answer(status: StatusCode, body: &impl Serialize) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(body).expect("these bodies have string keys only");
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .expect("a fixed header is valid")
}

fn problem(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    answer(status, &json!({ "message": message }))
}

/// 0 to 99, evenly, and the same for a gid at every call and after every restart.
/// FNV-1a, then the finaliser of MurmurHash3 since FNV's low bits are poor on short differences.
fn hash_percent(gid: &str, salt: u64) -> u8 {
    let fnv = gid.bytes().fold(0xcbf2_9ce4_8422_2325 ^ salt, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let mixed = (fnv ^ (fnv >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    ((mixed ^ (mixed >> 33)) % 100) as u8
}

#[cfg(test)]
#[path = "order_service_tests.rs"]
mod tests;
