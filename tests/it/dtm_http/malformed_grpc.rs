//! The same rubbish over gRPC, and what only gRPC can get wrong: frames that lie about themselves.

use super::malformed::{begin, calls, cut, keys, names, wrong_values};
use crate::support::app::App;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use prost::Message;
use rushline::proto::dtmgimp::{DtmBranchRequest, DtmRequest, DtmTopicRequest, DtmTransOptions};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::Duration;

const ANSWER_WAIT_MAX: Duration = Duration::from_secs(20);
const INVALID_ARGUMENT: &str = "3";
const METHODS: [&str; 9] = [
    "NewGid",
    "Submit",
    "Prepare",
    "Abort",
    "RegisterBranch",
    "PrepareWorkflow",
    "Subscribe",
    "Unsubscribe",
    "DeleteTopic",
];

struct Answer {
    /// Empty if there is none.
    code: String,
    message: String,
    http: u16,
}

struct Caller {
    base: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Caller {
    fn new(app: &App) -> Self {
        Self { base: app.base(), client: Client::builder(TokioExecutor::new()).http2_only(true).build_http() }
    }

    async fn send(&self, method: &str, content_type: &str, body: Vec<u8>) -> Answer {
        let request = Request::builder().method(Method::POST).uri(format!("{}/dtmgimp.Dtm/{method}", self.base));
        let request = request.header("content-type", content_type).header("te", "trailers");
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let asking = async {
            let response = self.client.request(request).await.unwrap_or_else(|error| panic!("{method}: {error:?}"));
            let (head, body) = response.into_parts();
            let body = body.collect().await.unwrap_or_else(|error| panic!("{method}: {error:?}"));
            let trailers = body.trailers().cloned().unwrap_or_default();
            let of = |name: &str| {
                trailers.get(name).or(head.headers.get(name)).map(|value| value.to_str().unwrap().to_owned())
            };
            let message = of("grpc-message").unwrap_or_default();
            let message = url::form_urlencoded::parse(format!("x={}", message.replace('+', "%2B")).as_bytes())
                .next()
                .unwrap()
                .1
                .into_owned();
            Answer { code: of("grpc-status").unwrap_or_default(), message, http: head.status.as_u16() }
        };
        tokio::time::timeout(ANSWER_WAIT_MAX, asking).await.unwrap_or_else(|_| panic!("{method}: no answer"))
    }

    async fn call(&self, method: &str, message: &[u8]) -> Answer {
        self.send(method, "application/grpc", framed(0, message.len() as u32, message)).await
    }
}

fn framed(flag: u8, length: u32, message: &[u8]) -> Vec<u8> {
    [&[flag][..], &length.to_be_bytes(), message].concat()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn text_map(value: &Value) -> HashMap<String, String> {
    value.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), text(value))).collect()
}

