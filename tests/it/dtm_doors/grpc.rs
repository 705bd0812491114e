//! What only gRPC has: its codes, health, reflection, either port, and rubbish in its own form.

use super::trans_request;
use crate::support::app::{App, AppOptions};
use crate::support::raw::Raw;
use bytes::Bytes;
use http::uri::PathAndQuery;
use prost::Message;
use rushline::proto::dtmgimp::dtm_client::DtmClient;
use rushline::proto::dtmgimp::{DtmBranchRequest, DtmRequest};
use serde_json::json;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// What a server that stops may take on a busy machine.
const END_WAIT_MAX: Duration = Duration::from_secs(20);

async fn start() -> (App, Channel) {
    let app = App::start(AppOptions::default().quick_trans()).await;
    let channel = connect(&app.grpc()).await;
    (app, channel)
}

async fn connect(address: &str) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

async fn send(channel: &Channel, path: &str, message: &[u8]) -> Result<Bytes, Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let request = Request::new(Bytes::copy_from_slice(message));
    client.unary(request, path.parse::<PathAndQuery>().unwrap(), Raw).await.map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_codes_are_those_that_clients_go_by() {
    let (app, channel) = start().await;
    let mut client = DtmClient::new(channel);
    let code = |answer: Result<tonic::Response<()>, Status>| answer.unwrap_err().code();
    let gid = client.new_gid(()).await.unwrap().into_inner().gid;
    assert_eq!(gid.len(), 22);
    let tcc = |gid: &str| trans_request(&json!({ "gid": gid, "trans_type": "tcc", "timeout_to_fail": 30 }));
    assert_eq!(code(client.abort(tcc("g9")).await), Code::Internal, "unknown");
    assert_eq!(code(client.submit(DtmRequest::default()).await), Code::InvalidArgument);
    client.prepare(tcc(&gid)).await.unwrap();
    client.submit(tcc(&gid)).await.unwrap();
    assert_eq!(code(client.prepare(tcc(&gid)).await), Code::Aborted, "a definite no");
    let branch =
        DtmBranchRequest { gid: "g9".into(), trans_type: "tcc".into(), branch_id: "01".into(), ..Default::default() };
    assert_eq!(code(client.register_branch(branch).await), Code::Aborted);
    let odd = DtmBranchRequest { gid: "g9".into(), trans_type: "odd".into(), ..Default::default() };
    assert_eq!(code(client.register_branch(odd).await), Code::Unknown);
    // dtm's clients send field 4 of the options, which is no longer there.
    let mut old = tcc("old").encode_to_vec();
    let options = [0x1a, 3, 0x22, 1, b'x'];
    old.extend(options);
    send(&connect(&app.grpc()).await, "/dtmgimp.Dtm/Prepare", &old).await.unwrap();
    // The same service by the port of HTTP, as dtm does not have it.
    let mut client = DtmClient::new(connect(app.base().trim_start_matches("http://")).await);
    assert_eq!(client.new_gid(()).await.unwrap().into_inner().gid.len(), 22);
    assert_eq!(code(client.prepare(tcc(&gid)).await), Code::Aborted);
    // And HTTP by the port of gRPC is told where to go.
    let reply = crate::support::app::Http::new(format!("http://{}", app.grpc()));
    let reply = reply.ask(http::Method::GET, "/healthz", &[], None).await.unwrap();
    assert_eq!((reply.status, reply.code()), (415, "grpc_only"));
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_its_watch() {
    // A grace period that nobody would wait for.
    let mut app = App::start(AppOptions::default().quick_trans().setting("shutdown.grace_ms", 600_000)).await;
    let channel = connect(&app.grpc()).await;
    let mut client = HealthClient::new(channel);
    let ask = |service: &str| HealthCheckRequest { service: service.to_owned() };
    for service in ["", "dtmgimp.Dtm", "rushline.v1.Orders", "rushline.v1.Sales"] {
        let reply = client.check(ask(service)).await.unwrap().into_inner();
        assert_eq!(reply.status(), ServingStatus::Serving, "{service}");
    }
    assert_eq!(client.check(ask("nothing")).await.unwrap_err().code(), Code::NotFound);
    let mut watch = client.watch(ask("")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    // A watch is told of the end, and does not hold it up.
    app.signal("TERM");
    let mut last = ServingStatus::Serving;
    let to_its_end = async {
        while let Ok(Some(reply)) = watch.message().await {
            last = reply.status();
        }
    };
    tokio::time::timeout(END_WAIT_MAX, to_its_end).await.expect("the watch ends before the grace period does");
    assert_eq!(last, ServingStatus::NotServing);
    assert!(app.wait_for_end(END_WAIT_MAX).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_tells_what_there_is() {
    use tonic_reflection::pb::{v1, v1alpha};
    let (_app, channel) = start().await;
    macro_rules! ask {
        ($version:ident) => {{
            use $version::server_reflection_client::ServerReflectionClient;
            use $version::server_reflection_request::MessageRequest;
            use $version::server_reflection_response::MessageResponse;
            let ask = async |request: MessageRequest| {
                let request = $version::ServerReflectionRequest { host: String::new(), message_request: Some(request) };
                let requests = futures_util::stream::iter([request]);
                let mut client = ServerReflectionClient::new(channel.clone());
                let mut replies = client.server_reflection_info(requests).await.unwrap().into_inner();
                replies.message().await.unwrap().unwrap().message_response.unwrap()
            };
            match ask(MessageRequest::ListServices(String::new())).await {
                MessageResponse::ListServicesResponse(list) => {
                    let mut names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
                    names.sort();
                    let all = ["dtmgimp.Dtm", "grpc.health.v1.Health", "rushline.v1.Orders", "rushline.v1.Sales"];
                    assert_eq!(names, all);
                }
                other => panic!("{other:?}"),
            }
            for name in [
                "dtmgimp.Dtm",
                "dtmgimp.DtmRequest",
                "google.protobuf.Empty",
                "rushline.v1.Orders",
                "rushline.v1.Sales",
                "google.rpc.Status",
            ] {
                match ask(MessageRequest::FileContainingSymbol(name.into())).await {
                    MessageResponse::FileDescriptorResponse(files) => assert_eq!(files.file_descriptor_proto.len(), 1),
                    other => panic!("{name}: {other:?}"),
                }
            }
        }};
    }
    ask!(v1);
    ask!(v1alpha);
}

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

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_is_refused_with_a_status() {
    let (mut app, channel) = start().await;
    for path in ["/dtmgimp.Dtm/Query", "/dtmgimp.Dtm/", "/busi.Busi/TransIn", "/nothing", "/v1/sales/x/orders"] {
        let status = send(&channel, path, b"").await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{path}");
        assert!(status.message().contains(path), "{path}: {}", status.message());
    }
    for method in METHODS {
        let path = format!("/dtmgimp.Dtm/{method}");
        let status = send(&channel, &path, b"").await.err();
        assert_eq!(status.is_none(), method == "NewGid", "{method}: empty fields");
        assert!(status.is_none_or(|status| !status.message().is_empty()), "{method}");
        for bad in [&b"\xff\xff\xff"[..], b"\x0a\xff\x01", b"\x0a\x05abc", b"\x0a\x02\xff\xfe", b"\x08\x01"] {
            let Err(status) = send(&channel, &path, bad).await else { continue };
            assert!(!status.message().is_empty(), "{method} {bad:?}");
            assert!(
                [Code::Internal, Code::InvalidArgument, Code::Unknown].contains(&status.code()),
                "{method}: {status:?}"
            );
        }
        // Bytes that nobody meant, near those that somebody does.
        let body = json!({ "gid": "x1", "trans_type": "saga", "payloads": ["{}"], "custom_data": "{}",
            "steps": [{ "action": "127.0.0.1:9/p.S/M", "compensate": "" }], "retry_interval": 60 });
        let good = trans_request(&body).encode_to_vec();
        for seed in 0..60 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut message = good.clone();
            for _ in 0..random.usize(1..4) {
                let place = random.usize(..message.len());
                message[place] = random.u8(..);
            }
            let _ = send(&channel, &path, &message).await; // whatever it is, there is an answer
        }
    }
    let long = trans_request(&json!({ "gid": "long", "trans_type": "saga", "custom_data": "x".repeat(5 << 20) }));
    let status = send(&channel, "/dtmgimp.Dtm/Submit", &long.encode_to_vec()).await.unwrap_err();
    assert!([Code::OutOfRange, Code::ResourceExhausted].contains(&status.code()), "{status:?}");
    assert!(status.message().contains("too large"), "{status:?}");
    assert!(app.is_running());
    assert!(!app.log().contains("panicked"), "{}", app.log());
}
