//! The Rust client against a real server, with services that answer through it.

mod grpc;
mod message;
mod orders;
mod saga;
mod tree;
mod two_phase;
mod workflow;

use crate::support::app::{App, AppOptions, eventually};
use crate::support::services::Service;
use axum::Router;
use axum::extract::RawQuery;
use axum::response::IntoResponse;
use rushline::client::{Bytes, Client, StatusCode};
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

/// A server, a client of it, and a service that answers as it is told.
struct Stage {
    app: App,
    client: Client,
    service: Service,
}

impl Stage {
    async fn new() -> Self {
        let app = App::start(AppOptions::default().quick_trans()).await;
        let client = Client::http(app.base()).unwrap();
        Self { client, service: Service::start().await, app }
    }

    fn url(&self, path: &str) -> String {
        self.service.url(path)
    }

    async fn wait_for(&self, gid: &str, status: &str) {
        eventually(&format!("{gid} is {status}"), SOON, || async {
            self.client.query(gid).await.unwrap().is_some_and(|found| found.status == status)
        })
        .await;
    }
}

/// A service of the test's own, for as long as the test: every call is `handler`'s, with its query and body.
async fn serve<F, Fut>(handler: F) -> String
where
    F: Fn(String, Bytes) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = (StatusCode, String)> + Send + 'static,
{
    let answer = move |RawQuery(query): RawQuery, body: Bytes| {
        let answered = handler(query.unwrap_or_default(), body);
        async move { answered.await.into_response() }
    };
    format!("http://{}/", serve_router(Router::new().fallback(answer)).await)
}

/// `HOST:PORT` where this is answered, HTTP/1 and HTTP/2.
async fn serve_router(router: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    serve_on(listener, router);
    address
}

fn serve_on(listener: tokio::net::TcpListener, router: Router) {
    tokio::spawn(async move {
        use hyper_util::rt::{TokioExecutor, TokioIo};
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper_util::service::TowerToHyperService::new(router.clone());
            tokio::spawn(async move {
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
}
