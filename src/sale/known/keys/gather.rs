//! Gathers questions that come one by one into batches, and wakes whoever answers them once a batch and not once a
//! question.
//!
//! How many make a batch is learned: in a flood it is as many as come within [`PATIENCE`], [`ENOUGH`] at most. Waiting for
//! more than there are askers would only keep them waiting.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;

/// Most questions of a batch. Redis is busy with so many keys for about a tenth of a millisecond.
const BATCH_MAX: usize = 1_024;
/// From so many on at a time it is a flood, and worth waiting for more.
const FLOOD: usize = 16;
/// A batch does not wait for more than this.
const ENOUGH: usize = 192;
/// Nor longer than this.
const PATIENCE: Duration = Duration::from_millis(3);
/// After so many full batches one tries if there are more askers by now.
const TRY_MORE_EVERY: u32 = 16;

pub struct Gather<Q> {
    waiting: Mutex<Waiting<Q>>,
    ready: Notify,
    most: usize,
}

struct Waiting<Q> {
    questions: Vec<Q>,
    /// The question that makes so many wakes the one who answers.
    wake_at: usize,
    /// So many are worth waiting for, as learned.
    worth: usize,
    /// Batches since that was raised.
    full: u32,
    /// The last batch was one of a flood.
    flood: bool,
    closed: bool,
}

impl<Q> Gather<Q> {
    /// `most`: so many may wait at once.
    pub fn new(most: usize) -> Self {
        let waiting = Waiting { questions: Vec::new(), wake_at: 1, worth: FLOOD, full: 0, flood: false, closed: false };
        Self { waiting: Mutex::new(waiting), ready: Notify::new(), most }
    }

    /// False if too many wait already.
    pub fn push(&self, question: Q) -> bool {
        let mut waiting = self.lock();
        if waiting.questions.len() >= self.most {
            return false;
        }
        waiting.questions.push(question);
        if waiting.questions.len() == waiting.wake_at {
            drop(waiting);
            self.ready.notify_one();
        }
        true
    }

    /// No more will come.
    pub fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_one();
    }

    /// The next batch, never empty; `None` when there are no more. Only one may wait for it.
    pub async fn next(&self) -> Option<Vec<Q>> {
        self.wait_for(1).await;
        let (flood, worth) = {
            let waiting = self.lock();
            (waiting.flood, waiting.worth)
        };
        if flood {
            let in_time = tokio::time::timeout(PATIENCE, self.wait_for(worth)).await.is_ok();
            self.lock().learn(in_time);
        }
        let mut waiting = self.lock();
        let count = waiting.questions.len().min(BATCH_MAX);
        waiting.flood = count >= FLOOD;
        let rest = waiting.questions.split_off(count);
        let batch = std::mem::replace(&mut waiting.questions, rest);
        (!batch.is_empty()).then_some(batch)
    }

    /// Until so many wait, or no more will come.
    async fn wait_for(&self, count: usize) {
        loop {
            {
                let mut waiting = self.lock();
                if waiting.questions.len() >= count || waiting.closed {
                    return;
                }
                waiting.wake_at = count;
            }
            self.ready.notified().await; // also for a count that was waited for earlier
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<Q>> {
        self.waiting.lock().expect("nobody panics while holding this lock")
    }
}

impl<Q> Waiting<Q> {
    fn learn(&mut self, in_time: bool) {
        if !in_time {
            (self.worth, self.full) = (self.questions.len().clamp(FLOOD, ENOUGH), 0);
            return;
        }
        self.full += 1;
        if self.questions.len() > self.worth || self.full >= TRY_MORE_EVERY {
            let more = self.questions.len().max(self.worth + self.worth / 4);
            (self.worth, self.full) = (more.min(ENOUGH), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    async fn batch(gather: &Gather<u32>) -> usize {
        gather.next().await.map_or(0, |batch| batch.len())
    }

    fn push(gather: &Gather<u32>, count: usize) {
        (0..count).for_each(|_| assert!(gather.push(0)));
    }

    #[tokio::test]
    async fn a_lone_question_does_not_wait() {
        let gather = Gather::new(9);
        assert_eq!(gather.next().now_or_never(), None);
        push(&gather, 1);
        assert_eq!(batch(&gather).now_or_never(), Some(1));
        push(&gather, 2);
        assert_eq!(batch(&gather).now_or_never(), Some(2));
    }

    #[tokio::test]
    async fn a_flood_is_gathered_and_its_size_learned() {
        let gather = Gather::new(10_000);
        push(&gather, 40);
        assert_eq!(batch(&gather).now_or_never(), Some(40), "nothing was known of a flood");
        push(&gather, 40);
        assert_eq!(batch(&gather).now_or_never(), Some(40), "more than was worth waiting for");
        push(&gather, 39);
        let mut next = Box::pin(batch(&gather));
        assert_eq!((&mut next).now_or_never(), None, "forty came before");
        push(&gather, 1);
        assert_eq!(next.now_or_never(), Some(40), "the last one wakes");
        push(&gather, 30);
        assert_eq!(batch(&gather).await, 30, "patience has an end");
        push(&gather, 30);
        assert_eq!(batch(&gather).now_or_never(), Some(30), "thirty are as many as there are");
        push(&gather, 5_000);
        assert_eq!(batch(&gather).now_or_never(), Some(BATCH_MAX));
        let rest: usize =
            [batch(&gather).await, batch(&gather).await, batch(&gather).await, batch(&gather).await].iter().sum();
        assert_eq!(rest, 5_000 - BATCH_MAX);
    }

    #[tokio::test]
    async fn too_many_are_turned_away_and_what_is_closed_ends() {
        let gather = Gather::new(2);
        push(&gather, 2);
        assert!(!gather.push(0));
        gather.close();
        assert_eq!(batch(&gather).await, 2, "those who wait are answered");
        assert_eq!(gather.next().await, None);
    }
}
