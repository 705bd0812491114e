//! The bench's order service: in memory, as quick as hyper is, and strict in its books.
//!
//! It counts every call and every gid that came more than once; asked to record, it keeps every call for the oracle
//! (`GET /calls`), in a file too if it may be killed, and it can refuse, lose replies and be slow ([`Habits`]). `POST /hold` lets calls hang until `POST /release`, so
//! that admission can be measured alone and orders in flight can be weighed. Below `/branches/` it serves the branches of
//! global transactions ([`Branches`]).

mod calls;

pub use calls::{Habits, fetch, now_unix_us};

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::branches::Branches;
use crate::floor::{self, Cut, json_bytes, serve};
use crate::ledger::{Called, Item as CalledItem, ServiceAnswer};
use calls::Calls;

/// Gids in one page of a listing.
const PAGE_MAX: usize = 10_000;

/// Serves for ever. Prints `listening on ADDR` first.
pub async fn run(listen: SocketAddr, habits: Habits) -> anyhow::Result<()> {
    let listener = floor::open(listen)?;
    println!("listening on {}", listener.local_addr()?);
    serve_on(listener, habits).await
}

/// Serves on `listener`, inside the calling process.
pub async fn serve_on(listener: TcpListener, habits: Habits) -> anyhow::Result<()> {
    let sink: &'static Sink = Box::leak(Box::new(Sink::open(habits)?));
    serve(listener, move |request| sink.answer(request)).await
}

#[derive(Default)]
struct Sink {
    branches: Mutex<Branches>,
    /// A std mutex: held for a few map operations, never across an await.
    sales: Mutex<HashMap<String, Sale>>,
    held: watch::Sender<bool>,
    habits: Habits,
    calls: Mutex<Calls>,
}

#[derive(Default)]
struct Sale {
    gids: HashSet<Box<str>>,
    refused: HashSet<Box<str>>,
    /// What was ordered to be confirmed later: a confirm may take a part of it.
    tried: HashMap<Box<str>, Vec<(Box<str>, u64)>>,
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
    #[serde(borrow, default)]
    buyer: Cow<'a, str>,
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
    /// As it was left, if it keeps a journal.
    fn open(habits: Habits) -> anyhow::Result<Self> {
        let calls = habits.journal.as_deref().map(Calls::open).transpose()?.unwrap_or_default();
        let mut sales = HashMap::<String, Sale>::new();
        for call in calls.all() {
            let items = call.items.iter().map(|item| Item { sku: (&*item.sku).into(), quantity: item.quantity.into() });
            let order = Order {
                gid: (&*call.gid).into(),
                buyer: (&*call.buyer).into(),
                sale: (&*call.sale).into(),
                items: items.collect(),
            };
            sales.entry(call.sale.clone()).or_default().apply(&call.op, &order, &habits);
        }
        Ok(Self { habits, sales: sales.into(), calls: calls.into(), ..Self::default() })
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let query = head.uri.query().unwrap_or_default();
        if let Some(path) = head.uri.path().strip_prefix("/branches/") {
            return self.branch(path, query, body).await;
        }
        match (&head.method, head.uri.path()) {
            (&Method::POST, "/orders") => match body.collect().await {
                Ok(body) => self.order(parameter(query, "op").unwrap_or("action"), &body.to_bytes()).await,
                Err(error) => message(400, &error.to_string()),
            },
            // dtm takes no status but 200 for a yes.
            (&Method::POST, "/dtm/orders") => match body.collect().await {
                Ok(body) => {
                    let mut answer = self.order("action", &body.to_bytes()).await;
                    if answer.status() == StatusCode::CREATED {
                        *answer.status_mut() = StatusCode::OK;
                    }
                    answer
                }
                Err(error) => message(400, &error.to_string()),
            },
            (&Method::POST, "/hold") => self.hold(true),
            (&Method::POST, "/release") => self.hold(false),
            (&Method::GET, "/count") => self.count(parameter(query, "sale").unwrap_or_default()),
            (&Method::GET, "/gids") => self.gids(query),
            (&Method::GET, "/calls") => self.page(query),
            _ => message(404, "POST /orders /hold /release, GET /count /gids /calls"),
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

    async fn order(&self, op: &str, body: &[u8]) -> Response<Full<Bytes>> {
        let at_us = if self.habits.record || self.habits.journal.is_some() { now_unix_us() } else { 0 };
        if self.habits.delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(self.habits.delay_ms)).await;
        }
        self.released().await;
        if let Ok(order) = serde_json::from_slice::<Order>(body) {
            let [answer] = self.note(at_us, op, std::slice::from_ref(&order))[..] else {
                return message(400, "no order");
            };
            return match answer {
                ServiceAnswer::Made => json_bytes(201, Bytes::from_static(b"{\"result\":\"SUCCESS\"}")),
                ServiceAnswer::Again => json_bytes(200, Bytes::from_static(b"{\"result\":\"SUCCESS\"}")),
                ServiceAnswer::Refused => json(409, &json!({"message": "refused by habit"})),
                ServiceAnswer::Lost => cut(),
                ServiceAnswer::NotNow => message(503, "not now"),
            };
        }
        match serde_json::from_slice::<Bulk>(body) {
            Ok(bulk) => {
                let answers = self.note(at_us, op, &bulk.orders);
                if answers.contains(&ServiceAnswer::Lost) {
                    return cut();
                }
                let word = |answer: &ServiceAnswer| match answer {
                    ServiceAnswer::Refused => "FAILURE",
                    _ => "SUCCESS",
                };
                let results: Vec<_> = (bulk.orders.iter().zip(&answers))
                    .map(|(order, answer)| BulkResult { gid: &order.gid, result: word(answer) })
                    .collect();
                json(200, &json!({ "results": results }))
            }
            Err(error) => message(400, &error.to_string()),
        }
    }

