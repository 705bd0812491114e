//! What a run looks like while it goes on: four lines that change on a terminal, one line a second anywhere else.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::time::{MissedTickBehavior, interval};

use super::summary::{count, time};
use crate::ledger::{Counts, Recorder, Second};

/// A whole second is shown when the next one is under way, so more often would show nothing new.
const TICK: Duration = Duration::from_millis(500);
const PLAIN_TICK: Duration = Duration::from_secs(1);

/// What is shown.
pub struct Live {
    pub recorder: Recorder,
    /// The run's beginning; may lie ahead.
    pub began: Instant,
    /// How long buyers come, if that is known.
    pub lasts: Option<Duration>,
    /// Units that all SKUs began with.
    pub units: u64,
    /// Nothing is to be printed.
    pub quiet: bool,
}

/// Shows the run for ever; drop it to end the show.
pub async fn show(live: Live) {
    if live.quiet {
        return std::future::pending().await;
    }
    let terminal = std::io::stderr().is_terminal();
    let mut screen = terminal.then(|| Screen::open(&live));
    let mut tick = interval(if terminal { TICK } else { PLAIN_TICK });
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick.tick().await;
    loop {
        tick.tick().await;
        let elapsed = live.began.elapsed();
        if elapsed.is_zero() {
            continue;
        }
        let glance = live.recorder.glance(elapsed.as_secs());
        let left = live.recorder.stock_now().iter().map(|sample| sample.available).sum::<i64>();
        let sampled = !live.recorder.stock_now().is_empty();
        match &mut screen {
            Some(screen) => screen.draw(&live, elapsed, &glance, sampled.then_some(left)),
            None => println!("{}", plain(elapsed, &glance, sampled.then_some(left))),
        }
    }
}

/// What the recorder has: sums, and the last second that is over.
pub type Glance = (Counts, Option<Second>);

struct Screen {
    bars: MultiProgress,
    time: ProgressBar,
    latency: ProgressBar,
    outcomes: ProgressBar,
    stock: ProgressBar,
}

impl Screen {
    fn open(live: &Live) -> Self {
        let bars = MultiProgress::new();
        let add = |length: u64, template: &str| {
            let style = ProgressStyle::with_template(template).expect("these templates are valid");
            bars.add(ProgressBar::new(length).with_style(style.progress_chars("█▉ ")))
        };
        let seconds = live.lasts.map_or(0, |lasts| lasts.as_secs().max(1));
        let time = if seconds > 0 { "  time     {bar:32} {msg}" } else { "  time     {msg}" };
        Self {
            time: add(seconds, time),
            latency: add(0, "  latency  {msg}"),
            outcomes: add(0, "  heard    {msg}"),
            stock: add(live.units, "  stock    {bar:32} {msg}"),
            bars,
        }
    }

    fn draw(&mut self, live: &Live, elapsed: Duration, (sums, second): &Glance, left: Option<i64>) {
        let seconds = elapsed.as_secs_f64();
        let rate = second.as_ref().map_or(0, |second| second.counts.answers());
        let of = live.lasts.map_or(String::new(), |lasts| format!(" of {:.0} s", lasts.as_secs_f64()));
        self.time.set_position(elapsed.as_secs());
        self.time.set_message(format!("{seconds:.0} s{of}  {} answers  {}/s", count(sums.answers()), count(rate)));
        self.latency.set_message(second.as_ref().map_or("no answer yet".into(), latency));
        self.outcomes.set_message(outcomes(sums));
        let left_now = left.and_then(|left| u64::try_from(left).ok());
        match left_now {
            Some(left) => {
                self.stock.set_length(live.units.max(left));
                self.stock.set_position(left);
                self.stock.set_message(format!("{} of {} units left", count(left), count(live.units)));
            }
            None => self.stock.set_message("the shop does not say"),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The summary says it all again.
        let _ = self.bars.clear();
    }
}

fn latency(second: &Second) -> String {
    let at = |quantile| time(second.latency.value_at_quantile(quantile) as f64 / 1000.0);
    format!("p50 {}  p90 {}  p99 {}  max {}", at(0.5), at(0.9), at(0.99), time(second.latency.max() as f64 / 1000.0))
}

fn outcomes(counts: &Counts) -> String {
    let said = [("admitted", counts.admitted), ("created", counts.created), ("done", counts.done)];
    let said = said.into_iter().filter(|(_, n)| *n > 0).map(|(what, n)| format!("{what} {}", count(n)));
    let no = counts.refused.iter().map(|(why, n)| format!("{} {}", why.replace('_', " "), count(*n)));
    let nothing = counts.unknown.iter().map(|(why, n)| format!("{} {}", why.replace('_', " "), count(*n)));
    said.chain(no).chain(nothing).collect::<Vec<_>>().join("  ")
}

fn plain(elapsed: Duration, (sums, second): &Glance, left: Option<i64>) -> String {
    let rate = second.as_ref().map_or(0, |second| second.counts.answers());
    let latency = second.as_ref().map_or("no answer yet".into(), latency);
    let left = left.map_or(String::new(), |left| format!("  left {left}"));
    format!("  {:>4.0} s  {:>9}/s  {latency}  {}{left}", elapsed.as_secs_f64(), count(rate), outcomes(sums))
}

#[cfg(test)]
pub fn plain_for_tests(elapsed: Duration, glance: &Glance, left: Option<i64>) -> String {
    plain(elapsed, glance, left)
}
