//! Orders: placing one (the hot path, read by `hot.rs` or by hyper), and asking what became of one.

use super::problem::{self, Problem};
use super::wire::{OrderView, PlaceOrder, time};
use super::{App, Settings};
use crate::domain::ids::{Gid, IdempotencyKey};
use crate::domain::order::{Order, Record, Status};
use crate::domain::reservation::{State, Telling};
use crate::domain::trace::TraceContext;
use crate::driver::now_ms;
use crate::sale::admission::{Answer, Asked};
use crate::sale::open::Open;
use crate::sale::route::Placed;
use crate::sale::turns::{TooMany, Turn};
use crate::sale::waiters::Ended;
use crate::sale::{Part, Refusal};
use crate::store;
use crate::store::orders::{Address, Entry, status_of};
use crate::telemetry::trace;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// `POST /v1/sales/{sale}/orders[?wait_ms=]`
pub async fn place(app: &Arc<App>, sale: &str, request: Request<Incoming>) -> Response<Full<Bytes>> {
    match try_place(app, sale, request).await {
        Ok(response) => response,
        Err(problem) => problem.response(),
    }
}

async fn try_place(app: &Arc<App>, sale: &str, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Problem> {
    let (head, body) = request.into_parts();
    let header = |name| head.headers.get(name).map(HeaderValue::as_bytes);
    let head = Head {
        query: head.uri.query(),
        key: header(IDEMPOTENCY_KEY),
        traceparent: header(TRACEPARENT),
        tracestate: header(TRACESTATE),
    };
    let body = read_body(body, &app.settings).await?;
    let (open, order, wait) = read(app, sale, head, &body).await?;
    drop(body); // a part of the connection's read buffer, which can be used again
    let turn = turn(&open, &order).await?;
    // hyper drops a request whose caller went away. Once it is on its way to Redis nothing may forget that it is: a repeat
    // of it would be decided first.
    let app = app.clone();
    let decided = tokio::spawn(async move { try_decide(&app, &open, order, wait, turn).await });
    decided.await.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
}

/// What an order request says beside its body.
pub struct Head<'a> {
    pub query: Option<&'a str>,
    pub key: Option<&'a [u8]>,
    pub traceparent: Option<&'a [u8]>,
    pub tracestate: Option<&'a [u8]>,
}

/// The sale, the order, and how long its caller wants to wait for its end.
pub type Read = (Arc<Open>, Order, Duration);

/// Reads an order request.
pub async fn read(app: &App, sale: &str, head: Head<'_>, body: &[u8]) -> Result<Read, Problem> {
    let open = match app.node.opened(sale) {
        Some(open) => open,
        None => Box::pin(super::sales::open(app, sale)).await?,
    };
    let wait = wait_of(app, head.query)?;
    let trace = head.traceparent.and_then(|parent| TraceContext::read(parent, head.tracestate));
    let order = order_of(&open, parse(body)?, head.key, trace)?;
    Ok((open, order, wait))
}

/// The order that is asked for, once it is known that this sale can decide about it.
pub fn order_of(
    open: &Open,
    asked: PlaceOrder<'_>,
    key: Option<&[u8]>,
    trace: Option<TraceContext>,
) -> Result<Order, Problem> {
    let key = key.map(read_key).transpose()?;
    let order = asked.into_order(key, trace)?;
    if open.sale.by_moves {
        // A key that the sale has a limit by must be named: without it the limit would be none.
        let (none, terms) = (BTreeMap::new(), &open.sale.stored.load().settings.terms);
        terms.counted(order.buyer.as_str(), order.limits_by.as_deref().unwrap_or(&none), &order.items)?;
    }
    Ok(order)
}

/// The order's turn among the requests with its key.
pub async fn turn(open: &Open, order: &Order) -> Result<Turn, Problem> {
    open.turns.take(order.key.as_ref()).await.map_err(|TooMany| Refusal::QueueFull.into())
}

/// Has the order decided, and answers.
pub async fn decide(app: &App, open: &Open, order: Order, wait: Duration, turn: Turn) -> Response<Full<Bytes>> {
    match try_decide(app, open, order, wait, turn).await {
        Ok(response) => response,
        Err(problem) => problem.response(),
    }
}

async fn try_decide(
    app: &App,
    open: &Open,
    order: Order,
    wait: Duration,
    turn: Turn,
) -> Result<Response<Full<Bytes>>, Problem> {
    // Written before the order goes its way: cheaper than keeping a copy of its items.
    let items = serde_json::to_string(&order.items).expect("items are plain data");
    match outcome(app, open, order, Wait { most: wait, latest: None }, turn).await? {
        Outcome::Refused(refusal) => Ok(refused(open, refusal)),
        Outcome::Placed { gid, replayed, ended } => answer(&gid, &items, replayed, ended),
    }
}