    /// Notes the orders of one call, all of one sale, and says what becomes of each.
    fn note(&self, at_us: u64, op: &str, orders: &[Order]) -> Vec<ServiceAnswer> {
        let Some(first) = orders.first() else { return Vec::new() };
        let mut sales = self.sales.lock().expect("no panic while locked");
        if !sales.contains_key(&*first.sale) {
            sales.insert(first.sale.to_string(), Sale::default());
        }
        let sale = sales.get_mut(&*first.sale).expect("inserted above");
        sale.calls += 1;
        let answers: Vec<_> = orders.iter().map(|order| sale.apply(op, order, &self.habits)).collect();
        if self.habits.record || self.habits.journal.is_some() {
            // Before the lock is given back: the list is in the order in which things happened.
            self.record(at_us, op, orders, &answers);
        }
        answers
    }

    fn record(&self, at_us: u64, op: &str, orders: &[Order], answers: &[ServiceAnswer]) {
        let answered_us = now_unix_us();
        let mut calls = self.calls.lock().expect("no panic while locked");
        for (order, answer) in orders.iter().zip(answers) {
            let item = |item: &Item<'_>| CalledItem {
                sku: item.sku.to_string(),
                quantity: u32::try_from(item.quantity).unwrap_or(u32::MAX),
            };
            calls.note(Called {
                at_us,
                answered_us,
                gid: order.gid.to_string(),
                sale: order.sale.to_string(),
                buyer: order.buyer.to_string(),
                items: order.items.iter().map(item).collect(),
                op: op.into(),
                answer: *answer,
            });
        }
    }

    fn page(&self, query: &str) -> Response<Full<Bytes>> {
        let number = |name| parameter(query, name).and_then(|text| text.parse().ok());
        let calls = self.calls.lock().expect("no panic while locked");
        json(200, &calls.page(number("from").unwrap_or(0), number("limit").unwrap_or(calls::PAGE_MAX)))
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

impl Sale {
    fn apply(&mut self, op: &str, order: &Order, habits: &Habits) -> ServiceAnswer {
        match op {
            "cancel" => self.take_back(order),
            "confirm" => self.confirm(order),
            "action" | "try" => self.make(order, op == "try", habits),
            _ => ServiceAnswer::Made,
        }
    }

    /// Makes an order once, by habit.
    fn make(&mut self, order: &Order, tried: bool, habits: &Habits) -> ServiceAnswer {
        if self.gids.contains(&*order.gid) {
            self.doubles += 1;
            return ServiceAnswer::Again;
        }
        let answer =
            if self.refused.contains(&*order.gid) { ServiceAnswer::Refused } else { habits.answer(&order.gid) };
        if answer == ServiceAnswer::Refused {
            self.refused.insert(order.gid.as_ref().into());
            return answer;
        }
        self.sorted = None;
        self.gids.insert(order.gid.as_ref().into());
        if tried {
            let items = order.items.iter().map(|item| (item.sku.as_ref().into(), item.quantity)).collect();
            self.tried.insert(order.gid.as_ref().into(), items);
        }
        for item in &order.items {
            match self.units.get_mut(&*item.sku) {
                Some(units) => *units += item.quantity,
                None => _ = self.units.insert(item.sku.to_string(), item.quantity),
            }
        }
        answer
    }

    /// Keeps what was paid of an order, and gives the rest back.
    fn confirm(&mut self, order: &Order) -> ServiceAnswer {
        let Some(tried) = self.tried.remove(&*order.gid) else { return ServiceAnswer::Again };
        let paid = |sku: &str| order.items.iter().filter(|item| item.sku == sku).map(|item| item.quantity).sum::<u64>();
        for (sku, quantity) in tried {
            self.give_back(&sku, quantity.saturating_sub(paid(&sku)));
        }
        ServiceAnswer::Made
    }

    /// Ends an order that was made. One that never was is barred from being made later.
    fn take_back(&mut self, order: &Order) -> ServiceAnswer {
        self.sorted = None;
        self.tried.remove(&*order.gid);
        self.refused.insert(order.gid.as_ref().into());
        if !self.gids.remove(&*order.gid) {
            return ServiceAnswer::Again;
        }
        for item in &order.items {
            self.give_back(&item.sku, item.quantity);
        }
        ServiceAnswer::Made
    }

    fn give_back(&mut self, sku: &str, quantity: u64) {
        if let Some(units) = self.units.get_mut(sku) {
            *units = units.saturating_sub(quantity);
        }
    }
}

/// No answer: the connection is cut.
fn cut() -> Response<Full<Bytes>> {
    let mut answer = json_bytes(200, Bytes::new());
    answer.extensions_mut().insert(Cut);
    answer
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
#[path = "sink_service/tests.rs"]
mod tests;
