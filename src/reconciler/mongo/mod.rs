//! Records in MongoDB: one document per finished order, in the collection `orders`.
//!
//! `_id` is the gid. Documents read `{_id, sale, buyer, items: [{sku, quantity}], payload, status, reason, attempts,
//! admitted_at, finished_at}`; times are dates, the payload is the buyer's JSON as text, byte for byte: a sub-document
//! would reorder, convert numbers and refuse what BSON cannot hold.
//!
//! There is nothing to create or migrate: the collection comes with its first document, and the index on `_id` with
//! the collection. A sale's gids share the prefix `<sale>.`, so pages and sums are ranges of that index.
//!
//! Finished global transactions are in a collection of their own: see [`transactions`]; so is what came back after the
//! sale: see [`returns`].

mod returns;
mod search;
mod transactions;

use super::address;
use super::sink::{Error, Tally};
use super::sql::row::range;
use crate::domain::ids::{Buyer, Gid, Invalid, SaleName, Sku};
use crate::domain::order::{Item, Record, Status};
use futures_util::TryStreamExt;
use mongodb::bson::{DateTime, doc};
use mongodb::error::ErrorKind;
use mongodb::options::{ClientOptions, InsertManyOptions, ReadConcern, WriteConcern};
use mongodb::{Client, Collection};
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::time::Duration;

/// The database if the URL names none.
const DATABASE: &str = "rushline";
const COLLECTION: &str = "orders";
/// How long to look for a server that takes writes. One that is down is reported after this.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(3);
/// How long one call may take, a majority's fsync included.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);
/// Counting a sale of millions reads its whole range.
const TALLY_WAIT_MAX: Duration = Duration::from_secs(60);
/// Most documents and bytes of one call: a bound on memory here and on time there.
const CALL_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The server's code for a document whose `_id` is there already.
const DUPLICATE_KEY: i32 = 11000;
/// Its codes for a document that it will never take: by a unique index, by a validator, by size.
const REFUSALS: [i32; 3] = [DUPLICATE_KEY, 121, 10334];

/// Records in MongoDB.
#[derive(Clone)]
pub struct Mongo {
    orders: Collection<Document>,
    transactions: Collection<transactions::Document>,
    returns: Collection<returns::Document>,
}

/// A record as MongoDB keeps it.
#[derive(Debug, Serialize, Deserialize)]
struct Document {
    #[serde(rename = "_id")]
    gid: String,
    sale: String,
    buyer: String,
    items: Vec<DocumentItem>,
    payload: String,
    status: String,
    reason: Option<String>,
    attempts: i64,
    admitted_at: DateTime,
    finished_at: DateTime,
}

#[derive(Debug, Serialize, Deserialize)]
struct DocumentItem {
    sku: String,
    quantity: i64,
}

#[derive(Debug, Deserialize)]
struct StatusCount {
    #[serde(rename = "_id")]
    status: String,
    count: i64,
}

impl Mongo {
    /// Connects, and asks the server for an answer.
    pub async fn open(url: &str) -> Result<Self, Error> {
        let mut options = ClientOptions::parse(url).await.map_err(|e| address::refused(url, &e.to_string()))?;
        options.app_name.get_or_insert_with(|| "rushline".into());
        options.server_selection_timeout.get_or_insert(CONNECT_WAIT_MAX);
        options.connect_timeout.get_or_insert(CONNECT_WAIT_MAX);
        // Ok must mean durable, whatever the URL or the deployment has as its default.
        options.write_concern =
            Some(WriteConcern::builder().w(mongodb::options::Acknowledgment::Majority).journal(true).build());
        options.read_concern = Some(ReadConcern::majority());
        let database = options.default_database.clone().unwrap_or_else(|| DATABASE.into());
        let database = Client::with_options(options)?.database(&database);
        within(ANSWER_WAIT_MAX, async { database.run_command(doc! { "ping": 1 }).await }).await?;
        let transactions = database.collection(transactions::COLLECTION);
        within(ANSWER_WAIT_MAX, transactions::create_indexes(&transactions)).await?;
        let returns = database.collection(returns::COLLECTION);
        Ok(Self { orders: database.collection(COLLECTION), transactions, returns })
    }

