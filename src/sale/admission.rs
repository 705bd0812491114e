//! Admission: while one batch is in Redis the next one gathers; one script call decides it.
//!
//! A caller hears its answer only when the sale's durability class is met. If that cannot be found out, it hears that,
//! and asks again with the same idempotency key.

use super::delivery::Delivery;
use super::{Entry, Job, Refusal, Sale};
use crate::domain::ids::Gid;
use crate::domain::order::Order;
use crate::domain::sale::Durability;
use crate::store::orders::{BATCH_SKUS_MAX, Decision, Prepared};
use crate::store::redis::Redis;
use crate::store::{self, promise::Wait};
use metrics::{counter, histogram};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::{mpsc, oneshot};

/// What a buyer's request came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Admitted { gid: Gid, replayed: bool },
    Refused(Refusal),
}

/// An order request on its way to a batch.
struct Waiting {
    request: Prepared,
    answer: oneshot::Sender<Result<Answer, store::Error>>,
}

/// The queue in front of one partition's batcher.
pub struct Admission {
    sale: Arc<Sale>,
    queue: mpsc::Sender<Waiting>,
}

impl Admission {
    /// Starts the batcher. It ends when the `Admission` is dropped and its queue is empty.
    pub fn start(sale: Arc<Sale>, redis: Arc<Redis>, node: Arc<str>, delivery: Delivery) -> Self {
        let (queue, waiting) = mpsc::channel(sale.limits.queue_max);
        let batcher = Batcher { sale: sale.clone(), redis, node, delivery };
        tokio::spawn(batcher.run(waiting));
        Self { sale, queue }
    }

    /// Has the order decided. Waits for Redis at most as long as its settings say.
    pub async fn ask(&self, order: Order) -> Result<Answer, store::Error> {
        if self.sale.backlog.load(Ordering::Relaxed) >= self.sale.limits.backlog_max {
            return Ok(self.refuse(Refusal::BacklogFull));
        }
        let (answer, hear) = oneshot::channel();
        match self.queue.try_send(Waiting { request: Prepared::new(order), answer }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Ok(self.refuse(Refusal::QueueFull)),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(stopped()),
        }
        hear.await.unwrap_or_else(|_| Err(stopped()))
    }

    fn refuse(&self, refusal: Refusal) -> Answer {
        self.sale.refused.count(refusal);
        Answer::Refused(refusal)
    }
}

fn stopped() -> store::Error {
    store::Error::NoAnswer("this node is stopping".into())
}

struct Batcher {
    sale: Arc<Sale>,
    redis: Arc<Redis>,
    node: Arc<str>,
    delivery: Delivery,
}

impl Batcher {
    async fn run(self, mut queue: mpsc::Receiver<Waiting>) {
        let mut lane = self.redis.lane();
        // WAIT and WAITAOF block their connection, and count only its own writes.
        let mut own_lane = None;
        let mut gathered = Vec::with_capacity(self.sale.limits.batch_max);
        while queue.recv_many(&mut gathered, self.sale.limits.batch_max).await > 0 {
            while !gathered.is_empty() {
                let rest = gathered.split_off(batch_length(&gathered));
                let (requests, answers): (Vec<_>, Vec<_>) =
                    gathered.into_iter().map(|waiting| (waiting.request, waiting.answer)).unzip();
                gathered = rest;
                let wait = self.wait();
                let lane = match wait {
                    Ok(Wait::Nothing) | Err(_) => &mut lane,
                    Ok(_) => match &mut own_lane {
                        Some(own) => own,
                        none => match self.redis.own_lane() {
                            Ok(own) => none.insert(own),
                            Err(error) => {
                                fail(answers, &error);
                                continue;
                            }
                        },
                    },
                };
                match wait {
                    Ok(wait) => self.decide(lane, requests, answers, wait).await,
                    Err(error) => fail(answers, &error),
                }
            }
        }
    }

    /// What to wait for before answering; an error if Redis no longer promises what the sale was created with, or is
    /// away: then nobody is kept waiting for one time-out after the other.
    fn wait(&self) -> Result<Wait, store::Error> {
        if !self.redis.usable() {
            return Err(store::Error::Refused {
                code: "AWAY".into(),
                message: "Redis does not answer at present".into(),
            });
        }
        let class = self.sale.stored.load().settings.durability;
        match self.redis.promise().wait_for(class) {
            Ok(wait) => Ok(wait),
            // A replica that is away for a moment may be back before WAIT gives up.
            Err(_) if matches!(class, Durability::Replica(_)) => match class {
                Durability::Replica(n) => Ok(Wait::Replicas(n)),
                _ => unreachable!("matched above"),
            },
            Err(problem) => Err(store::Error::Refused { code: "DURABILITY".into(), message: problem }),
        }
    }

    async fn decide(
        &self,
        lane: &mut redis::aio::ConnectionManager,
        requests: Vec<Prepared>,
        answers: Vec<oneshot::Sender<Result<Answer, store::Error>>>,
        wait: Wait,
    ) {
        let started = tokio::time::Instant::now();
        let sale = &self.sale;
        let result = self.redis.admit(lane, &sale.keys, &self.node, &requests, wait, sale.limits.patience).await;
        histogram!("rushline_admission_seconds").record(started.elapsed());
        histogram!("rushline_admission_batch_size").record(requests.len() as f64);
        let admitted = match result {
            Ok(admitted) => admitted,
            Err(error) => {
                tracing::debug!(sale = %sale.name, requests = requests.len(), %error, "a batch has no answer");
                fail(answers, &error);
                return;
            }
        };
        if admitted.version != sale.stored.load().version {
            sale.outdated.notify_one();
        }
        if let Some(id) = admitted.entry {
            let orders: Vec<Order> = requests
                .into_iter()
                .zip(&admitted.decisions)
                .filter(|(_, decision)| matches!(decision, Decision::Admitted(_)))
                .map(|(request, _)| request.order)
                .collect();
            counter!("rushline_orders_admitted_total").increment(orders.len() as u64);
            sale.backlog.fetch_add(orders.len() as u64, Ordering::Relaxed);
            let entry = Arc::new(Entry { id, orders });
            let jobs =
                (0..entry.orders.len() as u16).map(|index| Job { entry: entry.clone(), index, attempts: 0 }).collect();
            self.delivery.accept(entry.clone(), jobs);
        }
        for (decision, answer) in admitted.decisions.into_iter().zip(answers) {
            let said = match decision {
                Decision::Admitted(address) => Answer::Admitted { gid: sale.gid(address), replayed: false },
                Decision::Replayed(address) => Answer::Admitted { gid: sale.gid(address), replayed: true },
                refused => {
                    let refusal = refusal_of(refused);
                    sale.refused.count(refusal);
                    Answer::Refused(refusal)
                }
            };
            let _ = answer.send(Ok(said)); // the buyer may have hung up; the order stands all the same
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
        Decision::LimitReached => Refusal::LimitReached,
        Decision::SoldOut => Refusal::SoldOut,
        Decision::Admitted(_) | Decision::Replayed(_) => unreachable!("handled by the caller"),
    }
}

fn fail(answers: Vec<oneshot::Sender<Result<Answer, store::Error>>>, error: &store::Error) {
    for answer in answers {
        let _ = answer.send(Err(error.clone()));
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
