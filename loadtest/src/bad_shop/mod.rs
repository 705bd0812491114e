//! A shop in one process that speaks rushline's order API and can be told to make one mistake: what the oracle is tried on.
//!
//! It is small and slow, keeps everything in memory and one sale at a time. The oracle's tests run it with each
//! [`Fault`]; by hand, `rushline-loadtest bad-shop --fault …` is a target for a run that must end in a verdict.

mod books;
mod fault;

pub use books::Setup;
pub use fault::Fault;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout_at};

use crate::floor::{json_bytes, serve};
use crate::http::Api;
use crate::sink_service::now_unix_us;
use books::{Answer, Call, Sale};

/// Between two calls about the same order, if the order service gave no answer.
const ASK_AGAIN: Duration = Duration::from_millis(5);
/// The longest that `wait_ms` may ask for.
const WAIT_MAX: Duration = Duration::from_secs(10);

#[derive(Args)]
pub struct Settings {
    /// Address; port 0 takes a free one. The first line of stdout says which.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// What it does wrong.
    #[arg(long, value_enum, default_value = "none")]
    fault: Fault,
}

/// Serves for ever; `POST /v1/sales` sets a sale up.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let listener = TcpListener::bind(settings.listen).await?;
    println!("listening on {}", listener.local_addr()?);
    serve_on(listener, settings.fault).await
}

/// Serves on `listener`, inside the calling process.
pub async fn serve_on(listener: TcpListener, fault: Fault) -> anyhow::Result<()> {
    let (calls, to_make) = mpsc::unbounded_channel();
    let shop = Arc::new(Shop {
        fault,
        sale: Mutex::default(),
        service: Mutex::default(),
        calls,
        changed: watch::Sender::new(0),
    });
    tokio::spawn(deliver(shop.clone(), to_make));
    // Leaked, so that answering needs no count: a shop lives as long as its process.
    let shop: &'static Arc<Shop> = Box::leak(Box::new(shop));
    serve(listener, move |request| shop.answer(request)).await
}

struct Shop {
    fault: Fault,
    sale: Mutex<Sale>,
    service: Mutex<Option<Api>>,
    calls: mpsc::UnboundedSender<Call>,
    /// Turns with every end of an order.
    changed: watch::Sender<u64>,
}

