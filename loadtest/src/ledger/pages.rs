//! The ledger when it is read: rows of 48 bytes, turned into [`Told`] one by one.

use hdrhistogram::Histogram;

use super::recorder::{Counts, Second};
use super::{BasketId, Called, Kind, Outcome, Plan, StockSample, Told};

/// Rows in one piece; a `Vec` that grew as a whole would be copied while the clock runs.
pub(super) const PIECE_ROWS: usize = 65_536;

/// One answer, packed.
pub(super) struct Row {
    pub(super) intended_us: u64,
    pub(super) key: u64,
    /// After `intended_us`; an hour and more is cut.
    pub(super) sent_after_us: u32,
    pub(super) answered_after_us: u32,
    pub(super) buyer: u32,
    pub(super) basket: BasketId,
    /// The gid in `text`: of the answer, or what the request was about.
    pub(super) gid_at: u32,
    pub(super) gid_len: u16,
    pub(super) sale: u16,
    pub(super) status: u16,
    /// Reason or error in `words`.
    pub(super) word: u16,
    pub(super) attempt: u16,
    pub(super) kind: Kind,
    pub(super) outcome: u8,
}

const _: () = assert!(size_of::<Row>() == 48, "a row is to stay small");

pub(super) const ADMITTED: u8 = 0;
pub(super) const CREATED: u8 = 1;
pub(super) const DONE: u8 = 2;
pub(super) const REFUSED: u8 = 3;
pub(super) const UNKNOWN: u8 = 4;
pub(super) const REPLAYED: u8 = 0x80;

/// What one shard held.
#[derive(Default)]
pub(super) struct Pages {
    pub(super) rows: Vec<Vec<Row>>,
    pub(super) text: Vec<u8>,
    pub(super) words: Vec<Box<str>>,
    /// Answers that found no room.
    pub(super) left_out: u64,
}

/// Where in a ledger an answer is; small, since the oracle keeps one for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    shard: u16,
    row: u32,
}

/// A finished run.
pub struct Ledger {
    pub plan: Plan,
    /// Answers by the second in which they came; a second without any is not there.
    pub seconds: Vec<Second>,
    /// What the order service was called with, in no order.
    pub called: Vec<Called>,
    pub stock: Vec<StockSample>,
    /// Microseconds from the intended time to the answer, of every answer.
    pub latency: Histogram<u64>,
    /// Microseconds from the intended time until the request left: the harness's own lateness.
    pub lateness: Histogram<u64>,
    pub counts: Counts,
    pub(super) pages: Vec<Pages>,
}

impl Ledger {
    /// Every answer, shard by shard; within a shard in the order of noting.
    pub fn told(&self) -> impl Iterator<Item = Told<'_>> {
        self.pages.iter().flat_map(|pages| pages.rows.iter().flatten().map(|row| pages.told(row)))
    }

    /// As [`Ledger::told`], with where each is: to come back to it by [`Ledger::at`].
    pub fn places(&self) -> impl Iterator<Item = (Place, Told<'_>)> {
        let shards = self.pages.iter().zip(0..);
        shards.flat_map(|(pages, shard)| {
            pages
                .rows
                .iter()
                .flatten()
                .zip(0..)
                .map(move |(row, row_at)| (Place { shard, row: row_at }, pages.told(row)))
        })
    }

    pub fn at(&self, place: Place) -> Told<'_> {
        let pages = &self.pages[usize::from(place.shard)];
        let row = place.row as usize;
        pages.told(&pages.rows[row / PIECE_ROWS][row % PIECE_ROWS])
    }

    /// Answers that are only counted, since the ledger was full. More than 0 and nothing can be proved.
    pub fn left_out(&self) -> u64 {
        self.pages.iter().map(|pages| pages.left_out).sum()
    }
}

impl Pages {
    fn told(&self, row: &Row) -> Told<'_> {
        let at = row.gid_at as usize;
        let gid = std::str::from_utf8(&self.text[at..at + usize::from(row.gid_len)]).expect("only whole texts go in");
        let word = || &*self.words[usize::from(row.word)];
        let outcome = match row.outcome & !REPLAYED {
            ADMITTED => Outcome::Admitted { gid },
            CREATED => Outcome::Created { gid },
            DONE => Outcome::Done { gid },
            REFUSED => Outcome::Refused { reason: word() },
            _ => Outcome::Unknown { error: word() },
        };
        Told {
            kind: row.kind,
            intended_us: row.intended_us,
            sent_us: row.intended_us + u64::from(row.sent_after_us),
            answered_us: row.intended_us + u64::from(row.answered_after_us),
            buyer: row.buyer,
            sale: row.sale,
            key: row.key,
            basket: row.basket,
            attempt: row.attempt,
            status: row.status,
            replayed: row.outcome & REPLAYED != 0,
            about: (row.kind != Kind::Order && !gid.is_empty()).then_some(gid),
            outcome,
        }
    }
}
