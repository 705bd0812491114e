//! Traces: from a buyer through admission to the order service, and from whoever submits a transaction to its branches,
//! as a collector hears of them.

use crate::support::app::{App, AppOptions, eventually};
use crate::support::collector::{Collector, attribute, hex, named};
use crate::support::process::free_port;
use crate::support::services::Service;
use crate::support::shop::{Answer, Shop};
use opentelemetry_proto::tonic::trace::v1::Span;
use rushline::proto::dtmgimp::DtmRequest;
use rushline::proto::dtmgimp::dtm_client::DtmClient;
use serde_json::{Value, json};
use std::time::Duration;

/// What the caller's own span is.
const CALLER: &str = "b7ad6b7169203331";
const PAYLOAD: &str = "the-payload-of-an-order";

fn trace_id(number: u8) -> String {
    format!("0af7651916cd43dd8448eb211c8031{number:02x}")
}

fn traceparent(trace: &str, flags: &str) -> String {
    format!("00-{trace}-{CALLER}-{flags}")
}

fn options(collector: &Collector, protocol: &str) -> AppOptions {
    AppOptions::default()
        .quick()
        .quick_trans()
        .setting("telemetry.otlp_endpoint", collector.endpoint())
        .setting("telemetry.otlp_protocol", protocol)
        .setting("telemetry.otlp_headers", "authorization=Bearer of-ours, x-scope=shop")
        .setting("telemetry.sample_share", 0)
}

fn sale(shop: &Shop) -> Value {
    let items = json!([{"sku": "a", "units": 100}]);
    json!({"sale": "s", "items": items, "durability": "memory", "order_endpoint": shop.endpoint()})
}

fn order(buyer: &str) -> Value {
    json!({"buyer": buyer, "items": [{"sku": "a", "quantity": 1}], "payload": {"note": PAYLOAD}})
}

/// The one span of this name, and that its parent is `parent`.
fn one<'a>(spans: &'a [Span], name: &str, parent: &str) -> &'a Span {
    let found = named(spans, name);
    assert_eq!(found.len(), 1, "{name} in {spans:#?}");
    assert_eq!(hex(&found[0].parent_span_id), parent, "parent of {name} in {spans:#?}");
    found[0]
}

#[tokio::test]
async fn an_order_is_one_trace_from_its_buyer_to_the_order_service() {
    let shop = Shop::start().await;
    for protocol in ["grpc", "http"] {
        let collector = Collector::start().await;
        let app = App::start(options(&collector, protocol)).await;
        app.create_sale(&sale(&shop)).await;
        let trace = trace_id(1);
        let headers = [("traceparent", traceparent(&trace, "01")), ("tracestate", "shop=7".into())];
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        shop.script([Answer::Status(500, "first try".into())]);
        let gid = app.post("/v1/sales/s/orders?wait_ms=10000", &headers, &order("u1")).await.gid().unwrap().to_owned();

        let spans = collector.trace(&trace, "place order", 1).await;
        let placed = one(&spans, "place order", CALLER);
        assert_eq!(["authorization", "x-scope"].map(|name| collector.header(name)), ["Bearer of-ours", "shop"]);
        let own = hex(&placed.span_id);
        one(&spans, "admission", &own);
        assert_eq!(attribute(one(&spans, "order_admit", &own), "rushline.orders"), "1");
        assert_eq!(
            (attribute(placed, "rushline.gid"), attribute(placed, "rushline.outcome")),
            (gid.clone(), "admitted".into())
        );
        let calls = named(&spans, "call order service");
        let outcomes: Vec<String> = calls.iter().map(|call| attribute(call, "rushline.outcome")).collect();
        assert_eq!(outcomes, ["unknown", "created"], "both tries");
        for (span, call) in calls.into_iter().zip(shop.calls(&gid)) {
            assert_eq!(hex(&span.parent_span_id), own);
            assert_eq!(attribute(span, "rushline.gid"), gid);
            let header = |name: &str| call.headers[name].to_str().unwrap().to_owned();
            assert_eq!(header("traceparent"), format!("00-{trace}-{}-01", hex(&span.span_id)));
            assert_eq!(header("tracestate"), "shop=7");
        }

        // Whoever does not record is told of, and not recorded.
        let unrecorded = traceparent(&trace_id(2), "00");
        let reply = app.post("/v1/sales/s/orders?wait_ms=10000", &[("traceparent", &unrecorded)], &order("u2")).await;
        let call = shop.calls(reply.gid().unwrap()).pop().unwrap();
        assert_eq!(call.headers["traceparent"].to_str().unwrap(), unrecorded);
        assert!(collector.spans().iter().all(|span| hex(&span.trace_id) == trace));
        assert!(!collector.text().contains(PAYLOAD) && !collector.text().contains("first try"));
    }
}

