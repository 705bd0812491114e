//! The keeper owns what this node has in flight for one partition of a sale: which entries, what became of their
//! orders, when to try again, and whether the leases still hold. One task, no locks.
//!
//! Ends of orders are gathered like admissions: while one finish script runs the next ones gather. An entry whose
//! orders have not all ended is written after a short linger, so that most entries are written once.

mod reserving;
mod retrying;

use super::delivery::{Delivery, Verdict, without_words};
use super::finished::{Batch, EndedEntry, Finished};
use super::waiters::Ended;
use super::{Entry, Job, Part};
use crate::crash;
use crate::domain::ids::EntryId;
use crate::domain::order::Status;
use crate::domain::reservation::State;
use crate::domain::retry::backoff;
use crate::outside;
use crate::store::lane::Lane;
use crate::store::orders::{Address, Detail, Finish, Sums, status_of};
use crate::store::redis::Redis;
use crate::zoo;
use metrics::counter;
use retrying::Due;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// How long an ended order waits for the others of its entry.
const LINGER: Duration = Duration::from_millis(20);
/// How long an entry whose orders have all ended waits for others, to be written by the same script.
const LINGER_COMPLETE: Duration = Duration::from_millis(8);
/// Most entries of one finish script.
const ENTRIES_MAX: usize = 128;
/// Most details of one finish script: they pass through Lua's stack.
const DETAILS_MAX: usize = 1000;
/// Pause before a finish script without an answer is sent again.
const AGAIN: Duration = Duration::from_millis(100);
/// Entries whose lease is renewed by one script.
const RENEW_MAX: usize = 200;

pub enum Message {
    /// A batch was admitted by this node.
    Accepted(Arc<Entry>),
    /// A batch was taken over, with its outcome so far; its open orders as jobs with the delay until they are due.
    TakenOver {
        entry: Arc<Entry>,
        outcome: String,
        jobs: Vec<(Job, Duration)>,
    },
    Answered(Job, Verdict),
    /// Write what has ended and let go of the rest; told when that is done.
    HandOver(oneshot::Sender<()>),
}

/// One entry of this node.
struct Held {
    entry: Arc<Entry>,
    /// Its outcome as Redis has it, as far as we know: a [`State::code`] an order.
    written: Vec<u8>,
    /// Orders that ended and are not written yet.
    ended: Vec<EndedOrder>,
    /// What there is to say of orders whose end this node wrote: none for most of them.
    details: Vec<(u16, Detail)>,
    /// This node saw the end of all orders so far, so it knows all there is to put into the records.
    whole: bool,
    /// Somebody waits for one of its orders: no lingering.
    urgent: bool,
    queued: bool,
}

struct EndedOrder {
    index: u16,
    created: bool,
    attempts: u32,
    message: Option<String>,
}

pub struct Keeper {
    sale: Arc<Part>,
    redis: Arc<Redis>,
    node: Arc<str>,
    delivery: Delivery,
    lane: Lane,
    held: HashMap<EntryId, Held>,
    /// Entries with unwritten ends, and when to write them at the latest; an entry may stand here twice.
    dirty: BinaryHeap<Reverse<(Instant, EntryId)>>,
    due: BinaryHeap<Due>,
    /// Tries that failed since the last note of them.
    unnoted: Vec<(Address, Duration, Detail)>,
    renew_at: Instant,
    /// The last word of those who want something tried again that was heard.
    heard_again: String,
    /// Where entries go that have come to an end.
    finished: Arc<Finished>,
}

/// What it held is nobody's: neither called nor counted.
impl Drop for Keeper {
    fn drop(&mut self) {
        let ids: Vec<EntryId> = self.held.keys().copied().collect();
        ids.into_iter().for_each(|id| self.let_go(id));
    }
}

impl Keeper {
    fn new(sale: Arc<Part>, redis: Arc<Redis>, node: Arc<str>, delivery: Delivery, finished: Arc<Finished>) -> Self {
        let renew_at = Instant::now() + sale.limits.lease / 3;
        Self {
            lane: redis.lane(),
            sale,
            redis,
            node,
            delivery,
            held: HashMap::new(),
            dirty: BinaryHeap::new(),
            due: BinaryHeap::new(),
            unnoted: Vec::new(),
            renew_at,
            heard_again: "0".into(),
            finished,
        }
    }

    /// Keeps until the server ends. A panic is a bug, and the end of what this keeper held: leases run out, and the sweep
    /// hands it all to the next one.
    pub async fn keep(
        sale: Arc<Part>,
        redis: Arc<Redis>,
        node: Arc<str>,
        delivery: Delivery,
        finished: Arc<Finished>,
        mut inbox: mpsc::UnboundedReceiver<Message>,
    ) {
        let begin = || Self::new(sale.clone(), redis.clone(), node.clone(), delivery.clone(), finished.clone());
        while outside::panicked(begin().run(&mut inbox)).await {}
    }

