//! The moves of an order with a reservation, as typed functions: one script for all of them, the right to expire, the
//! stream of ends that the order service is to be told of.

use super::keys::Keys;
use super::lane::Lane;
use super::orders::{Address, Detail, Entry};
use super::redis::Redis;
use super::{Error, scripts};
use crate::domain::ids::{EntryId, Sku};
use crate::domain::order::Item;
use crate::domain::reservation::Units;
use crate::zoo;
use redis::Value;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// The group of those who tell the order service.
const TELLING: &str = "telling";

/// When a row may happen, by the clock of Redis; of an extended order its own deadline counts, whatever is said here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Any,
    Before(u64),
    From(u64),
}

/// One row of order_move: some orders of one entry, next to each other.
#[derive(Debug, Clone)]
pub struct Row {
    pub entry: EntryId,
    /// Index of the first.
    pub from: u16,
    /// A character for each, as they are believed to stand in Redis.
    pub expected: String,
    pub new: String,
    pub when: When,
    /// The deadline that an order gets by being extended.
    pub deadline_ms: Option<u64>,
    /// What is paid of an order that is not paid in full.
    pub part: Option<Vec<Item>>,
    pub units: BTreeMap<Sku, Units>,
    /// Buyer → units that count against the limit from now on (negative: no more).
    pub buyers: BTreeMap<String, i64>,
    /// The same for the fields of the ledger of limits.
    pub limits: BTreeMap<String, i64>,
}

impl Row {
    pub fn new(entry: EntryId, from: u16, expected: String, new: String, when: When) -> Self {
        Self {
            entry,
            from,
            expected,
            new,
            when,
            deadline_ms: None,
            part: None,
            units: BTreeMap::new(),
            buyers: BTreeMap::new(),
            limits: BTreeMap::new(),
        }
    }
}

/// What became of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moved {
    Done,
    /// Other characters stand there: the entry's whole outcome.
    Stale(String),
    /// The entry has left Redis: its orders are in the records.
    Gone,
    TooLate,
    TooEarly,
}

/// What else order_move writes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Notes<'a> {
    /// Orders that were waiting for a retry.
    pub retries: &'a [Address],
    pub details: &'a [(Address, Detail)],
}

/// Who may expire the reservations of a partition, and from where on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// How long another node's lease still lasts; zero if this node has it.
    pub others_for: Duration,
    /// The last entry that is dealt with.
    pub to: Option<EntryId>,
    pub now_ms: u64,
}

/// A message of the ends stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndsMessage {
    pub id: EntryId,
    pub orders: Vec<Address>,
}

impl Redis {
    /// Moves orders on, each row by itself; one answer a row.
    ///
    /// # Errors
    /// [`Error::NoAnswer`]: unknown if it happened. Sending the same rows again finds out: what is done is stale then.
    pub async fn move_orders(
        &self,
        lane: &mut Lane,
        keys: &Keys,
        rows: &[Row],
        notes: Notes<'_>,
    ) -> Result<Vec<Moved>, Error> {
        let mut command = scripts::order_move.call(&[
            &keys.stock,
            &keys.buyers,
            &keys.intake,
            &keys.outcome,
            &keys.finished,
            &keys.retry,
            &keys.detail,
            &keys.ends,
            &keys.extended,
            &keys.parts,
            &keys.limits,
        ]);
        command.arg(format!("{} {} {}", rows.len(), notes.retries.len(), notes.details.len()));
        for row in rows {
            put_row(&mut command, row);
        }
        for address in notes.retries {
            command.arg(address.to_string());
        }
        for (address, detail) in notes.details {
            command.arg(address.to_string()).arg(serde_json::to_string(detail).expect("a detail is plain data"));
        }
        let reply = self.run(lane, &command).await?;
        let unexpected = || Error::Unexpected { what: "order_move", reply: format!("{reply:?}") };
        let words: Vec<String> = redis::from_redis_value_ref(&reply).map_err(|_| unexpected())?;
        let moved: Option<Vec<Moved>> = words.iter().map(|word| read_moved(word)).collect();
        moved.filter(|moved| moved.len() == rows.len()).ok_or_else(unexpected)
    }

    /// Takes or keeps the right to expire for `lease`, and notes how far that has come. That counts for one run of Redis
    /// only: with another one, which may have come back with less, it begins anew.
    pub async fn claim_expiry(
        &self,
        keys: &Keys,
        node: &str,
        lease: Duration,
        to: Option<EntryId>,
    ) -> Result<Claim, Error> {
        // Asked first: what a Redis confirms that came in between is taken back by the next claim.
        let run = self.run_now(keys).await?;
        let mut command = scripts::expiry_claim.call(&[&keys.expiry]);
        let to = to.map(|to| to.to_string()).unwrap_or_default();
        command.arg(node).arg(lease.as_millis() as u64).arg(to).arg(run);
        let reply = self.run(&mut self.lane(), &command).await?;
        let unexpected = || Error::Unexpected { what: "expiry_claim", reply: format!("{reply:?}") };
        let (left_ms, to, now_ms): (u64, String, u64) =
            redis::from_redis_value_ref(&reply).map_err(|_| unexpected())?;
        Ok(Claim { others_for: Duration::from_millis(left_ms), to: to.parse().ok(), now_ms })
    }

