//! Where finished orders go for good: one row or document per gid.
//!
//! A sink must make three promises, and each has a test on the real server:
//! writing the same records again changes nothing (idempotent by gid); `write` answers only when the records are as
//! durable as the store can make them; a failed `write` may have written any part, and writing again completes it.

use super::{mongo::Mongo, sql::Sql};
use crate::domain::ids::{Gid, SaleName};
use crate::domain::order::Record;

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
        }
    }

    /// Writes all `records` durably; those already there stay as they are.
    pub async fn write(&self, records: &[Record]) -> Result<(), Error> {
        match self {
            Self::Sql(sql) => sql.write(records).await,
            Self::Mongo(mongo) => mongo.write(records).await,
        }
    }

    pub async fn read(&self, gid: &Gid) -> Result<Option<Record>, Error> {
        match self {
            Self::Sql(sql) => sql.read(gid).await,
            Self::Mongo(mongo) => mongo.read(gid).await,
        }
    }

    /// Up to `limit` records of a sale with a gid after `after`, in the byte order of the gid.
    pub async fn page(&self, sale: &SaleName, after: Option<&str>, limit: u32) -> Result<Vec<Record>, Error> {
        match self {
            Self::Sql(sql) => sql.page(sale, after, limit).await,
            Self::Mongo(mongo) => mongo.page(sale, after, limit).await,
        }
    }

    pub async fn tally(&self, sale: &SaleName) -> Result<Tally, Error> {
        match self {
            Self::Sql(sql) => sql.tally(sale).await,
            Self::Mongo(mongo) => mongo.tally(sale).await,
        }
    }
}
