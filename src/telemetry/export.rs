//! Sends spans to a collector: OTLP over gRPC, or protobuf over HTTP. What cannot be sent is counted and let go of.

use super::otlp::{self, ExportRequest, ExportResponse};
use super::trace::{self, Data, Queued, Tracer};
use crate::config::OtlpProtocol;
use crate::fault::{Class, Fault};
use crate::http1::{self, Address, Connection, Failed, Request};
use crate::outside;
use http::HeaderMap;
use http::uri::PathAndQuery;
use prost::Message;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, ClientTlsConfig};

/// Most spans of one call.
const BATCH_MAX: usize = 512;
/// How long a span waits for others to be sent with.
const LINGER: Duration = Duration::from_secs(1);
/// Longest time one call may take.
const CALL_TIME_MAX: Duration = Duration::from_secs(10);
/// Calls of one batch, the first included, with a longer pause each time: a collector that restarts is back by then, and
/// what comes meanwhile still finds room in the queue.
const TRIES_MAX: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);
/// Where OTLP over HTTP has its traces, for an endpoint without a path.
const HTTP_PATH: &str = "/v1/traces";
const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

pub struct Settings {
    /// `http://` or `https://`.
    pub endpoint: String,
    pub protocol: OtlpProtocol,
    /// Of every call, besides its own.
    pub headers: HeaderMap,
    /// Of requests without a trace, the share that begins one; 0 to 1.
    pub share: f64,
    pub queue_max: usize,
    /// This node's name.
    pub instance: String,
}

/// Turns traces on for this process.
pub fn start(settings: Settings) -> anyhow::Result<()> {
    let collector = Collector::new(&settings.endpoint, settings.protocol, settings.headers)?;
    let (queue, queued) = mpsc::channel(settings.queue_max);
    trace::install(Tracer { queue, share: settings.share });
    tokio::spawn(run(queued, collector, settings.instance));
    Ok(())
}

/// Waits until what has been recorded so far is sent, for at most `within`.
pub async fn flush(within: Duration) {
    let Some(tracer) = trace::tracer() else { return };
    let (done, told) = oneshot::channel();
    let sent = async {
        if tracer.queue.send(Queued::Flush(done)).await.is_ok() {
            let _ = told.await; // the exporter is gone: nothing is left to wait for
        }
    };
    if tokio::time::timeout(within, sent).await.is_err() {
        tracing::warn!("the last traces are not sent: the collector did not take them in time");
    }
}

/// Until nobody records any more. A panic is a bug, and the end of the spans that were in hand.
async fn run(mut queued: mpsc::Receiver<Queued>, mut collector: Collector, instance: String) {
    while outside::panicked(export_all(&mut queued, &mut collector, &instance)).await {}
}

async fn export_all(queued: &mut mpsc::Receiver<Queued>, collector: &mut Collector, instance: &str) {
    let mut well = true;
    while let Some(first) = queued.recv().await {
        let (mut spans, mut flushed) = (Vec::new(), Vec::new());
        let by = Instant::now() + LINGER;
        let mut next = Some(first);
        while let Some(one) = next.take() {
            match one {
                Queued::Span(span) => spans.push(*span),
                Queued::Flush(done) => flushed.push(done),
            }
            if spans.len() >= BATCH_MAX || !flushed.is_empty() {
                break;
            }
            next = tokio::time::timeout_at(by, queued.recv()).await.ok().flatten();
        }
        if !spans.is_empty() {
            let sent = export(collector, instance, spans).await;
            if let Err(error) = &sent
                && well
            {
                tracing::warn!(error, "the collector does not take traces; this is said once until it does again");
            }
            well = sent.is_ok();
        }
        for done in flushed {
            let _ = done.send(());
        }
    }
}

