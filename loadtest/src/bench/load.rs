//! The generator: a closed loop of connections, each with its next request ready before the last answer is in.
//!
//! Runs on a thread of its own, on one core. A request's bytes are a template whose digits are overwritten, so that
//! making a new buyer and a new key costs a few stores.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use tokio::task::{JoinSet, LocalSet};

use crate::http::{Connection, write_request};

/// The shop's part of an order: 110 bytes of JSON, as in the design's measurements.
pub const PAYLOAD: &str =
    r#"{"name":"Ada Buyer","street":"1 Rush Lane","city":"Speedville","phone":"+44 20 7946 0000","gift":"no","n":"1"}"#;
const _: () = assert!(PAYLOAD.len() == 110);

pub const SKU: &str = "sku-1";
/// Stands for the request's number in a template; as many digits as a number has.
pub const MARK: &str = "##########";
/// As [`MARK`], for the number of a SKU.
const SKU_MARK: &str = "@@@@@@@@@@";
/// Times that one order is sent again because the server said to wait.
const ATTEMPTS_MAX: u32 = 1000;
/// The server says seconds; the generator is there to find the limit and asks sooner.
const WAIT_MAX: Duration = Duration::from_millis(20);

/// What to send.
#[derive(Clone)]
pub struct Load {
    pub address: SocketAddr,
    pub template: Template,
    pub connections: usize,
    /// The number of the first request.
    pub first: u64,
    /// How many requests.
    pub orders: u64,
    /// Requests a second; as fast as answers come if absent.
    pub rate: Option<f64>,
}

/// What came back.
pub struct Measured {
    pub elapsed: Duration,
    pub statuses: BTreeMap<u16, u64>,
    /// Microseconds from sending to the answer that was no "wait".
    pub latency: Histogram<u64>,
}

