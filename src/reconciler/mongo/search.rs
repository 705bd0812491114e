//! A range of orders in MongoDB, newest first, with what else is asked of each document.

use super::super::search::Range;
use super::{Mongo, within};
use crate::domain::order::Record;
use crate::reconciler::sink::Error;
use futures_util::TryStreamExt;
use mongodb::bson::{Bson, doc};
use std::time::Duration;

/// A search may read the whole range of a sale, document by document.
const SEARCH_WAIT_MAX: Duration = Duration::from_secs(30);

impl Mongo {
    pub(in crate::reconciler) async fn search(&self, range: Range<'_>) -> Result<Vec<Record>, Error> {
        if range.limit == 0 {
            return Ok(Vec::new()); // MongoDB takes 0 for "no limit"
        }
        let mut wanted = doc! { "_id": { "$gt": range.low, "$lt": range.high } };
        if !range.buyer.is_empty() {
            wanted.insert("buyer", range.buyer);
        }
        if !range.status.is_empty() {
            wanted.insert("status", range.status);
        }
        if !range.text.is_empty() {
            let text = doc! { "$regex": literal(range.text), "$options": "i" };
            let anywhere = ["_id", "buyer", "payload", "reason"].map(|field| Bson::from(doc! { field: text.clone() }));
            wanted.insert("$or", anywhere.to_vec());
        }
        let find = async {
            let found = self.orders.find(wanted).sort(doc! { "_id": -1 }).limit(i64::from(range.limit)).await?;
            found.try_collect::<Vec<_>>().await
        };
        within(SEARCH_WAIT_MAX, find).await?.into_iter().map(Record::try_from).collect()
    }
}

/// A pattern that matches this text and nothing else.
fn literal(text: &str) -> String {
    let escaped = |c: char| if c.is_ascii_punctuation() { format!("\\{c}") } else { c.to_string() };
    text.chars().map(escaped).collect()
}
