//! `/metrics`: counters and histograms are kept where things happen; what Redis knows is read when somebody asks.

use super::App;
use crate::domain::sale::Durability;
use metrics::{Unit, describe_counter, describe_gauge, describe_histogram, gauge};

/// Most sales and SKUs that get gauges of their own: a label set must have a bound.
const SERIES_MAX: usize = 500;

pub fn describe() {
    describe_counter!("rushline_connections_refused_total", "Connections closed because their address has too many.");
    describe_counter!("rushline_orders_admitted_total", "Orders whose units were taken.");
    describe_counter!("rushline_orders_ended_total", "Orders that ended, by status.");
    describe_counter!("rushline_orders_refused_total", "Order requests refused, by reason.");
    describe_counter!(
        "rushline_orders_refused_from_memory_total",
        "Of those, the ones that this node answered without asking Redis about stock, limit or window."
    );
    describe_counter!(
        "rushline_denied_total",
        "Requests that came without a token that may, or by a name that may not, by reason."
    );
    describe_counter!("rushline_delivery_retries_total", "Calls to order endpoints that did not end an order.");
    describe_counter!("rushline_reservations_ended_total", "Reservations that ended, by how.");
    describe_counter!("rushline_reservation_ends_told_total", "Ends that order services have heard of, by how.");
    describe_counter!("rushline_reservation_ends_retries_total", "Calls that told of an end without success.");
    describe_counter!(
        "rushline_reservation_ends_refused_total",
        "Ends that order services refused to hear; see the log."
    );
    describe_histogram!("rushline_reservation_expiry_seconds", Unit::Seconds, "From a deadline to its expiry.");
    describe_counter!("rushline_entries_taken_over_total", "Batches taken over from nodes that went silent.");
    describe_counter!("rushline_records_written_total", "Finished orders written to the records.");
    describe_counter!("rushline_records_errors_total", "Writes to the records that failed and were tried again.");
    describe_counter!(
        "rushline_alerts_total",
        "Alerts, by kind and result: raised, resolved, suppressed (a hundred of the kind are open), not_heard."
    );
    describe_counter!("rushline_spans_exported_total", "Spans that the collector has taken.");
    describe_counter!(
        "rushline_spans_dropped_total",
        "Spans that were let go of, by why: queue_full, not_sent, rejected."
    );
    describe_counter!("rushline_webhooks_total", "Calls of webhooks, by result: delivered, failed, given_up.");
    describe_counter!("rushline_transactions_ended_total", "Global transactions that ended here, by type and status.");
    describe_counter!("rushline_transactions_drained_total", "Finished transactions that left Redis for the records.");
    describe_counter!("rushline_transactions_claimed_total", "Global transactions taken up because they were due.");
    describe_counter!("rushline_transaction_alerts_total", "Alerts about global transactions that do not get on.");
    describe_counter!("rushline_branch_calls_total", "Calls of branches, by op and result.");
    describe_counter!(
        "rushline_registry_failures_total",
        "Times that this server's entry in etcd was lost or refused."
    );
    describe_gauge!("rushline_registry_registered", "1 while this server's entry is in etcd.");
    describe_histogram!("rushline_admission_batch_size", "Order requests decided by one script call.");
    describe_histogram!("rushline_admission_seconds", Unit::Seconds, "From sending a batch to its durable answer.");
    describe_histogram!("rushline_delivery_seconds", Unit::Seconds, "One call to an order endpoint.");
    describe_histogram!("rushline_records_write_seconds", Unit::Seconds, "One write to the records.");
    describe_counter!("rushline_fences_total", "Partitions that this node found, or was told, to have lost something.");
    describe_counter!("rushline_orders_lost_total", "Orders that this node had acknowledged, and that Redis lost.");
    describe_gauge!("rushline_fenced_partitions", "Partitions that sell nothing until `rushline repair`; 0 is well.");
    describe_counter!(
        "rushline_panics_total",
        "Bugs that showed: each is in the log. Anything but 0 should be reported."
    );
    describe_gauge!("rushline_redis_usable", "1 if Redis answered the last time it was asked.");
    describe_gauge!(
        "rushline_durability_available",
        "1 if this Redis can promise the durability class now; where it is 0, a sale of that class sells nothing."
    );
    describe_gauge!("rushline_in_flight_orders", "Orders in flight on this node.");
    describe_gauge!("rushline_units", "Units by sale, SKU and state.");
    describe_gauge!(
        "rushline_conservation_difference",
        "loaded - available - reserved - sold; anything but 0 is a bug."
    );
    describe_gauge!("rushline_backlog_intake_batches", "Batches with an order that has not ended.");
    describe_gauge!("rushline_backlog_retry_orders", "Orders waiting for another try.");
    describe_gauge!("rushline_backlog_finished_batches", "Batches that have ended and wait for the records.");
    describe_gauge!("rushline_transactions_backlog", "Finished transactions that wait for the records.");
    describe_gauge!(
        "rushline_transactions_set_aside",
        "Finished transactions that the records refuse one by one, as this node sees it."
    );
    describe_gauge!("rushline_records_backlog_entries", "As above, over all sales.");
}

/// Brings the gauges up to date. What cannot be read keeps its last value.
pub async fn refresh(app: &App) {
    gauge!("rushline_redis_usable").set(f64::from(u8::from(app.node.redis.usable())));
    let promise = app.node.redis.promise();
    for (class, asked) in
        [("memory", Durability::Memory), ("fsync", Durability::Fsync), ("replica:1", Durability::Replica(1))]
    {
        let available = f64::from(u8::from(promise.wait_for(asked).is_ok()));
        gauge!("rushline_durability_available", "class" => class).set(available);
    }
    gauge!("rushline_in_flight_orders").set(app.node.in_flight() as f64);
    if let Ok(undrained) = app.driver.redis.finished_trans_count().await {
        gauge!("rushline_transactions_backlog").set(undrained as f64);
    }
    let mut series = 0;
    for open in app.node.all_opened() {
        let sale = open.sale.name.to_string();
        if let Ok(backlog) = app.node.backlog(&open).await {
            let undrained = backlog.entries.saturating_sub(backlog.undelivered_entries);
            gauge!("rushline_backlog_intake_batches", "sale" => sale.clone()).set(backlog.undelivered_entries as f64);
            gauge!("rushline_backlog_retry_orders", "sale" => sale.clone()).set(backlog.retries as f64);
            gauge!("rushline_backlog_finished_batches", "sale" => sale.clone()).set(undrained as f64);
        }
        let Ok(stock) = app.node.stock(&open).await else { continue };
        // One figure a sale always, however many SKUs it has.
        let difference: i128 = stock.values().map(|counters| counters.difference().abs()).sum();
        gauge!("rushline_conservation_difference", "sale" => sale.clone()).set(difference as f64);
        for (sku, counters) in stock {
            series += 1;
            if series > SERIES_MAX {
                return;
            }
            let stock = counters.stock;
            for (state, units) in [
                ("loaded", stock.loaded),
                ("available", stock.available),
                ("reserved", stock.reserved),
                ("sold", stock.sold),
            ] {
                gauge!("rushline_units", "sale" => sale.clone(), "sku" => sku.clone(), "state" => state)
                    .set(units as f64);
            }
        }
    }
}
