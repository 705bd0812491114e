//! Sales: creating, showing, changing, restocking, auditing, paging through records. Each as the function that every
//! door calls, with the JSON body of the HTTP interface, and as its HTTP handler.

use super::App;
use super::changes;
use super::deed::Deed;
use super::json;
use super::orders::{self, view_of_record};
use super::problem::Problem;
use super::wire::*;
use crate::branch::hosts;
use crate::config::redact;
use crate::domain::change::check_request_id;
use crate::domain::ids::{Gid, Invalid, SaleName, Sku};
use crate::domain::sale::{NewSale, Settings, UNITS_MAX, check_partitions};
use crate::reconciler::audit::{self, Report};
use crate::sale::open::Open;
use crate::store::keys::Keys;
use crate::store::sales::{Backlog, Created, Restocked, Updated};
use crate::store::spread::{Grown, HOMES_MAX};
use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

type Answer<T> = Result<T, Problem>;

/// How often a change is tried when others change the same sale at the same time.
const UPDATE_TRIES: usize = 8;
/// Most records of one page.
const RECORDS_PAGE_MAX: u32 = 1000;

fn invalid_sale(invalid: Invalid) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_sale", invalid.to_string()).field(invalid.field)
}

/// Refuses URLs that this server must not call.
fn check_calls(settings: &Settings) -> Answer<()> {
    let (endpoint, webhook) = (&settings.endpoint, settings.webhook.as_ref());
    for (field, url) in [
        ("order_endpoint.url", Some(&endpoint.url)),
        ("order_endpoint.end_url", endpoint.end_url.as_ref()),
        ("order_endpoint.count_url", endpoint.count_url.as_ref()),
        ("order_endpoint.list_url", endpoint.list_url.as_ref()),
        ("webhook.url", webhook.map(|webhook| &webhook.url)),
    ] {
        let Some(url) = url else { continue };
        hosts::check(url).map_err(|error| invalid_sale(Invalid::new(field, error.to_string())))?;
    }
    Ok(())
}

pub(super) async fn open(app: &App, name: &str) -> Answer<Arc<Open>> {
    let parsed = SaleName::parse(name).map_err(|_| Problem::unknown_sale(name))?;
    app.node.open(&parsed).await?.ok_or_else(|| Problem::unknown_sale(name))
}

/// `POST /v1/sales`: 201 new, 200 the same again, 409 another of that name.
pub async fn create(State(app): State<Arc<App>>, deed: Deed, body: Bytes) -> Answer<Response> {
    let (created, view) = created(&app, &deed, &body).await?;
    let status = if created == Created::New { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(view)).into_response())
}

pub async fn created(app: &App, deed: &Deed, body: &[u8]) -> Answer<(Created, SaleView)> {
    let request: CreateSale = json::parse(body, "invalid_sale")?;
    deed.target(&request.sale);
    let canonical = serde_json::to_string(&request).expect("it was just read from JSON");
    let partitions = request.partitions;
    let new: NewSale = request.into_new_sale().map_err(invalid_sale)?;
    check_calls(&new.settings)?;
    // A sale that this Redis cannot keep its word for is not begun.
    app.node.redis.promise().wait_for(new.settings.durability).map_err(|problem| {
        let asked = new.settings.durability;
        Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "durability_unavailable",
            format!("durability {asked} cannot be promised: {problem}. The sale was not created"),
        )
        .field("durability")
    })?;
    app.node.redis.has_room_at(&Keys::new(app.node.redis.prefix(), &new.sale, 0).sale)?;
    let (created, open) = app.node.create(&new, &canonical, partitions).await?;
    let Some(open) = open else {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "sale_exists",
            format!("a sale `{}` was created with another body; it is unchanged. PATCH changes it", new.sale),
        ));
    };
    Ok((created, view(app, &open).await?))
}

/// `GET /v1/sales`
pub async fn list(State(app): State<Arc<App>>) -> Answer<Json<serde_json::Value>> {
    Ok(Json(serde_json::json!({ "sales": all(&app).await? })))
}

pub async fn all(app: &App) -> Answer<Vec<SaleView>> {
    let mut sales = Vec::new();
    for name in app.node.redis.sale_names().await? {
        if let Some(open) = app.node.open(&name).await? {
            sales.push(view(app, &open).await?);
        }
    }
    Ok(sales)
}

/// `GET /v1/sales/{sale}`
pub async fn show(State(app): State<Arc<App>>, Path(name): Path<String>) -> Answer<Json<SaleView>> {
    let open = open(&app, &name).await?;
    Ok(Json(view(&app, &open).await?))
}

