//! Options of a global transaction, the same for every mode.

use http::HeaderMap;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// As they travel: whole seconds, nothing that was not set.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Options {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub wait_result: bool,
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout_to_fail: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub request_timeout: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_limit: i64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub branch_headers: BTreeMap<String, String>,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// Seconds, rounded up: a wait of half a second must not become none.
pub(crate) fn seconds(time: Duration) -> i64 {
    let started = u64::from(time.subsec_nanos() > 0);
    i64::try_from(time.as_secs().saturating_add(started)).unwrap_or(i64::MAX)
}

impl Options {
    /// The headers that the client's own calls of branches carry; what cannot be sent is left out.
    pub fn headers(&self) -> HeaderMap {
        let pairs = self.branch_headers.iter();
        pairs
            .filter_map(|(name, value)| {
                Some((http::HeaderName::try_from(name).ok()?, http::HeaderValue::try_from(value).ok()?))
            })
            .collect()
    }

    pub fn pass_through(&mut self, headers: &HeaderMap, names: &[&str]) {
        for name in names {
            if let Some(value) = headers.get(*name).and_then(|value| value.to_str().ok()) {
                self.branch_headers.insert((*name).to_owned(), value.to_owned());
            }
        }
    }
}

/// The setters of a builder that has a field `options`.
macro_rules! option_setters {
    () => {
        /// The submit is answered only after the coordinator has run the transaction once.
        pub fn wait_result(mut self) -> Self {
            self.options.wait_result = true;
            self
        }

        /// How long it may stay undecided; whole seconds, rounded up.
        pub fn timeout_to_fail(mut self, time: std::time::Duration) -> Self {
            self.options.timeout_to_fail = $crate::client::options::seconds(time);
            self
        }

        /// The coordinator's time-out for one call of a branch; whole seconds, rounded up.
        pub fn request_timeout(mut self, time: std::time::Duration) -> Self {
            self.options.request_timeout = $crate::client::options::seconds(time);
            self
        }

        /// The first interval between two tries of a branch; whole seconds, rounded up.
        pub fn retry_interval(mut self, time: std::time::Duration) -> Self {
            self.options.retry_interval = $crate::client::options::seconds(time);
            self
        }

        /// A header (or gRPC metadata) for every call of a branch.
        pub fn branch_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
            self.options.branch_headers.insert(name.into(), value.into());
            self
        }

        /// Passes these headers of a request on to every branch, such as a trace or a tenant.
        pub fn passthrough(mut self, headers: &http::HeaderMap, names: &[&str]) -> Self {
            self.options.pass_through(headers, names);
            self
        }
    };
}
pub(crate) use option_setters;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_of_a_second_is_a_whole_one() {
        assert_eq!(seconds(Duration::from_millis(300)), 1);
        assert_eq!(seconds(Duration::from_secs(3)), 3);
        assert_eq!(seconds(Duration::ZERO), 0);
        assert_eq!(seconds(Duration::MAX), i64::MAX);
    }

    #[test]
    fn what_is_not_set_is_not_sent() {
        assert_eq!(serde_json::to_string(&Options::default()).unwrap(), "{}");
    }
}
