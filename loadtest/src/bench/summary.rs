//! The figures beside their floor and their goals: a table for eyes, target/bench/summary.json for programs.

use std::path::Path;

use anyhow::Context;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use serde_json::{Value, json};

use super::Bench;

/// What a figure is to be.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    /// At least this part of the floor.
    OfFloor(f64),
    AtLeast(f64),
    AtMost(f64),
    /// Between minus this and plus this.
    Within(f64),
    /// Measured to be known.
    None,
}

/// One measured number.
#[derive(Debug)]
pub struct Figure {
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
    pub goal: Goal,
    pub detail: String,
    /// The floor as it was just before and just after.
    pub floor_per_s: f64,
}

impl Figure {
    /// A figure whose floor is not known yet.
    pub fn new(name: impl Into<String>, value: f64, unit: &'static str, goal: Goal, detail: String) -> Self {
        Self { name: name.into(), value, unit, goal, detail, floor_per_s: f64::NAN }
    }

    /// Only a rate has a ratio to the floor.
    pub fn ratio(&self) -> Option<f64> {
        self.unit.ends_with("/s").then(|| self.value / self.floor_per_s)
    }

    pub fn holds(&self) -> bool {
        match self.goal {
            Goal::None => true,
            Goal::OfFloor(part) => self.value >= part * self.floor_per_s,
            Goal::AtLeast(least) => self.value >= least,
            Goal::AtMost(most) => self.value <= most,
            Goal::Within(most) => self.value.abs() <= most,
        }
    }

    fn goal_text(&self) -> String {
        match self.goal {
            Goal::OfFloor(part) => format!("≥ {part} B"),
            Goal::AtLeast(least) => format!("≥ {least:.0} {}", self.unit),
            Goal::AtMost(most) => format!("≤ {most} {}", self.unit),
            Goal::Within(most) => format!("± {most} {}", self.unit),
            Goal::None => "–".into(),
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "name": self.name, "value": self.value, "unit": self.unit, "ratio_to_floor": self.ratio(),
            "goal": self.goal_text(), "holds": self.holds(), "detail": self.detail,
        })
    }
}

/// All that one run measured.
pub struct Summary<'a> {
    commit: String,
    machine: String,
    quick: bool,
    floor_per_s: f64,
    floors: &'a [f64],
    figures: &'a [Figure],
}

impl<'a> Summary<'a> {
    pub async fn new(bench: &'a Bench, figures: &'a [Figure]) -> Self {
        Self {
            commit: commit().await,
            machine: machine(&bench.redis_version),
            quick: bench.settings.quick,
            floor_per_s: bench.floor_per_s(),
            floors: &bench.floors,
            figures,
        }
    }

    /// Writes the file and prints the table.
    pub fn publish(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(&self.to_json())?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        let (low, high) = self.floors.iter().fold((f64::MAX, 0.0_f64), |(low, high), &x| (low.min(x), high.max(x)));
        println!(
            "{}, commit {}{}",
            self.machine,
            self.commit,
            if self.quick { ", quick: not for figures" } else { "" }
        );
        println!(
            "floor B: {:.0} requests/s (median of {}, {low:.0} to {high:.0})",
            self.floor_per_s,
            self.floors.len()
        );
        println!("{}\n{}", self.table(), path.display());
        Ok(())
    }

    fn to_json(&self) -> Value {
        json!({
            "date": jiff::Timestamp::now().to_string(),
            "commit": self.commit,
            "machine": self.machine,
            "quick": self.quick,
            "floor_requests_per_s": self.floor_per_s,
            "floors": self.floors,
            "figures": self.figures.iter().map(|figure| figure.to_json()).collect::<Vec<_>>(),
        })
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(["figure", "value", "unit", "of the floor", "goal", "holds"]);
        let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        for figure in self.figures {
            let digits = if figure.value.abs() < 100.0 { 2 } else { 0 };
            table.add_row(vec![
                Cell::new(&figure.name),
                right(format!("{:.digits$}", figure.value)),
                Cell::new(figure.unit),
                right(figure.ratio().map_or("–".into(), |ratio| format!("{ratio:.3}"))),
                right(figure.goal_text()),
                Cell::new(if figure.holds() { "yes" } else { "NO" }),
            ]);
        }
        table
    }
}

fn machine(redis_version: &str) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpu_info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu_info.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or(std::env::consts::ARCH, |rest| rest.trim_start_matches([' ', '\t', ':']));
    format!("{cores} cores, {model}, Redis {redis_version}")
}

async fn commit() -> String {
    let output = tokio::process::Command::new("git").args(["rev-parse", "--short", "HEAD"]).output().await;
    let output = output.ok().filter(|output| output.status.success());
    let text = output.and_then(|output| String::from_utf8(output.stdout).ok());
    text.map_or("unknown".into(), |text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_holds_up_to_its_very_number() {
        let figure =
            |unit, value, goal| Figure { floor_per_s: 100.0, ..Figure::new("f", value, unit, goal, String::new()) };
        assert!(figure("orders/s", 45.0, Goal::OfFloor(0.45)).holds());
        assert!(!figure("orders/s", 44.9, Goal::OfFloor(0.45)).holds());
        assert!(figure("µs", 8.0, Goal::AtMost(8.0)).holds());
        assert!(!figure("%", -5.1, Goal::Within(5.0)).holds());
        assert_eq!(figure("µs", 8.0, Goal::AtMost(8.0)).to_json()["ratio_to_floor"], Value::Null);
        assert_eq!(figure("orders/s", 45.0, Goal::OfFloor(0.45)).to_json()["ratio_to_floor"], 0.45);
    }
}
