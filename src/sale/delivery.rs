//! Delivery: calls the order endpoint until it says what became of an order.
//!
//! Straight from memory; Redis is read only to recover. Workers take orders from one queue, each with a connection of
//! its own, and are started as the queue asks for them, up to the sale's `max_concurrency`.

use super::call::{self, Connection, Headers, Target};
use super::keeper::Message;
use super::{Entry, Job, Sale};
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use futures_util::FutureExt;
use hyper::StatusCode;
use hyper::header::HeaderValue;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;

use crate::crash;
use crate::domain::order::Item;
use crate::domain::sale::CallMode;
use crate::domain::trace::{Ids, TraceContext};
use crate::outside;
use crate::telemetry::trace;
use crate::zoo;

/// Most orders of one call in bulk mode; the order service inserts as many rows at once.
pub(super) const BULK_ORDERS_MAX: usize = 100;
/// A worker without work ends after this, and closes its connection.
const IDLE: Duration = Duration::from_secs(2);
/// Longest message of an order service that is kept with the order.
const MESSAGE_CHARS_MAX: usize = 500;

/// What the order endpoint said about one order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Created,
    /// For good: the units go back.
    Refused {
        message: String,
    },
    /// Being worked on; ask again soon.
    Ongoing,
    /// No usable answer: nobody knows. Ask again, later and later.
    Unknown {
        error: String,
    },
}

/// The sale's queue of orders and its workers. Cheap to clone.
#[derive(Clone)]
pub struct Delivery(Arc<Inner>);

struct Inner {
    sale: Arc<Sale>,
    target: ArcSwapOption<Target>,
    queue: async_channel::Sender<Job>,
    jobs: async_channel::Receiver<Job>,
    workers: AtomicUsize,
    idle: AtomicUsize,
    seconds: metrics::Histogram,
}

impl Delivery {
    pub fn new(sale: Arc<Sale>) -> Self {
        // Bounded by the sale's backlog: what is in here was admitted, and admission stops at backlog_max.
        let (queue, jobs) = async_channel::unbounded();
        Self(Arc::new(Inner {
            target: ArcSwapOption::from(Target::new(sale.settings().endpoint).map(Arc::new)),
            sale,
            queue,
            jobs,
            workers: AtomicUsize::new(0),
            idle: AtomicUsize::new(0),
            seconds: metrics::histogram!("rushline_delivery_seconds"),
        }))
    }

    /// Takes over a batch of orders: `jobs` are those of `entry` to be called now.
    pub fn accept(&self, entry: Arc<Entry>, jobs: Vec<Job>) {
        // The keeper must know the entry before its first answer arrives.
        let part = entry.part.clone();
        part.tell_keeper(Message::Accepted(entry));
        self.call(jobs);
    }

    /// Queues orders for calling.
    pub fn call(&self, jobs: Vec<Job>) {
        for job in jobs {
            let _ = self.0.queue.try_send(job); // never full, closed only at the very end
        }
        self.start_workers();
    }

    /// Follows a changed endpoint; calls under way end with the old one.
    pub fn settings_changed(&self) {
        self.0.target.store(Target::new(self.0.sale.settings().endpoint).map(Arc::new));
        self.start_workers();
    }