    async fn run(mut self, inbox: &mut mpsc::UnboundedReceiver<Message>) {
        let mut messages = Vec::with_capacity(1024);
        loop {
            tokio::select! {
                biased; // whichever comes first, all that there is to do is done below
                received = inbox.recv_many(&mut messages, 1024) => if received == 0 { return },
                () = tokio::time::sleep_until(self.wake_at()) => {}
            }
            for message in messages.drain(..) {
                match message {
                    Message::Accepted(entry) => self.accepted(entry),
                    Message::TakenOver { entry, outcome, jobs } => self.take_over(entry, outcome, jobs),
                    Message::Answered(job, verdict) => self.answered(job, verdict),
                    Message::HandOver(done) => {
                        self.hand_over().await;
                        let _ = done.send(());
                    }
                }
            }
            self.call_due();
            self.note_retries().await;
            self.write_ended().await;
            if Instant::now() >= self.renew_at {
                self.renew().await;
                self.hear_again().await;
            }
        }
    }

    fn wake_at(&self) -> Instant {
        let mut at = self.renew_at;
        if let Some(Reverse((linger, _))) = self.dirty.peek() {
            at = at.min(*linger);
        }
        if let Some(due) = self.due.peek() {
            at = at.min(due.0);
        }
        at
    }

    fn accepted(&mut self, entry: Arc<Entry>) {
        if self.held.contains_key(&entry.id) {
            // Our own sweep was quicker than the answer to its admission.
            entry.lose();
            self.sale.backlog.fetch_sub(entry.orders.len() as u64, Ordering::Relaxed);
            return;
        }
        let outcome = vec![b'.'; entry.orders.len()];
        self.hold(entry, outcome);
    }

    fn hold(&mut self, entry: Arc<Entry>, written: Vec<u8>) {
        let whole = written.iter().all(|code| *code == b'.');
        let id = entry.id;
        let held = Held { entry, written, ended: Vec::new(), details: Vec::new(), whole, urgent: false, queued: false };
        self.held.insert(id, held);
    }

