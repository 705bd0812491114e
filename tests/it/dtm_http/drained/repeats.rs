//! Calls on what has left: the same words while Redis remembers it, the right ones after.

use super::super::{ask, must, must_err, must_fail, query, saga, start, wait_for, waiting, with};
use super::{begin, finish_one_of_each, hold, keys, let_drain, wait_until_drained, workflow, workflow_end};
use crate::support::app::{App, eventually};
use crate::support::services::Service;
use serde_json::{Value, json};
use std::time::Duration;

/// Every call that might come again, on every one of them, right and wrong. With what it hears.
async fn call_again(app: &App, service: &Service, gids: &[String]) -> Vec<(String, u16, Value)> {
    let mut heard = Vec::new();
    for gid in gids {
        let message = |names: &[&str]| with(saga(service, gid, names), "trans_type", json!("msg"));
        let branch = |trans_type: &str| {
            json!({ "gid": gid, "trans_type": trans_type, "branch_id": "02", "data": "{}",
            "url": service.url("/x"), "confirm": service.url("/c"), "cancel": service.url("/c"), "op": "action",
            "status": "succeed" })
        };
        let calls = [
            ("submit", saga(service, gid, &["a", "later"])),
            ("submit", waiting(saga(service, gid, &["a", "later"]))),
            ("submit", waiting(saga(service, gid, &["a", "no", "b"]))),
            ("submit", saga(service, gid, &["other"])),
            ("submit", waiting(message(&["a", "b"]))),
            ("submit", message(&["b", "a"])),
            ("submit", waiting(begin(gid, "tcc"))),
            ("submit", waiting(begin(gid, "xa"))),
            ("submit", workflow_end(gid, "succeed")),
            ("submit", workflow_end(gid, "failed")),
            ("submit", workflow_end(gid, "perhaps")),
            ("prepare", begin(gid, "tcc")),
            ("prepare", message(&["a"])),
            ("abort", json!({ "gid": gid })),
            ("abort", waiting(begin(gid, "tcc"))),
            ("abort", begin(gid, "xa")),
            ("abort", begin(gid, "msg")),
            ("registerBranch", branch("tcc")),
            ("registerBranch", branch("workflow")),
            ("registerBranch", branch("odd")),
            ("prepareWorkflow", workflow(service, gid)),
            ("prepareWorkflow", begin(gid, "tcc")),
            ("forceStop", json!({ "gid": gid })),
            ("resetNextCronTime", json!({ "gid": gid })),
        ];
        for (route, body) in calls {
            let reply = ask(app, route, &body).await;
            heard.push((format!("{route} {body}"), reply.status, reply.json));
        }
    }
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_call_hears_the_same_after_it_has_left() {
    let (app, service) = start().await;
    hold(&app).await;
    let gids = finish_one_of_each(&app, &service, "again").await;
    let calls = service.all_calls().len();
    let before = call_again(&app, &service, &gids).await;
    let_drain(&app).await;
    wait_until_drained(&app).await;
    let after = call_again(&app, &service, &gids).await;
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before, after);
    }
    assert!(before.iter().any(|(_, status, _)| *status == 200), "some are exact repeats");
    assert_eq!(service.all_calls().len(), calls, "nobody was called for any of it");
}

/// After the time that Redis remembers it for, a gid is free. Who asks about what there was hears it from the records.
#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_gid_is_free_and_its_past_is_not_lost() {
    let (mut app, service) = start().await;
    app.restart(|options| options.setting("trans.remember_finished_ms", 50)).await;
    service.answers("/no", &[(409, "no")]);
    must(&app, "submit", &waiting(saga(&service, "f1", &["a"]))).await;
    must(&app, "prepare", &begin("f2", "tcc")).await;
    must(&app, "abort", &begin("f2", "tcc")).await;
    assert_eq!(ask(&app, "prepareWorkflow", &workflow(&service, "f3")).await.status, 200);
    must(&app, "submit", &workflow_end("f3", "succeed")).await;
    wait_for(&app, "f2", "failed").await;
    eventually("it is forgotten", Duration::from_secs(30), || async { keys(&app, "rl:{T/*}:*").await.is_empty() })
        .await;

    let stopped = "global transaction force stop error. status: succeed. error: FAILURE";
    must_fail(&app, "forceStop", &json!({ "gid": "f1" }), stopped).await;
    must(&app, "resetNextCronTime", &json!({ "gid": "f1" })).await;
    must(&app, "abort", &begin("f2", "tcc")).await;
    must(&app, "submit", &workflow_end("f3", "succeed")).await;
    must_fail(&app, "submit", &workflow_end("f3", "failed"), "current status 'succeed', cannot sumbmit. FAILURE").await;
    must_err(&app, "abort", &json!({ "gid": "f9" }), "no TransGlobal with gid: f9 found").await;
    must_err(&app, "submit", &workflow_end("f9", "succeed"), "storage: NotFound").await;

    let first = query(&app, "f1").await;
    let before = service.calls("f1").len();
    must(&app, "submit", &waiting(saga(&service, "f1", &["a", "b"]))).await;
    assert_eq!(service.calls("f1").len(), before + 2, "a new transaction of that gid");
    wait_until_drained(&app).await;
    let second = query(&app, "f1").await;
    assert_eq!(second["branches"].as_array().unwrap().len(), 4, "{second}");
    let all = app.get("/api/dtmsvr/all?transType=saga").await.json;
    assert_eq!(all["transactions"], json!([second["transaction"], first["transaction"]]), "both are kept");
}
