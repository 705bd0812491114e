//! Telling: the order service hears how each reservation ended, until it has answered.
//!
//! Ends wait in a stream of their own, written by the script that decided them; its consumer group says which node tells
//! of which, as that of the intake does for deliveries. Whatever an order service answers, an end that was decided
//! stays: a refusal is a mistake over there, is told of in the log, and asked about again.

use super::Part;
use super::call::{Connection, Headers, Target};
use super::delivery::{BULK_ORDERS_MAX, Verdict, read_answer, read_bulk_answer, shorten, without_words};
use super::node::Node;
use super::reservations::{end_name, text};
use crate::crash;
use crate::domain::ids::EntryId;
use crate::domain::order::{Item, Order};
use crate::domain::reservation::{End, Move, State, Telling, confirmed_of};
use crate::domain::retry::backoff;
use crate::domain::sale::CallMode;
use crate::outside;
use crate::store::orders::Address;
use crate::store::reservations::{EndsMessage, Moved, Notes, Row, When};
use crate::store::{self};
use crate::telemetry::trace;
use crate::zoo;
use hyper::header::HeaderValue;
use metrics::counter;
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Ends held in memory at a time; beyond, they wait in Redis.
const HELD_MAX: usize = 4096;
/// Messages read at once: each has the orders of one entry.
const MESSAGES_MAX: usize = 16;
/// Orders noted as told by one script.
const NOTE_MAX: usize = 256;
/// How long orders that were told of wait for others, to be noted by the same script.
const LINGER: Duration = Duration::from_millis(10);
/// How often to look for ends that other nodes decided, and for those of nodes that went silent.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Calls without success after which the log tells of it, and then at each further as many.
const ALARM_AFTER: u32 = 5;

/// An end to be told.
struct Tell {
    message: EntryId,
    address: Address,
    end: End,
    order: Arc<Order>,
    /// What was paid of it, if not all.
    part: Option<Vec<Item>>,
    attempts: u32,
}

/// One call, ended: who asked, over which connection, what was heard.
struct Called {
    tells: Vec<Tell>,
    verdicts: Vec<Verdict>,
    connection: Connection,
    target: Arc<Target>,
}

pub struct Teller {
    node: Arc<Node>,
    sale: Arc<Part>,
    target: Option<Arc<Target>>,
    /// Messages of this node, and how many of their orders are still to be told of or noted.
    messages: HashMap<EntryId, usize>,
    ready: VecDeque<Tell>,
    /// By when they are due; the number tells apart what is due at the same moment.
    later: BTreeMap<(Instant, u64), Tell>,
    next_later: u64,
    told: Vec<Tell>,
    calls: JoinSet<Called>,
    connections: Vec<Connection>,
    looked: Instant,
    kept: Instant,
}

impl Teller {
    pub fn new(node: Arc<Node>, sale: Arc<Part>) -> Self {
        let now = Instant::now();
        Self {
            node,
            sale,
            target: None,
            messages: HashMap::new(),
            ready: VecDeque::new(),
            later: BTreeMap::new(),
            next_later: 0,
            told: Vec::new(),
            calls: JoinSet::new(),
            connections: Vec::new(),
            looked: now,
            kept: now,
        }
    }

