//! The end of a demo: the same figures for eyes and for programs.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::audit::Audit;
use crate::buyers::Book;
use crate::progress::millis;

/// How long the parts took, both from the first order on.
pub struct Timing {
    pub selling: Duration,
    pub settled: Duration,
}

/// All figures of one demo.
pub struct Report {
    pub audit: Audit,
    /// What does not add up; empty is what the demo is for.
    pub faults: Vec<String>,
    sale: Value,
    timing: Timing,
    buyers: u32,
    orders_told: u64,
    units_told: u64,
    refused: BTreeMap<String, u64>,
    refused_by_service: u64,
    requests: u64,
    double_clicks: u64,
    lost_replies: u64,
    lost_for_good: u64,
    replays: u64,
    asked_again: u64,
    timeouts: u64,
    told_to_wait: u64,
    broken_connections: u64,
    latency_ms: [(&'static str, f64); 4],
}

impl Report {
    pub fn new(
        book: &Book,
        audit: Audit,
        sale: Value,
        timing: Timing,
        asked_again: u64,
        refused_by_service: u64,
        faults: Vec<String>,
    ) -> Self {
        Self {
            audit,
            faults,
            sale,
            timing,
            buyers: book.buyers_done,
            orders_told: book.told.len() as u64,
            units_told: book.units_told,
            refused: book.refused.clone(),
            refused_by_service,
            requests: book.requests,
            double_clicks: book.double_clicks,
            lost_replies: book.lost_replies,
            lost_for_good: book.lost_for_good.len() as u64,
            replays: book.replays,
            asked_again,
            timeouts: book.timeouts,
            told_to_wait: book.told_to_wait,
            broken_connections: book.broken_connections,
            latency_ms: [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)]
                .map(|(name, q)| (name, millis(book, q))),
        }
    }

    fn requests_per_s(&self) -> f64 {
        self.requests as f64 / self.timing.selling.as_secs_f64()
    }

    fn orders_per_s(&self) -> f64 {
        self.orders_told as f64 / self.timing.settled.as_secs_f64()
    }

    pub fn to_json(&self) -> Value {
        let latency: serde_json::Map<String, Value> =
            self.latency_ms.iter().map(|&(name, ms)| (name.into(), ms.into())).collect();
        json!({
            "date": jiff::Timestamp::now().to_string(),
            "adds_up": self.faults.is_empty(),
            "faults": self.faults,
            "selling_s": self.timing.selling.as_secs_f64(),
            "settled_s": self.timing.settled.as_secs_f64(),
            "buyers": self.buyers,
            "requests": self.requests,
            "requests_per_s": self.requests_per_s(),
            "orders_per_s_until_settled": self.orders_per_s(),
            "latency_ms": latency,
            "orders_told": self.orders_told,
            "units_told": self.units_told,
            "refused": self.refused,
            "refused_by_order_service": self.refused_by_service,
            "double_clicks": self.double_clicks,
            "lost_replies": self.lost_replies,
            "lost_for_good": self.lost_for_good,
            "replays_during_the_sale": self.replays,
            "asked_again_after_the_sale": self.asked_again,
            "timeouts": self.timeouts,
            "told_to_wait": self.told_to_wait,
            "broken_connections": self.broken_connections,
            "sale": self.sale,
            "audit": self.audit,
        })
    }

    pub fn print(&self, path: &Path) {
        let [p50, p90, p99, p999] = self.latency_ms.map(|(_, ms)| ms);
        let refused: Vec<String> =
            self.refused.iter().map(|(code, n)| format!("{n} {}", code.replace('_', " "))).collect();
        println!();
        println!(
            "  sale        {} buyers, {} requests in {:.1} s ({:.0}/s); all settled after {:.1} s",
            self.buyers,
            self.requests,
            self.timing.selling.as_secs_f64(),
            self.requests_per_s(),
            self.timing.settled.as_secs_f64()
        );
        println!("  latency     p50 {p50:.1} ms  p90 {p90:.1} ms  p99 {p99:.1} ms  p99.9 {p999:.1} ms");
        println!("  told        {} orders of {} units", self.orders_told, self.units_told);
        println!(
            "  refused     {}; {} by the order service, whose units went back",
            refused.join(", "),
            self.refused_by_service
        );
        println!(
            "  trouble     {} double clicks, {} lost replies asked for again, {} never asked for; {} timeouts, {} broken connections",
            self.double_clicks, self.lost_replies, self.lost_for_good, self.timeouts, self.broken_connections
        );
        println!(
            "  replays     {} during the sale, {} after it, each with the first gid",
            self.replays, self.asked_again
        );
        println!("{}", self.audit.table());
        println!(
            "  records     {} orders made, {} refused; {} orders at the order service; drift {}",
            self.audit.records.succeed,
            self.audit.records.failed,
            self.audit.orders_at_service.map_or("unknown".into(), |n| n.to_string()),
            self.audit.drift
        );
        println!("  report      {}", path.display());
        if self.faults.is_empty() {
            println!("\n  Everything adds up.");
        } else {
            println!("\n  This does not add up:");
            self.faults.iter().for_each(|fault| println!("  - {fault}"));
        }
    }
}
