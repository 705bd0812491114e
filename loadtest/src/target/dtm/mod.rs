//! Any coordinator that speaks dtm's HTTP protocol: a sale as dtm's own flash-sale recipe has it, and sagas.
//!
//! There the shop itself takes part: it prepares a two-phase message, takes the units from a stock in Redis by a script
//! that leaves a barrier's mark, and submits; the coordinator then calls the branch that makes the order. A shop that dies
//! in between is asked (`query_prepared`, [`service`]) and answers by the mark. The harness is that shop. One thing differs
//! from the recipe: the script looks at the mark before the stock, so that a repeat for the last unit hears the first answer.

pub mod service;
mod wording;

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;

use super::{Caller, Reply};
use crate::engine::crowd::Verdict;
use crate::engine::line::Wire;
use crate::engine::queue::Step;
use crate::ledger::Kind;
use crate::resp::{Place, Redis};
use crate::scenario::Work;
use wording::Wording;

/// How long marks are kept: as in dtm's recipe, and longer than any run.
pub const MARK_TTL_S: u32 = 86_400;

/// Takes units and leaves a mark, once a gid; values of marks as dtm has them.
pub const TAKE: &str = "\
local mark = redis.call('GET', KEYS[2])
if mark == 'rollback' then return 'RULED_OUT' end
if mark then return 'AGAIN' end
local units = tonumber(ARGV[1])
if tonumber(redis.call('GET', KEYS[1]) or '0') < units then return 'SHORT' end
redis.call('SET', KEYS[2], 'msg', 'EX', ARGV[2])
redis.call('DECRBY', KEYS[1], units)
return 'TAKEN'";

pub struct Dtm {
    pub address: SocketAddr,
    wording: Wording,
    stock: Option<Place>,
    work: Work,
}

/// Where the parts of a dtm target are.
#[derive(Debug, Clone)]
pub struct Parts {
    pub coordinator: SocketAddr,
    /// The stock's Redis; not needed for sagas.
    pub stock: Option<Place>,
    /// [`service`], which is asked about prepared messages.
    pub service: SocketAddr,
    /// Where branches are called.
    pub branches: SocketAddr,
}

/// A connection to the stock.
pub struct Stock {
    redis: Redis,
    take: String,
}

impl Stock {
    async fn open(place: &Place) -> anyhow::Result<Self> {
        let mut redis = Redis::at(place).await?;
        let take = redis.call(&["SCRIPT", "LOAD", TAKE]).await?.unwrap_or_default();
        Ok(Self { redis, take })
    }
}

/// Key of the units of a SKU that are left.
pub fn stock_key(sale: &str, sku: &str) -> String {
    format!("loadtest:{{{sale}}}:{sku}")
}

/// Key of the barrier's mark of a message, as dtm spells it.
pub fn mark_key(gid: &str) -> String {
    format!("{gid}-00-msg-01")
}

#[derive(Deserialize)]
struct Found {
    transaction: Option<Transaction>,
}

#[derive(Deserialize)]
struct Transaction {
    status: Option<String>,
}

impl Dtm {
    pub fn new(parts: &Parts, sale: &str, work: Work, baskets: &[crate::ledger::Basket], waits: Vec<bool>) -> Self {
        let wording = Wording::new(parts, sale, work, baskets, waits);
        Self { address: parts.coordinator, wording, stock: parts.stock.clone(), work }
    }

    /// The first of the requests that a step takes.
    pub fn write_first(&self, wire: &mut Wire, step: &Step) {
        match (step.kind, self.work) {
            (Kind::Order, Work::Orders) => self.wording.message(wire, "prepare", step),
            (Kind::Order, _) => self.wording.saga(wire, step),
            _ => self.wording.query(wire, &self.gid(step)),
        }
    }

    fn gid(&self, step: &Step) -> String {
        step.gid.as_deref().map_or_else(|| self.wording.gid(step), str::to_owned)
    }