    fn start_workers(&self) {
        let Some(target) = self.0.target.load_full() else { return };
        let most = target.endpoint.max_concurrency as usize;
        let waiting = self.0.queue.len();
        let unattended = waiting.saturating_sub(self.0.idle.load(Ordering::Acquire));
        let wanted = match target.endpoint.mode {
            CallMode::Single => unattended,
            // Few workers with full calls beat many with small ones.
            CallMode::Bulk if self.0.workers.load(Ordering::Acquire) == 0 => waiting.min(1),
            CallMode::Bulk => unattended / BULK_ORDERS_MAX,
        };
        for _ in 0..wanted {
            let one_more = |workers| (workers < most).then_some(workers + 1);
            if self.0.workers.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).is_err() {
                return;
            }
            outside::spawn(self.clone().work());
        }
    }

    async fn work(self) {
        let inner = &self.0;
        let mut connection: Option<(Arc<Target>, Connection)> = None;
        while let Some(target) = inner.target.load_full() {
            if inner.workers.load(Ordering::Acquire) > target.endpoint.max_concurrency as usize {
                break;
            }
            let Some(first) = self.next_job().await else { break };
            while !first.entry.holds_lease() && !first.entry.is_lost() {
                tokio::time::sleep(Duration::from_millis(20)).await; // the keeper renews or gives up; it has no event for it
            }
            if first.entry.is_lost() {
                continue; // taken over while it queued here; the other node calls
            }
            let connection = match &mut connection {
                Some((of, connection)) if Arc::ptr_eq(of, &target) => connection,
                other => &mut other.insert((target.clone(), Connection::new(target.clone()))).1,
            };
            let mut jobs = vec![first];
            if target.endpoint.mode == CallMode::Bulk {
                while jobs.len() < BULK_ORDERS_MAX
                    && let Ok(job) = inner.jobs.try_recv()
                {
                    match job.entry.is_lost() {
                        true => {}
                        false if job.entry.holds_lease() => jobs.push(job),
                        // Back to the queue: it is looked at again as the first of another call.
                        false => {
                            let _ = inner.queue.try_send(job);
                            break;
                        }
                    }
                }
            }
            for job in &mut jobs {
                job.attempts += 1;
            }
            let started = Instant::now();
            let calling = async {
                crash::point("delivery.before_call");
                let verdicts = match target.endpoint.mode {
                    CallMode::Single => vec![call_one(&inner.sale, connection, &jobs[0]).await],
                    CallMode::Bulk => call_many(&inner.sale, connection, &jobs).await,
                };
                crash::point("delivery.after_call");
                verdicts
            };
            let called = AssertUnwindSafe(calling).catch_unwind().await;
            let verdicts = called.unwrap_or_else(|_| {
                *connection = Connection::new(target.clone());
                vec![Verdict::Unknown { error: "a bug in rushline: its log has the panic".into() }; jobs.len()]
            });
            inner.seconds.record(started.elapsed());
            for (job, verdict) in jobs.into_iter().zip(verdicts) {
                let part = job.entry.part.clone();
                part.tell_keeper(Message::Answered(job, verdict));
            }
        }
        inner.workers.fetch_sub(1, Ordering::AcqRel);
        // A job may have come between the last look at the queue and the end of this worker.
        if !inner.jobs.is_empty() {
            self.start_workers();
        }
    }

    async fn next_job(&self) -> Option<Job> {
        if let Ok(job) = self.0.jobs.try_recv() {
            return Some(job);
        }
        self.0.idle.fetch_add(1, Ordering::AcqRel);
        let job = tokio::time::timeout(IDLE, self.0.jobs.recv()).await;
        self.0.idle.fetch_sub(1, Ordering::AcqRel);
        job.ok()?.ok()
    }
}

/// One order as its endpoint reads it.
#[derive(Serialize)]
struct OrderBody<'a> {
    gid: &'a str,
    sale: &'a str,
    buyer: &'a str,
    items: &'a [Item],
    payload: Option<&'a RawValue>,
    admitted_at: &'a str,
    /// Of a reservation: until when its payment is waited for, if it is not extended.
    #[serde(skip_serializing_if = "Option::is_none")]
    reserved_until: Option<jiff::Timestamp>,
}

#[derive(Serialize)]
struct BulkBody<'a> {
    orders: Vec<OrderBody<'a>>,
}

fn order_body<'a>(sale: &'a Sale, gid: &'a str, job: &'a Job) -> OrderBody<'a> {
    let order = job.order();
    OrderBody {
        gid,
        sale: sale.name.as_str(),
        buyer: order.buyer.as_str(),
        items: &order.items,
        payload: order.payload.as_deref(),
        admitted_at: &job.entry.admitted_at,
        reserved_until: sale
            .reserve_ms
            .and_then(|for_ms| jiff::Timestamp::from_millisecond((job.entry.id.ms + for_ms) as i64).ok()),
    }
}

