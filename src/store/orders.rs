//! An order's steps in Redis, as typed functions: admit, finish, note a retry, keep a lease, drain, look up.

use super::frame::{self, Frame};
use super::keys::Keys;
use super::lane::Lane;
use super::prepared::routing;
pub use super::prepared::{KeyDigest, Prepared, key_digest};
use super::promise::Wait;
use super::redis::Redis;
use super::{Error, counted, scripts};
use crate::domain::ids::{EntryId, Sku};
use crate::domain::order::Status;
use crate::domain::reservation::State;
use crate::zoo;
use redis::Value;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Most different SKUs in one batch: the script passes four values for each to one HSET, and Lua's stack takes 8000.
pub const BATCH_SKUS_MAX: usize = 1000;

/// Where an order is within its partition: a gid without its sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    pub entry: EntryId,
    pub index: u16,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.entry, self.index)
    }
}

impl std::str::FromStr for Address {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (entry, index) = text.split_once('.').ok_or(())?;
        Ok(Self { entry: entry.parse().map_err(|_| ())?, index: index.parse().map_err(|_| ())? })
    }
}

/// What the script decided about one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Admitted(Address),
    Replayed(Address),
    KeyReused,
    /// Another partition has to decide: this request was routed by an old number of partitions, or its buyer's ledger
    /// is elsewhere.
    Moved,
    NotOpen,
    Paused,
    Closed,
    UnknownSku,
    LimitReached,
    /// A further limit of the sale, by whatever it counts.
    FurtherLimitReached,
    SoldOut,
}

/// The script's answer for a batch.
#[derive(Debug)]
pub struct Admitted {
    /// One decision a request, in their order.
    pub decisions: Vec<Decision>,
    /// The entry that holds the winners, if there were any.
    pub entry: Option<EntryId>,
    /// Version of the sale's settings that decided.
    pub version: u64,
    /// Number of this change, or of the last one that was.
    pub seq: u64,
}

/// What order_finish is told of one entry.
#[derive(Debug, Clone)]
pub struct Finish {
    pub entry: EntryId,
    /// One character an order as this node believes Redis has them.
    pub expected: String,
    pub new: String,
}

/// Sums over all orders that one order_finish call ends.
#[derive(Debug, Clone, Default)]
pub struct Sums {
    /// SKU → units sold, units back.
    pub skus: BTreeMap<Sku, (u64, u64)>,
    /// Buyer → units that no longer count against the limit.
    pub buyers: BTreeMap<String, u64>,
    /// Orders that were waiting for a retry.
    pub retries: Vec<Address>,
    pub details: Vec<(Address, Detail)>,
}

/// What order_finish answered.
#[derive(Debug, Default)]
pub struct Finished {
    /// The notice of the entries whose orders have all ended by this; it is for whoever drains them.
    pub notice: Option<EntryId>,
    /// Not empty: nothing happened, because these entries stand like this in Redis (an empty text: gone).
    pub stale: Vec<(EntryId, String)>,
}

/// More than one character to say about an order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detail {
    pub attempts: u32,
    /// The last error, or the refusal's reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What Redis keeps of an order's earlier tries: its detail, and how long until it is due for another.
pub type Tried = (Option<Detail>, Option<Duration>);

/// Everything that Redis knows of one entry.
#[derive(Debug, Clone)]
pub struct Entry {
    pub id: EntryId,
    pub frames: Vec<Frame>,
    /// One character an order: see [`State::code`].
    pub outcome: String,
}

/// The status that one character of an outcome stands for.
pub fn status_of(code: u8) -> Status {
    State::of_code(code).map_or(Status::Submitted, State::status)
}

/// Details, due times, and the time of Redis in seconds and microseconds.
type TriedReply = (Vec<Option<String>>, Vec<Option<f64>>, (u64, u64));

