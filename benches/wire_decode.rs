//! What does it cost to read a request, at each door? From the bytes of a body to what the rules take.

use criterion::{Criterion, Throughput};
use prost::Message;
use rushline::domain::trans::TransRequest;
use rushline::proto::dtmgimp::{DtmRequest, DtmTransOptions};
use rushline::server::wire::PlaceOrder;
use rushline::server::{read_grpc, read_json_rpc};
use serde_json::json;
use std::hint::black_box;

/// As the load test's buyers send it.
const ORDER: &str = r#"{"buyer":"u1","items":[{"sku":"sku-1","quantity":1}],"payload":{"address":"12 Example Street, 10115 Berlin","coupon":"NOV22","gift":false,"note":"please ring twice, thanks"}}"#;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let step = |name: &str| {
        json!({ "action": format!("http://localhost:8081/api/{name}"),
            "compensate": format!("http://localhost:8081/api/{name}Undo") })
    };
    let steps = json!([step("TransOut"), step("TransIn")]);
    let payload = r#"{"amount":30}"#;
    // As an SDK of dtm words it: a saga of two steps.
    let saga = json!({ "gid": "bench-0000000001", "trans_type": "saga", "steps": steps, "payloads": [payload, payload],
        "concurrent": false, "protocol": "http", "wait_result": true });
    let by_http = saga.to_string();
    // A key in other case: what no SDK sends, and dtm takes.
    let in_other_case = by_http.replacen("trans_type", "Trans_Type", 1);
    let by_json_rpc = json!({ "jsonrpc": "2.0", "id": "1", "method": "submit", "params": saga }).to_string();
    let by_grpc = DtmRequest {
        gid: "bench-0000000001".into(),
        trans_type: "saga".into(),
        trans_options: Some(DtmTransOptions { wait_result: true, ..DtmTransOptions::default() }),
        bin_payloads: vec![payload.into(), payload.into()],
        steps: steps.to_string(),
        ..DtmRequest::default()
    };
    let by_grpc = by_grpc.encode_to_vec();

    let mut group = criterion.benchmark_group("wire_decode");
    group.throughput(Throughput::Elements(1));
    group.bench_function("order_http", |bencher| {
        bencher.iter(|| {
            let order: PlaceOrder<'_> = serde_json::from_slice(black_box(ORDER.as_bytes())).unwrap();
            order.into_order(None, None).unwrap()
        });
    });
    group.bench_function("saga_http", |bencher| {
        bencher.iter(|| TransRequest::from_json(black_box(by_http.as_bytes())).unwrap());
    });
    group.bench_function("saga_http_in_other_case", |bencher| {
        bencher.iter(|| TransRequest::from_json(black_box(in_other_case.as_bytes())).unwrap());
    });
    group.bench_function("saga_json_rpc", |bencher| {
        bencher.iter(|| read_json_rpc(black_box(by_json_rpc.as_bytes())).unwrap());
    });
    group.bench_function("saga_grpc", |bencher| {
        bencher.iter(|| read_grpc(DtmRequest::decode(black_box(by_grpc.as_slice())).unwrap()).unwrap());
    });
    group.finish();
    criterion.final_summary();
}
