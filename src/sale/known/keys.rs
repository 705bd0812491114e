//! Looks up many idempotency keys at once, off the script's path: did a request with this key win before?
//!
//! Under a flood of losers one look-up takes hundreds of keys, so they cost Redis well under a hundredth of their number;
//! a lone one is looked up at once.

use crate::domain::ids::IdempotencyKey;
use crate::sale::Part;
use crate::store::orders::{KeyDigest, key_digest};
use crate::store::redis::Redis;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Keys of one look-up. Redis is busy with so many for about a tenth of a millisecond.
const KEYS_MAX: usize = 1_024;
/// From so many on at a time it is a flood, and worth waiting for more.
const FLOOD: usize = 16;
/// A look-up does not wait for more than this.
const ENOUGH: usize = 192;
/// How often a look-up in a flood waits a millisecond for more.
const WAITS_MAX: usize = 3;
const WAIT: Duration = Duration::from_millis(1);

struct Question {
    key: KeyDigest,
    /// True: it may have; also when nobody can tell.
    answer: oneshot::Sender<bool>,
}

pub struct KeyLookups {
    queue: mpsc::Sender<Question>,
}

impl KeyLookups {
    /// Starts the task that looks up. It ends when this is dropped.
    pub fn start(part: Arc<Part>, redis: Arc<Redis>) -> Self {
        let (queue, questions) = mpsc::channel(part.limits.queue_max);
        tokio::spawn(look_up(part, redis, questions));
        Self { queue }
    }

    /// Might this key have won? Then the script must say what it heard.
    pub async fn may_have_won(&self, key: &IdempotencyKey) -> bool {
        let (answer, hear) = oneshot::channel();
        match self.queue.try_send(Question { key: key_digest(key), answer }) {
            Ok(()) => hear.await.unwrap_or(true),
            Err(_) => true,
        }
    }
}

async fn look_up(part: Arc<Part>, redis: Arc<Redis>, mut questions: mpsc::Receiver<Question>) {
    let lane = redis.lane();
    let mut gathered: Vec<Question> = Vec::with_capacity(KEYS_MAX);
    let mut flood = false;
    while questions.recv_many(&mut gathered, KEYS_MAX).await > 0 {
        if flood {
            wait_for_more(&mut questions, &mut gathered).await;
        }
        flood = gathered.len() >= FLOOD;
        let keys: Vec<KeyDigest> = gathered.iter().map(|question| question.key).collect();
        match redis.keys_won(&mut lane.clone(), &part.keys, &keys).await {
            Ok(won) => {
                for (question, won) in gathered.drain(..).zip(won) {
                    let _ = question.answer.send(won); // the buyer may have hung up
                }
            }
            Err(error) => {
                tracing::debug!(sale = %part.name, %error, "keys could not be looked up; the script is asked");
                gathered.clear();
            }
        }
    }
}

/// Gathers while more come in quickly.
async fn wait_for_more(questions: &mut mpsc::Receiver<Question>, gathered: &mut Vec<Question>) {
    for _ in 0..WAITS_MAX {
        if gathered.len() >= ENOUGH {
            return;
        }
        tokio::time::sleep(WAIT).await;
        let before = gathered.len();
        while gathered.len() < KEYS_MAX
            && let Ok(question) = questions.try_recv()
        {
            gathered.push(question);
        }
        // All who ask are waiting for an answer already.
        if gathered.len() - before < before / 8 {
            return;
        }
    }
}
