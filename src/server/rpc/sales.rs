//! `rushline.v1.Sales`: for those who run sales. Requests become the JSON of the HTTP interface, which checks them.

use super::deadline::Deadline;
use super::{Answer, answer, deed_of, status, words};
use crate::proto::rushline::v1::sales_server::Sales;
use crate::proto::rushline::v1::update_sale_request::Clear;
use crate::proto::rushline::v1::{
    AddStockReply, AddStockRequest, AuditReport, AuditSaleRequest, CreateSaleRequest, GetSaleRequest, ListChangesReply,
    ListChangesRequest, ListSalesReply, ListSalesRequest, OrderEndpoint, Sale, SwitchSaleRequest, UpdateSaleRequest,
};
use crate::server::problem::Problem;
use crate::server::{App, changes, sales};
use http::StatusCode;
use prost_types::Timestamp;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request};

pub struct Door {
    app: Arc<App>,
}

/// A body of the HTTP interface.
type Body = Map<String, Value>;

#[tonic::async_trait]
impl Sales for Door {
    async fn create_sale(&self, request: Request<CreateSaleRequest>) -> Answer<Sale> {
        let deadline = Deadline::of(request.metadata());
        let deed = deed_of(request.extensions(), &request.get_ref().sale);
        let body = new_sale(request.into_inner()).map_err(|problem| status::of(&problem))?;
        let work = Box::pin(async {
            let (_, view) = sales::created(&self.app, &deed, &written(body)).await?;
            Ok(words::sale(view))
        });
        answer(deadline, work).await
    }

    async fn get_sale(&self, request: Request<GetSaleRequest>) -> Answer<Sale> {
        let deadline = Deadline::of(request.metadata());
        let name = request.into_inner().sale;
        let work = Box::pin(async {
            let open = sales::open(&self.app, &name).await?;
            sales::view(&self.app, &open).await.map(words::sale)
        });
        answer(deadline, work).await
    }

    async fn list_sales(&self, request: Request<ListSalesRequest>) -> Answer<ListSalesReply> {
        let work = Box::pin(async {
            let all = sales::all(&self.app).await?;
            Ok(ListSalesReply { sales: all.into_iter().map(words::sale).collect() })
        });
        answer(Deadline::of(request.metadata()), work).await
    }

    async fn update_sale(&self, request: Request<UpdateSaleRequest>) -> Answer<Sale> {
        let (metadata, extensions, message) = request.into_parts();
        let sale = message.sale.clone();
        let body = change(message).map_err(|problem| status::of(&problem))?;
        self.update(metadata, &extensions, &sale, body).await
    }

    async fn pause_sale(&self, request: Request<SwitchSaleRequest>) -> Answer<Sale> {
        self.switch(request, "paused").await
    }

    async fn resume_sale(&self, request: Request<SwitchSaleRequest>) -> Answer<Sale> {
        self.switch(request, "open").await
    }

    async fn close_sale(&self, request: Request<SwitchSaleRequest>) -> Answer<Sale> {
        self.switch(request, "closed").await
    }

    async fn add_stock(&self, request: Request<AddStockRequest>) -> Answer<AddStockReply> {
        let (metadata, extensions, AddStockRequest { sale, sku, units, request_id, reason }) = request.into_parts();
        let (deadline, deed) = (Deadline::of(&metadata), deed_of(&extensions, &sale));
        let mut body = Body::new();
        body.insert("sku".into(), sku.into());
        body.insert("units".into(), units.into());
        body.insert("request_id".into(), request_id.into());
        put_text(&mut body, "reason", reason);
        let work = Box::pin(async {
            let added = sales::stock_added(&self.app, &sale, &metadata.into_headers(), &deed, &written(body)).await?;
            Ok(words::stock_added(added))
        });
        answer(deadline, work).await
    }

    async fn list_changes(&self, request: Request<ListChangesRequest>) -> Answer<ListChangesReply> {
        let deadline = Deadline::of(request.metadata());
        let ListChangesRequest { sale, limit } = request.into_inner();
        let work = Box::pin(async {
            let open = sales::open(&self.app, &sale).await?;
            let limit = match limit {
                0 => changes::PAGE_DEFAULT,
                limit => changes::limit_of(&limit.to_string())?,
            };
            changes::last(&self.app, &open, limit).await.map(words::changes)
        });
        answer(deadline, work).await
    }

    async fn audit_sale(&self, request: Request<AuditSaleRequest>) -> Answer<AuditReport> {
        let deadline = Deadline::of(request.metadata());
        let AuditSaleRequest { sale, wait_ms } = request.into_inner();
        let wait = deadline.wait(wait_ms, self.app.settings.wait_max);
        answer(deadline, Box::pin(async { sales::audited(&self.app, &sale, wait).await.map(words::report) })).await
    }
}

