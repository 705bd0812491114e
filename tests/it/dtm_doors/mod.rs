//! Global transactions as dtm's SDKs see them: each story is told once and runs over every door (HTTP, JSON-RPC, gRPC)
//! with branches over every protocol, against a real server and real branch services.

mod grpc;
mod message;
mod outage;
mod saga;
mod two_phase;
mod workflow;

use crate::dtm_http;
use crate::support::app::{App, AppOptions};
use crate::support::services::{Call, Service};
use bytes::Bytes;
use rushline::proto::dtmgimp::dtm_client::DtmClient;
use rushline::proto::dtmgimp::{DtmBranchRequest, DtmRequest, DtmTopicRequest, DtmTransOptions};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// How the server is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Http,
    JsonRpc,
    Grpc,
}

/// How it calls the branches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Http,
    JsonRpc,
    Grpc,
}

/// Every pair that there is: what comes in by gRPC has no JSON-RPC branches.
const ALL: &[(Door, Over)] = &[
    (Door::Http, Over::Http),
    (Door::Http, Over::JsonRpc),
    (Door::Http, Over::Grpc),
    (Door::JsonRpc, Over::Http),
    (Door::JsonRpc, Over::JsonRpc),
    (Door::JsonRpc, Over::Grpc),
    (Door::Grpc, Over::Http),
    (Door::Grpc, Over::Grpc),
];

/// The doors that have workflows and topics.
const FULL: &[(Door, Over)] =
    &[(Door::Http, Over::Http), (Door::Http, Over::Grpc), (Door::Grpc, Over::Http), (Door::Grpc, Over::Grpc)];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Success,
    Failure,
    Ongoing,
    Invalid,
    Other,
}

/// What a door said, whatever its words for it are.
#[derive(Debug)]
struct Answer {
    outcome: Outcome,
    message: String,
    /// Of prepareWorkflow, as HTTP has it.
    json: Value,
}

/// One way to run a story. All of one story share a server.
struct Stage {
    app: Arc<App>,
    door: Door,
    over: Over,
    service: Service,
    client: DtmClient<Channel>,
}

/// Runs the story in each of these ways, all at once.
async fn everywhere<F, T>(ways: &[(Door, Over)], story: F)
where
    F: Fn(Stage) -> T,
    T: Future<Output = ()> + Send + 'static,
{
    // Longer than usual, since so many stories share the machine: a call that is cut off is called again.
    let options = AppOptions::default().quick_trans();
    let options = options.setting("trans.request_timeout_ms", 10_000).setting("trans.lease_ms", 3_000);
    let app = Arc::new(App::start(options).await);
    let mut running = Vec::new();
    for &(door, over) in ways {
        running.push(((door, over), tokio::spawn(story(Stage::new(app.clone(), door, over).await))));
    }
    let mut failed = Vec::new();
    for (way, task) in running {
        if task.await.is_err() {
            failed.push(way);
        }
    }
    assert!(failed.is_empty(), "with these, see above: {failed:?}");
}

impl Stage {
    async fn new(app: Arc<App>, door: Door, over: Over) -> Self {
        let client = DtmClient::connect(format!("http://{}", app.grpc())).await.unwrap();
        Self { app, door, over, service: Service::start().await, client }
    }

    /// A gid of this way's own.
    fn gid(&self, stem: &str) -> String {
        format!("{stem}-{:?}-{:?}", self.door, self.over)
    }

    fn url(&self, path: &str) -> String {
        match self.over {
            Over::Http => self.service.url(path),
            Over::JsonRpc => self.service.json_rpc_url(path),
            Over::Grpc => self.service.grpc_url(path),
        }
    }

