//! Where finished orders and global transactions go for good: one row or document each.
//!
//! A sink must make three promises, and each has a test on the real server:
//! writing the same records again changes nothing (idempotent by gid); `write` answers only when the records are as
//! durable as the store can make them; a failed `write` may have written any part, and writing again completes it.

use super::{mongo::Mongo, sql::Sql};
use crate::domain::ids::{Gid, SaleName};
use crate::domain::order::{Item, Record};
use crate::domain::trans::{Global, TransGid};
use crate::store::trans::Filter;
use futures_util::future::BoxFuture;
use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Why a sink could not do its work. Everything here may be tried again: writing is idempotent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The URL's scheme is none of `sqlite:`, `mongodb://`, `mongodb+srv://`, `postgres://`, `mysql://`.
    #[error("records URL {redacted}: {problem}")]
    Url { redacted: String, problem: String },
    /// The database refused or could not be reached. Nothing is lost: the orders stay in Redis.
    #[error("records in SQL: {0}")]
    Sql(#[from] sqlx::Error),
    #[error("records in MongoDB: {0}")]
    Mongo(#[from] mongodb::error::Error),
    /// The database took all records but this one (or some like it), by a rule that is not rushline's: a constraint,
    /// trigger or validator that somebody added. It will not pass until the rule goes; the others are written.
    #[error("record {gid} is refused by the database: {reason}")]
    Refused { gid: String, reason: String },
    /// A row that this program did not write, or wrote in a form it no longer reads.
    #[error("record {gid} cannot be read: {problem}")]
    Malformed { gid: String, problem: String },
}

/// A record that the database does not take, by a rule that is not rushline's or for its size; the others are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unwritten {
    pub gid: String,
    pub reason: String,
}

/// All that came back of an order after its sale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Returned {
    pub gid: Gid,
    pub items: Vec<Item>,
}

impl Returned {
    pub fn units(&self) -> i64 {
        self.items.iter().map(|item| i64::from(item.quantity)).sum()
    }
}

/// How many finished orders of a sale the records hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub succeed: u64,
    pub failed: u64,
}

/// The records of one server: chosen by URL when it starts.
#[derive(Clone)]
pub enum Sink {
    Sql(Sql),
    Mongo(Mongo),
    /// A simulator's own.
    Given(Arc<dyn Given>),
}

/// A sink of somebody else's making. It takes orders and what came back of them, and is asked for nothing.
pub trait Given: Send + Sync {
    fn write(&self, records: Vec<Record>) -> BoxFuture<'static, Result<(), Error>>;
    fn write_returns(&self, returned: Vec<Returned>) -> BoxFuture<'static, Result<(), Error>>;
}

pub(super) fn only_takes() -> Error {
    Error::Url { redacted: "given".into(), problem: "these records take orders and answer nothing".into() }
}

impl Sink {
    /// Connects, and creates or migrates the schema.
    /// `sqlite:PATH` (created if missing), `postgres://…`, `mysql://…` (MariaDB too), `mongodb://…/database`.
    pub async fn open(url: &str) -> Result<Self, Error> {
        match url.split(':').next().unwrap_or_default() {
            "sqlite" | "postgres" | "postgresql" | "mysql" | "mariadb" => Ok(Self::Sql(Sql::open(url).await?)),
            "mongodb" | "mongodb+srv" => Ok(Self::Mongo(Mongo::open(url).await?)),
            other => Err(Error::Url {
                redacted: format!("{other}:…"),
                problem: "must start with sqlite:, mongodb://, postgres:// or mysql://".into(),
            }),
        }
    }

