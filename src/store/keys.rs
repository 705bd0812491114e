//! The one place where a Redis key is spelled.
//!
//! All keys of one partition share the hash tag `{sale/partition}`, so a script never leaves its slot.

use crate::domain::ids::SaleName;

/// The keys of one partition of a sale, spelled once when the sale is opened.
#[derive(Debug, Clone)]
pub struct Keys {
    pub sale: String,
    pub stock: String,
    pub requests: String,
    pub buyers: String,
    pub intake: String,
    pub outcome: String,
    pub retry: String,
    pub detail: String,
    pub finished: String,
    pub changes: String,
    pub refused: String,
}

impl Keys {
    pub fn new(prefix: &str, sale: &SaleName, partition: u16) -> Self {
        let key = |name: &str| format!("{prefix}{{{sale}/{partition}}}:{name}");
        Self {
            sale: key("sale"),
            stock: key("stock"),
            requests: key("requests"),
            buyers: key("buyers"),
            intake: key("intake"),
            outcome: key("outcome"),
            retry: key("retry"),
            detail: key("detail"),
            finished: key("finished"),
            changes: key("changes"),
            refused: key("refused"),
        }
    }
}

/// Set of the names of all sales.
pub fn sales(prefix: &str) -> String {
    format!("{prefix}sales")
}

/// The run of Redis (its run_id) whose append-only file was rewritten after loading.
pub fn verified_run(prefix: &str) -> String {
    format!("{prefix}verified_run")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_one_partition_share_one_hash_tag() {
        let keys = Keys::new("rl:", &SaleName::parse("nov22").unwrap(), 3);
        assert_eq!(keys.intake, "rl:{nov22/3}:intake");
        for key in [&keys.sale, &keys.stock, &keys.requests, &keys.buyers, &keys.outcome, &keys.finished] {
            assert!(key.starts_with("rl:{nov22/3}:"), "{key}");
        }
    }
}
