//! Where a URL comes in: what must not be called is refused there, at every door and in every field, with the field's name.

use crate::support::app::{App, AppOptions};
use crate::support::raw::Raw;
use crate::support::services::Service;
use crate::support::shop::Shop;
use bytes::Bytes;
use prost::Message;
use rushline::proto::dtmgimp::{DtmRequest, DtmTopicRequest};
use serde_json::{Value, json};

/// One address, in all the ways that somebody who resolves names may read it.
pub const SPELLINGS: [&str; 16] = [
    "169.254.169.254",
    "169.254.169.254.",
    "2852039166",
    "0xa9fea9fe",
    "0xA9.0xFE.0xA9.0xFE",
    "0251.0376.0251.0376",
    "025177524776",
    "169.254.43518",
    "169.16689662",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[0:0:0:0:0:ffff:a9fe:a9fe]",
    "[::169.254.169.254]",
    "[64:ff9b::a9fe:a9fe]",
    "[fe80::a9fe:a9fe]",
    "[fd00:ec2::254]",
];
/// The same by rules that only URLs have.
const SPELLINGS_OF_URLS: [&str; 4] =
    ["u:p@169.254.169.254", "１６９.254.169.254", "169。254。169。254", "%31%36%39.254.169.254"];
/// Others that no service has.
const NOBODYS: [&str; 6] = ["0.0.0.0", "0", "[::]", "255.255.255.255", "224.0.0.251", "[ff02::1]"];

fn saga(gid: &str, field: &str, url: &str) -> Value {
    let mut step = json!({ "action": "http://127.0.0.1:9/a", "compensate": "http://127.0.0.1:9/c" });
    step[field] = json!(url);
    json!({ "gid": gid, "trans_type": "saga", "steps": [step], "payloads": ["{}"] })
}

