//! A sale over several partitions: growing, and keeping all partitions as partition 0 says.

use super::keys::Keys;
use super::redis::Redis;
use super::{Error, scripts};
use crate::domain::ids::{Buyer, IdempotencyKey};
use crate::store::orders::key_digest;
use redis::Value;
use std::collections::BTreeMap;

/// Most numbers of partitions that a sale has had: a buyer's homes of old are asked one after the other.
pub const HOMES_MAX: usize = 4;

/// Fields of the sale hash that are partition 0's own.
const OWN_FIELDS: [&str; 7] = ["body", "version", "replays", "takeovers", "forgotten", "fence", "fence_unknown"];

/// Over how many partitions a sale is spread, now and before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spread {
    pub partitions: u16,
    /// Earlier numbers, oldest first: buyers from then are still where those put them.
    pub homes: Vec<u16>,
}

impl Default for Spread {
    fn default() -> Self {
        Self { partitions: 1, homes: Vec::new() }
    }
}

impl Spread {
    pub(super) fn read(partitions: Option<u16>, homes: Option<&str>) -> Self {
        let homes = homes.unwrap_or_default().split_ascii_whitespace().filter_map(|number| number.parse().ok());
        Self { partitions: partitions.unwrap_or(1).max(1), homes: homes.collect() }
    }
}

/// What growing met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grown {
    Done,
    /// It has as many already.
    Same,
    /// It has more: a sale never shrinks.
    Fewer,
    /// It has grown [`HOMES_MAX`] times.
    TooOften,
    Closed,
}

/// What an earlier home knows of a buyer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It holds the buyer's ledger, or the answer to this very request.
    Here,
    /// Nothing, and it never will again: it has the new number of partitions.
    Nothing,
    /// It has not heard of the new number yet.
    Behind,
}

impl Redis {
    /// Spreads the sale over `partitions`: from now on nothing is decided by the old number.
    pub async fn grow_sale(&self, head: &Keys, partitions: u16) -> Result<Grown, Error> {
        let mut command = scripts::sale_grow.call(&[&head.sale, &head.stock, &head.buyers, &head.requests]);
        command.arg(partitions).arg(HOMES_MAX);
        let reply = self.run(&mut self.lane(), &command).await?;
        match redis::from_redis_value_ref::<String>(&reply).as_deref() {
            Ok("GROWN") => Ok(Grown::Done),
            Ok("SAME") => Ok(Grown::Same),
            Ok("FEWER") => Ok(Grown::Fewer),
            Ok("OFTEN") => Ok(Grown::TooOften),
            Ok("CLOSED") => Ok(Grown::Closed),
            Ok("NOSALE") => Err(Error::NoSale),
            _ => Err(Error::Unexpected { what: "sale_grow", reply: format!("{reply:?}") }),
        }
    }

    /// All that partition 0 says of the sale, for [`Redis::spread_sale`].
    pub async fn sale_fields(&self, head: &Keys) -> Result<BTreeMap<String, Vec<u8>>, Error> {
        Ok(redis::cmd("HGETALL").arg(&head.sale).query_async(&mut self.aside()).await?)
    }

    /// Brings a partition up to these fields of partition 0, or begins it.
    pub async fn spread_sale(&self, part: &Keys, fields: &BTreeMap<String, Vec<u8>>) -> Result<(), Error> {
        let Some(version) = fields.get("version") else { return Err(Error::NoSale) };
        let mut command = scripts::sale_spread.call(&[&part.sale, &part.stock, &part.intake, &part.finished]);
        command.arg(version);
        for (field, value) in fields.iter().filter(|(field, _)| !OWN_FIELDS.contains(&field.as_str())) {
            command.arg(field).arg(value);
        }
        self.run(&mut self.lane(), &command).await?;
        Ok(())
    }

    /// Does an earlier home know this buyer, or this request? Asked once it has the new number, "nothing" is final: it
    /// begins no ledger for a visitor.
    pub async fn known_at(
        &self,
        part: &Keys,
        partitions: u16,
        buyer: &Buyer,
        key: Option<&IdempotencyKey>,
    ) -> Result<Known, Error> {
        // In this order: a ledger that is not there after the number was seen is not begun any more.
        let mut pipeline = redis::pipe();
        pipeline.cmd("HGET").arg(&part.sale).arg("partitions");
        pipeline.cmd("HEXISTS").arg(&part.buyers).arg(buyer.as_str());
        if let Some(key) = key {
            pipeline.cmd("HEXISTS").arg(&part.requests).arg(&key_digest(key)[..]);
        }
        let found: Vec<Value> = pipeline.query_async(&mut self.lane()).await?;
        let number: Option<u16> = found.first().and_then(|number| redis::from_redis_value_ref(number).ok()).flatten();
        let held = found[1..].contains(&Value::Int(1));
        Ok(match held {
            true if number == Some(partitions) => Known::Here,
            false if number == Some(partitions) => Known::Nothing,
            _ => Known::Behind,
        })
    }
}
