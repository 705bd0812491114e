//! The notes themselves: what was refused, and as of when. No clock and no Redis in here.

use super::clock::RemoteClock;
use super::{AGE_MAX, AGE_RENEW};
use crate::domain::ids::Sku;
use crate::domain::order::Item;
use crate::zoo;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Most orders remembered as over a limit: a bound for a crowd of accounts that keep asking, about half a megabyte.
const OVER_LIMIT_MAX: usize = 16_384;

/// A SKU that had too few units for somebody.
#[derive(Debug)]
struct Left {
    /// Units available at `at`, at most.
    units: u64,
    at: Instant,
    /// Somebody was refused by this note since it was renewed: worth renewing.
    told: AtomicBool,
}

#[derive(Debug, Default)]
pub struct Notes {
    /// The version of the sale's settings, as of when.
    pub version: Option<(u64, Instant)>,
    /// The last batch found the sale paused, closed, or outside its window.
    pub shut: bool,
    pub clock: RemoteClock,
    /// At most one a SKU of the sale: only SKUs that there are can be sold out.
    stock: HashMap<Sku, Left>,
    /// Orders that a limit refused, by all that the limits can depend on.
    over_limit: HashMap<u64, Instant>,
}

impl Notes {
    pub fn any(&self) -> bool {
        self.shut || !self.stock.is_empty() || !self.over_limit.is_empty()
    }

    pub fn note_version(&mut self, version: u64, at: Instant) {
        if self.version.is_none_or(|(_, noted)| noted < at) {
            self.version = Some((version, at));
        }
    }

    /// Were there too few units of one of these just now? Raises `age` to the note's.
    pub fn sold_out(&self, items: &[Item], now: Instant, age: &mut Duration) -> bool {
        let mut found = false;
        for item in items {
            let Some(left) = self.stock.get(&item.sku) else { continue };
            let left_age = now.saturating_duration_since(left.at);
            let young = left_age <= AGE_MAX || zoo::planted("what memory knows never gets old");
            if u64::from(item.quantity) > left.units && young {
                if left_age > AGE_RENEW {
                    left.told.store(true, Ordering::Relaxed);
                }
                *age = left_age.max(*age);
                found = true;
            }
        }
        found
    }

    pub fn note_sold_out(&mut self, items: &[Item], at: Instant) {
        // Of several items nobody knows which one was short.
        let [item] = items else { return };
        let units = u64::from(item.quantity) - 1;
        match self.stock.get_mut(&item.sku) {
            // What is known lately and says more: of 0 left there are not 2 either.
            Some(left) if left.units <= units && at.saturating_duration_since(left.at) < AGE_RENEW => {}
            Some(left) => (left.units, left.at) = (units, at.max(left.at)),
            None => {
                self.stock.insert(item.sku.clone(), Left { units, at, told: AtomicBool::new(false) });
            }
        }
    }

    /// Somebody just won: there are units, and it is not known how many.
    pub fn forget_stock(&mut self, items: &[Item]) {
        if !self.stock.is_empty() {
            for item in items {
                self.stock.remove(&item.sku);
            }
        }
    }

    /// The SKUs whose notes are worth renewing, `most` at a time.
    pub fn to_renew(&self, most: usize) -> Vec<Sku> {
        let told = self.stock.iter().filter(|(_, left)| left.told.load(Ordering::Relaxed));
        told.map(|(sku, _)| sku.clone()).take(most).collect()
    }

    /// There are `units` of it as of `at`.
    pub fn renew(&mut self, sku: &Sku, units: u64, at: Instant) {
        if let Some(left) = self.stock.get_mut(sku)
            && left.at <= at
        {
            (left.units, left.at) = (units, at);
            left.told.store(false, Ordering::Relaxed);
        }
    }

    pub fn over_limit(&self, shape: u64, now: Instant, age: &mut Duration) -> bool {
        let Some(at) = self.over_limit.get(&shape) else { return false };
        // A pulse does not ask for buyers, so the note is told while young and then asked for anew.
        *age = Duration::ZERO;
        now.saturating_duration_since(*at) <= AGE_MAX
    }

    pub fn note_over_limit(&mut self, shape: u64, at: Instant) {
        if self.over_limit.len() >= OVER_LIMIT_MAX {
            self.over_limit.retain(|_, noted| at.saturating_duration_since(*noted) <= AGE_MAX);
        }
        if self.over_limit.len() < OVER_LIMIT_MAX {
            self.over_limit.insert(shape, at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(quantity: u32) -> Vec<Item> {
        vec![Item { sku: Sku::parse("a").unwrap(), quantity }]
    }

    fn sold_out(notes: &Notes, quantity: u32, now: Instant) -> bool {
        notes.sold_out(&items(quantity), now, &mut Duration::default())
    }

    #[test]
    fn a_note_refuses_as_much_as_was_refused_and_more_and_only_while_it_is_young() {
        let began = Instant::now();
        let mut notes = Notes::default();
        notes.note_sold_out(&items(3), began);
        assert!(sold_out(&notes, 3, began) && sold_out(&notes, 4, began + AGE_MAX));
        assert!(!sold_out(&notes, 2, began), "two may be left");
        assert!(!sold_out(&notes, 3, began + AGE_MAX + Duration::from_millis(1)));
        notes.note_sold_out(&items(1), began);
        assert!(sold_out(&notes, 1, began));
        notes.note_sold_out(&items(9), began + Duration::from_millis(1));
        assert!(sold_out(&notes, 1, began), "none are left, whatever others asked for");
    }

    #[test]
    fn a_note_is_worth_renewing_once_it_was_told_old() {
        let began = Instant::now();
        let mut notes = Notes::default();
        notes.note_sold_out(&items(1), began);
        assert!(sold_out(&notes, 1, began));
        assert!(notes.to_renew(9).is_empty());
        let later = began + AGE_RENEW + Duration::from_millis(1);
        assert!(sold_out(&notes, 1, later));
        assert_eq!(notes.to_renew(9), [Sku::parse("a").unwrap()]);
        notes.renew(&Sku::parse("a").unwrap(), 2, later);
        assert!(notes.to_renew(9).is_empty());
        assert!(!sold_out(&notes, 2, later) && sold_out(&notes, 3, later));
        notes.renew(&Sku::parse("a").unwrap(), 0, began);
        assert!(!sold_out(&notes, 2, later), "an older answer does not undo a newer one");
    }

    #[test]
    fn a_win_forgets_the_note() {
        let began = Instant::now();
        let mut notes = Notes::default();
        notes.note_sold_out(&items(1), began);
        notes.forget_stock(&items(1));
        assert!(!sold_out(&notes, 1, began) && !notes.any());
    }

    #[test]
    fn the_notes_of_buyers_over_their_limit_are_bounded() {
        let began = Instant::now();
        let mut notes = Notes::default();
        for shape in 0..2 * OVER_LIMIT_MAX as u64 {
            notes.note_over_limit(shape, began);
        }
        assert_eq!(notes.over_limit.len(), OVER_LIMIT_MAX);
        let later = began + 2 * AGE_MAX;
        notes.note_over_limit(7, later);
        assert_eq!(notes.over_limit.len(), 1, "the old ones go first");
        assert!(notes.over_limit(7, later, &mut Duration::default()));
    }
}