/// What became of an order request.
pub enum Outcome {
    Refused(Refusal),
    Placed {
        gid: Gid,
        /// An earlier request with its key placed it.
        replayed: bool,
        /// Its end, if that came while it was waited for.
        ended: Option<Ended>,
    },
}

/// How long a caller waits for the end of an order.
#[derive(Debug, Clone, Copy)]
pub struct Wait {
    /// From when it was decided.
    pub most: Duration,
    /// And never longer than this.
    pub latest: Option<Instant>,
}

/// Has the order decided, and waits for its end as long as is asked. Every door comes here.
pub async fn outcome(app: &App, open: &Open, mut order: Order, wait: Wait, turn: Turn) -> Result<Outcome, Problem> {
    let Some(mut span) = trace::begin("place order", trace::Kind::Server, order.trace.as_deref()) else {
        return decided(app, open, order, wait, turn).await;
    };
    span.set("rushline.sale", open.sale.name.as_str());
    order.trace = Some(Box::new(span.context()));
    let came = decided(app, open, order, wait, turn).await;
    match &came {
        Ok(Outcome::Refused(refusal)) => span.set("rushline.outcome", refusal.code()),
        Ok(Outcome::Placed { gid, replayed, .. }) => {
            span.set("rushline.outcome", if *replayed { "replayed" } else { "admitted" });
            span.set("rushline.gid", gid.to_string());
        }
        Err(problem) => {
            span.set("http.response.status_code", u64::from(problem.status.as_u16()));
            if problem.status.is_server_error() {
                span.fail("server error");
            }
        }
    }
    came
}

async fn decided(app: &App, open: &Open, order: Order, wait: Wait, turn: Turn) -> Result<Outcome, Problem> {
    let place = app.node.refusals.place(&open.sale.name, order.buyer.as_str(), now_ms());
    let refuse = |refusal| {
        app.node.refusals.note(place, refusal, now_ms());
        Ok(Outcome::Refused(refusal))
    };
    let (part, asked) = match app.node.place(open, order, turn, !wait.most.is_zero()).await? {
        Placed::Refused(refusal) => return refuse(refusal),
        Placed::Asked(part, asked) => (part, asked),
    };
    match asked.answer {
        Answer::Refused(refusal) => refuse(refusal),
        Answer::Admitted { address, replayed } => {
            let gid = part.gid(address);
            // In a box, as the opening of a sale above: rare, and large enough to be felt wherever it is only carried along.
            let ended = match wait.most.is_zero() {
                true => None,
                false => Box::pin(wait_for_end(app, &part, &gid, asked, wait)).await?,
            };
            Ok(Outcome::Placed { gid, replayed, ended })
        }
    }
}

/// A refusal, with what this sale knows about when to come back.
fn refused(open: &Open, refusal: Refusal) -> Response<Full<Bytes>> {
    let mut response = problem::refusal_response(refusal);
    if refusal == Refusal::NotOpen {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(opens_in_s(open)));
    }
    response
}

/// In how many seconds a sale that is not open opens, at least one.
pub fn opens_in_s(open: &Open) -> u64 {
    let opens_ms = open.sale.stored.load().settings.window.opens_ms.unwrap_or_default();
    opens_ms.saturating_sub(now_ms()).div_ceil(1000).max(1)
}

fn answer(gid: &Gid, items: &str, replayed: bool, ended: Option<Ended>) -> Result<Response<Full<Bytes>>, Problem> {
    let status = ended.as_ref().map_or(Status::Submitted, |ended| ended.status);
    if status == Status::Failed {
        return Err(order_refused(gid, ended.and_then(|ended| ended.message)));
    }
    // Neither a gid nor a status has anything to escape.
    let body = [r#"{"gid":""#, &gid.text(), r#"","status":""#, status.as_str(), r#"","items":"#, items, "}"].concat();
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::CREATED;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if replayed {
        response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// The order service said no while somebody waited for it.
pub fn order_refused(gid: &Gid, message: Option<String>) -> Problem {
    let message = message.unwrap_or_default();
    Problem::new(
        StatusCode::CONFLICT,
        "order_refused",
        format!("the order service refused order {gid}; its units went back: {message}"),
    )
}

/// `wait_ms` of a query, cut to the longest that is granted.
pub fn wait_of(app: &App, query: Option<&str>) -> Result<Duration, Problem> {
    let mut wait = Duration::ZERO;
    for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        if name == "wait_ms" {
            let ms: u64 = value.parse().map_err(|_| {
                Problem::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "invalid_order",
                    format!("wait_ms: must be a number of milliseconds, got `{value}`"),
                )
                .field("wait_ms")
            })?;
            wait = Duration::from_millis(ms).min(app.settings.wait_max);
        }
    }
    Ok(wait)
}

fn read_key(value: &[u8]) -> Result<IdempotencyKey, Problem> {
    let visible = value.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
    let text = std::str::from_utf8(value).ok().filter(|_| visible).ok_or_else(|| {
        let name = IDEMPOTENCY_KEY;
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_order", format!("{name}: must be visible ASCII"))
            .field(name.as_str())
    })?;
    Ok(IdempotencyKey::parse(text)?)
}

async fn read_body(body: Incoming, settings: &Settings) -> Result<Bytes, Problem> {
    let bytes_max = settings.body_bytes_max;
    let too_large = || {
        Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            format!("a body has at most {bytes_max} bytes (setting http.body_bytes_max); nothing was taken"),
        )
    };
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large()); // as announced: no need to read it first
    }
    // A body that trickles in holds a connection as well as a head does.
    match tokio::time::timeout(settings.header_timeout, Limited::new(body, bytes_max).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "body_broken",
            format!("the body broke off: {error}; nothing was taken"),
        )),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "body_too_slow",
            "the body did not come within the time for it (setting http.header_timeout_ms); nothing was taken",
        )),
    }
}

