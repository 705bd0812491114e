//! Orders without a verdict: called again after a pause, or now if somebody asks for it, and told of when it takes too long.

use super::{DETAILS_MAX, Keeper};
use crate::alerts;
use crate::sale::{Job, Part};
use crate::store::orders::{Address, Detail};
use crate::zoo;
use metrics::counter;
use std::collections::HashSet;
use std::time::Duration;
use tokio::time::Instant;

/// A job and when it is due; the heap gives the earliest first.
pub(super) struct Due(pub Instant, pub Job);

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.0.cmp(&self.0)
    }
}

impl Keeper {
    pub(super) fn again(&mut self, job: Job, delay: Duration, error: String) {
        counter!("rushline_delivery_retries_total").increment(1);
        if job.attempts >= 2 && zoo::planted("an order is given up after two calls") {
            return;
        }
        if job.attempts >= self.sale.limits.attention_after {
            let text = || {
                format!(
                    "the order service of sale {} has not answered for good, {} times",
                    self.sale.name, job.attempts
                )
            };
            alerts::raise(alerts::Kind::OrderStuck, &job.gid().to_string(), text);
        }
        self.unnoted.push((job.address(), delay, Detail { attempts: job.attempts, message: Some(error) }));
        self.due.push(Due(Instant::now() + delay, job));
    }

    pub(super) fn call_due(&mut self) {
        let now = Instant::now();
        let mut jobs = Vec::new();
        while self.due.peek().is_some_and(|due| due.0 <= now) {
            let job = self.due.pop().expect("peeked").1;
            if !job.entry.is_lost() && self.held.contains_key(&job.entry.id) {
                jobs.push(job);
            }
        }
        if !jobs.is_empty() {
            self.delivery.call(jobs);
        }
    }

    /// What waits and is wanted now is due now.
    pub(super) async fn hear_again(&mut self) {
        if self.due.is_empty() {
            return;
        }
        match self.redis.asked_again(&self.sale.keys, &self.heard_again).await {
            Ok((_, None)) => {}
            Ok((wanted, Some(last))) => {
                self.heard_again = last;
                let (wanted, now): (HashSet<Address>, _) = (wanted.into_iter().collect(), Instant::now());
                let due = std::mem::take(&mut self.due).into_iter();
                self.due =
                    due.map(|Due(at, job)| Due(if wanted.contains(&job.address()) { now } else { at }, job)).collect();
            }
            Err(error) => tracing::debug!(sale = %self.sale.name, %error, "nobody can be asked what to try again"),
        }
    }

    pub(super) async fn note_retries(&mut self) {
        for some in std::mem::take(&mut self.unnoted).chunks(DETAILS_MAX) {
            if let Err(error) = self.redis.note_retries(&mut self.lane, &self.sale.keys, some).await {
                // Not needed to go on: whoever takes over would only try sooner.
                tracing::debug!(sale = %self.sale.name, %error, "retries were not noted");
            }
        }
    }
}

/// An order ended after so many calls: nobody need look after it any more, if somebody was told to.
pub(super) fn has_ended(sale: &Part, address: Address, attempts: u32) {
    if attempts > sale.limits.attention_after {
        alerts::resolve(alerts::Kind::OrderStuck, &sale.gid(address).to_string());
    }
}
