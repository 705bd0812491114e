//! Units that move from one partition to another: the three steps, and a look at where units are.

use super::keys::Keys;
use super::redis::Redis;
use super::{Error, scripts};
use crate::domain::ids::Sku;
use redis::Value;
use std::collections::HashMap;

/// Units on their way, as the partition that they left has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transit {
    /// Number of the partition they go to.
    pub to: u16,
    /// Counts the transfers between these two.
    pub transfer: u64,
    pub sku: Sku,
    pub units: u64,
}

/// What a debit met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Debited {
    Sent(Transit),
    /// Another transfer is on its way there: it comes first.
    Busy,
    /// Nothing available.
    Dry,
}

/// What one partition has of some SKUs, and what is on its way from it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// Units available, and how often they grew; `None` for a SKU that this partition does not know.
    pub skus: Vec<Option<(u64, u64)>>,
    pub transits: Vec<Transit>,
}

impl Redis {
    /// Units leave `from`: at least `least` of what is available, or one part in `divisor` if that is more.
    pub async fn debit(&self, from: &Keys, to: u16, sku: &Sku, least: u64, divisor: u64) -> Result<Debited, Error> {
        let mut command = scripts::stock_debit.call(&[&from.stock, &from.transit]);
        command.arg(to).arg(sku.as_str()).arg(least.max(1)).arg(divisor.max(1));
        let reply = self.run(&mut self.lane(), &command).await?;
        let unexpected = || Error::Unexpected { what: "stock_debit", reply: format!("{reply:?}") };
        let Value::Array(parts) = &reply else { return Err(unexpected()) };
        let number = |at: usize| parts.get(at).and_then(|part| redis::from_redis_value_ref::<u64>(part).ok());
        let word: String = parts.first().and_then(|word| redis::from_redis_value_ref(word).ok()).unwrap_or_default();
        match (word.as_str(), number(1), number(2)) {
            ("SENT", Some(transfer), Some(units)) => {
                Ok(Debited::Sent(Transit { to, transfer, sku: sku.clone(), units }))
            }
            ("BUSY", ..) => Ok(Debited::Busy),
            ("DRY", ..) => Ok(Debited::Dry),
            _ => Err(unexpected()),
        }
    }

    /// Units arrive at `to`, if they have not before.
    pub async fn credit(&self, to: &Keys, from: u16, transit: &Transit) -> Result<(), Error> {
        let mut command = scripts::stock_credit.call(&[&to.stock, &to.credited]);
        command.arg(from).arg(transit.transfer).arg(transit.sku.as_str()).arg(transit.units);
        self.run(&mut self.lane(), &command).await?;
        Ok(())
    }

    /// The partition that the units left forgets them: they have arrived.
    pub async fn arrived(&self, from: &Keys, transit: &Transit) -> Result<(), Error> {
        let mut command = scripts::stock_arrived.call(&[&from.transit]);
        command.arg(transit.to).arg(transit.transfer);
        self.run(&mut self.lane(), &command).await?;
        Ok(())
    }

    /// Looks at these SKUs in all of these partitions. Of each partition the units available are read before those on
    /// their way: what leaves in between is seen twice rather than not at all.
    pub async fn look(&self, parts: &[&Keys], skus: &[Sku]) -> Result<Vec<Look>, Error> {
        let mut pipeline = redis::pipe();
        for part in parts {
            pipeline.cmd("HMGET").arg(&part.stock);
            for sku in skus {
                pipeline.arg(format!("{sku}:available")).arg(format!("{sku}:grown"));
            }
            pipeline.cmd("HGETALL").arg(&part.transit);
        }
        let replies: Vec<Value> = pipeline.query_async(&mut self.lane()).await?;
        let unexpected = || Error::Unexpected { what: "a look at all partitions", reply: "no counters".into() };
        let mut looks = Vec::with_capacity(parts.len());
        for pair in replies.chunks_exact(2) {
            let fields: Vec<Option<i64>> = redis::from_redis_value_ref(&pair[0]).map_err(|_| unexpected())?;
            let transits: HashMap<String, String> = redis::from_redis_value_ref(&pair[1]).map_err(|_| unexpected())?;
            let count = |field: Option<i64>| field.map(|units| u64::try_from(units).unwrap_or_default());
            let skus =
                fields.chunks_exact(2).map(|sku| Some((count(sku[0])?, count(sku[1]).unwrap_or_default()))).collect();
            looks.push(Look { skus, transits: read_transits(transits) });
        }
        if looks.len() == parts.len() { Ok(looks) } else { Err(unexpected()) }
    }

    /// What is on its way from a partition.
    pub async fn transits(&self, from: &Keys) -> Result<Vec<Transit>, Error> {
        Ok(read_transits(redis::cmd("HGETALL").arg(&from.transit).query_async(&mut self.lane()).await?))
    }

    /// The last transfer from partition `from` that arrived at `to`.
    pub async fn last_credited(&self, to: &Keys, from: u16) -> Result<u64, Error> {
        let last: Option<u64> = redis::cmd("HGET").arg(&to.credited).arg(from).query_async(&mut self.lane()).await?;
        Ok(last.unwrap_or_default())
    }
}

/// The records of a transit hash; its `last:` counters are none.
fn read_transits(fields: HashMap<String, String>) -> Vec<Transit> {
    fields
        .into_iter()
        .filter_map(|(to, record)| {
            let mut words = record.split(' ');
            let transfer = words.next()?.parse().ok()?;
            let sku = Sku::parse(words.next()?).ok()?;
            Some(Transit { to: to.parse().ok()?, transfer, sku, units: words.next()?.parse().ok()? })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_told_from_a_counter() {
        let fields = [("3", "7 a.b 12"), ("last:3", "7"), ("last:4", "1")];
        let fields = fields.map(|(field, value)| (field.to_owned(), value.to_owned())).into();
        let sku = Sku::parse("a.b").unwrap();
        assert_eq!(read_transits(fields), [Transit { to: 3, transfer: 7, sku, units: 12 }]);
    }
}
