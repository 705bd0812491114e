//! The books of the bench's branch service: which steps of which global transactions were called, and in which order.

use std::collections::HashSet;

use serde::Serialize;

/// Digits that a bench's gid ends with: its number, from 0, in the order of submission.
const NUMBER_DIGITS: usize = 10;

/// Every call there was.
#[derive(Default)]
pub struct Branches {
    seen: HashSet<Box<str>>,
    /// Numbers of the transactions, in the order in which the first action of each was called.
    began: Vec<u32>,
    calls: u64,
}

/// What the bench asks for at the end.
#[derive(Serialize)]
pub struct Books {
    /// Different steps that were called.
    steps: usize,
    calls: u64,
    /// How far from its place by age a transaction was, on average, as a part of all: 0 is strictly the oldest first,
    /// 0.33 is any order.
    displacement: f64,
}

impl Branches {
    /// Notes a call. `step`: branch id and op.
    pub fn note(&mut self, gid: &str, (branch_id, op): (&str, &str)) {
        self.calls += 1;
        let new = self.seen.insert([gid, branch_id, op].join("/").into());
        let number = gid.get(gid.len().saturating_sub(NUMBER_DIGITS)..).and_then(|digits| digits.parse().ok());
        if let Some(number) = number.filter(|_| new && (branch_id, op) == ("01", "action")) {
            self.began.push(number);
        }
    }

    pub fn books(&self) -> Books {
        Books { steps: self.seen.len(), calls: self.calls, displacement: displacement(&self.began) }
    }
}

fn displacement(order: &[u32]) -> f64 {
    let apart: f64 = order.iter().enumerate().map(|(place, number)| (place as f64 - f64::from(*number)).abs()).sum();
    let count = order.len() as f64;
    if order.is_empty() { 0.0 } else { apart / count / count }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_call_is_no_new_step() {
        let mut branches = Branches::default();
        for branch_id in ["01", "02", "01"] {
            branches.note("bench-0000000000", (branch_id, "action"));
        }
        let books = branches.books();
        assert_eq!((books.steps, books.calls), (2, 3));
    }

    #[test]
    fn the_oldest_first_is_no_displacement() {
        assert_eq!(displacement(&[]), 0.0);
        assert_eq!(displacement(&[0, 1, 2, 3]), 0.0);
        assert_eq!(displacement(&[3, 2, 1, 0]), 0.5);
    }
}
