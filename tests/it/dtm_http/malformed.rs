//! Rubbish on every route: an answer with a message, and the server lives.

use super::start;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

const ROUTES: [&str; 9] = [
    "/api/dtmsvr/prepare",
    "/api/dtmsvr/submit",
    "/api/dtmsvr/abort",
    "/api/dtmsvr/forceStop",
    "/api/dtmsvr/resetNextCronTime",
    "/api/dtmsvr/prepareWorkflow",
    "/api/dtmsvr/registerBranch",
    "/api/dtmsvr/registerTccBranch",
    "/api/json-rpc",
];

const BODIES: [&[u8]; 20] = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"1",
    b"\"x\"",
    b"\xff\xfe\x00",
    br#"{"gid":1}"#,
    br#"{"gid":"a b","trans_type":"saga"}"#,
    br#"{"gid":"","trans_type":"saga"}"#,
    br#"{"gid":"x1"}"#,
    br#"{"gid":"x1","trans_type":"odd"}"#,
    br#"{"gid":"x1","trans_type":"saga","steps":{}}"#,
    br#"{"gid":"x1","trans_type":"saga","steps":[{"action":"http://h/"}],"payloads":[]}"#,
    br#"{"gid":"x1","trans_type":"saga","steps":[{"action":5}],"payloads":["{}"]}"#,
    br#"{"gid":"x1","trans_type":"saga","steps":[{"action":"nonsense"}],"payloads":["{}"]}"#,
    br#"{"gid":"x1","trans_type":"msg","custom_data":"{"}"#,
    br#"{"gid":"x1","trans_type":"saga","custom_data":"{\"concurrent\":true,\"orders\":{\"9\":[0]}}"}"#,
    br#"{"gid":"x1","trans_type":"saga","timeout_to_fail":-5}"#,
    br#"{"gid":"x1","trans_type":"saga","protocol":"smoke signals"}"#,
];

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_is_refused_with_a_message() {
    let (mut app, _) = start().await;
    let client: Client<_, Full<bytes::Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let base = app.base();
    let send = async |path: &str, body: Vec<u8>| {
        let request = Request::builder().method(Method::POST).uri(format!("{base}{path}"));
        let request = request.body(Full::new(bytes::Bytes::from(body))).unwrap();
        let response = client.request(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    };
    for route in ROUTES {
        for body in BODIES {
            let (status, answer) = send(route, body.to_vec()).await;
            let shown = String::from_utf8_lossy(body);
            let told = answer.contains("\"message\":\"") && !answer.contains("\"message\":\"\"");
            if route == "/api/json-rpc" {
                assert!(told && (status == 200 || status == 400), "{route} {shown}: {status} {answer}");
            } else {
                assert!(told && [400, 409, 500].contains(&status), "{route} {shown}: {status} {answer}");
            }
        }
    }
    // Bytes that nobody meant: whatever they are, there is an answer.
    for route in ROUTES {
        for seed in 0..40 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut body = BODIES[random.usize(7..BODIES.len())].to_vec();
            for _ in 0..random.usize(1..4) {
                let place = random.usize(..body.len());
                body[place] = random.u8(..);
            }
            let (status, answer) = send(route, body.clone()).await;
            assert!([200, 400, 409, 500].contains(&status), "{route} seed {seed}: {status} {answer}");
        }
    }
    let (status, _) = send("/api/dtmsvr/submit", vec![b' '; 5 << 20]).await;
    assert_eq!(status, 413);
    assert!(app.is_running());
    assert!(!app.log().contains("panicked"), "{}", app.log());
}
