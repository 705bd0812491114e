//! The JSON of the HTTP interface. Field names are a public promise; unknown fields are refused, because a misspelt
//! limit is found better now than during the sale.

use crate::domain::depth;
use crate::domain::ids::{Buyer, IdempotencyKey, Invalid, SaleName, Sku};
use crate::domain::order::{Item, Order, Status, check_items};
use crate::domain::sale::{Durability, Endpoint, NewSale, SaleStatus, Settings, Window, check_partitions};
use crate::domain::stock::Stock;
use crate::domain::terms::{Limit, RESERVE_MS, Reserve, Terms, check_keys};
use crate::domain::trace::TraceContext;
use crate::domain::webhook::Webhook;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// `POST /v1/sales`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateSale {
    pub sale: String,
    pub items: Vec<LoadItem>,
    #[serde(default)]
    pub limit_per_buyer: Option<u32>,
    #[serde(default)]
    pub opens_at: Option<Timestamp>,
    #[serde(default)]
    pub closes_at: Option<Timestamp>,
    #[serde(default = "fsync")]
    pub durability: Durability,
    /// Over how many partitions it is spread: one hot SKU over the servers of a Redis Cluster.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub partitions: u16,
    pub order_endpoint: Endpoint,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,
    /// Orders are reservations for so long, from their admission on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserve_for_ms: Option<u64>,
    /// How long a reservation may be made by extending it; twice `reserve_for_ms` if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserve_max_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<Limit>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub returns_free_limits: bool,
}

fn one() -> u16 {
    1
}

fn is_zero(units: &u64) -> bool {
    *units == 0
}

fn is_one(partitions: &u16) -> bool {
    *partitions == 1
}

fn fsync() -> Durability {
    Durability::Fsync
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadItem {
    pub sku: String,
    pub units: u64,
}

impl CreateSale {
    pub fn into_new_sale(self) -> Result<NewSale, Invalid> {
        check_partitions(self.partitions)?;
        let terms = self.terms()?;
        terms.fits_partitions(self.partitions)?;
        let items = self
            .items
            .into_iter()
            .map(|item| Ok((Sku::parse(item.sku)?, item.units)))
            .collect::<Result<_, Invalid>>()?;
        let new = NewSale {
            sale: SaleName::parse(self.sale)?,
            items,
            settings: Settings {
                status: SaleStatus::Open,
                window: window(self.opens_at, self.closes_at)?,
                limit_per_buyer: self.limit_per_buyer,
                endpoint: self.order_endpoint,
                durability: self.durability,
                webhook: self.webhook,
                terms,
            },
        };
        new.check()?;
        Ok(new)
    }

    fn terms(&self) -> Result<Terms, Invalid> {
        let reserve = match (self.reserve_for_ms, self.reserve_max_ms) {
            (Some(for_ms), max_ms) => {
                let max_ms = max_ms.unwrap_or_else(|| for_ms.saturating_mul(2).min(RESERVE_MS.1));
                Some(Reserve { for_ms, max_ms })
            }
            (None, Some(_)) => {
                return Err(Invalid::new("reserve_max_ms", "needs reserve_for_ms: the sale has no reservations"));
            }
            (None, None) => None,
        };
        Ok(Terms { reserve, limits: self.limits.clone(), returns_free_limits: self.returns_free_limits })
    }
}

fn window(opens_at: Option<Timestamp>, closes_at: Option<Timestamp>) -> Result<Window, Invalid> {
    let ms = |field, time: Option<Timestamp>| {
        time.map(|time| u64::try_from(time.as_millisecond()).map_err(|_| Invalid::new(field, "must be after 1970")))
            .transpose()
    };
    Ok(Window { opens_ms: ms("opens_at", opens_at)?, closes_ms: ms("closes_at", closes_at)? })
}

/// `PATCH /v1/sales/{sale}`: what is not named stays; `null` takes a limit or a time away.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateSale {
    pub status: Option<SaleStatus>,
    #[serde(default, deserialize_with = "named")]
    pub limit_per_buyer: Option<Option<u32>>,
    #[serde(default, deserialize_with = "named")]
    pub opens_at: Option<Option<Timestamp>>,
    #[serde(default, deserialize_with = "named")]
    pub closes_at: Option<Option<Timestamp>>,
    pub order_endpoint: Option<Endpoint>,
    /// More than now.
    pub partitions: Option<u16>,
    #[serde(default, deserialize_with = "named")]
    pub webhook: Option<Option<Webhook>>,
    /// Names this change: repeated with the same id it happens once.
    pub request_id: Option<String>,
    /// Why, for the log.
    pub reason: Option<String>,
}

