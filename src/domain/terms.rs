//! What binds the orders of a sale beyond its window and the limit per buyer: reservations, further limits, returns.
//! All of it is fixed when the sale is created: every node, and whoever comes later, knows the same.

use super::ids::{Invalid, Sku};
use super::order::Item;
use super::sale::in_range;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Shortest and longest reservation.
pub const RESERVE_MS: (u64, u64) = (100, 30 * 24 * 3600 * 1000);
/// Most further limits of a sale: each costs every order a look-up.
pub const LIMITS_MAX: usize = 8;
/// Most keys that an order brings along to be counted by.
pub const KEYS_MAX: usize = 8;
/// Longest name of a limit or of a key.
const NAME_BYTES_MAX: usize = 32;
/// Longest value of a key: it is kept once for each order in flight, and once in the ledger.
const VALUE_BYTES_MAX: usize = 128;
/// By whom the buyer of an order is counted.
pub const BY_BUYER: &str = "buyer";

/// How long an order waits for its payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserve {
    /// From its admission on, by the clock of Redis.
    pub for_ms: u64,
    /// How long it may be made by extending it, from its admission on.
    pub max_ms: u64,
}

/// At most so many units for whatever the orders of one buyer, household, card … have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Names the counter; `by` if there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `buyer`, or a key that orders bring in `limits_by`.
    pub by: String,
    /// The SKUs whose units count together; all of them if none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skus: Vec<String>,
    pub units: u32,
}

/// Everything of this page. The default binds nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Terms {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserve: Option<Reserve>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<Limit>,
    /// Do units that are returned after the sale count for the buyer's limits no more?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub returns_free_limits: bool,
}

/// One counter that an order adds to: the field in the ledger of limits, the units it adds, and the most there may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    pub field: String,
    pub units: u32,
    pub most: u32,
}

impl Terms {
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    pub fn check(&self, items: &[(Sku, u64)]) -> Result<(), Invalid> {
        if let Some(Reserve { for_ms, max_ms }) = self.reserve {
            in_range("reserve_for_ms", for_ms, RESERVE_MS.0, RESERVE_MS.1)?;
            in_range("reserve_max_ms", max_ms, for_ms, RESERVE_MS.1)?;
        }
        if self.limits.len() > LIMITS_MAX {
            return Err(Invalid::new("limits", format!("may be {LIMITS_MAX} at most, got {}", self.limits.len())));
        }
        for (position, limit) in self.limits.iter().enumerate() {
            limit.check(items)?;
            if self.limits[..position].iter().any(|earlier| earlier.name() == limit.name()) {
                let rule = format!("are named {} twice; give each a `name` of its own", limit.name());
                return Err(Invalid::new("limits", rule));
            }
        }
        Ok(())
    }

    /// Buyers are spread over partitions by their name, so only what counts by buyer can be counted in one place.
    pub fn fits_partitions(&self, partitions: u16) -> Result<(), Invalid> {
        match self.limits.iter().find(|limit| partitions > 1 && limit.by != BY_BUYER) {
            None => Ok(()),
            Some(limit) => Err(Invalid::new(
                "limits.by",
                format!(
                    "must be buyer in a sale of {partitions} partitions: orders with one `{}` may come to different ones. Choose partitions 1",
                    limit.by
                ),
            )),
        }
    }

    /// The counters that an order adds to. A key that a limit counts by must be there: without it the limit would be
    /// none.
    pub fn counted(
        &self,
        buyer: &str,
        keys: &BTreeMap<String, String>,
        items: &[Item],
    ) -> Result<Vec<Counted>, Invalid> {
        let mut counted = Vec::new();
        for limit in &self.limits {
            let value = match limit.by.as_str() {
                BY_BUYER => buyer,
                by => keys.get(by).ok_or_else(|| {
                    Invalid::new("limits_by", format!("must name `{by}`: the sale has a limit by it"))
                })?,
            };
            let counts = |item: &&Item| limit.skus.is_empty() || limit.skus.iter().any(|sku| sku == item.sku.as_str());
            let units: u64 = items.iter().filter(counts).map(|item| u64::from(item.quantity)).sum();
            if units > 0 {
                counted.push(Counted {
                    field: format!("{}:{value}", limit.name()),
                    units: u32::try_from(units).unwrap_or(u32::MAX),
                    most: limit.units,
                });
            }
        }
        Ok(counted)
    }

    /// How many of these units count for each limit: what goes back when they do.
    pub fn counting<'a>(&'a self, sku: &'a str) -> impl Iterator<Item = &'a Limit> {
        self.limits.iter().filter(move |limit| limit.skus.is_empty() || limit.skus.iter().any(|of| of == sku))
    }
}

impl Limit {
    pub fn name(&self) -> &str {
        if self.name.is_empty() { &self.by } else { &self.name }
    }

    fn check(&self, items: &[(Sku, u64)]) -> Result<(), Invalid> {
        check_name("limits.by", &self.by)?;
        check_name("limits.name", self.name())?;
        if self.units == 0 {
            return Err(Invalid::new("limits.units", "must be at least 1; a sale that sells nothing is paused"));
        }
        for sku in &self.skus {
            // A misspelt SKU would make a limit that nobody ever meets.
            if !items.iter().any(|(known, _)| known.as_str() == sku) {
                return Err(Invalid::new("limits.skus", format!("names {sku}, which is none of the sale's items")));
            }
        }
        Ok(())
    }
}