impl Redis {
    /// Decides a batch, atomically, and waits until it is as durable as `wait` says.
    ///
    /// # Errors
    /// [`Error::NoAnswer`]: unknown if it happened. [`Error::NotDurable`]: it happened, but must not be told of.
    /// [`Error::Fenced`]: Redis has lost what it acknowledged, and nothing is sold.
    pub async fn admit(
        &self,
        lane: &mut Lane,
        keys: &Keys,
        node: &str,
        batch: &[Prepared],
        wait: Wait,
        patience: Duration,
    ) -> Result<Admitted, Error> {
        let seen = self.seen(keys);
        // Twice: what this node believed in may be over, and then it looks first.
        for _ in 0..2 {
            let term = self.term(&seen).await?;
            let command = admit_command(keys, node, batch, wait, &term);
            let reply = match self.run(lane, &command).await {
                Err(Error::NoSale) if seen.claim().1 > 0 => {
                    seen.forget_run();
                    continue; // it was there, and somebody was told so
                }
                other => other?,
            };
            if is_of_another_term(&reply) {
                seen.forget_run();
                continue;
            }
            let admitted = read_decisions(&reply, batch.len())
                .ok_or_else(|| Error::Unexpected { what: "order_admit", reply: format!("{reply:?}") })?;
            wait_until_durable(lane, wait, patience).await?;
            // A batch that wrote nothing waited for nothing: what others wrote before it may not be durable yet.
            let replayed = |decision: &Decision| matches!(decision, Decision::Replayed(_));
            if admitted.entry.is_some() || admitted.decisions.iter().any(replayed) {
                seen.told(admitted.seq);
            }
            return Ok(admitted);
        }
        Err(Error::Refused { code: "TERM".into(), message: "this partition is being repaired or looked at".into() })
    }

    /// Notes outcomes and moves units, unless an entry stands otherwise in Redis than expected: then nothing happens.
    pub async fn finish(
        &self,
        lane: &mut Lane,
        keys: &Keys,
        entries: &[Finish],
        sums: &Sums,
    ) -> Result<Finished, Error> {
        let mut command = scripts::order_finish.call(&[
            &keys.stock,
            &keys.buyers,
            &keys.intake,
            &keys.outcome,
            &keys.finished,
            &keys.retry,
            &keys.detail,
        ]);
        command.arg(format!(
            "{} {} {} {} {}",
            entries.len(),
            sums.skus.len(),
            sums.buyers.len(),
            sums.retries.len(),
            sums.details.len()
        ));
        for entry in entries {
            command.arg(entry.entry.to_string()).arg(&entry.expected).arg(&entry.new);
        }
        for (sku, (sold, back)) in &sums.skus {
            command.arg(sku.as_str()).arg(*sold).arg(*back);
        }
        for (buyer, units) in &sums.buyers {
            command.arg(buyer).arg(*units);
        }
        for address in &sums.retries {
            command.arg(address.to_string());
        }
        for (address, detail) in &sums.details {
            command.arg(address.to_string()).arg(serde_json::to_string(detail).expect("a detail is plain data"));
        }
        let reply = self.run(lane, &command).await?;
        let words: Vec<String> = redis::from_redis_value_ref(&reply)
            .map_err(|_| Error::Unexpected { what: "order_finish", reply: format!("{reply:?}") })?;
        match words.split_first() {
            Some((word, [notice])) if word == "DONE" => Ok(Finished { notice: notice.parse().ok(), stale: Vec::new() }),
            Some((word, stale)) if word == "STALE" => {
                let pairs = stale.chunks_exact(2);
                let stale = pairs.filter_map(|pair| Some((pair[0].parse().ok()?, pair[1].clone()))).collect();
                Ok(Finished { notice: None, stale })
            }
            _ => Err(Error::Unexpected { what: "order_finish", reply: format!("{words:?}") }),
        }
    }

    /// Notes that orders will be tried again after a delay from now.
    pub async fn note_retries(
        &self,
        lane: &mut Lane,
        keys: &Keys,
        retries: &[(Address, Duration, Detail)],
    ) -> Result<(), Error> {
        let mut command = scripts::order_retry.call(&[&keys.outcome, &keys.retry, &keys.detail]);
        command.arg(retries.len());
        for (address, delay, detail) in retries {
            let detail = serde_json::to_string(detail).expect("a detail is plain data");
            command.arg(address.entry.to_string()).arg(address.index).arg(delay.as_millis() as u64).arg(detail);
        }
        self.run(lane, &command).await?;
        Ok(())
    }

