//! The barrier in SQL: rows of a table, in the transaction of the business.
//!
//! ```no_run
//! # async fn handler(pool: sqlx::PgPool, query: &str) -> Result<(), rushline::branch_error::BranchError> {
//! use rushline::{barrier::BranchBarrier, branch_call::BranchCall, branch_error::BranchError};
//!
//! let call = BranchCall::from_query(query)?;
//! BranchBarrier::new(call)
//!     .call(&pool, async |transaction| {
//!         let statement = "UPDATE account SET balance = balance - 30 WHERE id = 1 AND balance >= 30";
//!         match sqlx::query(statement).execute(transaction).await?.rows_affected() {
//!             1 => Ok(()),
//!             _ => Err(BranchError::failure("balance too low")),
//!         }
//!     })
//!     .await?;
//! # Ok(()) }
//! ```
//!
//! Each call inserts its own row, and a call that undoes something first the row of what it undoes. Which of them were
//! not there yet decides ([`Outcome`]). They are inserted by one statement which, as its last word, names the rows that
//! it inserted (`RETURNING`); MySQL has no such word and takes a statement for each row, so its undoing calls need two.
//! One statement for both rows could count there, and not say which: that is not the same if the older row was purged.
//!
//! **Why this decides exactly, also when calls meet.** Both rows are guarded by one unique key. Who inserts a key that an
//! open transaction has inserted waits until that one has ended: if it was committed, the row is there and is not
//! inserted; if it was rolled back, it is. So an undoing that meets its action waits for it and then knows; an action that
//! meets its undoing waits too, and then finds its key taken. Rows are inserted in the same order everywhere, the undone
//! one first. A deadlock that a database sees all the same, a serialization failure, or a lock not given in time ends the
//! local transaction with an error, marks included, and the coordinator calls again.
//!
//! Rows are never deleted here. An operator's purge must leave what is younger than the longest retry.

mod mysql;
mod postgres;
mod sqlite;

use super::{BranchBarrier, Inserted, Mark, Marks, Outcome, committed};
use crate::branch_error::BranchError;
use sqlx::{AssertSqlSafe, Pool, Transaction};
use std::future::Future;

/// The longest texts that the columns of dtm's table hold, in characters: MySQL would cut longer ones and say nothing,
/// and two transactions would share a row.
const GID_CHARS_MAX: usize = 128;
const BRANCH_ID_CHARS_MAX: usize = 128;
const WORD_CHARS_MAX: usize = 45;

/// A database with a barrier: [`sqlx::Postgres`], [`sqlx::MySql`] (MariaDB too) or [`sqlx::Sqlite`].
pub trait Database: sqlx::Database + sealed::Sealed {
    /// The table unless another is set: dtm's. SQLite has no schemas, and no SDK of dtm's: there it is `dtm_barrier`.
    const TABLE: &'static str;
    /// The statements that create [`Self::TABLE`], where it is not there yet.
    const SCHEMA: &'static [&'static str];

    /// Inserts the marks that are not there yet, and says which these were.
    #[doc(hidden)]
    fn insert(
        connection: &mut Self::Connection,
        table: &str,
        marks: Marks<'_>,
    ) -> impl Future<Output = Result<Inserted, sqlx::Error>> + Send;

    /// The reason of a mark, if it is there and committed.
    #[doc(hidden)]
    fn reason(
        connection: &mut Self::Connection,
        table: &str,
        key: Mark<'_>,
    ) -> impl Future<Output = Result<Option<String>, sqlx::Error>> + Send;

    #[doc(hidden)]
    fn execute(
        connection: &mut Self::Connection,
        statement: String,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for sqlx::Postgres {}
    impl Sealed for sqlx::MySql {}
    impl Sealed for sqlx::Sqlite {}
}

/// An identity that the table cannot hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {part} has {chars} characters, and a barrier's row takes {chars_max}; nothing was done")]
pub struct TooLong {
    pub part: &'static str,
    pub chars: usize,
    pub chars_max: usize,
}

/// Creates the table of barriers, unless it is there: for a service's start, or for its migrations.
pub async fn create_table<DB: Database>(pool: &Pool<DB>) -> Result<(), sqlx::Error> {
    let mut connection = pool.acquire().await?;
    for statement in DB::SCHEMA {
        DB::execute(&mut connection, (*statement).to_owned()).await?;
    }
    Ok(())
}

