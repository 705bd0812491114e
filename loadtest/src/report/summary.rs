//! The end of a run, for eyes: the verdict first, then figures, as k6 and oha show them.

use std::fmt::Write;

use super::run::{Distribution, Run};

/// Columns of the longest bar.
const BAR: usize = 32;
/// Where values begin.
const LABEL: usize = 22;

/// All lines, each ended.
pub fn of(run: &Run) -> String {
    let mut out = String::new();
    // Writing to memory does not fail.
    let _ = write(&mut out, run);
    out
}

fn write(out: &mut String, run: &Run) -> std::fmt::Result {
    let about = &run.about;
    let machine = run.machine.get("processor").map_or("an unknown processor", String::as_str);
    let cores = run.machine.get("cores").map_or("?", String::as_str);
    writeln!(out, "\n  {} on {}", about.scenario, about.target)?;
    if !about.about.is_empty() {
        writeln!(out, "  {}", about.about)?;
    }
    writeln!(out, "  {} · seed {} · {cores} cores of {machine}\n", run.date, about.seed)?;
    for line in run.verdict.to_string().lines() {
        writeln!(out, "  {line}")?;
    }
    about.warnings.iter().try_for_each(|warning| writeln!(out, "  ! {warning}"))?;
    writeln!(out)?;

    line(
        out,
        "requests",
        &format!("{}  in {:.1} s  {:.0}/s", count(run.requests), run.duration_s, run.requests_per_s),
    )?;
    let made = format!(
        "{} made, {} refused by the order service",
        count(run.order_service.made),
        count(run.order_service.refused)
    );
    line(out, "orders", &format!("{} told, {made}  {:.0}/s", count(run.orders_told), run.orders_per_s))?;
    if run.order_service.again > 0 {
        line(out, "called again", &format!("{} orders that the service had made", count(run.order_service.again)))?;
    }
    spread(out, "latency", &run.latency)?;
    for (what, latency) in &run.latency_of {
        spread(out, &format!("  {what}"), latency)?;
    }
    spread(out, "order made after", &run.order_made)?;
    spread(out, "schedule error", &run.schedule_error)?;
    outcomes(out, run)?;
    histogram(out, &run.latency)?;
    percentiles(out, &run.latency)
}

/// `name......: value`, as k6 has it.
fn line(out: &mut String, name: &str, value: &str) -> std::fmt::Result {
    writeln!(out, "  {:.<LABEL$}: {value}", format!("{name} "))
}

fn spread(out: &mut String, name: &str, of: &Distribution) -> std::fmt::Result {
    if of.count == 0 {
        return Ok(());
    }
    let parts: Vec<String> = of.named().iter().map(|(name, ms)| format!("{name}={}", time(*ms))).collect();
    line(out, name, &parts.join("  "))
}

fn outcomes(out: &mut String, run: &Run) -> std::fmt::Result {
    let all = outcomes_of(run);
    let most = all.iter().map(|(_, n)| *n).max().unwrap_or(0).max(1);
    writeln!(out, "\n  Outcomes")?;
    for (what, n) in &all {
        let part = 100.0 * *n as f64 / run.requests.max(1) as f64;
        writeln!(out, "  {what:>LABEL$} {:>11} {part:>5.1}%  {}", count(*n), bar(*n, most))?;
    }
    Ok(())
}

/// What was heard, most important first.
pub fn outcomes_of(run: &Run) -> Vec<(String, u64)> {
    let counts = &run.counts;
    let said = [("admitted", counts.admitted), ("created", counts.created), ("confirmed or cancelled", counts.done)];
    let said = said.into_iter().filter(|(_, n)| *n > 0).map(|(what, n)| (what.to_owned(), n));
    let refused = counts.refused.iter().map(|(why, n)| (why.replace('_', " "), *n));
    let unknown = counts.unknown.iter().map(|(why, n)| (format!("? {}", why.replace('_', " ")), *n));
    said.chain(refused).chain(unknown).collect()
}

/// Latencies in ten steps, from the curve: how many lie in each.
fn histogram(out: &mut String, of: &Distribution) -> std::fmt::Result {
    if of.count == 0 {
        return Ok(());
    }
    writeln!(out, "\n  Latency histogram")?;
    // Up to p99.9, since one late answer would flatten all others.
    let (low, high) = (of.min, of.p999.max(of.min + 0.001));
    let steps: Vec<f64> = (1..=10).map(|n| low + (high - low) * f64::from(n) / 10.0).collect();
    let below: Vec<f64> = steps.iter().map(|ms| part_below(of, *ms)).collect();
    let parts: Vec<u64> = (0..10)
        .map(|n| {
            let part = below[n] - if n == 0 { 0.0 } else { below[n - 1] };
            (part * of.count as f64).round() as u64
        })
        .collect();
    let most = parts.iter().copied().max().unwrap_or(0).max(1);
    for (ms, n) in steps.iter().zip(&parts) {
        writeln!(out, "  {:>LABEL$} {:>11}  {}", format!("≤ {}", time(*ms)), count(*n), bar(*n, most))?;
    }
    Ok(())
}

/// The part of all values that is at most `ms`, by the points of the curve.
fn part_below(of: &Distribution, ms: f64) -> f64 {
    let at = of.curve.partition_point(|(_, value)| *value <= ms);
    match (at.checked_sub(1).map(|at| of.curve[at]), of.curve.get(at)) {
        (Some((part, value)), Some((next_part, next))) if next > &value => {
            part + (next_part - part) * (ms - value) / (next - value)
        }
        (Some((part, _)), _) => part,
        (None, _) => 0.0,
    }
}

fn percentiles(out: &mut String, of: &Distribution) -> std::fmt::Result {
    if of.count == 0 {
        return Ok(());
    }
    writeln!(out, "\n  Latency distribution")?;
    let all =
        [("50%", of.p50), ("90%", of.p90), ("95%", of.p95), ("99%", of.p99), ("99.9%", of.p999), ("99.99%", of.p9999)];
    all.iter().try_for_each(|(name, ms)| writeln!(out, "  {name:>LABEL$} in {}", time(*ms)))?;
    writeln!(out)
}

fn bar(n: u64, most: u64) -> String {
    let columns = (n as f64 / most as f64 * BAR as f64).round() as usize;
    // What happened at all is to be seen.
    "■".repeat(if n > 0 { columns.max(1) } else { 0 })
}

/// A time with as many digits as matter.
pub fn time(ms: f64) -> String {
    match ms {
        ms if ms >= 10_000.0 => format!("{:.1}s", ms / 1000.0),
        ms if ms >= 1000.0 => format!("{:.2}s", ms / 1000.0),
        ms if ms >= 100.0 => format!("{ms:.0}ms"),
        ms if ms >= 10.0 => format!("{ms:.1}ms"),
        ms if ms >= 1.0 => format!("{ms:.2}ms"),
        ms => format!("{:.0}µs", ms * 1000.0),
    }
}

/// A number with its thousands apart.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let parts: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|part| std::str::from_utf8(part).expect("digits are ASCII")).collect();
    parts.join(",")
}
