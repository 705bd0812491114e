//! Rubbish on every route of the doors that speak JSON: an answer that names what is wrong, nothing written, and the server lives.
//!
//! A door is a row in [`DOORS`]: how a body travels, and how a refusal looks. [`CALLS`] are the calls with a body, each
//! with one that is good; [`wrongs`] are all the ways to spoil it, field by field.

use super::start;
use crate::support::app::App;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use std::time::Duration;

/// Far longer than any refusal takes.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(20);
/// What changes something though it is asked for by GET is answered by POST as well.
const BY_POST_TOO: [&str; 3] = ["subscribe", "unsubscribe", "resetCronTime"];
const LIMIT_BODY: usize = 5 << 20;

struct Answer {
    status: u16,
    text: String,
    json: Value,
}

struct Door {
    name: &'static str,
    /// Path and body of a call, from its name and the text of its JSON object.
    wrap: fn(call: &str, object: &str) -> (String, String),
    /// The message of a refusal that is the caller's fault, if this is one.
    refusal: fn(&Answer) -> Option<String>,
    knows: fn(call: &str) -> bool,
}

const DOORS: [Door; 2] = [
    Door {
        name: "HTTP",
        wrap: |call, object| (format!("/api/dtmsvr/{call}"), object.to_owned()),
        refusal: |answer| (answer.status == 400).then(|| answer.json["message"].as_str().map(str::to_owned))?,
        knows: |_| true,
    },
    Door {
        name: "JSON-RPC",
        wrap: |call, object| {
            let body = format!(r#"{{"jsonrpc":"2.0","id":"1","method":"{call}","params":{object}}}"#);
            ("/api/json-rpc".into(), body)
        },
        refusal: |answer| {
            let bad = answer.json["error"]["code"] == -32602 || answer.json["error"]["code"] == -32700;
            bad.then(|| answer.json["error"]["message"].as_str().map(str::to_owned))?
        },
        knows: |call| ["prepare", "submit", "abort", "registerBranch"].contains(&call),
    },
];

const URL: &str = "http://127.0.0.1:9/x";

/// Calls with a body, each with a good one. `there` is a prepared tcc, `flow` a prepared workflow.
pub(super) fn calls() -> Vec<(&'static str, Value)> {
    let options = json!({ "wait_result": false, "timeout_to_fail": 600, "request_timeout": 1, "retry_interval": 10,
        "retry_limit": 1, "branch_headers": { "x-a": "b" }, "concurrent": false, "protocol": "http",
        "custom_data": "", "query_prepared": URL, "rollback_reason": "", "req_extra": { "status": "succeed" } });
    let whole = |gid: &str, trans_type: &str| {
        let mut body = options.clone();
        (body["gid"], body["trans_type"]) = (json!(gid), json!(trans_type));
        body["steps"] = json!([{ "action": URL, "compensate": URL }]);
        body["payloads"] = json!(["{}"]);
        body
    };
    let row =
        |trans_type: &str, gid: &str| json!({ "gid": gid, "trans_type": trans_type, "branch_id": "01", "data": "x" });
    let with = |mut body: Value, fields: &[(&str, &str)]| {
        for (name, value) in fields {
            body[*name] = json!(value);
        }
        body
    };
    let tcc = with(row("tcc", "there"), &[("confirm", URL), ("cancel", URL)]);
    vec![
        ("prepare", whole("new", "msg")),
        ("submit", whole("new", "saga")),
        ("submit", whole("new", "msg")),
        ("abort", json!({ "gid": "there", "trans_type": "tcc", "rollback_reason": "x" })),
        ("forceStop", json!({ "gid": "there" })),
        ("resetNextCronTime", json!({ "gid": "there" })),
        ("prepareWorkflow", whole("new", "workflow")),
        ("registerBranch", tcc.clone()),
        ("registerTccBranch", tcc),
        ("registerXaBranch", with(row("xa", "there"), &[("url", URL)])),
        ("registerBranch", with(row("workflow", "flow"), &[("op", "action"), ("status", "succeed")])),
    ]
}

/// JSON texts that have the wrong type for a field of this value.
fn wrong_types(good: &Value) -> Vec<String> {
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let all =
        ["1", "-1", "0.5", "1e300", "99999999999999999999", "true", "\"text\"", "[]", "[1]", "[[]]", "{}", "{\"a\":1}"];
    let fits = |text: &str| match good {
        Value::String(_) => text.starts_with('"'),
        Value::Bool(_) => text == "true",
        Value::Number(_) => text == "1",
        Value::Array(_) => text == "[]",
        Value::Object(_) => text == "{}",
        Value::Null => true,
    };
    all.into_iter().filter(|text| !fits(text)).map(str::to_owned).chain([deep]).collect()
}

/// Values of the right type that are wrong all the same.
pub(super) fn wrong_values(call: &str, trans_type: &str, field: &str) -> Vec<Value> {
    let long = |length: usize| "x".repeat(length);
    let has_steps = trans_type == "msg" || trans_type == "saga";
    let texts = |texts: &[&str]| texts.iter().map(|text| json!(text)).collect::<Vec<_>>();
    let bad_urls =
        || vec![json!("http://h/a b"), json!("http://h/\n"), json!("\u{0}"), json!(format!("http://h/{}", long(2048)))];
    let registers = call.starts_with("register");
    match field {
        "gid" => {
            let mut gids =
                texts(&["", " ", "a b", "a'b", "a\"b", "a\nb", "a/b", "a\\b", "ключ", "\u{0}", "a\u{0}", "a*", "%41"]);
            gids.extend([json!(long(129)), json!(long(100_000))]);
            gids
        }
        "trans_type" if !registers && ["prepare", "submit", "prepareWorkflow"].contains(&call) => {
            texts(&["odd", "SAGA", "tcc ", "\u{0}"])
        }
        "protocol" if call != "submit" => texts(&["smoke signals", "HTTP", "\u{0}"]),
        "timeout_to_fail" | "request_timeout" | "retry_interval" | "retry_limit" if call != "abort" => {
            vec![json!(-1), json!(i64::MIN), json!(i64::MAX), json!(366 * 24 * 3600 + 1)]
        }
        "branch_headers" => {
            let many: serde_json::Map<String, Value> = (0..65).map(|i| (format!("h{i}"), json!("x"))).collect();
            vec![
                json!({ "a b": "c" }),
                json!({ "": "c" }),
                json!({ "a": "b\r\nc: d" }),
                json!({ "a": "\u{0}" }),
                json!({ "a": long(17_000) }),
                Value::Object(many),
            ]
        }
        "steps" if has_steps => vec![
            json!([{}, {}]),
            json!(vec![json!({ "action": URL }); 257]),
            json!([{ "action": "http://h/a b" }]),
            json!([{ "action": "http://h/\u{0}" }]),
            json!([{ "action": long(2049) }]),
        ],
        "payloads" if has_steps => vec![json!([]), json!([long((1 << 20) + 1)])],
        "custom_data" if trans_type == "saga" => {
            let mut bad =
                texts(&["{", "[]", "1", "{\"concurrent\":1}", "{\"concurrent\":true,\"orders\":{\"9\":[0]}}"]);
            bad.extend(texts(&[
                "{\"orders\":{\"0\":[0]}}",
                "{\"orders\":{\"0\":[-1]}}",
                "{\"orders\":{\"x\":[]}}",
                "{\"orders\":7}",
            ]));
            bad
        }
        "custom_data" if trans_type == "msg" => {
            texts(&["{", "[]", "{\"delay\":-1}", "{\"delay\":1e99}", "{\"delay\":\"1\"}"])
        }
        "custom_data" if trans_type == "workflow" => texts(&["{", "[]", "{\"name\":1}", "{\"data\":\"%\"}"]),
        "query_prepared" if call != "submit" || trans_type == "msg" => bad_urls(),
        "branch_id" => {
            let mut ids = texts(&["", "a b", "a\n", "é", "\u{0}"]);
            ids.push(json!(long(129)));
            ids
        }
        "data" => vec![json!(long((1 << 20) + 1))],
        "confirm" | "cancel" | "url" => bad_urls(),
        "op" => texts(&["", "odd", "Action"]),
        "status" => texts(&["", "prepared", "odd"]),
        _ => Vec::new(),
    }
}

/// How a field may be called in the message: `payloads` are counted against `steps`, and say so.
pub(super) fn names(field: &str) -> &[&str] {
    match field {
        "steps" => &["steps", "payloads", "action", "compensate"],
        "custom_data" => &["custom_data", "orders", "delay", "concurrent", "name"],
        "query_prepared" | "confirm" | "cancel" => &["query_prepared", "confirm", "cancel", "url"],
        _ => &[],
    }
}

/// Every way to spoil a body: the field that is wrong, and the text.
fn wrongs(call: &str, good: &Value) -> Vec<(String, String)> {
    let trans_type = good["trans_type"].as_str().unwrap_or_default();
    let mut wrongs = Vec::new();
    for (field, value) in good.as_object().unwrap() {
        let spoilt = |text: &str| {
            let mut body = good.clone();
            body[field] = json!("HERE-IS-IT");
            (field.clone(), body.to_string().replace("\"HERE-IS-IT\"", text))
        };
        wrongs.extend(wrong_types(value).iter().map(|text| spoilt(text)));
        wrongs.extend(wrong_values(call, trans_type, field).iter().map(|value| spoilt(&value.to_string())));
    }
    let nowhere = |body: String| (String::new(), body);
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(50_000), close.repeat(50_000));
    for body in ["[]", "null", "1", "\"x\"", "{\"gid\":}", "{'gid':1}", "{\"gid\":\"a\u{0}\"}", "tru"] {
        wrongs.push(nowhere(body.to_owned()));
    }
    wrongs.extend([nowhere(deep("[", "]")), nowhere(deep("{\"a\":", "}"))]);
    wrongs
}

