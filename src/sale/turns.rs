//! Requests with one idempotency key are answered in their order: while one is on its way to the script, a repeat of it
//! must not be refused from memory, or its buyer hears "sold out" and the first one wins after that.

use crate::domain::ids::IdempotencyKey;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

/// The keys of the requests that this node has in hand for a sale, and how many have each.
#[derive(Default)]
pub struct Turns(Mutex<HashMap<String, u32>>);

/// A request in hand, until it is dropped.
pub struct Turn<'a> {
    turns: &'a Turns,
    key: Option<String>,
    /// No other request with this key was in hand when it came.
    pub first: bool,
}

impl Turns {
    pub fn take(&self, key: Option<&IdempotencyKey>) -> Turn<'_> {
        let Some(key) = key else { return Turn { turns: self, key: None, first: true } };
        let key = key.as_str().to_owned();
        let mut in_hand = self.lock();
        let count = in_hand.entry(key.clone()).or_insert(0);
        *count += 1;
        Turn { turns: self, key: Some(key), first: *count == 1 }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, u32>> {
        self.0.lock().expect("nobody panics while holding this lock")
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let Some(key) = &self.key else { return };
        let mut in_hand = self.turns.lock();
        if let Some(count) = in_hand.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                in_hand.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeat_is_not_first_until_the_others_are_answered() {
        let (turns, key) = (Turns::default(), IdempotencyKey::parse("k").unwrap());
        let one = turns.take(Some(&key));
        let two = turns.take(Some(&key));
        assert!(one.first && !two.first && turns.take(None).first);
        drop(one);
        assert!(!turns.take(Some(&key)).first, "the second is still in hand");
        drop(two);
        assert!(turns.take(Some(&key)).first);
        assert!(turns.lock().is_empty());
    }
}