    /// Tells until the server ends.
    pub async fn run(mut self) {
        while let Err(error) = self.node.redis.ensure_telling(&self.sale.keys).await {
            tracing::debug!(sale = %self.sale.name, %error, "ends of reservations wait for Redis");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let ends = self.sale.ends.clone();
        let mut look = true;
        loop {
            self.follow_endpoint();
            if look || self.looked.elapsed() >= LOOK_EVERY {
                look = false;
                if let Err(error) = self.fetch().await {
                    tracing::debug!(sale = %self.sale.name, %error, "ends of reservations are not read");
                }
            }
            self.start_calls();
            let wake = self.wake_at();
            tokio::select! {
                biased; // whichever comes first, all that there is to do is done below
                Some(called) = self.calls.join_next(), if !self.calls.is_empty() => {
                    if let Ok(called) = called { self.heard(called) }
                    while let Some(Ok(called)) = self.calls.try_join_next() { self.heard(called) }
                }
                () = ends.notified() => look = true,
                () = tokio::time::sleep_until(wake) => {}
            }
            let now = Instant::now();
            while let Some(first) = self.later.first_entry().filter(|first| first.key().0 <= now) {
                self.ready.push_back(first.remove());
            }
            if self.told.len() >= NOTE_MAX || (!self.told.is_empty() && self.calls.is_empty()) || now >= wake {
                look |= self.note().await;
            }
            self.keep().await;
        }
    }

    fn wake_at(&self) -> Instant {
        let mut at = self.looked + LOOK_EVERY;
        if !self.told.is_empty() {
            at = at.min(Instant::now() + LINGER);
        }
        if let Some(((due, _), _)) = self.later.first_key_value() {
            at = at.min(*due);
        }
        at
    }

    fn follow_endpoint(&mut self) {
        let stored = self.sale.stored.load();
        let endpoint = &stored.settings.endpoint;
        if self.target.as_ref().is_some_and(|target| target.of == *endpoint) {
            return;
        }
        let mut at_end = endpoint.clone();
        at_end.url = endpoint.end_url.clone().unwrap_or_else(|| endpoint.url.clone());
        self.connections.clear();
        self.target = Target::new(at_end).map(|mut target| {
            target.of = endpoint.clone();
            Arc::new(target)
        });
    }

    /// Takes messages as long as there is room for their orders.
    async fn fetch(&mut self) -> Result<(), store::Error> {
        self.looked = Instant::now();
        let held = self.ready.len() + self.later.len() + self.told.len();
        if held >= HELD_MAX {
            return Ok(());
        }
        let (redis, keys) = (self.node.redis.clone(), &self.sale.keys);
        let mut messages = redis.ends(keys, &self.node.name, MESSAGES_MAX).await?;
        if messages.is_empty() {
            messages = redis.take_over_ends(keys, &self.node.name, self.sale.limits.lease, MESSAGES_MAX).await?;
            messages.retain(|message| !self.messages.contains_key(&message.id));
        } else {
            self.sale.ends.notify_one(); // there may be more
        }
        if !messages.is_empty() {
            self.node.confirm_durable(&self.sale).await?;
            self.take(messages).await?;
        }
        Ok(())
    }

    async fn take(&mut self, messages: Vec<EndsMessage>) -> Result<(), store::Error> {
        let (redis, keys) = (self.node.redis.clone(), self.sale.keys.clone());
        let mut ids: Vec<EntryId> =
            messages.iter().flat_map(|message| message.orders.first().map(|address| address.entry)).collect();
        ids.sort_unstable();
        ids.dedup();
        let entries: HashMap<EntryId, store::orders::Entry> =
            redis.entries(&keys, &ids).await?.into_iter().map(|entry| (entry.id, entry)).collect();
        let mut nothing_left = Vec::new();
        for message in messages {
            let mut tells = Vec::new();
            for address in message.orders {
                let Some(entry) = entries.get(&address.entry) else { continue };
                let index = usize::from(address.index);
                let state = entry.outcome.as_bytes().get(index).and_then(|code| State::of_code(*code));
                if let (Some(State::Ended(end, Telling::Due)), Some(frame)) = (state, entry.frames.get(index)) {
                    let order = Arc::new(Order::from(frame.clone()));
                    tells.push(Tell { message: message.id, address, end, order, part: None, attempts: 0 });
                }
            }
            let paid: Vec<Address> =
                tells.iter().filter(|tell| tell.end == End::Confirmed).map(|tell| tell.address).collect();
            let parts = redis.reservation_extras(&keys, &paid).await?;
            let mut parts: HashMap<Address, Option<Vec<Item>>> =
                paid.into_iter().zip(parts).map(|(address, (_, part))| (address, part)).collect();
            for tell in &mut tells {
                tell.part = parts.remove(&tell.address).flatten();
            }
            if tells.is_empty() || zoo::planted("ends are popped, not claimed") {
                nothing_left.push(message.id);
            } else {
                self.messages.insert(message.id, tells.len());
                self.ready.extend(tells);
            }
        }
        if !nothing_left.is_empty() {
            redis.forget_ends(&keys, &nothing_left).await?;
        }
        Ok(())
    }

    fn start_calls(&mut self) {
        let Some(target) = self.target.clone() else { return };
        let bulk = target.endpoint.mode == CallMode::Bulk;
        while self.calls.len() < target.endpoint.max_concurrency as usize
            && let Some(first) = self.ready.pop_front()
        {
            let op = first.end.op();
            let mut tells = vec![first];
            while bulk && tells.len() < BULK_ORDERS_MAX && self.ready.front().is_some_and(|next| next.end.op() == op) {
                tells.extend(self.ready.pop_front());
            }
            for tell in &mut tells {
                tell.attempts += 1;
            }
            let connection = self.connections.pop().unwrap_or_else(|| Connection::new(target.clone()));
            self.calls.spawn(outside::carry(call(self.sale.clone(), target.clone(), connection, tells, bulk)));
        }
    }

    fn heard(&mut self, called: Called) {
        if self.target.as_ref().is_some_and(|target| Arc::ptr_eq(target, &called.target)) {
            self.connections.push(called.connection);
        }
        for (tell, verdict) in called.tells.into_iter().zip(called.verdicts) {
            let gid = self.sale.gid(tell.address);
            let retry = NonZeroU32::new(tell.attempts).expect("a call was made");
            let limits = &self.sale.limits;
            let ceiling = backoff(retry, limits.retry_base, limits.retry_max);
            let mut delay = ceiling.mul_f64(0.5 + fastrand::f64() / 2.0);
            match verdict {
                Verdict::Created => {
                    self.told.push(tell);
                    continue;
                }
                Verdict::Ongoing => delay = limits.ongoing,
                Verdict::Refused { .. } => {
                    counter!("rushline_reservation_ends_refused_total").increment(1);
                    if tell.attempts == 1 || tell.attempts.is_multiple_of(ALARM_AFTER) {
                        tracing::error!(%gid, op = tell.end.op(), attempts = tell.attempts, "the order service refuses an end that is decided; it stays, and the service is asked again");
                    }
                }
                Verdict::Unknown { error } if tell.attempts.is_multiple_of(ALARM_AFTER) => {
                    tracing::warn!(%gid, op = tell.end.op(), attempts = tell.attempts, error = without_words(&error), "the order service has not heard of an end");
                }
                Verdict::Unknown { error } => {
                    tracing::debug!(%gid, op = tell.end.op(), attempts = tell.attempts, error = without_words(&error), "an end is told again later");
                }
            }
            counter!("rushline_reservation_ends_retries_total").increment(1);
            self.next_later += 1;
            self.later.insert((Instant::now() + delay, self.next_later), tell);
        }
    }

    /// Notes what was told of. True if that was the last of some message: there is room again.
    async fn note(&mut self) -> bool {
        let mut room = false;
        while !self.told.is_empty() {
            let some: Vec<Tell> = self.told.drain(..self.told.len().min(NOTE_MAX)).collect();
            let row = |tell: &Tell| {
                let due = State::Ended(tell.end, Telling::Due);
                let (done, _) = due.after(Move::Told).expect("what is due can be told");
                Row::new(tell.address.entry, tell.address.index, text(due), text(done), When::Any)
            };
            let rows: Vec<Row> = some.iter().map(row).collect();
            crash::point("tell.before_note");
            let mut lane = self.node.redis.lane();
            match self.node.redis.move_orders(&mut lane, &self.sale.keys, &rows, Notes::default()).await {
                Ok(moved) => {
                    crash::point("tell.after_note");
                    for (tell, moved) in some.iter().zip(moved) {
                        if moved == Moved::Done {
                            counter!("rushline_reservation_ends_told_total", "how" => end_name(tell.end)).increment(1);
                        }
                        // Stale or gone: another node has noted it. In every case it is off this one's hands.
                        if let Some(left) = self.messages.get_mut(&tell.message) {
                            *left -= 1;
                        }
                    }
                    self.node.finished.wake();
                }
                Err(error) => {
                    tracing::warn!(sale = %self.sale.name, %error, "ends that were told of are not noted yet");
                    self.told.splice(0..0, some);
                    return room;
                }
            }
            let mut done: Vec<EntryId> =
                self.messages.iter().filter(|(_, left)| **left == 0).map(|(id, _)| *id).collect();
            done.sort_unstable();
            if !done.is_empty() {
                room = true;
                self.messages.retain(|_, left| *left > 0);
                if let Err(error) = self.node.redis.forget_ends(&self.sale.keys, &done).await {
                    // Somebody takes them over, and finds nothing to tell.
                    tracing::debug!(sale = %self.sale.name, %error, "messages of ends stay for now");
                }
            }
        }
        room
    }

    /// Keeps the leases of what this node tells of.
    async fn keep(&mut self) {
        if self.kept.elapsed() < self.sale.limits.lease / 3 || self.messages.is_empty() {
            return;
        }
        self.kept = Instant::now();
        let mut ids: Vec<EntryId> = self.messages.keys().copied().collect();
        ids.sort_unstable();
        for some in ids.chunks(500) {
            if let Err(error) = self.node.redis.keep_ends(&self.sale.keys, &self.node.name, some).await {
                tracing::debug!(sale = %self.sale.name, %error, "leases of ends are not renewed");
            }
        }
    }
}

/// An ended reservation as the order service reads it.
#[derive(Serialize)]
struct EndBody<'a> {
    gid: &'a str,
    sale: &'a str,
    buyer: &'a str,
    /// What is paid, or what was given up.
    items: Vec<Item>,
    payload: Option<&'a RawValue>,
    /// RFC 3339, by the clock of Redis.
    admitted_at: jiff::Timestamp,
    end: &'static str,
}

