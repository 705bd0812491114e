//! Workflows: the server keeps the progress and calls back.

use super::{ask, must, query, start, wait_for};
use crate::support::services::Service;
use serde_json::{Value, json};

fn begin(service: &Service, gid: &str) -> Value {
    json!({ "gid": gid, "trans_type": "workflow", "protocol": "http", "query_prepared": service.url("/wf"),
        "custom_data": "{\"name\":\"w\",\"data\":\"aGVsbG8=\"}", "concurrent": false })
}

fn end(gid: &str, status: &str) -> Value {
    let extra = json!({ "status": status, "rollback_reason": "", "result": "cmVz" });
    json!({ "gid": gid, "trans_type": "workflow", "req_extra": extra })
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_kept_and_the_result_read_back() {
    let (app, service) = start().await;
    let reply = ask(&app, "prepareWorkflow", &begin(&service, "w1")).await;
    assert_eq!(reply.status, 200, "{}", reply.json);
    assert_eq!(reply.json["progresses"], json!([]));
    assert_eq!(reply.json["transaction"]["status"], "prepared");
    let step = json!({ "gid": "w1", "trans_type": "workflow", "branch_id": "01", "op": "action", "status": "succeed",
        "data": "done" });
    must(&app, "registerBranch", &step).await;
    must(&app, "registerBranch", &step).await;
    let reply = ask(&app, "prepareWorkflow", &begin(&service, "w1")).await;
    let progress = &reply.json["progresses"][0];
    assert_eq!(progress["bin_data"], "ZG9uZQ==");
    assert_eq!(
        (&progress["branch_id"], &progress["op"], &progress["status"]),
        (&json!("01"), &json!("action"), &json!("succeed"))
    );
    must(&app, "submit", &end("w1", "succeed")).await;
    must(&app, "submit", &end("w1", "succeed")).await; // dtm: 500; a client whose answer was lost asks again
    let reply = ask(&app, "submit", &end("w1", "failed")).await;
    assert_eq!(reply.status, 409, "{}", reply.json);
    let reply = ask(&app, "prepareWorkflow", &begin(&service, "w1")).await;
    assert_eq!(
        (&reply.json["transaction"]["status"], &reply.json["transaction"]["result"]),
        (&json!("succeed"), &json!("cmVz"))
    );
    let reply = ask(&app, "submit", &end("w9", "succeed")).await;
    assert_eq!((reply.status, &reply.json), (500, &json!({ "message": "storage: NotFound" })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_client_is_called_back_with_its_input() {
    let (app, service) = start().await;
    service.answers("/wf", &[(500, ""), (425, ""), (200, "")]);
    ask(&app, "prepareWorkflow", &begin(&service, "b1")).await;
    service.wait_for_calls("b1", 3).await;
    let call = &service.calls("b1")[0];
    assert_eq!((call.method.as_str(), call.step().as_str(), &call.body[..]), ("POST", "w/00", &b"hello"[..]));
    assert_eq!(query(&app, "b1").await["transaction"]["status"], "prepared");
    let mut without_input = begin(&service, "b2");
    without_input["custom_data"] = json!("{\"name\":\"w\"}");
    ask(&app, "prepareWorkflow", &without_input).await;
    service.wait_for_calls("b2", 1).await;
    assert_eq!(service.calls("b2")[0].method, "POST", "its handler takes nothing else");
    must(&app, "submit", &end("b1", "failed")).await;
    wait_for(&app, "b1", "failed").await;
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    let calls = service.calls("b1").len();
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    assert_eq!(service.calls("b1").len(), calls, "it is over");
}
