//! Units on their way from one partition to another.
//!
//! Two slots cannot change in one step, so it is three: they leave with a record (`stock_debit`), they arrive
//! (`stock_credit`, once, whoever repeats it), the record goes (`stock_arrived`). Whoever finds a record may go on with it.
//! Each step waits until the one before is as durable as the sale's class promises: or a failover could bring back a
//! partition that knows nothing of units that another has, and they would be sold twice.

use super::Part;
use super::node::Node;
use super::open::Open;
use crate::crash;
use crate::domain::ids::Sku;
use crate::store::Error;
use crate::store::transfer::{Debited, Transit};
use futures_util::future::try_join_all;

/// SKUs whose units are shared out when a sale begins; those beyond move when somebody wants them.
const SHARED_OUT_MAX: usize = 64;

impl Node {
    /// Moves units of a SKU from one partition to another. Answers how many arrived: 0 if there are none there.
    pub(super) async fn transfer(
        &self,
        open: &Open,
        from: &Part,
        to: u16,
        sku: &Sku,
        least: u64,
        divisor: u64,
    ) -> Result<u64, Error> {
        match self.redis.debit(&from.keys, to, sku, least, divisor).await? {
            Debited::Dry => Ok(0),
            Debited::Sent(transit) => {
                crash::point("transfer.after_debit");
                self.carry(open, from, &transit).await?;
                Ok(transit.units)
            }
            // What is under way there comes first; whoever asked looks again.
            Debited::Busy => {
                self.carry_all(open, from).await?;
                Ok(0)
            }
        }
    }

    /// Finishes what was begun with these units, by whomever.
    pub(super) async fn carry(&self, open: &Open, from: &Part, transit: &Transit) -> Result<(), Error> {
        let Some(to) = open.part(transit.to) else { return Ok(()) }; // not known here yet: the next sweep
        self.confirm_durable(from).await?;
        self.redis.credit(&to.keys, from.number, transit).await?;
        crash::point("transfer.after_credit");
        self.confirm_durable(&to).await?;
        self.redis.arrived(&from.keys, transit).await?;
        crash::point("transfer.after_arrived");
        Ok(())
    }

    /// Finishes all that has left this partition.
    pub(super) async fn carry_all(&self, open: &Open, from: &Part) -> Result<(), Error> {
        for transit in self.redis.transits(&from.keys).await? {
            self.carry(open, from, &transit).await?;
        }
        Ok(())
    }

    /// Gives every partition its share of what partition 0 was loaded with.
    pub(super) async fn share_out(&self, open: &Open) -> Result<(), Error> {
        let parts = open.parts();
        let [head, others @ ..] = parts.as_slice() else { return Ok(()) };
        for (name, counters) in self.redis.stock(&head.keys).await?.into_iter().take(SHARED_OUT_MAX) {
            let share = counters.stock.loaded / parts.len() as u64;
            let Ok(sku) = Sku::parse(name) else { continue };
            if share > 0 {
                let moves = others.iter().map(|to| self.transfer(open, head, to.number, &sku, share, u64::MAX >> 11));
                try_join_all(moves).await?;
            }
        }
        Ok(())
    }

    /// Brings up to so many units of a SKU into partition 0, for an operator who takes them out.
    pub async fn collect(&self, open: &Open, sku: &Sku, units: u64) -> Result<(), Error> {
        let parts = open.parts();
        let [head, others @ ..] = parts.as_slice() else { return Ok(()) };
        for from in others {
            let here = self.redis.stock(&head.keys).await?.get(sku.as_str()).map_or(0, |found| found.stock.available);
            if here >= units {
                break;
            }
            self.transfer(open, from, head.number, sku, units - here, u64::MAX >> 11).await?;
        }
        Ok(())
    }
}