    /// Writes all `records` durably; those already there stay as they are.
    pub async fn write(&self, records: &[Record]) -> Result<(), Error> {
        let mut call = Vec::with_capacity(records.len());
        let mut bytes = 0;
        for record in records {
            let more = record.payload.len() + record.reason.as_ref().map_or(0, String::len);
            if bytes + more > CALL_BYTES_MAX && !call.is_empty() {
                self.insert(std::mem::take(&mut call)).await?;
                bytes = 0;
            }
            bytes += more;
            call.push(Document::from(record));
        }
        if call.is_empty() { Ok(()) } else { self.insert(call).await }
    }

    async fn insert(&self, documents: Vec<Document>) -> Result<(), Error> {
        // Not ordered: a duplicate does not keep those behind it from being written.
        let unordered = InsertManyOptions::builder().ordered(false).build();
        let insert = async { self.orders.insert_many(&documents).with_options(unordered).await.map(|_| ()) };
        match within(ANSWER_WAIT_MAX, insert).await {
            Err(error) => match judge(&error) {
                Verdict::AllThere => Ok(()),
                Verdict::Refused(refused) => {
                    let (index, reason) = refused.into_iter().next().unwrap_or_default();
                    let gid = documents.get(index).map_or_else(String::new, |document| document.gid.clone());
                    Err(Error::Refused { gid, reason })
                }
                Verdict::Failed => Err(error.into()),
            },
            Ok(()) => Ok(()),
        }
    }

    pub async fn read(&self, gid: &Gid) -> Result<Option<Record>, Error> {
        let find = async { self.orders.find_one(doc! { "_id": gid.to_string() }).await };
        within(ANSWER_WAIT_MAX, find).await?.map(Record::try_from).transpose()
    }

    /// Up to `limit` records of a sale with a gid after `after`, in the byte order of the gid.
    pub async fn page(&self, sale: &SaleName, after: Option<&str>, limit: u32) -> Result<Vec<Record>, Error> {
        let (first, end) = range(sale);
        let after = after.map_or(first.as_str(), |after| after.max(&first));
        if limit == 0 {
            return Ok(Vec::new()); // MongoDB takes 0 for "no limit"
        }
        let find = async {
            let of_sale = doc! { "_id": { "$gt": after, "$lt": &end } };
            let found = self.orders.find(of_sale).sort(doc! { "_id": 1 }).limit(i64::from(limit)).await?;
            found.try_collect::<Vec<_>>().await
        };
        within(ANSWER_WAIT_MAX, find).await?.into_iter().map(Record::try_from).collect()
    }

    pub async fn tally(&self, sale: &SaleName) -> Result<Tally, Error> {
        let (first, end) = range(sale);
        let steps = [
            doc! { "$match": { "_id": { "$gt": first, "$lt": end } } },
            doc! { "$group": { "_id": "$status", "count": { "$sum": 1_i64 } } },
        ];
        let count =
            async { self.orders.aggregate(steps).with_type::<StatusCount>().await?.try_collect::<Vec<_>>().await };
        let counts = within(TALLY_WAIT_MAX, count).await?;
        let count = |status: Status| {
            let found = counts.iter().find(|count| count.status == status.as_str());
            found.map_or(0, |count| u64::try_from(count.count).unwrap_or(0))
        };
        Ok(Tally { succeed: count(Status::Succeed), failed: count(Status::Failed) })
    }
}

