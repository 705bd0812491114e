//! The Rust client against a real server, with services that answer through it.

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
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let answer = move |RawQuery(query): RawQuery, body: Bytes| {
        let answered = handler(query.unwrap_or_default(), body);
        async move { answered.await.into_response() }
    };
    tokio::spawn(async move {
        use hyper_util::rt::{TokioExecutor, TokioIo};
        let router = Router::new().fallback(answer);
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper_util::service::TowerToHyperService::new(router.clone());
            tokio::spawn(async move {
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    url
}
