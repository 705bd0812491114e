//! What operators ask: lists, stops, timers, alerts, gids, orders of a sale; and the JSON-RPC door.

use super::{ask, must, must_err, must_fail, query, saga, start, status, wait_for, waiting, with};
use crate::support::app::{App, AppOptions};
use crate::support::services::Service;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::Duration;

async fn all(app: &App, filters: &str) -> Value {
    let reply = app.get(&format!("/api/dtmsvr/all?{filters}")).await;
    assert_eq!(reply.status, 200, "{}", reply.json);
    reply.json
}

fn gids(page: &Value) -> Vec<String> {
    let transactions = page["transactions"].as_array().unwrap();
    transactions.iter().map(|one| one["gid"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_paged_and_filtered() {
    let (app, service) = start().await;
    service.answers("/no", &[(409, "no")]);
    for i in 0..25 {
        must(&app, "submit", &waiting(saga(&service, &format!("s{i}"), &["a"]))).await;
    }
    must(&app, "submit", &saga(&service, "bad", &["no"])).await;
    wait_for(&app, "bad", "failed").await;
    must(&app, "prepare", &json!({ "gid": "tcc", "trans_type": "tcc", "timeout_to_fail": 30 })).await;
    let mut seen = Vec::new();
    let mut position = String::new();
    loop {
        let page = all(&app, &format!("limit=10&position={position}")).await;
        seen.extend(gids(&page));
        position = page["next_position"].as_str().unwrap().to_owned();
        if position.is_empty() {
            break;
        }
    }
    assert_eq!(seen.len(), 27, "{seen:?}");
    assert_eq!(seen.iter().collect::<HashSet<_>>().len(), 27, "each once");
    assert_eq!(seen[0], "tcc", "newest first");
    assert_eq!(gids(&all(&app, "status=failed").await), ["bad"]);
    assert_eq!(gids(&all(&app, "transType=tcc").await), ["tcc"]);
    assert_eq!(gids(&all(&app, "transType=tcc&status=succeed").await), [""; 0]);
    assert_eq!(gids(&all(&app, "status=nonsense").await), [""; 0]);
    assert_eq!(gids(&all(&app, "createTimeStart=0&createTimeEnd=1000").await), [""; 0]);
    assert_eq!(gids(&all(&app, "createTimeStart=1000&limit=1000").await).len(), 27);
    assert_eq!(gids(&all(&app, "gid=s3").await), ["s3"]);
    assert_eq!(all(&app, "gid=s99").await, json!({ "next_position": "", "transactions": null }));
    let reply = app.get("/api/dtmsvr/all?limit=abc").await;
    assert_eq!((reply.status, &reply.json), (500, &json!({ "message": "convert to int error: abc" })));
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_and_hurried_by_hand() {
    let app = App::start(
        AppOptions::default()
            .quick_trans()
            .setting("trans.retry_interval_ms", 60_000)
            .setting("trans.retry_max_ms", 60_000),
    )
    .await;
    let service = Service::start().await;
    service.answers("/a", &[(500, ""), (500, ""), (200, "")]);
    must(&app, "submit", &saga(&service, "h1", &["a"])).await;
    service.wait_for_calls("h1", 1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    must(&app, "resetNextCronTime", &json!({ "gid": "h1" })).await;
    service.wait_for_calls("h1", 2).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let reply = app.get("/api/dtmsvr/resetCronTime?timeout=1&limit=10").await;
    assert_eq!(reply.json, json!({ "has_remaining": false, "succeed_count": 1 }));
    wait_for(&app, "h1", "succeed").await;
    must(&app, "resetNextCronTime", &json!({ "gid": "h1" })).await;
    must_err(&app, "resetNextCronTime", &json!({ "gid": "h9" }), "no TransGlobal with gid: h9 found").await;

    service.answers("/a", &[(500, "")]);
    must(&app, "submit", &saga(&service, "h2", &["a"])).await;
    service.wait_for_calls("h2", 1).await;
    must(&app, "forceStop", &json!({ "gid": "h2" })).await;
    assert_eq!(status(&app, "h2").await, "failed");
    let stopped = "global transaction force stop error. status: failed. error: FAILURE";
    must_fail(&app, "forceStop", &json!({ "gid": "h2" }), stopped).await;
    must_err(&app, "forceStop", &json!({ "gid": "h9" }), "no TransGlobal with gid: h9 found").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_tell_what_does_not_get_on() {
    let service = Service::start().await;
    let options = AppOptions::default().quick_trans().setting("trans.alert_url", service.url("/alert"));
    let app = App::start(options.setting("trans.alert_after", 2)).await;
    service.answers("/a", &[(500, "broken"), (500, "broken"), (200, "")]);
    must(&app, "submit", &saga(&service, "a1", &["a"])).await;
    wait_for(&app, "a1", "succeed").await;
    let alerts: Vec<_> = service.all_calls().into_iter().filter(|call| call.path == "/alert").collect();
    assert_eq!(alerts.len(), 1, "after the second pass, and not after the first");
    let alert: Value = serde_json::from_slice(&alerts[0].body).unwrap();
    assert_eq!(
        (&alert["gid"], &alert["status"], &alert["branch"]),
        (&json!("a1"), &json!("submitted"), &json!(service.url("/a")))
    );
    assert!(alert["error"].as_str().unwrap().contains("broken") && alert["retry_count"].is_u64(), "{alert}");
}

#[tokio::test(flavor = "multi_thread")]
async fn small_questions() {
    let (app, _) = start().await;
    assert_eq!(app.get("/api/ping").await.json, json!({ "msg": "pong" }));
    assert!(app.get("/api/dtmsvr/version").await.json["version"].is_string());
    let fresh = app.get("/api/dtmsvr/newGid").await.json;
    assert_eq!(fresh["dtm_result"], "SUCCESS");
    assert_eq!(fresh["gid"].as_str().unwrap().len(), 22);
    assert_eq!(query(&app, "unknown").await, json!({ "branches": [], "transaction": null }));
    let reply = app.get("/api/dtmsvr/query").await;
    assert_eq!((reply.status, &reply.json), (500, &json!({ "message": "no gid specified" })));
    assert_eq!(app.get("/api/metrics").await.status, 200);
    for path in ["/api/nothing", "/api/dtmsvr/nothing", "/api/dtmsvr/submit"] {
        assert_eq!(app.get(path).await.status, 404, "{path}");
    }
    assert_eq!(app.get("/api/dtmsvr/newGid/").await.status, 301);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_of_a_sale_is_a_message() {
    let (app, _) = start().await;
    let shop = crate::support::shop::Shop::start().await;
    let sale = crate::support::crowd::sale(shop.endpoint());
    app.create_sale(&sale).await;
    let (name, sku) = (sale["sale"].as_str().unwrap(), sale["items"][0]["sku"].as_str().unwrap());
    let order = json!({ "buyer": "b1", "items": [{ "sku": sku, "quantity": 1 }] });
    let reply = app.order(name, "k1", &order).await;
    let gid = reply.gid().unwrap_or_else(|| panic!("{}", reply.json)).to_owned();
    wait_for(&app, &gid, "succeed").await;
    let found = query(&app, &gid).await;
    assert_eq!((&found["transaction"]["trans_type"], &found["branches"][0]["op"]), (&json!("msg"), &json!("action")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_json_rpc_door() {
    let (app, service) = start().await;
    let rpc = async |method: &str, params: Value| {
        let body = json!({ "jsonrpc": "2.0", "id": "7", "method": method, "params": params });
        let reply = app.post("/api/json-rpc", &[], &body).await;
        assert_eq!(reply.status, 200, "{}", reply.json);
        reply.json
    };
    let fresh = rpc("newGid", json!({})).await;
    assert_eq!((&fresh["id"], &fresh["jsonrpc"], &fresh["error"]), (&json!("7"), &json!("2.0"), &Value::Null));
    let good = json!({ "error": null, "id": "7", "jsonrpc": "2.0", "result": null });
    assert_eq!(rpc("submit", waiting(saga(&service, "r1", &["a"]))).await, good);
    assert_eq!(rpc("prepare", json!({ "gid": "r2", "trans_type": "tcc", "timeout_to_fail": 20 })).await, good);
    let branch = json!({ "gid": "r2", "trans_type": "tcc", "branch_id": "01", "data": "{}",
        "confirm": service.url("/confirm"), "cancel": service.url("/cancel") });
    assert_eq!(rpc("registerBranch", branch).await, good);
    assert_eq!(rpc("abort", json!({ "gid": "r2", "trans_type": "tcc" })).await, good);
    wait_for(&app, "r2", "failed").await;
    let refused = rpc("submit", json!({ "gid": "r2", "trans_type": "tcc" })).await;
    assert_eq!(
        refused["error"],
        json!({ "code": -32901, "message": "current status 'failed', cannot sumbmit. FAILURE" })
    );
    assert_eq!(rpc("nonsense", json!({})).await["error"]["code"], -32601);
    assert_eq!(rpc("abort", json!({ "gid": "r9", "trans_type": "tcc" })).await["error"]["code"], -32603);
    for (body, status, code) in [
        (json!({ "jsonrpc": "2.0", "id": 1, "method": "newGid" }), 400, -32700),
        (json!({ "jsonrpc": "1.0", "id": "1", "method": "newGid" }), 200, -32600),
        (json!({ "jsonrpc": "2.0", "method": "newGid" }), 200, -32600),
        (json!([]), 400, -32700),
    ] {
        let reply = app.post("/api/json-rpc", &[], &body).await;
        assert_eq!((reply.status, &reply.json["error"]["code"]), (status, &json!(code)), "{body}");
    }
    // An address in a registry that nobody here can ask: refused, not accepted and then never called.
    let body = with(saga(&service, "g1", &["a"]), "protocol", json!("grpc"));
    let mut body = with(body, "steps", json!([{ "action": "nowhere://h/s/p.S/m", "compensate": "" }]));
    body["payloads"] = json!([""]);
    assert_eq!(ask(&app, "submit", &body).await.status, 501);
    assert_eq!(status(&app, "g1").await, "");
}