/// A script decides for many: its span is a part of one of their traces, and points at all the others.
#[tokio::test]
async fn the_span_of_a_script_has_a_link_to_every_order_that_it_decided() {
    let (collector, shop) = (Collector::start().await, Shop::start().await);
    let app = App::start(options(&collector, "grpc")).await;
    app.create_sale(&sale(&shop)).await;
    let traces: Vec<String> = (0..40).map(trace_id).collect();
    let all = traces.iter().enumerate().map(|(at, trace)| {
        let (http, header, order) = (app.http(), traceparent(trace, "01"), order(&format!("u{at}")));
        async move {
            let headers = [("traceparent", header.as_str())];
            http.ask(http::Method::POST, "/v1/sales/s/orders", &headers, Some(&order)).await.unwrap()
        }
    });
    let replies = futures_util::future::join_all(all).await;
    assert!(replies.iter().all(|reply| reply.status == 201), "{replies:?}");
    for trace in &traces {
        collector.trace(trace, "call order service", 1).await;
    }
    let spans = collector.spans();
    let mut meant: Vec<String> = Vec::new();
    for script in named(&spans, "order_admit") {
        let decided = script.links.iter().map(|link| &link.trace_id).chain([&script.trace_id]);
        let decided: Vec<String> = decided.map(|trace| hex(trace)).collect();
        assert_eq!(attribute(script, "rushline.orders"), decided.len().to_string());
        meant.extend(decided);
    }
    meant.sort();
    assert_eq!(meant, traces, "each order is meant by one script");
}

/// A collector that is away costs spans, which are counted, and nothing else.
#[tokio::test]
async fn nobody_waits_for_a_collector() {
    let shop = Shop::start().await;
    let options = AppOptions::default()
        .setting("telemetry.otlp_endpoint", format!("http://127.0.0.1:{}", free_port()))
        .setting("telemetry.sample_share", 1)
        .setting("telemetry.queue_max", 4);
    let app = App::start(options).await;
    app.create_sale(&sale(&shop)).await;
    for at in 0..10 {
        let reply = app.post("/v1/sales/s/orders?wait_ms=10000", &[], &order(&format!("u{at}"))).await;
        assert_eq!((reply.status, &reply.json["status"]), (201, &json!("succeed")));
    }
    eventually("dropped spans are counted", Duration::from_secs(30), || async {
        let metrics = String::from_utf8_lossy(&app.get("/metrics").await.body).into_owned();
        ["queue_full", "not_sent"].iter().any(|why| {
            let line = format!("rushline_spans_dropped_total{{why=\"{why}\"}} ");
            metrics.lines().any(|found| found.strip_prefix(&line).is_some_and(|count| count != "0"))
        })
    })
    .await;
}

fn saga(gid: &str, url: impl Fn(&str) -> String) -> Value {
    json!({
        "gid": gid, "trans_type": "saga", "wait_result": true, "payloads": ["{}", "{}"],
        "steps": [{"action": url("/out")}, {"action": url("/in")}],
    })
}

/// Of a transaction's spans: `first` is the caller's child, the pass is below it, and each call is below the pass and is
/// what its branch was told.
fn assert_calls(spans: &[Span], first: &str, call: &str, service: &Service, gid: &str, steps: &[&str]) {
    let trace = hex(&spans[0].trace_id);
    let first = one(spans, first, CALLER);
    assert_eq!(attribute(first, "rushline.gid"), gid);
    let calls = named(spans, call);
    for step in steps {
        let told = service.calls(gid).into_iter().find(|call| call.step() == *step).expect(step);
        let told = told.headers["traceparent"].to_str().unwrap().to_owned();
        let is_step = |span: &&&Span| told == format!("00-{trace}-{}-01", hex(&span.span_id));
        let span = calls.iter().find(is_step).unwrap_or_else(|| panic!("{step} was told {told}: {calls:#?}"));
        assert_eq!(attribute(span, "server.address"), service.address());
        let pass = spans.iter().find(|pass| pass.span_id == span.parent_span_id).expect("the pass");
        assert_eq!((pass.name.as_str(), &pass.parent_span_id), ("drive transaction", &first.span_id));
    }
}

