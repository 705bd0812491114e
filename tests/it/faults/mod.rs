//! What machines do to servers: networks that are gone, disks that are full, slow or broken, clocks that jump, files that
//! are cut. docs/reliability.md has the list; crash points and kills are in `crash.rs` and `trans_faults/`.

mod aof;
mod clock;
mod disk;
mod endpoints;
mod network;
mod records;
mod scripts;
mod skew;

use crate::support::app::{App, AppOptions, eventually};
use crate::support::crowd::{self, Crowd};
use crate::support::shop::Shop;
use std::time::Duration;

const BUYERS: usize = 6;
const SOON: Duration = Duration::from_secs(40);

/// A server on this Redis, with a sale that a crowd can buy from.
async fn start(redis_url: &str, shop: &Shop, timeout_ms: u64) -> App {
    crowd::trying_shop(shop);
    let options = AppOptions::default().quick().redis(redis_url).setting("redis.timeout_ms", timeout_ms);
    let app = App::start(options).await;
    app.create_sale(&crowd::sale(shop.endpoint())).await;
    app
}

/// Waits until buyers have been told to come back so many times more.
async fn until_put_off(buyers: &Crowd, times: u64) {
    let before = buyers.heard().put_off();
    eventually("buyers are told to come back", SOON, || async { buyers.heard().put_off() >= before + times }).await;
}
