//! Sales in Redis: creating, reading, changing, restocking.

use super::keys::{self, Keys};
use super::lane::Lane;
use super::redis::Redis;
use super::spread::Spread;
use super::{Error, scripts};
use crate::domain::change::{CHANGES_MAX, Note};
use crate::domain::ids::{SaleName, Sku};
use crate::domain::sale::{NewSale, SaleStatus, Settings, UNITS_MAX};
use crate::domain::stock::Stock;
use redis::Value;
use std::collections::{BTreeMap, HashMap};

/// "Never closes", as the scripts compare it: the largest integer that Lua holds exactly.
const NEVER_MS: u64 = (1 << 53) - 1;

/// What a creation met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    New,
    /// The same request created it before.
    Same,
    /// Another request did.
    Exists,
}

/// What a change met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Updated {
    Done,
    /// Somebody else changed the sale since it was read.
    Stale,
    /// This request was carried out before.
    Duplicate,
    /// This request id asked for something else before.
    Reused,
    /// A closed sale stays closed.
    Closed,
}

/// What a restock met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restocked {
    /// By so many units; a withdrawal stops at zero available.
    Changed(i64),
    /// This request was carried out before, with that result.
    Duplicate(i64),
    /// This request id asked for something else before.
    Reused,
    Closed,
    TooMany,
    UnknownSku,
}

/// A sale as Redis has it.
#[derive(Debug, Clone)]
pub struct Stored {
    pub settings: Settings,
    /// Grows with every change; the admission script tells it, so that a node notices.
    pub version: u64,
    pub created_ms: u64,
    pub spread: Spread,
}

/// One SKU's counters, with those already in the records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    pub stock: Stock,
    /// Units that were sold, and whose orders are in the records and no longer in Redis; also those returned since.
    pub archived: u64,
    /// Units that came back after they were sold.
    pub returned: u64,
    /// Units that have left one partition and not reached another; always 0 in a single one.
    pub in_transit: u64,
}

impl Counters {
    /// What they do not explain; anything but zero is an oversell or a leak.
    pub fn difference(&self) -> i128 {
        self.stock.difference() - i128::from(self.in_transit)
    }
}

/// How much of a sale is on its way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Entries (batches) with an order that has not ended.
    pub undelivered_entries: u64,
    /// Entries in Redis, delivered or not.
    pub entries: u64,
    /// Notices of ended entries that the reconciler has not dealt with.
    pub finished: u64,
    /// Orders waiting for another try.
    pub retries: u64,
}

/// Settings, version, time of creation, partitions and homes.
type SaleFields = (Option<String>, Option<u64>, Option<u64>, Option<u16>, Option<String>);

fn settings_args(command: &mut redis::Cmd, settings: &Settings) {
    let json = serde_json::to_string(settings).expect("settings are plain data");
    command
        .arg(json)
        .arg(settings.status.as_str())
        .arg(settings.window.opens_ms.unwrap_or(0))
        .arg(settings.window.closes_ms.unwrap_or(NEVER_MS))
        .arg(settings.limit_per_buyer.unwrap_or(0));
}

impl Redis {
    /// Creates the sale, once. `body` is the request in its canonical form.
    pub async fn create_sale(&self, new: &NewSale, body: &str) -> Result<Created, Error> {
        let keys = Keys::new(self.prefix(), &new.sale, 0);
        let mut command = scripts::sale_create.call(&[&keys.sale, &keys.stock, &keys.intake, &keys.finished]);
        command.arg(body);
        settings_args(&mut command, &new.settings);
        for (sku, units) in &new.items {
            command.arg(sku.as_str()).arg(*units);
        }
        let created = match word(self.run(&mut self.lane(), &command).await?, "sale_create")?.as_str() {
            "CREATED" => Created::New,
            "SAME" => Created::Same,
            "EXISTS" => Created::Exists,
            other => return Err(Error::Unexpected { what: "sale_create", reply: other.into() }),
        };
        // The list of sales lives in another slot; a crash in between is mended by the repeated creation.
        self.list_sale(&new.sale).await?;
        Ok(created)
    }

    /// Puts a sale on the list of all sales, by which sweeps find it.
    pub async fn list_sale(&self, name: &SaleName) -> Result<(), Error> {
        let list = keys::sales(self.prefix());
        let _: u64 = redis::cmd("SADD").arg(list).arg(name.as_str()).query_async(&mut self.lane()).await?;
        Ok(())
    }