/// What a call says it is. A reservation is tried, then confirmed or cancelled: dtm's barriers look for the `try`.
fn kind_of(sale: &Sale) -> &'static str {
    if sale.reserve_ms.is_some() {
        "trans_type=tcc&branch_id=01&op=try"
    } else {
        "trans_type=msg&branch_id=01&op=action"
    }
}

/// One call for one order, on a connection of its own: for a repair, which has few.
pub(crate) async fn ask_once(sale: &Sale, job: &Job) -> Verdict {
    let Some(target) = Target::new(sale.settings().endpoint) else {
        return Verdict::Unknown { error: "the sale has no endpoint that can be called".into() };
    };
    let bulk = target.endpoint.mode == CallMode::Bulk;
    let mut connection = Connection::new(Arc::new(target));
    match bulk {
        false => call_one(sale, &mut connection, job).await,
        true => call_many(sale, &mut connection, std::slice::from_ref(job)).await.remove(0),
    }
}

async fn call_one(sale: &Sale, connection: &mut Connection, job: &Job) -> Verdict {
    let gid = job.gid().text();
    let body = serde_json::to_vec(&order_body(sale, &gid, job)).expect("an order is plain data");
    let mut span = call_span(sale, std::slice::from_ref(job));
    let headers = Headers {
        query: format!("gid={gid}&{}", kind_of(sale)),
        trace: trace_of(span.as_ref(), job, &gid),
        idempotency_key: HeaderValue::from_str(&gid).ok(),
    };
    let verdict = match connection.post(headers, body).await {
        Ok((status, body)) => {
            if let Some(span) = &mut span {
                span.set("http.response.status_code", u64::from(status.as_u16()));
            }
            read_answer(status, &body)
        }
        Err(call::Error::Timeout(_)) if zoo::planted("units are released while a call is under way") => {
            Verdict::Refused { message: "too slow".into() }
        }
        Err(error) => Verdict::Unknown { error: error.to_string() },
    };
    if let Some(mut span) = span {
        span.set("rushline.gid", gid);
        note_verdict(&mut span, &verdict);
    }
    verdict
}

async fn call_many(sale: &Sale, connection: &mut Connection, jobs: &[Job]) -> Vec<Verdict> {
    let gids: Vec<String> = jobs.iter().map(|job| job.gid().text()).collect();
    let orders = jobs.iter().zip(&gids).map(|(job, gid)| order_body(sale, gid, job)).collect();
    let body = serde_json::to_vec(&BulkBody { orders }).expect("orders are plain data");
    let mut span = call_span(sale, jobs);
    let trace = trace_of(span.as_ref(), &jobs[0], &gids[0]);
    let headers = Headers { query: kind_of(sale).into(), trace, idempotency_key: None };
    if let Some(span) = &mut span {
        span.set("rushline.orders", jobs.len() as u64);
    }
    let error = match connection.post(headers, body).await {
        Ok((status, body)) if status.is_success() => match read_bulk_answer(&body, &gids) {
            Ok(verdicts) => return verdicts,
            Err(error) => error,
        },
        // Of a refused call nobody knows which orders it means: ask again for each.
        Ok((status, body)) => format!("status {status} for the whole call: {}", shorten(&body)),
        Err(error) => error.to_string(),
    };
    if let Some(span) = &mut span {
        span.fail("no usable answer");
    }
    vec![Verdict::Unknown { error }; jobs.len()]
}

/// The span of one call of the order endpoint, where an order of it is recorded.
fn call_span(sale: &Sale, jobs: &[Job]) -> Option<trace::Span> {
    let traces = jobs.iter().map(|job| job.order().trace.as_deref());
    let mut span = trace::shared("call order service", trace::Kind::Client, traces)?;
    span.set("rushline.sale", sale.name.as_str());
    span.set("rushline.attempt", u64::from(jobs[0].attempts));
    Some(span)
}

