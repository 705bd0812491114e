//! Admission: while one batch is in Redis the next one gathers; one script call decides it.
//!
//! A caller hears its answer only when the sale's durability class is met. If that cannot be found out, it hears that,
//! and asks again with the same idempotency key.

use super::delivery::Delivery;
use super::known::Known;
use super::waiters::Ended;
use super::{Entry, Job, Part, Refusal};
use crate::crash;
use crate::domain::order::Order;
use crate::domain::sale::Durability;
use crate::outside;
use crate::store::lane::Lane;
use crate::store::orders::{Address, BATCH_SKUS_MAX, Decision, Prepared};
use crate::store::redis::Redis;
use crate::store::{self, promise::Wait};
use crate::telemetry::trace;
use crate::zoo;
use metrics::{counter, histogram};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::{OnceCell, Semaphore, mpsc, oneshot};

/// Script calls under way at a time: while one is in Redis, the answers of another are on their way.
const BATCHES_IN_FLIGHT: usize = 2;
/// A batch of so many is not made to wait for more: its fixed cost is spread thinly enough.
const GATHER_ENOUGH: usize = 64;
/// How often a batch waits for more of what is ready: bounds what the first of it waits.
const GATHER_ROUNDS_MAX: usize = 4;

/// What a buyer's request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Admitted { address: Address, replayed: bool },
    Refused(Refusal),
}

/// An answer, and for a caller that wants to wait for the order's end, where it will be told: registered before the
/// order is delivered, so that it cannot be missed. Not for a replay, whose order may be anywhere.
#[derive(Debug)]
pub struct Asked {
    pub answer: Answer,
    pub ended: Option<oneshot::Receiver<Ended>>,
}

impl Asked {
    pub(super) fn refused(refusal: Refusal) -> Self {
        Self { answer: Answer::Refused(refusal), ended: None }
    }
}

/// What an admission says.
#[derive(Debug)]
pub enum Heard {
    Asked(Asked),
    /// This partition alone cannot say: it was asked by an old number of partitions, or it has not what is wanted, and
    /// others may.
    Back(Box<Prepared>, Decision),
}

/// An order request on its way to a batch.
struct Waiting {
    request: Prepared,
    /// The caller wants to hear the order's end too.
    follow: bool,
    answer: oneshot::Sender<Result<Heard, store::Error>>,
}

/// Where one request's answer goes.
struct Caller {
    follow: bool,
    answer: oneshot::Sender<Result<Heard, store::Error>>,
}

/// The queue in front of one partition's batcher.
pub struct Admission {
    sale: Arc<Part>,
    known: Arc<Known>,
    queue: mpsc::Sender<Waiting>,
}

impl Admission {
    /// Starts the batcher. It ends when the `Admission` is dropped and its queue is empty.
    pub fn start(sale: Arc<Part>, redis: Arc<Redis>, node: Arc<str>, delivery: Delivery) -> Self {
        let (queue, waiting) = mpsc::channel(sale.limits.queue_max);
        let lane = redis.lane();
        let known = Known::start(sale.clone(), redis.clone());
        let batcher = Batcher {
            sale: sale.clone(),
            known: known.clone(),
            redis,
            node,
            delivery,
            lane,
            waiting_lane: OnceCell::new(),
        };
        outside::spawn(batcher.run(waiting));
        Self { sale, known, queue }
    }

    /// The refusal of this order, if this node knows it without asking. Cheaper than [`Self::ask`] by all of Redis.
    pub async fn known_refusal(&self, order: &Order) -> Option<Refusal> {
        let refusal = self.known.refusal(order).await?;
        self.sale.refused.count(refusal);
        Some(refusal)
    }

