//! A trace: what really came once, to be replayed. One arrival a line: `seconds[,buyer[,quantity]]`, ascending.
//!
//! Lines that are empty or begin with `#` are left out, and so is a first line without numbers (a table's head).

use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::ledger::Micros;

/// Arrivals in one trace: a day at 1,000 a second would be 86 million; this is what fits in memory.
const ARRIVALS_MAX: usize = 50_000_000;

/// What a trace says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Trace {
    pub at_us: Vec<Micros>,
    /// Who came and for how many, where the trace says so; as many as `at_us`.
    pub who: Vec<Who>,
}

/// One arrival's own wishes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Who {
    pub buyer: Option<u32>,
    pub quantity: Option<u32>,
}

impl Trace {
    /// Reads a trace; `speed` 2 replays it in half of the time. The first arrival is at 0, whatever its time.
    pub fn parse(text: &str, speed: f64) -> anyhow::Result<Self> {
        let mut trace = Self::default();
        let (mut first, mut last) = (None, f64::NEG_INFINITY);
        for (line, row) in text.lines().enumerate().map(|(at, row)| (at + 1, row.trim())) {
            if row.is_empty() || row.starts_with('#') {
                continue;
            }
            let mut columns = row.split(',').map(str::trim);
            let seconds = columns.next().unwrap_or_default();
            let seconds: f64 = match seconds.parse() {
                Ok(seconds) => seconds,
                Err(_) if line == 1 => continue,
                Err(_) => bail!("line {line}: `{seconds}` is no time in seconds"),
            };
            ensure!(seconds.is_finite() && seconds >= last, "line {line}: {seconds} comes before the line above it");
            last = seconds;
            let offset = (seconds - *first.get_or_insert(seconds)) / speed;
            let at = Duration::try_from_secs_f64(offset).with_context(|| format!("line {line}"))?;
            trace.at_us.push(u64::try_from(at.as_micros()).unwrap_or(u64::MAX));
            trace.who.push(Who {
                buyer: number(columns.next()).with_context(|| format!("line {line}: the buyer's number"))?,
                quantity: number(columns.next()).with_context(|| format!("line {line}: the quantity"))?,
            });
            ensure!(trace.at_us.len() <= ARRIVALS_MAX, "more than {ARRIVALS_MAX} arrivals");
        }
        ensure!(!trace.at_us.is_empty(), "no arrivals in it");
        let named = trace.who.iter().filter(|who| who.buyer.is_some()).count();
        ensure!(named == 0 || named == trace.who.len(), "some lines name their buyer and some do not");
        Ok(trace)
    }
}

fn number(column: Option<&str>) -> anyhow::Result<Option<u32>> {
    let text = column.unwrap_or_default();
    if text.is_empty() {
        return Ok(None);
    }
    Ok(Some(text.parse().with_context(|| format!("`{text}`"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_says_when_who_and_how_many() {
        let trace = Trace::parse("seconds,buyer,quantity\n# quiet\n100.5,9\n100.75,7\n\n101.5,7,2\n", 1.0).unwrap();
        assert_eq!(trace.at_us, [0, 250_000, 1_000_000]);
        assert_eq!(trace.who[0], Who { buyer: Some(9), quantity: None });
        assert_eq!(trace.who[1], Who { buyer: Some(7), quantity: None });
        assert_eq!(trace.who[2], Who { buyer: Some(7), quantity: Some(2) });
        assert_eq!(Trace::parse("1\n3\n", 4.0).unwrap().at_us, [0, 500_000], "four times as fast");
    }

    #[test]
    fn what_is_wrong_in_a_trace_is_named_with_its_line() {
        let error = |text| format!("{:#}", Trace::parse(text, 1.0).unwrap_err());
        assert_eq!(error("1\n0.5\n"), "line 2: 0.5 comes before the line above it");
        assert_eq!(error("1\nsoon\n"), "line 2: `soon` is no time in seconds");
        assert!(error("1,ann\n").starts_with("line 1: the buyer's number: `ann`"));
        assert_eq!(error("# nothing\n"), "no arrivals in it");
        assert_eq!(error("1,7\n2\n"), "some lines name their buyer and some do not");
    }
}
