//! Looks after fences: finds losses that only the records know of, and repairs by itself where that is wanted.

use super::repair;
use crate::domain::ids::{EntryId, SaleName};
use crate::reconciler::Records;
use crate::sale::Part;
use crate::sale::node::Node;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// How often sales are looked at, in memory.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// How long one automatic repair waits for what is on its way, before it begins anew.
const REPAIR_WAIT: Duration = Duration::from_secs(30);
/// Longest pause after a repair that could not end.
const PAUSE_MAX: Duration = Duration::from_secs(5);

pub struct Watch {
    pub node: Arc<Node>,
    pub records: Arc<Records>,
    /// Repair without being asked.
    pub automatic: bool,
    /// Partition → the run of Redis in which it was compared with the records.
    pub compared: HashMap<String, String>,
}

impl Watch {
    pub async fn run(mut self) {
        let mut pause = Duration::ZERO;
        loop {
            let _ = tokio::time::timeout(LOOK_EVERY, self.node.redis.fenced()).await;
            let mut fenced = 0;
            let mut failed = false;
            for open in self.node.all_opened() {
                let parts = open.parts();
                for part in &parts {
                    if let Err(error) = self.compare(part).await {
                        tracing::debug!(sale = %part.name, %error, "a partition could not be compared with the records");
                    }
                }
                let of_sale = parts.iter().filter(|part| self.node.redis.fence(&part.keys).is_some()).count();
                fenced += of_sale;
                if of_sale > 0 && self.automatic {
                    match repair(&self.node, &self.records, &open, REPAIR_WAIT, false).await {
                        Ok(report) => failed |= !report.open,
                        Err(error) => {
                            failed = true;
                            tracing::warn!(sale = %open.sale.name, %error, "a fenced sale could not be repaired yet");
                        }
                    }
                }
            }
            metrics::gauge!("rushline_fenced_partitions").set(fenced as f64);
            pause = if failed { (pause * 2).clamp(Duration::from_millis(200), PAUSE_MAX) } else { Duration::ZERO };
            tokio::time::sleep(pause).await;
        }
    }

    /// Once in each run of Redis: records of orders that Redis never admitted, as far as it knows, are of orders that it
    /// has lost, whoever remembers them.
    async fn compare(&mut self, part: &Part) -> anyhow::Result<()> {
        let redis = &self.node.redis;
        let run = redis.promise_at(&part.keys.sale).run();
        if run.is_empty() || !redis.usable_at(&part.keys.sale) || self.compared.get(&part.keys.stock) == Some(&run) {
            return Ok(());
        }
        let Some((last, asked_ms)) = redis.last_entry(&part.keys).await? else { return Ok(()) };
        let sink = self.records.sink().await?;
        if let Some(entry) = first_after(sink, &part.name, part.number, last).await? {
            if entry.ms >= asked_ms {
                return Ok(()); // admitted and recorded since Redis was asked: it says nothing, and the next look will
            }
            tracing::error!(sale = %part.name, partition = part.number, %last, "the records have orders that are younger than any that Redis knows");
            redis.suspect(&part.keys).await?;
        }
        self.compared.insert(part.keys.stock.clone(), run);
        Ok(())
    }
}

/// The first entry after this one of which there is a record. Gids are compared as texts; that of the same millisecond they
/// are not in the order of time does not matter here.
async fn first_after(
    sink: &crate::reconciler::sink::Sink,
    sale: &SaleName,
    partition: u16,
    last: EntryId,
) -> Result<Option<EntryId>, crate::reconciler::sink::Error> {
    let after = format!("{sale}.{partition}.{last}.~");
    let next = sink.page(sale, Some(&after), 1).await?;
    Ok(next
        .first()
        .filter(|record| record.gid.partition == partition)
        .map(|record| record.gid.entry)
        .filter(|entry| *entry > last))
}
