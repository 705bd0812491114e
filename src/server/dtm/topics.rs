//! Topics of two-phase messages: a named list of subscribers, kept as dtm keeps it.
//!
//! They are read when a message names one, so a subscription counts at once on every node; dtm's reach the others
//! after some seconds.

use super::operations::{Refused, Subscribers, check_url};
use crate::domain::trans::topic::{self, Subscriber};
use crate::domain::trans::{Protocol, Refusal, TransRequest};
use crate::driver::Driver;
use crate::store::Error;

pub const CATEGORY: &str = "topics";
const SCHEME: &str = "topic://";
/// How often a change is tried anew because another one came first.
const TRIES_MAX: u32 = 16;
fn parse(value: &str) -> Result<Vec<Subscriber>, Refused> {
    serde_json::from_str(value).map_err(|error| Error::Unexpected { what: "a topic", reply: error.to_string() }.into())
}

/// The topics that the steps name. One that is not there is left out.
pub async fn of_request(driver: &Driver, request: &TransRequest) -> Result<Subscribers, Refused> {
    let mut found = Subscribers::new();
    for name in request.steps.iter().filter_map(|step| step.action.strip_prefix(SCHEME)) {
        if found.contains_key(name) {
            continue;
        }
        if let Some(stored) = driver.redis.kv_read(CATEGORY, name).await? {
            let urls = parse(&stored.value)?.into_iter().map(|subscriber| subscriber.url).collect();
            found.insert(name.to_owned(), urls);
        }
    }
    Ok(found)
}

pub async fn subscribe(driver: &Driver, topic: &str, url: &str, remark: &str) -> Result<(), Refused> {
    change(driver, topic, |there| {
        let subscribers = topic::subscribe(there, topic, url, remark)?;
        check_url("url", Protocol::Grpc, url)?; // by its URL alone: messages of any protocol may come
        Ok(subscribers)
    })
    .await
}

pub async fn unsubscribe(driver: &Driver, topic: &str, url: &str) -> Result<(), Refused> {
    change(driver, topic, |there| Ok(topic::unsubscribe(there, topic, url)?)).await
}

pub async fn delete(driver: &Driver, topic: &str) -> Result<(), Refused> {
    for _ in 0..TRIES_MAX {
        let Some(stored) = driver.redis.kv_read(CATEGORY, topic).await? else {
            return Err(Refusal::StorageNotFound.into());
        };
        if driver.redis.kv_save(CATEGORY, topic, stored.version, None).await? {
            return Ok(());
        }
    }
    Err(Refusal::StorageNotFound.into())
}

async fn change(
    driver: &Driver,
    topic: &str,
    change: impl Fn(Option<&[Subscriber]>) -> Result<Vec<Subscriber>, Refused>,
) -> Result<(), Refused> {
    for _ in 0..TRIES_MAX {
        let stored = driver.redis.kv_read(CATEGORY, topic).await?;
        let (version, there) = match stored {
            Some(stored) => (stored.version, Some(parse(&stored.value)?)),
            None => (0, None),
        };
        let value = serde_json::to_string(&change(there.as_deref())?).expect("subscribers are plain data");
        if driver.redis.kv_save(CATEGORY, topic, version, Some(&value)).await? {
            return Ok(());
        }
    }
    Err(Refusal::UniqueKeyConflict.into())
}