    fn protocol(&self) -> &'static str {
        match (self.over, self.door) {
            (Over::Http, _) => "",
            (Over::JsonRpc, _) | (Over::Grpc, Door::JsonRpc) => "json-rpc",
            (Over::Grpc, _) => "grpc",
        }
    }

    /// A saga of as many steps as `names`: action `/NAME`, compensation `/NAME-undo`, payload `{"step":i}`.
    fn saga(&self, gid: &str, names: &[&str]) -> Value {
        let step = |name: &&str| json!({ "action": self.url(&format!("/{name}")), "compensate": self.url(&format!("/{name}-undo")) });
        let steps: Vec<Value> = names.iter().map(step).collect();
        let payloads: Vec<String> = (0..names.len()).map(|i| format!("{{\"step\":{i}}}")).collect();
        json!({ "gid": gid, "trans_type": "saga", "steps": steps, "payloads": payloads, "concurrent": false,
            "protocol": self.protocol() })
    }

    /// A call of the interface by the name and with the body that it has over HTTP.
    async fn ask(&self, call: &str, body: &Value) -> Answer {
        match self.door {
            Door::Http => self.ask_http(call, body).await,
            Door::JsonRpc => self.ask_json_rpc(call, body).await,
            Door::Grpc => self.ask_grpc(call, body).await,
        }
    }

    async fn ask_http(&self, call: &str, body: &Value) -> Answer {
        let reply = match call {
            "subscribe" | "unsubscribe" => {
                let pairs = body.as_object().unwrap().iter().map(|(name, value)| (name, value.as_str().unwrap()));
                let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
                self.app.get(&format!("/api/dtmsvr/{call}?{query}")).await
            }
            "deleteTopic" => {
                let path = format!("/api/dtmsvr/topic/{}", body["topic"].as_str().unwrap());
                self.app.http().ask(http::Method::DELETE, &path, &[], None).await.unwrap()
            }
            _ => self.app.post(&format!("/api/dtmsvr/{call}"), &[], body).await,
        };
        let outcome = match (reply.status, reply.json["dtm_result"].as_str()) {
            (200, Some("SUCCESS")) => Outcome::Success,
            (200, None) if call == "prepareWorkflow" => Outcome::Success,
            (409, Some("FAILURE")) => Outcome::Failure,
            (425, Some("ONGOING")) => Outcome::Ongoing,
            (400, None) => Outcome::Invalid,
            (500, None) => Outcome::Other,
            _ => panic!("{call} {body}: {} {}", reply.status, reply.json),
        };
        let message = reply.json["message"].as_str().unwrap_or_default().to_owned();
        Answer { outcome, message, json: reply.json }
    }

    async fn ask_json_rpc(&self, call: &str, body: &Value) -> Answer {
        let request = json!({ "jsonrpc": "2.0", "id": "1", "method": call, "params": body });
        let reply = self.app.post("/api/json-rpc", &[], &request).await;
        assert_eq!(reply.status, 200, "{call} {body}: {}", reply.json);
        let error = &reply.json["error"];
        let outcome = match error["code"].as_i64() {
            None => Outcome::Success,
            Some(-32901) => Outcome::Failure,
            // dtm has one code for both.
            Some(-32603) if error["message"].as_str().unwrap().contains("ONGOING") => Outcome::Ongoing,
            Some(-32603) => Outcome::Other,
            Some(-32602) => Outcome::Invalid,
            Some(code) => panic!("{call} {body}: {code} {}", reply.json),
        };
        Answer { outcome, message: error["message"].as_str().unwrap_or_default().to_owned(), json: Value::Null }
    }

    async fn ask_grpc(&self, call: &str, body: &Value) -> Answer {
        let mut client = self.client.clone();
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        let topic = || DtmTopicRequest { topic: text("topic"), url: text("url"), remark: text("remark") };
        let answer = match call {
            "submit" => client.submit(trans_request(body)).await.map(|_| Value::Null),
            "prepare" => client.prepare(trans_request(body)).await.map(|_| Value::Null),
            "abort" => client.abort(trans_request(body)).await.map(|_| Value::Null),
            "registerBranch" => client.register_branch(branch_request(body)).await.map(|_| Value::Null),
            "subscribe" => client.subscribe(topic()).await.map(|_| Value::Null),
            "unsubscribe" => client.unsubscribe(topic()).await.map(|_| Value::Null),
            "deleteTopic" => client.delete_topic(topic()).await.map(|_| Value::Null),
            "prepareWorkflow" => client.prepare_workflow(trans_request(body)).await.map(|reply| {
                let reply = reply.into_inner();
                let transaction = reply.transaction.unwrap();
                let progresses: Vec<Value> = reply
                    .progresses
                    .iter()
                    .map(|one| {
                        let data = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &one.bin_data);
                        json!({ "branch_id": one.branch_id, "op": one.op, "status": one.status, "bin_data": data })
                    })
                    .collect();
                json!({ "progresses": progresses, "transaction": { "gid": transaction.gid, "result": transaction.result,
                    "status": transaction.status, "rollback_reason": transaction.rollback_reason } })
            }),
            _ => panic!("gRPC has no {call}"),
        };
        match answer {
            Ok(json) => Answer { outcome: Outcome::Success, message: String::new(), json },
            Err(status) => {
                let outcome = outcome(&status);
                Answer { outcome, message: status.message().to_owned(), json: Value::Null }
            }
        }
    }

    async fn must(&self, call: &str, body: &Value) {
        let answer = self.ask(call, body).await;
        assert_eq!(answer.outcome, Outcome::Success, "{call} {body}: {answer:?}");
    }

    /// A call that must fail for good, with this text.
    async fn must_fail(&self, call: &str, body: &Value, message: &str) {
        self.must_be(Outcome::Failure, call, body, message).await;
    }

    /// A call that must fail, and may succeed another time.
    async fn must_err(&self, call: &str, body: &Value, message: &str) {
        self.must_be(Outcome::Other, call, body, message).await;
    }

    async fn must_be(&self, outcome: Outcome, call: &str, body: &Value, message: &str) {
        let answer = self.ask(call, body).await;
        assert_eq!((answer.outcome, answer.message.as_str()), (outcome, message), "{call} {body}");
    }

    /// What is known of it; asked over HTTP, since the others have no such question.
    async fn query(&self, gid: &str) -> Value {
        dtm_http::query(&self.app, gid).await
    }

    async fn status(&self, gid: &str) -> String {
        dtm_http::status(&self.app, gid).await
    }

    /// The statuses of the branches, in their order.
    async fn branches(&self, gid: &str) -> Vec<String> {
        let found = self.query(gid).await;
        let branches = found["branches"].as_array().unwrap();
        branches.iter().map(|branch| branch["status"].as_str().unwrap().to_owned()).collect()
    }

    async fn wait_for(&self, gid: &str, wanted: &str) {
        dtm_http::wait_for(&self.app, gid, wanted).await;
    }

    fn steps(&self, gid: &str) -> Vec<String> {
        self.service.steps(gid)
    }

    fn calls(&self, gid: &str) -> Vec<Call> {
        self.service.calls(gid)
    }
}

