//! Sagas: forward, backward, in orders, in time.

use super::{ask, branches, must, must_fail, query, saga, start, status, wait_for, waiting, with};
use serde_json::json;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn all_steps_succeed_in_order() {
    let (app, service) = start().await;
    let body = with(saga(&service, "s1", &["a", "b"]), "branch_headers", json!({ "X-Tenant": "7" }));
    must(&app, "submit", &waiting(body)).await;
    assert_eq!(service.steps("s1"), ["action/01", "action/02"]);
    assert_eq!(branches(&app, "s1").await, ["prepared", "succeed", "prepared", "succeed"]);
    let call = &service.calls("s1")[1];
    assert_eq!((call.method.as_str(), call.path.as_str(), &call.body[..]), ("POST", "/b", &b"{\"step\":1}"[..]));
    assert_eq!(call.param("trans_type"), "saga");
    assert_eq!(call.headers["x-tenant"], "7");
    assert_eq!(call.headers["content-type"], "application/json");
    let found = query(&app, "s1").await;
    assert_eq!(found["transaction"]["id"], 0);
    assert!(found["transaction"]["finish_time"].is_string() && found["transaction"]["create_time"].is_string());
    assert_eq!(found["branches"][0]["op"], "compensate");
    assert_eq!(found["branches"][1]["bin_data"], "eyJzdGVwIjowfQ==");
    // Not waiting is the default; the empty payload is a GET; an empty URL is a success without a call.
    let mut body = saga(&service, "s2", &["a", "b"]);
    body["payloads"] = json!(["", "{}"]);
    body["steps"][1]["action"] = json!("");
    must(&app, "submit", &body).await;
    wait_for(&app, "s2", "succeed").await;
    assert_eq!(service.steps("s2"), ["action/01"]);
    assert_eq!(service.calls("s2")[0].method, "GET");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_step_undoes_those_before_it_and_itself() {
    let (app, service) = start().await;
    service.answers("/no", &[(409, "Insufficient balance")]);
    let reason = format!("url:{} return failed: Insufficient balance FAILURE", service.url("/no"));
    must_fail(&app, "submit", &waiting(saga(&service, "f1", &["a", "no", "c"])), &reason).await;
    wait_for(&app, "f1", "failed").await;
    assert_eq!(service.steps("f1"), ["action/01", "action/02", "compensate/02", "compensate/01"]);
    assert_eq!(
        branches(&app, "f1").await,
        ["succeed", "succeed", "succeed", "failed", "prepared", "prepared"],
        "per step compensation, action"
    );
    let found = query(&app, "f1").await;
    assert_eq!(found["transaction"]["rollback_reason"], reason.as_str());
    assert!(found["transaction"]["rollback_time"].is_string());
    must_fail(
        &app,
        "submit",
        &saga(&service, "f1", &["a", "no", "c"]),
        "current status 'failed', cannot sumbmit. FAILURE",
    )
    .await;
    // A compensation that does not work is tried until it does.
    service.answers("/a-undo", &[(500, "not now"), (409, "never"), (200, "")]);
    must(&app, "submit", &saga(&service, "f2", &["a", "no"])).await;
    wait_for(&app, "f2", "failed").await;
    assert_eq!(service.steps("f2").iter().filter(|step| *step == "compensate/01").count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn unclear_answers_are_asked_again() {
    let (app, service) = start().await;
    service.answers("/b", &[(425, ""), (500, "oops"), (204, ""), (200, "")]);
    let body = saga(&service, "u1", &["a", "b"]);
    must_fail(&app, "submit", &waiting(body.clone()), "wait result not return success: FAILURE").await;
    assert_eq!(status(&app, "u1").await, "submitted");
    must(&app, "submit", &body).await; // a repeat is no second run
    wait_for(&app, "u1", "succeed").await;
    assert_eq!(service.steps("u1"), ["action/01", "action/02", "action/02", "action/02", "action/02"]);
    must(&app, "submit", &waiting(body)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_limit_and_timeout_turn_it_back() {
    let (app, service) = start().await;
    service.answers("/b", &[(500, "oops")]);
    let body = with(saga(&service, "l1", &["a", "b"]), "retry_limit", json!(1));
    let reason = "RetryCount is greater than RetryLimit, RetryLimit: 1 FAILURE";
    must_fail(&app, "submit", &waiting(body), reason).await;
    wait_for(&app, "l1", "failed").await;
    assert_eq!(query(&app, "l1").await["transaction"]["rollback_reason"], reason.trim_end_matches(" FAILURE"));
    service.answers("/b", &[(425, "")]);
    must(&app, "submit", &with(saga(&service, "t1", &["a", "b"]), "timeout_to_fail", json!(1))).await;
    wait_for(&app, "t1", "failed").await;
    assert_eq!(query(&app, "t1").await["transaction"]["rollback_reason"], "Timeout after 1 seconds");
    assert!(service.steps("t1").contains(&"compensate/01".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_steps_keep_their_orders() {
    let (app, service) = start().await;
    service.slow("/a", Duration::from_millis(300));
    service.slow("/b", Duration::from_millis(300));
    let custom = json!({ "concurrent": true, "orders": { "2": [0, 1] } }).to_string();
    let body = with(saga(&service, "c1", &["a", "b", "c"]), "custom_data", json!(custom));
    let reply = ask(&app, "submit", &waiting(body)).await;
    assert_eq!(reply.status, 200, "{}", reply.json);
    assert!(reply.took < Duration::from_millis(590), "one after the other: {:?}", reply.took);
    let steps = service.steps("c1");
    assert_eq!(steps.len(), 3);
    assert_eq!(steps[2], "action/03", "it waits for both: {steps:?}");
    // Backwards they keep the reverse of it.
    service.answers("/c", &[(200, "FAILURE of an old kind")]);
    let custom = json!({ "concurrent": true, "orders": { "2": [0, 1] } }).to_string();
    must(&app, "submit", &with(saga(&service, "c2", &["a", "b", "c"]), "custom_data", json!(custom))).await;
    wait_for(&app, "c2", "failed").await;
    let steps = service.steps("c2");
    assert_eq!(steps[3], "compensate/03", "{steps:?}");
    assert_eq!(steps.len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn branches_over_json_rpc() {
    let (app, service) = start().await;
    let url = |name: &str| service.url(&format!("/rpc?method={name}"));
    let body = json!({ "gid": "j1", "trans_type": "saga", "protocol": "json-rpc", "wait_result": true,
        "payloads": ["{\"amount\":30}"], "steps": [{ "action": url("out"), "compensate": url("back") }] });
    service.answers("/rpc", &[(200, r#"{"jsonrpc":"2.0","id":"1","result":{}}"#)]);
    must(&app, "submit", &body).await;
    let call = service.all_calls().remove(0);
    let sent: serde_json::Value = serde_json::from_slice(&call.body).unwrap();
    assert_eq!(sent["method"], "out");
    assert_eq!(
        sent["params"],
        json!({ "amount": 30, "gid": "j1", "trans_type": "saga", "branch_id": "01", "op": "action" })
    );
    assert_eq!(call.param("gid"), "", "nothing is added to the URL");
    // The code alone says no; dtm would call for ever.
    service.answers(
        "/rpc",
        &[
            (200, r#"{"jsonrpc":"2.0","id":"1","error":{"code":-32901,"message":"no"}}"#),
            (200, r#"{"jsonrpc":"2.0","id":"1","result":{}}"#),
        ],
    );
    let reply = ask(&app, "submit", &with(body, "gid", json!("j2"))).await;
    assert_eq!(reply.status, 409, "{}", reply.json);
    wait_for(&app, "j2", "failed").await;
}
