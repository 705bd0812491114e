//! Barriers: each call of a branch takes effect once, in the service's own store.
//!
//! A coordinator calls a branch again when it did not hear the answer; it may undo what was never done, because the call
//! that should have done it got lost; and that call may turn up after its undoing. A handler that runs its business
//! inside a barrier need not know of any of these: the barrier leaves a mark in the same local transaction as the
//! business, and the mark decides.
//!
//! - feature `barrier-sql`: PostgreSQL, MySQL, MariaDB and SQLite through sqlx, see [`sql`]; XA branches, see [`xa`].
//! - feature `barrier-mongo`: MongoDB, see [`mongo`].
//! - feature `barrier-redis`: Redis, see [`redis`].
//!
//! Marks are spelled as dtm's own SDKs spell them: services in Rust and in other languages may share one store, and even
//! one branch. docs/barriers.md shows tables and keys.
//! Nothing here knows the coordinator.

#[cfg(feature = "barrier-mongo")]
pub mod mongo;
#[cfg(feature = "barrier-redis")]
pub mod redis;
#[cfg(feature = "barrier-sql")]
pub mod sql;
#[cfg(feature = "barrier-sql")]
pub mod xa;

use crate::branch_call::{BranchCall, op};
use crate::branch_error::BranchError;

/// dtm's table, and its MongoDB database and collection.
pub const TABLE: &str = "dtm_barrier.barrier";
/// The branch, op and barrier id under which a two-phase message marks its local part.
const MESSAGE: (&str, &str, &str) = ("00", op::MSG, "01");
/// The reason of a mark that a check-back or an XA roll-back left.
const ROLLBACK: &str = "rollback";

/// The barrier of one call of a branch: make one from each call that comes in.
///
/// A handler with several local transactions, in two databases say, uses the same barrier for all of them. They are
/// counted, so they must come in the same order every time.
#[derive(Debug, Clone)]
pub struct BranchBarrier {
    call: BranchCall,
    calls: u32,
    #[cfg(any(feature = "barrier-sql", feature = "barrier-mongo"))]
    table: Option<String>,
}

/// What became of a call.
///
/// Each is a success: what the coordinator asked for is so. Answer it as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<T> {
    /// The business ran now, and its local transaction is committed.
    Ran(T),
    /// Nothing was done: this call took effect earlier, or its undoing came before it.
    Repeated,
    /// Nothing was done, as there is nothing to undo: what this call undoes has not happened, and no longer can.
    Empty,
}

/// A table that cannot be used: its name goes into statements as it is.
#[cfg(any(feature = "barrier-sql", feature = "barrier-mongo"))]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no name of a table: letters, digits and underscores, and at most one dot, after the schema")]
pub struct InvalidTable(String);

impl BranchBarrier {
    /// A barrier for this call. It has done nothing yet.
    pub fn new(call: BranchCall) -> Self {
        Self {
            call,
            calls: 0,
            #[cfg(any(feature = "barrier-sql", feature = "barrier-mongo"))]
            table: None,
        }
    }

    /// Another table than dtm's: `barrier` or `schema.barrier`; in MongoDB `database.collection`. All services that serve
    /// the same branches must agree on it.
    #[cfg(any(feature = "barrier-sql", feature = "barrier-mongo"))]
    pub fn with_table(mut self, table: impl Into<String>) -> Result<Self, InvalidTable> {
        let table = table.into();
        let word = |part: &str| {
            !part.is_empty()
                && !part.as_bytes()[0].is_ascii_digit()
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        if table.split('.').count() > 2 || !table.split('.').all(word) {
            return Err(InvalidTable(table));
        }
        self.table = Some(table);
        Ok(self)
    }

    /// The call that this is the barrier of.
    pub fn branch_call(&self) -> &BranchCall {
        &self.call
    }

    fn next_id(&mut self) -> String {
        self.calls += 1;
        format!("{:02}", self.calls)
    }

    /// The marks of a call with this barrier id.
    #[cfg(any(feature = "barrier-sql", feature = "barrier-mongo"))]
    fn marks<'a>(&'a self, barrier_id: &'a str) -> Marks<'a> {
        let BranchCall { trans_type, gid, branch_id, op, .. } = &self.call;
        let mark = |marked| Mark { trans_type, gid, branch_id, op: marked, barrier_id, reason: op };
        Marks { undone: self.call.undoes().map(mark), own: mark(op) }
    }

    /// The mark of a message's local part, as its check-back writes it.
    #[cfg(any(feature = "barrier-sql", feature = "barrier-mongo"))]
    fn check_back(&self) -> Marks<'_> {
        let BranchCall { trans_type, gid, .. } = &self.call;
        let (branch_id, op, barrier_id) = MESSAGE;
        Marks { undone: None, own: Mark { trans_type, gid, branch_id, op, barrier_id, reason: ROLLBACK } }
    }
}

/// One mark: a row or a document. The first five but `trans_type` are its key.
#[cfg(any(feature = "barrier-sql", feature = "barrier-mongo"))]
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct Mark<'a> {
    trans_type: &'a str,
    gid: &'a str,
    branch_id: &'a str,
    op: &'a str,
    barrier_id: &'a str,
    /// The op of the call that left it.
    reason: &'a str,
}

/// What a call leaves: its own mark and, if it undoes something, first the mark of that.
#[cfg(any(feature = "barrier-sql", feature = "barrier-mongo"))]
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct Marks<'a> {
    undone: Option<Mark<'a>>,
    own: Mark<'a>,
}

/// Which marks were not there yet.
#[cfg(any(feature = "barrier-sql", feature = "barrier-mongo"))]
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inserted {
    undone: bool,
    own: bool,
}

#[cfg(any(feature = "barrier-sql", feature = "barrier-mongo"))]
impl Inserted {
    /// `Ran` means: run it now.
    fn decide(self, op: &str) -> Result<Outcome<()>, BranchError> {
        match self {
            // What is to be undone had left no mark, so it has not happened; with our mark in its place it never will.
            Inserted { undone: true, .. } => Ok(Outcome::Empty),
            Inserted { own: true, .. } => Ok(Outcome::Ran(())),
            // A local part that was done or ruled out is no success: its caller must ask which it was.
            Inserted { own: false, .. } if op == op::MSG => Err(BranchError::Duplicated),
            Inserted { own: false, .. } => Ok(Outcome::Repeated),
        }
    }
}

/// What a check-back answers about a mark with this reason.
fn committed(reason: &str) -> Result<(), BranchError> {
    if reason == ROLLBACK {
        Err(BranchError::failure("the local part did not happen, and no longer can"))
    } else {
        Ok(())
    }
}

#[cfg(all(test, any(feature = "barrier-sql", feature = "barrier-mongo")))]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_a_name_and_nothing_else() {
        let barrier = BranchBarrier::new(BranchCall::new("saga", "g", "01", "action").unwrap());
        for table in ["barrier", "dtm_barrier.barrier", "B2._x"] {
            assert!(barrier.clone().with_table(table).is_ok(), "{table}");
        }
        for table in ["", ".", "a.", "a.b.c", "a b", "a;b", "1a", "a'", "\"a\"", "ä"] {
            assert!(barrier.clone().with_table(table).is_err(), "{table}");
        }
    }
}