    /// Entries after `after`, the oldest first: those admitted up to `until_ms`, at most `count`.
    pub async fn entries_after(
        &self,
        keys: &Keys,
        after: Option<EntryId>,
        until_ms: Option<u64>,
        count: usize,
    ) -> Result<Vec<Entry>, Error> {
        let from = after.map_or_else(|| "-".into(), |after| format!("({after}"));
        let to = until_ms.map_or_else(|| "+".into(), |ms| ms.to_string());
        self.entries_between(keys, &from, &to, count).await
    }

    /// When the first entry after `after` was admitted.
    pub async fn next_entry_ms(&self, keys: &Keys, after: Option<EntryId>) -> Result<Option<u64>, Error> {
        let from = after.map_or_else(|| "-".into(), |after| format!("({after}"));
        let reply: Vec<(String, Value)> = redis::cmd("XRANGE")
            .arg(&keys.intake)
            .arg(from)
            .arg("+")
            .arg("COUNT")
            .arg(1)
            .query_async(&mut self.slow())
            .await?;
        Ok(reply.first().and_then(|(id, _)| id.parse::<EntryId>().ok()).map(|id| id.ms))
    }

    /// Extended orders whose deadline is `until_ms` or earlier, and the earliest deadline of all.
    pub async fn extended_until(
        &self,
        keys: &Keys,
        until_ms: u64,
        count: usize,
    ) -> Result<(Vec<Address>, Option<u64>), Error> {
        let (due, first): (Vec<String>, Vec<(String, f64)>) = redis::pipe()
            .cmd("ZRANGEBYSCORE")
            .arg(&keys.extended)
            .arg("-inf")
            .arg(until_ms)
            .arg("LIMIT")
            .arg(0)
            .arg(count)
            .cmd("ZRANGE")
            .arg(&keys.extended)
            .arg(0)
            .arg(0)
            .arg("WITHSCORES")
            .query_async(&mut self.lane())
            .await?;
        let due = due.iter().filter_map(|text| text.parse().ok()).collect();
        Ok((due, first.first().map(|(_, ms)| *ms as u64)))
    }

    /// The deadline of an extended order, and what is paid of one paid in part.
    pub async fn reservation_extras(
        &self,
        keys: &Keys,
        addresses: &[Address],
    ) -> Result<Vec<(Option<u64>, Option<Vec<Item>>)>, Error> {
        if addresses.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<String> = addresses.iter().map(Address::to_string).collect();
        let (deadlines, parts): (Vec<Option<f64>>, Vec<Option<String>>) = redis::pipe()
            .cmd("ZMSCORE")
            .arg(&keys.extended)
            .arg(&names)
            .cmd("HMGET")
            .arg(&keys.parts)
            .arg(&names)
            .query_async(&mut self.lane())
            .await?;
        let parts = parts.into_iter().map(|part| part.map(|part| read_items(&part)));
        Ok(deadlines.into_iter().map(|ms| ms.map(|ms| ms as u64)).zip(parts).collect())
    }

    /// The records have these orders, and what was paid of them.
    pub async fn forget_parts(&self, keys: &Keys, addresses: impl Iterator<Item = &Address>) -> Result<(), Error> {
        let names: Vec<String> = addresses.map(Address::to_string).collect();
        if names.is_empty() {
            return Ok(());
        }
        Ok(redis::cmd("HDEL").arg(&keys.parts).arg(names).query_async(&mut self.lane()).await?)
    }

    /// Makes the group that tells of ends, where there is none.
    pub async fn ensure_telling(&self, keys: &Keys) -> Result<(), Error> {
        let made: Result<(), _> = redis::cmd("XGROUP")
            .arg("CREATE")
            .arg(&keys.ends)
            .arg(TELLING)
            .arg("0")
            .arg("MKSTREAM")
            .query_async(&mut self.lane())
            .await;
        match made {
            Err(error) if error.code() == Some("BUSYGROUP") => Ok(()),
            other => Ok(other?),
        }
    }

    /// New messages of ends, given to this node.
    pub async fn ends(&self, keys: &Keys, node: &str, count: usize) -> Result<Vec<EndsMessage>, Error> {
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(TELLING).arg(node).arg("COUNT").arg(count);
        command.arg("STREAMS").arg(&keys.ends).arg(">");
        let reply: Value = command.query_async(&mut self.slow()).await?;
        let Value::Array(streams) = reply else { return Ok(Vec::new()) };
        let Some(Value::Array(stream)) = streams.into_iter().next() else { return Ok(Vec::new()) };
        stream.get(1).map_or(Ok(Vec::new()), read_ends)
    }

    /// Takes over messages of ends whose node has not been heard of for `idle`.
    pub async fn take_over_ends(
        &self,
        keys: &Keys,
        node: &str,
        idle: Duration,
        count: usize,
    ) -> Result<Vec<EndsMessage>, Error> {
        let (_, messages, _): (String, Value, Value) = redis::cmd("XAUTOCLAIM")
            .arg(&keys.ends)
            .arg(TELLING)
            .arg(node)
            .arg(idle.as_millis() as u64)
            .arg("0-0")
            .arg("COUNT")
            .arg(count)
            .query_async(&mut self.slow())
            .await?;
        read_ends(&messages)
    }

