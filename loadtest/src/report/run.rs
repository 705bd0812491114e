//! Everything about one run, as it is written to JSON and read back by `compare`.

use std::collections::{BTreeMap, HashMap};

use anyhow::Context;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::ledger::{Counts, Kind, Ledger, Micros, Outcome, ServiceAnswer, StockSample};
use crate::oracle::Verdict;

/// Changes when a reader of older files would be misled.
pub const FORM: u32 = 1;
/// Points of a percentile curve between two powers of ten of the rest: 1 - q.
const CURVE_STEPS: u32 = 10;
/// A run up to this is shown by tenths of a second.
const SHORT_US: Micros = 20_000_000;
/// Samples of the stock that are kept for the plot, of each SKU.
const STOCK_SAMPLES_MAX: usize = 2_000;

/// What the run was, in words of whoever started it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// Names the directory of the raw results, and the columns of a comparison.
    pub name: String,
    pub scenario: String,
    /// One sentence.
    #[serde(default)]
    pub about: String,
    pub target: String,
    #[serde(default)]
    pub seed: u64,
    /// Whatever else makes a difference: connections, scale, faults …
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// What makes the figures doubtful: a debug build, a machine that was late.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// One run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    pub form: u32,
    pub about: About,
    /// RFC 3339, when it ended.
    pub date: String,
    pub machine: BTreeMap<String, String>,
    /// From the beginning to the last answer.
    pub duration_s: f64,
    /// Answers, and waits in vain.
    pub requests: u64,
    pub requests_per_s: f64,
    /// Orders that buyers heard yes to, each once.
    pub orders_told: u64,
    pub orders_per_s: f64,
    pub counts: Counts,
    /// From the intended time to the answer, of all requests.
    pub latency: Distribution,
    /// The same, of orders only, by what they heard.
    pub latency_of: BTreeMap<String, Distribution>,
    /// From the intended time until the request left: the harness's own lateness.
    pub schedule_error: Distribution,
    /// From the intended time until the order service had made the order.
    pub order_made: Distribution,
    /// Seconds that one slice lasts: 1, or 0.1 in a short run.
    pub slice_s: f64,
    pub slices: Vec<Slice>,
    pub stock: Vec<StockSample>,
    pub order_service: Service,
    pub verdict: Verdict,
}

/// A distribution of times, in milliseconds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Distribution {
    pub count: u64,
    pub mean: f64,
    pub min: f64,
    pub p50: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
    pub p999: f64,
    pub p9999: f64,
    pub max: f64,
    /// Quantile and milliseconds, closer and closer to 1.
    #[serde(default)]
    pub curve: Vec<(f64, f64)>,
}

/// A part of the run: what was answered in it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Slice {
    /// When it begins.
    pub at_s: f64,
    pub counts: Counts,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
    /// Orders that the order service made in it.
    pub made: u64,
}

/// The order service's side.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Service {
    /// Orders in calls, repeats included.
    pub calls: u64,
    pub made: u64,
    pub again: u64,
    pub refused: u64,
    pub lost_replies: u64,
}

impl Distribution {
    pub fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let at = |quantile| millis(histogram.value_at_quantile(quantile));
        Self {
            count: histogram.len(),
            mean: histogram.mean() / 1000.0,
            min: millis(histogram.min()),
            p50: at(0.5),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: millis(histogram.max()),
            curve: curve(histogram),
        }
    }

    /// Names and values, as summaries show them.
    pub fn named(&self) -> [(&'static str, f64); 7] {
        let Self { mean, p50, p90, p99, p999, p9999, max, .. } = *self;
        [("mean", mean), ("p50", p50), ("p90", p90), ("p99", p99), ("p99.9", p999), ("p99.99", p9999), ("max", max)]
    }
}

/// Quantiles spaced evenly by the logarithm of what is above them, as far as there are values.
fn curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    let mut points = Vec::new();
    for step in 0.. {
        let above = 10f64.powf(-f64::from(step) / f64::from(CURVE_STEPS));
        if above * (histogram.len() as f64) < 1.0 {
            break;
        }
        points.push((1.0 - above, millis(histogram.value_at_quantile(1.0 - above))));
    }
    points.push((1.0 - 1.0 / (histogram.len() as f64 + 1.0), millis(histogram.max())));
    points
}

