//! Finding transactions wherever they are: in Redis until they are drained, in the records from then on.
//!
//! Redis is always asked first. What leaves it was in the records before, so whatever is missing in the one answer is in
//! the other, also while things drain: nothing is shown twice and nothing is left out.

use super::operations::Refused;
use crate::domain::trans::{Global, Remembered, TransGid};
use crate::driver::Driver;
use crate::reconciler::sink;
use crate::store::trans::Filter;
use crate::store::trans_drain::Found;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Longest wait for the records, a connection to them included.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);

/// Asks the records. `what` says why they have to be asked, for whoever hears that they cannot.
///
/// Boxed: drivers of databases are futures deep inside each other, and every door would hold them all in its own.
async fn ask<T>(what: &str, asking: BoxFuture<'_, Result<T, sink::Error>>) -> Result<T, Refused> {
    let problem = match tokio::time::timeout(ANSWER_WAIT_MAX, asking).await {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} s", ANSWER_WAIT_MAX.as_secs()),
    };
    Err(Refused::Other(format!("{what}, and the records cannot be asked now: {problem}; ask again later")))
}

/// The whole transaction.
pub async fn transaction(driver: &Driver, gid: &TransGid) -> Result<Option<Global>, Refused> {
    let what = match driver.redis.find_trans(gid).await? {
        Found::There(loaded) => return Ok(Some(loaded.global)),
        Found::Left(over) => format!("{gid} is over ({}) and has left Redis", over.status),
        Found::Nothing => format!("{gid} is not in Redis"),
    };
    in_records(driver, gid, &what).await
}

/// How a transaction ended of which Redis remembers nothing; `None`: the records do not know it either.
pub async fn remembered(driver: &Driver, gid: &TransGid) -> Result<Option<Remembered>, Refused> {
    let found = in_records(driver, gid, &format!("{gid} is not in Redis")).await?;
    Ok(found.as_ref().and_then(Remembered::of))
}

async fn in_records(driver: &Driver, gid: &TransGid, what: &str) -> Result<Option<Global>, Refused> {
    ask(what, async { driver.records.sink().await?.transaction(gid).await }.boxed()).await
}

const MISSING: &str = "finished transactions that have left Redis would be missing here";

/// A page of a list, newest first.
#[derive(Default)]
pub struct Page {
    pub transactions: Vec<Global>,
    /// Where the next page begins; `None`: there is none.
    pub next: Option<(u64, String)>,
}

pub async fn page(driver: &Driver, filter: &Filter) -> Result<Page, Refused> {
    let mut keys: BTreeSet<(u64, String)> = driver.redis.list_trans(filter).await?.into_iter().collect();
    // What is not over is in Redis alone.
    if filter.status.is_none_or(|status| status.is_final()) {
        keys.extend(
            ask(MISSING, async { driver.records.sink().await?.list_transactions(filter).await }.boxed()).await?,
        );
    }
    let keys: Vec<(u64, String)> = keys.into_iter().rev().take(filter.limit).collect();
    let next = keys.last().filter(|_| keys.len() == filter.limit).cloned();
    Ok(Page { transactions: load(driver, keys).await?, next })
}

/// The transactions of these keys, in their order.
async fn load(driver: &Driver, keys: Vec<(u64, String)>) -> Result<Vec<Global>, Refused> {
    let gids: Vec<String> = keys.iter().map(|(_, gid)| gid.clone()).collect();
    let mut found: BTreeMap<(u64, String), Global> = BTreeMap::new();
    let key_of = |global: &Global| (global.create_ms, global.gid.to_string());
    for loaded in driver.redis.load_all_trans(&gids).await? {
        found.extend(loaded?.map(|loaded| (key_of(&loaded.global), loaded.global)));
    }
    // Under a gid in Redis there may be a younger one than the one of the list.
    let drained: Vec<(u64, String)> = keys.iter().filter(|key| !found.contains_key(*key)).cloned().collect();
    if !drained.is_empty() {
        let read = ask(MISSING, async { driver.records.sink().await?.transactions(&drained).await }.boxed()).await?;
        found.extend(read.into_iter().map(|global| (key_of(&global), global)));
    }
    Ok(keys.iter().filter_map(|key| found.remove(key)).collect())
}