impl BranchBarrier {
    /// Runs `business` in a transaction of its own, unless the barrier says that there is nothing to do.
    ///
    /// The transaction is committed if `business` says `Ok`, and rolled back if it says `Err`, which comes out unchanged;
    /// the marks go with it, so the next call starts afresh.
    ///
    /// # Errors
    /// [`BranchError::Duplicated`] for the local part of a message that ran or was ruled out; what `business` says; and
    /// [`BranchError::Other`] if the database failed: call again, the marks then tell what happened.
    pub async fn call<DB, T, F>(&mut self, pool: &Pool<DB>, business: F) -> Result<Outcome<T>, BranchError>
    where
        DB: Database,
        F: AsyncFnOnce(&mut DB::Connection) -> Result<T, BranchError>,
    {
        let transaction = pool.begin().await?;
        self.call_in(transaction, business).await
    }

    /// As [`call`](Self::call), in a transaction that the caller began; it is committed or rolled back here.
    pub async fn call_in<DB, T, F>(
        &mut self,
        mut transaction: Transaction<'_, DB>,
        business: F,
    ) -> Result<Outcome<T>, BranchError>
    where
        DB: Database,
        F: AsyncFnOnce(&mut DB::Connection) -> Result<T, BranchError>,
    {
        let ran = match self.enter(&mut transaction).await {
            Ok(Outcome::Ran(())) => business(&mut *transaction).await.map(Outcome::Ran),
            Ok(Outcome::Repeated) => Ok(Outcome::Repeated),
            Ok(Outcome::Empty) => Ok(Outcome::Empty),
            Err(error) => Err(error),
        };
        match ran {
            Ok(outcome) => {
                transaction.commit().await?;
                Ok(outcome)
            }
            Err(error) => {
                if let Err(also) = transaction.rollback().await {
                    // The connection is closed then, which rolls back too.
                    tracing::debug!(gid = self.call.gid, error = %also, "the roll-back of a branch got no answer");
                }
                Err(error)
            }
        }
    }

    /// Leaves the marks in the caller's transaction and says what to do: the business if it is [`Outcome::Ran`], nothing
    /// otherwise. In every case but an error **commit the transaction**; on an error roll it back.
    pub async fn enter<DB: Database>(
        &mut self,
        transaction: &mut Transaction<'_, DB>,
    ) -> Result<Outcome<()>, BranchError> {
        let barrier_id = self.next_id();
        let marks = self.marks(&barrier_id);
        marks.own.fits()?;
        DB::insert(transaction, self.table_in::<DB>(), marks).await?.decide(&self.call.op)
    }

    /// Answers the check-back of a two-phase message: `Ok` if its local part was committed, [`BranchError::Failure`] if it
    /// was not and, from now on, cannot be.
    ///
    /// While the local transaction is open this waits for its end, so the answer is final. The wait is the database's
    /// (`innodb_lock_wait_timeout`, `lock_timeout`) or the pool's; when it is cut short the coordinator asks again.
    pub async fn query_prepared<DB: Database>(&self, pool: &Pool<DB>) -> Result<(), BranchError> {
        let marks = self.check_back();
        marks.own.fits()?;
        let mut connection = pool.acquire().await?;
        let table = self.table_in::<DB>();
        if DB::insert(&mut connection, table, marks).await?.own {
            return committed(marks.own.reason);
        }
        // A statement of its own: one that began before the wait would not see what was committed meanwhile.
        match DB::reason(&mut connection, table, marks.own).await? {
            Some(reason) => committed(&reason),
            None => Err(BranchError::other("the mark of this message was there and is gone; ask again")),
        }
    }

    fn table_in<DB: Database>(&self) -> &str {
        self.table.as_deref().unwrap_or(DB::TABLE)
    }
}

impl Mark<'_> {
    pub(super) fn fits(&self) -> Result<(), TooLong> {
        let parts = [
            ("gid", self.gid, GID_CHARS_MAX),
            ("branch_id", self.branch_id, BRANCH_ID_CHARS_MAX),
            ("trans_type", self.trans_type, WORD_CHARS_MAX),
            ("op", self.op, WORD_CHARS_MAX),
        ];
        for (part, text, chars_max) in parts {
            let chars = text.chars().count();
            if chars > chars_max {
                return Err(TooLong { part, chars, chars_max });
            }
        }
        Ok(())
    }
}

impl<'a> Marks<'a> {
    /// In the order in which they are inserted.
    fn iter(self) -> impl Iterator<Item = Mark<'a>> {
        self.undone.into_iter().chain([self.own])
    }

    /// From the ops that an insert returned.
    fn inserted(self, ops: &[String]) -> Inserted {
        let returned = |mark: Mark<'_>| ops.iter().any(|op| op == mark.op);
        Inserted { undone: self.undone.is_some_and(returned), own: returned(self.own) }
    }
}

/// The table is checked when it is set, and everything else is ours.
fn sql(text: String) -> AssertSqlSafe<String> {
    AssertSqlSafe(text)
}
