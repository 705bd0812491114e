//! Buyers as they are: most order once, some click twice, some lose the answer, some come back for more.
//!
//! Every decision of a buyer follows from its number, so a run can be repeated. What a buyer was told is written into
//! the [`Book`], which knows nothing of the server and is what the server's own figures are held against.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Deserialize;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::http::{Connection, write_request};

/// A buyer who waits longer than this presses the button again.
const PATIENCE: Duration = Duration::from_secs(2);
/// Presses with one key before a buyer gives up; with `PATIENCE` and `Retry-After` that is over a minute.
const ATTEMPTS_MAX: u32 = 40;
/// A server that asks for more patience than this does not get it.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(2);
/// Of what went wrong, this much is kept in words; the rest is only counted.
const FAULTS_NAMED_MAX: usize = 20;

/// Of 100 buyers, how many take two units; the others take one.
const TWO_UNITS_PERCENT: u32 = 20;
/// Of 1000 buyers: those who click twice, whose answer is lost, who are never told, and who ask again though answered.
const DOUBLE_CLICKS: u32 = 60;
const LOST_REPLIES: u32 = 60;
const LOST_FOR_GOOD: u32 = 5;
const NEEDLESS_REPEATS: u32 = 30;
/// Of 100 buyers, how many come back for two more: over the limit if they have one already.
const COME_BACK_PERCENT: u32 = 10;

/// Whom to ask for what.
pub struct Crowd {
    pub address: SocketAddr,
    pub sale: String,
    pub sku: String,
    pub buyers: u32,
    /// Buyers that stand at the counter at once; each has up to two connections.
    pub at_once: u32,
    pub seed: u64,
}

/// What buyers were told.
pub struct Book {
    /// Gid → who was told it, with which key and for how many units.
    pub told: HashMap<String, Told>,
    /// Refusals by the server's code, counted once per order that a buyer gave up.
    pub refused: BTreeMap<String, u64>,
    /// Buyers that left before they heard: an order of theirs may exist untold.
    pub lost_for_good: HashSet<String>,
    pub units_told: u64,
    pub buyers_done: u32,
    /// Answered HTTP requests, microseconds.
    pub latency: Histogram<u64>,
    pub requests: u64,
    pub timeouts: u64,
    pub told_to_wait: u64,
    pub broken_connections: u64,
    pub double_clicks: u64,
    pub lost_replies: u64,
    /// Answers to a key that had been answered before, with the same gid.
    pub replays: u64,
    pub faults: u64,
    /// The first faults, in words.
    pub faults_named: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct Told {
    pub buyer: u32,
    pub order: Order,
}

/// One order request; the same request may be sent many times.
#[derive(Debug, Clone)]
pub struct Order {
    pub key: String,
    pub quantity: u32,
    request: Rc<Vec<u8>>,
}

enum Heard {
    Gid {
        gid: String,
        replayed: bool,
    },
    Refused(String),
    /// No answer in all that time, or one that makes no sense: a fault.
    Nothing(String),
}

#[derive(Deserialize)]
struct Body {
    gid: Option<String>,
    code: Option<String>,
}

impl Book {
    pub fn new() -> Self {
        Self {
            told: HashMap::new(),
            refused: BTreeMap::new(),
            lost_for_good: HashSet::new(),
            units_told: 0,
            buyers_done: 0,
            latency: Histogram::new_with_bounds(1, 120_000_000, 3).expect("these bounds are valid"),
            requests: 0,
            timeouts: 0,
            told_to_wait: 0,
            broken_connections: 0,
            double_clicks: 0,
            lost_replies: 0,
            replays: 0,
            faults: 0,
            faults_named: Vec::new(),
        }
    }

    pub fn fault(&mut self, what: String) {
        self.faults += 1;
        if self.faults_named.len() < FAULTS_NAMED_MAX {
            self.faults_named.push(what);
        }
    }