    /// Keeps these messages this node's. Two nodes that tell of the same end do no harm: so nobody is asked first.
    pub async fn keep_ends(&self, keys: &Keys, node: &str, messages: &[EntryId]) -> Result<(), Error> {
        let mut command = redis::cmd("XCLAIM");
        command.arg(&keys.ends).arg(TELLING).arg(node).arg(0);
        for id in messages {
            command.arg(id.to_string());
        }
        let _: Value = command.arg("JUSTID").query_async(&mut self.lane()).await?;
        Ok(())
    }

    /// Every order of these messages has been told of.
    pub async fn forget_ends(&self, keys: &Keys, messages: &[EntryId]) -> Result<(), Error> {
        let ids: Vec<String> = messages.iter().map(EntryId::to_string).collect();
        if zoo::planted("a message is acknowledged before it is deleted") {
            let _: Value =
                redis::cmd("XACK").arg(&keys.ends).arg(TELLING).arg(&ids).query_async(&mut self.lane()).await?;
        }
        let _: (Value, Value) = redis::pipe()
            // In this order: if the connection breaks in between, a message that is gone is still owed, and that is seen
            // to by the next XAUTOCLAIM; one that is acknowledged and still there would stay for ever.
            .cmd("XDEL")
            .arg(&keys.ends)
            .arg(&ids)
            .cmd("XACK")
            .arg(&keys.ends)
            .arg(TELLING)
            .arg(&ids)
            .query_async(&mut self.lane())
            .await?;
        Ok(())
    }
}

fn put_row(command: &mut redis::Cmd, row: &Row) {
    let when = match row.when {
        When::Any => String::new(),
        When::Before(ms) => format!("<{ms}"),
        When::From(ms) => format!(">{ms}"),
    };
    command
        .arg(row.entry.to_string())
        .arg(row.from)
        .arg(&row.expected)
        .arg(&row.new)
        .arg(when)
        .arg(row.deadline_ms.map(|ms| ms.to_string()).unwrap_or_default())
        .arg(row.part.as_deref().map(items_text).unwrap_or_default())
        .arg(row.units.len())
        .arg(row.buyers.len())
        .arg(row.limits.len());
    for (sku, units) in &row.units {
        command.arg(sku.as_str()).arg(units.available).arg(units.reserved).arg(units.sold);
    }
    for (buyer, units) in row.buyers.iter().chain(&row.limits) {
        command.arg(buyer).arg(*units);
    }
}

fn read_moved(word: &str) -> Option<Moved> {
    match word.as_bytes().first()? {
        b'D' => Some(Moved::Done),
        b'S' => Some(Moved::Stale(word[1..].to_owned())),
        b'G' => Some(Moved::Gone),
        b'L' => Some(Moved::TooLate),
        b'E' => Some(Moved::TooEarly),
        _ => None,
    }
}

/// `sku units sku units …`, sorted: one spelling for one list.
pub fn items_text(items: &[Item]) -> String {
    let mut items: Vec<&Item> = items.iter().collect();
    items.sort_by(|a, b| a.sku.cmp(&b.sku));
    items.iter().map(|item| format!("{} {}", item.sku, item.quantity)).collect::<Vec<_>>().join(" ")
}

/// What [`items_text`] wrote; a foreign hand's words are left out.
pub fn read_items(text: &str) -> Vec<Item> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    words
        .chunks_exact(2)
        .filter_map(|pair| Some(Item { sku: Sku::parse(pair[0]).ok()?, quantity: pair[1].parse().ok()? }))
        .collect()
}

fn read_ends(reply: &Value) -> Result<Vec<EndsMessage>, Error> {
    let unexpected = |problem: String| Error::Unexpected { what: "a message of ends", reply: problem };
    let raw: Vec<(String, Option<HashMap<String, String>>)> =
        redis::from_redis_value_ref(reply).map_err(|error| unexpected(error.to_string()))?;
    raw.into_iter()
        .map(|(id, fields)| {
            let id = id.parse().map_err(|_| unexpected(id))?;
            // A message that was deleted while pending comes back empty: acknowledge it and go on.
            let text = fields.unwrap_or_default().remove("v1").unwrap_or_default();
            let (entry, indices) = text.split_once(' ').unwrap_or_default();
            let orders = match entry.parse() {
                Ok(entry) => {
                    indices.split(',').filter_map(|index| Some(Address { entry, index: index.parse().ok()? })).collect()
                }
                Err(_) => Vec::new(),
            };
            Ok(EndsMessage { id, orders })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_have_one_spelling_and_come_back() {
        let item = |sku: &str, quantity| Item { sku: Sku::parse(sku).unwrap(), quantity };
        let text = items_text(&[item("b", 2), item("a.1", 1)]);
        assert_eq!(text, "a.1 1 b 2");
        assert_eq!(read_items(&text), [item("a.1", 1), item("b", 2)]);
    }
}
