//! Workflows: the server keeps the progress and calls back.

use super::{FULL, Outcome, Over, Stage, everywhere};
use rushline::proto::workflow::WorkflowData;
use serde_json::{Value, json};

fn begin(stage: &Stage, gid: &str) -> Value {
    json!({ "gid": gid, "trans_type": "workflow", "protocol": stage.protocol(), "query_prepared": stage.url("/wf"),
        "custom_data": "{\"name\":\"w\",\"data\":\"aGVsbG8=\"}", "concurrent": false })
}

fn end(gid: &str, status: &str) -> Value {
    let extra = json!({ "status": status, "rollback_reason": "", "result": "cmVz" });
    json!({ "gid": gid, "trans_type": "workflow", "req_extra": extra })
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_kept_and_the_result_read_back() {
    everywhere(FULL, async |stage| {
        let gid = stage.gid("w1");
        let body = with_long_interval(begin(&stage, &gid));
        let answer = stage.ask("prepareWorkflow", &body).await;
        assert_eq!(answer.outcome, Outcome::Success, "{answer:?}");
        assert_eq!(answer.json["progresses"], json!([]));
        assert_eq!(answer.json["transaction"]["status"], "prepared");
        let step = json!({ "gid": gid, "trans_type": "workflow", "branch_id": "01", "op": "action",
            "status": "succeed", "data": "done" });
        stage.must("registerBranch", &step).await;
        stage.must("registerBranch", &step).await;
        let answer = stage.ask("prepareWorkflow", &body).await;
        let progress = &answer.json["progresses"][0];
        assert_eq!(progress["bin_data"], "ZG9uZQ==");
        assert_eq!(
            (&progress["branch_id"], &progress["op"], &progress["status"]),
            (&json!("01"), &json!("action"), &json!("succeed"))
        );
        stage.must("submit", &end(&gid, "succeed")).await;
        stage.must("submit", &end(&gid, "succeed")).await; // dtm: 500; a client whose answer was lost asks again
        let answer = stage.ask("submit", &end(&gid, "failed")).await;
        assert_eq!(answer.outcome, Outcome::Failure, "{answer:?}");
        // dtm leaves the result out over gRPC.
        let answer = stage.ask("prepareWorkflow", &body).await;
        let transaction = &answer.json["transaction"];
        assert_eq!((&transaction["status"], &transaction["result"]), (&json!("succeed"), &json!("cmVz")));
        stage.must_err("submit", &end(&stage.gid("w9"), "succeed"), "storage: NotFound").await;
    })
    .await;
}

fn with_long_interval(mut body: Value) -> Value {
    body["retry_interval"] = json!(60);
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_client_is_called_back_with_its_input() {
    everywhere(FULL, async |stage| {
        let gid = stage.gid("b1");
        stage.service.answers("/wf", &[(500, ""), (425, ""), (200, "")]);
        stage.ask("prepareWorkflow", &begin(&stage, &gid)).await;
        stage.service.wait_for_calls(&gid, 3).await;
        let call = &stage.calls(&gid)[0];
        let input = match stage.over {
            Over::Grpc => prost::Message::encode_to_vec(&WorkflowData { data: "hello".into() }),
            Over::Http | Over::JsonRpc => b"hello".to_vec(),
        };
        assert_eq!((call.method.as_str(), call.step().as_str(), &call.body[..]), ("POST", "w/00", &input[..]));
        assert_eq!(stage.status(&gid).await, "prepared");
        let silent = stage.gid("b2");
        let mut without_input = begin(&stage, &silent);
        without_input["custom_data"] = json!("{\"name\":\"w\"}");
        stage.ask("prepareWorkflow", &without_input).await;
        stage.service.wait_for_calls(&silent, 1).await;
        assert_eq!(stage.calls(&silent)[0].method, "POST", "its handler takes nothing else");
        stage.must("submit", &end(&gid, "failed")).await;
        stage.wait_for(&gid, "failed").await;
        let over = stage.calls(&gid).len();
        // The other goes on being called; when it has been often enough, this one would have been too.
        stage.service.wait_for_calls(&silent, 6).await;
        assert!(stage.calls(&gid).len() <= over + 1, "it is over; one call may have been under way");
    })
    .await;
}
