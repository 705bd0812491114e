//! What a sale has over all its partitions. Each partition is read at one moment, but not all at the same.

use super::node::Node;
use super::open::Open;
use crate::store::Error;
use crate::store::sales::{Backlog, Counters};
use std::collections::BTreeMap;

impl Node {
    /// Every SKU's counters, by name.
    pub async fn stock(&self, open: &Open) -> Result<BTreeMap<String, Counters>, Error> {
        let mut sums: BTreeMap<String, Counters> = BTreeMap::new();
        for part in &open.parts() {
            for (sku, counters) in self.redis.stock(&part.keys).await? {
                let sum = sums.entry(sku).or_default();
                sum.stock.loaded += counters.stock.loaded;
                sum.stock.available += counters.stock.available;
                sum.stock.reserved += counters.stock.reserved;
                sum.stock.sold += counters.stock.sold;
                sum.archived += counters.archived;
                sum.returned += counters.returned;
            }
        }
        // Units on their way are in no partition's counters.
        for from in open.parts().iter().filter(|_| open.sale.stored.load().spread.partitions > 1) {
            for transit in self.redis.transits(&from.keys).await? {
                let Some(to) = open.part(transit.to) else { continue };
                if self.redis.last_credited(&to.keys, from.number).await? < transit.transfer {
                    let sum = sums.entry(transit.sku.to_string()).or_default();
                    sum.stock.loaded += transit.units;
                    sum.in_transit += transit.units;
                }
            }
        }
        Ok(sums)
    }

    pub async fn backlog(&self, open: &Open) -> Result<Backlog, Error> {
        let mut sum = Backlog::default();
        for part in &open.parts() {
            let backlog = self.redis.backlog(&part.keys).await?;
            sum.undelivered_entries += backlog.undelivered_entries;
            sum.entries += backlog.entries;
            sum.finished += backlog.finished;
            sum.retries += backlog.retries;
        }
        Ok(sum)
    }
}
