//! A real receiver of OTLP, gRPC and HTTP on one port, that reads spans by the messages which OpenTelemetry publishes: what
//! it understands any collector understands.

use super::app::eventually;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use http::HeaderMap;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tonic::{Request, Response, Status};

const SOON: Duration = Duration::from_secs(30);

#[derive(Clone, Default)]
pub struct Collector {
    heard: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    /// Of the latest call.
    headers: Arc<Mutex<HeaderMap>>,
    address: String,
}

impl Collector {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let collector = Self { address: listener.local_addr().unwrap().to_string(), ..Self::default() };
        let http = Router::new().route("/v1/traces", post(by_http)).with_state(collector.clone());
        let grpc = tonic::service::Routes::new(TraceServiceServer::new(collector.clone())).into_axum_router();
        tokio::spawn(async move { axum::serve(listener, http.merge(grpc)).await });
        collector
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A header of the latest call; empty if it is not there.
    pub fn header(&self, name: &str) -> String {
        let headers = self.headers.lock().unwrap();
        headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    }

    fn take(&self, request: ExportTraceServiceRequest, headers: HeaderMap) {
        *self.headers.lock().unwrap() = headers;
        self.heard.lock().unwrap().push(request);
    }

    /// Everything that was heard, as text.
    pub fn text(&self) -> String {
        format!("{:?}", self.heard.lock().unwrap())
    }

    pub fn spans(&self) -> Vec<Span> {
        let heard = self.heard.lock().unwrap();
        let scopes = heard.iter().flat_map(|request| &request.resource_spans).flat_map(|spans| &spans.scope_spans);
        scopes.flat_map(|spans| spans.spans.clone()).collect()
    }

    /// The spans of one trace, once there are so many of this name.
    pub async fn trace(&self, trace: &str, name: &str, count: usize) -> Vec<Span> {
        let mut found = Vec::new();
        let what = format!("{count} spans `{name}` in trace {trace}");
        eventually(&what, SOON, || {
            found = self.spans().into_iter().filter(|span| hex(&span.trace_id) == trace).collect();
            let there = named(&found, name).len() >= count;
            async move { there }
        })
        .await;
        found
    }
}

pub fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An attribute as text; empty if it is not there.
pub fn attribute(span: &Span, key: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.clone()).and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(flag)) => flag.to_string(),
        other => other.map(|value| format!("{value:?}")).unwrap_or_default(),
    }
}

async fn by_http(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) -> Vec<u8> {
    collector.take(ExportTraceServiceRequest::decode(body).expect("a request of OTLP"), headers);
    ExportTraceServiceResponse::default().encode_to_vec()
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let (headers, _, request) = request.into_parts();
        self.take(request, headers.into_headers());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}