    /// The names of all sales, sorted.
    pub async fn sale_names(&self) -> Result<Vec<SaleName>, Error> {
        let names: Vec<String> =
            redis::cmd("SMEMBERS").arg(keys::sales(self.prefix())).query_async(&mut self.aside()).await?;
        let mut names: Vec<SaleName> = names.into_iter().filter_map(|name| SaleName::parse(name).ok()).collect();
        names.sort();
        Ok(names)
    }

    pub async fn load_sale(&self, keys: &Keys) -> Result<Option<Stored>, Error> {
        let fields: SaleFields = redis::cmd("HMGET")
            .arg(&keys.sale)
            .arg(&["settings", "version", "created_ms", "partitions", "homes"])
            .query_async(&mut self.aside())
            .await?;
        let (Some(settings), Some(version), Some(created_ms), partitions, homes) = fields else { return Ok(None) };
        let settings = serde_json::from_str(&settings)
            .map_err(|error| Error::Unexpected { what: "settings of a sale", reply: error.to_string() })?;
        let spread = Spread::read(partitions, homes.as_deref());
        Ok(Some(Stored { settings, version, created_ms, spread }))
    }

    /// The versions of many sales in one round trip; 0 for one that is not there.
    pub async fn sale_versions(&self, keys: &[&Keys]) -> Result<Vec<u64>, Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = redis::pipe();
        for keys in keys {
            pipeline.cmd("HGET").arg(&keys.sale).arg("version");
        }
        let versions: Vec<Option<u64>> = pipeline.query_async(&mut self.lane()).await?;
        Ok(versions.into_iter().map(Option::unwrap_or_default).collect())
    }

    /// Replaces the settings if they still are of `version`, once per `request_id` (empty: whenever asked). `what` is the
    /// change as it was asked for, JSON.
    pub async fn update_sale(
        &self,
        keys: &Keys,
        version: u64,
        settings: &Settings,
        request_id: &str,
        what: &str,
        note: &Note,
    ) -> Result<Updated, Error> {
        let mut command = scripts::sale_update.call(&[&keys.sale, &keys.stock, &keys.changes, &keys.log]);
        command.arg(version);
        settings_args(&mut command, settings);
        command.arg(request_id).arg(what).arg(&note.who).arg(&note.why).arg(CHANGES_MAX);
        match word(self.run(&mut self.lane(), &command).await?, "sale_update")?.as_str() {
            "UPDATED" => Ok(Updated::Done),
            "DUPLICATE" => Ok(Updated::Duplicate),
            "REUSED" => Ok(Updated::Reused),
            "STALE" => Ok(Updated::Stale),
            "CLOSED" => Ok(Updated::Closed),
            "NOSALE" => Err(Error::NoSale),
            other => Err(Error::Unexpected { what: "sale_update", reply: other.into() }),
        }
    }

    /// Adds or withdraws units, once per `request_id`.
    pub async fn add_stock(
        &self,
        keys: &Keys,
        sku: &Sku,
        units: i64,
        request_id: &str,
        note: &Note,
    ) -> Result<Restocked, Error> {
        let mut command = scripts::stock_add.call(&[&keys.sale, &keys.stock, &keys.changes, &keys.log]);
        // A SKU has nothing to escape.
        let what = format!(r#"{{"sku":"{sku}","units":{units}}}"#);
        command.arg(request_id).arg(sku.as_str()).arg(units).arg(UNITS_MAX);
        command.arg(what).arg(&note.who).arg(&note.why).arg(CHANGES_MAX);
        let reply = self.run(&mut self.lane(), &command).await?;
        let unexpected = |reply: &Value| Error::Unexpected { what: "stock_add", reply: format!("{reply:?}") };
        let (word, changed): (String, i64) = match &reply {
            Value::Array(parts) if parts.len() == 1 => {
                (redis::from_redis_value_ref(&parts[0]).map_err(|_| unexpected(&reply))?, 0)
            }
            _ => redis::from_redis_value_ref(&reply).map_err(|_| unexpected(&reply))?,
        };
        match word.as_str() {
            "CHANGED" => Ok(Restocked::Changed(changed)),
            "DUPLICATE" => Ok(Restocked::Duplicate(changed)),
            "REUSED" => Ok(Restocked::Reused),
            "CLOSED" => Ok(Restocked::Closed),
            "TOOMANY" => Ok(Restocked::TooMany),
            "NOSKU" => Ok(Restocked::UnknownSku),
            "NOSALE" => Err(Error::NoSale),
            _ => Err(unexpected(&reply)),
        }
    }

    /// Every SKU's counters, by name. One HGETALL, so all counters are of one moment.
    pub async fn stock(&self, keys: &Keys) -> Result<BTreeMap<String, Counters>, Error> {
        let fields: HashMap<String, String> =
            redis::cmd("HGETALL").arg(&keys.stock).query_async(&mut self.aside()).await?;
        let mut stock: BTreeMap<String, Counters> = BTreeMap::new();
        for (field, units) in fields {
            let Some((sku, counter)) = field.rsplit_once(':').filter(|(sku, _)| !sku.is_empty()) else { continue };
            // A negative counter is a bug that must be seen, not a panic: shown as 0 it makes the difference differ.
            let units = units.parse::<u64>().unwrap_or_default();
            let counters = stock.entry(sku.to_owned()).or_default();
            match counter {
                "loaded" => counters.stock.loaded = units,
                "available" => counters.stock.available = units,
                "reserved" => counters.stock.reserved = units,
                "sold" => counters.stock.sold = units,
                "archived" => counters.archived = units,
                "returned" => counters.returned = units,
                _ => {}
            }
        }
        Ok(stock)
    }

    /// Refusals by reason, all nodes together.
    pub async fn refused(&self, keys: &Keys) -> Result<BTreeMap<String, u64>, Error> {
        Ok(redis::cmd("HGETALL").arg(&keys.refused).query_async(&mut self.aside()).await?)
    }

    /// Adds to the refusals: sums of many requests at a time, so that a refused request itself writes nothing.
    pub async fn add_refused(&self, keys: &Keys, counts: &[(&'static str, u64)]) -> Result<(), Error> {
        let mut pipeline = redis::pipe();
        for (reason, count) in counts {
            pipeline.cmd("HINCRBY").arg(&keys.refused).arg(*reason).arg(*count).ignore();
        }
        Ok(pipeline.query_async(&mut self.lane()).await?)
    }

    /// Writes on this very connection: WAIT and WAITAOF count no others, and all earlier ones come before it.
    pub async fn touch_sale(&self, lane: &mut Lane, keys: &Keys) -> Result<(), Error> {
        self.run(lane, &scripts::sale_touch.call(&[&keys.sale])).await?;
        Ok(())
    }

    pub async fn backlog(&self, keys: &Keys) -> Result<Backlog, Error> {
        let (pending, entries, finished, retries): (Value, u64, u64, u64) = redis::pipe()
            .cmd("XPENDING")
            .arg(&keys.intake)
            .arg("delivery")
            .cmd("XLEN")
            .arg(&keys.intake)
            .cmd("XLEN")
            .arg(&keys.finished)
            .cmd("ZCARD")
            .arg(&keys.retry)
            .query_async(&mut self.aside())
            .await?;
        let undelivered_entries = match &pending {
            Value::Array(parts) => {
                parts.first().and_then(|count| redis::from_redis_value_ref(count).ok()).unwrap_or_default()
            }
            _ => 0,
        };
        Ok(Backlog { undelivered_entries, entries, finished, retries })
    }

    /// Forgets the buyers' ledger of a sale closed for longer than `keep_ms`, if nothing of it is open. Did it?
    pub async fn forget_ledger(&self, keys: &Keys, keep_ms: u64) -> Result<bool, Error> {
        let mut command = scripts::ledger_forget.call(&[
            &keys.sale,
            &keys.intake,
            &keys.finished,
            &keys.requests,
            &keys.buyers,
            &keys.changes,
            &keys.limits,
        ]);
        command.arg(keep_ms);
        Ok(word(self.run(&mut self.lane(), &command).await?, "ledger_forget")? == "FORGOTTEN")
    }
}

fn word(reply: Value, what: &'static str) -> Result<String, Error> {
    redis::from_redis_value_ref(&reply).map_err(|_| Error::Unexpected { what, reply: format!("{reply:?}") })
}

impl SaleStatus {
    /// As the scripts spell it.
    pub fn parse(text: &str) -> Option<Self> {
        [SaleStatus::Open, SaleStatus::Paused, SaleStatus::Closed].into_iter().find(|status| status.as_str() == text)
    }
}
