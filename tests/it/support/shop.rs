//! An order service inside the test: it makes each order once, remembers every call, and behaves as badly as told.
//!
//! Its orders outlive any server that calls it: they are the truth that the stories compare with.

use super::process::free_port;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What to do with one order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Make it and say so.
    Created,
    /// For good, with a message: 409, or FAILURE in a bulk answer.
    Refused(String),
    /// 425, or ONGOING in a bulk answer.
    Ongoing,
    /// This status and body; nothing is made.
    Status(u16, String),
    /// Say nothing until [`Shop::release`]; then make it and say so, if the caller is still there.
    Hang,
    /// Make it, and say nothing until released.
    HangAfter,
    /// Cut the connection; nothing is made.
    CutBefore,
    /// Make it, and cut the connection instead of answering.
    CutAfter,
}

/// What a behaviour may decide by.
pub struct Asked<'a> {
    pub gid: &'a str,
    /// The how manieth call for this gid, from 1.
    pub attempt: usize,
    /// The order as it was sent.
    pub order: &'a Value,
    /// What the call is about: action, or try, confirm and cancel of a reservation.
    pub op: &'a str,
}

/// One order in one call.
#[derive(Debug, Clone)]
pub struct Call {
    pub gid: String,
    /// The order: the body of a single call, one of the orders of a bulk call.
    pub order: Value,
    /// The bytes of the whole body.
    pub body: Bytes,
    pub headers: HeaderMap,
    pub query: HashMap<String, String>,
    pub bulk: bool,
    pub at: Instant,
    pub outcome: Answer,
}

/// An order that was made.
#[derive(Debug, Clone)]
pub struct Made {
    pub gid: String,
    pub sale: String,
    pub buyer: String,
    /// SKU and units.
    pub items: Vec<(String, u64)>,
    /// Of a reservation: it is confirmed.
    pub paid: bool,
}

type Behaviour = Box<dyn Fn(&Asked<'_>) -> Answer + Send>;

struct State {
    behaviour: Behaviour,
    script: VecDeque<Answer>,
    calls: Vec<Call>,
    attempts: HashMap<String, usize>,
    orders: BTreeMap<String, Made>,
    given_up: BTreeSet<String>,
    /// Calls under way now, and the most there ever were at a time.
    open: usize,
    open_max: usize,
}

struct Inner {
    state: Mutex<State>,
    released: watch::Sender<u64>,
}

pub struct Shop {
    inner: Arc<Inner>,
    port: u16,
    serving: Mutex<Option<JoinHandle<()>>>,
}

impl Shop {
    /// Starts with every order created.
    pub async fn start() -> Self {
        let state = State {
            behaviour: Box::new(|_| Answer::Created),
            script: VecDeque::new(),
            calls: Vec::new(),
            attempts: HashMap::new(),
            orders: BTreeMap::new(),
            given_up: BTreeSet::new(),
            open: 0,
            open_max: 0,
        };
        let inner = Arc::new(Inner { state: Mutex::new(state), released: watch::Sender::new(0) });
        // Not one of those that the system lends out: it must be free again after [`Shop::leave`].
        let shop = Self { inner, port: free_port(), serving: Mutex::new(None) };
        shop.come_back().await;
        shop
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/orders", self.port)
    }

    /// An `order_endpoint` with this shop's three addresses.
    pub fn endpoint(&self) -> Value {
        let base = format!("http://127.0.0.1:{}", self.port);
        json!({
            "url": format!("{base}/orders"), "count_url": format!("{base}/count"), "list_url": format!("{base}/gids"),
        })
    }

    /// The same with other fields on top: `json!({"mode": "bulk", "timeout_ms": 300})`.
    pub fn endpoint_with(&self, fields: Value) -> Value {
        let mut endpoint = self.endpoint();
        endpoint.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        endpoint
    }

    /// How to answer from now on.
    pub fn behave(&self, behaviour: impl Fn(&Asked<'_>) -> Answer + Send + 'static) {
        self.state().behaviour = Box::new(behaviour);
    }

    pub fn always(&self, answer: Answer) {
        self.behave(move |_| answer.clone());
    }

    /// How to answer the next orders, one each, before the behaviour decides again.
    pub fn script(&self, answers: impl IntoIterator<Item = Answer>) {
        self.state().script.extend(answers);
    }

    /// Lets go of everything that hangs now.
    pub fn release(&self) {
        self.inner.released.send_modify(|times| *times += 1);
    }

    /// Stops listening and cuts all connections: a caller's connection is refused.
    pub fn leave(&self) {
        if let Some(serving) = self.serving.lock().unwrap().take() {
            serving.abort();
        }
    }

    /// Listens again, on the same port.
    pub async fn come_back(&self) {
        let address = ("127.0.0.1", self.port);
        let mut tries = 0;
        let listener = loop {
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                // The task that held it is on its way out.
                Err(error) => assert!(tries < 200, "{error}"),
            }
            tries += 1;
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        };
        let serving = tokio::spawn(serve(listener, self.inner.clone()));
        *self.serving.lock().unwrap() = Some(serving);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap()
    }

    /// Everything that was made, by gid.
    pub fn orders(&self) -> BTreeMap<String, Made> {
        self.state().orders.clone()
    }

    pub fn order_count(&self) -> usize {
        self.state().orders.len()
    }

    /// Units made, by SKU.
    pub fn units(&self) -> BTreeMap<String, u64> {
        units(self.state().orders.values())
    }

    /// Calls for this gid, oldest first.
    pub fn calls(&self, gid: &str) -> Vec<Call> {
        self.state().calls.iter().filter(|call| call.gid == gid).cloned().collect()
    }

    pub fn all_calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    pub fn call_count(&self) -> usize {
        self.state().calls.len()
    }

    /// Calls that came and have no answer yet.
    pub fn open_calls(&self) -> usize {
        self.state().open
    }

    pub fn open_calls_max(&self) -> usize {
        self.state().open_max
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.leave();
    }
}

fn units<'a>(orders: impl Iterator<Item = &'a Made>) -> BTreeMap<String, u64> {
    let mut units = BTreeMap::new();
    for (sku, quantity) in orders.flat_map(|order| &order.items) {
        *units.entry(sku.clone()).or_default() += quantity;
    }
    units
}

