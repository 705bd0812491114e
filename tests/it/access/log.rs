//! What operators do is written down under the name of their token.

use super::{SOON, Tokens, ask};
use crate::support::app::{App, eventually};
use crate::support::shop::Shop;
use rushline::access::Role;
use rushline::proto::dtmgimp::DtmTopicRequest;
use rushline::proto::dtmgimp::dtm_client::DtmClient;
use serde_json::{Value, json};

/// The lines of the operators' log, in their order. In a test the log is JSON.
fn lines(app: &App) -> Vec<Value> {
    let log = app.log();
    let parsed = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    parsed.map(|line| line["fields"].clone()).filter(|fields| fields["message"] == "by hand").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_action_is_one_line_with_who_what_why_and_how_it_came_out() {
    let tokens = Tokens::new();
    // Whatever else is not logged, this is.
    let (app, shop) = (App::start(tokens.options().setting("log.level", "error")).await, Shop::start().await);
    let (operator, reader) = (tokens.bearer(Role::Operator), tokens.bearer(Role::Reader));
    let headers = [("authorization", operator.as_str()), ("rushline-operator", "somebody else")];
    let sale = json!({"sale": "s", "items": [{"sku": "a", "units": 5}], "durability": "memory",
        "order_endpoint": {"url": shop.url()}});
    assert_eq!(ask(&app, "POST", "/v1/sales", &headers, Some(&sale)).await.status, 201);
    let stock = json!({"sku": "a", "units": 3, "request_id": "r1", "reason": "found\u{7} a box"});
    let refused = ask(&app, "POST", "/v1/sales/s/stock", &headers, Some(&stock)).await;
    assert_eq!(refused.status, 422, "a reason of one line: {}", refused.json);
    let stock = json!({"sku": "a", "units": 3, "request_id": "r1", "reason": "found a box"});
    assert_eq!(ask(&app, "POST", "/v1/sales/s/stock", &headers, Some(&stock)).await.status, 200);
    let low = [("authorization", reader.as_str())];
    assert_eq!(ask(&app, "PATCH", "/v1/sales/s", &low, Some(&json!({"status": "closed"}))).await.status, 403);
    let stop = json!({"gid": "nobody"});
    ask(&app, "POST", "/api/dtmsvr/forceStop", &headers, Some(&stop)).await;
    let mut client = DtmClient::connect(format!("http://{}", app.grpc())).await.unwrap();
    let mut topic =
        tonic::Request::new(DtmTopicRequest { topic: "points".into(), url: "http://h/x".into(), ..Default::default() });
    topic.metadata_mut().insert("authorization", operator.parse().unwrap());
    client.subscribe(topic).await.unwrap();

    eventually("all lines are there", SOON, async || lines(&app).len() >= 6).await;
    let lines = lines(&app);
    let short = |line: &Value| {
        ["who", "what", "on", "reason", "request_id", "outcome"]
            .map(|name| line[name].as_str().unwrap_or("?").to_owned())
    };
    let expected = [
        ["operator", "POST /v1/sales", "s", "", "", "201"],
        ["operator", "POST /v1/sales/{sale}/stock", "s", "found  a box", "r1", "422"],
        ["operator", "POST /v1/sales/{sale}/stock", "s", "found a box", "r1", "200"],
        ["reader", "PATCH /v1/sales/{sale}", "s", "", "", "403"],
        ["operator", "POST /api/dtmsvr/forceStop", "nobody", "", "", "500"],
        ["operator", "POST /dtmgimp.Dtm/Subscribe", "points", "", "", "200"],
    ];
    assert_eq!(lines.iter().map(short).collect::<Vec<_>>(), expected.map(|line| line.map(str::to_owned)));
    assert!(lines.iter().all(|line| line["peer"].as_str().unwrap().starts_with("127.0.0.1:")), "{lines:?}");
    // The sale's own log has the token's name too, not the one that was claimed.
    let changes = ask(&app, "GET", "/v1/sales/s/changes", &headers, None).await;
    assert_eq!(changes.json["changes"][0]["who"], "operator", "{}", changes.json);
}
