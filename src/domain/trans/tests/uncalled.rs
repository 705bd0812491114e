//! What goes on without anybody being called.

use crate::domain::trans::{
    BranchResult, BranchStatus, Global, GlobalStatus, Limits, Pass, Step, TransRequest, apply, apply_move, next_step,
    run_uncalled,
};
use serde_json::{Value, json};

const NOW: u64 = 1_795_000_000_000;

fn submitted(body: Value) -> Global {
    let request = TransRequest::from_json(body.to_string().as_bytes()).unwrap();
    let mut global = request.into_global(NOW, &Limits::default(), &|_| None).unwrap();
    apply_move(&mut global, GlobalStatus::Submitted, None, NOW);
    global
}

fn saga(actions: [&str; 2]) -> Value {
    let steps = actions.map(|action| json!({ "action": action, "compensate": action }));
    json!({ "gid": "g", "trans_type": "saga", "steps": steps, "payloads": ["1", "2"] })
}

#[test]
fn a_saga_that_has_nobody_to_call_has_succeeded() {
    let mut global = submitted(saga(["", ""]));
    run_uncalled(&mut global, NOW, &Limits::default());
    assert_eq!((global.status, global.finish_ms), (GlobalStatus::Succeed, NOW));
    let actions = [&global.branches[1], &global.branches[3]];
    assert!(actions.iter().all(|action| action.status == BranchStatus::Succeed && action.finish_ms == NOW));
}

#[test]
fn it_stops_at_the_first_call() {
    let mut global = submitted(saga(["", "http://h/a"]));
    run_uncalled(&mut global, NOW, &Limits::default());
    let statuses: Vec<BranchStatus> = global.branches.iter().map(|branch| branch.status).collect();
    assert_eq!(global.status, GlobalStatus::Submitted);
    assert_eq!(statuses.iter().filter(|status| **status == BranchStatus::Succeed).count(), 1);
    let before = submitted(saga(["http://h/a", ""]));
    let mut global = before.clone();
    run_uncalled(&mut global, NOW, &Limits::default());
    assert_eq!(global, before, "the second one waits for the first");
}

#[test]
fn a_delay_is_kept() {
    let body = json!({ "gid": "g", "trans_type": "msg", "steps": [{ "action": "" }], "payloads": ["1"],
        "custom_data": "{\"delay\":10}" });
    let mut global = submitted(body.clone());
    run_uncalled(&mut global, NOW, &Limits::default());
    assert_eq!(global, submitted(body));
}

/// A crowded host is no branch that fails: it turns no saga back and alerts nobody.
#[test]
fn a_call_that_was_not_made_counts_for_nothing() {
    let mut body = saga(["http://h/a", "http://h/b"]);
    body["retry_limit"] = json!(1);
    let (limits, mut global) = (Limits::default(), submitted(body));
    for round in 1..=4 {
        let mut pass = Pass::default();
        let now = global.next_cron_ms;
        let Step::Call(calls) = next_step(&global, &mut pass, now, &limits) else { panic!("round {round}") };
        let before = global.interval_ms;
        let result = BranchResult::NotCalled("crowded".into());
        let applied = apply(&mut global, &mut pass, calls[0].called, result, now, &limits);
        assert_eq!((applied.alert, global.retry_count, global.failed_passes), (None, 0, 0));
        assert_eq!((global.interval_ms, global.next_cron_ms), (2 * before, now + 2 * before));
        let until_ms = global.next_cron_ms;
        assert_eq!(next_step(&global, &mut pass, now, &limits), Step::Wait { until_ms });
    }
    assert_eq!((global.status, global.rollback_reason.as_str()), (GlobalStatus::Submitted, ""));
}