fn parse(body: &[u8]) -> Result<PlaceOrder<'_>, Problem> {
    super::json::parse(body, "invalid_order")
}

/// Waits until the order ends, or the time is up: then `None`.
async fn wait_for_end(app: &App, part: &Part, gid: &Gid, asked: Asked, wait: Wait) -> Result<Option<Ended>, Problem> {
    let most = Instant::now() + wait.most;
    let deadline = wait.latest.map_or(most, |latest| latest.min(most));
    match asked.ended {
        // This node delivers it: its end is told here first.
        Some(told) => tokio::select! {
            told = told => match told {
                Ok(ended) => Ok(Some(ended)),
                Err(_) => follow(app, part, gid, deadline).await,
            },
            () = out_of_patience(app, deadline) => {
                part.waiters.give_up(address_of(gid));
                Ok(None)
            }
        },
        None => follow(app, part, gid, deadline).await,
    }
}

/// The time is up, or the server stops: its answer must be out before it ends, and the order goes on elsewhere.
async fn out_of_patience(app: &App, deadline: Instant) {
    let mut stopping = app.stopping.clone();
    let stopped = async {
        let _ = stopping.wait_for(|stop| *stop).await.map(|_| ()); // the error says the same
        tokio::time::sleep(app.settings.wait_when_stopping).await;
    };
    tokio::select! {
        () = tokio::time::sleep_until(deadline) => {}
        () = stopped => {}
    }
}

/// Follows an order that may be anywhere: on this node, on another, in the records.
async fn follow(app: &App, part: &Part, gid: &Gid, deadline: Instant) -> Result<Option<Ended>, Problem> {
    let address = address_of(gid);
    loop {
        let told: oneshot::Receiver<Ended> = part.waiters.wait_for(address);
        if let Some(view) = look_up(app, gid).await?
            && view.status != Status::Submitted
        {
            part.waiters.give_up(address);
            return Ok(Some(Ended { status: view.status, message: view.last_error }));
        }
        let changed = part.watch.changed(address, Status::Submitted);
        tokio::select! {
            Ok(ended) = told => return Ok(Some(ended)),
            _ = changed => {}
            () = out_of_patience(app, deadline) => {
                part.waiters.give_up(address);
                return Ok(None);
            }
        }
        part.waiters.give_up(address);
    }
}

fn address_of(gid: &Gid) -> Address {
    Address { entry: gid.entry, index: gid.index }
}

/// `GET /v1/orders/{gid}[?wait_ms=]`
pub async fn show(app: &Arc<App>, gid: &str, query: Option<&str>) -> Result<OrderView, Problem> {
    let wait = wait_of(app, query)?;
    show_after(app, gid, wait).await
}

/// How an order stands; one that is only submitted is waited for.
pub async fn show_after(app: &App, gid: &str, wait: Duration) -> Result<OrderView, Problem> {
    let unknown = || Problem::unknown_order(gid);
    let parsed: Gid = gid.parse().map_err(|_| unknown())?;
    let view = look_up(app, &parsed).await?.ok_or_else(unknown)?;
    if wait.is_zero() || view.status != Status::Submitted {
        return Ok(view);
    }
    if let Some(open) = app.node.open(&parsed.sale).await?
        && let Some(part) = open.part(parsed.partition)
    {
        follow(app, &part, &parsed, Instant::now() + wait).await?;
    }
    look_up(app, &parsed).await?.ok_or_else(unknown)
}