impl Door {
    pub fn new(app: Arc<App>) -> Self {
        Self { app }
    }

    async fn switch(&self, request: Request<SwitchSaleRequest>, to: &str) -> Answer<Sale> {
        let (metadata, extensions, SwitchSaleRequest { sale, request_id, reason }) = request.into_parts();
        let mut body = Body::new();
        body.insert("status".into(), to.into());
        put_text(&mut body, "request_id", request_id);
        put_text(&mut body, "reason", reason);
        self.update(metadata, &extensions, &sale, body).await
    }

    async fn update(&self, metadata: MetadataMap, extensions: &Extensions, sale: &str, body: Body) -> Answer<Sale> {
        let (deadline, deed) = (Deadline::of(&metadata), deed_of(extensions, sale));
        let work = async {
            sales::updated(&self.app, sale, &metadata.into_headers(), &deed, &written(body)).await.map(words::sale)
        };
        answer(deadline, work).await
    }
}

fn written(body: Body) -> Vec<u8> {
    Value::from(body).to_string().into_bytes()
}

/// An empty text is one that was not said.
fn put_text(body: &mut Body, name: &str, text: String) {
    if !text.is_empty() {
        body.insert(name.into(), text.into());
    }
}

fn put<T: Into<Value>>(body: &mut Body, name: &str, value: Option<T>) {
    if let Some(value) = value {
        body.insert(name.into(), value.into());
    }
}

fn put_time(body: &mut Body, name: &str, at: Option<Timestamp>) -> Result<(), Problem> {
    let Some(at) = at else { return Ok(()) };
    let at = words::time_named(&at).ok_or_else(|| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_sale", format!("{name}: is no time")).field(name)
    })?;
    body.insert(name.into(), at.to_string().into());
    Ok(())
}

fn endpoint(endpoint: OrderEndpoint) -> Value {
    let mut body = Body::new();
    body.insert("url".into(), endpoint.url.into());
    put(&mut body, "timeout_ms", Some(endpoint.timeout_ms).filter(|ms| *ms > 0));
    put(&mut body, "max_concurrency", Some(endpoint.max_concurrency).filter(|calls| *calls > 0));
    put(&mut body, "mode", endpoint.bulk.then_some("bulk"));
    put_text(&mut body, "end_url", endpoint.end_url);
    put_text(&mut body, "count_url", endpoint.count_url);
    put_text(&mut body, "list_url", endpoint.list_url);
    body.into()
}

fn new_sale(request: CreateSaleRequest) -> Result<Body, Problem> {
    let mut body = Body::new();
    body.insert("sale".into(), request.sale.into());
    let items = request.items.into_iter().map(|load| json!({ "sku": load.sku, "units": load.units }));
    body.insert("items".into(), items.collect());
    put(&mut body, "limit_per_buyer", request.limit_per_buyer);
    put_time(&mut body, "opens_at", request.opens_at)?;
    put_time(&mut body, "closes_at", request.closes_at)?;
    put_text(&mut body, "durability", request.durability);
    put(&mut body, "partitions", Some(request.partitions).filter(|partitions| *partitions > 0));
    put(&mut body, "order_endpoint", request.order_endpoint.map(endpoint));
    put(&mut body, "webhook", request.webhook.map(|webhook| json!({ "url": webhook.url, "secret": webhook.secret })));
    put(&mut body, "reserve_for_ms", request.reserve_for_ms);
    put(&mut body, "reserve_max_ms", request.reserve_max_ms);
    let limits = request
        .limits
        .into_iter()
        .map(|limit| json!({ "name": limit.name, "by": limit.by, "skus": limit.skus, "units": limit.units }));
    body.insert("limits".into(), limits.collect());
    body.insert("returns_free_limits".into(), request.returns_free_limits.into());
    Ok(body)
}

fn change(request: UpdateSaleRequest) -> Result<Body, Problem> {
    let mut body = Body::new();
    for clear in request.clear() {
        let name = match clear {
            Clear::LimitPerBuyer => "limit_per_buyer",
            Clear::OpensAt => "opens_at",
            Clear::ClosesAt => "closes_at",
            Clear::Webhook => "webhook",
            Clear::Unspecified => continue,
        };
        body.insert(name.into(), Value::Null);
    }
    put(&mut body, "limit_per_buyer", request.limit_per_buyer);
    put_time(&mut body, "opens_at", request.opens_at)?;
    put_time(&mut body, "closes_at", request.closes_at)?;
    put(&mut body, "order_endpoint", request.order_endpoint.map(endpoint));
    put(&mut body, "partitions", request.partitions);
    put(&mut body, "webhook", request.webhook.map(|webhook| json!({ "url": webhook.url, "secret": webhook.secret })));
    put_text(&mut body, "request_id", request.request_id);
    put_text(&mut body, "reason", request.reason);
    Ok(body)
}
