//! What does a decision cost? `next_step` of each mode, for a transaction that has just begun: the rules alone, no I/O.

use criterion::{BenchmarkId, Criterion};
use rushline::domain::trans::{Branch, Global, GlobalStatus, Limits, Op, Pass, TransRequest, apply_move, next_step};
use std::hint::black_box;

const BRANCHES: [usize; 3] = [2, 16, 256];
const NOW_MS: u64 = 1_795_000_000_000;

/// Submitted, with so many branches that nothing has happened to yet.
fn transaction(mode: &str, branches: usize) -> Global {
    let steps = matches!(mode, "msg" | "saga" | "saga_concurrent");
    let step = serde_json::json!({ "action": "http://shop/action", "compensate": if mode == "msg" { "" } else { "http://shop/undo" } });
    let body = serde_json::json!({
        "gid": "g",
        "trans_type": mode.split('_').next(),
        "steps": vec![step; if steps { branches } else { 0 }],
        "payloads": vec!["{\"amount\":30}"; if steps { branches } else { 0 }],
        "custom_data": if mode == "saga_concurrent" { "{\"concurrent\":true}" } else { "" },
        "query_prepared": if mode == "workflow" { "http://shop/workflow" } else { "" },
    });
    let request = TransRequest::from_json(body.to_string().as_bytes()).unwrap();
    let mut global = request.into_global(NOW_MS, &Limits::default(), &|_| None).unwrap();
    for place in 1..=branches {
        let ops: &[Op] = match mode {
            "tcc" => &[Op::Confirm, Op::Cancel],
            "xa" => &[Op::Commit, Op::Rollback],
            _ => &[],
        };
        let row = |op: &Op| Branch::new(format!("{place:02}"), *op, "http://shop/second", "{}".into());
        global.branches.extend(ops.iter().map(row));
    }
    if mode != "workflow" {
        apply_move(&mut global, GlobalStatus::Submitted, None, NOW_MS);
    }
    global
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let limits = Limits::default();
    let mut group = criterion.benchmark_group("next_step");
    for mode in ["msg", "saga", "saga_concurrent", "tcc", "xa", "workflow"] {
        for branches in BRANCHES {
            let global = transaction(mode, branches);
            group.bench_with_input(BenchmarkId::new(mode, branches), &global, |bencher, global| {
                let later_ms = NOW_MS + 60_000; // a workflow is called back after an interval
                bencher.iter(|| next_step(black_box(global), &mut Pass::default(), later_ms, &limits));
            });
        }
    }
    group.finish();
    criterion.final_summary();
}
