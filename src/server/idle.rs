//! Connections on which nothing is asked: how long they are kept, and how many one address may have.
//!
//! hyper bounds the time for a head on HTTP/1. It waits for ever for the first bytes of a connection, which say what is
//! spoken on it, and for the next request on HTTP/2, as long as pings are answered.

use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Body, Frame};
use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// What is under way on one connection.
pub struct Activity {
    begun: Instant,
    under_way: AtomicUsize,
    /// When something ended last, in milliseconds after `begun`.
    ended_ms: AtomicU64,
}

impl Activity {
    pub fn begin() -> Arc<Self> {
        Arc::new(Self { begun: Instant::now(), under_way: AtomicUsize::new(0), ended_ms: AtomicU64::new(0) })
    }

    /// A request, until what this gives is dropped.
    pub fn request(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(self.clone())
    }

    /// Returns once nothing has been under way for so long.
    pub async fn idle(&self, patience: Duration) {
        loop {
            let ended = self.begun + Duration::from_millis(self.ended_ms.load(Ordering::Relaxed));
            let until = match self.under_way.load(Ordering::Relaxed) {
                0 => ended + patience,
                _ => Instant::now() + patience,
            };
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

pub struct UnderWay(Arc<Activity>);

/// An answer that goes on for as long as it likes: under way until it ends. One whose length is known is over when it is made;
/// who does not read it is idle.
struct Lasting {
    body: axum::body::Body,
    _under_way: UnderWay,
}

/// The answer to a request.
pub fn answered(response: Response, under_way: UnderWay) -> Response {
    match response.body().size_hint().exact() {
        Some(_) => response,
        None => response.map(|body| axum::body::Body::new(Lasting { body, _under_way: under_way })),
    }
}

impl Body for Lasting {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let ms = u64::try_from(self.0.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.ended_ms.store(ms, Ordering::Relaxed);
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Connections by the address they come from.
pub struct PerAddress {
    max: usize,
    held: Mutex<HashMap<IpAddr, usize>>,
}

impl PerAddress {
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, held: Mutex::default() })
    }

    /// One more from there; `None` if it has as many as it may.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Held> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(address).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Held { of: self.clone(), address })
    }
}

pub struct Held {
    of: Arc<PerAddress>,
    address: IpAddr,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = self.of.held.lock().unwrap_or_else(PoisonError::into_inner);
        let left = held.get(&self.address).map_or(0, |count| count.saturating_sub(1));
        match left {
            0 => drop(held.remove(&self.address)),
            _ => drop(held.insert(self.address, left)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_connections_and_gives_them_back() {
        let crowd = PerAddress::new(2);
        let (one, other) = ("127.0.0.1".parse().unwrap(), "::1".parse().unwrap());
        let (first, _second) = (crowd.enter(one), crowd.enter(one));
        assert!(first.is_some() && crowd.enter(one).is_none() && crowd.enter(other).is_some());
        drop(first);
        assert!(crowd.enter(one).is_some());
        assert_eq!(crowd.held.lock().unwrap().len(), 1, "who has none is forgotten");
    }

    #[tokio::test]
    async fn a_connection_is_idle_when_nothing_is_under_way() {
        let (activity, patience) = (Activity::begin(), Duration::from_millis(5));
        activity.idle(patience).await;
        let request = activity.request();
        tokio::select! {
            () = activity.idle(patience) => panic!("a request is under way"),
            () = tokio::time::sleep(patience * 10) => {}
        }
        drop(request);
        activity.idle(patience).await;
    }
}