/// Tells `null` (named, and nothing) from a field that is not there.
fn named<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

impl UpdateSale {
    pub fn apply(&self, settings: &mut Settings) -> Result<(), Invalid> {
        if let Some(status) = self.status {
            settings.status = status;
        }
        if let Some(limit) = self.limit_per_buyer {
            crate::domain::sale::check_limit(limit)?;
            settings.limit_per_buyer = limit;
        }
        let named = window(self.opens_at.flatten(), self.closes_at.flatten())?;
        if self.opens_at.is_some() {
            settings.window.opens_ms = named.opens_ms;
        }
        if self.closes_at.is_some() {
            settings.window.closes_ms = named.closes_ms;
        }
        settings.window.check()?;
        if let Some(endpoint) = &self.order_endpoint {
            endpoint.check()?;
            settings.endpoint = endpoint.clone();
        }
        if let Some(webhook) = &self.webhook {
            webhook.as_ref().map_or(Ok(()), Webhook::check)?;
            settings.webhook.clone_from(webhook);
        }
        Ok(())
    }
}

/// `POST /v1/sales/{sale}/stock`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddStock {
    pub sku: String,
    /// Negative withdraws, down to zero available.
    pub units: i64,
    pub request_id: String,
    /// Why, for the log.
    pub reason: Option<String>,
}

/// `GET /v1/sales/{sale}/changes`
#[derive(Debug, Serialize)]
pub struct ChangesPage {
    /// Newest first.
    pub changes: Vec<ChangeView>,
}

#[derive(Debug, Serialize)]
pub struct ChangeView {
    pub at: Option<Timestamp>,
    /// `settings` or `stock`.
    pub kind: String,
    /// As it was asked for.
    pub change: Option<Box<RawValue>>,
    /// Of stock: what was really added (or, negative, withdrawn).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub units: Option<i64>,
    pub who: String,
    pub why: String,
    pub request_id: String,
}

#[derive(Debug, Serialize)]
pub struct StockAdded {
    pub sku: String,
    /// What was really added (or, negative, withdrawn).
    pub units: i64,
    pub request_id: String,
    pub replayed: bool,
}

/// A sale as `GET /v1/sales/{sale}` shows it.
#[derive(Debug, Serialize)]
pub struct SaleView {
    pub sale: String,
    pub status: SaleStatus,
    /// Sells nothing until it is repaired, because Redis lost what it had acknowledged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fenced: Option<FencedView>,
    pub items: Vec<ItemView>,
    pub refused: BTreeMap<String, u64>,
    pub limit_per_buyer: Option<u32>,
    pub opens_at: Option<Timestamp>,
    pub closes_at: Option<Timestamp>,
    pub durability: Durability,
    pub partitions: u16,
    pub order_endpoint: Endpoint,
    pub webhook: Option<WebhookView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserve_for_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserve_max_ms: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<Limit>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub returns_free_limits: bool,
    pub backlog: BacklogView,
    pub created_at: Timestamp,
    pub version: u64,
}

/// What of a sale Redis came back with.
#[derive(Debug, Serialize)]
pub struct FencedView {
    pub since: Option<Timestamp>,
    /// Redis has the changes up to this one …
    pub changes_found: u64,
    /// … and acknowledged at least this one.
    pub changes_acknowledged: u64,
}

/// Its secret is told to nobody.
#[derive(Debug, Serialize)]
pub struct WebhookView {
    pub url: String,
}

#[derive(Debug, Serialize)]
pub struct ItemView {
    pub sku: String,
    pub loaded: u64,
    pub available: u64,
    pub reserved: u64,
    pub sold: u64,
    /// Units between two partitions.
    #[serde(skip_serializing_if = "is_zero")]
    pub in_transit: u64,
}

impl ItemView {
    /// Units that the counters do not explain.
    pub fn difference(&self) -> i128 {
        let Self { loaded, available, reserved, sold, .. } = *self;
        Stock { loaded, available, reserved, sold }.difference() - i128::from(self.in_transit)
    }
}

