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
    pub log: String,
    pub hooks: String,
    pub refused: String,
    /// Units on their way to other partitions.
    pub transit: String,
    /// Which of other partitions' transfers have arrived here.
    pub credited: String,
    /// Orders whose end the order service is to be told of.
    pub ends: String,
    pub extended: String,
    pub parts: String,
    pub expiry: String,
    pub limits: String,
    pub returns: String,
    pub returned: String,
    /// What nodes acknowledged and Redis lost.
    pub lost: String,
    /// Orders that somebody wants tried again now.
    pub again: String,
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
            log: key("log"),
            hooks: key("hooks"),
            refused: key("refused"),
            transit: key("transit"),
            credited: key("credited"),
            ends: key("ends"),
            extended: key("extended"),
            parts: key("parts"),
            expiry: key("expiry"),
            limits: key("limits"),
            returns: key("returns"),
            returned: key("returned"),
            lost: key("lost"),
            again: key("again"),
        }
    }

    /// `sale/partition`, for people.
    pub fn name(&self) -> &str {
        self.sale.split(['{', '}']).nth(1).unwrap_or_default()
    }
}

/// Set of the names of all sales.
pub fn sales(prefix: &str) -> String {
    format!("{prefix}sales")
}

/// What each node last said of itself, by name.
pub fn nodes(prefix: &str) -> String {
    format!("{prefix}nodes")
}

/// That an alert was told, and by which id.
pub fn alert(prefix: &str, kind: &str, subject: &str) -> String {
    format!("{prefix}alert:{kind}:{subject}")
}

/// Over how many slots global transactions are spread. Part of the keys: it never changes for a prefix.
pub const TRANS_PARTITIONS: u16 = 16;

/// The partition of a global transaction.
pub fn trans_partition(gid: &str) -> u16 {
    place(gid, TRANS_PARTITIONS)
}

/// The partition of a sale, out of so many, that decides about a buyer.
pub fn home(buyer: &str, partitions: u16) -> u16 {
    place(buyer, partitions)
}

/// FNV-1a: stable over versions and machines, unlike the standard library's.
fn place(name: &str, places: u16) -> u16 {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    ((hash ^ (hash >> 32)) % u64::from(places)) as u16
}

/// The record of a global transaction. The hash tag comes first, so nothing in the gid can move it to another slot.
pub fn trans(prefix: &str, gid: &str) -> String {
    format!("{prefix}{{T/{}}}:g:{gid}", trans_partition(gid))
}

/// The branches of a global transaction that were registered since its record was written.
pub fn trans_rows(prefix: &str, gid: &str) -> String {
    format!("{prefix}{{T/{}}}:r:{gid}", trans_partition(gid))
}

/// When the unfinished global transactions of a partition are due.
pub fn trans_due(prefix: &str, partition: u16) -> String {
    format!("{prefix}{{T/{partition}}}:due")
}

/// Those of one status and type, by time of creation: what lists read. Of a final status, also the drain's queue.
pub fn trans_index(prefix: &str, partition: u16, status: &str, trans_type: &str) -> String {
    format!("{prefix}{{T/{partition}}}:i:{status}:{trans_type}")
}

/// Which node drains the finished global transactions of a partition.
pub fn trans_drain(prefix: &str, partition: u16) -> String {
    format!("{prefix}{{T/{partition}}}:drain")
}

/// Named values of one category, such as the topics.
pub fn trans_kv(prefix: &str, category: &str) -> String {
    format!("{prefix}{{T/kv}}:{category}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gid_cannot_leave_its_partition() {
        let gid = "a}{b";
        assert!(trans("rl:", gid).starts_with(&format!("rl:{{T/{}}}:g:", trans_partition(gid))));
        assert_eq!(trans_partition("g1"), trans_partition("g1"));
    }

    #[test]
    fn keys_of_one_partition_share_one_hash_tag() {
        let keys = Keys::new("rl:", &SaleName::parse("nov22").unwrap(), 3);
        assert_eq!(keys.intake, "rl:{nov22/3}:intake");
        for key in [&keys.sale, &keys.stock, &keys.requests, &keys.buyers, &keys.outcome, &keys.finished] {
            assert!(key.starts_with("rl:{nov22/3}:"), "{key}");
        }
    }
}