    pub async fn ask(&self, caller: &mut Caller, step: &Step) -> Reply {
        let asked = match (step.kind, self.work) {
            (Kind::Order, Work::Orders) => self.order(caller, step).await,
            (Kind::Order, _) => self.saga(caller, step).await,
            _ => self.query(caller, step).await,
        };
        asked.unwrap_or_else(|error| match error.downcast_ref() {
            Some(error) => caller.no_answer(error),
            None => {
                caller.own.redis = None;
                caller.say("stock not reached");
                Reply::silence()
            }
        })
    }

    async fn order(&self, caller: &mut Caller, step: &Step) -> anyhow::Result<Reply> {
        let status = self.send(caller, |wire| self.wording.message(wire, "prepare", step)).await?;
        match status {
            200 => {}
            // It has been submitted or failed, by an earlier request with this key.
            409 => return self.query(caller, step).await,
            _ => return Ok(unclear(caller, status)),
        }
        match &*self.take(caller, step).await? {
            "TAKEN" | "AGAIN" => {}
            "SHORT" => {
                let status = self.send(caller, |wire| self.wording.message(wire, "abort", step)).await?;
                // An abort that fails changes nothing for the buyer: the check-back finds no mark.
                caller.say("sold_out");
                return Ok(reply(Verdict::Refused, status));
            }
            _ => {
                caller.say("rolled_back");
                return Ok(reply(Verdict::Refused, 409));
            }
        }
        let status = self.send(caller, |wire| self.wording.message(wire, "submit", step)).await?;
        match status {
            200 => {
                caller.text = self.gid(step);
                let waited = self.wording.waits(step);
                Ok(reply(if waited { Verdict::Created } else { Verdict::Admitted }, status))
            }
            409 => self.query(caller, step).await,
            _ => Ok(unclear(caller, status)),
        }
    }

    async fn take(&self, caller: &mut Caller, step: &Step) -> anyhow::Result<String> {
        if caller.own.redis.is_none()
            && let Some(place) = &self.stock
        {
            caller.own.redis = Some(Stock::open(place).await?);
        }
        let Some(stock) = &mut caller.own.redis else { anyhow::bail!("there is no stock") };
        let (key, units) = self.wording.stock_of(step);
        let mark = mark_key(&self.wording.gid(step));
        let ttl = MARK_TTL_S.to_string();
        let reply = stock.redis.call(&["EVALSHA", &stock.take, "2", key, &mark, units, &ttl]).await?;
        Ok(reply.unwrap_or_default())
    }

    async fn saga(&self, caller: &mut Caller, step: &Step) -> anyhow::Result<Reply> {
        let status = self.send(caller, |wire| self.wording.saga(wire, step)).await?;
        if status == 200 {
            caller.text = self.gid(step);
            return Ok(reply(Verdict::Created, status));
        }
        Ok(unclear(caller, status))
    }

    async fn query(&self, caller: &mut Caller, step: &Step) -> anyhow::Result<Reply> {
        let gid = self.gid(step);
        let Caller { line, wire, text, .. } = caller;
        wire.clear();
        self.wording.query(wire, &gid);
        let answer = line.call(wire).await?;
        let (status, found) = (answer.status, serde_json::from_slice::<Found>(answer.body));
        let stands = found.ok().and_then(|found| found.transaction?.status);
        let verdict = match stands.as_deref() {
            Some("succeed") => Verdict::Created,
            Some("submitted") => Verdict::Admitted,
            Some("failed" | "aborting") => Verdict::Refused,
            _ => Verdict::Unknown,
        };
        *text = match verdict {
            Verdict::Refused => "sold_out".into(),
            Verdict::Unknown => "unfinished".into(),
            _ => gid,
        };
        Ok(reply(verdict, status))
    }

    async fn send(&self, caller: &mut Caller, write: impl FnOnce(&mut Wire)) -> anyhow::Result<u16> {
        caller.wire.clear();
        write(&mut caller.wire);
        Ok(caller.line.call(&mut caller.wire).await?.status)
    }
}

fn reply(verdict: Verdict, status: u16) -> Reply {
    Reply { verdict, status, replayed: false, retry_after: None::<Duration> }
}

fn unclear(caller: &mut Caller, status: u16) -> Reply {
    caller.text = format!("status {status}");
    reply(Verdict::Unknown, status)
}