fn millis(us: u64) -> f64 {
    us as f64 / 1000.0
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("these bounds are valid")
}

impl Run {
    pub fn new(about: About, ledger: &Ledger, verdict: Verdict) -> Self {
        let told = Told::gather(ledger);
        let duration_s = told.last_us.max(1) as f64 / 1e6;
        // A flash sale is over in seconds; by whole ones there would be nothing to see.
        let short = told.last_us <= SHORT_US && ledger.left_out() == 0;
        let slice_us = if short { 100_000 } else { 1_000_000 };
        let requests = ledger.counts.answers();
        let mut warnings = about.warnings.clone();
        let schedule_error = Distribution::of(&ledger.lateness);
        if cfg!(debug_assertions) {
            warnings.push("a debug build: its figures mean nothing (cargo build --release --workspace)".into());
        }
        if schedule_error.p99 > 1.0 {
            warnings.push(format!(
                "the harness itself was late: p99 {:.2} ms after the intended time; latencies contain it",
                schedule_error.p99
            ));
        }
        Self {
            form: FORM,
            about: About { warnings, ..about },
            date: jiff::Timestamp::now().round(jiff::Unit::Second).unwrap_or_default().to_string(),
            machine: machine(),
            duration_s,
            requests,
            requests_per_s: requests as f64 / duration_s,
            orders_told: told.orders,
            orders_per_s: told.orders as f64 / duration_s,
            counts: ledger.counts.clone(),
            latency: Distribution::of(&ledger.latency),
            latency_of: told.latency.iter().map(|(what, of)| ((*what).into(), Distribution::of(of))).collect(),
            schedule_error,
            order_made: Distribution::of(&told.made),
            slice_s: slice_us as f64 / 1e6,
            slices: slices(ledger, slice_us),
            stock: thinned(&ledger.stock),
            order_service: Service::of(ledger),
            verdict,
        }
    }

    pub fn to_json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string(self)?)
    }

    /// Reads a file that [`Run::to_json`] made.
    pub fn read(path: &std::path::Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let form: Form = serde_json::from_str(&text)
            .with_context(|| format!("{} is no run: `rushline-loadtest run --json FILE` writes one", path.display()))?;
        anyhow::ensure!(
            form.form == FORM,
            "{} is of form {}, and this program reads form {FORM}\nhint: compare with the program that made it",
            path.display(),
            form.form
        );
        serde_json::from_str(&text).with_context(|| format!("{} is of form {FORM} and incomplete", path.display()))
    }
}

#[derive(Deserialize)]
struct Form {
    form: u32,
}

/// What one pass over all answers gives.
struct Told {
    last_us: Micros,
    orders: u64,
    latency: BTreeMap<&'static str, Histogram<u64>>,
    made: Histogram<u64>,
}

impl Told {
    fn gather(ledger: &Ledger) -> Self {
        let mut made_us: HashMap<&str, Micros> = HashMap::new();
        for call in ledger.called.iter().filter(|call| matches!(call.answer, ServiceAnswer::Made | ServiceAnswer::Lost))
        {
            if matches!(&*call.op, "action" | "try") {
                made_us.insert(&call.gid, call.answered_us);
            }
        }
        let mut first_asked: HashMap<&str, Micros> = HashMap::new();
        let (mut last_us, mut latency) = (0, BTreeMap::new());
        for told in ledger.told() {
            last_us = last_us.max(told.answered_us);
            let what = match (told.kind, told.outcome) {
                (Kind::Order, Outcome::Refused { .. }) => "refused",
                (Kind::Order, Outcome::Unknown { .. }) => "unanswered",
                (Kind::Order, _) => "ordered",
                (Kind::Confirm, _) => "confirms",
                (Kind::Cancel, _) => "cancels",
                (Kind::Poll, _) => "polls",
            };
            latency.entry(what).or_insert_with(histogram).saturating_record(told.latency_us());
            if let (Kind::Order, Some(gid)) = (told.kind, told.gid()) {
                let first = first_asked.entry(gid).or_insert(told.intended_us);
                *first = (*first).min(told.intended_us);
            }
        }
        // Of more than the ledger holds only the seconds are known.
        last_us = last_us.max(ledger.seconds.last().map_or(0, |second| second.second * 1_000_000));
        let mut made = histogram();
        for (gid, asked_us) in &first_asked {
            if let Some(at) = made_us.get(gid) {
                made.saturating_record(at.saturating_sub(*asked_us));
            }
        }
        Self { last_us, orders: first_asked.len() as u64, latency, made }
    }
}

