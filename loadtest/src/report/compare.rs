//! Two runs side by side: did it become better, and where.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use comfy_table::{Cell, CellAlignment, Table, presets::UTF8_FULL_CONDENSED};

use super::run::Run;
use super::summary::{count, time};
use super::{page, write};

/// Changes below this part are the machine's, not the program's.
const NOISE: f64 = 0.02;

#[derive(Debug, Args)]
pub struct Settings {
    /// run.json of the earlier run.
    a: PathBuf,
    /// run.json of the later one.
    b: PathBuf,
    /// Write an HTML page with both, drawn over one another.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Which way is better.
#[derive(Clone, Copy, PartialEq)]
enum Better {
    More,
    Less,
    Neither,
}

/// One line of the comparison.
struct Line {
    name: String,
    values: [f64; 2],
    better: Better,
    /// Milliseconds, or a number.
    text: fn(f64) -> String,
}

/// Prints the table. Exit code 0; what is worse is for the reader to judge.
pub fn run(settings: &Settings) -> anyhow::Result<ExitCode> {
    let runs = [Run::read(&settings.a)?, Run::read(&settings.b)?];
    print!("{}", text(&runs));
    if let Some(path) = &settings.html {
        write(path, &page::of(&[&runs[0], &runs[1]])?).context("the table above is all there is")?;
        println!("  page        {}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// All that is printed.
pub fn text(runs: &[Run; 2]) -> String {
    let [a, b] = runs;
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(["", &a.about.name, &b.about.name, "change", ""]);
    for line in lines(runs) {
        let [from, to] = line.values;
        let (change, word) = change(from, to, line.better);
        let cells = [(line.text)(from), (line.text)(to), change];
        let cells = cells.map(|text| Cell::new(text).set_alignment(CellAlignment::Right));
        table.add_row([Cell::new(&line.name)].into_iter().chain(cells).chain([Cell::new(word)]));
    }
    let mut out = format!("\n  {}  {} on {}  {}\n", a.about.name, a.about.scenario, a.about.target, a.date);
    out += &format!("  {}  {} on {}  {}\n\n", b.about.name, b.about.scenario, b.about.target, b.date);
    out += &format!("{table}\n");
    for run in runs {
        let verdict = run.verdict.to_string();
        out += &format!("  {}  {}\n", run.about.name, verdict.lines().next().unwrap_or_default());
        for warning in &run.about.warnings {
            out += &format!("  {}  ! {warning}\n", run.about.name);
        }
    }
    out + &differences(a, b)
}

/// Settings that are not the same: figures of different tasks say little.
fn differences(a: &Run, b: &Run) -> String {
    let mut pairs = vec![
        ("scenario", a.about.scenario.clone(), b.about.scenario.clone()),
        ("seed", a.about.seed.to_string(), b.about.seed.to_string()),
    ];
    let names = a.about.settings.keys().chain(b.about.settings.keys()).collect::<std::collections::BTreeSet<_>>();
    let of = |run: &Run, name: &String| run.about.settings.get(name).cloned().unwrap_or_else(|| "not set".into());
    pairs.extend(names.into_iter().map(|name| (name.as_str(), of(a, name), of(b, name))));
    for name in ["processor", "cores"] {
        let of = |run: &Run| run.machine.get(name).cloned().unwrap_or_default();
        pairs.push((name, of(a), of(b)));
    }
    let different = pairs.into_iter().filter(|(_, a, b)| a != b);
    different.map(|(name, a, b)| format!("  ! not the same {name}: {a} and {b}\n")).collect()
}

fn lines(runs: &[Run; 2]) -> Vec<Line> {
    let number: fn(f64) -> String = |value| count(value.round() as u64);
    let mut lines = Vec::new();
    let mut line = |name: &str, better, text, of: &dyn Fn(&Run) -> f64| {
        lines.push(Line { name: name.into(), values: [of(&runs[0]), of(&runs[1])], better, text });
    };
    line("requests/s", Better::More, number, &|run| run.requests_per_s);
    line("orders told/s", Better::More, number, &|run| run.orders_per_s);
    line("orders told", Better::Neither, number, &|run| run.orders_told as f64);
    for at in 0..runs[0].latency.named().len() {
        let name = format!("latency {}", runs[0].latency.named()[at].0);
        line(&name, Better::Less, time, &|run| run.latency.named()[at].1);
    }
    line("order made after, p50", Better::Less, time, &|run| run.order_made.p50);
    line("order made after, p99", Better::Less, time, &|run| run.order_made.p99);
    line("schedule error p99", Better::Neither, time, &|run| run.schedule_error.p99);
    line("no answer", Better::Less, number, &|run| run.counts.unknown.values().sum::<u64>() as f64);
    line("violations", Better::Less, number, &|run| {
        run.verdict.charges.values().map(|count| count.cases).sum::<u64>() as f64
    });
    lines
}

/// The change in words.
fn change(from: f64, to: f64, better: Better) -> (String, &'static str) {
    if from == 0.0 {
        let word = match better {
            _ if to == 0.0 => "",
            Better::More => "better",
            Better::Less => "worse",
            Better::Neither => "",
        };
        return ("–".into(), word);
    }
    let part = (to - from) / from;
    let grown = part > 0.0;
    let word = match better {
        Better::Neither => "",
        _ if part.abs() < NOISE => "",
        Better::More if grown => "better",
        Better::Less if !grown => "better",
        _ => "worse",
    };
    (format!("{:+.1}%", part * 100.0), word)
}