    /// `SQLite`, `PostgreSQL`, `MySQL` or `MongoDB`, for the banner.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sql(sql) => sql.kind(),
            Self::Mongo(_) => "MongoDB",
            Self::Given(_) => "given",
        }
    }

    /// Writes all `records` durably; those already there stay as they are.
    pub async fn write(&self, records: &[Record]) -> Result<(), Error> {
        match self {
            Self::Sql(sql) => sql.write(records).await,
            Self::Mongo(mongo) => mongo.write(records).await,
            Self::Given(given) => given.write(records.to_vec()).await,
        }
    }

    pub async fn read(&self, gid: &Gid) -> Result<Option<Record>, Error> {
        let record = match self {
            Self::Sql(sql) => sql.read(gid).await?,
            Self::Mongo(mongo) => mongo.read(gid).await?,
            Self::Given(_) => return Err(only_takes()),
        };
        let Some(mut record) = record else { return Ok(None) };
        self.add_returns(std::slice::from_mut(&mut record)).await?;
        Ok(Some(record))
    }

    /// Up to `limit` records of a sale with a gid after `after`, in the byte order of the gid.
    pub async fn page(&self, sale: &SaleName, after: Option<&str>, limit: u32) -> Result<Vec<Record>, Error> {
        let mut records = match self {
            Self::Sql(sql) => sql.page(sale, after, limit).await?,
            Self::Mongo(mongo) => mongo.page(sale, after, limit).await?,
            Self::Given(_) => return Err(only_takes()),
        };
        self.add_returns(&mut records).await?;
        Ok(records)
    }

    /// Adds to records, which are in the byte order of their gids, what came back of them.
    pub(super) async fn add_returns(&self, records: &mut [Record]) -> Result<(), Error> {
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return Ok(()) };
        let (first, last) = (first.gid.to_string(), last.gid.to_string());
        let returned = match self {
            Self::Sql(sql) => sql.returns_between(&first, &last).await?,
            Self::Mongo(mongo) => mongo.returns_between(&first, &last).await?,
            Self::Given(_) => return Err(only_takes()),
        };
        let mut returned: HashMap<String, Vec<Item>> = returned.into_iter().collect();
        if returned.is_empty() {
            return Ok(()); // the usual case
        }
        for record in records {
            record.returned = returned.remove(&record.gid.to_string()).unwrap_or_default();
        }
        Ok(())
    }

    /// Writes what came back of orders, durably; a sum that is written late changes nothing.
    pub async fn write_returns(&self, returned: &[Returned]) -> Result<(), Error> {
        match self {
            Self::Sql(sql) => sql.write_returns(returned).await,
            Self::Mongo(mongo) => mongo.write_returns(returned).await,
            Self::Given(given) => given.write_returns(returned.to_vec()).await,
        }
    }

    pub async fn tally(&self, sale: &SaleName) -> Result<Tally, Error> {
        match self {
            Self::Sql(sql) => sql.tally(sale).await,
            Self::Mongo(mongo) => mongo.tally(sale).await,
            Self::Given(_) => Err(only_takes()),
        }
    }

    /// Writes finished global transactions durably; those already there stay as they are. Names those that the database
    /// refuses by themselves; all others are written.
    pub async fn write_transactions(&self, globals: &[impl Borrow<Global> + Sync]) -> Result<Vec<Unwritten>, Error> {
        match self {
            Self::Sql(sql) => sql.write_transactions(globals).await,
            Self::Mongo(mongo) => mongo.write_transactions(globals).await,
            Self::Given(_) => Err(only_takes()),
        }
    }

    /// The global transaction of this gid; the youngest, if there were several one after the other.
    pub async fn transaction(&self, gid: &TransGid) -> Result<Option<Global>, Error> {
        let found = self.read_transactions(&[gid.to_string()]).await?;
        Ok(found.into_iter().max_by_key(|global| global.create_ms))
    }

    /// Those of these times of creation and gids that are there, in any order.
    pub async fn transactions(&self, keys: &[(u64, String)]) -> Result<Vec<Global>, Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let gids: Vec<String> = keys.iter().map(|(_, gid)| gid.clone()).collect();
        let wanted: HashSet<(u64, &str)> = keys.iter().map(|(ms, gid)| (*ms, gid.as_str())).collect();
        let mut found = self.read_transactions(&gids).await?;
        found.retain(|global| wanted.contains(&(global.create_ms, global.gid.as_str())));
        Ok(found)
    }

    async fn read_transactions(&self, gids: &[String]) -> Result<Vec<Global>, Error> {
        match self {
            Self::Sql(sql) => sql.read_transactions(gids).await,
            Self::Mongo(mongo) => mongo.read_transactions(gids).await,
            Self::Given(_) => Err(only_takes()),
        }
    }

    /// Times of creation and gids of one page, newest first, by the indexes.
    pub async fn list_transactions(&self, filter: &Filter) -> Result<Vec<(u64, String)>, Error> {
        let mut found = match self {
            Self::Sql(sql) => sql.list_transactions(filter).await?,
            Self::Mongo(mongo) => mongo.list_transactions(filter).await?,
            Self::Given(_) => return Err(only_takes()),
        };
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.truncate(filter.limit);
        Ok(found)
    }
}
