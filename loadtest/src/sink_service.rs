//! The bench's order service: in memory, as quick as hyper is, and strict in its books.
//!
//! It counts every call and every gid that came more than once. `POST /hold` lets calls hang until `POST /release`, so
//! that admission can be measured alone and orders in flight can be weighed. Below `/branches/` it serves the branches of
//! global transactions ([`Branches`]).

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Mutex;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::branches::Branches;
use crate::floor::{json_bytes, serve};

/// Gids in one page of a listing.
const PAGE_MAX: usize = 10_000;

/// Serves for ever. Prints `listening on ADDR` first.
pub async fn run(listen: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    println!("listening on {}", listener.local_addr()?);
    serve_on(listener).await
}

async fn serve_on(listener: TcpListener) -> anyhow::Result<()> {
    let sink: &'static Sink = Box::leak(Box::default());
    serve(listener, move |request| sink.answer(request)).await
}

#[derive(Default)]
struct Sink {
    branches: Mutex<Branches>,
    /// A std mutex: held for a few map operations, never across an await.
    sales: Mutex<HashMap<String, Sale>>,
    held: watch::Sender<bool>,
}

#[derive(Default)]
struct Sale {
    gids: HashSet<Box<str>>,
    /// `gids` in byte order, made when a listing asks and forgotten when an order comes.
    sorted: Option<Vec<Box<str>>>,
    units: BTreeMap<String, u64>,
    /// HTTP calls, bulk or single.
    calls: u64,
    /// Orders that came again.
    doubles: u64,
}

#[derive(Deserialize)]
struct Order<'a> {
    #[serde(borrow)]
    gid: Cow<'a, str>,
    #[serde(borrow)]
    sale: Cow<'a, str>,
    #[serde(borrow)]
    items: Vec<Item<'a>>,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow)]
    sku: Cow<'a, str>,
    quantity: u64,
}

#[derive(Deserialize)]
struct Bulk<'a> {
    #[serde(borrow)]
    orders: Vec<Order<'a>>,
}

#[derive(Serialize)]
struct BulkResult<'a> {
    gid: &'a str,
    result: &'static str,
}

impl Sink {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let query = head.uri.query().unwrap_or_default();
        if let Some(path) = head.uri.path().strip_prefix("/branches/") {
            return self.branch(path, query, body).await;
        }
        match (&head.method, head.uri.path()) {
            (&Method::POST, "/orders") => match body.collect().await {
                Ok(body) => self.order(&body.to_bytes()).await,
                Err(error) => message(400, &error.to_string()),
            },
            (&Method::POST, "/hold") => self.hold(true),
            (&Method::POST, "/release") => self.hold(false),
            (&Method::GET, "/count") => self.count(parameter(query, "sale").unwrap_or_default()),
            (&Method::GET, "/gids") => self.gids(query),
            _ => message(404, "POST /orders /hold /release, GET /count /gids"),
        }
    }

    async fn released(&self) {
        if *self.held.borrow() {
            let mut held = self.held.subscribe();
            // The sender lives as long as the process.
            let _ = held.wait_for(|held| !held).await;
        }
    }

    /// A branch call, by whatever method; or a question about all of them.
    async fn branch(&self, path: &str, query: &str, body: Incoming) -> Response<Full<Bytes>> {
        if path == "books" {
            return json(200, &self.branches.lock().expect("no panic while locked").books());
        }
        if let Err(error) = body.collect().await {
            return message(400, &error.to_string());
        }
        self.released().await;
        let named = |name| parameter(query, name).unwrap_or_default();
        let step = (named("branch_id"), named("op"));
        self.branches.lock().expect("no panic while locked").note(named("gid"), step);
        json_bytes(200, Bytes::from_static(b"{\"dtm_result\":\"SUCCESS\"}"))
    }

    async fn order(&self, body: &[u8]) -> Response<Full<Bytes>> {
        self.released().await;
        if let Ok(order) = serde_json::from_slice::<Order>(body) {
            let new = self.note(std::slice::from_ref(&order)) == 1;
            return json_bytes(if new { 201 } else { 200 }, Bytes::from_static(b"{\"result\":\"SUCCESS\"}"));
        }
        match serde_json::from_slice::<Bulk>(body) {
            Ok(bulk) => {
                self.note(&bulk.orders);
                let results: Vec<_> =
                    bulk.orders.iter().map(|order| BulkResult { gid: &order.gid, result: "SUCCESS" }).collect();
                json(200, &json!({ "results": results }))
            }
            Err(error) => message(400, &error.to_string()),
        }
    }

    /// Notes the orders of one call, all of one sale; answers how many were new.
    fn note(&self, orders: &[Order]) -> usize {
        let Some(first) = orders.first() else { return 0 };
        let mut sales = self.sales.lock().expect("no panic while locked");
        if !sales.contains_key(&*first.sale) {
            sales.insert(first.sale.to_string(), Sale::default());
        }
        let sale = sales.get_mut(&*first.sale).expect("inserted above");
        sale.calls += 1;
        sale.sorted = None;
        let mut new = 0;
        for order in orders {
            if !sale.gids.insert(order.gid.as_ref().into()) {
                sale.doubles += 1;
                continue;
            }
            new += 1;
            for item in &order.items {
                match sale.units.get_mut(&*item.sku) {
                    Some(units) => *units += item.quantity,
                    None => _ = sale.units.insert(item.sku.to_string(), item.quantity),
                }
            }
        }
        new
    }

    fn hold(&self, hold: bool) -> Response<Full<Bytes>> {
        self.held.send_replace(hold);
        json(200, &json!({ "held": hold }))
    }

    fn count(&self, sale: &str) -> Response<Full<Bytes>> {
        let sales = self.sales.lock().expect("no panic while locked");
        let empty = Sale::default();
        let sale = sales.get(sale).unwrap_or(&empty);
        json(
            200,
            &json!({"orders": sale.gids.len(), "units": sale.units, "calls": sale.calls, "doubles": sale.doubles}),
        )
    }

    fn gids(&self, query: &str) -> Response<Full<Bytes>> {
        let after = parameter(query, "after").unwrap_or_default();
        let limit = parameter(query, "limit").and_then(|text| text.parse().ok()).unwrap_or(1000).min(PAGE_MAX);
        let mut sales = self.sales.lock().expect("no panic while locked");
        let Some(sale) = sales.get_mut(parameter(query, "sale").unwrap_or_default()) else {
            return json(200, &json!({"gids": []}));
        };
        let sorted = sale.sorted.get_or_insert_with(|| {
            let mut sorted: Vec<_> = sale.gids.iter().cloned().collect();
            sorted.sort_unstable();
            sorted
        });
        let from = sorted.partition_point(|gid| **gid <= *after);
        json(200, &json!({"gids": sorted[from..].iter().take(limit).collect::<Vec<_>>()}))
    }
}