    /// Keeps the lease of entries; answers those that another node has taken over.
    pub async fn renew(
        &self,
        lane: &mut Lane,
        keys: &Keys,
        node: &str,
        entries: &[EntryId],
    ) -> Result<Vec<EntryId>, Error> {
        let mut command = scripts::entry_renew.call(&[&keys.intake]);
        command.arg(node);
        for entry in entries {
            command.arg(entry.to_string());
        }
        let lost: Vec<String> = redis::from_redis_value(self.run(lane, &command).await?)
            .map_err(|error| Error::Unexpected { what: "entry_renew", reply: error.to_string() })?;
        Ok(lost.iter().filter_map(|id| id.parse().ok()).collect())
    }

    /// Lets other nodes take these entries over at once: their leases look as old as `lease`.
    pub async fn hand_over(
        &self,
        lane: &mut Lane,
        keys: &Keys,
        node: &str,
        entries: &[EntryId],
        lease: Duration,
    ) -> Result<(), Error> {
        let mut command = redis::cmd("XCLAIM");
        command.arg(&keys.intake).arg("delivery").arg(node).arg(0);
        for entry in entries {
            command.arg(entry.to_string());
        }
        command.arg("IDLE").arg(lease.as_millis() as u64 + 1).arg("JUSTID");
        let _: Value = command.query_async(lane).await?;
        Ok(())
    }

    /// Takes over up to `count` entries whose node has not been heard of for `idle`, from `cursor` on. Answers them
    /// and the next cursor, `0-0` at the end.
    pub async fn take_over(
        &self,
        keys: &Keys,
        node: &str,
        idle: Duration,
        cursor: &str,
        count: usize,
    ) -> Result<(Vec<Entry>, String), Error> {
        let mut connection = self.slow();
        let (next, entries, _gone): (String, Value, Value) = redis::cmd("XAUTOCLAIM")
            .arg(&keys.intake)
            .arg("delivery")
            .arg(node)
            .arg(idle.as_millis() as u64)
            .arg(cursor)
            .arg("COUNT")
            .arg(count)
            .query_async(&mut connection)
            .await?;
        let entries = read_entries(&entries)?;
        Ok((self.with_outcomes(keys, entries).await?, next))
    }

    /// Reads these entries with their outcomes; those that are gone are left out.
    pub async fn entries(&self, keys: &Keys, ids: &[EntryId]) -> Result<Vec<Entry>, Error> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = redis::pipe();
        for id in ids {
            let id = id.to_string();
            pipeline.cmd("XRANGE").arg(&keys.intake).arg(&id).arg(&id);
        }
        let replies: Vec<Value> = pipeline.query_async(&mut self.slow()).await?;
        let mut entries = Vec::with_capacity(ids.len());
        for reply in &replies {
            entries.extend(read_entries(reply)?);
        }
        self.with_outcomes(keys, entries).await
    }

    /// The outcomes of these entries as they are written; `None` for one that is gone.
    pub async fn outcomes(&self, keys: &Keys, ids: &[EntryId]) -> Result<Vec<Option<String>>, Error> {
        let mut command = redis::cmd("HMGET");
        command.arg(&keys.outcome);
        for id in ids {
            command.arg(id.to_string());
        }
        Ok(command.query_async(&mut self.lane()).await?)
    }

    /// Entries between two ids, in the spelling of XRANGE, with their outcomes.
    pub(super) async fn entries_between(
        &self,
        keys: &Keys,
        from: &str,
        to: &str,
        count: usize,
    ) -> Result<Vec<Entry>, Error> {
        let mut command = redis::cmd("XRANGE");
        command.arg(&keys.intake).arg(from).arg(to).arg("COUNT").arg(count);
        let reply: Value = command.query_async(&mut self.slow()).await?;
        self.with_outcomes(keys, read_entries(&reply)?).await
    }

    pub(super) async fn with_outcomes(
        &self,
        keys: &Keys,
        entries: Vec<(EntryId, Vec<Frame>)>,
    ) -> Result<Vec<Entry>, Error> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<EntryId> = entries.iter().map(|(id, _)| *id).collect();
        let outcomes = self.outcomes(keys, &ids).await?;
        Ok(entries
            .into_iter()
            .zip(outcomes)
            // Without an outcome the entry was drained between the two reads.
            .filter_map(|((id, frames), outcome)| Some(Entry { id, frames, outcome: outcome? }))
            .collect())
    }

    /// Details of these orders and how long until they are due for another try, where there are any.
    pub async fn details(&self, keys: &Keys, addresses: &[Address]) -> Result<Vec<Tried>, Error> {
        if addresses.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<String> = addresses.iter().map(Address::to_string).collect();
        let (details, due, (seconds, micros)): TriedReply = redis::pipe()
            .cmd("HMGET")
            .arg(&keys.detail)
            .arg(&names)
            .cmd("ZMSCORE")
            .arg(&keys.retry)
            .arg(&names)
            .cmd("TIME")
            .query_async(&mut self.lane())
            .await?;
        let now_ms = seconds * 1000 + micros / 1000;
        let until = |due_ms: f64| Duration::from_millis((due_ms as u64).saturating_sub(now_ms));
        Ok(details
            .into_iter()
            .zip(due)
            .map(|(detail, due)| (detail.and_then(|text| serde_json::from_str(&text).ok()), due.map(until)))
            .collect())
    }

    /// How many orders have more to say than one character; usually none.
    pub async fn detail_count(&self, keys: &Keys) -> Result<u64, Error> {
        Ok(redis::cmd("HLEN").arg(&keys.detail).query_async(&mut self.slow()).await?)
    }
}

