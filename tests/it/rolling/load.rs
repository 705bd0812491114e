//! Buyers and services that go on while nodes come and go. Whoever hears anything but a good answer says so.

use super::balancer::{Balancer, Over};
use crate::support::crowd::{Heard, SALE, order_of};
use crate::support::services::Service;
use bytes::Bytes;
use http::{Method, StatusCode};
use prost::Message;
use rushline::proto::dtmgimp::{DtmRequest, DtmTransOptions};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;

const PAUSE: Duration = Duration::from_millis(20);
/// A branch takes so long: whenever a node stops, some call is under way.
pub const BRANCH_TAKES: Duration = Duration::from_millis(30);

/// What its clients ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Order,
    /// An order whose buyer waits for its end.
    WaitingOrder,
    OrderOverHttp2,
    Saga,
    /// A saga whose client waits for its end.
    WaitingSaga,
    SagaOverGrpc,
}

/// All that there is.
pub const MIXED: &[Kind] = &[
    Kind::Order,
    Kind::Order,
    Kind::WaitingOrder,
    Kind::WaitingOrder,
    Kind::OrderOverHttp2,
    Kind::Saga,
    Kind::WaitingSaga,
    Kind::WaitingSaga,
    Kind::SagaOverGrpc,
];

/// What buyers do.
pub const BUYERS: &[Kind] = &[Kind::Order, Kind::Order, Kind::Order, Kind::WaitingOrder, Kind::WaitingOrder];

/// What was begun and acknowledged.
#[derive(Default)]
pub struct Begun {
    pub orders: Heard,
    pub transactions: Vec<String>,
}

pub struct Load {
    balancer: Balancer,
    begun: Arc<Mutex<Begun>>,
    stop: Arc<AtomicBool>,
    clients: JoinSet<()>,
}

impl Load {
    pub fn start(kinds: &[Kind], balancer: &Balancer, service: &Service) -> Self {
        let begun: Arc<Mutex<Begun>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for (number, kind) in kinds.iter().copied().enumerate() {
            let client = Client { balancer: balancer.clone(), service: service.clone(), begun: begun.clone() };
            let stop = stop.clone();
            clients.spawn(async move {
                for turn in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    client.go(kind, &format!("{number}-{turn}")).await;
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
        Self { balancer: balancer.clone(), begun, stop, clients }
    }

    /// Until so many more requests were answered well.
    pub async fn wait_for_more(&self, answers: usize) {
        let from = self.balancer.answered();
        crate::support::app::eventually("more good answers", super::SOON, || async {
            self.balancer.answered() >= from + answers || !self.balancer.failed().is_empty()
        })
        .await;
        assert_eq!(self.balancer.failed(), [""; 0]);
    }

    /// No new requests; waits for the answers that are still to come.
    pub async fn stop(mut self) -> Begun {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended.unwrap();
        }
        std::mem::take(&mut self.begun.lock().unwrap())
    }
}

struct Client {
    balancer: Balancer,
    service: Service,
    begun: Arc<Mutex<Begun>>,
}

impl Client {
    async fn go(&self, kind: Kind, name: &str) {
        match kind {
            Kind::Order => self.order(Over::Http1, name, "").await,
            Kind::WaitingOrder => self.order(Over::Http1, name, "?wait_ms=20000").await,
            Kind::OrderOverHttp2 => self.order(Over::Http2, name, "").await,
            Kind::Saga => self.saga(name, false).await,
            Kind::WaitingSaga => self.saga(name, true).await,
            Kind::SagaOverGrpc => self.saga_over_grpc(name).await,
        }
    }

    async fn order(&self, over: Over, name: &str, query: &str) {
        let key = format!("k-{name}0"); // only keys that end in 7 are refused
        let body = Bytes::from(serde_json::to_vec(&order_of(&key)).unwrap());
        let headers = [("idempotency-key", key.as_str()), ("content-type", "application/json")];
        let path = format!("/v1/sales/{SALE}/orders{query}");
        let Some(heard) = self.balancer.ask(over, Method::POST, &path, &headers, body).await else { return };
        match heard.json()["gid"].as_str() {
            Some(gid) if heard.status == StatusCode::CREATED => {
                self.begun.lock().unwrap().orders.gids.insert(key, gid.to_owned());
                self.balancer.good();
            }
            _ => self.balancer.fail(format!("order {key}: {} {}", heard.status, heard.json())),
        }
    }

    fn steps(&self, url: impl Fn(&str) -> String) -> Value {
        let step = json!({ "action": url("/do"), "compensate": url("/undo") });
        json!([step, step])
    }

    fn begun(&self, gid: String) {
        self.begun.lock().unwrap().transactions.push(gid);
        self.balancer.good();
    }

    async fn saga(&self, name: &str, wait: bool) {
        let gid = format!("saga-{name}");
        let body = json!({ "gid": gid, "trans_type": "saga", "steps": self.steps(|path| self.service.url(path)),
            "payloads": ["{}", "{}"], "wait_result": wait });
        let body = Bytes::from(body.to_string());
        let headers = [("content-type", "application/json")];
        let heard = self.balancer.ask(Over::Http1, Method::POST, "/api/dtmsvr/submit", &headers, body).await;
        let Some(heard) = heard else { return };
        match heard.status {
            StatusCode::OK => self.begun(gid),
            status => self.balancer.fail(format!("{gid}: {status} {}", heard.json())),
        }
    }

    async fn saga_over_grpc(&self, name: &str) {
        let gid = format!("grpc-{name}");
        let request = DtmRequest {
            gid: gid.clone(),
            trans_type: "saga".into(),
            trans_options: Some(DtmTransOptions::default()),
            bin_payloads: vec![Bytes::from_static(b"{}"); 2],
            steps: self.steps(|path| self.service.grpc_url(path)).to_string(),
            ..DtmRequest::default()
        };
        let message = request.encode_to_vec();
        let mut body = vec![0];
        body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        body.extend(message);
        let headers = [("content-type", "application/grpc"), ("te", "trailers")];
        let heard = self.balancer.ask(Over::Http2, Method::POST, "/dtmgimp.Dtm/Submit", &headers, body.into()).await;
        let Some(heard) = heard else { return };
        let status = heard.trailers.get("grpc-status").or_else(|| heard.headers.get("grpc-status"));
        match status.is_some_and(|status| status == "0") {
            true => self.begun(gid),
            false => self.balancer.fail(format!("{gid}: {:?} {:?}", heard.headers, heard.trailers)),
        }
    }
}
