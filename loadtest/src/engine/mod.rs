//! The engine: sends what buyers want when they want it, and writes down what they hear.
//!
//! | file | what it is |
//! | --- | --- |
//! | `schedule`, `trace` | when buyers come: arithmetic |
//! | `crowd` | what buyers do, and what follows from an answer |
//! | `queue` | what is to be asked when, and by which connection |
//! | `line` | a connection, HTTP/1 or HTTP/2 |
//! | `clock` | the run's time, and an alarm that is better than a millisecond |
//! | `worker` | the loop of one connection |
//! | `open_loop` | the same for figures: one request at a rate |
//!
//! A run has one or more threads; each has its own connections, its own part of the arrivals and its own shard of the
//! ledger, and shares nothing with the others while it runs. Never a lock or a channel between an arrival and its answer.

pub mod clock;
pub mod crowd;
pub mod line;
pub mod open_loop;
pub mod queue;
pub mod schedule;
pub mod trace;
mod worker;

#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use tokio::runtime::{Builder, LocalOptions};

use crate::ledger::{Recorder, Shard};
use crate::target::Target;
use clock::Clock;
use crowd::{Crowd, Door};
use line::{Line, Shared};
use queue::Queue;
use schedule::Phase;
use worker::Worker;

/// How often a thread looks if the run was called off.
const STOP_POLL: Duration = Duration::from_millis(20);
/// Connections opened at the same time before the run: fewer than the kernel queues for a listener.
const OPENING_MAX: usize = 64;

/// What drives a run.
#[derive(Debug, Clone)]
pub struct Drive {
    pub threads: usize,
    /// Of all threads together.
    pub connections: usize,
    /// Streams a connection; 0 is HTTP/1.
    pub streams: usize,
    /// The run begins then.
    pub began: Instant,
    /// What has not ended by then is called off.
    pub until: Instant,
}

/// What a run was like for the harness itself.
#[derive(Debug, Clone)]
pub struct Effort {
    /// Microseconds between the intended time and the sending, of all requests for which a connection was free: the
    /// harness's own lateness.
    pub schedule_error: Histogram<u64>,
    /// Requests that waited for a free connection; their lateness is the server's.
    pub waited: u64,
    pub requests: u64,
    /// The run was called off before everybody was done.
    pub cut_short: bool,
    /// Processor time of all threads.
    pub elapsed: Duration,
}

impl Effort {
    fn new() -> Self {
        let schedule_error = Histogram::new_with_bounds(1, 60_000_000, 3).expect("these bounds are valid");
        Self { schedule_error, waited: 0, requests: 0, cut_short: false, elapsed: Duration::ZERO }
    }

    fn add(&mut self, other: &Self) {
        self.schedule_error.add(&other.schedule_error).expect("same bounds");
        self.waited += other.waited;
        self.requests += other.requests;
        self.cut_short |= other.cut_short;
        self.elapsed = self.elapsed.max(other.elapsed);
    }
}

/// Makes what each thread needs: its crowd and its target, from its number.
pub type Supply = Arc<dyn Fn(usize) -> anyhow::Result<(Crowd, Target)> + Send + Sync>;

/// Runs everything to its end, `drive.until`, or `stop`.
pub async fn run(
    drive: Drive,
    phases: Vec<Phase>,
    supply: Supply,
    recorder: &Recorder,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<Effort> {
    ensure!(drive.threads > 0 && drive.connections > 0, "a run needs a thread and a connection at least");
    let mut ends = Vec::new();
    for mine in 0..drive.threads {
        let (end, ended) = tokio::sync::oneshot::channel();
        let (drive, phases, supply, stop) = (drive.clone(), phases.clone(), supply.clone(), stop.clone());
        let shard = recorder.shard();
        std::thread::Builder::new().name(format!("engine-{mine}")).spawn(move || {
            // Nobody listens if the run was interrupted.
            let _ = end.send(thread(mine, &drive, phases, &supply, shard, &stop));
        })?;
        ends.push(ended);
    }
    let mut effort = Effort::new();
    let mut failed = None;
    for ended in ends {
        match ended.await.context("a thread of the engine broke down").flatten() {
            Ok(one) => effort.add(&one),
            Err(error) => {
                stop.store(true, Ordering::Relaxed);
                failed = failed.or(Some(error));
            }
        }
    }
    failed.map_or(Ok(effort), Err)
}

fn thread(
    mine: usize,
    drive: &Drive,
    phases: Vec<Phase>,
    supply: &Supply,
    shard: Shard,
    stop: &AtomicBool,
) -> anyhow::Result<Effort> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    let (crowd, target) = supply(mine)?;
    if !crowd.closed_loop {
        clock::come_first();
    }
    let (crowd, target) = (Rc::new(crowd), Rc::new(target));
    runtime.block_on(async {
        let lines = lines(mine, drive, &target).await?;
        let clock = Clock::new(drive.began);
        let door = Door::new(crowd.clone(), phases, mine, drive.threads);
        let queue = Rc::new(Queue::new(clock, door, lines.len()));
        let worker = Rc::new(Worker::new(queue.clone(), crowd, target, clock, shard));
        tokio::time::sleep_until(drive.began.into()).await;
        let began = Instant::now();
        let mut workers = tokio::task::JoinSet::new();
        for (slot, line) in lines.into_iter().enumerate() {
            workers.spawn_local(worker.clone().run(slot, line));
        }
        let watch = async {
            while Instant::now() < drive.until && !stop.load(Ordering::Relaxed) {
                tokio::time::sleep(STOP_POLL).await;
            }
        };
        let mut time = std::pin::pin!(queue.keep_time());
        let called_off = tokio::select! {
            kept = &mut time => { kept?; false }
            () = watch => true,
        };
        if called_off {
            queue.close();
        }
        while let Some(ended) = workers.join_next().await {
            ended?;
        }
        let mut effort = worker.effort();
        (effort.elapsed, effort.cut_short) = (began.elapsed(), called_off);
        Ok(effort)
    })
}

/// The thread's connections, open: a run does not begin with a storm of handshakes unless the scenario is about that.
async fn lines(mine: usize, drive: &Drive, target: &Target) -> anyhow::Result<Vec<Line>> {
    let address = target.address();
    let share = drive.connections / drive.threads + usize::from(mine < drive.connections % drive.threads);
    let mut lines = Vec::new();
    for _ in 0..share.max(1) {
        if drive.streams == 0 {
            lines.push(Line::one(address));
        } else {
            let shared = Shared::new(address);
            lines.extend((0..drive.streams).map(|_| Line::two(shared.clone())));
        }
    }
    let mut opened = Vec::with_capacity(lines.len());
    let mut lines = lines.into_iter();
    loop {
        let mut opening = tokio::task::JoinSet::new();
        for mut line in lines.by_ref().take(OPENING_MAX) {
            opening.spawn_local(async move { line.open().await.map(|()| line) });
        }
        if opening.is_empty() {
            return Ok(opened);
        }
        while let Some(line) = opening.join_next().await {
            opened.push(line?.with_context(|| {
                format!("cannot connect to {address}\nhint: does it run? with many connections, see `ulimit -n`")
            })?);
        }
    }
}
