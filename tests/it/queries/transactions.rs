//! Global transactions: found by what they are, shown whole, tried again, stopped; and how everything stands.

use super::{SOON, all_pages, column, sale, start};
use crate::dtm_http::wait_for;
use crate::support::app::{App, eventually};
use crate::support::services::Service;
use http_body_util::BodyExt;
use serde_json::{Value, json};

async fn submit(app: &App, service: &Service, gid: &str, path: &str) {
    let body = json!({
        "gid": gid, "trans_type": "saga", "payloads": [format!("{{\"note\":\"of {gid}\"}}")],
        "steps": [{"action": service.url(path), "compensate": service.url("/undo")}],
        "branch_headers": {"authorization": "Bearer hunter2"},
    });
    assert_eq!(app.post("/api/dtmsvr/submit", &[], &body).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_are_found_shown_tried_again_and_stopped() {
    let (app, _) = start().await;
    let service = Service::start().await;
    service.answers("/stuck", &[(500, "no disk left"), (500, "no disk left"), (200, "")]);
    for n in 0..12 {
        submit(&app, &service, &format!("good{n}"), "/good").await;
    }
    submit(&app, &service, "stuck1", "/stuck").await;
    for n in 0..12 {
        wait_for(&app, &format!("good{n}"), "succeed").await;
    }
    let find = async |filter: &str| all_pages(&app, &format!("/v1/transactions?{filter}"), "transactions", 5).await;
    eventually("it failed", SOON, || async { !find("attention=true").await.is_empty() }).await;
    assert_eq!(find("").await.len(), 13);
    assert_eq!(find("status=succeed").await.len(), 12);
    assert_eq!(find("type=tcc").await.len(), 0);
    assert_eq!(column(&find("q=OF%20good7").await, "gid"), ["good7"], "by payload");
    assert_eq!(column(&find("q=/stuck").await, "gid"), ["stuck1"], "by address");
    assert_eq!(column(&find("q=no%20disk").await, "gid"), ["stuck1"], "by what went wrong");
    assert_eq!(column(&find("attention=true").await, "gid"), ["stuck1"]);
    assert_eq!(app.get("/v1/transactions?sort=up").await.code(), "invalid_query");

    let shown = app.get("/v1/transactions/stuck1").await.json;
    assert_eq!(
        (&shown["held_in"], &shown["attention"], &shown["failed_passes"]),
        (&json!("redis"), &json!(true), &json!(1))
    );
    assert!(shown["last_error"]["error"].as_str().unwrap().contains("no disk left"), "{shown}");
    assert_eq!(shown["branch_list"][1]["payload"]["text"], "{\"note\":\"of stuck1\"}");
    assert!(!shown.to_string().contains("hunter2"), "what is in headers may be a secret: {shown}");
    assert!(shown["next_try_at"].is_string(), "{shown}");

    let by_hand = async |gid: &str, what: &str| {
        let headers = [("rushline-operator", "anna")];
        app.post(&format!("/v1/transactions/{gid}/{what}"), &headers, &json!({"reason": "disk is back"})).await
    };
    assert_eq!(by_hand("stuck1", "retry").await.status, 200);
    service.wait_for_calls("stuck1", 2).await;
    eventually("it waits again", SOON, || async {
        app.get("/v1/transactions/stuck1").await.json["failed_passes"] == 2
    })
    .await;
    let stopped = by_hand("stuck1", "stop").await;
    assert_eq!((stopped.status, &stopped.json["status"]), (200, &json!("failed")), "{}", stopped.json);
    assert_eq!(by_hand("stuck1", "stop").await.code(), "over");
    assert_eq!(by_hand("nobody", "retry").await.code(), "unknown_transaction");
    assert!(app.log().contains("disk is back") && app.log().contains("anna"), "who did it, and why, is in the log");
    eventually("it is drained", SOON, || async {
        app.get("/v1/transactions/good3").await.json["held_in"] == "records"
    })
    .await;
    assert_eq!(app.get("/v1/transactions/good3").await.json["branch_list"].as_array().unwrap().len(), 2);
}

/// Once as JSON, and as a stream; what another site's page asks for is refused.
#[tokio::test(flavor = "multi_thread")]
async fn how_everything_stands() {
    let (app, shop) = start().await;
    sale(&app, &shop, "s", 5, json!({})).await;
    assert_eq!(app.order("s", "", &super::buy("u1", "")).await.status, 201);
    app.wait_until_settled("s").await;
    let node = |json: &Value| json["nodes"][0]["alive"] == true;
    eventually("the node is heard of", SOON, || async { node(&app.get("/v1/overview").await.json) }).await;
    let now = app.get("/v1/overview").await.json;
    assert_eq!((&now["sales"][0]["sale"], &now["sales"][0]["conservation_difference"]), (&json!("s"), &json!(0)));
    assert_eq!((&now["redis"]["usable"], &now["records"]["kind"]), (&json!(true), &json!("SQLite")));
    assert_eq!(now["counters"]["orders_admitted_total"], 1.0);
    assert!(now["histograms"]["admission_s"].as_array().unwrap().len() > 10, "{now}");

    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    let request = http::Request::builder().uri(format!("{}/v1/live", app.base()));
    let request = request.body(http_body_util::Full::<bytes::Bytes>::default()).unwrap();
    let response = client.request(request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();
    for _ in 0..2 {
        let frame = tokio::time::timeout(SOON, body.frame()).await.unwrap().unwrap().unwrap();
        let text = String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap();
        let data = text.strip_prefix("event: overview\ndata: ").unwrap_or_else(|| panic!("{text}"));
        assert_eq!(serde_json::from_str::<Value>(data).unwrap()["sales"][0]["sale"], "s");
    }
    let forged = [("sec-fetch-site", "cross-site")];
    let body = json!({"status": "closed"});
    let reply = app.http().ask(http::Method::PATCH, "/v1/sales/s", &forged, Some(&body)).await.unwrap();
    assert_eq!((reply.status, reply.code()), (403, "cross_site"));
    let reply = app.post("/api/dtmsvr/forceStop", &forged, &json!({"gid": "g"})).await;
    assert_eq!((reply.status, reply.code()), (403, "cross_site"));
    assert_eq!(app.get("/v1/sales/s").await.json["status"], "open");
}
