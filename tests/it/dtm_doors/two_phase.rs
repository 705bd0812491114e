//! TCC and XA: branches are registered by the client, and called in the second phase.

use super::{ALL, Outcome, Over, Stage, everywhere};
use crate::dtm_http::{waiting, with};
use serde_json::{Value, json};

fn begin(stage: &Stage, gid: &str, trans_type: &str) -> Value {
    json!({ "gid": gid, "trans_type": trans_type, "concurrent": false, "protocol": stage.protocol(),
        "timeout_to_fail": 30 })
}

fn tcc_branch(stage: &Stage, gid: &str, branch_id: &str) -> Value {
    json!({ "gid": gid, "trans_type": "tcc", "branch_id": branch_id, "data": "{\"n\":1}", "status": "prepared",
        "confirm": stage.url("/confirm"), "cancel": stage.url("/cancel") })
}

#[tokio::test(flavor = "multi_thread")]
async fn tcc_confirms_from_the_last_to_the_first() {
    everywhere(ALL, async |stage| {
        let gid = stage.gid("t1");
        stage.must("prepare", &begin(&stage, &gid, "tcc")).await;
        for branch_id in ["01", "02", "0201", "02"] {
            stage.must("registerBranch", &tcc_branch(&stage, &gid, branch_id)).await; // the last is a repeat
        }
        let other = with(tcc_branch(&stage, &gid, "02"), "data", json!("{}"));
        stage.must_err("registerBranch", &other, "storage: UniqueKeyConflict").await;
        assert_eq!(stage.branches(&gid).await, ["prepared"; 6]);
        stage.must("submit", &waiting(begin(&stage, &gid, "tcc"))).await;
        assert_eq!(stage.steps(&gid), ["confirm/0201", "confirm/02", "confirm/01"]);
        assert_eq!(&stage.calls(&gid)[0].body[..], b"{\"n\":1}");
        let settled = ["prepared", "succeed", "prepared", "succeed", "prepared", "succeed"];
        assert_eq!(stage.branches(&gid).await, settled);
        assert_eq!(stage.query(&gid).await["branches"][0]["op"], "cancel");
        let late = format!("no trans with gid: {gid} status: prepared found FAILURE");
        stage.must_fail("registerBranch", &tcc_branch(&stage, &gid, "03"), &late).await;
        let odd = json!({ "gid": gid, "trans_type": "odd", "branch_id": "01" });
        stage.must_err("registerBranch", &odd, "unknow trans type: odd").await;
        let gid = stage.gid("t9");
        let unknown = format!("no trans with gid: {gid} status: prepared found FAILURE");
        stage.must_fail("registerBranch", &tcc_branch(&stage, &gid, "01"), &unknown).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tcc_cancels_when_aborted_or_forgotten() {
    everywhere(ALL, async |stage| {
        let gid = stage.gid("c1");
        stage.must("prepare", &begin(&stage, &gid, "tcc")).await;
        stage.must("registerBranch", &tcc_branch(&stage, &gid, "01")).await;
        stage.must("registerBranch", &tcc_branch(&stage, &gid, "02")).await;
        stage.service.answers("/cancel", &[(500, ""), (200, "")]);
        let reason = "rpc error: code = Aborted desc = reason:";
        stage.must("abort", &with(begin(&stage, &gid, "tcc"), "rollback_reason", json!(reason))).await;
        stage.wait_for(&gid, "failed").await;
        assert_eq!(stage.steps(&gid), ["cancel/02", "cancel/02", "cancel/01"]);
        assert_eq!(stage.query(&gid).await["transaction"]["rollback_reason"], reason);
        let late = "current status 'failed', cannot sumbmit. FAILURE";
        stage.must_fail("submit", &begin(&stage, &gid, "tcc"), late).await;

        // Nobody decides: after the timeout it is rolled back. Then a branch comes too late.
        let gid = stage.gid("c2");
        stage.must("prepare", &with(begin(&stage, &gid, "tcc"), "timeout_to_fail", json!(3))).await;
        stage.must("registerBranch", &tcc_branch(&stage, &gid, "01")).await;
        stage.wait_for(&gid, "failed").await;
        assert_eq!(stage.steps(&gid), ["cancel/01"]);
        assert_eq!(stage.query(&gid).await["transaction"]["rollback_reason"], "Timeout after 3 seconds");
        let late = format!("no trans with gid: {gid} status: prepared found FAILURE");
        stage.must_fail("registerBranch", &tcc_branch(&stage, &gid, "02"), &late).await;
    })
    .await;
}

/// dtm marks it as succeeded then, with the confirms undone.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_submit_loses_no_confirm() {
    everywhere(ALL, async |stage| {
        let gid = stage.gid("r1");
        stage.service.answers("/confirm", &[(425, ""), (425, ""), (200, "")]);
        stage.must("prepare", &begin(&stage, &gid, "tcc")).await;
        stage.must("registerBranch", &tcc_branch(&stage, &gid, "01")).await;
        let answer = stage.ask("submit", &waiting(begin(&stage, &gid, "tcc"))).await;
        assert_eq!(answer.outcome, Outcome::Ongoing, "{answer:?}");
        stage.must("submit", &begin(&stage, &gid, "tcc")).await;
        stage.wait_for(&gid, "succeed").await;
        assert_eq!(stage.steps(&gid), ["confirm/01"; 3]);
        // Without any branch it is over at once.
        let gid = stage.gid("r2");
        stage.must("submit", &waiting(begin(&stage, &gid, "tcc"))).await;
        assert_eq!(stage.status(&gid).await, "succeed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn xa_commits_and_rolls_back_in_the_order_of_registration() {
    everywhere(ALL, async |stage| {
        for (stem, end, route, op) in [("x1", "succeed", "submit", "commit"), ("x2", "failed", "abort", "rollback")] {
            let gid = stage.gid(stem);
            stage.must("prepare", &begin(&stage, &gid, "xa")).await;
            for branch_id in ["01", "02"] {
                let url = stage.url("/rm");
                let body = json!({ "gid": gid, "trans_type": "xa", "branch_id": branch_id, "url": url });
                stage.must("registerBranch", &body).await;
            }
            stage.must(route, &begin(&stage, &gid, "xa")).await;
            stage.wait_for(&gid, end).await;
            assert_eq!(stage.steps(&gid), [format!("{op}/01"), format!("{op}/02")]);
            let empty: &[u8] = if stage.over == Over::JsonRpc { b"{}" } else { b"" };
            let calls = stage.calls(&gid);
            assert!(
                calls.iter().all(|call| call.method == "POST" && call.body[..] == *empty),
                "an empty POST, not a GET"
            );
        }
    })
    .await;
}