    fn take_over(&mut self, entry: Arc<Entry>, outcome: String, jobs: Vec<(Job, Duration)>) {
        if self.held.contains_key(&entry.id) {
            return; // our own, renewed late
        }
        counter!("rushline_entries_taken_over_total").increment(1);
        self.sale.backlog.fetch_add(jobs.len() as u64, Ordering::Relaxed);
        self.hold(entry, outcome.into_bytes());
        let now = Instant::now();
        let (at_once, later): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|(_, delay)| delay.is_zero());
        self.delivery.call(at_once.into_iter().map(|(job, _)| job).collect());
        self.due.extend(later.into_iter().map(|(job, delay)| Due(now + delay, job)));
    }

    fn answered(&mut self, job: Job, verdict: Verdict) {
        let Some(held) = self.held.get_mut(&job.entry.id) else { return }; // another node has it now
        // An order must be counted once: not again for a call made before the entry was lost and won back, nor when
        // another node's end of it is written already.
        if !Arc::ptr_eq(&held.entry, &job.entry) || !State::code_is_unanswered(held.written[usize::from(job.index)]) {
            return;
        }
        let address = job.address();
        let (created, message) = match verdict {
            Verdict::Created => (true, None),
            Verdict::Refused { message } => (false, Some(message)),
            Verdict::Ongoing if zoo::planted("425 is taken for created") => (true, None),
            Verdict::Ongoing => return self.again(job, self.sale.limits.ongoing, "ONGOING".into()),
            Verdict::Unknown { error } if zoo::planted("no answer is taken for a refusal") => (false, Some(error)),
            Verdict::Unknown { error } => {
                let retry = NonZeroU32::new(job.attempts).expect("a call was made");
                let ceiling = backoff(retry, self.sale.limits.retry_base, self.sale.limits.retry_max);
                // Between half and the whole of the ceiling: orders that failed together do not come back together.
                let delay = ceiling.mul_f64(0.5 + fastrand::f64() / 2.0);
                tracing::debug!(gid = %self.sale.gid(address), attempts = job.attempts, error = without_words(&error), "an order is tried again later");
                return self.again(job, delay, error);
            }
        };
        held.urgent |= self.sale.waiters.is_waited_for(&address);
        held.ended.push(EndedOrder { index: job.index, created, attempts: job.attempts, message });
        let complete = held.ended.len() == open_orders(&held.written);
        let linger = match (held.urgent, complete) {
            (true, _) => Duration::ZERO,
            (false, true) => LINGER_COMPLETE,
            // Its line is in the heap already; the rest of the entry goes with it or gets a shorter one.
            (false, false) if held.queued => return,
            (false, false) => LINGER,
        };
        held.queued = true;
        self.dirty.push(Reverse((Instant::now() + linger, job.entry.id)));
    }

    fn is_due(&self) -> bool {
        self.dirty.peek().is_some_and(|Reverse((at, _))| *at <= Instant::now())
    }

    /// Writes entries that are complete, waited for, or have lingered long enough.
    async fn write_ended(&mut self) {
        while self.is_due() {
            let mut batch = Vec::new();
            let mut details = 0;
            while batch.len() < ENTRIES_MAX && details < DETAILS_MAX && self.is_due() {
                let Reverse((_, id)) = self.dirty.pop().expect("one is due");
                let Some(held) = self.held.get_mut(&id) else { continue };
                if held.ended.is_empty() || batch.contains(&id) {
                    continue; // written already, by an earlier line of this queue
                }
                held.queued = false;
                held.urgent = false;
                details += held.ended.len();
                batch.push(id);
            }
            if !batch.is_empty() && !self.write(&batch).await {
                let at = Instant::now() + AGAIN;
                self.dirty.extend(batch.into_iter().map(|id| Reverse((at, id))));
                return;
            }
        }
    }

    /// Sends one finish script, again as long as Redis knows better about some entry. False: no answer, try later.
    async fn write(&mut self, batch: &[EntryId]) -> bool {
        if self.sale.by_moves {
            return self.write_reservations(batch).await;
        }
        loop {
            let (finishes, sums) = self.compose(batch);
            if finishes.is_empty() {
                return true;
            }
            crash::point("finish.before_script");
            match self.redis.finish(&mut self.lane, &self.sale.keys, &finishes, &sums).await {
                Ok(answer) if answer.stale.is_empty() => {
                    crash::point("finish.after_script");
                    self.settle(finishes, answer.notice);
                    return true;
                }
                Ok(answer) => {
                    for (id, current) in answer.stale {
                        self.learn(id, current);
                    }
                }
                Err(error) => {
                    tracing::warn!(sale = %self.sale.name, entries = finishes.len(), %error, "ended orders are not written yet");
                    return false;
                }
            }
        }
    }

    fn compose(&self, batch: &[EntryId]) -> (Vec<Finish>, Sums) {
        let mut finishes = Vec::with_capacity(batch.len());
        let mut sums = Sums::default();
        for held in batch.iter().filter_map(|id| self.held.get(id)).filter(|held| !held.ended.is_empty()) {
            let mut new = held.written.clone();
            for ended in &held.ended {
                new[usize::from(ended.index)] = if ended.created { b's' } else { b'f' };
                let order = &held.entry.orders[usize::from(ended.index)];
                for item in &order.items {
                    let units = u64::from(item.quantity);
                    let (sold, back) = match sums.skus.get_mut(&item.sku) {
                        Some(sums) => sums,
                        None => sums.skus.entry(item.sku.clone()).or_default(),
                    };
                    if ended.created {
                        *sold += units;
                    } else {
                        *back += units;
                        *sums.buyers.entry(order.buyer.as_str().to_owned()).or_default() += units;
                    }
                }
                let address = Address { entry: held.entry.id, index: ended.index };
                if ended.attempts > 1 {
                    sums.retries.push(address);
                }
                if ended.attempts > 1 || !ended.created {
                    sums.details.push((address, Detail { attempts: ended.attempts, message: ended.message.clone() }));
                }
            }
            finishes.push(Finish { entry: held.entry.id, expected: text(&held.written), new: text(&new) });
        }
        (finishes, sums)
    }

    /// The finish script did as it was told.
    fn settle(&mut self, finishes: Vec<Finish>, notice: Option<EntryId>) {
        let (mut created, mut refused) = (0, 0);
        let mut batch = notice.map(|notice| Batch::new(self.sale.clone(), notice));
        for finish in finishes {
            let Some(held) = self.held.get_mut(&finish.entry) else { continue };
            held.written = finish.new.into_bytes();
            for ended in held.ended.drain(..) {
                let status = if ended.created { Status::Succeed } else { Status::Failed };
                if ended.created {
                    created += 1
                } else {
                    refused += 1
                }
                let address = Address { entry: finish.entry, index: ended.index };
                retrying::has_ended(&self.sale, address, ended.attempts);
                if ended.attempts > 1 || !ended.created {
                    held.details
                        .push((ended.index, Detail { attempts: ended.attempts, message: ended.message.clone() }));
                }
                self.sale.waiters.tell(&address, &Ended { status, message: ended.message });
            }
            if !held.written.contains(&b'.')
                && let Some(held) = self.held.remove(&finish.entry)
                && let Some(batch) = &mut batch
            {
                match held.whole {
                    true => batch.push(EndedEntry { entry: held.entry, codes: held.written, details: held.details }),
                    false => batch.push_unknown(finish.entry),
                }
            }
        }
        counter!("rushline_orders_ended_total", "status" => "succeed").increment(created);
        counter!("rushline_orders_ended_total", "status" => "failed").increment(refused);
        self.sale.backlog.fetch_sub(created + refused, Ordering::Relaxed);
        if let Some(batch) = batch {
            self.finished.push(batch);
        }
    }

    /// Redis has another outcome of this entry than we thought: an earlier script whose reply was lost, or a node
    /// that took it over. What is written stands.
    fn learn(&mut self, id: EntryId, current: String) {
        let Some(held) = self.held.get_mut(&id) else { return };
        if current.len() != held.written.len() {
            // The entry is gone: ended and drained. Whoever waits looks it up.
            self.let_go(id);
            return;
        }
        let mut news = 0;
        for (index, (before, after)) in held.written.iter().zip(current.bytes()).enumerate() {
            if State::code_is_unanswered(*before) && !State::code_is_unanswered(after) {
                news += 1;
                let address = Address { entry: id, index: index as u16 };
                let message = held
                    .ended
                    .iter()
                    .find(|ended| usize::from(ended.index) == index)
                    .and_then(|ended| ended.message.clone());
                self.sale.waiters.tell(&address, &Ended { status: status_of(after), message });
            }
        }
        held.whole = false; // the details of an earlier end are in Redis
        held.written = current.into_bytes();
        let written = &held.written;
        held.ended.retain(|ended| State::code_is_unanswered(written[usize::from(ended.index)]));
        self.sale.backlog.fetch_sub(news, Ordering::Relaxed);
        if open_orders(&held.written) == 0 {
            self.held.remove(&id); // its notice is there: a sweep finds it
        }
    }

    /// This entry is another node's, or nobody's any more.
    fn let_go(&mut self, id: EntryId) {
        if let Some(held) = self.held.remove(&id) {
            held.entry.lose();
            let open = open_orders(&held.written);
            self.sale.backlog.fetch_sub(open as u64, Ordering::Relaxed);
            for index in 0..held.entry.orders.len() {
                self.sale.waiters.forget(&Address { entry: id, index: index as u16 });
            }
        }
    }

    /// Renews the leases of all entries that need it, and learns which were lost.
    async fn renew(&mut self) {
        let started = Instant::now();
        if zoo::planted("leases are not renewed") {
            self.held.values().for_each(|held| held.entry.renewed(started, &self.sale.limits));
            self.renew_at = started + self.sale.limits.lease / 3;
            return;
        }
        let third = self.sale.limits.lease / 3;
        // Younger ones can wait for the next time: then they are half a lease old at most.
        let old = self.held.values().filter(|held| held.entry.age() >= third / 2);
        let mut old: Vec<EntryId> = old.map(|held| held.entry.id).collect();
        old.sort_unstable(); // a simulated run repeats only if nothing hangs on a map's order
        for some in old.chunks(RENEW_MAX) {
            match self.redis.renew(&mut self.lane, &self.sale.keys, &self.node, some).await {
                Ok(lost) => {
                    for held in some.iter().filter(|id| !lost.contains(id)).filter_map(|id| self.held.get(id)) {
                        held.entry.renewed(started, &self.sale.limits);
                    }
                    for id in lost {
                        // Also one whose end was written, but the answer to that was lost.
                        tracing::warn!(sale = %self.sale.name, entry = %id, "an entry is no longer this node's: its lease ran out, or its end is written already");
                        self.let_go(id);
                    }
                }
                Err(error) => {
                    tracing::warn!(sale = %self.sale.name, %error, "leases are not renewed; no calls until they are");
                    self.renew_at = started + third / 2;
                    return;
                }
            }
        }
        self.renew_at = started + third;
    }

    /// Writes what has ended, and tells Redis that the rest may be taken over at once.
    async fn hand_over(&mut self) {
        let mut ids: Vec<EntryId> = self.held.keys().copied().collect();
        ids.sort_unstable();
        for batch in ids.chunks(ENTRIES_MAX) {
            self.write(batch).await;
        }
        ids.retain(|id| self.held.contains_key(id));
        let open = ids;
        if open.is_empty() {
            return;
        }
        tracing::info!(sale = %self.sale.name, entries = open.len(), "handing over what is not delivered");
        for some in open.chunks(RENEW_MAX) {
            if let Err(error) =
                self.redis.hand_over(&mut self.lane, &self.sale.keys, &self.node, some, self.sale.limits.lease).await
            {
                tracing::warn!(%error, "could not hand over; another node takes over when the lease runs out");
                return;
            }
        }
    }
}

/// Orders of which the order service has still to say if it makes them.
fn open_orders(codes: &[u8]) -> usize {
    codes.iter().filter(|code| State::code_is_unanswered(**code)).count()
}

fn text(codes: &[u8]) -> String {
    codes.iter().copied().map(char::from).collect()
}
