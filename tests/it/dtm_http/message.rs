//! Two-phase messages: prepared, submitted, aborted, asked back, delayed, to topics.

use super::{branches, must, must_err, must_fail, query, start, status, wait_for, waiting, with};
use crate::support::services::Service;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn message(service: &Service, gid: &str, names: &[&str]) -> Value {
    let steps: Vec<Value> = names.iter().map(|name| json!({ "action": service.url(&format!("/{name}")) })).collect();
    let payloads = vec!["{}"; names.len()];
    json!({ "gid": gid, "trans_type": "msg", "steps": steps, "payloads": payloads, "concurrent": false,
        "query_prepared": service.url("/query"), "protocol": "http" })
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_then_submitted_or_aborted() {
    let (app, service) = start().await;
    let body = with(message(&service, "m1", &["a", "b"]), "timeout_to_fail", json!(10));
    must(&app, "prepare", &body).await;
    must(&app, "prepare", &body).await;
    assert_eq!(status(&app, "m1").await, "prepared");
    must(&app, "submit", &waiting(body.clone())).await;
    assert_eq!(service.steps("m1"), ["action/01", "action/02"]);
    assert_eq!(branches(&app, "m1").await, ["succeed", "succeed"]);
    must_fail(&app, "prepare", &body, "current status 'succeed', cannot prepare. FAILURE").await;
    must_fail(&app, "abort", &body, "trans type: 'msg' current status 'succeed', cannot abort. FAILURE").await;
    must(&app, "submit", &body).await;
    assert_eq!(service.steps("m1").len(), 2, "a repeat calls nobody");

    let body = with(message(&service, "m2", &["a"]), "timeout_to_fail", json!(10));
    must(&app, "prepare", &body).await;
    must(&app, "abort", &with(body.clone(), "rollback_reason", json!("no money"))).await;
    assert_eq!(status(&app, "m2").await, "failed");
    assert_eq!(query(&app, "m2").await["transaction"]["rollback_reason"], "no money");
    must_fail(&app, "submit", &body, "current status 'failed', cannot sumbmit. FAILURE").await;
    assert!(service.steps("m2").is_empty());
    must_err(&app, "abort", &json!({ "gid": "m9", "trans_type": "msg" }), "no TransGlobal with gid: m9 found").await;
    must_fail(
        &app,
        "submit",
        &json!({ "gid": "m1", "trans_type": "saga" }),
        "gid 'm1' is a 'msg' already, not a 'saga'. FAILURE",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_submit_is_asked() {
    let (app, service) = start().await;
    for (gid, answers, end) in [
        ("q1", &[(200, "")][..], "succeed"),
        ("q2", &[(409, "")], "failed"),
        ("q3", &[(425, ""), (500, ""), (200, "")], "succeed"),
    ] {
        service.answers("/query", answers);
        must(&app, "prepare", &message(&service, gid, &["a"])).await;
        wait_for(&app, gid, end).await;
        let calls = service.calls(gid);
        let asked: Vec<_> = calls.iter().filter(|call| call.path == "/query").collect();
        assert_eq!(asked.len(), answers.len(), "{gid}");
        assert!(asked.iter().all(|call| call.method == "GET" && call.step() == "msg/00" && call.body.is_empty()));
        assert_eq!(calls.len() - asked.len(), usize::from(end == "succeed"), "{gid}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusing_branch_is_asked_until_it_does_it() {
    let (app, service) = start().await;
    service.answers("/a", &[(409, "no"), (500, ""), (200, "")]);
    let reply = super::ask(&app, "submit", &waiting(message(&service, "r1", &["a", "b"]))).await;
    assert_eq!(reply.status, 409, "{}", reply.json);
    assert!(reply.json["message"].as_str().unwrap().starts_with("your http/grpc result should be specified as in:"));
    wait_for(&app, "r1", "succeed").await;
    assert_eq!(service.steps("r1"), ["action/01", "action/01", "action/01", "action/02"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn delay_and_concurrency() {
    let (app, service) = start().await;
    let started = Instant::now();
    must(&app, "submit", &with(message(&service, "d1", &["a"]), "custom_data", json!("{\"delay\":1}"))).await;
    wait_for(&app, "d1", "succeed").await;
    assert!(started.elapsed() >= Duration::from_millis(990), "{:?}", started.elapsed());
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "to the millisecond, not to the minute: {:?}",
        started.elapsed()
    );
    service.slow("/slow", Duration::from_millis(300));
    let body = with(message(&service, "d2", &["slow", "slow", "slow"]), "concurrent", json!(true));
    let reply = super::ask(&app, "submit", &waiting(body)).await;
    assert_eq!(reply.status, 200, "{}", reply.json);
    assert!(reply.took < Duration::from_millis(890), "{:?}", reply.took);
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_reach_their_subscribers() {
    let (app, service) = start().await;
    let get = async |path: &str| {
        let reply = app.get(&format!("/api/dtmsvr/{path}")).await;
        (reply.status, reply.json)
    };
    let body = with(message(&service, "t1", &[]), "steps", json!([{ "action": "topic://orders" }]));
    let body = with(body, "payloads", json!(["{\"n\":1}"]));
    must_err(&app, "submit", &body, "topic not found").await;
    let (x, y) = (service.url("/x"), service.url("/y"));
    let good = (200, json!({ "dtm_result": "SUCCESS" }));
    assert_eq!(get(&format!("subscribe?topic=orders&url={x}&remark=first")).await, good);
    must(&app, "submit", &waiting(body.clone())).await;
    assert_eq!(service.steps("t1"), ["action/01"], "no suffix for one subscriber, and at once");
    assert_eq!(get(&format!("subscribe?topic=orders&url={y}")).await, good);
    must(&app, "submit", &waiting(with(body.clone(), "gid", json!("t2")))).await;
    assert_eq!(service.steps("t2"), ["action/01-01", "action/01-02"]);
    for (path, message) in [
        (format!("subscribe?topic=orders&url={x}"), "this url exists"),
        ("subscribe?url=x".into(), "empty topic"),
        ("subscribe?topic=x".into(), "empty url"),
        (format!("unsubscribe?topic=other&url={x}"), "no such a topic"),
        ("unsubscribe?topic=orders&url=http://h/".into(), "no such an url "),
    ] {
        assert_eq!(get(&path).await, (500, json!({ "message": message })), "{path}");
    }
    let (_, found) = get("queryKV?cat=topics&key=orders").await;
    assert_eq!(found["kv"][0]["version"], 2);
    let value: Value = serde_json::from_str(found["kv"][0]["v"].as_str().unwrap()).unwrap();
    assert_eq!(value[0], json!({ "url": x, "remark": "first" }));
    assert_eq!(get("scanKV?cat=topics").await.1["kv"][0]["k"], "orders");
    assert_eq!(get(&format!("unsubscribe?topic=orders&url={x}")).await, good);
    assert_eq!(get(&format!("unsubscribe?topic=orders&url={y}")).await, good);
    assert_eq!(get(&format!("unsubscribe?topic=orders&url={y}")).await.1["message"], "this topic is empty");
    let reply = app.http().ask(http::Method::DELETE, "/api/dtmsvr/topic/orders", &[], None).await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.json);
    let reply = app.http().ask(http::Method::DELETE, "/api/dtmsvr/topic/orders", &[], None).await.unwrap();
    assert_eq!((reply.status, &reply.json), (500, &json!({ "message": "storage: NotFound" })));
    must_err(&app, "submit", &with(body, "gid", json!("t3")), "topic not found").await;
}
