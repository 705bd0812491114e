//! Carries what came back after the sale from Redis to the records.
//!
//! Each return leaves a line in a stream; what is written is the sum that Redis has by now, so lines may be carried twice,
//! by two nodes, or in any order.

use super::sink::Returned;
use super::{Error, Reconciler};
use crate::crash;
use crate::sale::Part;

/// Returns carried at once.
const LINES_MAX: usize = 100;

impl Reconciler {
    /// Carries all there are.
    pub(super) async fn carry_returns(&self, part: &Part) -> Result<(), Error> {
        loop {
            let lines = self.node.redis.returned_lines(&part.keys, LINES_MAX).await?;
            if lines.is_empty() {
                return Ok(());
            }
            self.node.confirm_durable(part).await?;
            let addresses: Vec<_> = lines.iter().map(|(_, address)| *address).collect();
            let sums = self.node.redis.returns(&part.keys, &addresses).await?;
            let returned: Vec<Returned> = addresses
                .iter()
                .zip(sums)
                .filter(|(_, items)| !items.is_empty())
                .map(|(address, items)| Returned { gid: part.gid(*address), items })
                .collect();
            self.records.sink().await?.write_returns(&returned).await?;
            crash::point("return.after_write");
            let ids: Vec<_> = lines.iter().map(|(id, _)| *id).collect();
            self.node.redis.forget_returned_lines(&part.keys, &ids).await?;
        }
    }
}
