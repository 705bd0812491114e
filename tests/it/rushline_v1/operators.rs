//! Sales by those who run them: created, changed, restocked, paused and closed, with who and why in the log.

use super::*;
use rushline::proto::rushline::v1::update_sale_request::Clear;
use rushline::proto::rushline::v1::{
    AddStockRequest, AuditSaleRequest, Limit, ListChangesRequest, ListSalesRequest, SaleStatus, SwitchSaleRequest,
    UpdateSaleRequest, Webhook,
};
use serde_json::json;
use tonic::Request;

fn by<T>(who: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("rushline-operator", who.parse().unwrap());
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_is_created_as_over_http() {
    let stage = Stage::new().await;
    let mut sales = stage.sales.clone();
    let whole = stage.sale(|sale| {
        sale.limit_per_buyer = Some(3);
        sale.opens_at = Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 500_000_000 });
        sale.durability = "memory".into();
        sale.reserve_for_ms = Some(60_000);
        sale.limits = vec![Limit { by: "card".into(), units: 2, ..Default::default() }];
        sale.webhook = Some(Webhook { url: stage.shop.url(), secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into() });
    });
    let made = sales.create_sale(whole.clone()).await.unwrap().into_inner();
    assert_eq!(sales.create_sale(whole.clone()).await.unwrap().into_inner(), made, "the same again");
    let other = CreateSaleRequest { limit_per_buyer: Some(4), ..whole };
    assert_eq!(reason(sales.create_sale(other).await), (Code::AlreadyExists, "sale_exists".into()));
    let shown = stage.app.get("/v1/sales/s").await.json;
    assert_eq!(shown["opens_at"], "2023-11-14T22:13:20.5Z", "{shown}");
    assert_eq!((&shown["limit_per_buyer"], &shown["durability"]), (&json!(3), &json!("memory")), "{shown}");
    assert_eq!((&shown["reserve_for_ms"], &shown["reserve_max_ms"]), (&json!(60_000), &json!(120_000)), "{shown}");
    assert_eq!(shown["limits"], json!([{"by": "card", "units": 2}]), "{shown}");
    assert_eq!((made.limits[0].by.as_str(), made.reserve_max_ms), ("card", Some(120_000)));
    assert_eq!((made.status(), made.webhook_url.as_str()), (SaleStatus::Open, stage.shop.url().as_str()));
    let endpoint = made.order_endpoint.clone().unwrap();
    assert_eq!((endpoint.timeout_ms, endpoint.max_concurrency), (3_000, 64), "what was not said has its default");
    let all = sales.list_sales(ListSalesRequest {}).await.unwrap().into_inner().sales;
    assert_eq!(all, [made]);
    for (wrong, code) in [
        (stage.sale(|sale| sale.sale = "a.b".into()), "invalid_sale"),
        (stage.sale(|sale| sale.order_endpoint = None), "invalid_sale"),
        (stage.sale(|sale| sale.durability = "replica:3".into()), "durability_unavailable"),
    ] {
        assert_eq!(reason(sales.create_sale(wrong).await), (Code::InvalidArgument, code.into()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_is_changed_once_for_each_request() {
    let stage = Stage::new().await;
    stage.create(|sale| sale.limit_per_buyer = Some(3)).await;
    let mut sales = stage.sales.clone();
    let switch = |id: &str| {
        let (request_id, reason) = (id.to_owned(), "the shop is slow".to_owned());
        by("Ada", SwitchSaleRequest { sale: SALE.into(), request_id, reason })
    };
    assert_eq!(sales.pause_sale(switch("c1")).await.unwrap().into_inner().status(), SaleStatus::Paused);
    let mut resume = switch("c2");
    resume.get_mut().reason.clear();
    assert_eq!(sales.resume_sale(resume).await.unwrap().into_inner().status(), SaleStatus::Open);
    // Said again, on either door: it has happened.
    assert_eq!(sales.pause_sale(switch("c1")).await.unwrap().into_inner().status(), SaleStatus::Open);
    let by_http = stage.app.patch("/v1/sales/s", &json!({"status": "paused", "request_id": "c1"})).await;
    assert_eq!((by_http.status, &by_http.json["status"]), (200, &json!("open")), "{}", by_http.json);
    assert_eq!(reason(sales.close_sale(switch("c1")).await), (Code::AlreadyExists, "request_id_reused".into()));

    let add = |units, id: &str| AddStockRequest {
        sale: SALE.into(),
        sku: "a".into(),
        units,
        request_id: id.into(),
        ..Default::default()
    };
    for replayed in [false, true] {
        let added = sales.add_stock(by("Ada", add(5, "s1"))).await.unwrap().into_inner();
        assert_eq!((added.units, added.replayed), (5, replayed));
    }
    let by_http = json!({"sku": "a", "units": 5, "request_id": "s1"});
    assert_eq!(stage.app.post("/v1/sales/s/stock", &[], &by_http).await.json["replayed"], true);
    assert_eq!(sales.add_stock(add(-100, "s2")).await.unwrap().into_inner().units, -15, "as many as there are");
    assert_eq!(reason(sales.add_stock(add(0, "s3")).await), (Code::InvalidArgument, "invalid_stock".into()));

    let update = UpdateSaleRequest {
        sale: SALE.into(),
        closes_at: Some(prost_types::Timestamp { seconds: 4_102_444_800, nanos: 0 }),
        clear: vec![Clear::LimitPerBuyer.into()],
        ..Default::default()
    };
    let changed = sales.update_sale(update).await.unwrap().into_inner();
    assert_eq!((changed.limit_per_buyer, changed.closes_at.unwrap().seconds), (None, 4_102_444_800));

    let log =
        sales.list_changes(ListChangesRequest { sale: SALE.into(), limit: 0 }).await.unwrap().into_inner().changes;
    let told: Vec<_> = log.iter().rev().map(|change| (change.request_id.as_str(), change.units)).collect();
    assert_eq!(told, [("c1", None), ("c2", None), ("s1", Some(5)), ("s2", Some(-15)), ("", None)]);
    let first = log.last().unwrap();
    assert_eq!(
        (first.who.as_str(), first.why.as_str(), first.change.as_str()),
        ("Ada", "the shop is slow", r#"{"status":"paused"}"#)
    );

    let report = AuditSaleRequest { sale: SALE.into(), wait_ms: 20_000 };
    let report = sales.audit_sale(report).await.unwrap().into_inner();
    assert!(report.settled && report.drift == 0, "{report:?}");
    assert_eq!(sales.close_sale(switch("c9")).await.unwrap().into_inner().status(), SaleStatus::Closed);
    assert_eq!(reason(sales.resume_sale(switch("c10")).await), (Code::FailedPrecondition, "sale_closed".into()));
}