fn note_verdict(span: &mut trace::Span, verdict: &Verdict) {
    let outcome = match verdict {
        Verdict::Created => "created",
        Verdict::Refused { .. } => "refused",
        Verdict::Ongoing => "ongoing",
        Verdict::Unknown { .. } => {
            span.fail("no usable answer");
            "unknown"
        }
    };
    span.set("rushline.outcome", outcome);
}

/// What the order service is told: our span where there is one, else the buyer's trace as it came; without either the
/// order's own begins, the same for every try.
fn trace_of(span: Option<&trace::Span>, job: &Job, gid: &str) -> Option<TraceContext> {
    if let Some(given) = span.map(trace::Span::context).or_else(|| job.order().trace.as_deref().cloned()) {
        return Some(given);
    }
    let digest = Sha256::digest(gid.as_bytes());
    let (mut trace, mut own) = ([0; 16], [0; 8]);
    trace.copy_from_slice(&digest[..16]);
    own.copy_from_slice(&digest[16..24]);
    Some(TraceContext::of(Ids { trace, span: own, sampled: false }, ""))
}

/// What an order service says inside its answer; dtm's spelling.
#[derive(Deserialize, Default)]
struct Said {
    #[serde(default)]
    dtm_result: String,
    #[serde(default)]
    message: String,
}

/// 2xx: created. 409, or `FAILURE` said: refused. 425, or `ONGOING` said: ongoing. All else: unknown.
///
/// Said is said by the field `dtm_result`, or by a text that is nothing but the word. A word somewhere in a text (a
/// product called FAILURE, an error page) decides nothing: taking units back from an order that exists is the one
/// mistake that cannot be mended.
pub(super) fn read_answer(status: StatusCode, body: &Bytes) -> Verdict {
    let text = std::str::from_utf8(body).unwrap_or_default().trim();
    let said: Said =
        if text.starts_with('{') { serde_json::from_str(text).unwrap_or_default() } else { Said::default() };
    let says = |word: &str| said.dtm_result == word || text == word;
    if status == StatusCode::TOO_EARLY || says("ONGOING") {
        return Verdict::Ongoing;
    }
    if status == StatusCode::CONFLICT || says("FAILURE") {
        let message = if said.message.is_empty() { shorten(body) } else { shorten(said.message.as_bytes()) };
        return Verdict::Refused { message };
    }
    if status.is_success() {
        return Verdict::Created;
    }
    Verdict::Unknown { error: format!("status {status}: {}", shorten(body)) }
}

#[derive(Deserialize)]
struct BulkAnswer<'a> {
    #[serde(borrow)]
    results: Vec<BulkResult<'a>>,
}

#[derive(Deserialize)]
struct BulkResult<'a> {
    #[serde(borrow)]
    gid: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    result: std::borrow::Cow<'a, str>,
    #[serde(default)]
    message: Option<String>,
}

pub(super) fn read_bulk_answer(body: &Bytes, gids: &[String]) -> Result<Vec<Verdict>, String> {
    let answer: BulkAnswer<'_> =
        serde_json::from_slice(body).map_err(|error| format!("the answer is not {{\"results\":[…]}}: {error}"))?;
    if answer.results.len() == gids.len() && answer.results.iter().zip(gids).all(|(result, gid)| result.gid == *gid) {
        return Ok(answer.results.iter().map(verdict_of).collect()); // the usual case: in the order of the call
    }
    let mut by_gid: HashMap<&str, Verdict> = HashMap::with_capacity(answer.results.len());
    for result in &answer.results {
        by_gid.insert(result.gid.as_ref(), verdict_of(result));
    }
    Ok(gids
        .iter()
        .map(|gid| {
            by_gid
                .remove(gid.as_str())
                .unwrap_or(Verdict::Unknown { error: "the answer has no result for this gid".into() })
        })
        .collect())
}

