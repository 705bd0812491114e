//! A sale: what is on offer, to whom, when, and what an answer promises.

use super::ids::{Invalid, SaleName, Sku};
use super::terms::Terms;
use super::webhook::Webhook;
use serde::{Deserialize, Serialize};

/// Most SKUs of one sale.
pub const SKUS_MAX: usize = 10_000;
/// Most units of one SKU. Lua counts in doubles, exact up to 2^53; sums of these stay far below.
pub const UNITS_MAX: u64 = 1_000_000_000_000;
/// Most calls to one order endpoint at a time.
pub const CONCURRENCY_MAX: u32 = 1024;
/// Longest time one call to an order endpoint may take.
pub const TIMEOUT_MS_MAX: u64 = 60_000;

/// The operator's switch. The window is separate: an open sale sells only inside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SaleStatus {
    Open,
    Paused,
    /// Final: the ledger of buyers is forgotten some time after.
    Closed,
}

impl SaleStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            SaleStatus::Open => "open",
            SaleStatus::Paused => "paused",
            SaleStatus::Closed => "closed",
        }
    }
}

/// What must have happened to an admitted order before its buyer hears of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Redis has it in memory. A crash of Redis may lose the last moments.
    Memory,
    /// Redis has it on disk (AOF, fsynced).
    Fsync,
    /// That many replicas have it too.
    Replica(u8),
}

impl std::fmt::Display for Durability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Durability::Memory => f.write_str("memory"),
            Durability::Fsync => f.write_str("fsync"),
            Durability::Replica(n) => write!(f, "replica:{n}"),
        }
    }
}

impl std::str::FromStr for Durability {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "memory" => Ok(Durability::Memory),
            "fsync" => Ok(Durability::Fsync),
            _ => match text.strip_prefix("replica:").and_then(|n| n.parse().ok()) {
                Some(n @ 1..=9) => Ok(Durability::Replica(n)),
                _ => Err(Invalid::new("durability", "must be memory, fsync, or replica:N with N from 1 to 9")),
            },
        }
    }
}

impl Serialize for Durability {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Durability {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// One order a call, or up to a hundred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallMode {
    #[default]
    Single,
    Bulk,
}

/// The order service: where orders are made, and where they can be counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    pub url: String,
    /// One call's limit, from connecting to the last byte of the answer.
    #[serde(default = "Endpoint::default_timeout_ms")]
    pub timeout_ms: u64,
    /// Calls under way at a time, per coordinator.
    #[serde(default = "Endpoint::default_max_concurrency")]
    pub max_concurrency: u32,
    #[serde(default)]
    pub mode: CallMode,
    /// Where the order service is told how reservations ended; `url` if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_url: Option<String>,
    /// `GET count_url?sale=…` answers `{"orders":n,"units":{"sku":n}}`; the audit compares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count_url: Option<String>,
    /// `GET list_url?sale=…&after=…&limit=…` answers `{"gids":[…]}` in byte order; the audit names what differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list_url: Option<String>,
}

impl Endpoint {
    fn default_timeout_ms() -> u64 {
        3_000
    }

    fn default_max_concurrency() -> u32 {
        64
    }

    /// An endpoint with the defaults for everything but its URL.
    pub fn at(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            timeout_ms: Self::default_timeout_ms(),
            max_concurrency: Self::default_max_concurrency(),
            mode: CallMode::default(),
            end_url: None,
            count_url: None,
            list_url: None,
        }
    }

    /// Every field in range; URLs absolute, http or https, without credentials.
    pub fn check(&self) -> Result<(), Invalid> {
        check_url("order_endpoint.url", &self.url)?;
        for (field, url) in [
            ("order_endpoint.end_url", &self.end_url),
            ("order_endpoint.count_url", &self.count_url),
            ("order_endpoint.list_url", &self.list_url),
        ] {
            if let Some(url) = url {
                check_url(field, url)?;
            }
        }
        in_range("order_endpoint.timeout_ms", self.timeout_ms, 1, TIMEOUT_MS_MAX)?;
        in_range("order_endpoint.max_concurrency", self.max_concurrency.into(), 1, CONCURRENCY_MAX.into())
    }
}

pub(super) fn check_url(field: &'static str, text: &str) -> Result<(), Invalid> {
    let url = url::Url::parse(text).map_err(|e| Invalid::new(field, format!("is not a URL: {e}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(Invalid::new(field, "must start with http:// or https:// and name a host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Invalid::new(field, "must not carry a user name or password"));
    }
    Ok(())
}

pub(super) fn in_range(field: &'static str, value: u64, min: u64, max: u64) -> Result<(), Invalid> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(Invalid::new(field, format!("must be {min} to {max}, got {value}")))
    }
}

/// When the sale sells, in milliseconds since 1970, by the clock of Redis. Opening is inclusive, closing exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Window {
    pub opens_ms: Option<u64>,
    pub closes_ms: Option<u64>,
}

impl Window {
    pub fn check(&self) -> Result<(), Invalid> {
        match (self.opens_ms, self.closes_ms) {
            (Some(opens), Some(closes)) if closes <= opens => Err(Invalid::new("closes_at", "must be after opens_at")),
            _ => Ok(()),
        }
    }
}