fn check_name(field: &'static str, name: &str) -> Result<(), Invalid> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(good) {
        return Err(Invalid::new(field, format!("must be 1 to {NAME_BYTES_MAX} of A-Z a-z 0-9 _ -, got `{name}`")));
    }
    Ok(())
}

/// The keys that an order brings: few, with short names, and values without control characters.
pub fn check_keys(keys: &BTreeMap<String, String>) -> Result<(), Invalid> {
    if keys.len() > KEYS_MAX {
        return Err(Invalid::new("limits_by", format!("may name {KEYS_MAX} keys at most, got {}", keys.len())));
    }
    for (name, value) in keys {
        check_name("limits_by", name)?;
        if value.is_empty() || value.len() > VALUE_BYTES_MAX || value.chars().any(char::is_control) {
            let rule = format!("must have 1 to {VALUE_BYTES_MAX} bytes without control characters for `{name}`");
            return Err(Invalid::new("limits_by", rule));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(by: &str, name: &str, skus: &[&str], units: u32) -> Limit {
        Limit { name: name.into(), by: by.into(), skus: skus.iter().map(|sku| sku.to_string()).collect(), units }
    }

    fn stocked() -> Vec<(Sku, u64)> {
        ["a", "b", "c"].map(|sku| (Sku::parse(sku).unwrap(), 9)).to_vec()
    }

    fn items(list: &[(&str, u32)]) -> Vec<Item> {
        list.iter().map(|(sku, quantity)| Item { sku: Sku::parse(*sku).unwrap(), quantity: *quantity }).collect()
    }

    #[test]
    fn a_reservation_has_bounds_and_grows_within_them() {
        let check = |for_ms, max_ms| {
            let terms = Terms { reserve: Some(Reserve { for_ms, max_ms }), ..Terms::default() };
            terms.check(&stocked()).map_err(|invalid| invalid.field)
        };
        assert_eq!(check(60_000, 60_000), Ok(()));
        assert_eq!(check(99, 60_000), Err("reserve_for_ms"));
        assert_eq!(check(60_000, 59_999), Err("reserve_max_ms"));
        assert_eq!(check(60_000, RESERVE_MS.1 + 1), Err("reserve_max_ms"));
    }

    #[test]
    fn a_limit_that_could_never_bind_is_refused() {
        let check = |limits: Vec<Limit>| {
            let terms = Terms { limits, ..Terms::default() };
            terms.check(&stocked()).map_err(|invalid| invalid.field)
        };
        assert_eq!(check(vec![limit("buyer", "", &["a", "b"], 2), limit("card", "", &[], 1)]), Ok(()));
        assert_eq!(check(vec![limit("buyer", "", &["x"], 2)]), Err("limits.skus"));
        assert_eq!(check(vec![limit("buyer", "", &[], 0)]), Err("limits.units"));
        assert_eq!(check(vec![limit("", "", &[], 1)]), Err("limits.by"));
        assert_eq!(check(vec![limit("card", "a b", &[], 1)]), Err("limits.name"));
        assert_eq!(check(vec![limit("card", "", &["a"], 1), limit("card", "", &["b"], 1)]), Err("limits"));
        assert_eq!(check(vec![limit("card", "", &[], 1); LIMITS_MAX + 1]), Err("limits"));
    }

    #[test]
    fn an_order_counts_for_the_limits_that_its_skus_are_under() {
        let limits = vec![limit("buyer", "pair", &["a", "b"], 2), limit("household", "", &[], 3)];
        let terms = Terms { limits, ..Terms::default() };
        let keys = BTreeMap::from([("household".to_owned(), "h1".to_owned())]);
        let counted = |items: &[Item]| -> Vec<(String, u32)> {
            let counted = terms.counted("u1", &keys, items).unwrap();
            counted.into_iter().map(|counted| (counted.field, counted.units)).collect()
        };
        assert_eq!(
            counted(&items(&[("a", 1), ("b", 2), ("c", 4)])),
            [("pair:u1".to_owned(), 3), ("household:h1".to_owned(), 7)]
        );
        assert_eq!(counted(&items(&[("c", 1)])), [("household:h1".to_owned(), 1)]);
        let missing = terms.counted("u1", &BTreeMap::new(), &items(&[("a", 1)])).unwrap_err();
        assert_eq!(missing.field, "limits_by");
    }

    #[test]
    fn over_several_partitions_only_the_buyer_is_counted() {
        let terms = |by: &str| Terms { limits: vec![limit(by, "", &[], 1)], ..Terms::default() };
        assert_eq!(terms("card").fits_partitions(1), Ok(()));
        assert_eq!(terms("buyer").fits_partitions(16), Ok(()));
        assert_eq!(terms("card").fits_partitions(2).unwrap_err().field, "limits.by");
    }

    #[test]
    fn keys_are_few_and_short() {
        let keys = |list: &[(&str, &str)]| {
            let keys = list.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
            check_keys(&keys).map_err(|invalid| invalid.field)
        };
        assert_eq!(keys(&[("household", "h1"), ("card", "4711 ä")]), Ok(()));
        for bad in [("", "x"), ("a b", "x"), ("card", ""), ("card", "a\nb"), ("card", &"x".repeat(129))] {
            assert_eq!(keys(&[bad]), Err("limits_by"), "{bad:?}");
        }
        let many: Vec<(String, String)> = (0..9).map(|n| (format!("k{n}"), "x".into())).collect();
        assert_eq!(check_keys(&many.into_iter().collect()).unwrap_err().field, "limits_by");
    }
}
