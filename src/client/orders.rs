//! Placing and following orders of a flash sale.

use super::Client;
use super::error::Error;
use super::http::Answer;
use super::wire;
use bytes::Bytes;
use http::header::{HeaderName, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::time::Duration;
use tokio::time::Instant;
use url::Url;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// An order is asked for anew after this, if the answer was lost and names no time itself.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_millis(200);
/// As long as one question is left open on the other side.
const WAIT_STEP: Duration = Duration::from_secs(5);

/// A flash sale, by its name.
#[derive(Debug, Clone)]
pub struct Sale {
    client: Client,
    name: String,
}

/// How far an order is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum OrderStatus {
    /// Its units are held, and the order service will be asked until it answers.
    Submitted,
    /// The order service has made it.
    Succeed,
    /// The order service refused; the units went back on sale.
    Failed,
    /// It is made, and waits for its payment.
    Reserved,
    /// A reservation that was given up; the units went back on sale.
    Cancelled,
    /// A reservation that was not paid in time; the units went back on sale.
    Expired,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderItem {
    pub sku: String,
    pub quantity: u32,
}

/// An order that was taken: its units are held for this buyer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Placed {
    pub gid: String,
    pub status: OrderStatus,
    /// This key was asked with before; it is the same order, and no further units were taken.
    pub replayed: bool,
    /// What it was asked with; to be kept, if the same order may be asked for again.
    pub idempotency_key: String,
}

/// An order as the coordinator shows it.
#[derive(Debug, Clone, Deserialize)]
#[non_exhaustive]
pub struct Order {
    pub gid: String,
    pub sale: String,
    pub buyer: String,
    pub status: OrderStatus,
    pub items: Vec<OrderItem>,
    pub payload: Option<Box<RawValue>>,
    /// Calls made to the order service, as far as they are noted.
    pub attempts: u32,
    /// Why the last call did not end the order, or why the order service refused.
    pub last_error: Option<String>,
}

/// Why an order was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// Not enough units are left at present; units of refused orders come back.
    SoldOut,
    /// The buyer would have more than one may.
    LimitReached,
    NotOpen,
    Closed,
    Paused,
    UnknownSku,
    /// The key came with another order before.
    KeyReused,
    /// Too many ask at once; ask again with the same key.
    QueueFull,
    /// The order service cannot keep up; ask again with the same key.
    BacklogFull,
    /// The order service refused, and the units went back.
    OrderService,
}

impl Refusal {
    const ALL: [(Refusal, &'static str); 10] = [
        (Refusal::SoldOut, "sold_out"),
        (Refusal::LimitReached, "limit_reached"),
        (Refusal::NotOpen, "not_open"),
        (Refusal::Closed, "closed"),
        (Refusal::Paused, "paused"),
        (Refusal::UnknownSku, "unknown_sku"),
        (Refusal::KeyReused, "idempotency_key_reused"),
        (Refusal::QueueFull, "queue_full"),
        (Refusal::BacklogFull, "backlog_full"),
        (Refusal::OrderService, "order_refused"),
    ];

    /// The word on the wire.
    pub fn code(self) -> &'static str {
        Self::ALL.iter().find(|(refusal, _)| *refusal == self).map_or("", |(_, code)| code)
    }

    fn parse(code: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == code).map(|(refusal, _)| *refusal)
    }
}

impl Sale {
    pub(crate) fn new(client: Client, name: String) -> Self {
        Self { client, name }
    }

    /// An order being put together.
    ///
    /// ```no_run
    /// # async fn run(client: rushline::client::Client) -> Result<(), rushline::client::Error> {
    /// use rushline::client::{Error, OrderStatus};
    /// use std::time::Duration;
    ///
    /// let sale = client.sale("nov22");
    /// match sale.order("u1").item("sku-1", 1).idempotency_key("cart-7").place().await {
    ///     Ok(placed) => {
    ///         let order = sale.wait_for(&placed.gid, Duration::from_secs(10)).await?;
    ///         println!("{}: {:?}", order.gid, order.status);
    ///     }
    ///     Err(Error::OrderRefused { refusal, .. }) => println!("{}", refusal.code()),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(()) }
    /// ```
    pub fn order(&self, buyer: impl Into<String>) -> NewOrder {
        NewOrder {
            sale: self.clone(),
            buyer: buyer.into(),
            items: Vec::new(),
            payload: None,
            key: None,
            wait: Duration::ZERO,
            patience: self.client.timeout(),
        }
    }

    /// An order, as it stands.
    pub async fn find(&self, gid: &str) -> Result<Order, Error> {
        self.look(gid, Duration::ZERO).await
    }

    /// An order at its end; [`Error::NotFinished`] if that does not come in time.
    pub async fn wait_for(&self, gid: &str, patience: Duration) -> Result<Order, Error> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let found = self.look(gid, left.min(WAIT_STEP)).await;
            let late = Instant::now() >= deadline;
            match found {
                Ok(order) if order.status != OrderStatus::Submitted => return Ok(order),
                Ok(order) if late => return Err(Error::NotFinished { gid: order.gid, status: "submitted".into() }),
                Err(error) if late || !error.is_retryable() => return Err(error),
                Ok(_) => {}
                Err(_) => tokio::time::sleep(RETRY_AFTER_DEFAULT).await,
            }
        }
    }

    async fn look(&self, gid: &str, wait: Duration) -> Result<Order, Error> {
        let url = self.url(&["orders", gid], wait)?;
        let timeout = self.client.timeout() + wait;
        let answer = self.client.ask(Method::GET, &url, Bytes::new(), timeout).await?;
        match answer.status {
            StatusCode::OK => parse(&answer),
            _ => Err(problem(&answer)),
        }
    }

    /// An address below `/v1`.
    fn url(&self, path: &[&str], wait: Duration) -> Result<Url, Error> {
        let mut url = self.client.http_base()?.clone();
        let path: Vec<&str> = ["v1"].into_iter().chain(path.iter().copied()).collect();
        if path.iter().any(|part| part.is_empty() || matches!(*part, "." | "..")) {
            return Err(Error::invalid("a sale and a gid have a name"));
        }
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.clear().extend(path);
        }
        if wait > Duration::ZERO {
            url.query_pairs_mut().append_pair("wait_ms", &wait.as_millis().to_string());
        }
        Ok(url)
    }
}

