//! Repairing a fenced partition, as typed functions: its books, what is lost, bringing it back, counting anew, opening again.

use super::keys::{self, Keys};
use super::lost::{self, LostEntry};
use super::meet::{TERMS_MAX, nonce};
use super::redis::Redis;
use super::witness::{Books, Seen};
use super::{Error, scripts};
use crate::domain::ids::{EntryId, SaleName, Sku};
use redis::Value;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// A fence as Redis has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fenced {
    /// Orders that were acknowledged, are gone, and that no node remembers.
    pub forgotten: u64,
    /// Ms since it was set.
    pub age_ms: u64,
}

/// The fence, orders that are forgotten, the term, and the time of Redis in seconds and microseconds.
type FenceReply = ((Option<String>, Option<u64>), Option<String>, (u64, u64));

/// What one lost entry takes, all its orders together.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Takes {
    pub skus: BTreeMap<Sku, u64>,
    pub buyers: BTreeMap<String, u64>,
    /// Key digest → body digest and address, as the ledger keeps them.
    pub requests: Vec<(Vec<u8>, Vec<u8>)>,
    pub limits: BTreeMap<String, u64>,
}

/// What bringing an entry back met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restored {
    /// SKU → units that were not there any more.
    Done(Vec<(String, u64)>),
    /// It was dealt with earlier, or was not lost.
    Nothing,
    /// Younger entries are there: not under its own id any more.
    Late,
    /// Units are missing; nothing happened.
    Short,
}

/// What opening met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    Yes,
    /// It was open.
    Before,
    /// Something waits to be brought back.
    Left,
}

impl Redis {
    /// Reads a partition's books, for the day that Redis forgets them.
    pub(super) async fn read_books(&self, seen: &Seen) -> Result<(), Error> {
        let (fields, stock): (BTreeMap<String, Vec<u8>>, HashMap<String, String>) = redis::pipe()
            .cmd("HGETALL")
            .arg(&seen.keys.sale)
            .cmd("HGETALL")
            .arg(&seen.keys.stock)
            .query_async(&mut self.slow())
            .await?;
        if fields.is_empty() {
            return Ok(());
        }
        let at_seq = stock.get(":seq").and_then(|seq| seq.parse().ok()).unwrap_or_default();
        let loaded = stock
            .iter()
            .filter_map(|(field, units)| Some((field.strip_suffix(":loaded")?.to_owned(), units.parse().ok()?)))
            .collect();
        seen.keep_books(Books { fields, loaded }, at_seq);
        Ok(())
    }

    /// Puts the books of a partition back that Redis does not know any more. Did it?
    pub async fn rebuild(&self, sale: &SaleName, seen: &Seen, books: &Books) -> Result<bool, Error> {
        let keys = &seen.keys;
        let (terms, told) = seen.claim();
        let numbers = terms.split(' ').filter_map(|term| term.split('.').next()?.parse::<u64>().ok());
        let number = numbers.max().unwrap_or_default();
        let mut command = scripts::sale_rebuild.call(&[&keys.sale, &keys.stock, &keys.intake, &keys.finished]);
        let of_fences = ["fence", "fence_unknown"];
        let fields: Vec<_> = books.fields.iter().filter(|(name, _)| !of_fences.contains(&name.as_str())).collect();
        command.arg(nonce()).arg(number).arg(told).arg(fields.len());
        for (name, value) in fields {
            command.arg(name).arg(value);
        }
        for (sku, units) in &books.loaded {
            command.arg(sku).arg(*units);
        }
        let reply = word(self.run(&mut self.lane(), &command).await?, "sale_rebuild")?;
        let _: u64 =
            redis::cmd("SADD").arg(keys::sales(self.prefix())).arg(sale.as_str()).query_async(&mut self.lane()).await?;
        Ok(reply == "REBUILT")
    }

