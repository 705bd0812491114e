//! The branch's side of an XA transaction, in MySQL, MariaDB or PostgreSQL.
//!
//! First phase: the business runs in a transaction that the database is told to keep, prepared, under the name
//! `<gid>-<branch_id>`; second phase: the coordinator has it committed or rolled back, maybe by another process, maybe in
//! another language. [`branch`] is the handler of both; it is dtm's, but for two gaps that are closed:
//!
//! - A prepared transaction is unknown to others until the connection that prepared it has gone. dtm takes "unknown" for
//!   "done before". Here a commit that finds nothing looks for the branch's row, and if that is not there says
//!   [`BranchError::Other`]: the coordinator calls again.
//! - A first phase that comes after its roll-back is refused by the row it finds, not only by the coordinator.
//!
//! The first phase has a connection of its own, which is closed at the end: whatever happens on the way, the database
//! then forgets what was not prepared. PostgreSQL needs `max_prepared_transactions` above 0.

use super::sql::{Database, TooLong};
use super::{BranchBarrier, ROLLBACK};
use crate::branch_call::{BranchCall, op};
use crate::branch_error::BranchError;
use sqlx::{Connection, Pool};

/// The barrier id of both phases.
const BARRIER_ID: &str = "01";

/// A database with XA: [`sqlx::MySql`] (MariaDB too) or [`sqlx::Postgres`].
pub trait Xa: Database {
    /// The longest name of a transaction, in bytes.
    const XID_BYTES_MAX: usize;

    /// The statement of a step; `None` if this database has no such step.
    #[doc(hidden)]
    fn statement(step: Step, xid: &str) -> Option<String>;

    /// Whether the database says that it knows no such transaction.
    #[doc(hidden)]
    fn is_unknown(error: &sqlx::Error) -> bool;
}

#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Start,
    End,
    Prepare,
    /// Rolls back what is not prepared.
    Abort,
    Commit,
    Rollback,
}

impl Xa for sqlx::MySql {
    const XID_BYTES_MAX: usize = 64;

    fn statement(step: Step, xid: &str) -> Option<String> {
        // In hex it is the same name, whatever quotes it holds and whatever the SQL mode makes of backslashes.
        let hex: String = xid.bytes().map(|byte| format!("{byte:02x}")).collect();
        let verb = match step {
            Step::Start => "START",
            Step::End => "END",
            Step::Prepare => "PREPARE",
            Step::Abort | Step::Rollback => "ROLLBACK",
            Step::Commit => "COMMIT",
        };
        Some(format!("XA {verb} X'{hex}'"))
    }

    fn is_unknown(error: &sqlx::Error) -> bool {
        error.as_database_error().is_some_and(|error| error.message().contains("XAER_NOTA"))
    }
}

impl Xa for sqlx::Postgres {
    const XID_BYTES_MAX: usize = 199;

    fn statement(step: Step, xid: &str) -> Option<String> {
        let quoted = format!("E'{}'", xid.replace('\\', r"\\").replace('\'', "''"));
        match step {
            Step::Start => Some("BEGIN".into()),
            Step::End => None,
            Step::Prepare => Some(format!("PREPARE TRANSACTION {quoted}")),
            Step::Abort => Some("ROLLBACK".into()),
            Step::Commit => Some(format!("COMMIT PREPARED {quoted}")),
            Step::Rollback => Some(format!("ROLLBACK PREPARED {quoted}")),
        }
    }

    fn is_unknown(error: &sqlx::Error) -> bool {
        // undefined_object
        error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("42704"))
    }
}

/// Handles a call of an XA branch: the first phase runs `business` and then `register`, the second commits or rolls back.
///
/// `register` tells the coordinator of the branch (`registerBranch` with the call's `phase2_url`). It comes after the
/// business and before the transaction is prepared: if the global transaction was given up meanwhile, the coordinator
/// refuses, and the branch is rolled back.
///
/// `Some` is what the business returned in the first phase; the second phase has `None`.
///
/// # Errors
/// [`BranchError::Failure`] if the business said so, or if this branch was rolled back before it began, or ran before;
/// nothing of it is left. [`BranchError::Other`]: call again. A second phase may be called any number of times.
pub async fn branch<DB, T, F, R>(
    pool: &Pool<DB>,
    call: &BranchCall,
    business: F,
    register: R,
) -> Result<Option<T>, BranchError>
where
    DB: Xa,
    F: AsyncFnOnce(&mut DB::Connection) -> Result<T, BranchError>,
    R: AsyncFnOnce() -> Result<(), BranchError>,
{
    match call.op.as_str() {
        op::COMMIT => commit(pool, call).await.map(|()| None),
        op::ROLLBACK => roll_back(pool, call).await.map(|()| None),
        _ => first_phase(pool, call, business, register).await.map(Some),
    }
}