pub async fn view(app: &App, open: &Open) -> Answer<SaleView> {
    app.node.refresh(open).await?;
    app.node.tell_refused_of(open).await;
    let stored = open.sale.stored.load_full();
    let refused: BTreeMap<String, u64> = app.node.redis.refused(&open.head()).await?;
    let fence = open.parts().iter().find_map(|part| app.node.redis.fence(&part.keys));
    let backlog = match (app.node.backlog(open).await, &fence) {
        (Err(_), Some(_)) => Backlog::default(), // of a sale that is gone there is nothing to be asked
        (backlog, _) => backlog?,
    };
    let stock = app.node.stock(open).await?;
    let settings = stored.settings.clone();
    Ok(SaleView {
        sale: open.sale.name.to_string(),
        fenced: fence.map(|fence| FencedView {
            since: time(Some(fence.since_ms).filter(|ms| *ms > 0)),
            changes_found: fence.found,
            changes_acknowledged: fence.told,
        }),
        status: settings.status,
        items: stock
            .into_iter()
            .map(|(sku, counters)| ItemView {
                sku,
                loaded: counters.stock.loaded,
                available: counters.stock.available,
                reserved: counters.stock.reserved,
                sold: counters.stock.sold,
                in_transit: counters.in_transit,
            })
            .collect(),
        refused,
        limit_per_buyer: settings.limit_per_buyer,
        opens_at: time(settings.window.opens_ms),
        closes_at: time(settings.window.closes_ms),
        durability: settings.durability,
        partitions: stored.spread.partitions,
        order_endpoint: settings.endpoint,
        webhook: settings.webhook.map(|webhook| WebhookView { url: redact(&webhook.url) }),
        reserve_for_ms: settings.terms.reserve.map(|reserve| reserve.for_ms),
        reserve_max_ms: settings.terms.reserve.map(|reserve| reserve.max_ms),
        limits: settings.terms.limits,
        returns_free_limits: settings.terms.returns_free_limits,
        backlog: BacklogView {
            undelivered_batches: backlog.undelivered_entries,
            retries: backlog.retries,
            undrained_batches: backlog.entries.saturating_sub(backlog.undelivered_entries),
        },
        created_at: time(Some(stored.created_ms)).unwrap_or_default(),
        version: stored.version,
    })
}

/// `PATCH /v1/sales/{sale}`
pub async fn update(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    deed: Deed,
    body: Bytes,
) -> Answer<Json<SaleView>> {
    updated(&app, &name, &headers, &deed, &body).await.map(Json)
}

pub async fn updated(app: &App, name: &str, headers: &HeaderMap, deed: &Deed, body: &[u8]) -> Answer<SaleView> {
    let change: UpdateSale = json::parse(body, "invalid_sale")?;
    deed.note(change.reason.as_deref(), change.request_id.as_deref());
    let note = changes::note("invalid_sale", headers, change.reason.as_deref())?;
    change.request_id.as_deref().map_or(Ok(()), check_request_id).map_err(invalid_sale)?;
    let request_id = change.request_id.as_deref().unwrap_or_default();
    let what = changes::what(body);
    let open = open(app, name).await?;
    if let Some(partitions) = change.partitions {
        grow(app, &open, partitions).await?;
    }
    for _ in 0..UPDATE_TRIES {
        app.node.refresh(&open).await?;
        let stored = open.sale.stored.load_full();
        let mut settings = stored.settings.clone();
        change.apply(&mut settings).map_err(invalid_sale)?;
        // What stands there already may be older than the list of whom we call, and must not be in the way of a pause.
        if change.order_endpoint.is_some() || change.webhook.is_some() {
            check_calls(&settings)?;
        }
        // With an id it is noted all the same: repeated later it must not undo what others did meanwhile.
        if settings == stored.settings && request_id.is_empty() {
            return view(app, &open).await;
        }
        match app.node.redis.update_sale(&open.head(), stored.version, &settings, request_id, &what, &note).await? {
            Updated::Done | Updated::Duplicate => {
                acknowledge(app, &open).await?;
                return view(app, &open).await;
            }
            Updated::Stale => {}
            Updated::Reused => return Err(reused(request_id)),
            Updated::Closed => return Err(closed(name)),
        }
    }
    Err(Problem::new(
        StatusCode::CONFLICT,
        "changed_meanwhile",
        format!("others keep changing sale `{name}`; nothing was changed by this request. Read it and try again"),
    ))
}

/// An operator hears of a change when it is as durable as the sale's orders are: a Redis without it is found out.
async fn acknowledge(app: &App, open: &Open) -> Answer<()> {
    let Some(head) = open.part(0) else { return Ok(()) };
    app.node.acknowledge(&head).await?;
    Ok(())
}

async fn grow(app: &App, open: &Open, partitions: u16) -> Answer<()> {
    check_partitions(partitions).map_err(invalid_sale)?;
    open.sale.settings().terms.fits_partitions(partitions).map_err(invalid_sale)?;
    let now = open.sale.stored.load().spread.partitions;
    let refuse = |rule: String| Err(invalid_sale(Invalid::new("partitions", rule)));
    match app.node.grow(open, partitions, false).await? {
        Grown::Done | Grown::Same => Ok(()),
        Grown::Fewer => refuse(format!("a sale may only get more of them; this one has {now}")),
        Grown::TooOften => refuse(format!("this sale has grown {HOMES_MAX} times, and that is as often as one may")),
        Grown::Closed => Err(closed(open.sale.name.as_str())),
    }
}

