//! One Redis of each version for all tests that need no Redis of their own: started for the first, killed after the
//! last that holds it. Each test has its own sale name, hence its own keys.

use super::servers::{Redis, RedisVersion};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use tokio::sync::Mutex;

static SEVEN: Mutex<Weak<Redis>> = Mutex::const_new(Weak::new());
static EIGHT: Mutex<Weak<Redis>> = Mutex::const_new(Weak::new());

/// A Redis without persistence: what stands on disk is the crash tests' question, and fsync costs them time.
pub async fn redis(version: RedisVersion) -> Arc<Redis> {
    let place = match version {
        RedisVersion::V7 => &SEVEN,
        RedisVersion::V8 => &EIGHT,
    };
    let mut running = place.lock().await;
    if let Some(server) = running.upgrade() {
        return server;
    }
    let server = Arc::new(Redis::start(version, &["--appendonly", "no"]).await);
    *running = Arc::downgrade(&server);
    server
}

/// A name that no other test of this run has.
pub fn unique(stem: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{stem}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