/// Sale names and gids are made of characters that a query need not escape.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

fn json(status: u16, body: &impl Serialize) -> Response<Full<Bytes>> {
    json_bytes(status, serde_json::to_vec(body).expect("these bodies have string keys only").into())
}

fn message(status: u16, text: &str) -> Response<Full<Bytes>> {
    json(status, &json!({ "message": text }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Api;
    use std::time::Duration;
    use tokio::time::timeout;

    async fn sink() -> Api {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve_on(listener));
        Api { address }
    }

    fn order(gid: &str) -> serde_json::Value {
        json!({"gid": gid, "sale": "s", "buyer": "b", "items": [{"sku": "a", "quantity": 2}], "payload": null, "admitted_at": 1})
    }

    #[tokio::test]
    async fn a_gid_that_comes_again_is_counted_as_double_and_not_as_order() {
        let sink = sink().await;
        assert_eq!(sink.call("POST", "/orders?gid=g1", Some(&order("g1"))).await.unwrap().0, 201);
        assert_eq!(sink.call("POST", "/orders?gid=g1", Some(&order("g1"))).await.unwrap().0, 200);
        let bulk = json!({"orders": [order("g1"), order("g2")]});
        let answer = sink.expect("POST", "/orders", Some(&bulk)).await.unwrap();
        assert_eq!(answer["results"][1], json!({"gid": "g2", "result": "SUCCESS"}));
        let count = sink.expect("GET", "/count?sale=s", None).await.unwrap();
        assert_eq!(count, json!({"orders": 2, "units": {"a": 4}, "calls": 3, "doubles": 2}));
    }

    #[tokio::test]
    async fn gids_are_listed_in_byte_order_page_by_page() {
        let sink = sink().await;
        for gid in ["g9", "g10", "g1"] {
            sink.expect("POST", "/orders", Some(&order(gid))).await.unwrap();
        }
        let page = async |after: &str| {
            sink.expect("GET", &format!("/gids?sale=s&after={after}&limit=2"), None).await.unwrap()["gids"].clone()
        };
        assert_eq!(page("").await, json!(["g1", "g10"]));
        assert_eq!(page("g10").await, json!(["g9"]));
        assert_eq!(page("g9").await, json!([]));
    }

    #[tokio::test]
    async fn while_held_a_call_hangs_and_after_the_release_it_is_answered() {
        let sink = sink().await;
        sink.expect("POST", "/hold", None).await.unwrap();
        let body = order("g1");
        let mut call = std::pin::pin!(sink.call("POST", "/orders", Some(&body)));
        assert!(timeout(Duration::from_millis(50), &mut call).await.is_err(), "answered while held");
        assert_eq!(sink.expect("GET", "/count?sale=s", None).await.unwrap()["orders"], 0);
        sink.expect("POST", "/release", None).await.unwrap();
        assert_eq!(call.await.unwrap().0, 201);
    }

    #[tokio::test]
    async fn a_body_that_is_no_order_is_refused() {
        assert_eq!(sink().await.call("POST", "/orders", Some(&json!({"gid": 1}))).await.unwrap().0, 400);
    }
}
