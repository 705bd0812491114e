//! Requests with one idempotency key are decided in the order in which they came: a repeat waits until the one before it
//! has its answer. Without that the repeat may be decided first, and its buyer hears "sold out"; then a unit comes back
//! and the first one, whose answer nobody waits for any more, wins it.

use crate::domain::ids::IdempotencyKey;
use crate::zoo;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::{Mutex as Line, OwnedMutexGuard};

/// Most requests with one key that are in hand at once. An impatient buyer has two or three.
const IN_HAND_MAX: usize = 32;

/// The keys of the requests that this node has in hand for a sale.
#[derive(Default)]
pub struct Turns(Mutex<HashMap<String, Arc<Line<()>>>>);

/// It is this request's turn until this is dropped.
pub struct Turn {
    turns: Arc<Turns>,
    key: Option<String>,
    guard: Option<OwnedMutexGuard<()>>,
}

/// There are [`IN_HAND_MAX`] already.
#[derive(Debug, PartialEq, Eq)]
pub struct TooMany;

impl Turns {
    /// Waits for those with the same key that came before; not at all without a key.
    pub async fn take(self: &Arc<Self>, key: Option<&IdempotencyKey>) -> Result<Turn, TooMany> {
        let key = key.filter(|_| !zoo::planted("a repeat does not wait for its turn"));
        let Some(key) = key else { return Ok(Turn { turns: self.clone(), key: None, guard: None }) };
        let key = key.as_str().to_owned();
        let line = {
            let mut lines = self.lock();
            let line = lines.entry(key.clone()).or_default();
            if Arc::strong_count(line) > IN_HAND_MAX {
                return Err(TooMany);
            }
            line.clone()
        };
        // From here on a caller that goes away is struck off.
        let mut turn = Turn { turns: self.clone(), key: Some(key), guard: None };
        turn.guard = Some(line.lock_owned().await);
        Ok(turn)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Line<()>>>> {
        self.0.lock().expect("nobody panics while holding this lock")
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.guard = None;
        let Some(key) = &self.key else { return };
        let mut lines = self.turns.lock();
        if lines.get(key).is_some_and(|line| Arc::strong_count(line) == 1) {
            lines.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn a_repeat_waits_for_those_before_it() {
        let (turns, key) = (Arc::<Turns>::default(), IdempotencyKey::parse("k").unwrap());
        let one = turns.take(Some(&key)).await.ok();
        let mut two = Box::pin(turns.take(Some(&key)));
        let mut three = Box::pin(turns.take(Some(&key)));
        assert!((&mut two).now_or_never().is_none() && (&mut three).now_or_never().is_none());
        assert!(turns.take(None).now_or_never().is_some(), "without a key there is nobody to wait for");
        drop(one);
        assert!((&mut three).now_or_never().is_none(), "the second is before the third");
        drop(two.await.ok());
        drop(three);
        assert!(turns.lock().is_empty(), "the third went away without its turn");
    }

    #[tokio::test]
    async fn a_line_has_an_end() {
        let (turns, key) = (Arc::<Turns>::default(), IdempotencyKey::parse("k").unwrap());
        let first = turns.take(Some(&key)).await.ok();
        let mut waiting: Vec<_> = (1..IN_HAND_MAX).map(|_| Box::pin(turns.take(Some(&key)))).collect();
        assert!(waiting.iter_mut().all(|one| one.now_or_never().is_none()));
        assert_eq!(turns.take(Some(&key)).await.err(), Some(TooMany));
        drop((waiting, first));
        assert!(turns.take(Some(&key)).now_or_never().is_some() && turns.lock().is_empty());
    }
}