impl Measured {
    pub fn per_second(&self) -> f64 {
        self.latency.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// An error unless each order was answered with one of `statuses`.
    pub fn expect(&self, statuses: &[u16], orders: u64) -> anyhow::Result<()> {
        let good: u64 = statuses.iter().filter_map(|status| self.statuses.get(status)).sum();
        ensure!(good == orders, "of {orders} orders {good} were accepted; answers by status: {:?}", self.statuses);
        Ok(())
    }
}

/// Sends all orders and waits for all answers.
pub async fn run(load: Load) -> anyhow::Result<Measured> {
    let (done, measured) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("generator".into()).spawn(move || {
        let measured = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("generator's runtime")
            .and_then(|runtime| runtime.block_on(LocalSet::new().run_until(drive(load))));
        // Nobody listens if the run was interrupted.
        let _ = done.send(measured);
    })?;
    measured.await.context("the generator broke down")?
}

struct Shared {
    load: Load,
    next: Cell<u64>,
    began: Instant,
    statuses: RefCell<BTreeMap<u16, u64>>,
    latency: RefCell<Histogram<u64>>,
}

async fn drive(load: Load) -> anyhow::Result<Measured> {
    let mut connections = Vec::with_capacity(load.connections);
    for _ in 0..load.connections {
        connections.push(Connection::open(load.address).await.with_context(|| format!("connect to {}", load.address))?);
    }
    let shared = Rc::new(Shared {
        load,
        next: Cell::new(0),
        began: Instant::now(),
        statuses: RefCell::default(),
        latency: RefCell::new(Histogram::new_with_bounds(1, 60_000_000, 3).expect("these bounds are valid")),
    });
    let mut callers = JoinSet::new();
    for connection in connections {
        callers.spawn_local(caller(shared.clone(), connection));
    }
    while let Some(ended) = callers.join_next().await {
        ended??;
    }
    let elapsed = shared.began.elapsed();
    Ok(Measured { elapsed, statuses: shared.statuses.take(), latency: shared.latency.borrow().clone() })
}

/// One connection, from its first order to the last there is.
async fn caller(shared: Rc<Shared>, mut connection: Connection) -> anyhow::Result<()> {
    let mut template = shared.load.template.clone();
    loop {
        let sent = shared.next.get();
        if sent >= shared.load.orders {
            return Ok(());
        }
        shared.next.set(sent + 1);
        if let Some(rate) = shared.load.rate {
            let due = shared.began + Duration::from_secs_f64(sent as f64 / rate);
            // Sleeping is precise to a millisecond; orders of one millisecond go together.
            if due > Instant::now() {
                tokio::time::sleep_until(due.into()).await;
            }
        }
        let request = template.number(shared.load.first + sent);
        let began = Instant::now();
        for attempt in 1.. {
            let answer = connection.call(request).await.context("an order was not answered")?;
            let (status, retry_after_s) = (answer.status, answer.retry_after_s);
            *shared.statuses.borrow_mut().entry(status).or_default() += 1;
            if !matches!(status, 429 | 503) {
                break;
            }
            ensure!(attempt < ATTEMPTS_MAX, "an order was told to wait {ATTEMPTS_MAX} times");
            tokio::time::sleep(Duration::from_secs(retry_after_s.unwrap_or(1)).min(WAIT_MAX)).await;
        }
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        shared.latency.borrow_mut().saturating_record(micros);
    }
}

/// A request whose number can be changed in place.
#[derive(Clone)]
pub struct Template {
    bytes: Vec<u8>,
    marks: Vec<usize>,
    /// Where the number of a SKU stands, and how many there are.
    skus: Vec<usize>,
    sku_count: u64,
}

impl Template {
    /// An order of one unit by a buyer of its own.
    pub fn order(sale: &str) -> Self {
        let body = format!(r#"{{"buyer":"u{MARK}","items":[{{"sku":"{SKU}","quantity":1}}],"payload":{PAYLOAD}}}"#);
        Self::post(&format!("/v1/sales/{sale}/orders"), &format!("idempotency-key: k{MARK}\r\n"), &body)
    }

    /// As [`Template::order`], the orders in turn for SKUs named `sku-0000000000` and on; of one SKU the usual one.
    pub fn order_over(sale: &str, skus: u64) -> Self {
        let mut template = Self::order(sale);
        if skus > 1 {
            let body = format!(
                r#"{{"buyer":"u{MARK}","items":[{{"sku":"sku-{SKU_MARK}","quantity":1}}],"payload":{PAYLOAD}}}"#
            );
            template = Self::post(&format!("/v1/sales/{sale}/orders"), &format!("idempotency-key: k{MARK}\r\n"), &body);
            template.sku_count = skus;
        }
        template
    }

    /// Any POST; each [`MARK`] in it becomes the request's number. `headers` is empty or ends with CRLF.
    pub fn post(target: &str, headers: &str, body: &str) -> Self {
        let mut bytes = Vec::new();
        write_request(&mut bytes, "POST", target, headers, body.as_bytes());
        let places = |mark: &str| (0..bytes.len()).filter(|&at| bytes[at..].starts_with(mark.as_bytes())).collect();
        let (marks, skus) = (places(MARK), places(SKU_MARK));
        Self { bytes, marks, skus, sku_count: 1 }
    }

    pub fn number(&mut self, number: u64) -> &[u8] {
        let digits = digits(number);
        for &mark in &self.marks {
            self.bytes[mark..mark + digits.len()].copy_from_slice(&digits);
        }
        if !self.skus.is_empty() {
            let digits = self::digits(number % self.sku_count);
            for &mark in &self.skus {
                self.bytes[mark..mark + digits.len()].copy_from_slice(&digits);
            }
        }
        &self.bytes
    }
}

fn digits(mut number: u64) -> [u8; MARK.len()] {
    let mut digits = [b'0'; MARK.len()];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::floor::{json_bytes, serve};
    use http_body_util::BodyExt;
    use std::collections::HashSet;
    use std::sync::Mutex;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn every_order_is_sent_once_with_its_own_buyer_and_key() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: &'static Mutex<HashSet<(String, String)>> = Box::leak(Box::default());
        tokio::spawn(serve(listener, move |request| async move {
            let key = request.headers()["idempotency-key"].to_str().unwrap().to_owned();
            let body: serde_json::Value =
                serde_json::from_slice(&request.into_body().collect().await.unwrap().to_bytes()).unwrap();
            assert_eq!(body["items"][0]["sku"], SKU);
            let new = seen.lock().unwrap().insert((key, body["buyer"].as_str().unwrap().into()));
            json_bytes(if new { 201 } else { 500 }, "{}".into())
        }));
        let load = Load { address, template: Template::order("s"), connections: 7, first: 0, orders: 1000, rate: None };
        let measured = run(load.clone()).await.unwrap();
        measured.expect(&[201], 1000).unwrap();
        assert_eq!(measured.latency.len(), 1000);
        assert_eq!(seen.lock().unwrap().len(), 1000);
        assert!(run(load).await.unwrap().expect(&[201], 1000).is_err(), "the same orders again");
    }

    #[tokio::test]
    async fn an_order_that_is_told_to_wait_is_sent_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let calls: &'static Mutex<u32> = Box::leak(Box::default());
        tokio::spawn(serve(listener, move |_| async move {
            let mut calls = calls.lock().unwrap();
            *calls += 1;
            json_bytes(if *calls <= 2 { 429 } else { 201 }, "{}".into())
        }));
        let template = Template::order("s");
        let measured =
            run(Load { address, template, connections: 1, first: 0, orders: 10, rate: Some(10_000.0) }).await.unwrap();
        assert_eq!(measured.statuses, BTreeMap::from([(201, 10), (429, 2)]));
    }
}
