//! The barrier in Redis: marks beside the amount, changed by one script in the service's own Redis.
//!
//! There is no transaction to join, so the business is what the script does: to add to an amount, and not below zero.
//! Scripts run one after the other; a call therefore finds the marks as the last one left them, and there is no "under
//! way". In a cluster amount and marks must share a slot: put a hash tag into the gid, as in `{sku-1}-4711` beside
//! `{sku-1}-stock`. dtm's script looks at the amount before the marks, so a repeat for the last unit hears that there is
//! none; this one looks at the marks first.
//!
//! ```no_run
//! # async fn handler(mut connection: redis::aio::MultiplexedConnection, query: &str)
//! # -> Result<(), rushline::branch_error::BranchError> {
//! use rushline::barrier::{BranchBarrier, redis::TTL};
//! use rushline::branch_call::BranchCall;
//!
//! let mut barrier = BranchBarrier::new(BranchCall::from_query(query)?);
//! barrier.redis_check_adjust_amount(&mut connection, "{sku-1}-stock", -1, TTL).await?;
//! # Ok(()) }
//! ```

use super::{BranchBarrier, MESSAGE, Outcome, ROLLBACK, committed};
use crate::branch_call::op;
use crate::branch_error::BranchError;
use ::redis::aio::ConnectionLike;
use ::redis::{Script, Value};
use std::sync::LazyLock;
use std::time::Duration;

/// How long dtm keeps marks: seven days. They must outlive every retry and check-back: after that a repeat takes effect
/// again, and a check-back says that nothing happened.
pub const TTL: Duration = Duration::from_secs(7 * 86_400);
/// Lua's numbers are whole up to here.
const CHANGE_MAX: i64 = 1 << 53;

/// The scripts by name, for the tests that read their headers.
#[doc(hidden)]
pub const SCRIPTS: [(&str, &str); 2] = [
    ("barrier_adjust", include_str!("../../lua/barrier_adjust.lua")),
    ("barrier_check_back", include_str!("../../lua/barrier_check_back.lua")),
];
static ADJUST: LazyLock<Script> = LazyLock::new(|| for_any_version(SCRIPTS[0].1));
static CHECK_BACK: LazyLock<Script> = LazyLock::new(|| for_any_version(SCRIPTS[1].1));

/// Without `#!lua`, which Redis before 7 does not know: a service's Redis may be older than the coordinator's. Nothing
/// is lost: memory and replicas are then looked at when the first write comes, and before it nothing has changed.
fn for_any_version(source: &str) -> Script {
    Script::new(source.strip_prefix("#!lua\n").unwrap_or(source))
}

impl BranchBarrier {
    /// Adds `change` to the whole number at `key`, once for this call, unless less than nothing would be left or there is
    /// no such key. Says what the amount is now. One round trip.
    ///
    /// # Errors
    /// [`BranchError::Failure`] if the amount does not suffice: nothing was changed, and the next call is looked at
    /// afresh. [`BranchError::Duplicated`] for the local part of a message that ran or was ruled out.
    /// [`BranchError::Other`] if Redis did not answer: call again, the marks then tell what happened.
    pub async fn redis_check_adjust_amount<C: ConnectionLike>(
        &mut self,
        connection: &mut C,
        key: &str,
        change: i64,
        ttl: Duration,
    ) -> Result<Outcome<i64>, BranchError> {
        let barrier_id = self.next_id();
        if !(-CHANGE_MAX..=CHANGE_MAX).contains(&change) {
            return Err(BranchError::other(format!(
                "{change} is beyond what a script counts exactly; nothing was done"
            )));
        }
        let mut call = ADJUST.key(key);
        call.key(self.redis_mark(&self.call.op, &barrier_id));
        if let Some(undone) = self.call.undoes() {
            call.key(self.redis_mark(undone, &barrier_id));
        }
        let reply: Vec<Value> = call.arg(change).arg(whole_seconds(ttl)).invoke_async(connection).await?;
        match (word(&reply), reply.get(1)) {
            ("ADJUSTED", Some(Value::Int(now))) => Ok(Outcome::Ran(*now)),
            ("DUPLICATE", _) if self.call.op == op::MSG => Err(BranchError::Duplicated),
            ("DUPLICATE", _) => Ok(Outcome::Repeated),
            ("EMPTY", _) => Ok(Outcome::Empty),
            ("SHORT", _) => Err(BranchError::failure(format!("`{key}` does not have that much"))),
            _ => Err(unexpected(&reply)),
        }
    }

    /// Answers the check-back of a two-phase message: `Ok` if its local part happened, [`BranchError::Failure`] if it did
    /// not and, from now on, cannot.
    pub async fn redis_query_prepared<C: ConnectionLike>(
        &self,
        connection: &mut C,
        ttl: Duration,
    ) -> Result<(), BranchError> {
        let (branch_id, op, barrier_id) = MESSAGE;
        let mut call = CHECK_BACK.key(format!("{}-{branch_id}-{op}-{barrier_id}", self.call.gid));
        let reply: Vec<Value> = call.arg(whole_seconds(ttl)).invoke_async(connection).await?;
        match word(&reply) {
            "COMMITTED" => Ok(()),
            "ROLLED_BACK" => committed(ROLLBACK),
            _ => Err(unexpected(&reply)),
        }
    }

    fn redis_mark(&self, op: &str, barrier_id: &str) -> String {
        format!("{}-{}-{op}-{barrier_id}", self.call.gid, self.call.branch_id)
    }
}

/// Redis refuses a time to live of nothing, and it would do so after the amount has changed.
fn whole_seconds(ttl: Duration) -> u64 {
    ttl.as_secs().clamp(1, u64::from(u32::MAX))
}

fn word(reply: &[Value]) -> &str {
    match reply.first() {
        Some(Value::BulkString(word)) => std::str::from_utf8(word).unwrap_or_default(),
        Some(Value::SimpleString(word)) => word,
        _ => "",
    }
}

fn unexpected(reply: &[Value]) -> BranchError {
    BranchError::other(format!("the barrier's script answered {reply:?}, which no one expects"))
}
