//! The model of Redis against Redis: the product's own functions and scripts on both at the same time, with hostile
//! arguments in between, and every answer and every key must be the same.
//!
//! `CERTIFY=100000` asks for so many operations; without it a few thousand are enough to see that nothing has changed.

mod operations;
mod redis_server;
mod tee;

use redis_server::{REDIS_7, REDIS_8, RedisServer};
use tee::Tee;

/// Operations of a usual test run, on each version.
const OPERATIONS: u64 = 4_000;
/// After so many everything is deleted, so that keys of wrong types do not gather.
const ROUND: u64 = 250;

fn certify(program: &str, seed: u64) {
    let wanted = std::env::var("CERTIFY").ok().and_then(|text| text.parse().ok()).unwrap_or(OPERATIONS);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let server = RedisServer::start(program).await;
        let tee = Tee::new(&server, seed).await;
        let mut round = 0;
        while tee.operations() < wanted {
            round += 1;
            operations::round(&tee, seed ^ round, tee.operations() + ROUND).await;
            tee.compare_keys().await;
            tee.begin_anew().await;
        }
        println!(
            "{} of Redis {}: {} operations, {} of them hostile, {} refused, {} rounds; all answers and keys agree",
            program,
            server.version,
            tee.operations(),
            tee.hostile(),
            tee.refused(),
            round
        );
    });
}

#[test]
fn the_model_answers_as_redis_7_does() {
    certify(REDIS_7, 7);
}

#[test]
fn the_model_answers_as_redis_8_does() {
    certify(REDIS_8, 8);
}
