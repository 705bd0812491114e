//! The pulse: one look at Redis that renews all notes which somebody was refused by. At most one is under way, and only
//! while there are losers; a sale without them has none.

use super::Known;
use crate::outside;
use crate::store::known::Pulse;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::time::Instant;

/// SKUs of one pulse: bounds its reply. The others are next.
const SKUS_MAX: usize = 1_000;

impl Known {
    /// Starts one, unless it is under way.
    pub(super) fn pulse(self: &Arc<Self>) {
        if !self.pulsing.swap(true, Ordering::AcqRel) {
            let known = self.clone();
            outside::spawn(async move {
                known.look().await;
                known.pulsing.store(false, Ordering::Release);
            });
        }
    }

    async fn look(&self) {
        let asked = Instant::now();
        let (skus, with_time) = {
            let notes = self.read();
            (notes.to_renew(SKUS_MAX), notes.shut && notes.clock.needs_reading(asked))
        };
        let Pulse { version, available, time_us } = match self.redis.pulse(&self.part.keys, &skus, with_time).await {
            Ok(pulse) => pulse,
            Err(error) => {
                // The notes grow too old to be told, and the next requests hear what is the matter.
                tracing::debug!(sale = %self.part.name, %error, "no pulse");
                return;
            }
        };
        let mut notes = self.write();
        for (sku, units) in skus.iter().zip(available) {
            notes.renew(sku, units, asked);
        }
        if let Some(time_us) = time_us {
            notes.clock.read(time_us, asked, Instant::now());
        }
        if let Some(version) = version {
            notes.note_version(version, asked);
            if version != self.part.stored.load().version {
                // Until the settings are read anew, requests go to the script.
                self.part.outdated.notify_one();
            }
        }
    }
}