fn closed(name: &str) -> Problem {
    Problem::new(StatusCode::CONFLICT, "sale_closed", format!("sale `{name}` is closed, for good; nothing was changed"))
}

fn reused(request_id: &str) -> Problem {
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "request_id_reused",
        format!("request_id `{request_id}` asked for another change before; a new change needs a new one"),
    )
    .field("request_id")
}

/// `GET /v1/sales/{sale}/changes`
pub async fn changes(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer<Json<ChangesPage>> {
    let open = open(&app, &name).await?;
    Ok(Json(changes::page(&app, &open, query.as_deref()).await?))
}

/// `POST /v1/sales/{sale}/stock`
pub async fn add_stock(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    deed: Deed,
    body: Bytes,
) -> Answer<Json<StockAdded>> {
    stock_added(&app, &name, &headers, &deed, &body).await.map(Json)
}

pub async fn stock_added(app: &App, name: &str, headers: &HeaderMap, deed: &Deed, body: &[u8]) -> Answer<StockAdded> {
    let request: AddStock = json::parse(body, "invalid_stock")?;
    deed.note(request.reason.as_deref(), Some(&request.request_id));
    let invalid = |field: &str, rule: String| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_stock", format!("{field}: {rule}")).field(field)
    };
    let sku = Sku::parse(request.sku).map_err(|error| invalid(error.field, error.rule))?;
    if request.units == 0 || request.units.unsigned_abs() > UNITS_MAX {
        return Err(invalid(
            "units",
            format!("must be 1 to {UNITS_MAX}, or negative to withdraw, got {}", request.units),
        ));
    }
    let id = &request.request_id;
    check_request_id(id).map_err(|error| invalid(error.field, error.rule))?;
    let note = changes::note("invalid_stock", headers, request.reason.as_deref())?;
    let open = open(app, name).await?;
    if request.units < 0 {
        // Partition 0 is where units are withdrawn: what is to go must be there.
        app.node.collect(&open, &sku, request.units.unsigned_abs()).await?;
    }
    let added = app.node.redis.add_stock(&open.head(), &sku, request.units, id, &note).await?;
    acknowledge(app, &open).await?;
    let (units, replayed) = match added {
        Restocked::Changed(units) => (units, false),
        Restocked::Duplicate(units) => (units, true),
        Restocked::Reused => {
            return Err(reused(id));
        }
        Restocked::Closed => return Err(closed(name)),
        Restocked::TooMany => return Err(invalid("units", format!("a SKU is loaded with at most {UNITS_MAX} units"))),
        Restocked::UnknownSku => {
            return Err(Problem::new(
                StatusCode::NOT_FOUND,
                "unknown_sku",
                format!("sale `{name}` has no SKU `{sku}` to withdraw from"),
            )
            .field("sku"));
        }
    };
    Ok(StockAdded { sku: sku.to_string(), units, request_id: request.request_id, replayed })
}

/// `GET /v1/sales/{sale}/audit[?wait_ms=]`
pub async fn audit(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer<Json<Report>> {
    let wait = orders::wait_of(&app, query.as_deref())?;
    audited(&app, &name, wait).await.map(Json)
}

pub async fn audited(app: &App, name: &str, wait: Duration) -> Answer<Report> {
    let open = open(app, name).await?;
    audit::audit(&app.node, &app.records, &open, wait).await.map_err(|error| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "audit_incomplete",
            format!("the audit could not read everything it compares: {error:#}. It changes nothing; ask again"),
        )
        .retry_after(2)
    })
}

/// `GET /v1/sales/{sale}/records[?after=GID&limit=N]`: finished orders in the byte order of their gids.
pub async fn records(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer<Json<RecordsPage>> {
    let invalid = |field: &str, rule: String| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_query", format!("{field}: {rule}")).field(field)
    };
    let (mut after, mut limit) = (None, RECORDS_PAGE_MAX);
    for (key, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        match key.as_ref() {
            "after" if value.is_empty() => {}
            "after" => {
                let gid: Gid = value.parse().map_err(|error: Invalid| invalid("after", error.rule))?;
                after = Some(gid.to_string());
            }
            "limit" => {
                limit = value
                    .parse()
                    .ok()
                    .filter(|limit| (1..=RECORDS_PAGE_MAX).contains(limit))
                    .ok_or_else(|| invalid("limit", format!("must be 1 to {RECORDS_PAGE_MAX}, got `{value}`")))?;
            }
            other => return Err(invalid(other, "is not a parameter of this page: after, limit".into())),
        }
    }
    let sale = SaleName::parse(&name).map_err(|_| Problem::unknown_sale(&name))?;
    let sink = app.records.sink().await.map_err(|error| Problem::records_away(&error))?;
    let page = sink.page(&sale, after.as_deref(), limit).await.map_err(|error| Problem::records_away(&error))?;
    let next = (page.len() == limit as usize).then(|| page.last().map(|last| last.gid.to_string())).flatten();
    Ok(Json(RecordsPage { records: page.into_iter().map(view_of_record).collect(), next }))
}