    /// Has the order decided. Waits for Redis at most as long as its settings say.
    pub async fn ask(&self, request: Prepared, follow: bool) -> Result<Heard, store::Error> {
        if self.sale.backlog.load(Ordering::Relaxed) >= self.sale.limits.backlog_max {
            return Ok(Heard::Asked(self.refuse(Refusal::BacklogFull)));
        }
        let mut span = trace::child("admission", trace::Kind::Internal, request.order.trace.as_deref());
        let (answer, hear) = oneshot::channel();
        match self.queue.try_send(Waiting { request, follow, answer }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Ok(Heard::Asked(self.refuse(Refusal::QueueFull))),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(stopped()),
        }
        let heard = hear.await.unwrap_or_else(|_| Err(stopped()));
        if let Some(span) = span.as_mut().filter(|_| heard.is_err()) {
            span.fail("nobody knows if it was admitted");
        }
        heard
    }

    fn refuse(&self, refusal: Refusal) -> Asked {
        self.sale.refused.count(refusal);
        Asked::refused(refusal)
    }
}

fn stopped() -> store::Error {
    store::Error::NoAnswer("this node is stopping, or met a bug (its log has it)".into())
}

struct Batcher {
    sale: Arc<Part>,
    known: Arc<Known>,
    redis: Arc<Redis>,
    node: Arc<str>,
    delivery: Delivery,
    lane: Lane,
    /// WAIT and WAITAOF block their connection and count only its own writes, so they get one to themselves.
    waiting_lane: OnceCell<Lane>,
}

impl Batcher {
    /// Until nobody has the other end of the queue. A panic is a bug, and the end of those that were gathered just then.
    async fn run(self, mut queue: mpsc::Receiver<Waiting>) {
        let (batcher, in_flight) = (Arc::new(self), Arc::new(Semaphore::new(BATCHES_IN_FLIGHT)));
        while outside::panicked(batcher.clone().gather(&in_flight, &mut queue)).await {}
    }

    async fn gather(self: Arc<Self>, in_flight: &Arc<Semaphore>, queue: &mut mpsc::Receiver<Waiting>) {
        let batcher = self;
        let turn = async || in_flight.clone().acquire_owned().await.expect("this semaphore is never closed");
        let mut gathered = Vec::with_capacity(batcher.sale.limits.batch_max);
        loop {
            // First a turn, then the orders: what comes while all turns are taken makes the next batch larger.
            let mut first_turn = Some(turn().await);
            if queue.recv_many(&mut gathered, batcher.sale.limits.batch_max).await == 0 {
                return;
            }
            gather_more(queue, &mut gathered).await;
            crash::point("admit.gathered");
            while !gathered.is_empty() {
                let length = batch_length(&gathered);
                let (requests, callers): (Vec<_>, Vec<_>) = gathered
                    .drain(..length)
                    .map(|waiting| (waiting.request, Caller { follow: waiting.follow, answer: waiting.answer }))
                    .unzip();
                let turn = match first_turn.take() {
                    Some(turn) => turn,
                    None => turn().await,
                };
                let batcher = batcher.clone();
                match batcher.wait() {
                    Ok(Wait::Nothing) => {
                        outside::spawn(async move {
                            let lane = batcher.lane.clone();
                            batcher.decide(lane, requests, callers, Wait::Nothing).await;
                            drop(turn);
                        });
                    }
                    Ok(wait) => match batcher.waiting_lane.get_or_try_init(async || batcher.redis.own_lane()).await {
                        Ok(lane) => {
                            let lane = lane.clone();
                            // A panic is the end of this batch only.
                            let deciding = batcher.decide(lane, requests, callers, wait);
                            outside::panicked(deciding).await;
                        }
                        Err(error) => fail(callers, &error),
                    },
                    Err(error) => fail(callers, &error),
                }
            }
        }
    }