/// What of a sale is on its way.
#[derive(Debug, Serialize)]
pub struct BacklogView {
    /// Batches with an order that the order service has not answered for good.
    pub undelivered_batches: u64,
    /// Orders waiting for another try.
    pub retries: u64,
    /// Batches that have ended and wait for the records.
    pub undrained_batches: u64,
}

pub fn time(ms: Option<u64>) -> Option<Timestamp> {
    ms.and_then(|ms| Timestamp::from_millisecond(ms as i64).ok())
}

/// `POST /v1/sales/{sale}/orders`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlaceOrder<'a> {
    #[serde(borrow)]
    pub buyer: Cow<'a, str>,
    #[serde(borrow)]
    pub items: Vec<OrderItem<'a>>,
    #[serde(default)]
    pub payload: Option<Box<RawValue>>,
    /// What else this order is counted by, for the limits of the sale.
    #[serde(default)]
    pub limits_by: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderItem<'a> {
    #[serde(borrow)]
    pub sku: Cow<'a, str>,
    pub quantity: u32,
}

impl PlaceOrder<'_> {
    pub fn into_order(self, key: Option<IdempotencyKey>, trace: Option<TraceContext>) -> Result<Order, Invalid> {
        let buyer = Buyer::parse(self.buyer)?;
        let items = self
            .items
            .into_iter()
            .map(|item| Ok(Item { sku: Sku::parse(item.sku)?, quantity: item.quantity }))
            .collect::<Result<Vec<_>, Invalid>>()?;
        check_items(&items)?;
        if let Some(payload) = &self.payload {
            depth::check("payload", payload.get().as_bytes())?;
        }
        let limits_by = self.limits_by.filter(|keys| !keys.is_empty());
        if let Some(keys) = &limits_by {
            check_keys(keys)?;
        }
        Ok(Order {
            key,
            buyer,
            items,
            payload: self.payload,
            trace: trace.map(Box::new),
            limits_by: limits_by.map(Box::new),
        })
    }
}

/// An order as `GET /v1/orders/{gid}` shows it.
#[derive(Debug, Serialize)]
pub struct OrderView {
    pub gid: String,
    pub sale: String,
    pub buyer: String,
    pub status: Status,
    pub items: Vec<Item>,
    pub payload: Option<Box<RawValue>>,
    /// Calls made to the order endpoint, as far as they are noted.
    pub attempts: u32,
    /// It was called so often without a verdict that somebody should look.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub attention: bool,
    /// Why the last call did not end the order, or why the order service refused.
    pub last_error: Option<String>,
    pub admitted_at: Option<Timestamp>,
    /// Known once the order is in the records.
    pub finished_at: Option<Timestamp>,
    /// Until when the payment must be in, as long as it is waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserved_until: Option<Timestamp>,
    /// Of an order paid in part: what is paid, and sold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<Vec<Item>>,
    /// What came back after the sale.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub returned: Vec<Item>,
    /// Of a reservation that ended: has the order service heard of it?
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_told: Option<bool>,
}

/// `POST /v1/orders/{gid}/confirm`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirm {
    /// What is paid, if not all of it.
    #[serde(default)]
    pub items: Option<Vec<NamedItem>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedItem {
    pub sku: String,
    pub quantity: u32,
}

impl Confirm {
    pub fn into_part(self) -> Result<Option<Vec<Item>>, Invalid> {
        self.items.map(named_items).transpose()
    }
}

fn named_items(items: Vec<NamedItem>) -> Result<Vec<Item>, Invalid> {
    items.into_iter().map(|item| Ok(Item { sku: Sku::parse(item.sku)?, quantity: item.quantity })).collect()
}

/// `POST /v1/orders/{gid}/extend`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extend {
    /// From the order's admission on: saying it twice is saying it once.
    #[serde(default)]
    pub reserve_for_ms: Option<u64>,
}

impl Extend {
    pub fn for_ms(&self) -> Result<u64, Invalid> {
        self.reserve_for_ms.ok_or_else(|| Invalid::new("reserve_for_ms", "is missing: how long, from the admission on"))
    }
}

/// `POST /v1/orders/{gid}/return`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReturnUnits {
    #[serde(default)]
    pub items: Vec<NamedItem>,
    #[serde(default)]
    pub request_id: String,
}

