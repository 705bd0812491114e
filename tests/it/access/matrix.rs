//! Every route as every role, over every door: who may gets through, who may not hears 401 or 403 and nothing happens.

use super::routes::{of_grpc, of_http};
use super::{SOON, Tokens, ask, ask_as};
use crate::support::app::App;
use crate::support::raw::Raw;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rushline::access::rules::{self, Need};
use rushline::access::{Role, Roles};
use serde_json::{Value, json};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

/// Who comes: nobody, with a wrong token, as one role.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Who {
    Nobody,
    Stranger,
    As(Role),
}

fn all() -> Vec<Who> {
    [Who::Nobody, Who::Stranger].into_iter().chain(Role::ALL.map(Who::As)).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    In,
    Unknown,
    Forbidden,
}

/// As the table has it. The table's lines are few enough to be read by eye; what is tried here is that every door obeys.
fn expected(need: Need, who: Who) -> Verdict {
    match (need, who) {
        (Need::Nothing, _) => Verdict::In,
        (_, Who::Nobody | Who::Stranger) => Verdict::Unknown,
        (Need::Token, _) => Verdict::In,
        (Need::Role(needs), Who::As(role)) if Roles::of(&[role]).meets(needs) => Verdict::In,
        (Need::Role(_), Who::As(_)) => Verdict::Forbidden,
    }
}

fn authorization(tokens: &Tokens, who: Who) -> Option<String> {
    match who {
        Who::Nobody => None,
        Who::Stranger => Some(String::from("Bearer rl_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")),
        Who::As(role) => Some(tokens.bearer(role)),
    }
}

/// What is asked for has nothing in this server: whoever gets through hears 404 or 422.
fn filled(path: &str) -> String {
    let path = path.replace("/ui/{name}", "/ui/app.js").replace("{gid}", "none.0.1-0.0");
    path.replace("{sale}", "none").replace("{buyer}", "u1").replace("{topic}", "none")
}