pub(super) struct Sender {
    base: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Sender {
    fn new(app: &App) -> Self {
        Self { base: app.base(), client: Client::builder(TokioExecutor::new()).build_http() }
    }

    async fn send(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Answer {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        let request = request.body(Full::new(body.into())).unwrap();
        let asking = async {
            let response = self.client.request(request).await.unwrap_or_else(|error| panic!("{path}: {error:?}"));
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let json = serde_json::from_slice(&body).unwrap_or_default();
            Answer { status, text: String::from_utf8_lossy(&body).into_owned(), json }
        };
        tokio::time::timeout(ANSWER_WAIT_MAX, asking).await.unwrap_or_else(|_| panic!("{path}: no answer"))
    }
}

pub(super) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(300)]
}

/// Everything that Redis holds, but for times and what nodes say of themselves: nothing refused may change it.
pub(super) async fn keys(app: &App) -> Vec<String> {
    let client = redis::Client::open(app.redis_url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
    keys.retain(|key| key != "rl:nodes");
    keys.sort();
    let mut all = Vec::new();
    for key in keys {
        let bytes: Option<Vec<u8>> = redis::cmd("DUMP").arg(&key).query_async(&mut connection).await.unwrap();
        all.push(format!("{key} {}", bytes.unwrap_or_default().escape_ascii()));
    }
    all
}

pub(super) async fn begin() -> (App, Sender) {
    let (app, _) = start().await;
    let sender = Sender::new(&app);
    let tcc = json!({ "gid": "there", "trans_type": "tcc", "timeout_to_fail": 600 }).to_string();
    assert_eq!(sender.send(Method::POST, "/api/dtmsvr/prepare", tcc).await.status, 200);
    // Its callback is far away, so that its record stays as it is.
    let workflow = json!({ "gid": "flow", "trans_type": "workflow", "retry_interval": 600 }).to_string();
    assert_eq!(sender.send(Method::POST, "/api/dtmsvr/prepareWorkflow", workflow).await.status, 200);
    (app, sender)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_wrong_is_named_and_nothing_is_written() {
    let (mut app, sender) = begin().await;
    let before = keys(&app).await;
    let mut count = 0;
    let mut unexpected = Vec::new();
    for door in &DOORS {
        for (call, good) in calls().into_iter().filter(|(call, _)| (door.knows)(call)) {
            for (field, object) in wrongs(call, &good) {
                let (path, body) = (door.wrap)(call, &object);
                let answer = sender.send(Method::POST, &path, body).await;
                let named = |message: &String| {
                    field.is_empty()
                        || message.contains(&field)
                        || names(&field).iter().any(|name| message.contains(name))
                        || message.contains("nested") // too deep: said before anything is looked at
                };
                if !(door.refusal)(&answer).is_some_and(|message| !message.is_empty() && named(&message)) {
                    let (status, text) = (answer.status, cut(&answer.text));
                    unexpected.push(format!("{} {call} {field}: {}\n   -> {status} {text}", door.name, cut(&object)));
                }
                count += 1;
            }
        }
    }
    assert!(unexpected.is_empty(), "{} of {count}:\n{}", unexpected.len(), unexpected.join("\n"));
    assert!(count > 1_000, "{count}: too few to mean anything");
    assert_eq!(keys(&app).await, before);
    assert!(app.is_running() && !app.log().contains("panicked"), "{}", app.log());
}

/// What is no JSON in any way, and bytes that nobody meant.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_body_are_refused() {
    let (mut app, sender) = begin().await;
    let before = keys(&app).await;
    let paths: std::collections::BTreeSet<String> =
        DOORS.iter().flat_map(|door| calls().into_iter().map(|(call, _)| (door.wrap)(call, "{}").0)).collect();
    let rubbish: [&[u8]; 7] =
        [b"", b" \n\t", b"\0", b"\xff\xfe\x00", b"\xef\xbb\xbf{}", b"{\"gid\":\"\xff\"}", b"{\"gid\":\"x\"} {}"];
    for path in &paths {
        for body in rubbish {
            let answer = sender.send(Method::POST, path, body).await;
            let told = answer.text.contains("\"message\":\"");
            // dtm's JSON-RPC answers an object that is no request so.
            let no_request = path == "/api/json-rpc" && answer.json["error"]["code"] == -32600;
            let refused = told && (answer.status == 400 || no_request);
            assert!(refused, "{path} {}: {} {}", body.escape_ascii(), answer.status, answer.text);
        }
        let answer = sender.send(Method::POST, path, vec![b' '; LIMIT_BODY]).await;
        assert_eq!(answer.status, 413, "{path}: {}", answer.text);
    }
    for (envelope, code) in [
        (r#"{"jsonrpc":"2.0","id":1,"method":"newGid"}"#.to_owned(), -32700),
        (r#"{"jsonrpc":"2.0","id":null,"method":"newGid"}"#.to_owned(), -32600),
        (r#"{"jsonrpc":"1.0","id":"1","method":"newGid"}"#.to_owned(), -32600),
        (r#"{"id":"1","method":"newGid"}"#.to_owned(), -32600),
        (r#"{"jsonrpc":"2.0","id":"1"}"#.to_owned(), -32601),
        (r#"{"jsonrpc":"2.0","id":"1","method":7}"#.to_owned(), -32700),
        (r#"{"jsonrpc":"2.0","id":"1","method":"submitt"}"#.to_owned(), -32601),
        (r#"{"jsonrpc":"2.0","id":"1","method":"submit"}"#.to_owned(), -32602),
        (r#"{"jsonrpc":"2.0","id":"1","method":"submit","params":null}"#.to_owned(), -32602),
        (r#"{"jsonrpc":"2.0","id":"1","method":"submit","params":[{}]}"#.to_owned(), -32602),
        (r#"{"jsonrpc":"2.0","id":"1","method":"submit","params":"x"}"#.to_owned(), -32602),
        (r#"[{"jsonrpc":"2.0","id":"1","method":"newGid"}]"#.to_owned(), -32700),
        (format!(r#"{{"jsonrpc":"2.0","id":"","method":"{}"}}"#, "x".repeat(1 << 20)), -32600),
    ] {
        let answer = sender.send(Method::POST, "/api/json-rpc", envelope.clone()).await;
        assert_eq!(answer.json["error"]["code"], code, "{}: {}", cut(&envelope), cut(&answer.text));
        assert!(answer.text.len() < 10_000, "{} bytes of answer", answer.text.len());
    }
    for seed in 0..400 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (call, good) = calls().swap_remove(random.usize(..calls().len()));
        // Their gids stay what they are: a changed byte may make another good one.
        let (path, body) = (DOORS[0].wrap)(call, &good.to_string());
        let mut body = body.into_bytes();
        let colon = body.windows(2).position(|pair| pair == b"\":").unwrap();
        body[colon] = random.u8(..);
        body.truncate(random.usize(colon..=body.len()));
        let answer = sender.send(Method::POST, &path, body.clone()).await;
        assert!(answer.status < 500 || answer.text.contains("message"), "seed {seed}: {}", body.escape_ascii());
    }
    assert_eq!(keys(&app).await, before);
    assert!(app.is_running() && !app.log().contains("panicked"), "{}", app.log());
}

/// Questions, and what travels in a query: dtm's answers, but never a panic and never a change.
#[tokio::test(flavor = "multi_thread")]
async fn odd_questions_and_methods_get_an_answer() {
    let (mut app, sender) = begin().await;
    let before = keys(&app).await;
    let long = "x".repeat(20_000);
    let odd =
        ["", "%00", "%ff%fe", "%", "%zz", "-1", "99999999999999999999", "a%20b", "%7B%7D", "%0a", "*", "1e9", &long];
    let parameters = [
        ("query", "gid"),
        ("all", "limit"),
        ("all", "gid"),
        ("all", "position"),
        ("all", "status"),
        ("all", "transType"),
        ("all", "createTimeStart"),
        ("all", "createTimeEnd"),
        ("resetCronTime", "timeout=999999999999&limit"),
        ("resetCronTime", "timeout=999999999999&x"),
        ("scanKV", "cat"),
        ("scanKV", "cat=topics&position"),
        ("scanKV", "cat=topics&limit"),
        ("queryKV", "cat"),
        ("queryKV", "cat=topics&key"),
        ("subscribe", "topic"),
        ("subscribe", "topic=a%20b&url"),
        ("subscribe", "url=http://h/x&topic=a%0ab&x"),
        ("subscribe", "topic=t&url=http://h/%20&x"),
        ("unsubscribe", "topic"),
        ("unsubscribe", "topic=t&url"),
    ];
    for (route, parameter) in parameters {
        for value in odd {
            let path = format!("/api/dtmsvr/{route}?{parameter}={value}");
            let answer = sender.send(Method::GET, &path, "").await;
            let told = answer.json["message"].as_str().is_some_and(|message| !message.is_empty());
            let good = answer.status == 200 && answer.json.is_object();
            // dtm says 500 for what it cannot read in a query, and its words are kept.
            let refused = told && [400, 409, 500].contains(&answer.status);
            assert!(good || refused, "{path}: {} {}", answer.status, cut(&answer.text));
        }
    }
    for name in odd.iter().filter(|name| !name.is_empty()) {
        let answer = sender.send(Method::DELETE, &format!("/api/dtmsvr/topic/{name}"), "").await;
        assert_eq!((answer.status, &answer.json["message"]), (500, &json!("storage: NotFound")), "{name}");
    }
    let routes = calls().into_iter().map(|(call, _)| (call, Method::POST));
    let routes =
        routes.chain(parameters.iter().map(|(route, _)| (*route, Method::GET))).chain([("topic/x", Method::DELETE)]);
    for (route, right) in routes {
        for method in
            [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS, Method::HEAD]
        {
            // Outside of this machine what changes something is asked for by POST, and here it may be.
            let also = method == Method::POST && BY_POST_TOO.contains(&route);
            if method != right && !also {
                let answer = sender.send(method.clone(), &format!("/api/dtmsvr/{route}"), "{}").await;
                assert_eq!(answer.status, 404, "{method} {route}: {}", cut(&answer.text));
            }
        }
    }
    for path in
        ["/api/", "/api/dtmsvr/", "/api/dtmsvr/nothing", "/api/dtmsvr/topic/a/b", "/api/json-rpc/x", "/api/json-rpc"]
    {
        let status = sender.send(Method::GET, path, "").await.status;
        assert!([301, 404].contains(&status), "{path}: {status}");
    }
    assert_eq!(keys(&app).await, before);
    assert!(app.is_running() && !app.log().contains("panicked"), "{}", app.log());
}

/// A gid may have what looks like a hash tag or a separator of ours: it is one gid, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn odd_gids_that_are_allowed_are_kept_apart() {
    let (app, sender) = begin().await;
    let gids = [
        "{}",
        "{a}",
        "}{",
        "{T/3}".trim_matches('/'),
        ":due",
        "g:there",
        "r:there",
        "a:i:prepared:tcc",
        ".",
        "..",
        "-",
    ];
    let gids: Vec<&str> = gids.into_iter().filter(|gid| !gid.contains('/')).collect();
    for gid in &gids {
        let body = json!({ "gid": gid, "trans_type": "tcc", "timeout_to_fail": 600 }).to_string();
        let answer = sender.send(Method::POST, "/api/dtmsvr/prepare", body).await;
        assert_eq!(answer.status, 200, "{gid}: {}", answer.text);
        let row = json!({ "gid": gid, "trans_type": "tcc", "branch_id": "01", "confirm": URL, "cancel": URL });
        let answer = sender.send(Method::POST, "/api/dtmsvr/registerBranch", row.to_string()).await;
        assert_eq!(answer.status, 200, "{gid}: {}", answer.text);
    }
    for gid in &gids {
        let encoded: String = url::form_urlencoded::byte_serialize(gid.as_bytes()).collect();
        let answer = sender.send(Method::GET, &format!("/api/dtmsvr/query?gid={encoded}"), "").await;
        assert_eq!(answer.json["transaction"]["gid"], **gid, "{}", answer.text);
        assert_eq!(answer.json["branches"].as_array().map(Vec::len), Some(2), "{}", answer.text);
    }
    let answer = sender.send(Method::GET, "/api/dtmsvr/query?gid=there", "").await;
    assert_eq!(answer.json["branches"], json!([]), "{}", answer.text);
    drop(app);
}
