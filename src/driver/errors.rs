//! Why transactions did not get on: the last words of a branch, by gid, as this node heard them.
//!
//! The record of a transaction has no room for what a branch said at each try, and writing it would cost a write for every
//! one. So it is kept in memory, for whoever asks the node that called: it is gone with the process.

use crate::domain::trans::TransGid;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

/// Transactions remembered; the one that was heard of longest ago goes first.
const GIDS_MAX: usize = 10_000;
/// Bytes kept of what a branch said.
const TEXT_BYTES_MAX: usize = 1_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BranchTrouble {
    pub at_ms: u64,
    pub branch_id: String,
    pub op: String,
    pub error: String,
    /// Times in a row that a call for this transaction went wrong here.
    pub times: u64,
}

#[derive(Default)]
pub struct Errors {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    by_gid: HashMap<TransGid, BranchTrouble>,
    order: VecDeque<TransGid>,
}

impl Errors {
    pub fn note(&self, gid: &TransGid, branch_id: &str, op: &str, error: &str, at_ms: u64) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let times = kept.by_gid.get(gid).map_or(1, |earlier| earlier.times + 1);
        let cut = error.floor_char_boundary(TEXT_BYTES_MAX);
        let trouble = BranchTrouble {
            at_ms,
            branch_id: branch_id.to_owned(),
            op: op.to_owned(),
            error: error[..cut].to_owned(),
            times,
        };
        if kept.by_gid.insert(gid.clone(), trouble).is_none() {
            kept.order.push_back(gid.clone());
            if kept.order.len() > GIDS_MAX
                && let Some(oldest) = kept.order.pop_front()
            {
                kept.by_gid.remove(&oldest);
            }
        }
    }

    pub fn of(&self, gid: &TransGid) -> Option<BranchTrouble> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).by_gid.get(gid).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_are_kept_of_so_many_transactions() {
        let errors = Errors::default();
        let gid = |n: usize| TransGid::parse(format!("g{n}")).unwrap();
        for n in 0..=GIDS_MAX {
            errors.note(&gid(n), "01", "action", "no", 1);
        }
        errors.note(&gid(5), "02", "action", &"é".repeat(TEXT_BYTES_MAX), 2);
        assert_eq!(errors.of(&gid(0)), None);
        let found = errors.of(&gid(5)).unwrap();
        assert_eq!((found.branch_id.as_str(), found.times, found.error.len()), ("02", 2, TEXT_BYTES_MAX));
    }
}
