//! Traces: spans of what is done for a request, sent to a collector by OTLP ([`super::export`]).
//!
//! Off unless `telemetry.otlp_endpoint` is set, and then a span costs one look at a variable that never changes. On, only
//! what is sampled is recorded: who comes with a trace has decided that already, of the others a share is drawn. A span is
//! put into a bounded queue when it ends; one that finds it full is counted and gone, and nobody ever waits.
//!
//! Attributes say which order or transaction it was and what came of it. Never a payload, a buyer's name, a URL's path
//! or query, or what a service answered.

use crate::domain::trace::{Ids, TraceContext};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

/// Most other spans that one names: an admission batch may hold more orders than anybody looks at.
pub const LINKS_MAX: usize = 128;

static TRACER: OnceLock<Tracer> = OnceLock::new();

/// Where the spans of this process go.
pub struct Tracer {
    pub(super) queue: mpsc::Sender<Queued>,
    /// Of what comes without a trace, the share that begins one; 0 to 1.
    pub(super) share: f64,
}

/// What the exporter hears.
pub enum Queued {
    Span(Box<Data>),
    /// Told when all before it has been sent or given up.
    Flush(tokio::sync::oneshot::Sender<()>),
}

/// What a span is about, as OTLP has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    #[default]
    Internal,
    /// Somebody asked us.
    Server,
    /// We ask somebody.
    Client,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Text(String),
    Number(i64),
    Flag(bool),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

/// A span as it is sent.
#[derive(Debug, Default)]
pub struct Data {
    pub trace: [u8; 16],
    pub span: [u8; 8],
    pub parent: Option<[u8; 8]>,
    pub state: String,
    pub name: &'static str,
    pub kind: Kind,
    pub begun_ns: u64,
    pub ended_ns: u64,
    pub attributes: Vec<(&'static str, Value)>,
    pub links: Vec<Ids>,
    /// Why it did not go well; one word of ours, never another's text.
    pub failed: Option<&'static str>,
}

/// A span that is under way. It ends when it is dropped.
pub struct Span(Box<Data>);

/// Has `tracer` take the spans of this process. The first one stays.
pub(super) fn install(tracer: Tracer) {
    let _ = TRACER.set(tracer);
}

/// `None` while traces are off.
pub(super) fn tracer() -> Option<&'static Tracer> {
    TRACER.get()
}

pub fn is_on() -> bool {
    tracer().is_some()
}

/// For what came from outside: goes on with the caller's trace if the caller records it, and begins one for a share of
/// those that came without any.
pub fn begin(name: &'static str, kind: Kind, caller: Option<&TraceContext>) -> Option<Span> {
    let tracer = tracer()?;
    match caller {
        Some(caller) => child_of(name, kind, caller),
        None if fastrand::f64() < tracer.share => {
            let mut trace = [0; 16];
            while trace == [0; 16] {
                fastrand::fill(&mut trace);
            }
            Some(Span::new(name, kind, trace, None, ""))
        }
        None => None,
    }
}

/// For a step on the way of something that is recorded; nothing otherwise.
pub fn child(name: &'static str, kind: Kind, of: Option<&TraceContext>) -> Option<Span> {
    tracer()?;
    child_of(name, kind, of?)
}

fn child_of(name: &'static str, kind: Kind, of: &TraceContext) -> Option<Span> {
    let ids = of.ids().filter(|ids| ids.sampled)?;
    Some(Span::new(name, kind, ids.trace, Some(ids.span), of.state().unwrap_or_default()))
}

/// One span for what is done for many at once: a child of the first of those that are recorded, with links to the others.
pub fn shared<'a>(
    name: &'static str,
    kind: Kind,
    of: impl IntoIterator<Item = Option<&'a TraceContext>>,
) -> Option<Span> {
    tracer()?;
    let mut recorded = of.into_iter().flatten().filter(|context| context.is_sampled());
    let mut span = child_of(name, kind, recorded.next()?)?;
    span.0.links.extend(recorded.filter_map(TraceContext::ids).take(LINKS_MAX));
    Some(span)
}

impl Span {
    fn new(name: &'static str, kind: Kind, trace: [u8; 16], parent: Option<[u8; 8]>, state: &str) -> Self {
        let mut span = [0; 8];
        while span == [0; 8] {
            fastrand::fill(&mut span);
        }
        let data =
            Data { trace, span, parent, name, kind, begun_ns: now_ns(), state: state.to_owned(), ..Data::default() };
        Self(Box::new(data))
    }

    /// What a step below it is told, here or elsewhere.
    pub fn context(&self) -> TraceContext {
        TraceContext::of(Ids { trace: self.0.trace, span: self.0.span, sampled: true }, &self.0.state)
    }

    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        self.0.attributes.push((name, value.into()));
    }

    /// It did not go well; `why` is a word of ours.
    pub fn fail(&mut self, why: &'static str) {
        self.0.failed = Some(why);
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let Some(tracer) = tracer() else { return };
        let mut data = std::mem::take(&mut self.0);
        data.ended_ns = now_ns();
        if tracer.queue.try_send(Queued::Span(data)).is_err() {
            metrics::counter!("rushline_spans_dropped_total", "why" => "queue_full").increment(1);
        }
    }
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No other test of this process installs a tracer before this one looks: traces are off in tests but for here.
    #[test]
    fn what_is_recorded_goes_by_the_caller_and_by_the_share() {
        let parent = |flags: &str| {
            TraceContext::read(format!("00-{}-{}-{flags}", "ab".repeat(16), "cd".repeat(8)).as_bytes(), None)
        };
        assert!(begin("x", Kind::Server, parent("01").as_ref()).is_none(), "off");
        let (queue, mut queued) = mpsc::channel(2);
        install(Tracer { queue, share: 0.0 });
        assert!(begin("x", Kind::Server, None).is_none(), "nobody's share");
        assert!(begin("x", Kind::Server, parent("00").as_ref()).is_none(), "the caller does not record it");
        let span = begin("x", Kind::Server, parent("01").as_ref()).unwrap();
        let below = child("y", Kind::Client, Some(&span.context())).unwrap();
        assert_eq!((below.0.trace, below.0.parent), ([0xab; 16], Some(span.0.span)));
        let (one, two) = (span.context(), below.context());
        let both = shared("z", Kind::Client, [None, parent("00").as_ref(), Some(&one), Some(&two)]).unwrap();
        assert_eq!((both.0.parent, both.0.links.as_slice()), (Some(span.0.span), &[two.ids().unwrap()][..]));
        drop((both, below));
        drop(span); // the queue has two already: dropped and never waited for
        let mut names = Vec::new();
        while let Ok(Queued::Span(data)) = queued.try_recv() {
            assert!(data.ended_ns >= data.begun_ns);
            names.push(data.name);
        }
        assert_eq!(names, ["z", "y"]);
    }
}