    /// What to wait for before answering; an error if Redis no longer promises what the sale was created with, or is
    /// away: then nobody is kept waiting for one time-out after the other.
    fn wait(&self) -> Result<Wait, store::Error> {
        if let Some(fence) = self.redis.fence(&self.sale.keys) {
            return Err(store::Error::Fenced(fence));
        }
        if !self.redis.usable_at(&self.sale.keys.sale) {
            return Err(store::Error::Refused {
                code: "AWAY".into(),
                message: "Redis does not answer at present".into(),
            });
        }
        self.redis.has_room_at(&self.sale.keys.sale)?;
        let class = self.sale.stored.load().settings.durability;
        match self.redis.promise_at(&self.sale.keys.sale).wait_for(class) {
            Ok(wait) => Ok(wait),
            // A replica that is away for a moment may be back before WAIT gives up.
            Err(_) if matches!(class, Durability::Replica(_)) => match class {
                Durability::Replica(n) => Ok(Wait::Replicas(n)),
                _ => unreachable!("matched above"),
            },
            Err(problem) => Err(store::Error::Refused { code: "DURABILITY".into(), message: problem }),
        }
    }

    /// One script decides for many, so its span has links to all that are recorded.
    fn script_span(&self, requests: &[Prepared]) -> Option<trace::Span> {
        let traces = requests.iter().map(|request| request.order.trace.as_deref());
        let mut span = trace::shared("order_admit", trace::Kind::Client, traces)?;
        span.set("db.system.name", "redis");
        span.set("rushline.sale", self.sale.name.as_str());
        span.set("rushline.partition", u64::from(self.sale.number));
        span.set("rushline.orders", requests.len() as u64);
        Some(span)
    }

    async fn decide(&self, mut lane: Lane, requests: Vec<Prepared>, callers: Vec<Caller>, wait: Wait) {
        let started = tokio::time::Instant::now();
        let sale = &self.sale;
        let partitions = sale.stored.load().spread.partitions;
        let (requests, callers) = send_back_others(requests, callers, partitions);
        if requests.is_empty() {
            return;
        }
        crash::point("admit.before_script");
        let mut span = self.script_span(&requests);
        let result = self.redis.admit(&mut lane, &sale.keys, &self.node, &requests, wait, sale.limits.patience).await;
        crash::point("admit.after_script");
        if let Some(span) = span.as_mut().filter(|_| result.is_err()) {
            span.fail("the script has no answer");
        }
        drop(span);
        histogram!("rushline_admission_seconds").record(started.elapsed());
        histogram!("rushline_admission_batch_size").record(requests.len() as f64);
        let admitted = match result {
            Ok(admitted) => admitted,
            Err(error) => {
                tracing::debug!(sale = %sale.name, requests = requests.len(), %error, "a batch has no answer");
                fail(callers, &error);
                return;
            }
        };
        self.known.learn(&requests, &admitted.decisions, admitted.version, started);
        if admitted.version != sale.stored.load().version {
            sale.outdated.notify_one();
        }
        let ends: Vec<Option<oneshot::Receiver<Ended>>> = callers
            .iter()
            .zip(&admitted.decisions)
            .map(|(caller, decision)| match decision {
                Decision::Admitted(address) if caller.follow => Some(sale.waiters.wait_for(*address)),
                _ => None,
            })
            .collect();
        let mut orders = Vec::with_capacity(requests.len());
        let (mut kept, mut back) = (Vec::with_capacity(requests.len()), VecDeque::new());
        for (request, decision) in requests.into_iter().zip(&admitted.decisions) {
            match decision {
                Decision::Admitted(_) => {
                    let (order, remembered) = request.split();
                    orders.push(order);
                    kept.push(remembered);
                }
                decision if is_for_others(*decision, partitions) => back.push_back(Box::new(request)),
                _ => {}
            }
        }
        if let Some(id) = admitted.entry {
            counter!("rushline_orders_admitted_total").increment(orders.len() as u64);
            self.redis.remember(&sale.keys, id, admitted.seq, kept);
            sale.backlog.fetch_add(orders.len() as u64, Ordering::Relaxed);
            let entry = Arc::new(Entry::new(sale.clone(), id, orders, started));
            let jobs =
                (0..entry.orders.len() as u16).map(|index| Job { entry: entry.clone(), index, attempts: 0 }).collect();
            self.delivery.accept(entry.clone(), jobs);
        }
        for ((decision, caller), ended) in admitted.decisions.into_iter().zip(callers).zip(ends) {
            let answer = match decision {
                Decision::Admitted(address) => Answer::Admitted { address, replayed: false },
                Decision::Replayed(address) => Answer::Admitted { address, replayed: true },
                decision if is_for_others(decision, partitions) => {
                    let request = back.pop_front().expect("one was put there for each of these");
                    let _ = caller.answer.send(Ok(Heard::Back(request, decision)));
                    continue;
                }
                refused => {
                    let refusal = refusal_of(refused);
                    sale.refused.count(refusal);
                    Answer::Refused(refusal)
                }
            };
            let _ = caller.answer.send(Ok(Heard::Asked(Asked { answer, ended }))); // the buyer may have hung up; the order stands
        }
    }
}

