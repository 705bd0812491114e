//! Calling the branches of global transactions, and what their answers mean.
//!
//! [`http`], [`json_rpc`] and [`grpc`] say what goes over the wire and how an answer reads; [`hosts`] keeps the
//! connections of the first two, each a [`connection`], and bounds the calls to each host, as `grpc` does for its own. [`resolve`] says where a
//! gRPC branch is. What could never be called [`check`] refuses where it comes in.

pub mod grpc;
pub mod hosts;
pub mod http;
pub mod json_rpc;
pub mod outage;
pub mod resolve;

use crate::dial::reach;
use crate::domain::trace::TraceContext;
use crate::domain::trans::timing::request_timeout_ms;
use crate::domain::trans::{BranchResult, CallSpec, Called, Global, Limits, Protocol, TransGid, TransType, check};
use crate::registry;
use crate::telemetry::trace;
use ::http::{HeaderMap, HeaderName, HeaderValue};
use hosts::Hosts;
use resolve::Resolver;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tonic::metadata::MetadataMap;

pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// What all calls of one transaction share; made once a pass.
#[derive(Debug)]
pub struct Context {
    pub gid: TransGid,
    pub trans_type: TransType,
    pub protocol: Protocol,
    pub headers: Arc<HeaderMap>,
    /// The transaction's own headers once more, for branches over gRPC; empty where none can be.
    pub metadata: MetadataMap,
    pub timeout: Duration,
    /// What a recorded call is a part of.
    pub trace: Option<TraceContext>,
}

impl Context {
    /// `credentials`: whether the transaction may bring some for those that it calls.
    pub fn new(global: &Global, limits: &Limits, credentials: bool) -> Self {
        let mut own = HeaderMap::new();
        for (name, value) in &global.options.branch_headers {
            // A header that cannot be sent was accepted by dtm and made every call fail: it is left out here. So is one
            // that must not be: the record may be from before there was a rule.
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value))
                && check::is_own_header(name.as_str(), credentials)
            {
                own.insert(name, value);
            }
        }
        if let Some(trace) = global.options.trace.as_ref().filter(|_| !own.contains_key(TRACEPARENT)) {
            own.extend(trace_headers(trace));
        }
        let metadata = match global.protocol {
            Protocol::Http => MetadataMap::new(),
            Protocol::JsonRpc | Protocol::Grpc => grpc::metadata(&own),
        };
        let mut headers = http::headers();
        if !own.is_empty() {
            Arc::make_mut(&mut headers).extend(own);
        }
        Self {
            gid: global.gid.clone(),
            trans_type: global.trans_type,
            protocol: global.protocol,
            headers,
            metadata,
            timeout: Duration::from_millis(request_timeout_ms(&global.options, limits)),
            trace: global.options.trace.clone(),
        }
    }

    /// As it is for what is done below `span`.
    pub fn below(&self, span: &trace::Span) -> Self {
        let trace = span.context();
        let mut headers = self.headers.clone();
        Arc::make_mut(&mut headers).extend(trace_headers(&trace));
        let mut metadata = self.metadata.clone().into_headers();
        metadata.extend(trace_headers(&trace));
        let metadata = MetadataMap::from_headers(metadata);
        let (gid, trans_type, protocol, timeout) = (self.gid.clone(), self.trans_type, self.protocol, self.timeout);
        Self { gid, trans_type, protocol, headers, metadata, timeout, trace: Some(trace) }
    }
}

/// How a call says which trace it belongs to.
fn trace_headers(trace: &TraceContext) -> HeaderMap {
    let named = [(TRACEPARENT, Some(trace.parent())), (TRACESTATE, trace.state())];
    let headers = named.into_iter().filter_map(|(name, value)| Some((name, HeaderValue::from_str(value?).ok()?)));
    headers.collect()
}

fn call_span(context: &Context, spec: &CallSpec) -> Option<trace::Span> {
    let name = match spec.called {
        Called::Branch(_) => "call branch",
        Called::QueryPrepared => "check back",
        Called::Workflow => "call workflow",
    };
    let mut span = trace::child(name, trace::Kind::Client, context.trace.as_ref())?;
    span.set("rushline.gid", context.gid.as_str());
    span.set("rushline.trans_type", context.trans_type.as_str());
    span.set("rushline.branch_id", spec.branch_id.as_str());
    // A workflow's op is its client's own name for it.
    if !matches!(spec.called, Called::Workflow) {
        span.set("rushline.op", spec.op.as_str());
    }
    span.set("server.address", host_of(&spec.url));
    Some(span)
}