#[tokio::test]
async fn a_saga_is_one_trace_from_its_submitter_to_its_branches() {
    let (collector, service) = (Collector::start().await, Service::start().await);
    let app = App::start(options(&collector, "grpc")).await;
    let (by_http, by_grpc) = (trace_id(1), trace_id(2));

    let header = traceparent(&by_http, "01");
    let body = saga("g-http", |path| service.url(path));
    let reply = app.post("/api/dtmsvr/submit", &[("traceparent", &header)], &body).await;
    assert_eq!(reply.status, 200, "{}", reply.json);
    let spans = collector.trace(&by_http, "submit transaction", 1).await;
    let spans = if named(&spans, "drive transaction").is_empty() {
        collector.trace(&by_http, "drive transaction", 1).await
    } else {
        spans
    };
    assert_calls(&spans, "submit transaction", "call branch", &service, "g-http", &["action/01", "action/02"]);

    let body = saga("g-grpc", |path| service.grpc_url(path));
    let mut request = tonic::Request::new(DtmRequest {
        gid: "g-grpc".into(),
        trans_type: "saga".into(),
        steps: body["steps"].to_string(),
        bin_payloads: vec!["{}".into(), "{}".into()],
        trans_options: Some(rushline::proto::dtmgimp::DtmTransOptions { wait_result: true, ..Default::default() }),
        ..Default::default()
    });
    request.metadata_mut().insert("traceparent", traceparent(&by_grpc, "01").parse().unwrap());
    let mut client = DtmClient::connect(format!("http://{}", app.grpc())).await.unwrap();
    client.submit(request).await.unwrap();
    collector.trace(&by_grpc, "submit transaction", 1).await;
    let spans = collector.trace(&by_grpc, "drive transaction", 1).await;
    assert_calls(&spans, "submit transaction", "call branch", &service, "g-grpc", &["action/01", "action/02"]);
}

/// Whoever prepared a message may be gone, and the node that took it too: the question is still a part of the trace.
#[tokio::test]
async fn a_back_check_is_in_the_trace_of_who_prepared() {
    let (collector, service) = (Collector::start().await, Service::start().await);
    let mut app = App::start(options(&collector, "grpc").setting("trans.timeout_to_fail_ms", 1_500)).await;
    let trace = trace_id(3);
    let body = json!({
        "gid": "g-msg", "trans_type": "msg", "query_prepared": service.url("/asked"), "payloads": ["{}"],
        "steps": [{"action": service.url("/in")}],
    });
    let reply = app.post("/api/dtmsvr/prepare", &[("traceparent", &traceparent(&trace, "01"))], &body).await;
    assert_eq!(reply.status, 200, "{}", reply.json);
    collector.trace(&trace, "prepare transaction", 1).await;
    app.restart(|options| options).await;
    service.wait_for_calls("g-msg", 2).await;
    let spans = collector.trace(&trace, "drive transaction", 1).await;
    assert_calls(&spans, "prepare transaction", "check back", &service, "g-msg", &["msg/00"]);
    assert_calls(&spans, "prepare transaction", "call branch", &service, "g-msg", &["action/01"]);
}

/// Off, nothing is recorded and everything is handed on as it came.
#[tokio::test]
async fn without_a_collector_a_trace_passes_through() {
    let (app, service) = (App::start(AppOptions::default().quick_trans()).await, Service::start().await);
    let given = traceparent(&trace_id(4), "01");
    let headers = [("traceparent", given.as_str()), ("tracestate", "shop=7")];
    app.post("/api/dtmsvr/submit", &headers, &saga("g", |path| service.url(path))).await;
    let named = json!({"traceparent": traceparent(&trace_id(5), "00")});
    let mut own = saga("g-own", |path| service.url(path));
    own["branch_headers"] = named.clone();
    app.post("/api/dtmsvr/submit", &headers, &own).await;
    for call in service.calls("g") {
        assert!(call.headers["traceparent"] == *given && call.headers["tracestate"] == "shop=7", "{:?}", call.headers);
    }
    for call in service.calls("g-own") {
        assert_eq!(call.headers["traceparent"], named["traceparent"].as_str().unwrap(), "its own header goes before");
    }
    assert_eq!((service.calls("g").len(), service.calls("g-own").len()), (2, 2));
}