#[derive(Serialize)]
struct BulkBody<'a> {
    orders: Vec<EndBody<'a>>,
}

fn end_body<'a>(sale: &'a Part, gid: &'a str, tell: &'a Tell) -> EndBody<'a> {
    let part = tell.part.as_deref();
    let items = tell.order.items.iter().map(|item| Item { sku: item.sku.clone(), quantity: confirmed_of(item, part) });
    EndBody {
        gid,
        sale: sale.name.as_str(),
        buyer: tell.order.buyer.as_str(),
        items: items.filter(|item| item.quantity > 0).collect(),
        payload: tell.order.payload.as_deref(),
        admitted_at: jiff::Timestamp::from_millisecond(tell.address.entry.ms as i64).unwrap_or_default(),
        end: end_name(tell.end),
    }
}

async fn call(
    sale: Arc<Part>,
    target: Arc<Target>,
    mut connection: Connection,
    tells: Vec<Tell>,
    bulk: bool,
) -> Called {
    crash::point("tell.before_call");
    let op = tells[0].end.op();
    let mut span =
        trace::shared("tell order service", trace::Kind::Client, tells.iter().map(|tell| tell.order.trace.as_deref()));
    let gids: Vec<String> = tells.iter().map(|tell| sale.gid(tell.address).text()).collect();
    if let Some(span) = &mut span {
        span.set("rushline.op", op);
        span.set("rushline.gid", gids[0].as_str());
    }
    let verdicts = if bulk {
        let orders = tells.iter().zip(&gids).map(|(tell, gid)| end_body(&sale, gid, tell)).collect();
        let body = serde_json::to_vec(&BulkBody { orders }).expect("orders are plain data");
        let query = format!("trans_type=tcc&branch_id=01&op={op}");
        let error = match connection.post(Headers { query, idempotency_key: None, trace: None }, body).await {
            Ok((status, body)) if status.is_success() => match read_bulk_answer(&body, &gids) {
                Ok(verdicts) => Ok(verdicts),
                Err(error) => Err(error),
            },
            Ok((status, body)) => Err(format!("status {status} for the whole call: {}", shorten(&body))),
            Err(error) => Err(error.to_string()),
        };
        error.unwrap_or_else(|error| vec![Verdict::Unknown { error }; tells.len()])
    } else {
        let body = serde_json::to_vec(&end_body(&sale, &gids[0], &tells[0])).expect("an order is plain data");
        let headers = Headers {
            query: format!("gid={}&trans_type=tcc&branch_id=01&op={op}", gids[0]),
            trace: span.as_ref().map(trace::Span::context).or_else(|| tells[0].order.trace.as_deref().cloned()),
            idempotency_key: HeaderValue::from_str(&format!("{}-{op}", gids[0])).ok(),
        };
        vec![match connection.post(headers, body).await {
            Ok((status, body)) => read_answer(status, &body),
            Err(error) => Verdict::Unknown { error: error.to_string() },
        }]
    };
    crash::point("tell.after_call");
    Called { tells, verdicts, connection, target }
}