/// Host and port of a URL or a gRPC target: what follows, and an account before it, is nobody's business.
pub fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

/// How a URL is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    /// Not at all, which is a success.
    None,
    Http,
    JsonRpc,
    Grpc,
}

impl Transport {
    fn of(protocol: Protocol, url: &str) -> Self {
        let is_http = url.starts_with("http://") || url.starts_with("https://");
        match protocol {
            _ if url.is_empty() => Transport::None,
            Protocol::JsonRpc if is_http && url.contains("method") => Transport::JsonRpc,
            Protocol::Http => Transport::Http,
            _ if is_http => Transport::Http,
            _ => Transport::Grpc,
        }
    }
}

/// A URL that this server could never call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Uncallable {
    #[error("`{0}` is no http or https URL")]
    NoUrl(String),
    #[error("`{0}` is no gRPC branch, which would be HOST:PORT/package.Service/Method")]
    NoGrpc(String),
    #[error(transparent)]
    Registry(#[from] registry::target::Error),
    #[error(transparent)]
    Refused(#[from] reach::Refused),
}

/// Refuses what could never be called, or must not be, where it comes in. Topics are no URLs yet.
pub fn check(protocol: Protocol, url: &str) -> Result<(), Uncallable> {
    if url.starts_with("topic://") {
        return Ok(());
    }
    match Transport::of(protocol, url) {
        Transport::None => Ok(()),
        Transport::Http | Transport::JsonRpc => match hosts::check(url) {
            Ok(()) => Ok(()),
            Err(hosts::Error::Refused(refused)) => Err(refused.into()),
            Err(_) => Err(Uncallable::NoUrl(url.to_owned())),
        },
        Transport::Grpc => Ok(resolve::check(&resolve::split(url)?.service, reach::current())?),
    }
}

/// Calls branches. One for the whole server.
pub struct Caller {
    hosts: Hosts,
    peers: grpc::Peers,
    resolver: Resolver,
    outages: outage::Outages,
    /// Told when a branch answers again after an outage.
    pub returned: Notify,
    /// `localhost` means the container's host: dtm's `IS_DOCKER`.
    docker: bool,
}

impl Caller {
    /// At most `calls_per_host_max` calls to one host at a time; so many redirects of one call are followed.
    pub fn new(
        calls_per_host_max: usize,
        redirects_max: usize,
        registry: Arc<registry::resolve::Resolver>,
    ) -> Arc<Self> {
        let docker = std::env::var_os("IS_DOCKER").is_some_and(|value| !value.is_empty());
        Arc::new(Self {
            hosts: Hosts::new(calls_per_host_max, redirects_max),
            peers: grpc::Peers::new(calls_per_host_max),
            resolver: Resolver::new(registry),
            outages: outage::Outages::default(),
            returned: Notify::new(),
            docker,
        })
    }

    pub async fn call(&self, context: &Context, spec: &CallSpec) -> BranchResult {
        let Some(mut span) = call_span(context, spec) else { return self.call_in(context, spec).await };
        let result = self.call_in(&context.below(&span), spec).await;
        let outcome = match &result {
            BranchResult::Success => "success",
            BranchResult::Failure(_) => "failure",
            BranchResult::Ongoing => "ongoing",
            BranchResult::Unknown(_) => "unknown",
            BranchResult::NotCalled(_) => "not_called",
        };
        span.set("rushline.outcome", outcome);
        if matches!(result, BranchResult::Unknown(_) | BranchResult::NotCalled(_)) {
            span.fail("no usable answer");
        }
        result
    }

    async fn call_in(&self, context: &Context, spec: &CallSpec) -> BranchResult {
        let result = self.try_call(context, spec).await;
        match result {
            BranchResult::NotCalled(_) => {}
            BranchResult::Unknown(_) => self.outages.failed(&spec.url, Instant::now()),
            _ => {
                if self.outages.answered(&spec.url, Instant::now()) {
                    self.returned.notify_one();
                }
            }
        }
        result
    }

    async fn try_call(&self, context: &Context, spec: &CallSpec) -> BranchResult {
        let rewritten;
        let url = if self.docker {
            rewritten = spec.url.replacen("localhost", DOCKER_HOST, 1).replacen("127.0.0.1", DOCKER_HOST, 1);
            rewritten.as_str()
        } else {
            spec.url.as_str()
        };
        match Transport::of(context.protocol, url) {
            Transport::None => BranchResult::Success,
            Transport::Http => {
                let request = http::request(context, spec);
                http::result(self.hosts.send(url, &request, context.timeout).await)
            }
            Transport::JsonRpc => match json_rpc::request(context, spec, url) {
                Ok(request) => json_rpc::result(self.hosts.send(url, &request, context.timeout).await),
                Err(error) => BranchResult::Unknown(error),
            },
            Transport::Grpc => match self.call_grpc(context, spec, url).await {
                Ok(answer) => grpc::result(answer),
                Err(error) => BranchResult::Unknown(error),
            },
        }
    }

    async fn call_grpc(
        &self,
        context: &Context,
        spec: &CallSpec,
        url: &str,
    ) -> Result<Result<(), grpc::Error>, String> {
        let target = resolve::split(url).map_err(|error| error.to_string())?;
        let mut request = grpc::request(context, spec)?;
        let endpoints = self.resolver.resolve(&target.service, context.timeout).await?;
        let mut unsent = None;
        for endpoint in &endpoints {
            let answer = self.peers.call(endpoint, target.method.clone(), request, context.timeout).await;
            let answered = !matches!(&answer, Err(error) if error.is_silence());
            self.resolver.note(&target.service, endpoint, answered);
            match answer {
                // Nobody heard of the call, so another instance may: one that is being restarted costs no retry.
                Err(error) if error.is_unsent() => unsent = Some(error),
                answer => return Ok(answer),
            }
            request = grpc::request(context, spec)?;
        }
        unsent.map(Err).ok_or_else(|| format!("no instance of {url} has an address that can be called"))
    }

    /// Posts JSON and does not look at the answer: the alert hook.
    pub async fn post(&self, url: &str, body: Vec<u8>, timeout: Duration) -> Result<(), hosts::Error> {
        let request = hosts::Request {
            method: ::http::Method::POST,
            query: String::new(),
            headers: http::headers(),
            body: body.into(),
        };
        self.hosts.send(url, &request, timeout).await.map(|_| ())
    }
}

const DOCKER_HOST: &str = "host.docker.internal";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transport_goes_by_protocol_and_url() {
        for (protocol, url, transport) in [
            (Protocol::Http, "", Transport::None),
            (Protocol::Http, "http://h/a", Transport::Http),
            (Protocol::Http, "localhost:1/a", Transport::Http),
            (Protocol::JsonRpc, "http://h/rpc?method=m", Transport::JsonRpc),
            (Protocol::JsonRpc, "http://h/rpc", Transport::Http),
            (Protocol::JsonRpc, "h:1/p.S/m", Transport::Grpc),
            (Protocol::Grpc, "https://h/a", Transport::Http),
            (Protocol::Grpc, "h:1/p.S/m", Transport::Grpc),
        ] {
            assert_eq!(Transport::of(protocol, url), transport, "{protocol} {url}");
        }
    }

    #[test]
    fn of_a_url_no_more_than_the_host_is_told() {
        for (url, host) in [
            ("http://u:p@h:81/a?b#c", "h:81"),
            ("h:1/p.S/m", "h:1"),
            ("etcd://u@e:2379/name/p.S/m?x=/@y", "e:2379"),
            ("", ""),
        ] {
            assert_eq!(host_of(url), host, "{url}");
        }
    }

    #[test]
    fn what_cannot_be_called_is_refused_where_it_comes_in() {
        assert!(check(Protocol::Http, "http://h:80/a?b=c").is_ok());
        assert!(check(Protocol::Http, "topic://t").is_ok());
        assert!(check(Protocol::Http, "localhost:1/a").is_err());
        assert!(check(Protocol::Http, "http://").is_err());
        assert!(check(Protocol::Grpc, "h:1/p.S/m").is_ok());
        assert!(check(Protocol::Grpc, "h:1").unwrap_err().to_string().contains("package.Service/Method"));
    }
}