fn outcome(status: &Status) -> Outcome {
    match status.code() {
        Code::Aborted => Outcome::Failure,
        Code::FailedPrecondition => Outcome::Ongoing,
        Code::InvalidArgument => Outcome::Invalid,
        Code::Unknown | Code::Internal => Outcome::Other,
        code => panic!("{code:?}: {}", status.message()),
    }
}

fn map(value: &Value) -> HashMap<String, String> {
    let entries = value.as_object().into_iter().flatten();
    entries.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
}

/// The body that HTTP has, as gRPC has it.
fn trans_request(body: &Value) -> DtmRequest {
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let number = |name: &str| body[name].as_i64().unwrap_or_default();
    let payloads = body["payloads"].as_array().into_iter().flatten();
    let mut custom_data = text("custom_data");
    if body["trans_type"] == "msg" && body["concurrent"] == true {
        custom_data = json!({ "concurrent": true }).to_string();
    }
    DtmRequest {
        gid: text("gid"),
        trans_type: text("trans_type"),
        trans_options: Some(DtmTransOptions {
            wait_result: body["wait_result"] == true,
            timeout_to_fail: number("timeout_to_fail"),
            retry_interval: number("retry_interval"),
            branch_headers: map(&body["branch_headers"]),
            request_timeout: number("request_timeout"),
            retry_limit: number("retry_limit"),
        }),
        customed_data: custom_data,
        bin_payloads: payloads.map(|text| Bytes::from(text.as_str().unwrap().to_owned())).collect(),
        query_prepared: text("query_prepared"),
        steps: if body["steps"].is_null() { String::new() } else { body["steps"].to_string() },
        req_extra: map(&body["req_extra"]),
        rollback_reason: text("rollback_reason"),
    }
}

fn branch_request(body: &Value) -> DtmBranchRequest {
    let mut data = map(body);
    let mut take = |name: &str| data.remove(name).unwrap_or_default();
    let (gid, trans_type, branch_id) = (take("gid"), take("trans_type"), take("branch_id"));
    let busi_payload = take("data").into();
    DtmBranchRequest { gid, trans_type, branch_id, op: String::new(), data, busi_payload }
}