impl ReturnUnits {
    pub fn into_items(self) -> Result<(Vec<Item>, String), Invalid> {
        let id = &self.request_id;
        if id.is_empty() || id.len() > 128 || !id.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Invalid::new("request_id", "must be 1 to 128 visible ASCII characters"));
        }
        Ok((named_items(self.items)?, self.request_id))
    }
}

#[derive(Debug, Serialize)]
pub struct ReturnView {
    pub gid: String,
    pub request_id: String,
    /// What came back by this request.
    pub items: Vec<Item>,
    /// All that came back of this order by now.
    pub returned: Vec<Item>,
    pub replayed: bool,
}

/// A body with nothing to say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// A reservation as its moves answer it.
#[derive(Debug, Serialize)]
pub struct ReservationView {
    pub gid: String,
    pub status: Status,
    /// Its units; of a confirmed one, those that are paid.
    pub items: Vec<Item>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserved_until: Option<Timestamp>,
    /// It stood so before this request.
    pub replayed: bool,
}

/// `GET /v1/sales/{sale}/records`
#[derive(Debug, Serialize)]
pub struct RecordsPage {
    pub records: Vec<OrderView>,
    /// The gid to ask for next with `after=`, if there may be more.
    pub next: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            status: SaleStatus::Open,
            window: Window { opens_ms: Some(1_000), closes_ms: Some(2_000) },
            limit_per_buyer: Some(2),
            endpoint: Endpoint::at("http://127.0.0.1/orders"),
            durability: Durability::Memory,
            webhook: None,
            terms: Terms::default(),
        }
    }

    fn patched(json: &str) -> Result<Settings, Invalid> {
        let mut settings = settings();
        serde_json::from_str::<UpdateSale>(json).unwrap().apply(&mut settings)?;
        Ok(settings)
    }

    #[test]
    fn a_change_tells_null_from_what_is_not_named() {
        assert_eq!(patched("{}").unwrap(), settings());
        let limit = patched(r#"{"limit_per_buyer":null}"#).unwrap();
        assert_eq!(limit, Settings { limit_per_buyer: None, ..settings() });
        let window = patched(r#"{"opens_at":null}"#).unwrap().window;
        assert_eq!(window, Window { opens_ms: None, closes_ms: Some(2_000) });
        let window = patched(r#"{"closes_at":"1970-01-01T00:00:03Z"}"#).unwrap().window;
        assert_eq!(window, Window { opens_ms: Some(1_000), closes_ms: Some(3_000) });
    }

    #[test]
    fn a_change_is_checked_against_what_stays() {
        assert_eq!(patched(r#"{"closes_at":"1970-01-01T00:00:01Z"}"#).unwrap_err().field, "closes_at");
        assert_eq!(patched(r#"{"limit_per_buyer":0}"#).unwrap_err().field, "limit_per_buyer");
        assert_eq!(patched(r#"{"opens_at":"1960-01-01T00:00:00Z"}"#).unwrap_err().field, "opens_at");
    }

    #[test]
    fn what_is_not_named_at_creation_has_its_default() {
        let body = r#"{"sale":"s","items":[{"sku":"a","units":1}],"order_endpoint":{"url":"http://127.0.0.1/"}}"#;
        let new = serde_json::from_str::<CreateSale>(body).unwrap().into_new_sale().unwrap();
        assert_eq!(new.settings.durability, Durability::Fsync);
        assert_eq!(new.settings.status, SaleStatus::Open);
        assert_eq!((new.settings.window, new.settings.limit_per_buyer), (Window::default(), None));
        assert_eq!(new.settings.endpoint, Endpoint::at("http://127.0.0.1/"));
    }

    #[test]
    fn an_order_keeps_its_payload_byte_for_byte() {
        let body = r#"{"buyer":"u\u0031","items":[{"sku":"a","quantity":2}],"payload":{"b":1.50, "a":[ ]}}"#;
        let order = serde_json::from_str::<PlaceOrder<'_>>(body).unwrap().into_order(None, None).unwrap();
        assert_eq!(order.buyer.as_str(), "u1", "escapes are read");
        assert_eq!(order.payload.unwrap().get(), r#"{"b":1.50, "a":[ ]}"#);
        let unknown = r#"{"buyer":"u","items":[],"quantity":1}"#;
        assert!(serde_json::from_str::<PlaceOrder<'_>>(unknown).is_err());
    }
}