/// The method and message of a call that is given as JSON; `None`: it cannot be said in gRPC.
fn message(call: &str, body: &Value) -> Option<(&'static str, Vec<u8>)> {
    if call.starts_with("register") {
        let mut data = text_map(body);
        data.retain(|name, _| !["gid", "trans_type", "branch_id", "data"].contains(&name.as_str()));
        let request = DtmBranchRequest {
            gid: text(&body["gid"]),
            trans_type: text(&body["trans_type"]),
            branch_id: text(&body["branch_id"]),
            op: String::new(),
            busi_payload: text(&body["data"]).into(),
            data,
        };
        return Some(("RegisterBranch", request.encode_to_vec()));
    }
    let method = METHODS.into_iter().find(|method| method.to_lowercase() == call.to_lowercase())?;
    let number = |name: &str| body[name].as_i64().unwrap_or_default();
    let payloads = body["payloads"].as_array().into_iter().flatten();
    let request = DtmRequest {
        gid: text(&body["gid"]),
        trans_type: text(&body["trans_type"]),
        trans_options: Some(DtmTransOptions {
            timeout_to_fail: number("timeout_to_fail"),
            retry_interval: number("retry_interval"),
            request_timeout: number("request_timeout"),
            retry_limit: number("retry_limit"),
            branch_headers: text_map(&body["branch_headers"]),
            ..Default::default()
        }),
        customed_data: text(&body["custom_data"]),
        bin_payloads: payloads.map(|payload| Bytes::from(text(payload))).collect(),
        query_prepared: text(&body["query_prepared"]),
        steps: if body["steps"].is_null() { String::new() } else { body["steps"].to_string() },
        rollback_reason: text(&body["rollback_reason"]),
        req_extra: text_map(&body["req_extra"]),
    };
    Some((method, request.encode_to_vec()))
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_wrong_in_a_message_is_named_and_nothing_is_written() {
    let (mut app, _) = begin().await;
    let caller = Caller::new(&app);
    let before = keys(&app).await;
    let (mut count, mut unexpected) = (0, Vec::new());
    for (call, good) in calls() {
        let trans_type = text(&good["trans_type"]);
        let mut wrongs: Vec<(String, Value)> = Vec::new();
        for field in good.as_object().unwrap().keys().filter(|field| *field != "protocol") {
            wrongs.extend(wrong_values(call, &trans_type, field).into_iter().map(|value| (field.clone(), value)));
        }
        if good["steps"].is_array() {
            wrongs.extend(
                [json!(1), json!({}), json!([1]), json!([{ "action": 1 }])].map(|steps| ("steps".into(), steps)),
            );
        }
        for (field, value) in wrongs {
            let mut body = good.clone();
            body[&field] = value.clone();
            let Some((method, message)) = message(call, &body) else { continue };
            let Answer { code, message, .. } = caller.call(method, &message).await;
            let named = message.contains(&field) || names(&field).iter().any(|name| message.contains(name));
            if code != INVALID_ARGUMENT || !named {
                unexpected
                    .push(format!("{method} {trans_type} {field}={}\n   -> {code} {message}", cut(&value.to_string())));
            }
            count += 1;
        }
    }
    assert!(unexpected.is_empty(), "{} of {count}:\n{}", unexpected.len(), unexpected.join("\n"));
    assert!(count > 150, "{count}: too few to mean anything");
    assert_eq!(keys(&app).await, before);
    assert!(app.is_running() && !app.log().contains("panicked"), "{}", app.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_are_none_are_refused() {
    let (mut app, _) = begin().await;
    let caller = Caller::new(&app);
    let before = keys(&app).await;
    let topic = DtmTopicRequest { topic: "a b".into(), url: "\u{0}".into(), remark: String::new() }.encode_to_vec();
    let empty = DtmRequest::default().encode_to_vec();
    for method in METHODS.into_iter().filter(|method| *method != "NewGid") {
        let frames = [
            Vec::new(),
            vec![0],
            vec![0, 0, 0, 0],
            framed(0, 10, b"short"),
            framed(0, u32::MAX, b""),
            framed(1, 3, b"abc"), // compressed, it says, and nobody said how
            framed(7, 3, b"abc"),
            framed(0, 3, b"\xff\xff\xff"),
            framed(0, 4, b"\x0a\x02\xff\xfe"), // a text that is none
            framed(0, 3, b"\x0a\x7fx"),
            framed(0, topic.len() as u32, &topic),
            framed(0, empty.len() as u32, &empty),
            [framed(0, 0, b""), framed(0, 0, b"")].concat(),
            vec![0xff; 1000],
            framed(0, 5 << 20, &vec![b'x'; 5 << 20]),
        ];
        for frame in frames {
            let answer = caller.send(method, "application/grpc", frame.clone()).await;
            let shown = frame[..frame.len().min(20)].escape_ascii().to_string();
            let refused = !["", "0"].contains(&answer.code.as_str()) && !answer.message.is_empty();
            assert!(refused, "{method} {shown}: {} {} {}", answer.http, answer.code, answer.message);
        }
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..20 {
            let bytes: Vec<u8> = (0..random.usize(1..60)).map(|_| random.u8(..)).collect();
            let answer = caller.call(method, &bytes).await;
            assert!(!answer.code.is_empty() && answer.code != "0", "{method} {}", bytes.escape_ascii());
        }
        let answer = caller.send(method, "application/json", b"{}".to_vec()).await;
        assert!(answer.http >= 400 || !answer.code.is_empty(), "{method}: {}", answer.http);
    }
    assert_eq!(caller.call("Nothing", b"").await.code, "12");
    assert_eq!(keys(&app).await, before);
    assert!(app.is_running() && !app.log().contains("panicked"), "{}", app.log());
}
