//! An order's status as server-sent events: on the node that has it, on another, from the middle, and to the end.

use super::{SOON, Stage, buy, is_problem};
use crate::support::app::{App, eventually};
use crate::support::shop::Answer;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

/// Asks for a stream, on a connection of its own; hangs up when the answer is dropped.
async fn ask(app: &App, gid: &str, heard: &str) -> Response<Incoming> {
    let mut request = Request::builder().uri(format!("{}/v1/orders/{gid}/events", app.base()));
    if !heard.is_empty() {
        request = request.header("last-event-id", heard);
    }
    let client = Client::builder(TokioExecutor::new()).build_http();
    client.request(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap()
}

/// A stream that is being read.
struct Stream {
    body: Incoming,
    text: String,
    over: bool,
}

impl Stream {
    async fn open(app: &App, gid: &str, heard: &str) -> Self {
        let response = ask(app, gid, heard).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        Self { body: response.into_body(), text: String::new(), over: false }
    }

    /// Reads until the text has `what`, or, for nothing, to the end.
    async fn read_until(&mut self, what: &str) {
        let reading = async {
            while !self.over && (what.is_empty() || !self.text.contains(what)) {
                match self.body.frame().await {
                    Some(frame) => self.text += std::str::from_utf8(frame.unwrap().data_ref().unwrap()).unwrap(),
                    None => self.over = true,
                }
            }
        };
        tokio::time::timeout(SOON, reading).await.unwrap_or_else(|_| panic!("no {what:?} in {:?}", self.text));
        assert!(self.text.contains(what), "{:?} ended without {what:?}", self.text);
    }

    /// `(id, data)` of every event so far.
    fn events(&self) -> Vec<(String, Value)> {
        let field = |event: &str, name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        let events = self.text.split("\n\n").filter(|part| part.contains("event: status"));
        events
            .map(|event| {
                (field(event, "id: ").unwrap(), serde_json::from_str(&field(event, "data: ").unwrap()).unwrap())
            })
            .collect()
    }

    fn statuses(&self) -> Vec<String> {
        self.events().into_iter().map(|(id, _)| id).collect()
    }
}

async fn admitted(stage: &Stage) -> String {
    stage.app.order("s", "", &buy("u1", 1)).await.gid().unwrap().to_owned()
}

#[tokio::test]
async fn an_order_is_followed_to_its_end_on_every_node() {
    let stage = Stage::new().await;
    let other = stage.another_node().await;
    stage.shop.always(Answer::Ongoing);
    stage.sale("s", 5, json!({})).await;
    for (end, status) in [(Answer::Created, "succeed"), (Answer::Refused("card declined".into()), "failed")] {
        stage.shop.always(Answer::Ongoing);
        let gid = admitted(&stage).await;
        let mut here = Stream::open(&stage.app, &gid, "").await;
        let mut there = Stream::open(&other, &gid, "").await;
        here.read_until("id: submitted").await;
        there.read_until("id: submitted").await;
        stage.shop.always(end);
        for stream in [&mut here, &mut there] {
            stream.read_until("").await;
            assert!(stream.text.starts_with("retry: "), "{}", stream.text);
            assert_eq!(stream.statuses(), ["submitted", status], "each once, in order, and then no more");
            let (_, order) = stream.events().pop().unwrap();
            assert_eq!((&order["gid"], &order["status"]), (&json!(gid), &json!(status)));
        }
        let (_, order) = here.events().pop().unwrap();
        assert_eq!(order["last_error"], if status == "failed" { json!("card declined") } else { Value::Null });
    }
}

/// A client whose line broke tells what it heard last, and hears the rest; when there is no rest it is told to stay away.
#[tokio::test]
async fn a_client_that_comes_back_hears_only_the_rest() {
    let stage = Stage::with(|options| options.setting("http.heartbeat_ms", 20)).await;
    stage.shop.always(Answer::Ongoing);
    stage.sale("s", 5, json!({})).await;
    let gid = admitted(&stage).await;
    let mut stream = Stream::open(&stage.app, &gid, "submitted").await;
    stream.read_until(": no news").await;
    assert!(stream.events().is_empty(), "{}", stream.text);
    stage.shop.always(Answer::Created);
    stream.read_until("").await;
    assert_eq!(stream.statuses(), ["succeed"]);

    let after = |heard: &'static str| {
        let (http, path) = (stage.app.http(), format!("/v1/orders/{gid}/events"));
        async move { http.ask(http::Method::GET, &path, &[("last-event-id", heard)], None).await.unwrap() }
    };
    assert_eq!(after("succeed").await.status, 204, "nothing is left to hear");
    stage.app.wait_until_settled("s").await;
    assert_eq!(after("succeed").await.status, 204, "also from the records");
    for heard in ["", "submitted", "what?"] {
        let mut again = Stream::open(&stage.app, &gid, heard).await;
        again.read_until("").await;
        assert_eq!(again.statuses(), ["succeed"], "after {heard:?}");
    }
    is_problem(&stage.app.get("/v1/orders/s.0.1-1.0/events").await, 404, "unknown_order");
    is_problem(&stage.app.get("/v1/orders/nonsense/events").await, 404, "unknown_order");
}

#[tokio::test]
async fn streams_are_bounded_and_given_back() {
    let stage = Stage::with(|options| options.setting("http.event_streams_max", 2)).await;
    stage.shop.always(Answer::Ongoing);
    stage.sale("s", 5, json!({})).await;
    let gid = admitted(&stage).await;
    let path = format!("/v1/orders/{gid}/events");
    let (mut first, second) = (Stream::open(&stage.app, &gid, "").await, Stream::open(&stage.app, &gid, "").await);
    let refused = stage.app.get(&path).await;
    is_problem(&refused, 503, "too_many_streams");
    assert_eq!(refused.header("retry-after"), Some("1"));
    drop(second); // the client hangs up, which is seen when the next sign of life is sent to it
    eventually("its place is free", 3 * SOON, || async { ask(&stage.app, &gid, "").await.status() == 200 }).await;
    stage.shop.always(Answer::Created);
    first.read_until("").await;
    assert_eq!(first.statuses(), ["submitted", "succeed"]);
}

/// A server that stops lets its streams end: their clients go to another.
#[tokio::test]
async fn streams_do_not_hold_up_a_server_that_stops() {
    let mut stage = Stage::new().await;
    stage.shop.always(Answer::Ongoing);
    stage.sale("s", 5, json!({})).await;
    let gid = admitted(&stage).await;
    let mut stream = Stream::open(&stage.app, &gid, "").await;
    stream.read_until("id: submitted").await;
    stage.app.signal("TERM");
    stream.read_until("").await;
    assert_eq!(stream.statuses(), ["submitted"]);
    assert!(!stage.app.log().contains("did not end within the grace period"));
    stage.app.kill9();
}
