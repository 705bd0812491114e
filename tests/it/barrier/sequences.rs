//! Random calls in random order: every store says and keeps what a small model does.

use super::shop::{Heard, Shop};
use crate::support::shared::unique;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::collections::BTreeMap;
use tokio::runtime::Handle;

const CASES: u32 = 24;
const OPS: [&str; 8] = ["action", "compensate", "rollback", "try", "confirm", "cancel", "commit", "msg"];
/// An op that is no call of a branch.
const CHECK_BACK: &str = "check-back";

/// Barrier and business in a dozen lines.
struct Model {
    balance: i64,
    /// `(branch_id, op)` → reason.
    marks: BTreeMap<(&'static str, &'static str), &'static str>,
}

impl Model {
    fn call(&mut self, branch: &'static str, op: &'static str, change: i64) -> Heard {
        let undone = match op {
            "compensate" | "rollback" => Some("action"),
            "cancel" => Some("try"),
            _ => None,
        };
        if let Some(undone) = undone
            && !self.marks.contains_key(&(branch, undone))
        {
            self.marks.insert((branch, undone), op);
            self.marks.insert((branch, op), op);
            return Heard::Empty;
        }
        if self.marks.contains_key(&(branch, op)) {
            return if op == "msg" { Heard::Duplicated } else { Heard::Repeated };
        }
        if self.balance + change < 0 {
            return Heard::Failure;
        }
        self.balance += change;
        self.marks.insert((branch, op), op);
        Heard::Ran
    }

    fn check_back(&mut self) -> Heard {
        match *self.marks.entry(("00", "msg")).or_insert("rollback") {
            "rollback" => Heard::Failure,
            _ => Heard::Ran,
        }
    }
}

pub async fn stores_and_model_agree(shop: &Shop) {
    let op = prop_oneof![9 => proptest::sample::select(&OPS[..]), 1 => Just(CHECK_BACK)];
    let steps = proptest::collection::vec((proptest::sample::select(&["01", "02"][..]), op, -4..4_i64), 1..16);
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let handle = Handle::current();
    tokio::task::block_in_place(|| {
        runner
            .run(&steps, |steps| {
                handle.block_on(agree(shop, &steps));
                Ok(())
            })
            .unwrap();
    });
}

async fn agree(shop: &Shop, steps: &[(&'static str, &'static str, i64)]) {
    let gid = unique("sequence");
    shop.open(&gid, 5).await;
    let mut model = Model { balance: 5, marks: BTreeMap::new() };
    for &(branch, op, change) in steps {
        let branch = if op == "msg" { "00" } else { branch };
        let (heard, expected) = match op {
            CHECK_BACK => (shop.check_back(&gid).await, model.check_back()),
            _ => (shop.call(&gid, branch, op, change).await, model.call(branch, op, change)),
        };
        assert_eq!(heard, expected, "{branch} {op} {change} in {steps:?}");
    }
    assert_eq!(shop.balance(&gid).await, model.balance, "{steps:?}");
    let kept = model.marks.iter().map(|((branch, op), reason)| shop.as_kept((branch, op, "01", reason))).collect();
    assert_eq!(shop.marks(&gid).await, kept, "{steps:?}");
}
