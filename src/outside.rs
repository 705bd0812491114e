//! What a node reaches for outside itself: its tasks, Redis, the shop's services.
//!
//! In a server that is tokio and the network, and this module does nothing. `simulate/` runs several nodes in one process,
//! under one seeded clock, and gives each an [`Outside`] of its own: then tasks stop when their node is paused, are gone
//! when it dies, and calls arrive late, twice or never. Which one is meant is known from who is running, so nothing has to
//! be handed through the rest of the program.

use crate::store::connection::Given;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::StatusCode;
use std::cell::RefCell;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Pause before a chore that panicked is begun anew.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// May the tasks of a node run?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    Open,
    /// Not now; who asked is woken when they may.
    Shut,
    /// Never again: the node has died, and what its tasks hold goes with them.
    Gone,
}

/// Everything around one node.
pub trait Outside: Send + Sync + 'static {
    fn gate(&self, context: &mut Context<'_>) -> Gate;

    /// A connection to Redis, on which an answer is waited for so long.
    fn redis(&self, patience: Duration) -> Arc<dyn Given>;

    /// One call of a service of the shop: status and body, or in words why there is no answer.
    fn post(&self, url: &str, query: &str, body: Vec<u8>) -> BoxFuture<'static, Result<(StatusCode, Bytes), String>>;
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<dyn Outside>>> = const { RefCell::new(None) };
}

/// The outside of whoever runs now; `None` is the real one.
pub fn current() -> Option<Arc<dyn Outside>> {
    CURRENT.with(|current| current.borrow().clone())
}

/// Starts a task that belongs where its starter does.
pub fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    match current() {
        None => drop(tokio::spawn(task)),
        Some(outside) => drop(tokio::spawn(Inside::new(outside, task))),
    }
}

/// Did the task end by a panic? That is a bug, and its end only: whoever asks goes on.
pub async fn panicked(task: impl Future<Output = ()>) -> bool {
    AssertUnwindSafe(task).catch_unwind().await.is_err()
}

/// Starts a chore that goes on for as long as the node does. A panic in it is a bug, and not the end of it: it begins anew.
pub fn chore<T, F>(with: T, begin: impl Fn(T) -> F + Send + 'static)
where
    T: Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    spawn(async move {
        while panicked(begin(with.clone())).await {
            tokio::time::sleep(AFTER_PANIC).await;
        }
    });
}

/// A task for a set of tasks, belonging where its starter does.
pub fn carry<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> BoxFuture<'static, T> {
    match current() {
        None => Box::pin(task),
        Some(outside) => Box::pin(Inside::new(outside, task)),
    }
}

/// A task of a node with an outside of its own.
pub struct Inside<T> {
    outside: Arc<dyn Outside>,
    /// `None` once the node is gone.
    task: Option<BoxFuture<'static, T>>,
}

impl<T> Inside<T> {
    pub fn new(outside: Arc<dyn Outside>, task: impl Future<Output = T> + Send + 'static) -> Self {
        Self { outside, task: Some(Box::pin(task)) }
    }
}

impl<T> Future for Inside<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match self.outside.gate(context) {
            Gate::Open => {}
            Gate::Shut => return Poll::Pending,
            Gate::Gone => {
                let outside = self.outside.clone();
                let task = self.task.take();
                within(outside, || drop(task));
                return Poll::Pending; // nobody is left to hear of it
            }
        }
        let outside = self.outside.clone();
        let Some(task) = &mut self.task else { return Poll::Pending };
        within(outside, || task.as_mut().poll(context))
    }
}

fn within<R>(outside: Arc<dyn Outside>, run: impl FnOnce() -> R) -> R {
    let earlier = CURRENT.with(|current| current.replace(Some(outside)));
    let result = run();
    CURRENT.with(|current| *current.borrow_mut() = earlier);
    result
}
