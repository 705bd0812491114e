//! A body that must come within its time. Orders and dtm's calls read theirs with a time limit of their own; this is for
//! whatever reads a body and has none: hyper would wait for ever.

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Sleep;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the body did not come within {} ms (setting http.header_timeout_ms); nothing was taken", .0.as_millis())]
    Slow(Duration),
    #[error(transparent)]
    Broken(#[from] hyper::Error),
}

pub struct Timed {
    body: Incoming,
    within: Duration,
    /// Runs from the first time that somebody had to wait: most bodies are there already.
    running: Option<Pin<Box<Sleep>>>,
}

impl Timed {
    pub fn new(body: Incoming, within: Duration) -> Self {
        Self { body, within, running: None }
    }
}

impl Body for Timed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Error::Broken)));
        }
        let within = self.within;
        let running = self.running.get_or_insert_with(|| Box::pin(tokio::time::sleep(within)));
        running.as_mut().poll(context).map(|()| Some(Err(Error::Slow(within))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