async fn first_phase<DB, T, F, R>(
    pool: &Pool<DB>,
    call: &BranchCall,
    business: F,
    register: R,
) -> Result<T, BranchError>
where
    DB: Xa,
    F: AsyncFnOnce(&mut DB::Connection) -> Result<T, BranchError>,
    R: AsyncFnOnce() -> Result<(), BranchError>,
{
    let xid = xid::<DB>(call)?;
    // Detached, so that no one else gets it half-way, even if this future is dropped.
    let mut connection = pool.acquire().await?.detach();
    step::<DB>(&mut connection, Step::Start, &xid).await?;
    let ran = work::<DB, _, _, _>(&mut connection, call, business, register).await;
    let ended = step::<DB>(&mut connection, Step::End, &xid).await.map_err(BranchError::from);
    let prepared = match (ran, ended) {
        (Ok(value), Ok(())) => match step::<DB>(&mut connection, Step::Prepare, &xid).await {
            Ok(()) => Ok(value),
            Err(error) => Err(error.into()),
        },
        (Err(error), _) | (Ok(_), Err(error)) => {
            if let Err(also) = step::<DB>(&mut connection, Step::Abort, &xid).await {
                tracing::debug!(gid = call.gid, error = %also, "an XA branch is rolled back by closing its connection");
            }
            Err(error)
        }
    };
    // Until it is gone the second phase would not find what was prepared here.
    if let Err(error) = connection.close().await {
        tracing::debug!(gid = call.gid, %error, "the connection of an XA branch did not close in good order");
    }
    prepared
}

async fn work<DB, T, F, R>(
    connection: &mut DB::Connection,
    call: &BranchCall,
    business: F,
    register: R,
) -> Result<T, BranchError>
where
    DB: Xa,
    F: AsyncFnOnce(&mut DB::Connection) -> Result<T, BranchError>,
    R: AsyncFnOnce() -> Result<(), BranchError>,
{
    let marks = mark_of(call, op::ACTION)?;
    if !DB::insert(connection, DB::TABLE, marks.marks(BARRIER_ID)).await?.own {
        return Err(BranchError::failure("this XA branch was rolled back before it began, or has run before"));
    }
    let value = business(connection).await?;
    register().await?;
    Ok(value)
}

async fn commit<DB: Xa>(pool: &Pool<DB>, call: &BranchCall) -> Result<(), BranchError> {
    let mut connection = pool.acquire().await?;
    match step::<DB>(&mut connection, Step::Commit, &xid::<DB>(call)?).await {
        Ok(()) => return Ok(()),
        Err(error) if DB::is_unknown(&error) => {}
        Err(error) => return Err(error.into()),
    }
    let marks = mark_of(call, op::ACTION)?;
    match DB::reason(&mut connection, DB::TABLE, marks.marks(BARRIER_ID).own).await? {
        // The row is visible, so what wrote it is committed.
        Some(reason) if reason != ROLLBACK => Ok(()),
        Some(_) => Err(BranchError::other("this XA branch was rolled back earlier and cannot be committed now")),
        None => Err(BranchError::other(
            "the database knows no such prepared transaction and has no row of it: its first phase may still hold it",
        )),
    }
}

async fn roll_back<DB: Xa>(pool: &Pool<DB>, call: &BranchCall) -> Result<(), BranchError> {
    let mut connection = pool.acquire().await?;
    match step::<DB>(&mut connection, Step::Rollback, &xid::<DB>(call)?).await {
        Ok(()) => {}
        Err(error) if DB::is_unknown(&error) => {}
        Err(error) => return Err(error.into()),
    }
    // Waits for a first phase that is still running, and keeps one that comes later from running.
    let barrier = mark_of(call, op::ACTION)?;
    let mut marks = barrier.marks(BARRIER_ID);
    marks.own.reason = ROLLBACK;
    if DB::insert(&mut connection, DB::TABLE, marks).await?.own {
        return Ok(());
    }
    // The first phase ended while we waited: prepared, that is, or it would have left no row.
    match DB::reason(&mut connection, DB::TABLE, marks.own).await? {
        Some(reason) if reason == ROLLBACK => Ok(()),
        _ => Err(BranchError::other("this XA branch is committed and cannot be rolled back")),
    }
}

async fn step<DB: Xa>(connection: &mut DB::Connection, step: Step, xid: &str) -> Result<(), sqlx::Error> {
    match DB::statement(step, xid) {
        Some(statement) => DB::execute(connection, statement).await,
        None => Ok(()),
    }
}

/// A barrier for the row of the first phase: the second phase asks for the same.
fn mark_of(call: &BranchCall, op: &str) -> Result<BranchBarrier, BranchError> {
    let barrier = BranchBarrier::new(BranchCall::new(&call.trans_type, &call.gid, &call.branch_id, op)?);
    barrier.marks(BARRIER_ID).own.fits()?;
    Ok(barrier)
}

fn xid<DB: Xa>(call: &BranchCall) -> Result<String, TooLong> {
    let xid = format!("{}-{}", call.gid, call.branch_id);
    if xid.len() > DB::XID_BYTES_MAX {
        return Err(TooLong { part: "XA name <gid>-<branch_id>", chars: xid.len(), chars_max: DB::XID_BYTES_MAX });
    }
    Ok(xid)
}
