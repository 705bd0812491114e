//! Alerts: each thing that needs a person is told once, whichever node finds it and however often it starts, and once more
//! when it is over.

use super::webhook::{Receiver, SECRET, signed_elsewhere};
use super::{SOON, Stage, buy};
use crate::support::app::{App, AppOptions, eventually};
use crate::support::crowd::ask_redis;
use crate::support::servers::{Postgres, Redis, RedisVersion};
use crate::support::services::Service;
use crate::support::shop::{Answer, Shop};
use serde_json::{Value, json};

fn told(receiver: &Receiver) -> Vec<Value> {
    receiver.calls().iter().map(|(_, body)| serde_json::from_slice(body).unwrap()).collect()
}

/// Type, kind and subject of each.
fn words(receiver: &Receiver) -> Vec<(String, String, String)> {
    let text = |one: &Value, name: &str| one[name].as_str().unwrap().to_owned();
    told(receiver).iter().map(|one| (text(one, "type"), text(one, "kind"), text(one, "subject"))).collect()
}

fn word(what: &str, kind: &str, subject: &str) -> (String, String, String) {
    (format!("alert.{what}"), kind.to_owned(), subject.to_owned())
}

fn alerting(options: AppOptions, receiver: &Receiver) -> AppOptions {
    options.setting("alerts.url", &receiver.url).setting("alerts.secret", SECRET)
}

#[tokio::test]
async fn an_order_that_does_not_get_on_is_told_once_and_when_it_does() {
    let receiver = Receiver::start().await;
    let with = |options: AppOptions| alerting(options.setting("delivery.attention_after", 3), &receiver);
    let mut stage = Stage::with(|options| with(options).setting("delivery.lease_ms", 600)).await;
    stage.shop.always(Answer::Status(500, "the-words-of-the-shop".into()));
    stage.sale("s", 5, json!({})).await;
    receiver.answer(503); // the first calls are in vain
    let gid = stage.app.order("s", "", &buy("u1", 1)).await.gid().unwrap().to_owned();
    receiver.wait_for_calls(1).await;
    receiver.answer(204);
    receiver.wait_for_calls(2).await;

    // Another run of the node finds the same, and nobody hears of it again.
    let before = stage.shop.calls(&gid).len();
    stage.app.restart(|options| options).await;
    eventually("more failed calls", SOON, || async { stage.shop.calls(&gid).len() > before + 5 }).await;
    stage.shop.always(Answer::Created);
    receiver.wait_for_calls(3).await;
    let raised = word("raised", "order.stuck", &gid);
    assert_eq!(words(&receiver), [raised.clone(), raised, word("resolved", "order.stuck", &gid)]);
    let all = told(&receiver);
    assert_eq!((&all[0], &all[2]["id"]), (&all[1], &json!(format!("{}.resolved", all[0]["id"].as_str().unwrap()))));
    for (headers, body) in receiver.calls() {
        let header = |name: &str| headers[name].to_str().unwrap();
        let signature = signed_elsewhere(header("webhook-id"), header("webhook-timestamp"), &body);
        assert_eq!(header("webhook-signature"), signature);
        let text = String::from_utf8_lossy(&body).into_owned();
        assert!(!text.contains("the-words-of-the-shop") && !text.contains("u1\""), "{text}");
    }
    let log = stage.app.log();
    assert!(log.contains("this needs a person") && !log.contains("MfKQ9r8G"), "{log}");
    let metrics = stage.app.http().text("/metrics").await;
    assert!(metrics.contains(r#"rushline_alerts_total{kind="order.stuck",result="resolved"} 1"#), "{metrics}");
}

#[tokio::test]
async fn a_transaction_that_does_not_get_on_is_told_by_the_host_of_its_branch() {
    let (receiver, service) = (Receiver::start().await, Service::start().await);
    let stage = Stage::with(|options| alerting(options, &receiver).quick_trans().setting("trans.alert_after", 2)).await;
    service.answers("/out", &[(500, "the-words-of-the-branch")]);
    let gid = "g-stuck";
    let saga = json!({
        "gid": gid, "trans_type": "saga", "steps": [{"action": service.url("/out")}], "payloads": ["{\"p\":\"payload\"}"],
    });
    assert_eq!(stage.app.post("/api/dtmsvr/submit", &[], &saga).await.status, 200);
    receiver.wait_for_calls(1).await;
    service.answers("/out", &[(200, "")]);
    receiver.wait_for_calls(2).await;
    let expected = [word("raised", "transaction.stuck", gid), word("resolved", "transaction.stuck", gid)];
    assert_eq!(words(&receiver), expected);
    let text = told(&receiver)[0]["text"].as_str().unwrap().to_owned();
    assert!(text.contains(service.address()) && !text.contains("/out"), "{text}");
}

#[tokio::test]
async fn a_full_redis_and_a_fenced_sale_are_told() {
    let (receiver, shop) = (Receiver::start().await, Shop::start().await);
    let mut redis = Redis::start(RedisVersion::V8, &["--appendonly", "no"]).await;
    let app = App::start(alerting(AppOptions::default().quick().redis(&redis.url()), &receiver)).await;
    let items = json!([{"sku": "sku-1", "units": 9}]);
    let sale = json!({"sale": "s", "items": items, "durability": "memory", "order_endpoint": shop.endpoint()});
    app.create_sale(&sale).await;
    // Keys may be written still, but new work may not be taken on.
    let used: String = ask_redis(&redis, &["INFO", "memory"]).await;
    let used = used.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().trim().parse::<u64>().unwrap();
    ask_redis::<()>(&redis, &["CONFIG", "SET", "maxmemory", &(used * 108 / 100).to_string()]).await;
    receiver.wait_for_calls(1).await;
    ask_redis::<()>(&redis, &["CONFIG", "SET", "maxmemory", "0"]).await;
    receiver.wait_for_calls(2).await;
    assert_eq!(words(&receiver), [word("raised", "redis.full", "redis"), word("resolved", "redis.full", "redis")]);

    ask_redis::<()>(&redis, &["SAVE"]).await;
    assert_eq!(app.order("s", "k1", &buy("u1", 1)).await.status, 201);
    app.wait_until_settled("s").await;
    redis.kill9();
    redis.restart().await;
    receiver.wait_for_calls(3).await;
    let repaired =
        || async { app.post("/v1/sales/s/repair?wait_ms=20000", &[], &json!({})).await.json["open"] == true };
    eventually("it is repaired", SOON, repaired).await;
    receiver.wait_for_calls(4).await;
    assert_eq!(words(&receiver)[2..], [word("raised", "sale.fenced", "s"), word("resolved", "sale.fenced", "s")]);
}

#[tokio::test]
async fn records_that_stay_away_are_told() {
    let (receiver, mut postgres) = (Receiver::start().await, Postgres::start().await);
    let stage = Stage::with(|options| {
        alerting(options, &receiver).records(&postgres.url()).setting("alerts.records_down_s", 1)
    })
    .await;
    stage.sale("s", 5, json!({})).await;
    postgres.kill9();
    stage.app.order("s", "k1", &buy("u1", 1)).await;
    receiver.wait_for_calls(1).await;
    postgres.restart().await;
    receiver.wait_for_calls(2).await;
    let expected = [word("raised", "records.away", "records"), word("resolved", "records.away", "records")];
    assert_eq!(words(&receiver), expected);
}
