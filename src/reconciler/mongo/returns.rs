//! What came back after the sale: one document per order of which units came back, in the collection `returns`.
//!
//! `{_id, sale, items: [{sku, quantity}], units}` with all that came back so far. It only ever grows: an older sum that is
//! written late changes nothing.

use super::{ANSWER_WAIT_MAX, DUPLICATE_KEY, DocumentItem, Mongo, within};
use crate::domain::ids::Sku;
use crate::domain::order::Item;
use crate::reconciler::sink::{Error, Returned};
use futures_util::TryStreamExt;
use mongodb::bson::doc;
use mongodb::error::{ErrorKind, WriteFailure};
use serde::{Deserialize, Serialize};

pub(super) const COLLECTION: &str = "returns";

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Document {
    #[serde(rename = "_id")]
    gid: String,
    sale: String,
    items: Vec<DocumentItem>,
    units: i64,
}

impl Mongo {
    /// Writes what came back of these orders, durably.
    pub async fn write_returns(&self, returned: &[Returned]) -> Result<(), Error> {
        for each in returned {
            let item = |item: &Item| doc! { "sku": item.sku.as_str(), "quantity": i64::from(item.quantity) };
            let items: Vec<_> = each.items.iter().map(item).collect();
            let older = doc! { "_id": each.gid.to_string(), "units": { "$lt": each.units() } };
            let sum = doc! { "$set": { "sale": each.gid.sale.as_str(), "items": items, "units": each.units() } };
            let update = async { self.returns.update_one(older, sum).upsert(true).await.map(|_| ()) };
            match within(ANSWER_WAIT_MAX, update).await {
                // It is there, with as much or more: what was to be inserted instead is a double.
                Err(error) if is_double(&error) => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// What came back of the orders between two gids, both included.
    pub async fn returns_between(&self, first: &str, last: &str) -> Result<Vec<(String, Vec<Item>)>, Error> {
        let find = async {
            let found = self.returns.find(doc! { "_id": { "$gte": first, "$lte": last } }).await?;
            found.try_collect::<Vec<_>>().await
        };
        let documents = within(ANSWER_WAIT_MAX, find).await?;
        documents
            .into_iter()
            .map(|Document { gid, items, .. }| {
                let item = |item: DocumentItem| {
                    Some(Item { sku: Sku::parse(item.sku).ok()?, quantity: u32::try_from(item.quantity).ok()? })
                };
                match items.into_iter().map(item).collect() {
                    Some(items) => Ok((gid, items)),
                    None => Err(Error::Malformed { gid, problem: "its items are none of a return".into() }),
                }
            })
            .collect()
    }
}

fn is_double(error: &mongodb::error::Error) -> bool {
    matches!(error.kind.as_ref(), ErrorKind::Write(WriteFailure::WriteError(write)) if write.code == DUPLICATE_KEY)
}
