//! Who was refused last, and why: the only trace of a loser, and it is in memory only.
//!
//! Losers leave nothing in Redis (law L11). Still somebody asks, an hour later, why u1 did not get one. This table keeps the
//! last refusal of as many buyers as it has places, on the node that told them so. A place is one word, found by a hash of
//! sale and buyer; a later refusal takes it over: of a million refused buyers, two thirds are remembered. It is evidence as
//! far as it goes: an empty place proves nothing.

use super::Refusal;
use crate::domain::ids::SaleName;
use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Places: 2^20 words are 8 MiB, once for all sales, taken when the first buyer is refused.
const PLACES: usize = 1 << 20;
/// Bits of the hash that are kept beside those that name the place: one stranger in 4,096 who shares a place is taken for
/// the other.
const TAG_BITS: u32 = 12;
/// Bits of the time, in tenths of a second since the first refusal: 27 years.
const TIME_BITS: u32 = 33;
/// What a word without a refusal looks like; a count of 0 is never stored.
const EMPTY: u64 = 0;
/// Bits of the count, which stays at its highest.
const COUNT_BITS: u32 = 64 - TAG_BITS - TIME_BITS - 4;

/// A refusal that this node remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remembered {
    pub refusal: Refusal,
    /// Milliseconds since 1970, to a tenth of a second.
    pub at_ms: u64,
    /// How often this buyer was refused here, for whatever reason, since the place became theirs.
    pub times: u64,
}

#[derive(Default)]
pub struct Refusals {
    table: OnceLock<Table>,
}

struct Table {
    places: Box<[AtomicU64]>,
    /// Nobody can aim at another's place without knowing it.
    key: RandomState,
    since_ms: u64,
}

/// A buyer's place and what stands there, looked up before the order goes its way: the memory has until the refusal to come.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    hash: u64,
    word: u64,
}

impl Refusals {
    fn table(&self, now_ms: u64) -> &Table {
        self.table.get_or_init(|| Table {
            places: (0..PLACES).map(|_| AtomicU64::new(EMPTY)).collect(),
            key: RandomState::new(),
            since_ms: now_ms,
        })
    }

    pub fn place(&self, sale: &SaleName, buyer: &str, now_ms: u64) -> Place {
        self.table(now_ms).place(sale, buyer)
    }

    /// Two refusals of one buyer at the very same moment may count as one.
    pub fn note(&self, place: Place, refusal: Refusal, now_ms: u64) {
        let table = self.table(now_ms);
        let times = place.there().map_or(1, |there| there.times + 1);
        let tenths = now_ms.saturating_sub(table.since_ms) / 100;
        let packed = Packed { tag: place.tag(), tenths, refusal, times }.pack();
        table.places[place.index()].store(packed, Ordering::Relaxed);
    }

    pub fn last(&self, sale: &SaleName, buyer: &str) -> Option<Remembered> {
        let table = self.table.get()?;
        let there = table.place(sale, buyer).there()?;
        let at_ms = table.since_ms + there.tenths * 100;
        Some(Remembered { refusal: there.refusal, at_ms, times: there.times })
    }
}

impl Table {
    fn place(&self, sale: &SaleName, buyer: &str) -> Place {
        let mut place = Place { hash: self.key.hash_one((sale, buyer)), word: EMPTY };
        place.word = self.places[place.index()].load(Ordering::Relaxed);
        place
    }
}

impl Place {
    /// What is remembered of this buyer, and of no other who shares the place.
    fn there(self) -> Option<Packed> {
        unpack(self.word).filter(|there| there.tag == self.tag())
    }

    fn index(self) -> usize {
        (self.hash % PLACES as u64) as usize
    }

    fn tag(self) -> u64 {
        self.hash >> (64 - TAG_BITS)
    }
}

struct Packed {
    tag: u64,
    tenths: u64,
    refusal: Refusal,
    times: u64,
}

impl Packed {
    fn pack(&self) -> u64 {
        let bits = |value: u64, bits: u32| value.min((1 << bits) - 1);
        let mut word = self.tag;
        word = word << TIME_BITS | bits(self.tenths, TIME_BITS);
        word = word << 4 | self.refusal as u64;
        word << COUNT_BITS | bits(self.times, COUNT_BITS)
    }
}

fn unpack(word: u64) -> Option<Packed> {
    if word == EMPTY {
        return None;
    }
    let low = |word: u64, bits: u32| word & ((1 << bits) - 1);
    let (times, word) = (low(word, COUNT_BITS), word >> COUNT_BITS);
    let (reason, word) = (low(word, 4), word >> 4);
    let (tenths, tag) = (low(word, TIME_BITS), word >> TIME_BITS);
    Some(Packed { tag, tenths, refusal: *Refusal::ALL.get(reason as usize)?, times })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_refusal_of_a_buyer_is_remembered_with_its_time_and_count() {
        let refusals = Refusals::default();
        let sale = SaleName::parse("s").unwrap();
        assert_eq!(refusals.last(&sale, "u1"), None);
        let now = 1_763_800_000_000;
        let note = |refusal, at| refusals.note(refusals.place(&sale, "u1", at), refusal, at);
        note(Refusal::NotOpen, now);
        note(Refusal::BacklogFull, now + 12_340);
        let found = refusals.last(&sale, "u1").unwrap();
        assert_eq!(found, Remembered { refusal: Refusal::BacklogFull, at_ms: now + 12_300, times: 2 });
        assert_eq!(refusals.last(&sale, "u2"), None);
        assert_eq!(refusals.last(&SaleName::parse("t").unwrap(), "u1"), None);
    }

    #[test]
    fn a_word_holds_what_was_put_into_it_and_its_count_has_an_end() {
        for refusal in Refusal::ALL {
            let packed = Packed { tag: 4095, tenths: 1 << 32, refusal, times: u64::MAX }.pack();
            let found = unpack(packed).unwrap();
            assert_eq!((found.tag, found.tenths, found.refusal), (4095, 1 << 32, refusal));
            assert_eq!(found.times, (1 << COUNT_BITS) - 1);
        }
        assert!(unpack(EMPTY).is_none());
    }
}
