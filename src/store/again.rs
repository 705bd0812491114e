//! Orders that somebody wants tried again now, for whichever node has them: a short stream by partition that every node
//! reads which has orders waiting there. It runs out by itself; who asks twice is heard twice, to no harm.

use super::Error;
use super::keys::Keys;
use super::orders::Address;
use super::redis::Redis;
use redis::Value;
use std::time::Duration;

/// Words that are kept: as many as one command of an operator may say.
const WORDS_MAX: usize = 10_000;
/// How long they are kept: several leases at their longest reading.
const KEPT_FOR: Duration = Duration::from_secs(120);

impl Redis {
    /// Asks whoever has this order to try it now.
    pub async fn ask_again(&self, keys: &Keys, address: Address) -> Result<(), Error> {
        let mut pipe = redis::pipe();
        pipe.cmd("XADD").arg(&keys.again).arg(&["MAXLEN", "~"]).arg(WORDS_MAX);
        pipe.arg("*").arg("order").arg(address.to_string()).ignore();
        pipe.cmd("PEXPIRE").arg(&keys.again).arg(KEPT_FOR.as_millis() as u64).ignore();
        Ok(pipe.query_async(&mut self.aside()).await?)
    }

    /// What was asked for since the word `after`, and the last word now.
    pub async fn asked_again(&self, keys: &Keys, after: &str) -> Result<(Vec<Address>, Option<String>), Error> {
        let mut command = redis::cmd("XRANGE");
        command.arg(&keys.again).arg(format!("({after}")).arg("+").arg("COUNT").arg(WORDS_MAX);
        let reply: Value = command.query_async(&mut self.aside()).await?;
        let words: Vec<(String, Vec<(String, String)>)> = redis::from_redis_value(reply)
            .map_err(|error| Error::Unexpected { what: "a word to try again", reply: error.to_string() })?;
        let last = words.last().map(|(id, _)| id.clone());
        let orders = words.into_iter().flat_map(|(_, fields)| fields).filter_map(|(_, order)| order.parse().ok());
        Ok((orders.collect(), last))
    }
}