/// What an operator can change while the sale runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    pub status: SaleStatus,
    pub window: Window,
    /// Units over all SKUs of the sale; `None` is no limit.
    pub limit_per_buyer: Option<u32>,
    pub endpoint: Endpoint,
    /// Fixed at creation.
    pub durability: Durability,
    /// Who is told of each order's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,
    /// Fixed at creation.
    #[serde(default, skip_serializing_if = "Terms::is_plain")]
    pub terms: Terms,
}

/// A sale as it is created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSale {
    pub sale: SaleName,
    /// Units to begin with, each SKU once.
    pub items: Vec<(Sku, u64)>,
    pub settings: Settings,
}

impl NewSale {
    pub fn check(&self) -> Result<(), Invalid> {
        if self.items.is_empty() || self.items.len() > SKUS_MAX {
            return Err(Invalid::new("items", format!("must name 1 to {SKUS_MAX} SKUs, got {}", self.items.len())));
        }
        let mut seen = std::collections::HashSet::new();
        for (sku, units) in &self.items {
            check_units(*units)?;
            if !seen.insert(sku) {
                return Err(Invalid::new("items", format!("names {sku} twice")));
            }
        }
        check_limit(self.settings.limit_per_buyer)?;
        self.settings.terms.check(&self.items)?;
        self.settings.window.check()?;
        self.settings.webhook.as_ref().map_or(Ok(()), Webhook::check)?;
        self.settings.endpoint.check()
    }
}

/// Units of one SKU: 0 (a SKU that is stocked later) to [`UNITS_MAX`].
pub fn check_units(units: u64) -> Result<(), Invalid> {
    in_range("units", units, 0, UNITS_MAX)
}

/// Most partitions of one sale: each is a batcher and a few keys, and one look goes over all of them.
pub const PARTITIONS_MAX: u16 = 64;

pub fn check_partitions(partitions: u16) -> Result<(), Invalid> {
    in_range("partitions", partitions.into(), 1, PARTITIONS_MAX.into())
}

/// A limit of nothing is a paused sale; say so with its status.
pub fn check_limit(limit: Option<u32>) -> Result<(), Invalid> {
    if limit == Some(0) {
        Err(Invalid::new("limit_per_buyer", "must be at least 1, or null for no limit"))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sale(change: impl FnOnce(&mut NewSale)) -> Result<(), Invalid> {
        let mut new = NewSale {
            sale: SaleName::parse("s").unwrap(),
            items: vec![(Sku::parse("a").unwrap(), 1)],
            settings: Settings {
                status: SaleStatus::Open,
                window: Window::default(),
                limit_per_buyer: None,
                endpoint: Endpoint::at("http://127.0.0.1/orders"),
                durability: Durability::Fsync,
                webhook: None,
                terms: Terms::default(),
            },
        };
        change(&mut new);
        new.check()
    }

    #[test]
    fn a_durability_is_written_as_it_is_read() {
        for text in ["memory", "fsync", "replica:1", "replica:9"] {
            assert_eq!(text.parse::<Durability>().unwrap().to_string(), text);
        }
        for text in ["", "Memory", "replica", "replica:", "replica:0", "replica:10", "replica:-1", "fsync "] {
            assert!(text.parse::<Durability>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_sale_names_each_sku_once_and_in_bounds() {
        let sku = |name: &str| Sku::parse(name).unwrap();
        assert!(sale(|_| ()).is_ok());
        assert!(sale(|new| new.items = vec![(sku("a"), 0), (sku("b"), UNITS_MAX)]).is_ok());
        assert_eq!(sale(|new| new.items.clear()).unwrap_err().field, "items");
        assert_eq!(sale(|new| new.items.push((sku("a"), 1))).unwrap_err().field, "items");
        assert_eq!(sale(|new| new.items.push((sku("b"), UNITS_MAX + 1))).unwrap_err().field, "units");
        let many = (0..=SKUS_MAX).map(|n| (sku(&format!("sku-{n}")), 1)).collect();
        assert_eq!(sale(|new| new.items = many).unwrap_err().field, "items");
    }

    #[test]
    fn a_limit_of_nothing_and_a_window_without_a_moment_are_refused() {
        assert_eq!(sale(|new| new.settings.limit_per_buyer = Some(0)).unwrap_err().field, "limit_per_buyer");
        for closes_ms in [9, 10] {
            let window = Window { opens_ms: Some(10), closes_ms: Some(closes_ms) };
            assert_eq!(sale(|new| new.settings.window = window).unwrap_err().field, "closes_at");
        }
        assert!(sale(|new| new.settings.window = Window { opens_ms: Some(10), closes_ms: Some(11) }).is_ok());
    }

    #[test]
    fn an_endpoint_is_an_http_address_without_a_password() {
        let check = |url: &str| Endpoint::at(url).check();
        assert!(check("https://shop.example:8443/orders?tenant=1").is_ok());
        assert!(check("http://[::1]/").is_ok());
        for url in ["", "orders", "ftp://shop.example/", "http://", "http://u:p@shop.example/", "unix:/x"] {
            assert_eq!(check(url).unwrap_err().field, "order_endpoint.url", "{url}");
        }
        let message = check("http://user:pass-word-1@shop.example/").unwrap_err().to_string();
        assert!(!message.contains("pass-word-1"), "{message}");
        let mut endpoint = Endpoint::at("http://shop.example/");
        endpoint.list_url = Some("nowhere".into());
        assert_eq!(endpoint.check().unwrap_err().field, "order_endpoint.list_url");
    }
}
