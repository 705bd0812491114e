//! The ledger while it is written: a shard a thread, rows of 48 bytes, texts in one piece of memory.
//!
//! At 100,000 answers a second and more, a lock, an allocation or a string an answer would be seen in what is measured. So a
//! [`Shard`] belongs to one thread and shares nothing until a second is over; then it leaves its [`Second`] for the live view,
//! under a lock that is taken once a second.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

#[cfg(doc)]
use super::Told;
use super::pages::{ADMITTED, CREATED, DONE, Ledger, PIECE_ROWS, Pages, REFUSED, REPLAYED, Row, UNKNOWN};
use super::{BasketId, Called, Kind, Micros, Outcome, Plan, StockSample};

/// Reasons and errors that one shard tells apart; what comes after is [`OTHER`].
const WORDS_MAX: usize = 200;
const OTHER: &str = "other";
/// Latencies up to two minutes; longer ones are counted as that.
const LATENCY_US_MAX: u64 = 120_000_000;
/// Shards a recorder gives out: threads, not connections.
const SHARDS_MAX: usize = 256;

/// The request that an answer belongs to; see [`Told`] for the fields.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub kind: Kind,
    pub intended_us: Micros,
    pub sent_us: Micros,
    pub buyer: u32,
    pub sale: u16,
    pub key: u64,
    pub basket: BasketId,
    pub attempt: u16,
    /// The gid that a confirm, cancel or poll is about.
    pub about: Option<&'a str>,
}

/// The answer to it.
#[derive(Debug, Clone, Copy)]
pub struct Heard<'a> {
    pub answered_us: Micros,
    pub status: u16,
    pub replayed: bool,
    pub outcome: Outcome<'a>,
}

/// Answers by outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub admitted: u64,
    pub created: u64,
    /// Confirms and cancels that took effect.
    pub done: u64,
    /// By reason.
    pub refused: BTreeMap<String, u64>,
    /// By error.
    pub unknown: BTreeMap<String, u64>,
    /// Of all these, the answers that were said to be repeats.
    pub replayed: u64,
}

impl Counts {
    pub fn answers(&self) -> u64 {
        self.admitted
            + self.created
            + self.done
            + self.refused.values().sum::<u64>()
            + self.unknown.values().sum::<u64>()
    }

    /// One answer more.
    pub fn note(&mut self, outcome: Outcome<'_>, replayed: bool) {
        self.replayed += u64::from(replayed);
        let (words, word) = match outcome {
            Outcome::Admitted { .. } => return self.admitted += 1,
            Outcome::Created { .. } => return self.created += 1,
            Outcome::Done { .. } => return self.done += 1,
            Outcome::Refused { reason } => (&mut self.refused, reason),
            Outcome::Unknown { error } => (&mut self.unknown, error),
        };
        match words.get_mut(word) {
            Some(n) => *n += 1,
            None => _ = words.insert(word.into(), 1),
        }
    }

    pub fn add(&mut self, other: &Self) {
        self.admitted += other.admitted;
        self.created += other.created;
        self.done += other.done;
        self.replayed += other.replayed;
        for (mine, theirs) in [(&mut self.refused, &other.refused), (&mut self.unknown, &other.unknown)] {
            theirs.iter().for_each(|(word, n)| *mine.entry(word.clone()).or_default() += n);
        }
    }
}

/// One second of one shard, or of all: answers that came in it.
#[derive(Debug, Clone)]
pub struct Second {
    /// Counted from the run's beginning.
    pub second: u64,
    pub counts: Counts,
    /// Microseconds from the intended time; two digits, which is what a plot shows.
    pub latency: Histogram<u32>,
}

impl Second {
    fn new(second: u64) -> Self {
        Self { second, counts: Counts::default(), latency: histogram(2) }
    }
}

fn histogram<C: hdrhistogram::Counter>(digits: u8) -> Histogram<C> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, digits).expect("these bounds are valid")
}

/// Gives out shards and takes them back. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    inner: Arc<Inner>,
}

