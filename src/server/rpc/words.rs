//! What the operations answer, as messages; and the times and lists of messages, as the operations take them.

use crate::domain::order::{Item as OrderedItem, Status};
use crate::domain::sale::{CallMode, Endpoint, SaleStatus};
use crate::proto::rushline::v1::{
    self as v1, AddStockReply, AuditReport, Change, Item, ListChangesReply, Order, OrderEndpoint, OrderStatus,
    Reservation, ReturnUnitsReply, Sale, Stock, audit_report, sale,
};
use crate::reconciler::audit::{Line, Report};
use crate::server::wire::{
    ChangeView, ChangesPage, ItemView, OrderView, ReservationView, ReturnView, SaleView, StockAdded,
};
use prost_types::Timestamp;

pub fn status(status: Status) -> OrderStatus {
    match status {
        Status::Submitted => OrderStatus::Submitted,
        Status::Succeed => OrderStatus::Succeed,
        Status::Failed => OrderStatus::Failed,
        Status::Reserved => OrderStatus::Reserved,
        Status::Cancelled => OrderStatus::Cancelled,
        Status::Expired => OrderStatus::Expired,
    }
}

/// `None`: none was named, or none that is known here.
pub fn status_named(status: OrderStatus) -> Option<Status> {
    Some(match status {
        OrderStatus::Unspecified => return None,
        OrderStatus::Submitted => Status::Submitted,
        OrderStatus::Succeed => Status::Succeed,
        OrderStatus::Failed => Status::Failed,
        OrderStatus::Reserved => Status::Reserved,
        OrderStatus::Cancelled => Status::Cancelled,
        OrderStatus::Expired => Status::Expired,
    })
}

pub fn time(at: jiff::Timestamp) -> Timestamp {
    Timestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond() }
}

/// `None`: no time that there is.
pub fn time_named(at: &Timestamp) -> Option<jiff::Timestamp> {
    jiff::Timestamp::new(at.seconds, at.nanos).ok()
}

fn items(items: Vec<OrderedItem>) -> Vec<Item> {
    items.into_iter().map(|item| Item { sku: item.sku.to_string(), quantity: item.quantity }).collect()
}

pub fn order(view: OrderView) -> Order {
    Order {
        gid: view.gid,
        sale: view.sale,
        buyer: view.buyer,
        status: status(view.status).into(),
        items: items(view.items),
        payload: view.payload.map(|payload| payload.get().to_owned()).unwrap_or_default(),
        attempts: view.attempts,
        last_error: view.last_error.unwrap_or_default(),
        admitted_at: view.admitted_at.map(time),
        finished_at: view.finished_at.map(time),
        reserved_until: view.reserved_until.map(time),
        confirmed: items(view.confirmed.unwrap_or_default()),
        returned: items(view.returned),
        end_told: view.end_told,
    }
}

pub fn reservation(view: ReservationView) -> Reservation {
    Reservation {
        gid: view.gid,
        status: status(view.status).into(),
        items: items(view.items),
        reserved_until: view.reserved_until.map(time),
        replayed: view.replayed,
    }
}

pub fn returned(view: ReturnView) -> ReturnUnitsReply {
    let ReturnView { gid, request_id, items: now, returned, replayed } = view;
    ReturnUnitsReply { gid, request_id, items: items(now), returned: items(returned), replayed }
}

pub fn sale(view: SaleView) -> Sale {
    let status = match view.status {
        SaleStatus::Open => v1::SaleStatus::Open,
        SaleStatus::Paused => v1::SaleStatus::Paused,
        SaleStatus::Closed => v1::SaleStatus::Closed,
    };
    let limit = |limit: crate::domain::terms::Limit| v1::Limit {
        name: limit.name,
        by: limit.by,
        skus: limit.skus,
        units: limit.units,
    };
    Sale {
        sale: view.sale,
        status: status.into(),
        fenced: view.fenced.map(|fence| sale::Fenced {
            since: fence.since.map(time),
            changes_found: fence.changes_found,
            changes_acknowledged: fence.changes_acknowledged,
        }),
        items: view.items.into_iter().map(stock).collect(),
        refused: view.refused.into_iter().collect(),
        limit_per_buyer: view.limit_per_buyer,
        opens_at: view.opens_at.map(time),
        closes_at: view.closes_at.map(time),
        durability: view.durability.to_string(),
        partitions: view.partitions.into(),
        order_endpoint: Some(endpoint(view.order_endpoint)),
        webhook_url: view.webhook.map(|webhook| webhook.url).unwrap_or_default(),
        reserve_for_ms: view.reserve_for_ms,
        reserve_max_ms: view.reserve_max_ms,
        limits: view.limits.into_iter().map(limit).collect(),
        returns_free_limits: view.returns_free_limits,
        backlog: Some(sale::Backlog {
            undelivered_batches: view.backlog.undelivered_batches,
            retries: view.backlog.retries,
            undrained_batches: view.backlog.undrained_batches,
        }),
        created_at: Some(time(view.created_at)),
        version: view.version,
    }
}

fn stock(item: ItemView) -> Stock {
    let ItemView { sku, loaded, available, reserved, sold, in_transit } = item;
    Stock { sku, loaded, available, reserved, sold, in_transit }
}

fn endpoint(endpoint: Endpoint) -> OrderEndpoint {
    OrderEndpoint {
        url: endpoint.url,
        timeout_ms: endpoint.timeout_ms,
        max_concurrency: endpoint.max_concurrency,
        bulk: endpoint.mode == CallMode::Bulk,
        end_url: endpoint.end_url.unwrap_or_default(),
        count_url: endpoint.count_url.unwrap_or_default(),
        list_url: endpoint.list_url.unwrap_or_default(),
    }
}

pub fn stock_added(view: StockAdded) -> AddStockReply {
    let StockAdded { sku, units, request_id, replayed } = view;
    AddStockReply { sku, units, request_id, replayed }
}

pub fn changes(page: ChangesPage) -> ListChangesReply {
    let change = |view: ChangeView| Change {
        at: view.at.map(time),
        kind: view.kind,
        change: view.change.map(|change| change.get().to_owned()).unwrap_or_default(),
        units: view.units,
        who: view.who,
        why: view.why,
        request_id: view.request_id,
    };
    ListChangesReply { changes: page.changes.into_iter().map(change).collect() }
}

pub fn report(report: Report) -> AuditReport {
    let line = |line: Line| audit_report::Line {
        sku: line.sku,
        loaded: line.loaded,
        available: line.available,
        reserved: line.reserved,
        sold: line.sold,
        in_transit: line.in_transit,
        returned: line.returned,
        records_units: line.records_units,
        service_units: line.service_units,
        drift: line.drift,
    };
    AuditReport {
        sale: report.sale,
        settled: report.settled,
        in_flight: report.in_flight,
        undrained: report.undrained,
        drift: report.drift,
        items: report.items.into_iter().map(line).collect(),
        records_succeed: report.records.succeed,
        records_failed: report.records.failed,
        orders_at_service: report.orders_at_service,
        missing: report.missing,
        extra: report.extra,
        problems: report.problems,
    }
}
