//! What a caller does who must know how a global transaction ends, through any crash: hand it over until the coordinator
//! has it, then ask until it is over. Both may be repeated, as the gid is the caller's own.

use anyhow::{Context, bail};
use rushline::client::{Client, Error, Saga};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_secs(30);
const ASK_EVERY: Duration = Duration::from_millis(50);

/// Did everything in it happen? If not, all of it is undone.
pub async fn carry_through(client: &Client, gid: &str, saga: Saga) -> anyhow::Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match saga.clone().submit().await {
            // Refused: it has heard of this gid before, when its answer got lost.
            Ok(_) | Err(Error::Refused(_)) => break,
            Err(error) if error.is_retryable() && Instant::now() < deadline => sleep(ASK_EVERY).await,
            Err(error) => return Err(error).with_context(|| format!("the saga {gid} was not handed over")),
        }
    }
    has_succeeded(client, gid).await
}

/// Waits for its end, and says which it was.
pub async fn has_succeeded(client: &Client, gid: &str) -> anyhow::Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let last = match client.query(gid).await {
            Ok(Some(found)) if found.is_final() => return Ok(found.status == "succeed"),
            Ok(Some(found)) => found.status,
            Ok(None) => "unknown to the coordinator".into(),
            Err(error) => error.to_string(),
        };
        if Instant::now() >= deadline {
            bail!("{gid} is not over after {} s: {last}", PATIENCE.as_secs());
        }
        sleep(ASK_EVERY).await;
    }
}
