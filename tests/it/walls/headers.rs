//! What a transaction may have sent along with its calls (T03).

use crate::support::app::{App, AppOptions};
use crate::support::services::Service;
use serde_json::{Value, json};

fn saga(service: &Service, gid: &str, headers: Value) -> Value {
    let steps = json!([{ "action": service.url("/a"), "compensate": service.url("/c") }]);
    json!({ "gid": gid, "trans_type": "saga", "steps": steps, "payloads": ["{}"], "wait_result": true, "branch_headers": headers })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_would_say_how_a_request_is_sent_is_refused() {
    let service = Service::start().await;
    let app = App::start(AppOptions::default().quick_trans()).await;
    let submit =
        async |gid: &str, headers: Value| app.post("/api/dtmsvr/submit", &[], &saga(&service, gid, headers)).await;
    for name in [
        "Host",
        "content-length",
        "Transfer-Encoding",
        "CONNECTION",
        "te",
        "Trailer",
        "upgrade",
        "Keep-Alive",
        "Expect",
        "Proxy-Connection",
        "HTTP2-Settings",
        "Forwarded",
        "x y",
        "x:y",
        "",
        "x\r\ny",
    ] {
        let reply = submit("g", json!({ name: "x" })).await;
        let said = reply.json["message"].as_str().unwrap_or_default();
        assert!(reply.status == 400 && said.starts_with("branch_headers: "), "{name}: {} {said}", reply.status);
    }
    for value in ["a\r\nb: c", "a\nb", "\u{0}", "\u{7f}"] {
        assert_eq!(submit("g", json!({ "x-a": value })).await.status, 400, "{value:?}");
    }
    assert!(service.all_calls().is_empty());
    // On loopback, as in dtm, a transaction may bring the credentials of whoever begins it.
    let reply = submit("g1", json!({ "Authorization": "Bearer b", "x-tenant": "7" })).await;
    assert_eq!(reply.status, 200, "{}", reply.json);
    let call = &service.calls("g1")[0];
    let sent = ["authorization", "x-tenant"].map(|name| call.headers[name].to_str().unwrap());
    assert_eq!(sent, ["Bearer b", "7"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_refused_where_that_is_set() {
    let service = Service::start().await;
    let app = App::start(AppOptions::default().quick_trans().setting("calls.credentials", "refuse")).await;
    for name in ["Authorization", "cookie", "Proxy-Authorization"] {
        let reply = app.post("/api/dtmsvr/submit", &[], &saga(&service, "g", json!({ name: "hunter2" }))).await;
        let said = reply.json["message"].as_str().unwrap_or_default();
        assert!(
            reply.status == 400 && said.contains("calls.credentials") && !said.contains("hunter2"),
            "{}",
            reply.json
        );
    }
    let reply = app.post("/api/dtmsvr/submit", &[], &saga(&service, "g", json!({ "x-tenant": "7" }))).await;
    assert_eq!(reply.status, 200, "{}", reply.json);
}
