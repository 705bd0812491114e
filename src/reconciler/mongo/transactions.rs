//! Finished global transactions in MongoDB: one document each, in the collection `transactions`.
//!
//! `_id` is `<gid>/<ms of creation>`: a gid is free again some time after its transaction has left Redis, and what is
//! then done under it is another transaction. Fields and lists are those of the SQL columns, as BSON; see
//! [`Transaction`] for the form of a payload. Two indexes serve the lists and whoever deletes what is old; they are
//! created when the server starts.

use super::{ANSWER_WAIT_MAX, CALL_BYTES_MAX, Mongo, Verdict, date, judge, within};
use crate::domain::trans::{Global, GlobalStatus, TransType};
use crate::reconciler::sink::{Error, Unwritten};
use crate::reconciler::transaction::{BranchRow, DriverState, OptionsSet, Step, Transaction, bytes_of};
use crate::store::trans::Filter;
use futures_util::TryStreamExt;
use mongodb::bson::{DateTime, doc};
use mongodb::options::InsertManyOptions;
use mongodb::{Collection, IndexModel};
use serde::{Deserialize, Serialize};
use std::borrow::Borrow;

pub(super) const COLLECTION: &str = "transactions";
/// Gids asked for by one query.
const GIDS_MAX: usize = 200;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Document {
    #[serde(rename = "_id")]
    id: String,
    gid: String,
    trans_type: String,
    status: String,
    protocol: String,
    query_prepared: String,
    custom_data: String,
    result: String,
    rollback_reason: String,
    options: OptionsSet,
    steps: Vec<Step>,
    branches: Vec<BranchRow>,
    driver: DriverState,
    create_time: DateTime,
    update_time: DateTime,
    finish_time: Option<DateTime>,
    rollback_time: Option<DateTime>,
}

/// What the index of the lists holds.
#[derive(Debug, Deserialize)]
struct Key {
    gid: String,
    create_time: DateTime,
}

impl From<Transaction> for Document {
    fn from(kept: Transaction) -> Self {
        Self {
            id: format!("{}/{}", kept.gid, kept.create_ms),
            gid: kept.gid,
            trans_type: kept.trans_type,
            status: kept.status,
            protocol: kept.protocol,
            query_prepared: kept.query_prepared,
            custom_data: kept.custom_data,
            result: kept.result,
            rollback_reason: kept.rollback_reason,
            options: kept.options,
            steps: kept.steps,
            branches: kept.branches,
            driver: kept.driver,
            create_time: date(kept.create_ms),
            update_time: date(kept.update_ms),
            finish_time: kept.finish_ms.map(date),
            rollback_time: kept.rollback_ms.map(date),
        }
    }
}

fn ms(date: DateTime) -> u64 {
    u64::try_from(date.timestamp_millis()).unwrap_or(0)
}

impl From<Document> for Transaction {
    fn from(document: Document) -> Self {
        Self {
            gid: document.gid,
            trans_type: document.trans_type,
            status: document.status,
            protocol: document.protocol,
            query_prepared: document.query_prepared,
            custom_data: document.custom_data,
            result: document.result,
            rollback_reason: document.rollback_reason,
            options: document.options,
            steps: document.steps,
            branches: document.branches,
            driver: document.driver,
            create_ms: ms(document.create_time),
            update_ms: ms(document.update_time),
            finish_ms: document.finish_time.map(ms),
            rollback_ms: document.rollback_time.map(ms),
        }
    }
}

/// Does nothing if they are there.
pub(super) async fn create_indexes(transactions: &Collection<Document>) -> mongodb::error::Result<()> {
    let listed = doc! { "status": 1, "trans_type": 1, "create_time": 1, "gid": 1 };
    let indexes = [listed, doc! { "update_time": 1 }].map(|keys| IndexModel::builder().keys(keys).build());
    transactions.create_indexes(indexes).await.map(|_| ())
}

