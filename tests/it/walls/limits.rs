//! Bounds, one below and one above (T04, T07, T08, T15). What is refused on every route for its form is in
//! `dtm_http/malformed.rs` and `http/hostile.rs`.

use crate::support::app::{App, AppOptions};
use crate::support::shop::Shop;
use proptest::prelude::*;
use rushline::domain::trans::check::{
    HEADERS_MAX, PAYLOAD_BYTES_MAX, REQUEST_TIMEOUT_S_MAX, RETRY_LIMIT_MAX, SECONDS_MAX, STEPS_MAX, URL_BYTES_MAX,
};
use rushline::domain::trans::timing::{backed_off_ms, base_interval_ms, request_timeout_ms};
use rushline::domain::trans::{Global, Limits, Pass, Refusal, TransRequest, next_step};
use rushline::server::wire::PlaceOrder;
use serde_json::{Value, json};

const NOW_MS: u64 = 1_795_000_000_000;

fn begin(body: &Value) -> Result<Global, Refusal> {
    let request = TransRequest::from_json(body.to_string().as_bytes())?;
    request.into_global(NOW_MS, &Limits::default(), &|_| None)
}

fn saga(steps: usize) -> Value {
    let step = json!({ "action": "http://h/a", "compensate": "" });
    json!({ "gid": "g", "trans_type": "saga", "steps": vec![step; steps], "payloads": vec![""; steps] })
}

fn with(mut body: Value, field: &str, value: Value) -> Value {
    body[field] = value;
    body
}

