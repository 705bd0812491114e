//! A scenario: what is on sale, who comes when, what buyers are like, what the order service is like, and what goes wrong.
//!
//! Written in TOML; docs/loadtest.md describes every field. Unknown fields are refused, and a bad value is named with its
//! field, because a scenario that silently tests something else is worse than none.

mod check;
mod ready;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;

pub use ready::READY;

/// See the module.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Given by the file's name.
    #[serde(skip)]
    pub name: String,
    /// One line for `rushline-loadtest scenarios`.
    #[serde(default)]
    pub about: String,
    /// What buyers' chances and Poisson's gaps follow from.
    #[serde(default = "one")]
    pub seed: u64,
    /// After the last arrival, buyers get this long to finish what they do.
    #[serde(default = "thirty")]
    pub patience_s: f64,
    #[serde(default)]
    pub work: Work,
    pub sale: Sale,
    #[serde(default)]
    pub order_service: OrderService,
    pub arrivals: Vec<Arrivals>,
    pub buyers: Vec<Manner>,
    #[serde(default)]
    pub events: Vec<Event>,
    /// As on the command line: `"stop orders at=3s for=2s"`.
    #[serde(default)]
    pub faults: Vec<String>,
    /// Where the scenario's file is: a trace is looked for beside it.
    #[serde(skip)]
    pub directory: PathBuf,
}

/// What one arrival asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// An order of the sale.
    #[default]
    Orders,
    /// A two-step saga whose steps call nobody. Only for targets that speak dtm's protocol.
    EmptySagas,
    /// A two-step saga with real calls.
    Sagas,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sale {
    /// Units of each SKU.
    pub units: u64,
    /// SKUs, named `sku-1` and so on.
    #[serde(default = "one")]
    pub skus: u64,
    #[serde(default)]
    pub limit_per_buyer: Option<u32>,
    #[serde(default)]
    pub durability: Option<String>,
    /// The window, after the run's beginning.
    #[serde(default)]
    pub opens_s: Option<f64>,
    #[serde(default)]
    pub closes_s: Option<f64>,
    /// An order is a reservation until it is paid or this time is over.
    #[serde(default)]
    pub reserve_for_s: Option<f64>,
}

/// The bundled order service's habits.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OrderService {
    /// Time that it takes for a call.
    pub delay_ms: u64,
    /// Of 100 orders, how many it refuses for good.
    pub refuse_percent: f64,
    /// Of 100 replies, how many are lost after the order was made.
    pub lose_replies_percent: f64,
    /// How the sale calls it.
    pub mode: String,
    pub max_concurrency: u32,
    pub timeout_ms: u64,
}

impl Default for OrderService {
    fn default() -> Self {
        Self {
            delay_ms: 0,
            refuse_percent: 0.0,
            lose_replies_percent: 0.0,
            mode: "single".into(),
            max_concurrency: 64,
            timeout_ms: 3000,
        }
    }
}

/// A phase of arrivals; see [`crate::engine::schedule::Phase`].
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Arrivals {
    Burst {
        buyers: u64,
        #[serde(default)]
        within_s: f64,
    },
    Constant {
        rate: f64,
        lasts_s: f64,
    },
    /// One rate after the other.
    Steps {
        rates: Vec<f64>,
        each_s: f64,
    },
    Ramp {
        from: f64,
        to: f64,
        lasts_s: f64,
    },
    Poisson {
        rate: f64,
        lasts_s: f64,
    },
    Pause {
        lasts_s: f64,
    },
    Trace {
        file: PathBuf,
        #[serde(default = "one_f")]
        speed: f64,
    },
    /// No schedule: as many buyers at once as there are connections, each one as soon as the one before is answered.
    Closed {
        buyers: u64,
    },
}