struct Inner {
    rows_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    shards: usize,
    out: usize,
    pages: Vec<Pages>,
    /// Seconds that are over, oldest first, of all shards together.
    seconds: BTreeMap<u64, Second>,
    called: Vec<Called>,
    stock: Vec<StockSample>,
    latency: Option<Histogram<u64>>,
    lateness: Option<Histogram<u64>>,
    counts: Counts,
}

/// One thread's part of the ledger. Dropping it hands it in.
pub struct Shard {
    recorder: Recorder,
    rows_max: usize,
    rows_now: usize,
    pages: Pages,
    second: Second,
    /// By index into `words`.
    word_counts: Vec<(u64, u64)>,
    plain: [u64; 3],
    replayed: u64,
    latency: Histogram<u64>,
    lateness: Histogram<u64>,
    counts: Counts,
}

impl Recorder {
    /// Each shard keeps at most `rows_max` answers; more are counted, and the oracle says that it cannot judge.
    pub fn new(rows_max: usize) -> Self {
        Self { inner: Arc::new(Inner { rows_max, state: Mutex::default() }) }
    }

    /// The part of one thread.
    pub fn shard(&self) -> Shard {
        let mut state = self.state();
        assert!(state.shards < SHARDS_MAX, "a shard is for a thread, not for a connection");
        state.shards += 1;
        state.out += 1;
        Shard {
            recorder: self.clone(),
            rows_max: self.inner.rows_max,
            rows_now: 0,
            pages: Pages::default(),
            second: Second::new(0),
            word_counts: Vec::new(),
            plain: [0; 3],
            replayed: 0,
            latency: histogram(3),
            lateness: histogram(3),
            counts: Counts::default(),
        }
    }

    /// Notes calls that the order service got. For whoever brings the service's own list, after the run or now and then.
    pub fn called(&self, calls: impl IntoIterator<Item = Called>) {
        self.state().called.extend(calls);
    }

    /// Notes what the shop said of its stock.
    pub fn stock(&self, sample: StockSample) {
        self.state().stock.push(sample);
    }

    /// The seconds that every answer of so far is in, from `from` on. The newest may still grow.
    #[cfg(test)]
    pub fn seconds(&self, from: u64) -> Vec<Second> {
        self.state().seconds.range(from..).map(|(_, second)| second.clone()).collect()
    }

    /// Sums so far, and the newest second before `second`: for the live view.
    pub fn glance(&self, second: u64) -> (Counts, Option<Second>) {
        let state = self.state();
        let mut sums = Counts::default();
        state.seconds.values().for_each(|second| sums.add(&second.counts));
        (sums, state.seconds.range(..second).next_back().map(|(_, second)| second.clone()))
    }

    /// The newest sample of each SKU.
    pub fn stock_now(&self) -> Vec<StockSample> {
        let mut newest = BTreeMap::new();
        let state = self.state();
        state.stock.iter().for_each(|sample| _ = newest.insert(&*sample.sku, sample));
        newest.into_values().cloned().collect()
    }

    /// The whole ledger; an error if a thread still writes.
    pub fn finish(&self, plan: Plan) -> anyhow::Result<Ledger> {
        let mut state = self.state();
        anyhow::ensure!(state.out == 0, "{} threads still write into the ledger", state.out);
        let state = std::mem::take(&mut *state);
        Ok(Ledger {
            plan,
            pages: state.pages,
            seconds: state.seconds.into_values().collect(),
            called: state.called,
            stock: state.stock,
            latency: state.latency.unwrap_or_else(|| histogram(3)),
            lateness: state.lateness.unwrap_or_else(|| histogram(3)),
            counts: state.counts,
        })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.inner.state.lock().expect("no panic while locked")
    }
}

