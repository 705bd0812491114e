//! What the oracle says: clean, violated or undecided, with evidence that a person can follow up.

use std::collections::BTreeMap;
use std::fmt;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use crate::ledger::Micros;

/// Of each charge, this much evidence is kept in words; the rest is only counted.
pub const EVIDENCE_MAX: usize = 10;

/// What a shop can be guilty of. docs/oracle.md defines each exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Charge {
    /// More units are promised or sold than were on sale.
    Oversold,
    /// A buyer heard `sold_out` while units were certainly there.
    Undersold,
    /// A buyer heard yes, and there is no order.
    Lost,
    /// There is an order, and its buyer heard no, or nothing and cannot learn of it.
    Ghost,
    /// One request became two orders.
    Double,
    /// Two requests were given one order.
    SharedGid,
    /// A buyer has more units than the limit.
    LimitBroken,
    /// A buyer heard `limit_reached` and was certainly below it.
    LimitMisjudged,
    /// The same request was answered otherwise than before.
    ReplayDiffers,
    /// A key was accepted for two different orders.
    KeyReused,
    /// Sold outside the window, or refused inside it.
    WindowBroken,
    /// The order service got another buyer, SKU or quantity than the buyer asked for.
    WrongOrder,
    /// The buyer's cancel was accepted, and the order stands.
    CancelledKept,
    /// The buyer's confirm was accepted, and the order does not stand.
    ConfirmedReleased,
    /// A reservation outlived its deadline.
    ExpiredKept,
    /// The shop's own audit does not add up, or not with the order service.
    BooksDiffer,
}

impl Charge {
    #[cfg(test)]
    pub const ALL: [Self; 16] = [
        Self::Oversold,
        Self::Undersold,
        Self::Lost,
        Self::Ghost,
        Self::Double,
        Self::SharedGid,
        Self::LimitBroken,
        Self::LimitMisjudged,
        Self::ReplayDiffers,
        Self::KeyReused,
        Self::WindowBroken,
        Self::WrongOrder,
        Self::CancelledKept,
        Self::ConfirmedReleased,
        Self::ExpiredKept,
        Self::BooksDiffer,
    ];

    /// As in JSON, with spaces.
    pub fn name(self) -> String {
        let name = serde_json::to_value(self).expect("a unit variant is a string");
        name.as_str().unwrap_or_default().replace('_', " ")
    }
}

/// One case of a charge.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Evidence {
    /// When it showed.
    pub at_us: Micros,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buyer: Option<String>,
    pub what: String,
}

impl Evidence {
    pub fn new(at_us: Micros, what: impl Into<String>) -> Self {
        Self { at_us, gid: None, buyer: None, what: what.into() }
    }

    pub fn gid(mut self, gid: &str) -> Self {
        self.gid = Some(gid.into());
        self
    }

    pub fn buyer(mut self, buyer: impl Into<String>) -> Self {
        self.buyer = Some(buyer.into());
        self
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", seconds(self.at_us))?;
        for (name, value) in [("order", &self.gid), ("buyer", &self.buyer)] {
            if let Some(value) = value {
                write!(f, "  {name} {value}")?;
            }
        }
        write!(f, "  {}", self.what)
    }
}

/// A time of the run, as evidence names it.
pub fn seconds(at_us: Micros) -> String {
    format!("{}.{:06} s", at_us / 1_000_000, at_us % 1_000_000)
}

/// How often something happened, and the first of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Count {
    pub cases: u64,
    pub evidence: Vec<Evidence>,
}

/// In one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    Clean,
    Violated,
    Undecided,
}

/// The whole verdict on a run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Verdict {
    pub charges: BTreeMap<Charge, Count>,
    /// What could not be judged, and why.
    pub not_judged: Vec<String>,
    /// What is worth knowing and nobody's fault.
    pub notes: Vec<String>,
    /// How much was looked at, by what it is. A clean verdict on nothing would be no verdict.
    pub looked_at: BTreeMap<String, u64>,
}

impl Verdict {
    pub fn charge(&mut self, charge: Charge, evidence: Evidence) {
        let count = self.charges.entry(charge).or_default();
        count.cases += 1;
        // The earliest cases tell most; checks do not go by time, so the latest kept one makes room.
        if count.evidence.len() < EVIDENCE_MAX {
            count.evidence.push(evidence);
            count.evidence.sort_by_key(|evidence| evidence.at_us);
        } else if count.evidence.last().is_some_and(|last| last.at_us > evidence.at_us) {
            count.evidence.pop();
            let place = count.evidence.partition_point(|kept| kept.at_us <= evidence.at_us);
            count.evidence.insert(place, evidence);
        }
    }

    pub fn looked_at(&mut self, what: &str, n: u64) {
        if n == 0 {
            return;
        }
        match self.looked_at.get_mut(what) {
            Some(sum) => *sum += n,
            None => _ = self.looked_at.insert(what.into(), n),
        }
    }

    /// A violation is one also if something else could not be judged.
    pub fn word(&self) -> Word {
        if !self.charges.is_empty() {
            Word::Violated
        } else if !self.not_judged.is_empty() {
            Word::Undecided
        } else {
            Word::Clean
        }
    }

    /// 0 clean, 3 violated, 2 could not be judged. 1 is left for a run that failed before there was anything to judge.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self.word() {
            Word::Clean => 0,
            Word::Violated => 3,
            Word::Undecided => 2,
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let looked: Vec<String> = self.looked_at.iter().map(|(what, n)| format!("{n} {what}")).collect();
        match self.word() {
            Word::Clean => writeln!(f, "✓ nothing is wrong: {}", looked.join(", "))?,
            Word::Violated => writeln!(f, "✗ violated: {}", looked.join(", "))?,
            Word::Undecided => writeln!(f, "? not decided: {}", looked.join(", "))?,
        }
        for (charge, count) in &self.charges {
            writeln!(f, "  ✗ {}: {}", charge.name(), count.cases)?;
            count.evidence.iter().try_for_each(|evidence| writeln!(f, "      {evidence}"))?;
            let more = count.cases - count.evidence.len() as u64;
            if more > 0 {
                writeln!(f, "      and {more} more")?;
            }
        }
        self.not_judged.iter().try_for_each(|why| writeln!(f, "  ? not judged: {why}"))?;
        self.notes.iter().try_for_each(|note| writeln!(f, "  · {note}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_evidence_is_kept_and_all_of_it_counted() {
        let mut verdict = Verdict::default();
        for at in (0..100).rev() {
            verdict.charge(Charge::Lost, Evidence::new(at, "gone"));
        }
        let count = &verdict.charges[&Charge::Lost];
        assert_eq!(count.cases, 100);
        assert_eq!(
            count.evidence.iter().map(|evidence| evidence.at_us).collect::<Vec<_>>(),
            (0..10).collect::<Vec<_>>()
        );
        assert!(verdict.to_string().contains("✗ lost: 100"), "{verdict}");
        assert!(verdict.to_string().contains("and 90 more"), "{verdict}");
    }

    #[test]
    fn the_exit_code_follows_the_verdict() {
        let mut verdict = Verdict::default();
        assert_eq!((verdict.word(), verdict.exit_code()), (Word::Clean, ExitCode::from(0)));
        verdict.not_judged.push("the ledger was full".into());
        assert_eq!((verdict.word(), verdict.exit_code()), (Word::Undecided, ExitCode::from(2)));
        verdict.charge(Charge::Ghost, Evidence::new(1, "an order"));
        assert_eq!((verdict.word(), verdict.exit_code()), (Word::Violated, ExitCode::from(3)));
    }
}