/// An order by its address: from Redis while it is there, from the records after.
pub async fn look_up(app: &App, gid: &Gid) -> Result<Option<OrderView>, Problem> {
    if let Some(open) = app.node.open(&gid.sale).await?
        && let Some(part) = open.part(gid.partition)
        && let Some(view) = in_redis(app, &part, gid).await?
    {
        return Ok(Some(view));
    }
    // What is no longer in Redis was in the records before it left.
    let sink = app.records.sink().await.map_err(|error| Problem::records_away(&error))?;
    let record = sink.read(gid).await.map_err(|error| Problem::records_away(&error))?;
    let Some(mut view) = record.map(view_of_record) else {
        // It may be one that Redis has lost, and that is about to be brought back.
        if let Some(open) = app.node.opened(gid.sale.as_str())
            && let Some(part) = open.part(gid.partition)
            && let Some(fence) = app.node.redis.fence(&part.keys)
        {
            return Err(Problem::from(store::Error::Fenced(fence)));
        }
        return Ok(None);
    };
    // Redis has it first; the records are told a little later.
    if view.status == Status::Succeed
        && let Some(open) = app.node.open(&gid.sale).await?
        && let Some(part) = open.part(gid.partition)
    {
        view.returned = app.node.redis.returns(&part.keys, &[address_of(gid)]).await?.pop().unwrap_or_default();
    }
    Ok(Some(view))
}

async fn in_redis(app: &App, part: &Part, gid: &Gid) -> Result<Option<OrderView>, Problem> {
    let entries = app.node.redis.entries(&part.keys, &[gid.entry]).await?;
    let Some(entry) = entries.into_iter().next() else { return Ok(None) };
    let views = view_in_redis(app, part, &entry, std::slice::from_ref(gid)).await?;
    Ok(views.into_iter().next().map(|(_, view)| view))
}

/// These orders of one batch, as Redis has them; those that it has not are left out.
pub async fn view_in_redis(
    app: &App,
    part: &Part,
    entry: &Entry,
    gids: &[Gid],
) -> Result<Vec<(Gid, OrderView)>, Problem> {
    if gids.is_empty() {
        return Ok(Vec::new());
    }
    let (redis, keys) = (&app.node.redis, &part.keys);
    let addresses: Vec<Address> = gids.iter().map(address_of).collect();
    let details = redis.details(keys, &addresses).await?;
    let mut extras = match part.reserve_ms {
        Some(_) => redis.reservation_extras(keys, &addresses).await?,
        None => Vec::new(),
    };
    extras.resize_with(gids.len(), Default::default);
    let returned = redis.returns(keys, &addresses).await?;
    let mut views = Vec::with_capacity(gids.len());
    for (((gid, (detail, _)), (extended_ms, confirmed)), returned) in gids.iter().zip(details).zip(extras).zip(returned)
    {
        let at = usize::from(gid.index);
        let (Some(code), Some(frame)) = (entry.outcome.as_bytes().get(at).copied(), entry.frames.get(at)) else {
            continue;
        };
        let status = status_of(code);
        let state = State::of_code(code).filter(|_| part.reserve_ms.is_some());
        let order = Order::from(frame.clone());
        let view = OrderView {
            gid: gid.to_string(),
            sale: gid.sale.to_string(),
            buyer: order.buyer.to_string(),
            status,
            items: order.items,
            payload: order.payload,
            attempts: detail.as_ref().map_or(u32::from(status != Status::Submitted), |detail| detail.attempts),
            attention: status == Status::Submitted
                && detail.as_ref().is_some_and(|detail| detail.attempts >= part.limits.attention_after),
            last_error: detail.and_then(|detail| detail.message).filter(|_| status != Status::Succeed),
            admitted_at: time(Some(gid.entry.ms)),
            finished_at: None,
            reserved_until: state
                .filter(|state| state.is_open())
                .and_then(|_| time(Some(extended_ms.unwrap_or(gid.entry.ms + part.reserve_ms.unwrap_or_default())))),
            confirmed,
            returned,
            end_told: state.and_then(|state| match state {
                State::Ended(_, telling) => Some(telling == Telling::Done),
                _ => None,
            }),
        };
        views.push((gid.clone(), view));
    }
    Ok(views)
}

pub fn view_of_record(record: Record) -> OrderView {
    OrderView {
        gid: record.gid.to_string(),
        sale: record.gid.sale.to_string(),
        buyer: record.buyer.to_string(),
        status: record.status,
        items: record.items,
        payload: RawValue::from_string(record.payload).ok().filter(|payload| payload.get() != "null"),
        attempts: record.attempts,
        attention: false,
        last_error: record.reason,
        admitted_at: time(Some(record.admitted_ms)),
        finished_at: time(Some(record.finished_ms)),
        reserved_until: None,
        confirmed: None,
        returned: record.returned,
        end_told: None,
    }
}
