//! What a run was like, for people and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::{Command, ExitCode};

use serde::Serialize;

use super::faults::Done;
use super::plan::{Means, Round, Sale, Store};
use super::world::Programs;
use crate::oracle::{Verdict, Word};

/// Scripts in Redis, by its slow log.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub struct Slow {
    pub longest_us: u64,
    pub over_5_ms: u64,
}

/// A round that is over.
#[derive(Debug, Serialize)]
pub struct Ended {
    pub number: u32,
    pub nodes: usize,
    pub store: Store,
    pub sale: Sale,
    pub clocks: bool,
    pub took_s: u64,
    pub kills: u64,
    pub sleeps: u64,
    pub faults: BTreeMap<String, u64>,
    /// Global transactions.
    pub transactions: u64,
    pub succeeded: u64,
    pub slow: Slow,
    /// The oracle's, on the orders.
    pub verdict: Verdict,
    /// What else is wrong.
    pub wrong: Vec<String>,
}

impl Ended {
    pub fn new(round: &Round, done: Done) -> Self {
        Self {
            number: round.number,
            nodes: round.nodes,
            store: round.store,
            sale: round.sale,
            clocks: round.clocks,
            took_s: 0,
            kills: done.kills,
            sleeps: done.sleeps,
            faults: done.faults,
            transactions: 0,
            succeeded: 0,
            slow: Slow::default(),
            verdict: Verdict::default(),
            wrong: Vec::new(),
        }
    }

    fn orders(&self) -> u64 {
        self.verdict.looked_at.get("orders that stand").copied().unwrap_or(0)
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.is_clean() { "✓" } else { "✗" };
        let faults: u64 = self.faults.values().sum();
        write!(
            f,
            "{mark} round {:3}  {:3} s  {} nodes, {}, {}{}  {faults:2} faults, {:2} kills  {:4} orders, {:3} transactions",
            self.number,
            self.took_s,
            self.nodes,
            word(&self.store),
            word(&self.sale),
            if self.clocks { ", clocks" } else { "" },
            self.kills,
            self.orders(),
            self.transactions,
        )?;
        if !self.is_clean() {
            write!(f, "\n{}", self.verdict)?;
            self.wrong.iter().try_for_each(|wrong| writeln!(f, "  ✗ {wrong}"))?;
        }
        Ok(())
    }
}

/// All rounds.
#[derive(Debug, Serialize)]
pub struct Summary {
    pub seed: u64,
    pub date: String,
    pub versions: BTreeMap<String, String>,
    pub means: Means,
    pub kills: u64,
    pub sleeps: u64,
    pub faults: BTreeMap<String, u64>,
    pub orders: u64,
    pub answers: u64,
    pub transactions: u64,
    pub slow: Slow,
    pub rounds: Vec<Ended>,
}

impl Summary {
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            date: jiff::Zoned::now().date().to_string(),
            versions: BTreeMap::new(),
            means: Means::default(),
            kills: 0,
            sleeps: 0,
            faults: BTreeMap::new(),
            orders: 0,
            answers: 0,
            transactions: 0,
            slow: Slow::default(),
            rounds: Vec::new(),
        }
    }

    pub fn add(&mut self, ended: Ended) {
        self.kills += ended.kills;
        self.sleeps += ended.sleeps;
        self.orders += ended.orders();
        self.answers += ended.verdict.looked_at.get("answers").copied().unwrap_or(0);
        self.transactions += ended.transactions;
        self.slow.longest_us = self.slow.longest_us.max(ended.slow.longest_us);
        self.slow.over_5_ms += ended.slow.over_5_ms;
        for (name, count) in &ended.faults {
            *self.faults.entry(name.clone()).or_default() += count;
        }
        self.rounds.push(ended);
    }

    /// That of the worst round.
    pub fn exit_code(&self) -> ExitCode {
        let violated = |ended: &Ended| ended.verdict.word() == Word::Violated || !ended.wrong.is_empty();
        ExitCode::from(match &self.rounds[..] {
            rounds if rounds.iter().any(violated) => 3,
            rounds if rounds.is_empty() || rounds.iter().any(|ended| !ended.is_clean()) => 2,
            _ => 0,
        })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clean = self.rounds.iter().filter(|ended| ended.is_clean()).count();
        let seconds: u64 = self.rounds.iter().map(|ended| ended.took_s).sum();
        writeln!(f, "\nseed {}, {clean} of {} rounds clean, {} min", self.seed, self.rounds.len(), seconds / 60)?;
        writeln!(f, "  killed       {} processes; put to sleep {}", self.kills, self.sleeps)?;
        writeln!(
            f,
            "  looked at    {} orders, {} answers, {} global transactions",
            self.orders, self.answers, self.transactions
        )?;
        let Slow { longest_us, over_5_ms } = self.slow;
        writeln!(
            f,
            "  scripts      longest {:.1} ms, {over_5_ms} over 5 ms, by the wall clock",
            longest_us as f64 / 1e3
        )?;
        let versions: Vec<String> = self.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        writeln!(f, "  versions     {}", versions.join(", "))?;
        for (name, count) in &self.faults {
            writeln!(f, "  {count:5}  {name}")?;
        }
        Ok(())
    }
}

fn word(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// What was tried, by name.
pub fn versions(programs: &Programs) -> BTreeMap<String, String> {
    let mut versions = BTreeMap::new();
    let redis = |program: &Path| {
        let said = said(program, &["--version"])?;
        let version = said.split_whitespace().find_map(|word| word.strip_prefix("v="))?;
        Some(version.to_owned())
    };
    let mut note =
        |name: &str, version: Option<String>| version.map(|version| versions.insert(name.to_owned(), version));
    note("Redis", redis(&programs.redis));
    note("Redis with WAITAOF", programs.redis_waitaof.as_deref().and_then(redis));
    note("rushline", said(&programs.rushline, &["--version"]).map(|said| said.trim().replace("rushline ", "")));
    let commit = said(Path::new("git"), &["rev-parse", "--short", "HEAD"]);
    note("commit", commit.map(|commit| commit.trim().to_owned()).filter(|commit| !commit.is_empty()));
    note("Linux", said(Path::new("uname"), &["-r"]).map(|said| said.trim().to_owned()));
    versions
}

fn said(program: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
