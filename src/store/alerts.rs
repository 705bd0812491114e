//! Which alerts were told, over all nodes. Nothing is decided by this but whether somebody hears of something twice.

use super::redis::Redis;
use super::{Error, keys};
use std::time::Duration;

impl Redis {
    /// Notes that an alert is told, by this id, for at most `keep`. `false`: it was told already.
    pub async fn open_alert(&self, kind: &str, subject: &str, id: &str, keep: Duration) -> Result<bool, Error> {
        let mut command = redis::cmd("SET");
        command.arg(keys::alert(self.prefix(), kind, subject)).arg(id).arg("NX").arg("PX").arg(keep.as_millis() as u64);
        let set: Option<String> = command.query_async(&mut self.aside()).await?;
        Ok(set.is_some())
    }

    /// Notes that it is over: the id by which it was told, for the first who says so.
    pub async fn close_alert(&self, kind: &str, subject: &str) -> Result<Option<String>, Error> {
        let key = keys::alert(self.prefix(), kind, subject);
        Ok(redis::cmd("GETDEL").arg(key).query_async(&mut self.aside()).await?)
    }
}