fn refusal_of(decision: Decision) -> Refusal {
    match decision {
        Decision::KeyReused => Refusal::KeyReused,
        Decision::NotOpen => Refusal::NotOpen,
        Decision::Paused => Refusal::Paused,
        Decision::Closed => Refusal::Closed,
        Decision::UnknownSku => Refusal::UnknownSku,
        Decision::LimitReached | Decision::FurtherLimitReached => Refusal::LimitReached,
        Decision::SoldOut => Refusal::SoldOut,
        Decision::Admitted(_) | Decision::Replayed(_) | Decision::Moved => unreachable!("handled by the caller"),
    }
}

/// Is another partition to be asked, or units to be fetched from there? Of a single partition it never is.
fn is_for_others(decision: Decision, partitions: u16) -> bool {
    let alone = partitions == 1 || zoo::planted("a dry partition is a sold-out sale");
    decision == Decision::Moved || !alone && matches!(decision, Decision::SoldOut | Decision::UnknownSku)
}

/// Sends those back that were routed by another number of partitions than the sale has now: one script call is told one.
fn send_back_others(requests: Vec<Prepared>, callers: Vec<Caller>, partitions: u16) -> (Vec<Prepared>, Vec<Caller>) {
    if requests.iter().all(|request| request.partitions == partitions) {
        return (requests, callers);
    }
    let (stay, go): (Vec<_>, Vec<_>) =
        requests.into_iter().zip(callers).partition(|(request, _)| request.partitions == partitions);
    for (request, caller) in go {
        let _ = caller.answer.send(Ok(Heard::Back(Box::new(request), Decision::Moved)));
    }
    stay.into_iter().unzip()
}

fn fail(callers: Vec<Caller>, error: &store::Error) {
    for caller in callers {
        let _ = caller.answer.send(Err(error.clone()));
    }
}

/// Lets connections that are ready be read before the batch leaves, as long as that brings more requests. Under load
/// the batches get larger and each order cheaper; an idle server loses a few microseconds.
async fn gather_more(queue: &mut mpsc::Receiver<Waiting>, gathered: &mut Vec<Waiting>) {
    for _ in 0..GATHER_ROUNDS_MAX {
        let before = gathered.len();
        if before >= GATHER_ENOUGH {
            return;
        }
        tokio::task::yield_now().await;
        while gathered.len() < GATHER_ENOUGH
            && let Ok(waiting) = queue.try_recv()
        {
            gathered.push(waiting);
        }
        if gathered.len() == before {
            return;
        }
    }
}

/// How many of the gathered requests fit one script call: the number of different SKUs is bounded too.
fn batch_length(gathered: &[Waiting]) -> usize {
    let items: usize = gathered.iter().map(|waiting| waiting.request.order.items.len()).sum();
    if items <= BATCH_SKUS_MAX {
        return gathered.len();
    }
    let mut skus = std::collections::HashSet::new();
    for (position, waiting) in gathered.iter().enumerate() {
        skus.extend(waiting.request.order.items.iter().map(|item| &item.sku));
        if skus.len() > BATCH_SKUS_MAX {
            return position;
        }
    }
    gathered.len()
}