    /// The fence of a partition, if there is one; `None` also for a partition that is gone.
    pub async fn read_fence(&self, keys: &Keys) -> Result<Option<Fenced>, Error> {
        let (fields, term, (seconds, micros)): FenceReply = redis::pipe()
            .cmd("HMGET")
            .arg(&keys.sale)
            .arg(&["fence", "fence_unknown"])
            .cmd("HGET")
            .arg(&keys.stock)
            .arg(":term")
            .cmd("TIME")
            .query_async(&mut self.aside())
            .await?;
        if !term.is_some_and(|term| term.ends_with('!')) {
            return Ok(None);
        }
        let (text, forgotten) = fields;
        let since = text.and_then(|text| text.split(' ').next()?.parse::<u64>().ok()).unwrap_or_default();
        let now_ms = seconds * 1_000 + micros / 1_000;
        Ok(Some(Fenced { forgotten: forgotten.unwrap_or_default(), age_ms: now_ms.saturating_sub(since) }))
    }

    /// Entries that nodes acknowledged, that are lost, and that were not dealt with yet; the oldest first.
    pub async fn lost(&self, keys: &Keys) -> Result<Vec<LostEntry>, Error> {
        let packed: HashMap<String, Vec<u8>> =
            redis::cmd("HGETALL").arg(&keys.lost).query_async(&mut self.slow()).await?;
        let unexpected = |id: &str| Error::Unexpected { what: "a lost entry", reply: id.into() };
        let mut entries = Vec::new();
        for (id, packed) in packed.iter().filter(|(_, packed)| !packed.is_empty()) {
            let parsed: EntryId = id.parse().map_err(|_| unexpected(id))?;
            entries.push(lost::unpack(parsed, packed).ok_or_else(|| unexpected(id))?);
        }
        entries.sort_by_key(|entry| entry.id);
        Ok(entries)
    }

    /// Brings a lost entry back: open, or, if it is `recorded`, as one that has left for the records.
    pub async fn restore(
        &self,
        keys: &Keys,
        entry: &LostEntry,
        takes: &Takes,
        recorded: bool,
        lease: Duration,
        whatever: bool,
    ) -> Result<Restored, Error> {
        let mut command = scripts::order_restore.call(&[
            &keys.stock,
            &keys.requests,
            &keys.buyers,
            &keys.intake,
            &keys.outcome,
            &keys.limits,
            &keys.lost,
        ]);
        let outcome = if recorded { String::new() } else { ".".repeat(entry.orders.len()) };
        command.arg(entry.id.to_string()).arg(outcome).arg(&entry.frames).arg(lease.as_millis() as u64 + 1);
        command.arg(u8::from(whatever)).arg(format!(
            "{} {} {} {}",
            takes.skus.len(),
            takes.buyers.len(),
            takes.requests.len(),
            takes.limits.len()
        ));
        for (sku, units) in &takes.skus {
            command.arg(sku.as_str()).arg(*units);
        }
        for (buyer, units) in &takes.buyers {
            command.arg(buyer).arg(*units);
        }
        for (key, answer) in &takes.requests {
            command.arg(key).arg(answer);
        }
        for (field, units) in &takes.limits {
            command.arg(field).arg(*units);
        }
        let words = words(self.run(&mut self.lane(), &command).await?, "order_restore")?;
        match words[0].as_str() {
            "DONE" => Ok(Restored::Done(pairs(&words[1..]))),
            "BEFORE" | "HERE" => Ok(Restored::Nothing),
            "LATE" => Ok(Restored::Late),
            "SHORT" => Ok(Restored::Short),
            other => Err(Error::Unexpected { what: "order_restore", reply: other.into() }),
        }
    }