async fn export(collector: &mut Collector, instance: &str, spans: Vec<Data>) -> Result<(), String> {
    let count = spans.len() as u64;
    let request = otlp::request(instance, spans);
    let mut error = String::new();
    for tried in 0..TRIES_MAX {
        if tried > 0 {
            tokio::time::sleep(PAUSE * tried).await;
        }
        let called = tokio::time::timeout(CALL_TIME_MAX, collector.send(&request)).await;
        match called.unwrap_or_else(|_| Err((format!("no answer within {} s", CALL_TIME_MAX.as_secs()), true))) {
            Ok(rejected) => {
                metrics::counter!("rushline_spans_exported_total").increment(count.saturating_sub(rejected));
                metrics::counter!("rushline_spans_dropped_total", "why" => "rejected").increment(rejected);
                return Ok(());
            }
            Err((why, again)) => {
                error = why;
                if !again {
                    break;
                }
            }
        }
    }
    metrics::counter!("rushline_spans_dropped_total", "why" => "not_sent").increment(count);
    Err(error)
}

struct Collector {
    headers: HeaderMap,
    way: Way,
}

enum Way {
    Http { address: Address, kept: Option<Connection> },
    Grpc(Channel),
}

impl Collector {
    fn new(endpoint: &str, protocol: OtlpProtocol, headers: HeaderMap) -> anyhow::Result<Self> {
        let bad = || {
            Fault::new(Class::Config, "telemetry.otlp_endpoint cannot be used")
                .hint("for example http://127.0.0.1:4317")
        };
        let mut address = Address::parse(endpoint).ok_or_else(bad)?;
        if protocol == OtlpProtocol::Http {
            if matches!(address.path.as_str(), "" | "/") {
                address.path = HTTP_PATH.to_owned();
            }
            return Ok(Self { headers, way: Way::Http { address, kept: None } });
        }
        let scheme = if address.tls { "https" } else { "http" };
        let mut channel = Channel::from_shared(format!("{scheme}://{}", address.authority)).map_err(|_| bad())?;
        if address.tls {
            channel = channel.tls_config(ClientTlsConfig::new().with_webpki_roots())?;
        }
        Ok(Self { headers, way: Way::Grpc(channel.connect_timeout(CALL_TIME_MAX).connect_lazy()) })
    }

    /// How many spans were rejected; or why it failed, and whether another try may help.
    async fn send(&mut self, request: &ExportRequest) -> Result<u64, (String, bool)> {
        let response = match &mut self.way {
            Way::Http { address, kept } => {
                let message =
                    Request::new("POST", address, &address.path).field("content-type", b"application/x-protobuf");
                let message = self
                    .headers
                    .iter()
                    .fold(message, |message, (name, value)| message.field(name.as_str(), value.as_bytes()))
                    .with_body(&request.encode_to_vec());
                let called = http1::call(address, &message, || kept.take()).await;
                let (answer, connection) = called.map_err(|failed| (why(failed), true))?;
                *kept = Some(connection);
                if !answer.status.is_success() {
                    // As the specification of OTLP over HTTP lists them.
                    let again = matches!(answer.status.as_u16(), 429 | 502 | 503 | 504);
                    return Err((format!("status {}", answer.status), again));
                }
                ExportResponse::decode(answer.body).unwrap_or_default()
            }
            Way::Grpc(channel) => {
                let mut client = tonic::client::Grpc::new(channel.clone());
                client.ready().await.map_err(|error| (error.to_string(), true))?;
                let codec = tonic_prost::ProstCodec::<ExportRequest, ExportResponse>::default();
                let path = PathAndQuery::from_static(GRPC_PATH);
                let mut request = tonic::Request::new(request.clone());
                *request.metadata_mut() = MetadataMap::from_headers(self.headers.clone());
                let answer = client.unary(request, path, codec).await;
                answer.map_err(|status| (format!("{:?}", status.code()), is_passing(status.code())))?.into_inner()
            }
        };
        let rejected = response.partial_success.map_or(0, |partial| partial.rejected_spans);
        Ok(u64::try_from(rejected).unwrap_or_default())
    }
}

fn why(failed: Failed) -> String {
    let (Failed::Connect(why) | Failed::Broken(why) | Failed::Body(why)) = failed;
    why
}

/// As the specification of OTLP over gRPC lists them.
fn is_passing(code: tonic::Code) -> bool {
    use tonic::Code::{Aborted, Cancelled, DataLoss, DeadlineExceeded, OutOfRange, Unavailable};
    matches!(code, Aborted | Cancelled | DataLoss | DeadlineExceeded | OutOfRange | Unavailable)
}