impl Shard {
    /// Notes one answer. No lock and no allocation, but for one a second and one every 65,536 answers.
    pub fn tell(&mut self, asked: Asked<'_>, heard: Heard<'_>) {
        let second = heard.answered_us / 1_000_000;
        if second != self.second.second {
            self.turn(second);
        }
        let latency_us = heard.answered_us.saturating_sub(asked.intended_us);
        self.second.latency.saturating_record(latency_us);
        self.latency.saturating_record(latency_us);
        self.lateness.saturating_record(asked.sent_us.saturating_sub(asked.intended_us));
        self.replayed += u64::from(heard.replayed);
        let (outcome, gid, word) = match heard.outcome {
            Outcome::Admitted { gid } => (ADMITTED, Some(gid), 0),
            Outcome::Created { gid } => (CREATED, Some(gid), 0),
            Outcome::Done { gid } => (DONE, Some(gid), 0),
            Outcome::Refused { reason } => (REFUSED, asked.about, self.word(reason)),
            Outcome::Unknown { error } => (UNKNOWN, asked.about, self.word(error)),
        };
        match outcome {
            REFUSED => self.word_counts[usize::from(word)].0 += 1,
            UNKNOWN => self.word_counts[usize::from(word)].1 += 1,
            plain => self.plain[usize::from(plain)] += 1,
        }
        let gid = gid.unwrap_or_default();
        let place = (u32::try_from(self.pages.text.len()), u16::try_from(gid.len()));
        let (Ok(gid_at), Ok(gid_len)) = place else { return self.pages.left_out += 1 };
        if self.rows_now >= self.rows_max {
            return self.pages.left_out += 1;
        }
        self.pages.text.extend_from_slice(gid.as_bytes());
        self.rows_now += 1;
        self.push(Row {
            intended_us: asked.intended_us,
            key: asked.key,
            sent_after_us: after(asked.sent_us, asked.intended_us),
            answered_after_us: after(heard.answered_us, asked.intended_us),
            buyer: asked.buyer,
            basket: asked.basket,
            gid_at,
            gid_len,
            sale: asked.sale,
            status: heard.status,
            word,
            attempt: asked.attempt,
            kind: asked.kind,
            outcome: outcome | if heard.replayed { REPLAYED } else { 0 },
        });
    }

    fn push(&mut self, row: Row) {
        match self.pages.rows.last_mut() {
            Some(piece) if piece.len() < PIECE_ROWS => piece.push(row),
            _ => {
                let mut piece = Vec::with_capacity(PIECE_ROWS);
                piece.push(row);
                self.pages.rows.push(piece);
            }
        }
    }

    /// Reasons are few, so looking through them is quicker than hashing.
    fn word(&mut self, text: &str) -> u16 {
        let words = &mut self.pages.words;
        let known = words.iter().position(|word| **word == *text);
        let at = known.unwrap_or_else(|| {
            let text = if words.len() < WORDS_MAX { text } else { OTHER };
            words.iter().position(|word| **word == *text).unwrap_or_else(|| {
                words.push(text.into());
                self.word_counts.push((0, 0));
                words.len() - 1
            })
        });
        u16::try_from(at).expect("there are at most 201 words")
    }

    /// Leaves the second that is over and begins another; the live view sees it from now on.
    pub fn turn(&mut self, second: u64) {
        let mut over = std::mem::replace(&mut self.second, Second::new(second));
        let [admitted, created, done] = std::mem::take(&mut self.plain);
        over.counts =
            Counts { admitted, created, done, replayed: std::mem::take(&mut self.replayed), ..Counts::default() };
        for (word, counts) in self.pages.words.iter().zip(&mut self.word_counts) {
            let (refused, unknown) = std::mem::take(counts);
            for (map, n) in [(&mut over.counts.refused, refused), (&mut over.counts.unknown, unknown)] {
                if n > 0 {
                    map.insert(word.to_string(), n);
                }
            }
        }
        if over.latency.is_empty() {
            return;
        }
        self.counts.add(&over.counts);
        let mut state = self.recorder.state();
        let all = state.seconds.entry(over.second).or_insert_with(|| Second::new(over.second));
        all.counts.add(&over.counts);
        all.latency.add(&over.latency).expect("same bounds");
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        self.turn(0);
        let mut state = self.recorder.inner.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        state.out -= 1;
        state.pages.push(std::mem::take(&mut self.pages));
        state.counts.add(&self.counts);
        state.latency.get_or_insert_with(|| histogram(3)).add(&self.latency).expect("same bounds");
        state.lateness.get_or_insert_with(|| histogram(3)).add(&self.lateness).expect("same bounds");
    }
}

fn after(later: Micros, earlier: Micros) -> u32 {
    u32::try_from(later.saturating_sub(earlier)).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "recorder_tests.rs"]
mod tests;