/// Holds the caller back until the class is met on this connection's writes.
pub async fn wait_until_durable(lane: &mut Lane, wait: Wait, patience: Duration) -> Result<(), Error> {
    let patience_ms = patience.as_millis() as u64;
    match wait {
        Wait::Nothing => Ok(()),
        _ if zoo::planted("nobody waits for the disk") => Ok(()),
        Wait::LocalFsync => {
            let (local, _): (u64, u64) = redis::cmd("WAITAOF").arg(1).arg(0).arg(patience_ms).query_async(lane).await?;
            if local >= 1 {
                Ok(())
            } else {
                Err(Error::NotDurable("the append-only file was not fsynced in time".into()))
            }
        }
        Wait::Replicas(n) => {
            let confirmed: u64 = redis::cmd("WAIT").arg(n).arg(patience_ms).query_async(lane).await?;
            if confirmed >= n.into() {
                Ok(())
            } else {
                Err(Error::NotDurable(format!("{confirmed} of {n} replicas confirmed in time")))
            }
        }
    }
}

/// Room for what else [`admit_command`] says: node, counts, routing, term, names of SKUs. With more it grows.
const OTHER_BYTES: usize = 256;
const OTHER_ARGUMENTS: usize = 12;

fn admit_command(keys: &Keys, node: &str, batch: &[Prepared], wait: Wait, term: &str) -> redis::Cmd {
    let mut skus: Vec<&str> = Vec::new();
    let mut items = Vec::with_capacity(batch.len() * 7);
    let mut bodies = Vec::with_capacity(batch.len() * 8);
    let mut sizes = Vec::with_capacity(batch.len() * 4);
    let mut frames = Vec::with_capacity(batch.iter().map(|request| request.frame.len()).sum());
    for request in batch {
        items.push(request.order.items.len() as u8);
        for item in &request.order.items {
            let name = item.sku.as_str();
            let position = skus.iter().position(|sku| *sku == name).unwrap_or_else(|| {
                skus.push(name);
                skus.len() - 1
            });
            items.extend_from_slice(&(position as u16 + 1).to_be_bytes());
            items.extend_from_slice(&item.quantity.to_be_bytes());
        }
        bodies.extend_from_slice(&request.body_digest);
        sizes.extend_from_slice(&(request.frame.len() as u32).to_be_bytes());
        frames.extend_from_slice(&request.frame);
    }
    let keys: [&str; 7] =
        [&keys.sale, &keys.stock, &keys.requests, &keys.buyers, &keys.intake, &keys.outcome, &keys.limits];
    let buyers: usize =
        batch.iter().map(|request| request.key_digest().len() + request.order.buyer.as_str().len()).sum();
    let bytes = items.len() + bodies.len() + frames.len() + sizes.len() + buyers + OTHER_BYTES;
    let arguments = 2 * batch.len() + skus.len() + OTHER_ARGUMENTS;
    let mut command = scripts::order_admit.call_with_room(&keys, arguments, bytes);
    command.arg(node).arg(batch.len()).arg(skus.len()).arg(items).arg(routing(batch, wait != Wait::Nothing));
    command.arg(bodies).arg(frames).arg(sizes).arg(term);
    for sku in skus {
        command.arg(sku);
    }
    for request in batch {
        command.arg(request.key_digest());
    }
    for request in batch {
        command.arg(request.order.buyer.as_str());
    }
    counted::put(&mut command, batch.iter().map(|request| &request.counted[..]));
    command
}

