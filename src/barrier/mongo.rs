//! The barrier in MongoDB: documents of a collection, in the multi-document transaction of the business.
//!
//! Wants a replica set, as all transactions of MongoDB do, and the unique index of [`create_index`]: without it calls that
//! meet would not notice each other.
//!
//! All marks of a call go in one `update` command of upserts, which says which of them it inserted. Within the snapshot of
//! the transaction a mark is there or it is inserted; if another transaction has inserted it and is open, or was
//! committed after our snapshot began, the unique index makes it a write conflict, which ends this transaction before the
//! business runs: [`BranchError::Ongoing`], and the coordinator asks again. So whoever runs the business is alone with the
//! key, and whoever skips it has seen a mark that a majority holds.
//!
//! ```no_run
//! # async fn handler(client: mongodb::Client, query: &str) -> Result<(), rushline::branch_error::BranchError> {
//! use mongodb::bson::doc;
//! use rushline::{barrier::BranchBarrier, branch_call::BranchCall};
//!
//! let accounts = client.database("shop").collection::<mongodb::bson::Document>("accounts");
//! BranchBarrier::new(BranchCall::from_query(query)?)
//!     .mongo_call(&client, async |session| {
//!         accounts.update_one(doc! { "_id": 1 }, doc! { "$inc": { "balance": -30 } }).session(session).await?;
//!         Ok(())
//!     })
//!     .await?;
//! # Ok(()) }
//! ```

use super::{BranchBarrier, Inserted, Mark, Marks, Outcome, TABLE, committed};
use crate::branch_error::BranchError;
use mongodb::bson::{Document, doc};
use mongodb::error::{Error, ErrorKind};
use mongodb::options::{IndexOptions, ReadConcern, WriteConcern};
use mongodb::{Client, ClientSession, Collection, IndexModel};
use std::time::Duration;

/// How long a check-back may wait for the end of an open local transaction; the coordinator asks again.
const CHECK_BACK_WAIT_MAX: Duration = Duration::from_secs(10);
/// The database of a table whose name has no dot.
const DATABASE: &str = "dtm_barrier";
const DUPLICATE_KEY: i32 = 11000;
/// The server's code for a document that another open transaction is writing.
const WRITE_CONFLICT: i32 = 112;

/// Creates the unique index of dtm's collection of barriers, and with it the collection, unless it is there: for a
/// service's start. For another collection make the same index: `gid, branch_id, op, barrier_id`.
pub async fn create_index(client: &Client) -> Result<(), Error> {
    let keys = doc! { "gid": 1, "branch_id": 1, "op": 1, "barrier_id": 1 };
    let index = IndexModel::builder().keys(keys).options(IndexOptions::builder().unique(true).build()).build();
    collection(client, TABLE).create_index(index).await.map(|_| ())
}

impl BranchBarrier {
    /// Runs `business` in a transaction, unless the barrier says that there is nothing to do. What `business` writes
    /// belongs to it if it is written with the session that it is given.
    ///
    /// The transaction is committed, by a majority, if `business` says `Ok`, and aborted if it says `Err`, which comes out
    /// unchanged.
    ///
    /// # Errors
    /// [`BranchError::Duplicated`] for the local part of a message that ran or was ruled out; [`BranchError::Ongoing`] if
    /// this call meets another; what `business` says; and [`BranchError::Other`] if the transaction could not start, or
    /// not be committed: call again, the marks then tell what happened.
    pub async fn mongo_call<T, F>(&mut self, client: &Client, business: F) -> Result<Outcome<T>, BranchError>
    where
        F: AsyncFnOnce(&mut ClientSession) -> Result<T, BranchError>,
    {
        let barrier_id = self.next_id();
        let mut session = client.start_session().await?;
        // A mark that a failover could take back must not have a call skipped.
        let transaction = session.start_transaction().read_concern(ReadConcern::snapshot());
        transaction.write_concern(WriteConcern::majority()).await?;
        let table = self.table.as_deref().unwrap_or(TABLE);
        let inserted = insert(client, table, self.marks(&barrier_id), &mut session).await;
        let ran = match inserted.and_then(|inserted| inserted.decide(&self.call.op)) {
            Ok(Outcome::Ran(())) => business(&mut session).await.map(Outcome::Ran),
            Ok(Outcome::Repeated) => Ok(Outcome::Repeated),
            Ok(Outcome::Empty) => Ok(Outcome::Empty),
            Err(error) => Err(error),
        };
        match ran {
            Ok(outcome) => {
                session.commit_transaction().await?;
                Ok(outcome)
            }
            Err(error) => {
                if let Err(also) = session.abort_transaction().await {
                    // The server ends it by itself, after a minute at most.
                    tracing::debug!(gid = self.call.gid, error = %also, "the abort of a branch got no answer");
                }
                Err(error)
            }
        }
    }

