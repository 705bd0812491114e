//! What is answered over gRPC, on either port: dtm's service, rushline's own (`rpc/`), health and reflection.

use super::slow_body::Timed;
use super::{App, dtm, rpc};
use crate::proto::dtmgimp::dtm_server::SERVICE_NAME as DTM;
use crate::proto::rushline::v1::{orders_server::SERVICE_NAME as ORDERS, sales_server::SERVICE_NAME as SALES};
use crate::proto::{DTM_DESCRIPTORS, RUSHLINE_DESCRIPTORS};
use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, StatusCode, Version};
use hyper::body::Incoming;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tonic::Status;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tower::ServiceExt;

/// How often health looks at what Redis is like.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// What health is asked about: the server as a whole, and each service.
const SERVICES: [&str; 4] = ["", DTM, ORDERS, SALES];

/// Asked of any request, so it looks at the version first: orders come by HTTP/1 mostly.
pub fn is_grpc<B>(request: &Request<B>) -> bool {
    request.version() == Version::HTTP_2
        && request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// The routes, and what to tell health by.
pub fn routes(app: Arc<App>) -> (Router, HealthReporter) {
    let health = HealthReporter::new();
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DTM_DESCRIPTORS)
            .register_encoded_file_descriptor_set(RUSHLINE_DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name(DTM)
            .with_service_name(ORDERS)
            .with_service_name(SALES)
            .with_service_name(HealthServer::<HealthService>::NAME)
    };
    let described = "the descriptors are those that the code was made from";
    let routes = Routes::new(dtm::grpc::service(app.clone()))
        .add_service(rpc::orders(app.clone()))
        .add_service(rpc::sales(app))
        .add_service(HealthServer::new(HealthService::from_health_reporter(health.clone())))
        .add_service(reflection().build_v1().expect(described))
        .add_service(reflection().build_v1alpha().expect(described)) // what grpcurl and older tools ask
        .prepare();
    (routes.into_axum_router(), health)
}

/// A body gets `within`, but for that of reflection, on which a client goes on asking.
pub async fn answer(router: Router, request: Request<Incoming>, within: Duration) -> Response {
    let path = request.uri().path().to_owned();
    let asked = match path.starts_with("/grpc.reflection.") {
        true => request.map(Body::new),
        false => request.map(|body| Body::new(Timed::new(body, within))),
    };
    let mut response = router.oneshot(asked).await.unwrap_or_else(|never| match never {});
    let headers = response.headers_mut();
    let unimplemented = headers.get("grpc-status").is_some_and(|status| status == "12");
    let silent = headers.get("grpc-message").is_none_or(HeaderValue::is_empty);
    if unimplemented && silent {
        // Visible ASCII, or it would be no path; so it needs no encoding, but for the sign of encoding itself.
        let text = format!("there is no method {}; server reflection lists what there is", path.replace('%', "%25"));
        if let Ok(text) = HeaderValue::from_str(&text) {
            headers.insert("grpc-message", text);
        }
    }
    response
}

/// 401 and 403 as gRPC has them.
pub fn refused(status: StatusCode, text: String) -> Response {
    match status {
        StatusCode::UNAUTHORIZED => Status::unauthenticated(text),
        _ => Status::permission_denied(text),
    }
    .into_http()
}

/// Healthy is what is ready: Redis answers and has the scripts, and the server means to stay. Ends, and with it every watch,
/// when the server stops.
pub async fn follow_health(app: Arc<App>, mut health: HealthReporter, mut stopping: watch::Receiver<bool>) {
    let mut told = None;
    let mut leaving = app.leaving.clone();
    while !*leaving.borrow() {
        let usable = app.node.redis.usable();
        if told != Some(usable) {
            told = Some(usable);
            tell(&health, if usable { ServingStatus::Serving } else { ServingStatus::NotServing }).await;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            changed = leaving.changed() => if changed.is_err() { break },
        }
    }
    tell(&health, ServingStatus::NotServing).await;
    let _ = stopping.wait_for(|stop| *stop).await.map(|_| ()); // the error says that nobody is left to say it
    for service in SERVICES {
        health.clear_service_status(service).await; // a watch would hold its connection for the whole grace period
    }
}

async fn tell(health: &HealthReporter, status: ServingStatus) {
    for service in SERVICES {
        health.set_service_status(service, status).await;
    }
}
