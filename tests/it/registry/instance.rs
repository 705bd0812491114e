//! An instance of a service with gRPC branches: a real server that registers in etcd as go-zero's do, and notes who
//! called it.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::graceful::GracefulShutdown;
use rushline::registry::etcd::Client;
use rushline::registry::register::{Entry, State};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

/// When each call came, and whose it was: `gid/op/branch_id`.
pub type Calls = Arc<Mutex<Vec<(Instant, String)>>>;

pub struct Instance {
    pub address: String,
    pub calls: Calls,
    entry: Option<Entry>,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

impl Instance {
    /// Serves and is registered under `name` when this returns.
    pub async fn start(etcd: &Arc<Client>, name: &str) -> Self {
        let mut instance = Self::start_unregistered().await;
        instance.register(etcd, name).await;
        instance
    }

    pub async fn start_unregistered() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let calls = Calls::default();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(serve(listener, calls.clone(), stopped));
        Self { address, calls, entry: None, stop: Some(stop), serving }
    }

    pub async fn register(&mut self, etcd: &Arc<Client>, name: &str) {
        let entry = Entry::keep(etcd.clone(), name.to_owned(), self.address.clone());
        let mut state = entry.state();
        state.wait_for(|state| matches!(state, State::Registered(_))).await.unwrap();
        self.entry = Some(entry);
    }

    /// Goes on serving, and nobody new should come.
    pub async fn unregister(&mut self) {
        if let Some(entry) = self.entry.take() {
            entry.remove().await;
        }
    }

    /// As go-zero stops: the entry first, then what is under way is answered.
    pub async fn stop(mut self) -> Calls {
        self.unregister().await;
        let _ = self.stop.take().unwrap().send(());
        self.serving.await.unwrap();
        self.calls
    }

    /// Connections break, nobody listens, and the key stays until its lease ends.
    pub fn crash(mut self) {
        self.serving.abort();
        if let Some(entry) = self.entry.take() {
            entry.abandon();
        }
    }

    pub fn count(&self) -> usize {
        self.calls.lock().unwrap().len()
    }
}

async fn serve(listener: tokio::net::TcpListener, calls: Calls, mut stopped: oneshot::Receiver<()>) {
    let graceful = GracefulShutdown::new();
    // Ends with this task, so that a crash breaks them.
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted.unwrap().0,
            _ = &mut stopped => break,
        };
        let calls = calls.clone();
        let service = hyper::service::service_fn(move |request| answer(request, calls.clone()));
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service);
        connections.spawn(graceful.watch(connection));
    }
    drop(listener);
    graceful.shutdown().await;
}

type Answer =
    Response<StreamBody<futures_util::stream::Iter<std::array::IntoIter<Result<Frame<Bytes>, Infallible>, 2>>>>;

/// An empty message and the status OK, to every method.
async fn answer(request: Request<Incoming>, calls: Calls) -> Result<Answer, Infallible> {
    let word = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
    let call = format!("{}/{}/{}", word("dtm-gid"), word("dtm-op"), word("dtm-branch_id"));
    calls.lock().unwrap().push((Instant::now(), call));
    let _ = request.into_body().collect().await;
    let trailers =
        HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
    let frames = [Ok(Frame::data(Bytes::from_static(&[0; 5]))), Ok(Frame::trailers(trailers))];
    let body = StreamBody::new(futures_util::stream::iter(frames));
    Ok(Response::builder().header("content-type", "application/grpc").body(body).unwrap())
}