/// It decided nothing, because the node believes in another term.
fn is_of_another_term(reply: &Value) -> bool {
    let Value::Array(parts) = reply else { return false };
    matches!(parts.first(), Some(Value::BulkString(codes)) if codes.first() == Some(&b'E'))
}

fn read_decisions(reply: &Value, requests: usize) -> Option<Admitted> {
    let Value::Array(parts) = reply else { return None };
    let text = |value: &Value| -> Option<String> { redis::from_redis_value_ref(value).ok() };
    let codes = text(parts.first()?)?;
    let entry_text = text(parts.get(1)?)?;
    let versions = text(parts.get(2)?)?;
    let (version, seq) = versions.split_once(' ')?;
    let (version, seq) = (version.parse().ok()?, seq.parse().ok()?);
    let entry = if entry_text.is_empty() { None } else { Some(entry_text.parse::<EntryId>().ok()?) };
    let mut replays = parts[3..].iter();
    let mut index = 0;
    let mut decisions = Vec::with_capacity(requests);
    for code in codes.bytes() {
        decisions.push(match code {
            b'A' => {
                index += 1;
                Decision::Admitted(Address { entry: entry?, index: index - 1 })
            }
            b'R' => Decision::Replayed(read_address(replays.next()?)?),
            b'K' => Decision::KeyReused,
            b'M' => Decision::Moved,
            b'N' => Decision::NotOpen,
            b'P' => Decision::Paused,
            b'C' => Decision::Closed,
            b'U' => Decision::UnknownSku,
            b'L' => Decision::LimitReached,
            b'F' => Decision::FurtherLimitReached,
            b'S' => Decision::SoldOut,
            _ => return None,
        });
    }
    (decisions.len() == requests).then_some(Admitted { decisions, entry, version, seq })
}

/// An address as the ledger keeps it: u48 ms, u32 sequence, u16 index.
fn read_address(value: &Value) -> Option<Address> {
    let Value::BulkString(bytes) = value else { return None };
    let packed: [u8; 12] = bytes.as_slice().try_into().ok()?;
    let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    let entry = EntryId { ms: number(&packed[..6]), seq: number(&packed[6..10]) };
    Some(Address { entry, index: number(&packed[10..]) as u16 })
}

/// Stream entries of the intake: `[[id, ['v1', frames]], …]`.
pub(super) fn read_entries(reply: &Value) -> Result<Vec<(EntryId, Vec<Frame>)>, Error> {
    let unexpected = |problem: &str| Error::Unexpected { what: "an entry of the intake", reply: problem.into() };
    let raw: Vec<(String, Vec<Vec<u8>>)> =
        redis::from_redis_value_ref(reply).map_err(|error| unexpected(&error.to_string()))?;
    raw.into_iter()
        .map(|(id, fields)| {
            let id = id.parse().map_err(|_| unexpected(&id))?;
            match fields.as_slice() {
                [name, frames] if name == b"v1" => {
                    Ok((id, frame::decode_all(frames).ok_or_else(|| unexpected("frames that cannot be read"))?))
                }
                _ => Err(unexpected("a version that this program does not read")),
            }
        })
        .collect()
}
