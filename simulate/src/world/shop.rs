//! The order service: idempotent by gid, slow, moody, and sometimes without an answer. Its books are never lost.

use super::plan::Plan;
use super::shared::Shared;
use bytes::Bytes;
use fastrand::Rng;
use futures_util::future::BoxFuture;
use http::StatusCode;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

pub struct Shop {
    pub is_up: bool,
    mood: Rng,
    pub books: BTreeMap<String, Order>,
}

/// An order as the shop decided it, once.
#[derive(Debug, Clone)]
pub struct Order {
    pub made: bool,
    pub payload: String,
    pub items: Vec<(String, u32)>,
    /// `confirm` or `cancel`, once it was told.
    pub end: Option<String>,
    pub calls: u32,
    ongoing: u32,
}

impl Shop {
    pub fn new(plan: &Plan) -> Self {
        Self { is_up: true, mood: Rng::with_seed(plan.seed ^ 0x0073_686f), books: BTreeMap::new() }
    }

    fn is_so(&mut self, hundredths: u32) -> bool {
        self.mood.u32(0..100) < hundredths
    }
}

/// How one call goes on the way.
struct Way {
    there: Duration,
    back: Duration,
    arrives: bool,
    answers: bool,
    again: Option<Duration>,
}

type Answer = Result<(StatusCode, Bytes), String>;

/// A call on its way; it goes on when whoever called has died.
pub fn call(shared: Arc<Shared>, who: String, query: String, body: Vec<u8>) -> BoxFuture<'static, Answer> {
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let orders = match body.get("orders") {
        Some(serde_json::Value::Array(orders)) => orders.clone(),
        _ => vec![body.clone()],
    };
    let is_bulk = body.get("orders").is_some();
    let op = query.rsplit_once("op=").map_or("", |(_, op)| op).to_owned();
    for order in &orders {
        look_at_call(&shared, &who, &op, gid_of(order));
    }
    let way = {
        let mut state = shared.lock();
        let (calm, plan) = (state.calm, &shared.plan.shop);
        let often = |hundredths| if calm { 0 } else { hundredths };
        let (is_up, shop) = (state.shop.is_up, &mut state.shop);
        Way {
            there: Duration::from_millis(if shop.is_so(often(plan.slow)) { shop.mood.u64(50..=1_500) } else { 1 }),
            back: Duration::from_millis(if shop.is_so(often(plan.slow)) { shop.mood.u64(50..=1_500) } else { 1 }),
            arrives: is_up && !shop.is_so(often(plan.breaks)),
            answers: !shop.is_so(often(plan.answer_lost)),
            again: shop.is_so(often(plan.repeated)).then(|| Duration::from_millis(shop.mood.u64(1..=1_500))),
        }
    };
    let (answer, hear) = oneshot::channel();
    tokio::spawn(async move {
        tokio::time::sleep(way.there).await;
        if !way.arrives {
            return;
        }
        let said = decide_all(&shared, &op, &orders, is_bulk);
        if way.answers {
            tokio::time::sleep(way.back).await;
            let _ = answer.send(said); // who called may have gone
        }
        if let Some(later) = way.again {
            tokio::time::sleep(later).await;
            decide_all(&shared, &op, &orders, is_bulk);
        }
    });
    Box::pin(async move { hear.await.map_err(|_| "the connection broke".to_owned()) })
}

fn gid_of(order: &serde_json::Value) -> &str {
    order["gid"].as_str().unwrap_or_default()
}

/// Nobody hears of an order before it is durable, and only from the node that holds it.
fn look_at_call(shared: &Shared, who: &str, op: &str, gid: &str) {
    shared.note(|| format!("call     {who} {op} {gid}"));
    let now = shared.now();
    let mut state = shared.lock();
    let state = &mut *state;
    state.count("calls");
    if state.calm && state.counts.get("calls").is_some_and(|calls| *calls > 20_000) {
        state.wrong("the order service is called without end".into());
    }
    let Some(order) = state.ledger.order(gid) else {
        return state.wrong(format!("{who} calls the order service for {gid}, of which Redis knows nothing"));
    };
    let (admitted, ended) = (order.admitted_write, order.ended_write);
    if !state.is_durable(&shared.plan, admitted, now) {
        state.wrong(format!("{who} calls the order service for {gid} before it is durable"));
    }
    if let (true, Some(write)) = (op == "confirm" || op == "cancel", ended)
        && !state.is_durable(&shared.plan, write, now)
    {
        state.wrong(format!("{who} tells of the end of {gid} before that is durable"));
    }
    if (op == "action" || op == "try")
        && !shared.plan.sets_clock()
        && let Some(holder) = state.ledger.holder(&state.server.db, gid)
        && holder != who
    {
        state.wrong(format!("{who} calls the order service for {gid}, which is {holder}'s by now"));
    }
}

fn decide_all(shared: &Shared, op: &str, orders: &[serde_json::Value], is_bulk: bool) -> (StatusCode, Bytes) {
    let words: Vec<(String, &'static str)> =
        orders.iter().map(|order| (gid_of(order).to_owned(), decide(shared, op, order))).collect();
    if is_bulk {
        let results: Vec<_> =
            words.iter().map(|(gid, word)| serde_json::json!({ "gid": gid, "result": word })).collect();
        let body = serde_json::json!({ "results": results }).to_string();
        return (StatusCode::OK, Bytes::from(body));
    }
    match words.first().map_or("", |(_, word)| word) {
        "SUCCESS" => (StatusCode::OK, Bytes::from_static(b"{}")),
        "FAILURE" => (StatusCode::CONFLICT, Bytes::from_static(b"refused")),
        "ONGOING" => (StatusCode::TOO_EARLY, Bytes::new()),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, Bytes::new()),
    }
}

fn decide(shared: &Shared, op: &str, order: &serde_json::Value) -> &'static str {
    let gid = gid_of(order).to_owned();
    let mut state = shared.lock();
    let state = &mut *state;
    let ends = op == "confirm" || op == "cancel";
    if ends {
        let Some(order) = state.shop.books.get_mut(&gid).filter(|order| order.made) else {
            state.wrong(format!("the order service is told to {op} {gid}, which it never made"));
            return "FAILURE";
        };
        match &order.end {
            Some(earlier) if earlier != op => {
                let wrong = format!("the order service was told to {earlier} {gid}, and now to {op} it");
                state.wrong(wrong);
            }
            _ => order.end = Some(op.to_owned()),
        }
        return "SUCCESS";
    }
    let plan = &shared.plan.shop;
    if !state.shop.books.contains_key(&gid) {
        // Some are refused, some are worked on for a while: what it is depends on the order alone.
        let (made, ongoing) = (!state.shop.is_so(plan.refuses), state.shop.is_so(plan.ongoing));
        let ongoing = if ongoing && !state.calm { state.shop.mood.u32(1..=4) } else { 0 };
        let items = order["items"].as_array().into_iter().flatten();
        let items = items.map(|item| {
            (item["sku"].as_str().unwrap_or_default().to_owned(), item["quantity"].as_u64().unwrap_or_default() as u32)
        });
        let new =
            Order { made, payload: order["payload"].to_string(), items: items.collect(), end: None, calls: 0, ongoing };
        state.shop.books.insert(gid.clone(), new);
    }
    let order = state.shop.books.get_mut(&gid).expect("put there above");
    order.calls += 1;
    if order.ongoing > 0 {
        order.ongoing -= 1;
        return "ONGOING";
    }
    if order.made { "SUCCESS" } else { "FAILURE" }
}
