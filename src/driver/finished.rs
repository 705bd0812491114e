//! What this node has brought to an end, for its drain to write down without reading it back from Redis.
//!
//! A shortcut that nothing relies on: it is bounded, and what finds no room here, was ended by another node or was
//! forgotten in a crash is in the indexes of the final statuses, where the drain looks now and then.

use crate::domain::trans::Global;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Kept at a time: what a busy node ends in the second that Redis may take until it has all of it on its disk.
const COUNT_MAX: usize = 20_000;
/// And bytes of payloads.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// A transaction as its end was written to Redis, under `version`.
#[derive(Debug, Clone)]
pub struct Over {
    pub global: Arc<Global>,
    pub version: u64,
}

impl Over {
    fn bytes(&self) -> usize {
        let Global { payloads, branches, .. } = &*self.global;
        payloads.iter().chain(branches.iter().map(|row| &row.payload)).map(|payload| payload.len()).sum()
    }
}

#[derive(Default)]
struct State {
    over: VecDeque<Over>,
    bytes: usize,
    /// Some had no room.
    missed: bool,
}

#[derive(Default)]
pub struct Finished {
    state: Mutex<State>,
    news: Notify,
}

impl Finished {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn push(&self, global: Arc<Global>, version: u64) {
        let over = Over { global, version };
        let bytes = over.bytes();
        let mut state = self.state();
        match state.over.len() < COUNT_MAX && state.bytes + bytes <= BYTES_MAX {
            true => {
                state.bytes += bytes;
                state.over.push_back(over);
            }
            false => state.missed = true,
        }
        drop(state);
        self.news.notify_one();
    }

    /// All there are, and whether others had no room.
    pub fn take(&self) -> (Vec<Over>, bool) {
        let mut state = self.state();
        state.bytes = 0;
        (state.over.drain(..).collect(), std::mem::take(&mut state.missed))
    }

    /// Returns when something was pushed since it last returned.
    pub async fn news(&self) {
        self.news.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::trans::{Limits, TransRequest};

    #[test]
    fn what_finds_no_room_is_told() {
        let body = serde_json::json!({ "gid": "g", "trans_type": "msg", "payloads": ["x".repeat(1024 * 1024)],
            "steps": [{ "action": "http://h/a" }] });
        let request = TransRequest::from_json(body.to_string().as_bytes()).unwrap();
        let global = Arc::new(request.into_global(1, &Limits::default(), &|_| None).unwrap());
        let finished = Finished::default();
        for _ in 0..BYTES_MAX / (2 * 1024 * 1024) + 1 {
            finished.push(global.clone(), 2);
        }
        let (over, missed) = finished.take();
        assert_eq!((over.len(), missed), (BYTES_MAX / (2 * 1024 * 1024), true));
        finished.push(global, 2);
        let (over, missed) = finished.take();
        assert_eq!((over.len(), missed), (1, false), "there is room again");
    }
}
