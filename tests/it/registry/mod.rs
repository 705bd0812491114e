//! Registries: a real etcd, this server in it, and branches that are found in it while instances come and go.

mod branches;
mod entry;
mod gozero;
mod instance;

use crate::support::app::AppOptions;
use crate::support::etcd::Etcd;
use crate::support::servers::{Redis, RedisVersion};
use rushline::registry::etcd::{Client, Keys};

/// A Redis that forgets, for servers whose sales are not looked at.
async fn redis() -> Redis {
    Redis::start(RedisVersion::V7, &["--appendfsync", "no"]).await
}

/// A server that registers as `dtmservice`, at an address that nobody listens on: only the entry is looked at.
fn registered(etcd: &Etcd) -> AppOptions {
    AppOptions::default()
        .setting("registry.target", format!("etcd://{}/dtmservice", etcd.address()))
        .setting("registry.endpoint", "127.0.0.1:36790")
}

/// What is below `NAME/` now, as `(key, value)`; an error's words if etcd does not say.
async fn entries(client: &Client, name: &str) -> Result<Vec<(String, String)>, String> {
    let session = client.session().await.map_err(|error| error.to_string())?;
    let listed = session.list(&Keys::Below(format!("{name}/"))).await;
    if listed.is_err() {
        client.leave(&session).await;
    }
    let (pairs, _) = listed.map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(pairs.iter().map(|(key, value)| (text(key), text(value))).collect())
}
