//! HTTP, as a client speaks it: one pool of connections, a time limit on every request, a size limit on every answer.

use super::error::Error;
use crate::dial::{self, Stream};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use url::Url;

/// Answers are progress lists and query results at most.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Idle connections kept to one host; more are made when needed.
const IDLE_PER_HOST_MAX: usize = 64;
const IDLE_MAX: Duration = Duration::from_secs(60);

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

#[derive(Clone)]
pub(crate) struct Http {
    client: hyper_util::client::legacy::Client<Connector, Full<Bytes>>,
}

impl Http {
    pub fn new() -> Self {
        let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
            .build(Connector);
        Self { client }
    }

    pub async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Answer, Error> {
        let uri: Uri = url.as_str().parse().map_err(|error| Error::invalid(format!("{url}: {error}")))?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        let own = request.headers_mut();
        own.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        own.insert(USER_AGENT, HeaderValue::from_static(concat!("rushline-client/", env!("CARGO_PKG_VERSION"))));
        own.extend(headers);
        let unreachable = |cause: String| Error::Unreachable { url: without_query(url), cause };
        let asking = async {
            let response = self.client.request(request).await.map_err(|error| chain(&error))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| chain(&*error))?;
            Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
        };
        match tokio::time::timeout(timeout, asking).await {
            Ok(answer) => answer.map_err(unreachable),
            Err(_) => Err(unreachable(format!("no answer within {} ms", timeout.as_millis()))),
        }
    }
}

/// An error with its causes: what went wrong is mostly in the last of them.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// For messages: a query may hold what is nobody's business.
fn without_query(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.into()
}

/// An absolute http or https URL.
pub(crate) fn parse(url: &str) -> Result<Url, Error> {
    match Url::parse(url) {
        Ok(parsed) if matches!(parsed.scheme(), "http" | "https") && parsed.has_host() => Ok(parsed),
        _ => Err(Error::invalid(format!("`{url}` is no http or https URL"))),
    }
}

/// Makes connections, with TLS where the URL says https.
#[derive(Clone)]
pub(crate) struct Connector;

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Stream<TlsStream<TcpStream>>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(async move {
            let host = uri.host().ok_or_else(|| io::Error::other("the URL has no host"))?;
            let host = host.trim_start_matches('[').trim_end_matches(']'); // IPv6
            let tls = uri.scheme_str() == Some("https");
            let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            if !tls {
                return Ok(TokioIo::new(Stream::Plain(stream)));
            }
            let name = rustls_pki_types::ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
            Ok(TokioIo::new(Stream::Tls(Box::new(dial::TLS.connect(name, stream).await?))))
        })
    }
}