    /// Answers the check-back of a two-phase message: `Ok` if its local part was committed, [`BranchError::Failure`] if it
    /// was not and, from now on, cannot be. Waits for the end of an open local transaction, so the answer is final.
    pub async fn mongo_query_prepared(&self, client: &Client) -> Result<(), BranchError> {
        let mark = self.check_back().own;
        let table = self.table.as_deref().unwrap_or(TABLE);
        let mut command = upserts(table, Marks { undone: None, own: mark });
        command.insert("writeConcern", doc! { "w": "majority" });
        command.insert("maxTimeMS", i64::try_from(CHECK_BACK_WAIT_MAX.as_millis())?);
        let reply = client.database(names(table).0).run_command(command).await?;
        match write_error(&reply) {
            None if upserted(&reply, 0) => return committed(mark.reason),
            // Somebody was faster, by a hair: theirs is there now.
            None | Some(DUPLICATE_KEY) => {}
            Some(code) => return Err(BranchError::other(format!("the mark was not written: MongoDB's error {code}"))),
        }
        let marks = collection(client, table);
        let found = marks.find_one(key(mark)).read_concern(ReadConcern::majority()).await?;
        match found.as_ref().map(|found| found.get_str("reason")) {
            Some(Ok(reason)) => committed(reason),
            _ => Err(BranchError::other("the mark of this message is on its way to a majority; ask again")),
        }
    }
}

/// Leaves the marks that are not there yet, in one command.
async fn insert(
    client: &Client,
    table: &str,
    marks: Marks<'_>,
    session: &mut ClientSession,
) -> Result<Inserted, BranchError> {
    let met = || BranchError::ongoing("another call of this branch is under way");
    let reply = match client.database(names(table).0).run_command(upserts(table, marks)).session(session).await {
        Ok(reply) => reply,
        Err(error) if matches!(error.kind.as_ref(), ErrorKind::Command(refused) if refused.code == WRITE_CONFLICT) => {
            return Err(met());
        }
        Err(error) => return Err(error.into()),
    };
    match write_error(&reply) {
        None => {}
        Some(DUPLICATE_KEY | WRITE_CONFLICT) => return Err(met()),
        Some(code) => return Err(BranchError::other(format!("the mark was not written: MongoDB's error {code}"))),
    }
    Ok(match marks.undone {
        Some(_) => Inserted { undone: upserted(&reply, 0), own: upserted(&reply, 1) },
        None => Inserted { undone: false, own: upserted(&reply, 0) },
    })
}

fn upserts(table: &str, marks: Marks<'_>) -> Document {
    let upsert = |mark: Mark<'_>| {
        let new = doc! { "trans_type": mark.trans_type, "reason": mark.reason };
        doc! { "q": key(mark), "u": { "$setOnInsert": new }, "upsert": true }
    };
    let updates: Vec<Document> = marks.undone.into_iter().chain([marks.own]).map(upsert).collect();
    doc! { "update": names(table).1, "updates": updates, "ordered": true }
}

fn key(mark: Mark<'_>) -> Document {
    doc! { "gid": mark.gid, "branch_id": mark.branch_id, "op": mark.op, "barrier_id": mark.barrier_id }
}

/// Whether the upsert with this index inserted.
fn upserted(reply: &Document, index: i32) -> bool {
    let inserted = reply.get_array("upserted").map(Vec::as_slice).unwrap_or_default();
    inserted.iter().any(|one| one.as_document().and_then(|one| one.get_i32("index").ok()) == Some(index))
}

fn write_error(reply: &Document) -> Option<i32> {
    let errors = reply.get_array("writeErrors").ok()?;
    errors.first()?.as_document()?.get_i32("code").ok()
}

fn names(table: &str) -> (&str, &str) {
    table.split_once('.').unwrap_or((DATABASE, table))
}

fn collection(client: &Client, table: &str) -> Collection<Document> {
    let (database, collection) = names(table);
    client.database(database).collection(collection)
}
