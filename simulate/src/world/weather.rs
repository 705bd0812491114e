//! Carries out the faults of a plan, and mends everything at the end.

use super::checks::ledger::Now;
use super::plan::Fault;
use super::shared::Shared;
use super::town::Town;
use crate::model::server::{Fsync, Trouble};
use std::sync::Arc;
use std::time::Duration;

/// How often the file is synced in the background, and replicas are fed.
const SYNC_EVERY: Duration = Duration::from_millis(150);
const FEED_EVERY: Duration = Duration::from_millis(4);

/// Disk and replicas keep up with the server as well as they can.
pub async fn keep_up(shared: Arc<Shared>) {
    let mut synced = Duration::ZERO;
    loop {
        let pause = if shared.plan.redis.replicas > 0 { FEED_EVERY } else { SYNC_EVERY };
        tokio::time::sleep(pause).await;
        let now = shared.now();
        let mut state = shared.lock();
        if !state.redis_is_up {
            continue;
        }
        let writes = state.server.writes;
        for replica in 0..state.server.replicas.len() {
            if !state.lagging[replica] {
                state.server.replicated(replica, writes, now);
            }
        }
        if state.server.fsync == Fsync::EverySecond && now >= synced + SYNC_EVERY {
            synced = now;
            state.server.synced_from(now, now);
        }
        drop(state);
        shared.progress.notify_waiters();
    }
}

pub async fn faults(town: Arc<Town>) {
    let shared = town.shared.clone();
    let mut running = Vec::new();
    for (at, fault) in shared.plan.faults.clone() {
        tokio::time::sleep(at.saturating_sub(shared.elapsed())).await;
        shared.note_fault(&fault);
        running.push(tokio::spawn(carry_out(town.clone(), fault)));
    }
    for fault in running {
        let _ = fault.await;
    }
}

async fn carry_out(town: Arc<Town>, fault: Fault) {
    let shared = &town.shared;
    match fault {
        Fault::Kill { node, back_after } => {
            if let Some(instance) = town.instance(node) {
                instance.kill();
            }
            tokio::time::sleep(back_after).await;
            town.start(node);
        }
        Fault::Pause { node, lasts } => {
            let Some(instance) = town.instance(node) else { return };
            instance.pause();
            tokio::time::sleep(lasts).await;
            instance.resume();
        }
        Fault::Cut { node, lasts } => {
            let Some(instance) = town.instance(node) else { return };
            instance.set_cut(true);
            tokio::time::sleep(lasts).await;
            instance.set_cut(false);
        }
        Fault::Crash { kept, cut, back_after } => {
            if stop(shared) {
                let now = shared.now();
                let mut state = shared.lock();
                let state = &mut *state;
                state.server.crash(now, |unsynced| unsynced * kept / 100, cut);
                let at = Now { world: now, redis_ms: 0 };
                state.ledger.rewind(&state.server.db, state.server.writes, at);
            }
            tokio::time::sleep(back_after).await;
            come_back(shared);
        }
        Fault::Promote { replica, back_after } => {
            if stop(shared) {
                let now = shared.now();
                let mut state = shared.lock();
                let state = &mut *state;
                // Of several, one that has all that was acknowledged: what class replica asks of whoever promotes.
                let best = (0..state.server.replicas.len()).max_by_key(|at| state.server.replicas[*at]);
                let all_have = usize::from(state.server.replicas.len() == 1);
                let chosen = if all_have == 1 { replica } else { best.unwrap_or(replica) };
                state.server.promote(chosen, now);
                let at = Now { world: now, redis_ms: 0 };
                state.ledger.rewind(&state.server.db, state.server.writes, at);
            }
            tokio::time::sleep(back_after).await;
            come_back(shared);
        }
        Fault::Lag { replica, lasts } => {
            shared.lock().lagging[replica] = true;
            tokio::time::sleep(lasts).await;
            shared.lock().lagging[replica] = false;
        }
        Fault::ForgetScripts => shared.lock().server.forget_scripts(),
        Fault::MemoryFull { lasts } => trouble(shared, Trouble::OutOfMemory, lasts).await,
        Fault::DiskFull { lasts } => trouble(shared, Trouble::DiskFull, lasts).await,
        Fault::ClockAhead(by) => shared.lock().server.clock_ahead += by,
        Fault::ShopDown { lasts } => {
            shared.lock().shop.is_up = false;
            tokio::time::sleep(lasts).await;
            shared.lock().shop.is_up = true;
        }
        Fault::RecordsDown { lasts } => {
            shared.lock().records_are_up = false;
            tokio::time::sleep(lasts).await;
            shared.lock().records_are_up = true;
        }
    }
}

/// Redis is gone, and every connection to it. False: it was already.
fn stop(shared: &Shared) -> bool {
    let mut state = shared.lock();
    let was_up = std::mem::replace(&mut state.redis_is_up, false);
    state.epoch += 1;
    drop(state);
    shared.weather.notify_waiters();
    shared.progress.notify_waiters();
    was_up
}

fn come_back(shared: &Shared) {
    let mut state = shared.lock();
    state.redis_is_up = true;
    state.synced_at = Duration::ZERO;
    drop(state);
    shared.weather.notify_waiters();
}

async fn trouble(shared: &Shared, trouble: Trouble, lasts: Duration) {
    shared.lock().server.trouble = Some(trouble);
    tokio::time::sleep(lasts).await;
    shared.lock().server.trouble = None;
}

/// Everything is well from now on.
pub fn heal(town: &Town) {
    let shared = &town.shared;
    shared.note(|| "all is mended".to_owned());
    {
        let mut state = shared.lock();
        state.calm = true;
        state.server.trouble = None;
        state.lagging.fill(false);
        state.shop.is_up = true;
        state.records_are_up = true;
    }
    come_back(shared);
    for place in 0..shared.plan.nodes {
        match town.instance(place) {
            Some(instance) => {
                instance.set_cut(false);
                instance.resume();
            }
            None => town.start(place),
        }
    }
}