fn slices(ledger: &Ledger, slice_us: u64) -> Vec<Slice> {
    let mut slices: BTreeMap<u64, Slice> = BTreeMap::new();
    let new = |number: u64| Slice { at_s: (number * slice_us) as f64 / 1e6, ..Slice::default() };
    if slice_us == 1_000_000 {
        for second in &ledger.seconds {
            slices.insert(second.second, slice(new(second.second), second.counts.clone(), &second.latency));
        }
    } else {
        let mut parts: BTreeMap<u64, (Counts, Histogram<u64>)> = BTreeMap::new();
        for told in ledger.told() {
            let (counts, latency) =
                parts.entry(told.answered_us / slice_us).or_insert_with(|| (Counts::default(), histogram()));
            counts.note(told.outcome, told.replayed);
            latency.saturating_record(told.latency_us());
        }
        slices.extend(parts.into_iter().map(|(n, (counts, latency))| (n, slice(new(n), counts, &latency))));
    }
    for call in ledger.called.iter().filter(|call| matches!(call.answer, ServiceAnswer::Made | ServiceAnswer::Lost)) {
        if matches!(&*call.op, "action" | "try") {
            let number = call.answered_us / slice_us;
            slices.entry(number).or_insert_with(|| new(number)).made += 1;
        }
    }
    slices.into_values().collect()
}

fn slice<C: hdrhistogram::Counter>(empty: Slice, counts: Counts, latency: &Histogram<C>) -> Slice {
    let at = |quantile| millis(latency.value_at_quantile(quantile));
    Slice { counts, p50: at(0.5), p90: at(0.9), p99: at(0.99), max: millis(latency.max()), ..empty }
}

/// At most so many samples of each SKU, evenly over the run, the last included.
fn thinned(samples: &[StockSample]) -> Vec<StockSample> {
    let mut by_sku: BTreeMap<&str, Vec<&StockSample>> = BTreeMap::new();
    samples.iter().for_each(|sample| by_sku.entry(&sample.sku).or_default().push(sample));
    let thin = |samples: Vec<&StockSample>| -> Vec<StockSample> {
        let step = samples.len().div_ceil(STOCK_SAMPLES_MAX).max(1);
        let kept = samples.iter().rev().step_by(step);
        let mut kept: Vec<StockSample> = kept.map(|sample| (*sample).clone()).collect();
        kept.reverse();
        kept
    };
    by_sku.into_values().flat_map(thin).collect()
}

impl Service {
    fn of(ledger: &Ledger) -> Self {
        let mut service = Self { calls: ledger.called.len() as u64, ..Self::default() };
        for call in ledger.called.iter().filter(|call| matches!(&*call.op, "action" | "try")) {
            match call.answer {
                ServiceAnswer::Made => service.made += 1,
                ServiceAnswer::Again => service.again += 1,
                ServiceAnswer::Refused => service.refused += 1,
                ServiceAnswer::Lost => {
                    service.made += 1;
                    service.lost_replies += 1;
                }
                ServiceAnswer::NotNow => {}
            }
        }
        service
    }
}

/// What figures depend on, as far as the system says.
fn machine() -> BTreeMap<String, String> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let mut machine = BTreeMap::from([
        ("cores".to_owned(), cores.to_string()),
        ("system".into(), format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
    ]);
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    if let Some((_, model)) = model {
        machine.insert("processor".into(), model.trim().into());
    }
    if let Ok(kernel) = std::fs::read_to_string("/proc/sys/kernel/osrelease") {
        machine.insert("kernel".into(), kernel.trim().into());
    }
    machine
}