#[test]
fn a_bound_is_the_last_that_is_taken() {
    let url = |length: usize| json!(format!("http://h/{}", "x".repeat(length - 9)));
    let query = |length: usize| with(json!({ "gid": "m", "trans_type": "msg" }), "query_prepared", url(length));
    let headers = |count: usize| -> Value {
        (0..count).map(|n| (format!("x-{n}"), json!(""))).collect::<serde_json::Map<_, _>>().into()
    };
    let deep = |depth: usize| -> Value {
        // The object around it is one.
        let nested = (1..depth).fold(json!(1), |inner, _| json!([inner]));
        with(saga(1), "unknown", nested)
    };
    for (what, good, bad) in [
        ("steps", saga(STEPS_MAX), saga(STEPS_MAX + 1)),
        ("gid", with(saga(1), "gid", json!("g".repeat(128))), with(saga(1), "gid", json!("g".repeat(129)))),
        ("query_prepared", query(URL_BYTES_MAX), query(URL_BYTES_MAX + 1)),
        (
            "payloads",
            with(saga(1), "payloads", json!(["x".repeat(PAYLOAD_BYTES_MAX)])),
            with(saga(1), "payloads", json!(["x".repeat(PAYLOAD_BYTES_MAX + 1)])),
        ),
        (
            "branch_headers",
            with(saga(1), "branch_headers", headers(HEADERS_MAX)),
            with(saga(1), "branch_headers", headers(HEADERS_MAX + 1)),
        ),
        ("body", deep(32), deep(33)),
        (
            "timeout_to_fail",
            with(saga(1), "timeout_to_fail", json!(SECONDS_MAX)),
            with(saga(1), "timeout_to_fail", json!(SECONDS_MAX + 1)),
        ),
        (
            "request_timeout",
            with(saga(1), "request_timeout", json!(REQUEST_TIMEOUT_S_MAX)),
            with(saga(1), "request_timeout", json!(REQUEST_TIMEOUT_S_MAX + 1)),
        ),
        (
            "retry_limit",
            with(saga(1), "retry_limit", json!(RETRY_LIMIT_MAX)),
            with(saga(1), "retry_limit", json!(RETRY_LIMIT_MAX + 1)),
        ),
    ] {
        assert!(begin(&good).is_ok(), "{what}: {}", begin(&good).unwrap_err());
        let refused = begin(&bad).unwrap_err().to_string();
        assert!(refused.starts_with(&format!("{what}: ")), "{what}: {refused}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever number a client sends: it is refused with its name, or every time that follows from it lies in its range.
    #[test]
    fn no_number_of_a_client_is_a_weapon(
        timeout_to_fail in number(), request_timeout in number(), retry_interval in number(), retry_limit in number(), passes in 0..80u32,
    ) {
        let numbers = [
            ("timeout_to_fail", timeout_to_fail), ("request_timeout", request_timeout),
            ("retry_interval", retry_interval), ("retry_limit", retry_limit),
        ];
        for trans_type in ["saga", "tcc", "msg", "workflow"] {
            let mut body = with(saga(1), "trans_type", json!(trans_type));
            numbers.iter().for_each(|(name, number)| body[*name] = json!(number));
            let limits = Limits::default();
            match begin(&body) {
                Err(refused) => {
                    let said = refused.to_string();
                    prop_assert!(numbers.iter().any(|(name, _)| said.starts_with(&format!("{name}: "))), "{}", said);
                }
                Ok(mut global) => {
                    let options = global.options.clone();
                    prop_assert!((1..=REQUEST_TIMEOUT_S_MAX * 1000).contains(&request_timeout_ms(&options, &limits)));
                    prop_assert!((1..=SECONDS_MAX * 1000).contains(&base_interval_ms(&options, &limits)), "no spinning");
                    for _ in 0..passes {
                        global.interval_ms = backed_off_ms(&global, &limits);
                    }
                    prop_assert!((1..=SECONDS_MAX * 1000).contains(&global.interval_ms));
                    prop_assert!(global.due_ms(&limits).is_none_or(|due| due <= NOW_MS + 2 * SECONDS_MAX * 1000));
                    let _ = next_step(&global, &mut Pass::default(), u64::MAX, &limits);
                }
            }
        }
    }

    /// Quantities are 1 to their bound, whatever is written there.
    #[test]
    fn no_quantity_adds_stock(quantity in prop_oneof![
        number().prop_map(|number| number.to_string()),
        any::<u64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| number.to_string()),
        Just("9007199254740993".to_owned()), Just("1e3".to_owned()), Just("-0".to_owned()), Just("4294967297".to_owned()),
    ]) {
        let body = format!(r#"{{"buyer":"u","items":[{{"sku":"s","quantity":{quantity}}}]}}"#);
        if let Ok(order) = serde_json::from_str::<PlaceOrder<'_>>(&body)
            && let Ok(order) = order.into_order(None, None)
        {
            prop_assert_eq!(order.items[0].quantity.to_string(), quantity);
            prop_assert!((1..=1_000_000).contains(&order.items[0].quantity), "{}", order.items[0].quantity);
        }
    }
}

/// Mostly where something ends.
fn number() -> impl Strategy<Value = i64> {
    let edges = [0, 3600, RETRY_LIMIT_MAX as i64, SECONDS_MAX as i64, i64::from(u32::MAX), 1 << 53, i64::MAX, i64::MIN];
    prop_oneof![
        2 => (prop::sample::select(edges.to_vec()), -1..=1_i64).prop_map(|(edge, by)| edge.saturating_add(by)),
        2 => 0..5_000_i64,
        1 => any::<i64>(),
    ]
}

#[tokio::test]
async fn stock_and_payloads_have_their_bounds() {
    let app = App::start(AppOptions::default()).await;
    let shop = Shop::start().await;
    let sale = |name: &str, units: Value| json!({ "sale": name, "items": [{"sku": "sku-1", "units": units}], "durability": "memory", "order_endpoint": shop.endpoint() });
    let most = 1_000_000_000_000_u64;
    for (n, units) in [json!(-1), json!(most + 1), json!(1_u64 << 53), json!(u64::MAX), json!(1.5), json!("1")]
        .into_iter()
        .enumerate()
    {
        let reply = app.post("/v1/sales", &[], &sale(&format!("bad{n}"), units.clone())).await;
        assert_eq!(reply.status, 422, "{units}: {}", reply.json);
    }
    app.create_sale(&sale("s", json!(most))).await;
    for units in [json!(most + 1), json!(i64::MIN), json!(i64::MAX), json!(0)] {
        let body = json!({ "sku": "sku-1", "units": units, "request_id": format!("r{units}") });
        let reply = app.post("/v1/sales/s/stock", &[], &body).await;
        let stock = app.get("/v1/sales/s").await.json["items"][0].clone();
        assert!(
            reply.status >= 400 || stock["loaded"].as_u64().is_some_and(|loaded| loaded <= most),
            "{units}: {stock}"
        );
        assert_eq!(stock["loaded"], stock["available"], "{units}: {stock}");
    }
    app.create_sale(&sale("t", json!(9))).await;
    let nested = |depth: usize| (0..depth).fold(json!(1), |inner, _| json!([inner]));
    let order =
        |depth: usize| json!({"buyer": "u1", "items": [{"sku": "sku-1", "quantity": 1}], "payload": nested(depth)});
    let refused = app.order("t", "", &order(33)).await;
    assert_eq!((refused.status, &refused.json["field"]), (422, &json!("payload")), "{}", refused.json);
    assert_eq!(app.order("t", "", &order(32)).await.status, 201);
}