fn verdict_of(result: &BulkResult<'_>) -> Verdict {
    match result.result.as_ref() {
        "SUCCESS" => Verdict::Created,
        "FAILURE" => Verdict::Refused { message: shorten(result.message.as_deref().unwrap_or_default().as_bytes()) },
        "ONGOING" => Verdict::Ongoing,
        other => Verdict::Unknown {
            error: format!("result `{}` is none of SUCCESS, FAILURE, ONGOING", shorten(other.as_bytes())),
        },
    }
}

/// What of an error may be logged: not the words of the order service, which may repeat what it was sent.
pub(super) fn without_words(error: &str) -> &str {
    match error.starts_with("status ") {
        true => error.split(':').next().unwrap_or_default(),
        false => error,
    }
}

pub(super) fn shorten(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().chars().take(MESSAGE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, body: &str) -> Verdict {
        read_answer(StatusCode::from_u16(status).unwrap(), &Bytes::from(body.to_owned()))
    }

    #[test]
    fn success_is_any_2xx() {
        for status in [200, 201, 202, 204] {
            assert_eq!(read(status, ""), Verdict::Created);
        }
        assert_eq!(read(200, r#"{"dtm_result":"SUCCESS"}"#), Verdict::Created);
    }

    #[test]
    fn a_refusal_is_409_or_said_by_dtm_result() {
        let refused = |message: &str| Verdict::Refused { message: message.into() };
        assert_eq!(read(409, r#"{"dtm_result":"FAILURE","message":"card declined"}"#), refused("card declined"));
        assert_eq!(read(409, "no such buyer"), refused("no such buyer"));
        assert_eq!(read(200, r#"{"dtm_result":"FAILURE","message":"m"}"#), refused("m"));
        assert_eq!(read(200, "FAILURE"), refused("FAILURE"));
    }

    #[test]
    fn what_a_service_says_is_not_logged() {
        let Verdict::Unknown { error } = read(500, "card 4242") else { panic!("a 500 says nothing") };
        assert_eq!((error.contains("4242"), without_words(&error)), (true, "status 500 Internal Server Error"));
        assert_eq!(without_words("cannot connect: refused"), "cannot connect: refused");
    }

    #[test]
    fn a_word_in_passing_decides_nothing() {
        assert_eq!(read(201, r#"{"order":7,"title":"FAILURE is an option, a poster"}"#), Verdict::Created);
        assert!(matches!(read(500, "CONNECTION FAILURE, see log"), Verdict::Unknown { .. }));
    }

    #[test]
    fn ongoing_is_425_or_said() {
        assert_eq!(read(425, ""), Verdict::Ongoing);
        assert_eq!(read(200, r#"{"dtm_result":"ONGOING"}"#), Verdict::Ongoing);
    }

    #[test]
    fn everything_else_is_unknown() {
        for status in [301, 400, 404, 422, 429, 500, 503] {
            assert!(matches!(read(status, ""), Verdict::Unknown { .. }), "{status}");
        }
    }

    #[test]
    fn a_bulk_answer_is_read_by_gid_whatever_its_order() {
        let gids = ["a".to_string(), "b".into(), "c".into(), "d".into()];
        let body = r#"{"results":[{"gid":"b","result":"FAILURE","message":"no"},{"gid":"a","result":"SUCCESS"},{"gid":"d","result":"ONGOING"}]}"#;
        let verdicts = read_bulk_answer(&Bytes::from(body), &gids).unwrap();
        assert_eq!(verdicts[0], Verdict::Created);
        assert_eq!(verdicts[1], Verdict::Refused { message: "no".into() });
        assert!(matches!(verdicts[2], Verdict::Unknown { .. }));
        assert_eq!(verdicts[3], Verdict::Ongoing);
        assert!(read_bulk_answer(&Bytes::from("[]"), &gids).is_err());
    }
}