/// An order being put together.
#[must_use = "nothing happens before place"]
#[derive(Debug, Clone)]
pub struct NewOrder {
    sale: Sale,
    buyer: String,
    items: Vec<OrderItem>,
    payload: Option<Result<Box<RawValue>, String>>,
    key: Option<String>,
    wait: Duration,
    patience: Duration,
}

#[derive(Serialize)]
struct Body<'a> {
    buyer: &'a str,
    items: &'a [OrderItem],
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Taken {
    gid: String,
    status: OrderStatus,
}

impl NewOrder {
    pub fn item(mut self, sku: impl Into<String>, quantity: u32) -> Self {
        self.items.push(OrderItem { sku: sku.into(), quantity });
        self
    }

    /// Any JSON, handed to the order service as it is.
    pub fn payload(mut self, payload: &(impl Serialize + ?Sized)) -> Self {
        self.payload = Some(serde_json::value::to_raw_value(payload).map_err(|error| error.to_string()));
        self
    }

    /// The caller's own name for this order; whoever asks again with it gets the same order. Without one, a new key is
    /// made up, which is good for the tries within one call of [`NewOrder::place`].
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Answer only when the order has ended, or after this long.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// How long to ask again with the same key while no answer comes; as long as the client's time-out by default.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Asks until there is an answer. [`Error::Unreachable`] at the end of the patience leaves it open if the order was
    /// taken: ask again with the same key.
    pub async fn place(self) -> Result<Placed, Error> {
        let payload = self.payload.transpose().map_err(|error| Error::invalid(format!("payload: {error}")))?;
        let body = wire::json(&Body { buyer: &self.buyer, items: &self.items, payload: payload.as_deref() })?;
        let key = self.key.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        let header = HeaderValue::try_from(&key).map_err(|_| Error::invalid("an idempotency key is visible ASCII"))?;
        let headers = self.sale.client.authorized(HeaderMap::from_iter([(IDEMPOTENCY_KEY, header)]));
        let (sale, wait) = (&self.sale, self.wait);
        let url = sale.url(&["sales", &sale.name, "orders"], wait)?;
        let timeout = sale.client.timeout() + wait;
        let deadline = Instant::now() + self.patience;
        loop {
            let sent = sale.client.http_pool().send(Method::POST, &url, headers.clone(), body.clone(), timeout).await;
            let (error, again_in) = match sent {
                Ok(answer) if answer.status == StatusCode::CREATED => {
                    let taken: Taken = parse(&answer)?;
                    let replayed = answer.headers.contains_key("idempotency-replayed");
                    return Ok(Placed { gid: taken.gid, status: taken.status, replayed, idempotency_key: key });
                }
                Ok(answer) => (problem(&answer), retry_after(&answer)),
                Err(error) => (error, None),
            };
            let again_in = again_in.unwrap_or(RETRY_AFTER_DEFAULT);
            let unanswered = matches!(error, Error::Unreachable { .. } | Error::Unexpected { .. });
            if !unanswered || Instant::now() + again_in >= deadline {
                return Err(error);
            }
            tokio::time::sleep(again_in).await;
        }
    }
}

#[derive(Deserialize, Default)]
struct Problem {
    #[serde(default)]
    code: String,
    #[serde(default)]
    detail: String,
}

fn problem(answer: &Answer) -> Error {
    let problem: Problem = serde_json::from_slice(&answer.body).unwrap_or_default();
    if let Some(refusal) = Refusal::parse(&problem.code) {
        return Error::OrderRefused { refusal, detail: problem.detail, retry_after: retry_after(answer) };
    }
    match answer.status {
        StatusCode::NOT_FOUND => Error::NotFound(problem.detail),
        status if status.is_client_error() => Error::Invalid(format!("{}: {}", problem.code, problem.detail)),
        status => Error::Unexpected { code: status.to_string(), message: problem.detail },
    }
}

fn retry_after(answer: &Answer) -> Option<Duration> {
    answer.headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

fn parse<T: serde::de::DeserializeOwned>(answer: &Answer) -> Result<T, Error> {
    serde_json::from_slice(&answer.body)
        .map_err(|error| Error::Unexpected { code: answer.status.to_string(), message: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_leave_their_place_in_a_url() {
        let sale = Client::http("http://h:1/api/dtmsvr").unwrap().sale("a/b?c");
        let url = sale.url(&["sales", &sale.name, "orders"], Duration::from_millis(1500)).unwrap();
        assert_eq!(url.as_str(), "http://h:1/v1/sales/a%2Fb%3Fc/orders?wait_ms=1500");
        assert!(sale.url(&["orders", ""], Duration::ZERO).is_err());
    }
}