    /// Notes the answer to a buyer's order, given that some answers to the same key may be noted already.
    fn note(&mut self, buyer: u32, order: &Order, heard: &[Heard]) {
        let mut gids: Vec<&str> = Vec::new();
        for one in heard {
            match one {
                Heard::Gid { gid, .. } => gids.push(gid),
                Heard::Refused(_) => {}
                Heard::Nothing(why) => self.fault(format!("key {}: {why}", order.key)),
            }
        }
        let Some(&gid) = gids.first() else {
            if let Some(Heard::Refused(code)) = heard.last() {
                *self.refused.entry(code.clone()).or_default() += 1;
            }
            return;
        };
        if let Some(other) = gids.iter().find(|other| **other != gid) {
            self.fault(format!("key {} was told two gids: {gid} and {other}", order.key));
        }
        if gids.len() > 1 {
            self.replays += gids.len() as u64 - 1;
            let fresh = heard.iter().filter(|one| matches!(one, Heard::Gid { replayed: false, .. })).count();
            if fresh > 1 {
                self.fault(format!("key {}: {fresh} answers claim to be the first", order.key));
            }
        }
        if let Some(other) = self.told.insert(gid.into(), Told { buyer, order: order.clone() }) {
            self.fault(format!("{gid} was told for key {} and for key {}", other.order.key, order.key));
        }
        self.units_told += u64::from(order.quantity);
    }
}

impl Crowd {
    fn order(&self, buyer: u32, nth: u32, quantity: u32) -> Order {
        let (name, key) = (buyer_name(buyer), format!("b{buyer}-{nth}"));
        let body = serde_json::json!({
            "buyer": name,
            "items": [{"sku": self.sku, "quantity": quantity}],
            "payload": {"name": format!("Buyer {buyer}"), "address": "1 Rush Lane", "phone": "+44 20 7946 0000", "note": "leave it at the door"},
        });
        let mut request = Vec::with_capacity(512);
        let target = format!("/v1/sales/{}/orders", self.sale);
        write_request(
            &mut request,
            "POST",
            &target,
            &format!("idempotency-key: {key}\r\n"),
            body.to_string().as_bytes(),
        );
        Order { key, quantity, request: Rc::new(request) }
    }

    /// Sends every buyer through the sale. Runs inside a `LocalSet`; dropping the future sends everybody home.
    pub async fn run(self: Rc<Self>, book: Rc<RefCell<Book>>) {
        let next = Rc::new(Cell::new(0));
        let mut counters = JoinSet::new();
        for _ in 0..self.at_once {
            let (crowd, book, next) = (self.clone(), book.clone(), next.clone());
            counters.spawn_local(async move {
                let mut lines = [Line::new(crowd.address, book.clone()), Line::new(crowd.address, book.clone())];
                while next.get() < crowd.buyers {
                    let buyer = next.replace(next.get() + 1);
                    crowd.visit(buyer, &mut lines, &book).await;
                    book.borrow_mut().buyers_done += 1;
                }
            });
        }
        while let Some(done) = counters.join_next().await {
            if let Err(error) = done {
                book.borrow_mut().fault(format!("a buyer broke down: {error}"));
            }
        }
    }

    /// All that one buyer does.
    async fn visit(&self, buyer: u32, lines: &mut [Line; 2], book: &RefCell<Book>) {
        let mut chance = fastrand::Rng::with_seed(self.seed ^ (u64::from(buyer) << 20));
        let quantity = if chance.u32(..100) < TWO_UNITS_PERCENT { 2 } else { 1 };
        let order = self.order(buyer, 1, quantity);
        let (manner, waits) = (chance.u32(..1000), chance.bool());
        let lost = DOUBLE_CLICKS + LOST_REPLIES;
        let [line, other] = lines;
        if manner < DOUBLE_CLICKS {
            book.borrow_mut().double_clicks += 1;
            let (first, second) = tokio::join!(line.ask(&order), other.ask(&order));
            book.borrow_mut().note(buyer, &order, &[first, second]);
        } else if manner < lost {
            book.borrow_mut().lost_replies += 1;
            line.lose(&order, waits).await;
            let heard = line.ask(&order).await;
            book.borrow_mut().note(buyer, &order, &[heard]);
        } else if manner < lost + LOST_FOR_GOOD {
            book.borrow_mut().lost_for_good.insert(buyer_name(buyer));
            line.lose(&order, waits).await;
            return;
        } else if manner < lost + LOST_FOR_GOOD + NEEDLESS_REPEATS {
            let heard = [line.ask(&order).await, line.ask(&order).await];
            book.borrow_mut().note(buyer, &order, &heard);
        } else {
            let heard = line.ask(&order).await;
            book.borrow_mut().note(buyer, &order, &[heard]);
        }
        if chance.u32(..100) < COME_BACK_PERCENT {
            let more = self.order(buyer, 2, 2);
            let heard = line.ask(&more).await;
            book.borrow_mut().note(buyer, &more, &[heard]);
        }
    }

