//! TCC and XA: branches are registered by the client, and called in the second phase.

use super::{ask, branches, must, must_err, must_fail, query, start, status, wait_for, waiting, with};
use crate::support::services::Service;
use serde_json::{Value, json};

fn begin(gid: &str, trans_type: &str) -> Value {
    json!({ "gid": gid, "trans_type": trans_type, "concurrent": false, "protocol": "", "timeout_to_fail": 20 })
}

fn tcc_branch(service: &Service, gid: &str, branch_id: &str) -> Value {
    json!({ "gid": gid, "trans_type": "tcc", "branch_id": branch_id, "data": "{\"n\":1}", "status": "prepared",
        "confirm": service.url("/confirm"), "cancel": service.url("/cancel") })
}

#[tokio::test(flavor = "multi_thread")]
async fn tcc_confirms_from_the_last_to_the_first() {
    let (app, service) = start().await;
    must(&app, "prepare", &begin("t1", "tcc")).await;
    for branch_id in ["01", "02", "0201"] {
        must(&app, "registerBranch", &tcc_branch(&service, "t1", branch_id)).await;
    }
    must(&app, "registerTccBranch", &tcc_branch(&service, "t1", "02")).await; // a repeat, by the old name
    let other = with(tcc_branch(&service, "t1", "02"), "data", json!("{}"));
    must_err(&app, "registerBranch", &other, "storage: UniqueKeyConflict").await;
    assert_eq!(branches(&app, "t1").await, ["prepared"; 6]);
    must(&app, "submit", &waiting(begin("t1", "tcc"))).await;
    assert_eq!(service.steps("t1"), ["confirm/0201", "confirm/02", "confirm/01"]);
    assert_eq!(&service.calls("t1")[0].body[..], b"{\"n\":1}");
    assert_eq!(branches(&app, "t1").await, ["prepared", "succeed", "prepared", "succeed", "prepared", "succeed"]);
    assert_eq!(query(&app, "t1").await["branches"][0]["op"], "cancel");
    let late = "no trans with gid: t1 status: prepared found FAILURE";
    must_fail(&app, "registerBranch", &tcc_branch(&service, "t1", "03"), late).await;
    let unknown = "no trans with gid: t9 status: prepared found FAILURE";
    must_fail(&app, "registerBranch", &tcc_branch(&service, "t9", "01"), unknown).await;
    let odd = json!({ "gid": "t1", "trans_type": "odd", "branch_id": "01" });
    must_err(&app, "registerBranch", &odd, "unknow trans type: odd").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tcc_cancels_when_aborted_or_forgotten() {
    let (app, service) = start().await;
    must(&app, "prepare", &begin("c1", "tcc")).await;
    must(&app, "registerBranch", &tcc_branch(&service, "c1", "01")).await;
    must(&app, "registerBranch", &tcc_branch(&service, "c1", "02")).await;
    service.answers("/cancel", &[(500, ""), (200, "")]);
    let reason = "rpc error: code = Aborted desc = reason:";
    must(&app, "abort", &with(begin("c1", "tcc"), "rollback_reason", json!(reason))).await;
    wait_for(&app, "c1", "failed").await;
    assert_eq!(service.steps("c1"), ["cancel/02", "cancel/02", "cancel/01"]);
    assert_eq!(query(&app, "c1").await["transaction"]["rollback_reason"], reason);
    must_fail(&app, "submit", &begin("c1", "tcc"), "current status 'failed', cannot sumbmit. FAILURE").await;

    // Nobody decides: after the timeout it is rolled back. Then a branch comes too late.
    must(&app, "prepare", &with(begin("c2", "tcc"), "timeout_to_fail", json!(1))).await;
    must(&app, "registerBranch", &tcc_branch(&service, "c2", "01")).await;
    wait_for(&app, "c2", "failed").await;
    assert_eq!(service.steps("c2"), ["cancel/01"]);
    assert_eq!(query(&app, "c2").await["transaction"]["rollback_reason"], "Timeout after 1 seconds");
    let late = "no trans with gid: c2 status: prepared found FAILURE";
    must_fail(&app, "registerBranch", &tcc_branch(&service, "c2", "02"), late).await;
}

/// dtm marks it as succeeded then, with the confirms undone.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_submit_loses_no_confirm() {
    let (app, service) = start().await;
    service.answers("/confirm", &[(425, ""), (425, ""), (200, "")]);
    must(&app, "prepare", &begin("r1", "tcc")).await;
    must(&app, "registerBranch", &tcc_branch(&service, "r1", "01")).await;
    let reply = ask(&app, "submit", &waiting(begin("r1", "tcc"))).await;
    assert_eq!((reply.status, &reply.json["dtm_result"]), (425, &json!("ONGOING")), "{}", reply.json);
    must(&app, "submit", &begin("r1", "tcc")).await;
    assert_eq!(status(&app, "r1").await, "submitted");
    wait_for(&app, "r1", "succeed").await;
    assert_eq!(service.steps("r1"), ["confirm/01"; 3]);
    // Without any branch it is over at once.
    must(&app, "submit", &waiting(begin("r2", "tcc"))).await;
    assert_eq!(status(&app, "r2").await, "succeed");
}

#[tokio::test(flavor = "multi_thread")]
async fn xa_commits_and_rolls_back_in_the_order_of_registration() {
    let (app, service) = start().await;
    for (gid, end, route, op) in [("x1", "succeed", "submit", "commit"), ("x2", "failed", "abort", "rollback")] {
        must(&app, "prepare", &begin(gid, "xa")).await;
        for branch_id in ["01", "02"] {
            let body = json!({ "gid": gid, "trans_type": "xa", "branch_id": branch_id, "url": service.url("/rm") });
            must(&app, "registerXaBranch", &body).await;
        }
        must(&app, route, &begin(gid, "xa")).await;
        wait_for(&app, gid, end).await;
        assert_eq!(service.steps(gid), [format!("{op}/01"), format!("{op}/02")]);
        let calls = service.calls(gid);
        assert!(calls.iter().all(|call| call.method == "POST" && call.body.is_empty()), "an empty POST, not a GET");
    }
}
