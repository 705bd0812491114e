//! Orders and transactions that do not get on: they are shown, and tried again when a person says so.

use super::{SOON, Stage, buy};
use crate::support::app::{App, eventually};
use crate::support::services::Service;
use crate::support::shop::Answer;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

async fn rushline(app: &App, arguments: &[&str]) -> String {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_rushline"));
    command.args(arguments).env("RUSHLINE_SERVER", app.base()).env("RUSHLINE_OPERATOR", "anna").kill_on_drop(true);
    let output = command.output().await.unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{arguments:?}: {text}");
    text
}

/// The node that has an order hears of it from any other.
#[tokio::test]
async fn an_order_that_waits_is_shown_and_tried_when_somebody_says_so() {
    let stage = Stage::with(|options| {
        options
            .setting("delivery.retry_base_ms", 600_000)
            .setting("delivery.retry_max_ms", 600_000)
            .setting("delivery.lease_ms", 600)
            .setting("delivery.attention_after", 1)
    })
    .await;
    let other = stage.another_node().await;
    stage.sale("s", 9, json!({})).await;
    stage.shop.always(Answer::Status(500, String::new()));
    let mut gids = Vec::new();
    for buyer in ["u1", "u2", "u3"] {
        gids.push(stage.app.order("s", "", &buy(buyer, 1)).await.gid().unwrap().to_owned());
    }
    let attention = "/v1/sales/s/orders?attention=true";
    let shown = |page: Value| page["orders"].as_array().unwrap().len();
    eventually("all three are shown", SOON, || async { shown(other.get(attention).await.json) == 3 }).await;
    assert_eq!(stage.app.get(&format!("/v1/orders/{}", gids[0])).await.json["attention"], true);

    stage.shop.always(Answer::Created);
    rushline(&other, &["order", "retry", &gids[0], "--reason", "the shop is back"]).await;
    stage.wait(&gids[0], "succeed").await;
    let listed = rushline(&other, &["order", "list", "s", "--attention", "--json"]).await;
    assert!(!listed.contains(&gids[0]) && listed.contains(&gids[1]) && listed.contains(&gids[2]), "{listed}");
    assert_eq!(stage.shop.calls(&gids[1]).len(), 1, "the others wait on");

    let told = rushline(&other, &["order", "retry", "s", "--attention"]).await;
    assert!(told.contains("2 tried again, 0 could not be"), "{told}");
    stage.wait(&gids[1], "succeed").await;
    stage.wait(&gids[2], "succeed").await;
    let over = stage.app.post(&format!("/v1/orders/{}/retry", gids[0]), &[], &json!({})).await;
    assert_eq!((over.status, over.code()), (409, "over"), "{}", over.json);
    assert_eq!(stage.app.wait_until_settled("s").await["drift"], 0);
    assert!(other.log().contains("the shop is back") && other.log().contains("anna"));
}

#[tokio::test]
async fn a_transaction_that_is_stopped_is_called_again_when_somebody_says_so() {
    let service = Service::start().await;
    let stage = Stage::with(|options| {
        options.quick_trans().setting("trans.alert_after", 2).setting("trans.attention_then", "stop")
    })
    .await;
    let submit = async |gid: &str, fields: Value| {
        let mut saga =
            json!({"gid": gid, "trans_type": "saga", "steps": [{"action": service.url("/out")}], "payloads": ["{}"]});
        saga.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        stage.app.post("/api/dtmsvr/submit", &[], &saga).await.status
    };
    let show = async |gid: &str| stage.app.get(&format!("/v1/transactions/{gid}")).await.json;
    service.answers("/out", &[(500, "")]);
    assert_eq!(submit("stopped", json!({})).await, 200);
    eventually("it is stopped", SOON, || async { show("stopped").await["paused"] == true }).await;
    let one = show("stopped").await;
    assert_eq!(
        (&one["attention"], &one["next_try_at"], &one["status"]),
        (&json!(true), &Value::Null, &json!("submitted"))
    );
    assert_eq!(service.calls("stopped").len(), 2);

    // One that merely waits is hurried when the service answers again; what is stopped is not.
    let (since, waiting) = (Instant::now(), (0..8).map(|n| format!("waits-{n}")).collect::<Vec<_>>());
    for gid in &waiting {
        assert_eq!(submit(gid, json!({"retry_interval": 600})).await, 200);
        service.wait_for_calls(gid, 1).await;
    }
    let outage = || async { since.elapsed() > Duration::from_millis(2_100) }; // shorter ones are hiccups
    eventually("it counts as an outage", SOON, outage).await;
    service.answers("/out", &[(200, "")]);
    assert_eq!(submit("fine", json!({"wait_result": true})).await, 200);
    eventually("what waits is hurried", SOON, || async { show(&waiting[7]).await["status"] == "succeed" }).await;
    assert_eq!((service.calls("stopped").len(), &show("stopped").await["paused"]), (2, &json!(true)));

    // By hand it gets one pass each time.
    service.answers("/out", &[(500, ""), (200, "")]);
    rushline(&stage.app, &["txn", "retry", "stopped"]).await;
    service.wait_for_calls("stopped", 3).await;
    eventually("it is stopped again", SOON, || async { show("stopped").await["paused"] == true }).await;
    assert_eq!(service.calls("stopped").len(), 3);
    rushline(&stage.app, &["txn", "retry", "--attention"]).await;
    eventually("it is over", SOON, || async { show("stopped").await["status"] == "succeed" }).await;
}