    /// Takes units that only the records know of: SKU → archived units as they were found, units to add. Answers the units
    /// that were not there any more; `None` if somebody else counted meanwhile.
    pub async fn recount(
        &self,
        keys: &Keys,
        skus: &BTreeMap<String, (u64, u64)>,
        buyers: &[(&str, u64)],
    ) -> Result<Option<Vec<(String, u64)>>, Error> {
        let mut command = scripts::sale_recount.call(&[&keys.stock, &keys.buyers]);
        command.arg(skus.len());
        for (sku, (found, units)) in skus {
            command.arg(sku).arg(*found).arg(*units);
        }
        for (buyer, units) in buyers {
            command.arg(*buyer).arg(*units);
        }
        let words = words(self.run(&mut self.lane(), &command).await?, "sale_recount")?;
        Ok((words[0] == "DONE").then(|| pairs(&words[1..])))
    }

    /// Units that buyers hold or bought, as the ledger has them.
    pub async fn ledger(&self, keys: &Keys) -> Result<HashMap<String, u64>, Error> {
        Ok(redis::cmd("HGETALL").arg(&keys.buyers).query_async(&mut self.slow()).await?)
    }

    /// The last entry that was ever admitted here, and what time it was when that was so, in ms by the clock that numbers
    /// entries.
    pub async fn last_entry(&self, keys: &Keys) -> Result<Option<(EntryId, u64)>, Error> {
        let ((seconds, micros), mut stream): ((u64, u64), HashMap<String, Value>) = redis::pipe()
            .cmd("XLEN") // has a key, and takes the next one along to the right server
            .arg(&keys.intake)
            .ignore()
            .cmd("TIME")
            .cmd("XINFO")
            .arg("STREAM")
            .arg(&keys.intake)
            .query_async(&mut self.slow())
            .await?;
        let last = stream.remove("last-generated-id").and_then(|last| redis::from_redis_value::<String>(last).ok());
        Ok(last.and_then(|last| last.parse().ok()).map(|last| (last, seconds * 1_000 + micros / 1_000)))
    }

    /// Opens a repaired partition in a new term.
    pub async fn unfence(&self, keys: &Keys) -> Result<Opened, Error> {
        let mut command = scripts::sale_unfence.call(&[&keys.sale, &keys.stock, &keys.lost]);
        command.arg(nonce()).arg(TERMS_MAX);
        let opened = match word(self.run(&mut self.lane(), &command).await?, "sale_unfence")?.as_str() {
            "OPENED" => Opened::Yes,
            "OPEN" => Opened::Before,
            "LEFT" => Opened::Left,
            "GONE" => return Err(Error::NoSale),
            other => return Err(Error::Unexpected { what: "sale_unfence", reply: other.into() }),
        };
        let seen = self.seen(keys);
        seen.forget_run();
        self.meet(&seen).await?;
        Ok(opened)
    }

    /// Fences a partition of which something else than a node's memory says that Redis lost some of it.
    pub async fn suspect(&self, keys: &Keys) -> Result<(), Error> {
        let seen = self.seen(keys);
        self.meet(&seen).await?;
        if seen.fence().is_none() {
            let _: u64 =
                redis::cmd("HINCRBY").arg(&keys.sale).arg("fence_unknown").arg(1).query_async(&mut self.lane()).await?;
            seen.told(self.last_change(keys).await?.seq + 1);
            self.meet(&seen).await?;
        }
        Ok(())
    }
}

fn word(reply: Value, what: &'static str) -> Result<String, Error> {
    redis::from_redis_value_ref(&reply).map_err(|_| Error::Unexpected { what, reply: format!("{reply:?}") })
}

/// At least one.
fn words(reply: Value, what: &'static str) -> Result<Vec<String>, Error> {
    let unexpected = || Error::Unexpected { what, reply: format!("{reply:?}") };
    let words: Vec<String> = redis::from_redis_value_ref(&reply).map_err(|_| unexpected())?;
    if words.is_empty() { Err(unexpected()) } else { Ok(words) }
}

fn pairs(words: &[String]) -> Vec<(String, u64)> {
    words.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].parse().unwrap_or_default())).collect()
}