/// Bounds a wait: a server that took the connection and says nothing is as good as down.
async fn within<T>(
    wait: Duration,
    work: impl Future<Output = Result<T, mongodb::error::Error>>,
) -> Result<T, mongodb::error::Error> {
    tokio::time::timeout(wait, work).await.unwrap_or_else(|_| {
        let message = format!("the database did not answer within {} s", wait.as_secs());
        Err(std::io::Error::new(std::io::ErrorKind::TimedOut, message).into())
    })
}

/// What an error of `insert_many` means for the batch.
enum Verdict {
    /// All that went wrong is that some documents are there already. Their durability was waited for all the same: the
    /// server holds its answer until everything up to now has reached the majority.
    AllThere,
    /// The server took the others, and these, by their place and with its reason, not: a validator, a unique index, a
    /// document that is too large.
    Refused(Vec<(usize, String)>),
    /// Nothing is known about any of them.
    Failed,
}

fn judge(error: &mongodb::error::Error) -> Verdict {
    let ErrorKind::InsertMany(insert) = error.kind.as_ref() else { return Verdict::Failed };
    let Some(writes) = insert.write_errors.as_deref().filter(|_| insert.write_concern_error.is_none()) else {
        return Verdict::Failed;
    };
    // By `_id`: a unique index that somebody added to the collection is a rule of theirs, and not a record written before.
    let there = |code: i32, message: &str| code == DUPLICATE_KEY && message.contains("index: _id_ ");
    let others: Vec<_> = writes.iter().filter(|write| !there(write.code, &write.message)).collect();
    match others.as_slice() {
        [] if writes.is_empty() => Verdict::Failed,
        [] => Verdict::AllThere,
        others if others.iter().all(|write| REFUSALS.contains(&write.code)) => {
            let refused = |write: &&mongodb::error::IndexedWriteError| {
                (write.index, format!("{} ({})", write.message, write.code))
            };
            Verdict::Refused(others.iter().map(refused).collect())
        }
        _ => Verdict::Failed,
    }
}

fn date(ms: u64) -> DateTime {
    DateTime::from_millis(i64::try_from(ms).unwrap_or(i64::MAX))
}

impl From<&Record> for Document {
    fn from(record: &Record) -> Self {
        let item = |item: &Item| DocumentItem { sku: item.sku.to_string(), quantity: item.quantity.into() };
        Self {
            gid: record.gid.to_string(),
            sale: record.gid.sale.to_string(),
            buyer: record.buyer.to_string(),
            items: record.items.iter().map(item).collect(),
            payload: record.payload.clone(),
            status: record.status.as_str().into(),
            reason: record.reason.clone(),
            attempts: record.attempts.into(),
            admitted_at: date(record.admitted_ms),
            finished_at: date(record.finished_ms),
        }
    }
}

impl TryFrom<Document> for Record {
    type Error = Error;

    fn try_from(document: Document) -> Result<Self, Error> {
        let gid = document.gid;
        let malformed = |problem: String| Error::Malformed { gid: gid.clone(), problem };
        let invalid = |e: Invalid| malformed(e.to_string());
        let item = |item: DocumentItem| {
            let quantity = u32::try_from(item.quantity).map_err(|_| malformed("a quantity is out of range".into()))?;
            Ok(Item { sku: Sku::parse(item.sku).map_err(invalid)?, quantity })
        };
        let ms = |date: DateTime| {
            u64::try_from(date.timestamp_millis()).map_err(|_| malformed("a time is before 1970".into()))
        };
        Ok(Self {
            gid: gid.parse().map_err(invalid)?,
            buyer: Buyer::parse(document.buyer).map_err(invalid)?,
            items: document.items.into_iter().map(item).collect::<Result<_, Error>>()?,
            payload: document.payload,
            status: Status::parse(&document.status).ok_or_else(|| malformed("its status is unknown".into()))?,
            reason: document.reason,
            attempts: u32::try_from(document.attempts).map_err(|_| malformed("attempts is out of range".into()))?,
            admitted_ms: ms(document.admitted_at)?,
            finished_ms: ms(document.finished_at)?,
            returned: Vec::new(),
        })
    }
}
