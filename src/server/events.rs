//! `GET /v1/orders/{gid}/events`: an order's status as server-sent events, from now to its end.
//!
//! An event for each status, whose id is the status: a client that comes back with `Last-Event-ID` hears only what it has
//! not heard. In between, comments keep proxies from cutting the line. The stream ends when the order has ended; one who
//! comes back after that hears 204, which tells a browser to stop.

use super::App;
use super::orders::look_up;
use super::problem::Problem;
use super::wire::OrderView;
use crate::domain::ids::Gid;
use crate::domain::order::Status;
use crate::sale::Part;
use crate::store::orders::Address;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// How long a client waits before it comes back after a stream broke.
const COME_BACK_MS: u64 = 1_000;
/// Pause before another look when neither Redis nor the records could say how the order stands.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

pub async fn stream(app: &Arc<App>, gid: &str, headers: &HeaderMap) -> Result<Response, Problem> {
    let parsed: Gid = gid.parse().map_err(|_| Problem::unknown_order(gid))?;
    let heard = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()).and_then(Status::parse);
    let Some(following) = Following::begin(app, parsed, heard).await? else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let begin = stream::iter([format!("retry: {COME_BACK_MS}\n\n")]);
    let news = stream::unfold(following, |mut following| async move {
        let chunk = match following.next().await {
            News::Status(view) => event(&view),
            News::None => ": no news\n\n".into(),
            News::Away => ": this order cannot be looked up at present\n\n".into(),
            News::Over | News::Stopping => return None, // the client comes back, to another node
        };
        Some((chunk, following))
    });
    Ok(response(begin.chain(news).map(|chunk| Ok(Bytes::from(chunk)))))
}

/// Server-sent events, as they come.
pub fn response(events: impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static) -> Response {
    let mut response = Response::new(Body::from_stream(events));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx gathers answers unless told not to.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

fn is_over(status: Status) -> bool {
    // By name: of the statuses to come, only these are not the last.
    !matches!(status.as_str(), "submitted" | "reserved")
}

/// What there is to say about an order that is followed.
pub enum News {
    Status(Box<OrderView>),
    /// Nothing for as long as a line may be silent.
    None,
    /// Neither Redis nor the records can be asked.
    Away,
    /// The last status was said, or the order is forgotten.
    Over,
    /// The server stops; another goes on.
    Stopping,
}

/// One client and its order. Dropped when the client hangs up.
pub struct Following {
    app: Arc<App>,
    gid: Gid,
    address: Address,
    /// None for an order of a sale that is only in the records: that has ended.
    part: Option<Arc<Part>>,
    /// The last status that the client knows.
    heard: Option<Status>,
    over: bool,
    /// Its place among all streams.
    _permit: OwnedSemaphorePermit,
}

impl Following {
    /// Takes a place among the streams. `None`: the order is over, and the client knows how.
    pub async fn begin(app: &Arc<App>, gid: Gid, heard: Option<Status>) -> Result<Option<Self>, Problem> {
        let permit = app.event_streams.clone().try_acquire_owned().map_err(|_| {
            Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "too_many_streams",
                "this server holds as many event streams as it may (setting http.event_streams_max); \
                 GET /v1/orders/{gid}?wait_ms= says the same",
            )
            .retry_after(1)
        })?;
        let view = look_up(app, &gid).await?.ok_or_else(|| Problem::unknown_order(&gid.to_string()))?;
        if heard == Some(view.status) && is_over(view.status) {
            return Ok(None);
        }
        let part = app.node.open(&gid.sale).await?.and_then(|open| open.part(gid.partition));
        let address = Address { entry: gid.entry, index: gid.index };
        Ok(Some(Self { app: app.clone(), gid, address, part, heard, over: false, _permit: permit }))
    }

    /// What to say next.
    pub async fn next(&mut self) -> News {
        if self.over {
            return News::Over;
        }
        let heartbeat = Instant::now() + self.app.settings.heartbeat;
        let mut stopping = self.app.stopping.clone();
        loop {
            // Before the look, or an end in between would be missed.
            let ended_here = self.part.as_ref().map(|part| part.waiters.wait_for(self.address));
            match look_up(&self.app, &self.gid).await {
                Ok(Some(view)) if self.heard != Some(view.status) => {
                    self.heard = Some(view.status);
                    self.over = is_over(view.status);
                    self.give_up();
                    return News::Status(Box::new(view));
                }
                Ok(Some(view)) if is_over(view.status) => return News::Over,
                Ok(Some(_)) => {}
                Ok(None) => return News::Over, // forgotten by the records too
                Err(problem) => {
                    tracing::debug!(gid = %self.gid, problem = problem.detail, "an order cannot be followed at present");
                    tokio::time::sleep_until((Instant::now() + LOOK_AGAIN).min(heartbeat)).await;
                    if Instant::now() >= heartbeat {
                        self.give_up();
                        return News::Away;
                    }
                    continue;
                }
            }
            let (Some(part), Some(ended_here)) = (&self.part, ended_here) else { return News::Over };
            let changed = part.watch.changed(self.address, self.heard.unwrap_or(Status::Submitted));
            tokio::select! {
                _ = ended_here => {}
                _ = changed => {}
                () = tokio::time::sleep_until(heartbeat) => {
                    self.give_up();
                    return News::None;
                }
                _ = stopping.wait_for(|stop| *stop) => return News::Stopping,
            }
        }
    }

    fn give_up(&self) {
        if let Some(part) = &self.part {
            part.waiters.give_up(self.address);
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.give_up();
    }
}

fn event(view: &OrderView) -> String {
    // JSON as serde_json writes it has no line breaks, which an event's data must not have.
    let data = serde_json::to_string(view).expect("a view is plain data");
    format!("event: status\nid: {}\ndata: {data}\n\n", view.status.as_str())
}