    /// Asks again with keys that were answered, after all is over: the same gids must come, marked as replays.
    pub async fn ask_again(&self, book: &Rc<RefCell<Book>>, orders_max: usize) -> u64 {
        let sample: Vec<(String, Order)> = {
            let book = book.borrow();
            book.told.iter().take(orders_max).map(|(gid, told)| (gid.clone(), told.order.clone())).collect()
        };
        let mut line = Line::new(self.address, book.clone());
        let mut same = 0;
        for (gid, order) in &sample {
            match line.ask(order).await {
                Heard::Gid { gid: again, replayed: true } if again == *gid => same += 1,
                Heard::Gid { gid: again, replayed } => {
                    let fault =
                        format!("key {}: told {gid}, asked again and told {again} (replayed: {replayed})", order.key);
                    book.borrow_mut().fault(fault);
                }
                Heard::Refused(code) => {
                    book.borrow_mut().fault(format!("key {}: told {gid}, asked again and refused: {code}", order.key));
                }
                Heard::Nothing(why) => book.borrow_mut().fault(format!("key {}: {why}", order.key)),
            }
        }
        same
    }
}

pub fn buyer_name(buyer: u32) -> String {
    format!("buyer-{buyer}")
}

/// A place to ask from: a connection that is opened again when it breaks.
struct Line {
    address: SocketAddr,
    connection: Option<Connection>,
    book: Rc<RefCell<Book>>,
}

impl Line {
    fn new(address: SocketAddr, book: Rc<RefCell<Book>>) -> Self {
        Self { address, connection: None, book }
    }

    async fn open(&mut self) -> std::io::Result<&mut Connection> {
        if self.connection.as_ref().is_none_or(|connection| connection.closing) {
            self.connection = Some(Connection::open(self.address).await?);
        }
        Ok(self.connection.as_mut().expect("opened above"))
    }

    /// Asks until there is an answer, always with the same key.
    async fn ask(&mut self, order: &Order) -> Heard {
        for attempt in 0..ATTEMPTS_MAX {
            let asked = Instant::now();
            self.book.borrow_mut().requests += 1;
            let called = timeout(PATIENCE, async {
                let answer = self.open().await?.call(&order.request).await?;
                let body = serde_json::from_slice(answer.body).unwrap_or(Body { gid: None, code: None });
                std::io::Result::Ok((answer.status, answer.replayed, answer.retry_after_s, body))
            });
            let (status, replayed, retry_after_s, body) = match called.await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => {
                    self.connection = None;
                    self.book.borrow_mut().broken_connections += 1;
                    // The server may be restarting; a refused connection answers at once.
                    sleep(Duration::from_millis(10 * u64::from(attempt))).await;
                    continue;
                }
                Err(_) => {
                    self.connection = None;
                    self.book.borrow_mut().timeouts += 1;
                    continue;
                }
            };
            let micros = u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.book.borrow_mut().latency.saturating_record(micros);
            return match (status, body.gid, body.code) {
                (200 | 201, Some(gid), _) => Heard::Gid { gid, replayed },
                (429 | 503, _, _) => {
                    self.book.borrow_mut().told_to_wait += 1;
                    sleep(Duration::from_secs(retry_after_s.unwrap_or(1)).min(RETRY_AFTER_MAX)).await;
                    continue;
                }
                (409 | 410 | 423 | 425, _, Some(code)) => Heard::Refused(code),
                (status, _, code) => Heard::Nothing(format!("answered {status} {code:?}, which no buyer understands")),
            };
        }
        Heard::Nothing(format!("no answer to {ATTEMPTS_MAX} requests"))
    }

    /// Sends the order and cuts the connection: at once, or when the answer is already under way.
    async fn lose(&mut self, order: &Order, wait_for_answer: bool) {
        self.book.borrow_mut().requests += 1;
        // Whatever goes wrong here is a lost reply all the more.
        let _ = timeout(PATIENCE, async {
            let connection = self.open().await?;
            connection.send(&order.request).await?;
            if wait_for_answer { connection.answer_arrives().await } else { Ok(()) }
        })
        .await;
        self.connection = None;
    }
}

#[cfg(test)]
#[path = "buyers_tests.rs"]
mod tests;
