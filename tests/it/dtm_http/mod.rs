//! Global transactions over HTTP: what operators ask, what goes wrong, what is malformed; and the JSON-RPC door's words.
//! The stories of the modes, over all doors, are in `dtm_doors/`.

mod administration;
pub mod drained;
mod faults;
mod malformed;
mod malformed_grpc;

use crate::support::app::{App, AppOptions, Reply};
use crate::support::services::Service;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Longer than any transaction of a story takes, on a busy machine.
const END_WAIT_MAX: Duration = Duration::from_secs(20);

async fn start() -> (App, Service) {
    (App::start(AppOptions::default().quick_trans()).await, Service::start().await)
}

/// A call of dtm's HTTP interface.
async fn ask(app: &App, route: &str, body: &Value) -> Reply {
    app.post(&format!("/api/dtmsvr/{route}"), &[], body).await
}

/// A call that must succeed.
async fn must(app: &App, route: &str, body: &Value) {
    let reply = ask(app, route, body).await;
    assert_eq!((reply.status, &reply.json), (200, &json!({ "dtm_result": "SUCCESS" })), "{route} {body}");
}

/// A call that must fail for good, with this text.
async fn must_fail(app: &App, route: &str, body: &Value, message: &str) {
    let reply = ask(app, route, body).await;
    let expected = json!({ "dtm_result": "FAILURE", "message": message });
    assert_eq!((reply.status, &reply.json), (409, &expected), "{route} {body}");
}

/// A call that must answer 500 with this text.
async fn must_err(app: &App, route: &str, body: &Value, message: &str) {
    let reply = ask(app, route, body).await;
    assert_eq!((reply.status, &reply.json), (500, &json!({ "message": message })), "{route} {body}");
}

pub async fn query(app: &App, gid: &str) -> Value {
    let reply = app.get(&format!("/api/dtmsvr/query?gid={gid}")).await;
    assert_eq!(reply.status, 200, "{}", reply.json);
    reply.json
}

pub async fn status(app: &App, gid: &str) -> String {
    query(app, gid).await["transaction"]["status"].as_str().unwrap_or_default().to_owned()
}

/// Waits until the transaction has this status.
pub async fn wait_for(app: &App, gid: &str, wanted: &str) {
    let deadline = Instant::now() + END_WAIT_MAX;
    loop {
        let found = query(app, gid).await;
        if found["transaction"]["status"] == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{gid} does not become {wanted}: {found}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A saga of as many steps as `names`: action `/NAME`, compensation `/NAME-undo`, payload `{"step":i}`.
fn saga(service: &Service, gid: &str, names: &[&str]) -> Value {
    let steps: Vec<Value> = names
        .iter()
        .map(|name| {
            let (action, compensate) = (service.url(&format!("/{name}")), service.url(&format!("/{name}-undo")));
            json!({ "action": action, "compensate": compensate })
        })
        .collect();
    let payloads: Vec<String> = (0..names.len()).map(|i| format!("{{\"step\":{i}}}")).collect();
    json!({ "gid": gid, "trans_type": "saga", "steps": steps, "payloads": payloads, "concurrent": false, "protocol": "" })
}

pub fn waiting(mut body: Value) -> Value {
    body["wait_result"] = json!(true);
    body
}

pub fn with(mut body: Value, key: &str, value: Value) -> Value {
    body[key] = value;
    body
}
