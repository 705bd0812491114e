//! The log of changes: who changed a sale, when and why. Written by the scripts that change it.

use super::Error;
use super::keys::Keys;
use super::redis::Redis;
use crate::domain::change::{Change, Note};
use crate::domain::ids::EntryId;
use std::collections::HashMap;

impl Redis {
    /// The last `most` changes, newest first.
    pub async fn changes(&self, keys: &Keys, most: usize) -> Result<Vec<Change>, Error> {
        let entries: Vec<(String, HashMap<String, String>)> = redis::cmd("XREVRANGE")
            .arg(&keys.log)
            .arg("+")
            .arg("-")
            .arg("COUNT")
            .arg(most)
            .query_async(&mut self.slow())
            .await?;
        entries
            .into_iter()
            .map(|(id, mut fields)| {
                let id: EntryId =
                    id.parse().map_err(|_| Error::Unexpected { what: "the log of changes", reply: id })?;
                let mut take = |name: &str| fields.remove(name).unwrap_or_default();
                Ok(Change {
                    at_ms: id.ms,
                    kind: take("kind"),
                    what: take("what"),
                    units: take("units").parse().ok(),
                    note: Note { who: take("who"), why: take("why") },
                    request_id: take("request_id"),
                })
            })
            .collect()
    }
}
