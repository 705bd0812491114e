//! The HTTP interface, asked of the real server: what buyers hear, what operators can do, how the order endpoint is
//! called, and what comes of requests that nobody should send.

mod alerts;
mod attention;
mod buyers;
mod changes;
mod endpoint;
mod events;
mod hostile;
mod memory;
mod operators;
mod webhook;

use crate::support::app::{App, AppOptions, Reply};
use crate::support::servers::{Redis, RedisVersion};
use crate::support::shared;
use crate::support::shop::Shop;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Everything that is waited for comes well within this.
const SOON: Duration = Duration::from_secs(20);

/// A server with an order service, on the Redis that all these tests share; its keys are its own.
struct Stage {
    app: App,
    shop: Shop,
    options: AppOptions,
    /// What all its keys begin with.
    prefix: String,
    redis: Arc<Redis>,
    _records: tempfile::TempDir,
}

impl Stage {
    async fn new() -> Self {
        Self::with(|options| options).await
    }

    async fn with(change: impl FnOnce(AppOptions) -> AppOptions) -> Self {
        Self::on(shared::redis(RedisVersion::V8).await, change).await
    }

    /// For stories that count what Redis does.
    async fn on_own_redis() -> Self {
        Self::on(Arc::new(Redis::start(RedisVersion::V8, &["--appendonly", "no"]).await), |options| options).await
    }

    async fn on(redis: Arc<Redis>, change: impl FnOnce(AppOptions) -> AppOptions) -> Self {
        let records = tempfile::tempdir().unwrap();
        let prefix = format!("{}:", shared::unique("http"));
        let options = AppOptions::default()
            .redis(&redis.url())
            .records(&format!("sqlite:{}", records.path().join("orders.db").display()))
            .setting("redis.prefix", &prefix)
            .setting("delivery.retry_base_ms", 20)
            .setting("delivery.retry_max_ms", 100)
            .setting("delivery.ongoing_ms", 20);
        let options = change(options);
        Self {
            app: App::start(options.clone()).await,
            shop: Shop::start().await,
            options,
            prefix,
            redis,
            _records: records,
        }
    }

    /// Another node of the same shop: the same Redis, the same records.
    async fn another_node(&self) -> App {
        self.another_node_with(|options| options).await
    }

    async fn another_node_with(&self, change: impl FnOnce(AppOptions) -> AppOptions) -> App {
        App::start(change(self.options.clone())).await
    }

    /// The body that creates a sale of `sku-1`; `fields` on top.
    fn body(&self, name: &str, units: u64, fields: Value) -> Value {
        let mut body = json!({
            "sale": name,
            "items": [{"sku": "sku-1", "units": units}],
            "durability": "memory",
            "order_endpoint": self.shop.endpoint(),
        });
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        body
    }

    async fn sale(&self, name: &str, units: u64, fields: Value) -> Value {
        self.app.create_sale(&self.body(name, units, fields)).await
    }

    async fn stock(&self, sale: &str) -> Value {
        self.app.get(&format!("/v1/sales/{sale}")).await.json["items"].clone()
    }

    async fn wait(&self, gid: &str, status: &str) -> Value {
        let mut order = Value::Null;
        let deadline = std::time::Instant::now() + SOON;
        while order["status"] != status {
            assert!(std::time::Instant::now() < deadline, "{gid} is not {status}: {order}");
            order = self.app.get(&format!("/v1/orders/{gid}?wait_ms=500")).await.json;
        }
        order
    }
}

fn buy(buyer: &str, quantity: u32) -> Value {
    json!({"buyer": buyer, "items": [{"sku": "sku-1", "quantity": quantity}]})
}

/// A refusal is a problem document that says the same in every place.
#[track_caller]
fn is_problem(reply: &Reply, status: u16, code: &str) {
    assert_eq!((reply.status, reply.code()), (status, code), "{}", reply.json);
    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    assert_eq!(reply.json["status"], status);
    assert_eq!(reply.json["type"], format!("urn:rushline:{code}"));
    assert!(reply.json["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{}", reply.json);
}
