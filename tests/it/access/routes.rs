//! Every route that there is, read where it is made: a new one cannot be forgotten.

use crate::access::Tokens;
use crate::support::app::App;
use protox::prost::Message;
use protox::prost_reflect::prost_types::FileDescriptorProto;
use rushline::access::rules::{self, RULES};
use std::collections::BTreeSet;
use std::path::Path;
use tonic::transport::Endpoint;

fn source(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

type Routes = BTreeSet<(String, String)>;

/// Of axum's routers: `.route("/path", get(…).post(…))`.
fn of_routers() -> Routes {
    let mut found = Routes::new();
    for file in ["src/server/mod.rs", "src/dashboard/mod.rs"] {
        for route in source(file).split(".route(").skip(1) {
            let (path, handlers) = route.split_once(',').unwrap();
            let path = if path == "METRICS_OF_DTM" { "/api/metrics" } else { path.trim().trim_matches('"') };
            let handlers = handlers.split("\n        .").next().unwrap();
            for method in ["get", "post", "patch", "put", "delete"] {
                if handlers.contains(&format!("{method}(")) {
                    found.insert((method.to_uppercase(), path.to_owned()));
                }
            }
        }
    }
    assert!(found.len() > 35, "the routers are written in another way by now: {found:?}");
    found
}

/// Of dtm's door: the arms of its `match`, such as `("GET" | "POST", "subscribe")`.
fn of_dtm() -> Routes {
    let source = source("src/server/dtm/http.rs");
    let (_, arms) = source.split_once("match (method.as_str(), route)").unwrap();
    let (arms, _) = arms.split_once("_ => return not_found()").unwrap();
    let words = |text: &str| text.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let mut found = Routes::new();
    for arm in arms.lines().map(str::trim).filter(|line| line.starts_with("(\"")) {
        let (pattern, _) = arm.split_once(") =>").unwrap();
        let (methods, verbs) = pattern.split_once(", ").unwrap();
        for method in words(methods) {
            for verb in words(verbs) {
                found.insert((method.clone(), format!("/api/dtmsvr/{verb}")));
            }
            if words(verbs).is_empty() {
                found.insert((method, "/api/dtmsvr/topic/{topic}".into()));
            }
        }
    }
    assert!(found.len() > 18, "dtm's door is written in another way by now: {found:?}");
    found.insert(("POST".into(), "/api/json-rpc".into()));
    found.insert(("GET".into(), "/api/ping".into()));
    found
}

/// Of gRPC, as the server itself says by reflection; and reflection's own, which it does not list.
pub async fn of_grpc(app: &App, token: &str) -> Routes {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, server_reflection_response::MessageResponse};
    let channel = Endpoint::from_shared(format!("http://{}", app.grpc())).unwrap().connect().await.unwrap();
    let ask = async |what: MessageRequest| {
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(what) };
        let mut request = tonic::Request::new(futures_util::stream::iter([request]));
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        let mut replies =
            ServerReflectionClient::new(channel.clone()).server_reflection_info(request).await.unwrap().into_inner();
        replies.message().await.unwrap().unwrap().message_response.unwrap()
    };
    let MessageResponse::ListServicesResponse(list) = ask(MessageRequest::ListServices(String::new())).await else {
        panic!("no list of services")
    };
    let mut found = Routes::new();
    for listed in list.service {
        let MessageResponse::FileDescriptorResponse(files) =
            ask(MessageRequest::FileContainingSymbol(listed.name.clone())).await
        else {
            panic!("{} is not described", listed.name)
        };
        for file in files.file_descriptor_proto {
            let file = FileDescriptorProto::decode(file.as_slice()).unwrap();
            for service in &file.service {
                for method in &service.method {
                    found.insert(("POST".into(), format!("/{}.{}/{}", file.package(), service.name(), method.name())));
                }
            }
        }
    }
    assert!(found.contains(&("POST".into(), "/dtmgimp.Dtm/Submit".into())), "{found:?}");
    for version in ["v1", "v1alpha"] {
        found.insert(("POST".into(), format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")));
    }
    found
}

/// Over HTTP and JSON-RPC; orders are placed before any router.
pub fn of_http() -> Routes {
    let mut all = of_routers();
    all.extend(of_dtm());
    all.insert(("POST".into(), rules::PLACE.path.into()));
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_has_its_line_and_every_line_its_route() {
    let tokens = Tokens::new();
    let app = App::start(tokens.options()).await;
    let mut routes = of_http();
    routes.extend(of_grpc(&app, tokens.of(rushline::access::Role::Reader)).await);
    let listed: Routes = RULES.iter().map(|rule| (rule.method.to_owned(), rule.path.to_owned())).collect();
    let without: Vec<_> = routes.difference(&listed).collect();
    assert!(without.is_empty(), "src/access/rules.rs does not say who may: {without:?}");
    let gone: Vec<_> = listed.difference(&routes).collect();
    assert!(gone.is_empty(), "src/access/rules.rs has what there is not: {gone:?}");
}