impl Shop {
    fn sale(&self) -> MutexGuard<'_, Sale> {
        self.sale.lock().expect("no panic while locked")
    }

    async fn answer(self: &'static Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await else { return respond((400, json!({"code": "body_broken"}), false)) };
        let body: Value = serde_json::from_slice(&body.to_bytes()).unwrap_or(Value::Null);
        let path: Vec<&str> = head.uri.path().trim_matches('/').split('/').collect();
        let query = head.uri.query().unwrap_or_default();
        let wait = query.split('&').find_map(|pair| pair.strip_prefix("wait_ms=")?.parse().ok()).unwrap_or(0);
        let wait = Duration::from_millis(wait).min(WAIT_MAX);
        respond(match (&head.method, &path[..]) {
            (&Method::POST, ["v1", "sales"]) => self.create(&body),
            (&Method::GET, ["v1", "sales", _, "audit"]) => self.audit(wait).await,
            (&Method::POST, ["v1", "sales", _, "stock"]) => {
                let (sku, units) = (body["sku"].as_str().unwrap_or_default(), body["units"].as_i64().unwrap_or(0));
                self.sale().restock(sku, units)
            }
            (&Method::POST, ["v1", "sales", _, "orders"]) => {
                let key = head.headers.get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or_default();
                self.order(key, &body, wait).await
            }
            (&Method::GET, ["v1", "orders", gid]) => self.sale().show(gid),
            (&Method::POST, ["v1", "orders", gid, "confirm"]) => self.end(gid, "confirm"),
            (&Method::POST, ["v1", "orders", gid, "cancel"]) => self.end(gid, "cancel"),
            (&Method::GET, ["readyz"]) => (200, json!({}), false),
            (&Method::GET, ["v1", "sales", _]) => (200, self.sale().audit(), false),
            _ => (404, json!({"code": "unknown_path"}), false),
        })
    }

    fn create(&self, body: &Value) -> Answer {
        let time = |name: &str| {
            let at: Option<jiff::Timestamp> = body[name].as_str().and_then(|text| text.parse().ok());
            at.and_then(|at| u64::try_from(at.as_microsecond()).ok())
        };
        let items = body["items"].as_array().map_or(&[][..], Vec::as_slice);
        let setup = Setup {
            sale: body["sale"].as_str().unwrap_or_default().into(),
            stock: items
                .iter()
                .map(|item| (item["sku"].as_str().unwrap_or_default().into(), item["units"].as_u64().unwrap_or(0)))
                .collect(),
            limit_per_buyer: body["limit_per_buyer"].as_u64(),
            opens_unix_us: time("opens_at"),
            closes_unix_us: time("closes_at"),
            reserve_for_us: body["reserve_for_ms"].as_u64().map(|ms| ms * 1000),
        };
        let url = body["order_endpoint"]["url"].as_str().unwrap_or_default();
        let address = url.strip_prefix("http://").and_then(|rest| rest.split('/').next()?.parse().ok());
        let Some(address) = address else {
            return (
                422,
                json!({"code": "invalid_sale", "detail": "order_endpoint.url: http://IP:PORT/orders"}),
                false,
            );
        };
        *self.service.lock().expect("no panic while locked") = Some(Api { address });
        *self.sale() = Sale::new(setup, self.fault);
        (201, body.clone(), false)
    }

    async fn order(self: &'static Arc<Self>, key: &str, body: &Value, wait: Duration) -> Answer {
        let mut changed = self.changed.subscribe();
        let (mut answer, calls, reserve_for_us) = {
            let mut sale = self.sale();
            let (answer, calls) = sale.order(now_unix_us(), key, body);
            (answer, calls, sale.setup.reserve_for_us)
        };
        let gid = answer.1["gid"].as_str().unwrap_or_default().to_owned();
        for call in calls {
            if let Some(time) = reserve_for_us.filter(|_| call.ours) {
                let gid = call.gid.clone();
                tokio::spawn(async move {
                    sleep(Duration::from_micros(time)).await;
                    self.end(&gid, "expire");
                });
            }
            // The receiver lives as long as the process.
            let _ = self.calls.send(call);
        }
        if gid.is_empty() || wait.is_zero() || reserve_for_us.is_some() {
            return answer;
        }
        let deadline = Instant::now() + wait;
        loop {
            answer.1 = self.sale().view(&gid);
            match answer.1["status"].as_str() {
                Some("submitted") => {}
                Some("failed") => return (409, json!({"code": "order_refused"}), false),
                _ => return answer,
            }
            if timeout_at(deadline, changed.changed()).await.is_err() {
                return answer;
            }
        }
    }

    fn end(&self, gid: &str, op: &'static str) -> Answer {
        let (answer, call) = self.sale().end(gid, op);
        if let Some(call) = call {
            let _ = self.calls.send(call);
        }
        self.changed.send_modify(|turn| *turn += 1);
        answer
    }

    async fn audit(&self, wait: Duration) -> Answer {
        let (mut changed, deadline) = (self.changed.subscribe(), Instant::now() + wait);
        loop {
            let audit = self.sale().audit();
            if audit["settled"] == true || timeout_at(deadline, changed.changed()).await.is_err() {
                return (200, audit, false);
            }
        }
    }
}

/// Tells the order service everything, one after the other, each until it is answered.
async fn deliver(shop: Arc<Shop>, mut calls: mpsc::UnboundedReceiver<Call>) {
    while let Some(call) = calls.recv().await {
        let Some(service) = *shop.service.lock().expect("no panic while locked") else { continue };
        let target = format!("/orders?gid={}&op={}", call.gid, call.op);
        let refused = loop {
            match service.call("POST", &target, Some(&call.body)).await {
                Ok((200..300, _)) => break false,
                Ok((409, _)) => break true,
                _ => sleep(ASK_AGAIN).await,
            }
        };
        {
            let mut sale = shop.sale();
            sale.calls_open -= 1;
            if call.ours {
                sale.made(&call.gid, refused);
            }
        }
        shop.changed.send_modify(|turn| *turn += 1);
    }
}

fn respond((status, body, replayed): Answer) -> Response<Full<Bytes>> {
    let mut answer = json_bytes(status, body.to_string().into());
    if replayed {
        answer.headers_mut().insert("idempotency-replayed", "true".parse().expect("a fixed header is valid"));
    }
    answer
}