async fn serve(listener: TcpListener, inner: Arc<Inner>) {
    // Dropped with this task, and the connections with it.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let inner = inner.clone();
        connections.spawn(async move {
            let service = service_fn(|request| answer(inner.clone(), request));
            let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            let _ = serving.await; // an error is a connection cut on purpose, by either side
        });
        while connections.try_join_next().is_some() {}
    }
}

#[derive(Debug, thiserror::Error)]
#[error("cut on purpose")]
struct Cut;

/// Counts a call as open for as long as it lives, also when its caller hangs up.
struct OpenCall(Arc<Inner>);

impl OpenCall {
    fn new(inner: &Arc<Inner>) -> Self {
        let mut state = inner.state.lock().unwrap();
        state.open += 1;
        state.open_max = state.open_max.max(state.open);
        drop(state);
        Self(inner.clone())
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.0.state.lock().unwrap().open -= 1;
    }
}

async fn answer(inner: Arc<Inner>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Cut> {
    let (head, body) = request.into_parts();
    let at = Instant::now();
    let query: HashMap<String, String> =
        url::form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
    match head.uri.path() {
        "/count" => return Ok(count(&inner, &query)),
        "/gids" => return Ok(gids(&inner, &query)),
        _ => {}
    }
    let _open = OpenCall::new(&inner);
    let text: Value = serde_json::from_slice(&body).expect("rushline sends JSON");
    let bulk = text["orders"].is_array();
    let orders = if bulk { text["orders"].as_array().unwrap().clone() } else { vec![text] };
    let released = inner.released.subscribe(); // before the decision: a release right after it must not be missed
    let answers: Vec<(Value, Answer)> = {
        let mut state = inner.state.lock().unwrap();
        orders
            .into_iter()
            .map(|order| {
                let gid = order["gid"].as_str().expect("an order has a gid").to_owned();
                let attempt = state.attempts.entry(gid.clone()).or_default();
                *attempt += 1;
                let op = query.get("op").map_or("", String::as_str);
                let asked = Asked { gid: &gid, attempt: *attempt, order: &order, op };
                let outcome = match state.script.pop_front() {
                    Some(answer) => answer,
                    None => (state.behaviour)(&asked),
                };
                state.calls.push(Call {
                    gid,
                    order: order.clone(),
                    body: body.clone(),
                    headers: head.headers.clone(),
                    query: query.clone(),
                    bulk,
                    at,
                    outcome: outcome.clone(),
                });
                (order, outcome)
            })
            .collect()
    };
    carry_out(&inner, answers, query.get("op").map_or("", String::as_str), bulk, released).await
}

async fn carry_out(
    inner: &Inner,
    answers: Vec<(Value, Answer)>,
    op: &str,
    bulk: bool,
    mut released: watch::Receiver<u64>,
) -> Result<Response<Full<Bytes>>, Cut> {
    // In a bulk call the worst behaviour asked for is the whole call's.
    let any = |wanted: &Answer| answers.iter().any(|(_, answer)| answer == wanted);
    if any(&Answer::CutBefore) {
        return Err(Cut);
    }
    if any(&Answer::Hang) {
        let _ = released.changed().await;
    }
    for (order, answer) in &answers {
        if matches!(answer, Answer::Created | Answer::Hang | Answer::HangAfter | Answer::CutAfter) {
            make(inner, order, op);
        }
    }
    if any(&Answer::CutAfter) {
        return Err(Cut);
    }
    if any(&Answer::HangAfter) {
        let _ = released.changed().await;
    }
    if let Some((_, Answer::Status(status, text))) =
        answers.iter().find(|(_, answer)| matches!(answer, Answer::Status(..)))
    {
        let mut response = Response::new(Full::new(Bytes::from(text.clone())));
        *response.status_mut() = StatusCode::from_u16(*status).unwrap();
        if (300..400).contains(status) {
            // Right back here, where an order would be made: nobody may follow it.
            response.headers_mut().insert("location", http::HeaderValue::from_static("/orders"));
        }
        return Ok(response);
    }
    if bulk {
        let results: Vec<Value> = answers
            .iter()
            .map(|(order, answer)| match answer {
                Answer::Refused(message) => json!({"gid": order["gid"], "result": "FAILURE", "message": message}),
                Answer::Ongoing => json!({"gid": order["gid"], "result": "ONGOING"}),
                _ => json!({"gid": order["gid"], "result": "SUCCESS"}),
            })
            .collect();
        return Ok(respond(200, &json!({ "results": results })));
    }
    Ok(match &answers[0].1 {
        Answer::Refused(message) => respond(409, &json!({"dtm_result": "FAILURE", "message": message})),
        Answer::Ongoing => respond(425, &json!({"dtm_result": "ONGOING"})),
        _ => respond(201, &json!({"dtm_result": "SUCCESS"})),
    })
}

/// Makes the order, if its gid has none: the unique key of a real order table.
fn make(inner: &Inner, order: &Value, op: &str) {
    let text = |name: &str| order[name].as_str().unwrap_or_default().to_owned();
    let items = order["items"].as_array().expect("an order has items").iter();
    let made = Made {
        gid: text("gid"),
        sale: text("sale"),
        buyer: text("buyer"),
        items: items
            .map(|item| (item["sku"].as_str().unwrap().to_owned(), item["quantity"].as_u64().unwrap()))
            .collect(),
        paid: op == "confirm",
    };
    let mut state = inner.state.lock().unwrap();
    match op {
        "cancel" => {
            state.orders.remove(&made.gid);
            state.given_up.insert(made.gid);
        }
        "confirm" => {
            assert!(state.orders.contains_key(&made.gid), "{} is confirmed before it is made", made.gid);
            state.orders.insert(made.gid.clone(), made);
        }
        _ => {
            assert!(!state.given_up.contains(&made.gid), "{} is made after it was cancelled", made.gid);
            state.orders.entry(made.gid.clone()).or_insert(made);
        }
    }
}

fn count(inner: &Inner, query: &HashMap<String, String>) -> Response<Full<Bytes>> {
    let state = inner.state.lock().unwrap();
    let orders: Vec<&Made> = state.orders.values().filter(|order| Some(&order.sale) == query.get("sale")).collect();
    respond(200, &json!({"orders": orders.len(), "units": units(orders.into_iter())}))
}

fn gids(inner: &Inner, query: &HashMap<String, String>) -> Response<Full<Bytes>> {
    let state = inner.state.lock().unwrap();
    let after = query.get("after").cloned().unwrap_or_default();
    let limit = query.get("limit").and_then(|text| text.parse().ok()).unwrap_or(1000);
    let page: Vec<&String> = state
        .orders
        .values()
        .filter(|order| Some(&order.sale) == query.get("sale") && order.gid > after)
        .take(limit)
        .map(|order| &order.gid)
        .collect();
    if query.get("details").is_some_and(|details| details == "true") {
        let details = |order: &Made| {
            let items: BTreeMap<&String, u64> = order.items.iter().map(|(sku, units)| (sku, *units)).collect();
            json!({"gid": order.gid, "buyer": order.buyer, "items": items})
        };
        let orders: Vec<Value> = page.iter().map(|gid| details(&state.orders[*gid])).collect();
        return respond(200, &json!({ "gids": page, "orders": orders }));
    }
    respond(200, &json!({ "gids": page }))
}

fn respond(status: u16, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}