impl Mongo {
    pub async fn write_transactions(&self, globals: &[impl Borrow<Global> + Sync]) -> Result<Vec<Unwritten>, Error> {
        let mut refused = Vec::new();
        let (mut call, mut bytes) = (Vec::with_capacity(globals.len()), 0);
        for global in globals {
            let kept = Transaction::from(global.borrow());
            let more = bytes_of(&kept);
            if bytes + more > CALL_BYTES_MAX && !call.is_empty() {
                self.insert_transactions(std::mem::take(&mut call), &mut refused).await?;
                bytes = 0;
            }
            bytes += more;
            call.push(Document::from(kept));
        }
        if !call.is_empty() {
            self.insert_transactions(call, &mut refused).await?;
        }
        Ok(refused)
    }

    async fn insert_transactions(&self, documents: Vec<Document>, refused: &mut Vec<Unwritten>) -> Result<(), Error> {
        let unordered = InsertManyOptions::builder().ordered(false).build();
        let insert = async { self.transactions.insert_many(&documents).with_options(unordered).await.map(|_| ()) };
        match within(ANSWER_WAIT_MAX, insert).await {
            Err(error) => match judge(&error) {
                Verdict::AllThere => Ok(()),
                Verdict::Refused(some) => {
                    refused.extend(some.into_iter().filter_map(|(index, reason)| {
                        documents.get(index).map(|document| Unwritten { gid: document.gid.clone(), reason })
                    }));
                    Ok(())
                }
                Verdict::Failed => Err(error.into()),
            },
            Ok(()) => Ok(()),
        }
    }

    pub async fn read_transactions(&self, gids: &[String]) -> Result<Vec<Global>, Error> {
        let mut found = Vec::with_capacity(gids.len());
        for gids in gids.chunks(GIDS_MAX) {
            // Ranges of the index on `_id`: 0 follows /, and no gid holds a /.
            let ranges: Vec<_> =
                gids.iter().map(|gid| doc! { "_id": { "$gt": format!("{gid}/"), "$lt": format!("{gid}0") } }).collect();
            let find = async { self.transactions.find(doc! { "$or": ranges }).await?.try_collect::<Vec<_>>().await };
            for document in within(ANSWER_WAIT_MAX, find).await? {
                found.push(Transaction::from(document).into_global()?);
            }
        }
        Ok(found)
    }

    /// Times of creation and gids, newest first, by the index alone.
    pub async fn list_transactions(&self, filter: &Filter) -> Result<Vec<(u64, String)>, Error> {
        let statuses = filter.status.map_or(GlobalStatus::ALL.to_vec(), |status| vec![status]);
        let types = filter.trans_type.map_or(TransType::ALL.to_vec(), |trans_type| vec![trans_type]);
        let keys = self.transactions.clone_with_type::<Key>();
        let mut found = Vec::new();
        if filter.limit == 0 {
            return Ok(found); // MongoDB takes 0 for "no limit"
        }
        for status in statuses.into_iter().filter(|status| status.is_final()) {
            for trans_type in &types {
                let mut wanted = doc! { "status": status.as_str(), "trans_type": trans_type.as_str() };
                let mut bounds = doc! { "$gte": date(filter.created.0.unwrap_or(0)) };
                let high = filter.created.1.into_iter().chain(filter.after.iter().map(|(ms, _)| *ms)).min();
                if let Some(high) = high {
                    bounds.insert("$lte", date(high));
                }
                wanted.insert("create_time", bounds);
                if let Some((ms, gid)) = &filter.after {
                    wanted.insert(
                        "$or",
                        [doc! { "create_time": { "$lt": date(*ms) } }, doc! { "gid": { "$lt": gid } }].to_vec(),
                    );
                }
                let find = async {
                    let found = keys
                        .find(wanted)
                        .projection(doc! { "_id": 0, "gid": 1, "create_time": 1 })
                        .sort(doc! { "create_time": -1, "gid": -1 })
                        .limit(i64::try_from(filter.limit).unwrap_or(i64::MAX))
                        .await?;
                    found.try_collect::<Vec<_>>().await
                };
                let some = within(ANSWER_WAIT_MAX, find).await?;
                found.extend(some.into_iter().map(|key| (ms(key.create_time), key.gid)));
            }
        }
        Ok(found)
    }
}
