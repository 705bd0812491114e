//! Webhooks: signed as Standard Webhooks has it, called until the shop says 2xx, over crashes and for a bounded time.

use super::{SOON, Stage, buy, is_problem};
use crate::support::app::eventually;
use crate::support::shop::Answer;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::Command;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

pub(super) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A shop's receiver: notes every call, answers with a status that can be changed.
pub(super) struct Receiver {
    calls: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
    status: Arc<Mutex<u16>>,
    pub(super) url: String,
}

impl Receiver {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?shop=1", listener.local_addr().unwrap());
        let (calls, status): (Arc<Mutex<Vec<_>>>, Arc<Mutex<u16>>) = (Arc::default(), Arc::new(Mutex::new(204)));
        let noted = (calls.clone(), status.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (calls, status) = noted.clone();
                tokio::spawn(async move {
                    let service = service_fn(|request: Request<Incoming>| {
                        let (calls, status) = (calls.clone(), status.clone());
                        async move {
                            assert_eq!(request.uri().to_string(), "/hook?shop=1");
                            let headers = request.headers().clone();
                            let body = request.into_body().collect().await?.to_bytes();
                            calls.lock().unwrap().push((headers, body));
                            let status = *status.lock().unwrap();
                            let response = Response::builder().status(status).header("location", "/elsewhere");
                            Ok::<_, hyper::Error>(response.body(Full::<Bytes>::default()).unwrap())
                        }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { calls, status, url }
    }

    pub(super) fn answer(&self, status: u16) {
        *self.status.lock().unwrap() = status;
    }

    pub(super) fn calls(&self) -> Vec<(HeaderMap, Bytes)> {
        self.calls.lock().unwrap().clone()
    }

    fn ids(&self) -> BTreeSet<String> {
        self.calls().iter().map(|(headers, _)| headers["webhook-id"].to_str().unwrap().to_owned()).collect()
    }

    fn hook(&self) -> Value {
        json!({"webhook": {"url": self.url, "secret": SECRET}})
    }

    pub(super) async fn wait_for_calls(&self, count: usize) {
        eventually("webhooks", SOON, || async { self.calls().len() >= count }).await;
    }
}

/// The signature as Python's standard library makes it.
pub(super) fn signed_elsewhere(id: &str, timestamp: &str, body: &[u8]) -> String {
    let program = "import base64, hashlib, hmac, sys\n\
        secret, head, body = sys.argv[1], sys.argv[2], sys.argv[3]\n\
        key = base64.b64decode(secret.split('_')[1])\n\
        print('v1,' + base64.b64encode(hmac.new(key, (head + body).encode(), hashlib.sha256).digest()).decode())";
    let output = Command::new("python3")
        .args(["-c", program, SECRET, &format!("{id}.{timestamp}."), std::str::from_utf8(body).unwrap()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn hooks_left(stage: &Stage) -> u64 {
    let mut connection =
        redis::Client::open(stage.redis.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let keys: Vec<String> =
        redis::cmd("KEYS").arg(format!("{}*hooks", stage.prefix)).query_async(&mut connection).await.unwrap();
    let mut left = 0;
    for key in keys {
        let waiting: u64 = redis::cmd("XLEN").arg(&key).query_async(&mut connection).await.unwrap();
        let pending: redis::streams::StreamPendingReply =
            redis::cmd("XPENDING").arg(&key).arg("webhooks").query_async(&mut connection).await.unwrap();
        left += waiting + pending.count() as u64;
    }
    left
}

#[tokio::test]
async fn each_end_is_told_signed_and_without_the_secret_anywhere() {
    let stage = Stage::new().await;
    let receiver = Receiver::start().await;
    let created = stage.sale("s", 5, receiver.hook()).await;
    assert_eq!(created["webhook"], json!({"url": receiver.url}));
    stage.shop.script([Answer::Created]);
    let sold = stage.app.order("s", "", &buy("u1", 2)).await.gid().unwrap().to_owned();
    receiver.wait_for_calls(1).await;
    stage.shop.script([Answer::Refused("card \"declined\"".into())]);
    let refused = stage.app.order("s", "", &buy("Zoë", 1)).await.gid().unwrap().to_owned();
    receiver.wait_for_calls(2).await;
    let expected = [(sold, "succeed", "u1", 2, Value::Null), (refused, "failed", "Zoë", 1, json!("card \"declined\""))];
    for ((headers, body), (gid, status, buyer, quantity, reason)) in receiver.calls().iter().zip(expected) {
        let header = |name: &str| headers[name].to_str().unwrap();
        assert_eq!(header("content-type"), "application/json");
        assert_eq!(header("webhook-id"), format!("{gid}.{status}"));
        let timestamp: i64 = header("webhook-timestamp").parse().unwrap();
        assert!((jiff::Timestamp::now().as_second() - timestamp).abs() < 300, "as receivers check it");
        let signature = signed_elsewhere(header("webhook-id"), header("webhook-timestamp"), body);
        assert_eq!(header("webhook-signature"), signature);
        let told: Value = serde_json::from_slice(body).unwrap();
        assert_eq!(
            (&told["id"], &told["gid"], &told["status"], &told["buyer"], &told["reason"], &told["items"]),
            (
                &json!(format!("{gid}.{status}")),
                &json!(gid),
                &json!(status),
                &json!(buyer),
                &reason,
                &json!([{"sku": "sku-1", "quantity": quantity}])
            )
        );
        let order = stage.app.get(&format!("/v1/orders/{gid}")).await.json;
        assert_eq!(order["finished_at"], told["at"], "the records have it when the shop hears of it");
    }
    eventually("nothing is left", SOON, || async { hooks_left(&stage).await == 0 }).await;

    let other = json!({"webhook": {"url": receiver.url, "secret": SECRET.replace("MfKQ", "AAAA")}, "request_id": "r1"});
    assert_eq!(stage.app.patch("/v1/sales/s", &other).await.status, 200);
    for path in ["/v1/sales/s", "/v1/sales", "/v1/sales/s/changes", "/metrics"] {
        let shown = stage.app.http().text(path).await;
        assert!(!shown.contains("8GKYqrTw"), "{path}: {shown}");
    }
    assert!(!stage.app.log().contains("8GKYqrTw"));
    assert_eq!(stage.app.patch("/v1/sales/s", &json!({"webhook": null})).await.json["webhook"], Value::Null);
    stage.app.order("s", "", &buy("u1", 1)).await;
    stage.app.wait_until_settled("s").await;
    assert_eq!((receiver.calls().len(), hooks_left(&stage).await), (2, 0), "who wants to hear nothing hears nothing");
}

#[tokio::test]
async fn a_webhook_that_is_not_answered_with_2xx_is_called_again() {
    let stage = Stage::with(|options| options.setting("webhook.retry_base_ms", 20)).await;
    let receiver = Receiver::start().await;
    stage.sale("s", 5, receiver.hook()).await;
    for (round, status) in [(1, 500), (2, 404), (3, 302)] {
        let before = receiver.calls().len();
        receiver.answer(status);
        stage.app.order("s", "", &buy(&format!("u{round}"), 1)).await;
        receiver.wait_for_calls(before + 3).await;
        receiver.answer(200);
        eventually("it is told", SOON, || async { hooks_left(&stage).await == 0 }).await;
        assert_eq!(receiver.ids().len(), round, "every try has the same id");
    }
    let bodies: BTreeSet<Bytes> = receiver.calls().into_iter().map(|(_, body)| body).collect();
    assert_eq!(bodies.len(), 3, "and the same body");
}

/// A node that dies after the shop heard, and before Redis knows: another tells it once more, with the same id.
#[tokio::test]
async fn a_crash_loses_no_webhook() {
    let quick = |options: crate::support::app::AppOptions| options.setting("delivery.lease_ms", 300);
    let mut stage = Stage::with(|options| quick(options).crash_at("webhook.after_call")).await;
    let receiver = Receiver::start().await;
    stage.sale("s", 5, receiver.hook()).await;
    stage.app.order("s", "", &buy("u1", 1)).await;
    eventually("it dies", SOON, || std::future::ready(!stage.app.is_running())).await;
    assert_eq!(receiver.calls().len(), 1);
    let other = stage.another_node_with(|options| options.without_crash()).await;
    receiver.wait_for_calls(2).await;
    eventually("nothing is left", SOON, || async { hooks_left(&stage).await == 0 }).await;
    assert_eq!(receiver.ids().len(), 1);
    assert_eq!(other.wait_until_settled("s").await["drift"], 0);
}

#[tokio::test]
async fn a_webhook_is_given_up_when_its_time_is_over() {
    let stage =
        Stage::with(|options| options.setting("webhook.retry_base_ms", 20).setting("webhook.give_up_after_s", 1)).await;
    let receiver = Receiver::start().await;
    receiver.answer(503);
    stage.sale("s", 5, receiver.hook()).await;
    stage.app.order("s", "", &buy("u1", 1)).await;
    eventually("it is given up", SOON, || async { stage.app.log().contains("a webhook is given up") }).await;
    eventually("nothing is left", SOON, || async { hooks_left(&stage).await == 0 }).await;
    assert!(receiver.calls().len() > 1);
}

#[tokio::test]
async fn a_webhook_that_cannot_be_is_told_which_field_is_wrong() {
    let stage = Stage::new().await;
    stage.sale("good", 5, json!({})).await;
    for (webhook, field) in [
        (json!({"url": "http://127.0.0.1/"}), "webhook"),
        (json!({"url": "ftp://127.0.0.1/", "secret": SECRET}), "webhook.url"),
        (json!({"url": "http://u:p@127.0.0.1/", "secret": SECRET}), "webhook.url"),
        (json!({"url": "http://127.0.0.1/", "secret": "whsec_c2hvcnQ="}), "webhook.secret"),
        (json!({"url": "http://127.0.0.1/", "secret": SECRET, "retries": 3}), "webhook.retries"),
    ] {
        let reply = stage.app.post("/v1/sales", &[], &stage.body("s", 1, json!({"webhook": webhook}))).await;
        is_problem(&reply, 422, "invalid_sale");
        assert_eq!(reply.json["field"], field, "{webhook}: {}", reply.json);
        let reply = stage.app.patch("/v1/sales/good", &json!({"webhook": webhook})).await;
        is_problem(&reply, 422, "invalid_sale");
    }
}