async fn grpc(app: &App, method: &'static str, message: Vec<u8>) -> Result<(), tonic::Status> {
    let channel = tonic::transport::Channel::from_shared(format!("http://{}", app.grpc())).unwrap().connect_lazy();
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let path = http::uri::PathAndQuery::try_from(format!("/dtmgimp.Dtm/{method}")).unwrap();
    client.unary(tonic::Request::new(Bytes::from(message)), path, Raw).await.map(|_: tonic::Response<Bytes>| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_not_be_called_is_refused_where_it_comes_in() {
    let app = App::start(AppOptions::default().quick_trans()).await;
    let refused = async |route: &str, body: &Value, field: &str| {
        let reply = app.post(route, &[], body).await;
        let said = reply.json["message"].as_str().unwrap_or_default();
        let named = said.starts_with(&format!("{field}: ")) && said.contains("may not be called");
        assert!(reply.status == 400 && named, "{route} {body}: {} {}", reply.status, reply.json);
    };
    for host in SPELLINGS.iter().chain(&SPELLINGS_OF_URLS).chain(&NOBODYS) {
        for url in [format!("http://{host}/latest"), format!("https://{host}:8443/latest?x=y")] {
            for field in ["action", "compensate"] {
                refused("/api/dtmsvr/submit", &saga("g", field, &url), field).await;
            }
        }
    }
    let url = "http://169.254.169.254/latest";
    let message = json!({ "gid": "m", "trans_type": "msg", "query_prepared": url });
    refused("/api/dtmsvr/prepare", &message, "query_prepared").await;
    for trans_type in ["tcc", "xa"] {
        let begun = json!({ "gid": trans_type, "trans_type": trans_type });
        assert_eq!(app.post("/api/dtmsvr/prepare", &[], &begun).await.status, 200);
    }
    for field in ["confirm", "cancel"] {
        let mut branch = json!({ "gid": "tcc", "trans_type": "tcc", "branch_id": "01", "data": "",
            "confirm": "http://127.0.0.1:9/a", "cancel": "http://127.0.0.1:9/a" });
        branch[field] = json!(url);
        refused("/api/dtmsvr/registerBranch", &branch, field).await;
    }
    let branch = json!({ "gid": "xa", "trans_type": "xa", "branch_id": "01", "url": url });
    refused("/api/dtmsvr/registerXaBranch", &branch, "url").await;
    let subscribed = app.get("/api/dtmsvr/subscribe?topic=t&url=http%3A%2F%2F169.254.169.254%2F").await;
    assert_eq!(subscribed.status, 400, "{}", subscribed.json);

    let topic = DtmTopicRequest { topic: "t".into(), url: url.into(), remark: String::new() };
    assert!(grpc(&app, "Subscribe", topic.encode_to_vec()).await.unwrap_err().message().contains("may not be called"));
    for host in SPELLINGS.iter().chain(&NOBODYS) {
        for action in
            [format!("{host}:80/p.S/M"), format!("grpcs://{host}:443/p.S/M"), format!("direct:///{host}:80/p.S/M")]
        {
            let steps = json!([{ "action": action }]).to_string();
            let request = DtmRequest { gid: "g".into(), trans_type: "saga".into(), steps, ..Default::default() };
            let said = grpc(&app, "Submit", request.encode_to_vec()).await.unwrap_err();
            assert_eq!(said.code(), tonic::Code::InvalidArgument, "{action}: {said}");
        }
    }

    let shop = Shop::start().await;
    let sale = |fields: Value| {
        let mut sale = json!({
            "sale": "s", "items": [{"sku": "sku-1", "units": 1}], "durability": "memory", "order_endpoint": shop.endpoint(),
        });
        sale.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        sale
    };
    let hook = json!({ "webhook": { "url": url, "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" } });
    let mut wrong = vec![("webhook.url".to_owned(), hook)];
    for field in ["url", "end_url", "count_url", "list_url"] {
        let mut endpoint = shop.endpoint();
        endpoint[field] = json!("http://2852039166/");
        wrong.push((format!("order_endpoint.{field}"), json!({ "order_endpoint": endpoint })));
    }
    for (field, fields) in &wrong {
        let reply = app.post("/v1/sales", &[], &sale(fields.clone())).await;
        assert_eq!((reply.status, reply.code()), (422, "invalid_sale"), "{}", reply.json);
        assert_eq!(reply.json["field"], *field, "{}", reply.json);
    }
    app.create_sale(&sale(json!({}))).await;
    for (_, fields) in &wrong {
        assert_eq!(app.patch("/v1/sales/s", fields).await.status, 422);
    }
    assert_eq!(app.patch("/v1/sales/s", &json!({"status": "paused"})).await.status, 200);
    assert_eq!(app.get("/api/dtmsvr/query?gid=g").await.json["transaction"], Value::Null, "nothing was taken");
}

/// A list of one's own: who is on it is called, who is not is refused.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_on_the_list_is_not_called() {
    let (bank, other) = (Service::start().await, Service::start().await);
    let port = bank.address().rsplit_once(':').unwrap().1;
    let options = AppOptions::default().quick_trans();
    let app = App::start(options.setting("calls.allow", format!("127.0.0.1:{port}"))).await;
    let submit = async |gid: &str, url: String| app.post("/api/dtmsvr/submit", &[], &saga(gid, "action", &url)).await;
    let mut body = saga("g1", "action", &bank.url("/a"));
    body["steps"][0]["compensate"] = json!(bank.url("/c"));
    body["wait_result"] = json!(true);
    let reply = app.post("/api/dtmsvr/submit", &[], &body).await;
    assert_eq!(reply.status, 200, "{}", reply.json);
    let refused = submit("g2", other.url("/a")).await;
    assert_eq!(refused.status, 400, "{}", refused.json);
    assert!(refused.json["message"].as_str().unwrap().contains("calls.allow"), "{}", refused.json);
    assert!(other.all_calls().is_empty());
    // An alert hook that could not be called is found out at the start.
    let start = std::process::Command::new(env!("CARGO_BIN_EXE_rushline"))
        .args(["config", "check", "--calls-allow", "bank.example", "--trans-alert-url", "http://other.example/alert"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&start.stderr);
    assert!(!start.status.success() && said.contains("trans.alert_url cannot be called"), "{said}");
}
