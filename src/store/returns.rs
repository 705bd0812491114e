//! Units that come back after the sale, as typed functions.

use super::keys::Keys;
use super::orders::Address;
use super::redis::Redis;
use super::reservations::{items_text, read_items};
use super::{Error, scripts};
use crate::domain::ids::EntryId;
use crate::domain::order::Item;
use redis::Value;
use std::collections::HashMap;

/// What a return is told.
#[derive(Debug, Clone, Copy)]
pub struct Return<'a> {
    pub address: Address,
    pub request_id: &'a str,
    /// What comes back now.
    pub items: &'a [Item],
    /// What was sold of this order: it never changes.
    pub sold: &'a [Item],
    /// Who is counted for these units no more: buyers, and fields of the ledger of limits.
    pub buyers: &'a [(String, u64)],
    pub limits: &'a [(String, u64)],
}

/// What a return met; the items are all that came back of the order by now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReturnAnswer {
    Returned(Vec<Item>),
    /// This request was carried out before.
    Duplicate(Vec<Item>),
    /// This request id asked for something else before.
    Reused,
    /// More than was sold, with what came back earlier.
    TooMany {
        sku: String,
        all: Vec<Item>,
    },
}

impl Redis {
    /// Puts units that were sold back on sale, once for each request.
    pub async fn return_units(&self, keys: &Keys, what: Return<'_>) -> Result<ReturnAnswer, Error> {
        let mut command =
            scripts::order_return.call(&[&keys.stock, &keys.returns, &keys.returned, &keys.buyers, &keys.limits]);
        command.arg(what.address.to_string()).arg(what.request_id).arg(items_text(what.items));
        command.arg(format!("{} {} {}", what.sold.len(), what.buyers.len(), what.limits.len()));
        for sold in what.sold {
            let back = what.items.iter().find(|item| item.sku == sold.sku).map_or(0, |item| item.quantity);
            command.arg(sold.sku.as_str()).arg(sold.quantity).arg(back);
        }
        for (field, units) in what.buyers.iter().chain(what.limits) {
            command.arg(field).arg(*units);
        }
        let reply = self.run(&mut self.lane(), &command).await?;
        let unexpected = || Error::Unexpected { what: "order_return", reply: format!("{reply:?}") };
        let words: Vec<String> = redis::from_redis_value_ref(&reply).map_err(|_| unexpected())?;
        let all = words.get(1).map(|all| read_items(all)).unwrap_or_default();
        match (words.first().map(String::as_str), words.get(2)) {
            (Some("RETURNED"), _) => Ok(ReturnAnswer::Returned(all)),
            (Some("DUPLICATE"), _) => Ok(ReturnAnswer::Duplicate(all)),
            (Some("REUSED"), _) => Ok(ReturnAnswer::Reused),
            (Some("TOOMANY"), Some(sku)) => Ok(ReturnAnswer::TooMany { sku: sku.clone(), all }),
            _ => Err(unexpected()),
        }
    }

    /// All that came back of each of these orders.
    pub async fn returns(&self, keys: &Keys, addresses: &[Address]) -> Result<Vec<Vec<Item>>, Error> {
        let names: Vec<String> = addresses.iter().map(Address::to_string).collect();
        let texts: Vec<Option<String>> =
            redis::cmd("HMGET").arg(&keys.returns).arg(names).query_async(&mut self.lane()).await?;
        Ok(texts.into_iter().map(|text| text.map(|text| read_items(&text)).unwrap_or_default()).collect())
    }

    /// Orders whose record is to be told of a return, oldest first.
    pub async fn returned_lines(&self, keys: &Keys, count: usize) -> Result<Vec<(EntryId, Address)>, Error> {
        let lines: Vec<(String, HashMap<String, String>)> = redis::cmd("XRANGE")
            .arg(&keys.returned)
            .arg("-")
            .arg("+")
            .arg("COUNT")
            .arg(count)
            .query_async(&mut self.slow())
            .await?;
        let unexpected = |line: String| Error::Unexpected { what: "a line of returns", reply: line };
        lines
            .into_iter()
            .map(|(id, mut fields)| {
                let address = fields.remove("v1").unwrap_or_default();
                let parsed = id.parse().ok().zip(address.parse().ok());
                parsed.ok_or_else(|| unexpected(format!("{id} {address}")))
            })
            .collect()
    }

    pub async fn forget_returned_lines(&self, keys: &Keys, lines: &[EntryId]) -> Result<(), Error> {
        let ids: Vec<String> = lines.iter().map(EntryId::to_string).collect();
        let _: Value = redis::cmd("XDEL").arg(&keys.returned).arg(ids).query_async(&mut self.lane()).await?;
        Ok(())
    }
}
