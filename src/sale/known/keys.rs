//! Looks up many idempotency keys at once, off the script's path: did a request with this key win before?
//!
//! Under a flood of losers one look-up takes hundreds of keys, so they cost Redis well under a hundredth of their number;
//! a lone one is looked up at once.

mod gather;

use crate::domain::ids::IdempotencyKey;
use crate::outside;
use crate::sale::Part;
use crate::store::orders::{KeyDigest, key_digest};
use crate::store::redis::Redis;
use gather::Gather;
use std::sync::Arc;
use tokio::sync::oneshot;

struct Question {
    key: KeyDigest,
    /// True: it may have; also when nobody can tell.
    answer: oneshot::Sender<bool>,
}

pub struct KeyLookups {
    gather: Arc<Gather<Question>>,
}

impl KeyLookups {
    /// Starts the task that looks up. It ends when this is dropped.
    pub fn start(part: Arc<Part>, redis: Arc<Redis>) -> Self {
        let gather = Arc::new(Gather::new(part.limits.queue_max));
        outside::spawn(look_up(part, redis, gather.clone()));
        Self { gather }
    }

    /// Might this key have won? Then the script must say what it heard.
    pub async fn may_have_won(&self, key: &IdempotencyKey) -> bool {
        let (answer, hear) = oneshot::channel();
        match self.gather.push(Question { key: key_digest(key), answer }) {
            true => hear.await.unwrap_or(true),
            false => true,
        }
    }
}

impl Drop for KeyLookups {
    fn drop(&mut self) {
        self.gather.close();
    }
}

async fn look_up(part: Arc<Part>, redis: Arc<Redis>, gather: Arc<Gather<Question>>) {
    let mut lane = redis.lane();
    while let Some(questions) = gather.next().await {
        let keys: Vec<KeyDigest> = questions.iter().map(|question| question.key).collect();
        match redis.keys_won(&mut lane, &part.keys, &keys).await {
            Ok(won) => {
                for (question, won) in questions.into_iter().zip(won) {
                    let _ = question.answer.send(won); // the buyer may have hung up
                }
            }
            Err(error) => {
                tracing::debug!(sale = %part.name, %error, "keys could not be looked up; the script is asked");
            }
        }
    }
}