/// A manner that buyers have.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Manner {
    pub name: String,
    /// Share of this manner among all.
    pub weight: u32,
    /// Units in an order.
    pub quantity: u32,
    /// `sku-1`, or `*` for any.
    pub sku: String,
    /// A request without an answer for this long is given up, and asked again with the same key.
    pub patience_ms: u64,
    /// Requests with one key, at most.
    pub tries: u16,
    /// Before asking again: doubling from the first to the second; a server's `Retry-After` counts, up to the second.
    pub backoff_ms: [u64; 2],
    /// Time on the page before the order.
    pub think_ms: [u64; 2],
    /// Times that the button is pressed, with one key.
    pub clicks: u16,
    pub click_gap_ms: u64,
    /// Devices that order at the same time, each with a key of its own.
    pub devices: u16,
    /// A bot's accounts, each a buyer of its own.
    pub accounts: u32,
    pub account_gap_ms: u64,
    /// Of 100 first requests, how many lose their answer: the connection is cut, and the buyer asks again.
    pub lose_percent: f64,
    /// Of 100 buyers who have an answer, how many ask again all the same.
    pub repeat_percent: f64,
    /// Orders one after the other, each with a key of its own.
    pub orders: u16,
    pub order_gap_ms: [u64; 2],
    /// Losers: times that they come back, and after how long.
    pub come_back: u16,
    pub come_back_after_ms: [u64; 2],
    /// Asks what became of the order, this often at most; 0 is never.
    pub polls: u16,
    pub poll_ms: u64,
    /// The server may hold its answer this long until the order's end is known.
    pub wait_ms: u64,
    /// Of 100 buyers with an order: who pays (confirms), who cancels; the others do nothing.
    pub pay_percent: f64,
    pub pay_after_ms: [u64; 2],
    pub cancel_percent: f64,
    pub cancel_after_ms: [u64; 2],
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            name: String::new(),
            weight: 1,
            quantity: 1,
            sku: "sku-1".into(),
            patience_ms: 2000,
            tries: 20,
            backoff_ms: [50, 2000],
            think_ms: [0, 0],
            clicks: 1,
            click_gap_ms: 0,
            devices: 1,
            accounts: 1,
            account_gap_ms: 0,
            lose_percent: 0.0,
            repeat_percent: 0.0,
            orders: 1,
            order_gap_ms: [0, 0],
            come_back: 0,
            come_back_after_ms: [500, 1500],
            polls: 0,
            poll_ms: 200,
            wait_ms: 0,
            pay_percent: 0.0,
            pay_after_ms: [0, 0],
            cancel_percent: 0.0,
            cancel_after_ms: [0, 0],
        }
    }
}

/// What the shop's people do while it runs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    pub at_s: f64,
    /// Units to add to each SKU, or to the one named; negative withdraws.
    #[serde(default)]
    pub restock: Option<i64>,
    #[serde(default)]
    pub sku: Option<String>,
    /// `open`, `paused` or `closed`.
    #[serde(default)]
    pub status: Option<String>,
}

impl Scenario {
    /// The ready scenario of this name, or the file at this path.
    pub fn load(name: &str) -> anyhow::Result<Self> {
        if let Some((_, text)) = READY.iter().find(|(ready, _)| *ready == name) {
            return Self::parse(name, text, Path::new("."));
        }
        let path = Path::new(name);
        let known = || READY.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        let text = std::fs::read_to_string(path).with_context(|| {
            format!("there is no scenario `{name}`, and no such file\nhint: ready ones: {}", known())
        })?;
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("scenario");
        Self::parse(stem, &text, path.parent().unwrap_or(Path::new(".")))
            .with_context(|| format!("in {}", path.display()))
    }

    /// More or fewer of everybody and everything, at the same times.
    pub fn scale(&mut self, by: f64) {
        let times = |count: &mut u64| *count = (*count as f64 * by).ceil() as u64;
        times(&mut self.sale.units);
        for arrivals in &mut self.arrivals {
            match arrivals {
                Arrivals::Burst { buyers, .. } | Arrivals::Closed { buyers } => times(buyers),
                Arrivals::Constant { rate, .. } | Arrivals::Poisson { rate, .. } => *rate *= by,
                Arrivals::Steps { rates, .. } => rates.iter_mut().for_each(|rate| *rate *= by),
                Arrivals::Ramp { from, to, .. } => (*from, *to) = (*from * by, *to * by),
                Arrivals::Pause { .. } | Arrivals::Trace { .. } => {}
            }
        }
        for units in self.events.iter_mut().filter_map(|event| event.restock.as_mut()) {
            *units = (*units as f64 * by).round() as i64;
        }
    }

    pub fn parse(name: &str, text: &str, directory: &Path) -> anyhow::Result<Self> {
        let mut scenario: Self = toml::from_str(text)?;
        scenario.name = name.into();
        scenario.directory = directory.into();
        check::check(&scenario)?;
        Ok(scenario)
    }
}

/// Prints the ready scenarios.
pub fn list() {
    for (name, text) in READY {
        let about = Scenario::parse(name, text, Path::new(".")).map(|scenario| scenario.about);
        println!("{name:16} {}", about.unwrap_or_default());
    }
}

fn one() -> u64 {
    1
}

fn one_f() -> f64 {
    1.0
}

fn thirty() -> f64 {
    30.0
}

/// Seconds of a scenario; checked to be sane before.
pub fn seconds(s: f64) -> Duration {
    Duration::try_from_secs_f64(s).unwrap_or_default()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
