//! Looks at what has no event of its own: fences, the records, the memory of Redis.

use super::{Kind, raise, resolve};
use crate::reconciler::Records;
use crate::sale::node::Node;
use crate::store::{Error, keys};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is wrong now, with words for people.
type Wrong = BTreeMap<(&'static str, String), (Kind, String)>;

/// Looks until the server ends. `records_down`: for how long the records may be away.
pub async fn watch(node: Arc<Node>, records: Arc<Records>, records_down: Duration) {
    let mut before = Wrong::new();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = look(&node, &records, records_down);
        for ((_, subject), (kind, text)) in &now {
            raise(*kind, subject, || text.clone());
        }
        for ((_, subject), (kind, _)) in before.iter().filter(|(key, _)| !now.contains_key(*key)) {
            resolve(*kind, subject);
        }
        before = now;
    }
}

fn look(node: &Node, records: &Records, records_down: Duration) -> Wrong {
    let mut wrong = Wrong::new();
    let mut note = |kind: Kind, subject: &str, text: String| {
        wrong.insert((kind.as_str(), subject.to_owned()), (kind, text));
    };
    let mut full = node.redis.has_room_at(&keys::sales(node.redis.prefix())).err();
    for open in node.all_opened() {
        let (name, parts) = (open.sale.name.as_str(), open.parts());
        if parts.iter().any(|part| node.redis.fence(&part.keys).is_some()) {
            let text =
                "Redis came back with less than it had acknowledged; the sale sells nothing until it is repaired";
            note(Kind::SaleFenced, name, format!("{text}: rushline repair {name}"));
        }
        full = full.or_else(|| parts.iter().find_map(|part| node.redis.has_room_at(&part.keys.sale).err()));
    }
    if let Some(Error::MemoryShort { used, budget }) = full {
        let text = format!("Redis uses {used} bytes, new orders may fill it up to {budget}: none are taken on");
        note(Kind::RedisFull, "redis", text);
    }
    if let Some(away) = records.away_for().filter(|away| *away >= records_down) {
        let text = format!(
            "nothing could be written to the records for {} s; what has ended waits in Redis, where it takes room",
            away.as_secs()
        );
        note(Kind::RecordsAway, "records", text);
    }
    wrong
}
