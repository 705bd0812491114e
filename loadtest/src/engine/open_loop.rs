//! One kind of request at a rate, for figures: the engine without a scenario.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::crowd::Crowd;
use super::schedule::Phase;
use super::{Drive, Effort};
use crate::bench::Template;
use crate::ledger::{Counts, Plan, Recorder};
use crate::scenario::Manner;
use crate::target::{Fixed, Target};

/// Time for the last answers.
const DRAIN: Duration = Duration::from_secs(10);
/// Threads and connections are set up in this time.
const LEAD: Duration = Duration::from_millis(300);

/// What to send, and how.
pub struct OpenLoop {
    pub address: SocketAddr,
    pub template: Template,
    /// Requests a second; `None` is a closed loop, as fast as answers come.
    pub rate: Option<f64>,
    pub lasts: Duration,
    pub poisson: bool,
    pub connections: usize,
    /// Streams a connection; 0 is HTTP/1.
    pub streams: usize,
    pub threads: usize,
    /// The first request's number: orders of one sale must not share theirs.
    pub first: u64,
}

/// What came back.
pub struct Measured {
    /// Microseconds from the intended time to the answer.
    pub latency: Histogram<u64>,
    pub counts: Counts,
    pub effort: Effort,
}

impl Measured {
    pub fn per_second(&self) -> f64 {
        self.latency.len() as f64 / self.effort.elapsed.as_secs_f64()
    }
}

/// Sends at the rate for the time, and waits for the answers.
pub async fn open_loop(load: OpenLoop) -> anyhow::Result<Measured> {
    let lasts = load.lasts;
    let phase = match load.rate {
        Some(rate) if load.poisson => Phase::Poisson { rate, lasts },
        Some(rate) => Phase::Constant { rate, lasts },
        None => Phase::Burst { count: u64::MAX >> 12, within: Duration::ZERO },
    };
    let began = Instant::now() + LEAD;
    let until = began + load.lasts + if load.rate.is_some() { DRAIN } else { Duration::ZERO };
    let drive = Drive { threads: load.threads, connections: load.connections, streams: load.streams, began, until };
    // No row is kept of single answers.
    let recorder = Recorder::new(0);
    let (closed_loop, threads, first) = (load.rate.is_none(), load.threads, load.first);
    let (address, template) = (load.address, load.template);
    let phases = vec![phase];
    let for_crowd = phases.clone();
    let supply = move |mine: usize| {
        let manner = Manner { tries: 1, patience_ms: 60_000, ..Manner::default() };
        let (crowd, _) = Crowd::new(1, vec![manner], 1, &for_crowd, closed_loop);
        let (next, every) = (Cell::new(first + mine as u64), threads as u64);
        Ok((crowd, Target::Fixed(Fixed { address, template: template.clone(), next, every })))
    };
    let stop = Arc::new(AtomicBool::new(false));
    let effort = super::run(drive, phases, Arc::new(supply), &recorder, stop).await?;
    let ledger = recorder.finish(Plan::default())?;
    Ok(Measured { latency: ledger.latency, counts: ledger.counts, effort })
}
