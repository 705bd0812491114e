//! Files that may change while the server runs: tokens, keys, certificates.

use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How often they are looked at. They are small, and reading them says more than their times: a mounted secret is a link
/// that is bent.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Calls `changed` when one of these files has other contents, and on SIGHUP.
pub async fn follow(files: Vec<PathBuf>, mut stopping: watch::Receiver<bool>, changed: impl Fn()) {
    // Listened to only where there is something to read: elsewhere a closed terminal ends the server as it always did.
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
    let mut seen = contents(&files).await;
    loop {
        let asked = tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => false,
            told = hangup.recv() => told.is_some(),
            _ = stopping.wait_for(|stop| *stop) => return,
        };
        let now = contents(&files).await;
        if asked || now != seen {
            seen = now;
            changed();
        }
    }
}

async fn contents(files: &[PathBuf]) -> [u8; 32] {
    let mut all = Sha256::new();
    for file in files {
        // One that is away for a moment is a change, and so is its return.
        let text = tokio::fs::read(file).await.unwrap_or_default();
        all.update(text.len().to_le_bytes());
        all.update(text);
    }
    all.finalize().into()
}