/// The status, as soon as it is there: an event stream has no end.
async fn status(client: &Client<HttpConnector, Full<Bytes>>, request: Request<Full<Bytes>>) -> u16 {
    let asked = format!("{request:?}");
    let answer = tokio::time::timeout(SOON, client.request(request)).await;
    answer
        .unwrap_or_else(|_| panic!("no answer: {asked}"))
        .unwrap_or_else(|error| panic!("{asked}: {error:?}"))
        .status()
        .as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_as_every_role_over_http() {
    let tokens = Tokens::new();
    let app = App::start(tokens.options()).await;
    // A new connection for each request: one that has brought anything but orders is hyper's from then on.
    let plain: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
    // Orders over HTTP/1.1 are read by hand, over HTTP/2 by hyper: two places that must ask.
    let streams: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    for (method, path) in of_http() {
        let rule = rules::find(&method, &filled(&path)).unwrap_or_else(|| panic!("{method} {path} has no line"));
        for who in all() {
            for (version, client) in [("1.1", &plain), ("2", &streams)] {
                let mut request =
                    Request::builder().method(method.as_str()).uri(format!("{}{}", app.base(), filled(&path)));
                if let Some(token) = authorization(&tokens, who) {
                    request = request.header("authorization", token);
                }
                let body = if method == "GET" { "" } else { r#"{"gid":""}"# };
                let found = status(client, request.body(Full::from(body)).unwrap()).await;
                let verdict = match found {
                    401 => Verdict::Unknown,
                    403 => Verdict::Forbidden,
                    _ => Verdict::In,
                };
                // A login without a token in it is not taken, whoever asks.
                let expected = expected(rule.need, who);
                assert_eq!(verdict, expected, "{method} {path} over HTTP/{version} as {who:?}: {found}");
            }
        }
    }
    assert!(!app.log().contains("rl_"), "no token is in the log");
}

async fn code(channel: &Channel, path: &str, authorization: Option<&str>) -> Code {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let mut request = tonic::Request::new(Bytes::new());
    if let Some(token) = authorization {
        request.metadata_mut().insert("authorization", token.parse().unwrap());
    }
    // Watching health has no end either: the first message will do.
    let path = path.parse().unwrap();
    let answer = tokio::time::timeout(SOON, client.server_streaming(request, path, Raw)).await.expect("an answer");
    let mut messages = match answer {
        Err(status) => return status.code(),
        Ok(messages) => messages.into_inner(),
    };
    match tokio::time::timeout(SOON, messages.message()).await.expect("a message, or the end") {
        Ok(_) => Code::Ok,
        Err(status) => status.code(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_as_every_role_over_grpc_on_either_port() {
    let tokens = Tokens::new();
    let app = App::start(tokens.options()).await;
    let methods = of_grpc(&app, tokens.of(Role::Operator)).await;
    for address in [format!("http://{}", app.grpc()), app.base()] {
        let channel = Endpoint::from_shared(address).unwrap().connect().await.unwrap();
        for (method, path) in &methods {
            let rule = rules::find(method, path).unwrap_or_else(|| panic!("{path} has no line"));
            for who in all() {
                let found = code(&channel, path, authorization(&tokens, who).as_deref()).await;
                let verdict = match found {
                    Code::Unauthenticated => Verdict::Unknown,
                    Code::PermissionDenied => Verdict::Forbidden,
                    _ => Verdict::In,
                };
                assert_eq!(verdict, expected(rule.need, who), "{path} as {who:?}: {found:?}");
            }
        }
    }
}

/// What is refused says what is missing, in the words of its door; and what has no rule is an operator's.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_what_is_missing() {
    let tokens = Tokens::new();
    let app = App::start(tokens.options()).await;
    let reader = tokens.bearer(Role::Reader);

    let none = ask(&app, "GET", "/v1/sales", &[], None).await;
    assert_eq!((none.status, none.code()), (401, "token_missing"));
    assert_eq!(none.header("www-authenticate"), Some("Bearer realm=\"rushline\""));
    assert!(none.json["detail"].as_str().unwrap().contains("RUSHLINE_TOKEN"), "{}", none.json);
    let order = ask(&app, "POST", "/v1/sales/s/orders", &[], Some(&json!({}))).await;
    assert_eq!((order.status, order.code()), (401, "token_missing"));
    assert_eq!(order.header("www-authenticate"), Some("Bearer realm=\"rushline\""));
    let wrong = ask_as(&app, "Bearer no", "POST", "/v1/sales/s/orders", Some(&json!({}))).await;
    assert_eq!((wrong.status, wrong.code()), (401, "token_unknown"));
    let low = ask_as(&app, &reader, "PATCH", "/v1/sales/s", Some(&json!({"status": "paused"}))).await;
    assert_eq!((low.status, low.code()), (403, "role_missing"));
    let detail = low.json["detail"].as_str().unwrap();
    assert!(detail.contains("`reader` has the role reader, and this needs operator"), "{detail}");

    let submit = ask(&app, "POST", "/api/dtmsvr/submit", &[], Some(&json!({"gid": "g"}))).await;
    assert_eq!(submit.status, 401);
    assert!(submit.json["message"].is_string() && submit.json["dtm_result"].is_null(), "{}", submit.json);
    for method in ["newGid", "prepare", "submit", "abort", "registerBranch", "nothing"] {
        let call = json!({"jsonrpc": "2.0", "id": "1", "method": method, "params": {"gid": "g"}});
        let answer = ask_as(&app, &reader, "POST", "/api/json-rpc", Some(&call)).await;
        assert_eq!((answer.status, &answer.json["error"]["code"]), (403, &json!(-32001)), "{method}");
        let client = tokens.bearer(Role::Client);
        let answer = ask_as(&app, &client, "POST", "/api/json-rpc", Some(&call)).await;
        assert_ne!(answer.json["error"]["code"], json!(-32001), "{method}");
    }
    // Spelled otherwise, the same or nothing.
    for (method, path) in [
        ("POST", "/api/dtmsvr/forceStop/"),
        ("POST", "/api//dtmsvr/submit"),
        ("PUT", "/v1/sales"),
        ("POST", "/v1/sales/a/../b/stock"),
        ("GET", "/nothing"),
        ("DELETE", "/metrics"),
        ("OPTIONS", "/v1/sales"),
    ] {
        assert_eq!(ask_as(&app, &reader, method, path, None).await.status, 403, "{method} {path}");
        assert_eq!(ask(&app, method, path, &[], None).await.status, 401, "{method} {path}");
    }
    let operator = tokens.bearer(Role::Operator);
    assert_eq!(ask_as(&app, &operator, "GET", "/nothing", None).await.status, 404);
    let who = ask_as(&app, &reader, "GET", "/v1/whoami", None).await;
    assert_eq!(who.json, json!({"tokens": true, "name": "reader", "roles": ["reader"]}));
    let text = app.http().ask(http::Method::GET, "/metrics", &[("authorization", &reader)], None).await.unwrap();
    assert!(String::from_utf8_lossy(&text.body).contains("rushline_denied_total{reason=\"role_missing\"}"));
}

/// Without tokens nothing is asked, on this machine.
#[tokio::test(flavor = "multi_thread")]
async fn without_tokens_everybody_on_this_machine_may() {
    let app = App::start(crate::support::app::AppOptions::default()).await;
    let who = ask(&app, "GET", "/v1/whoami", &[("authorization", "Bearer x")], None).await;
    let roles: Value = Role::ALL.iter().map(|role| role.as_str()).collect();
    assert_eq!(who.json, json!({"tokens": false, "name": "", "roles": roles}));
    assert_eq!(ask(&app, "GET", "/api/dtmsvr/subscribe?topic=t&url=http://127.0.0.1:1/x", &[], None).await.status, 200);
    assert_eq!(ask(&app, "PUT", "/v1/sales", &[], None).await.status, 405);
    // A supervisor may tell it to read its files again: it has none, and goes on.
    app.signal("HUP");
    for _ in 0..50 {
        assert_eq!(ask(&app, "GET", "/healthz", &[], None).await.status, 200);
    }
}
