//! The description of the HTTP interface (OpenAPI 3.1) tells the truth: it has every route and no other, and what a real
//! server answers is what it says.

use crate::support::app::{App, AppOptions};
use crate::support::shop::Shop;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const ROUTES: &str = include_str!("../../src/server/mod.rs");

fn description() -> Value {
    serde_json::from_str(include_str!("../../src/server/openapi.json")).unwrap()
}

/// `get /v1/sales` and the like, as the router has them; orders are placed before the router.
fn routed() -> BTreeSet<String> {
    let routes = ROUTES.split(".route(").skip(1).filter_map(|route| {
        let (path, handlers) = route.split_once(", ")?;
        let path = if path == "METRICS_OF_DTM" { "/api/metrics" } else { path.trim().trim_matches('"') };
        let handlers = handlers.split("\n        .").next()?;
        let methods = ["get", "post", "patch", "delete"];
        let known = methods.into_iter().filter(|method| handlers.contains(&format!("{method}(")));
        Some(known.map(|method| format!("{method} {path}")).collect::<Vec<_>>())
    });
    routes.flatten().chain(["post /v1/sales/{sale}/orders".to_owned()]).collect()
}

#[test]
fn every_route_is_described() {
    let description = description();
    let paths = description["paths"].as_object().unwrap();
    let described = paths
        .iter()
        .flat_map(|(path, methods)| methods.as_object().unwrap().keys().map(move |method| format!("{method} {path}")));
    assert_eq!(described.collect::<BTreeSet<_>>(), routed());
}

/// What of `value` is not as `schema` says, with its place.
fn differences(root: &Value, schema: &Value, value: &Value, place: &str, found: &mut Vec<String>) {
    if let Some(name) = schema["$ref"].as_str() {
        let target = root.pointer(name.trim_start_matches('#')).unwrap_or_else(|| panic!("{name} is not there"));
        return differences(root, target, value, place, found);
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        let fits = |choice: &Value| {
            let mut none = Vec::new();
            differences(root, choice, value, place, &mut none);
            none.is_empty()
        };
        if !choices.iter().any(fits) {
            found.push(format!("{place}: {value} is none of {}", schema["anyOf"]));
        }
        return;
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => return, // anything
    };
    let fits = types.iter().any(|kind| match *kind {
        "null" => value.is_null(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{place}: nobody knows the type {other}"),
    });
    if !fits {
        found.push(format!("{place}: {value} is no {types:?}"));
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        found.push(format!("{place}: {value} is none of {words:?}"));
    }
    for (at, item) in value.as_array().into_iter().flatten().enumerate() {
        differences(root, &schema["items"], item, &format!("{place}[{at}]"), found);
    }
    let Some(fields) = value.as_object() else { return };
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            found.push(format!("{place}.{name} is missing"));
        }
    }
    for (name, inner) in fields {
        match (&schema["properties"][name], &schema["additionalProperties"]) {
            (Value::Null, Value::Bool(false)) => found.push(format!("{place}.{name} is not described")),
            (Value::Null, other) if other.is_object() => {
                differences(root, other, inner, &format!("{place}.{name}"), found);
            }
            (Value::Null, _) => {}
            (described, _) => differences(root, described, inner, &format!("{place}.{name}"), found),
        }
    }
}

/// Asks, and compares the answer with what is said of this path, method and status.
async fn check(app: &App, method: &str, template: &str, path: &str, body: Option<Value>, status: u16) -> Value {
    let root = description();
    let asked = app.http().ask(method.to_uppercase().parse().unwrap(), path, &[], body.as_ref()).await.unwrap();
    assert_eq!(asked.status, status, "{method} {path}: {}", asked.json);
    let responses = &root["paths"][template][method]["responses"];
    let response = responses.get(status.to_string()).unwrap_or(&responses["default"]);
    let response = match response["$ref"].as_str() {
        Some(name) => root.pointer(name.trim_start_matches('#')).unwrap(),
        None => response,
    };
    let kind = if status < 400 { "application/json" } else { "application/problem+json" };
    let schema = &response["content"][kind]["schema"];
    assert!(!schema.is_null(), "{method} {template} {status} is not described");
    let mut found = Vec::new();
    differences(&root, schema, &asked.json, "", &mut found);
    assert!(found.is_empty(), "{method} {path}: {found:#?}\n{}", asked.json);
    if let Some(body) = &body {
        let schema = &root["paths"][template][method]["requestBody"]["content"]["application/json"]["schema"];
        differences(&root, schema, body, "", &mut found);
        assert!(found.is_empty() || status == 422, "the body of {method} {template}: {found:#?}");
    }
    asked.json
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_as_they_are_described() {
    let (app, shop) = (App::start(AppOptions::default()).await, Shop::start().await);
    let sale = |name: &str| {
        json!({"sale": name, "items": [{"sku": "a", "units": 5}], "durability": "memory", "limit_per_buyer": 2,
            "order_endpoint": {"url": shop.url()}})
    };
    let buy = json!({"buyer": "u1", "items": [{"sku": "a", "quantity": 1}], "payload": {"x": 1}});
    check(&app, "post", "/v1/sales", "/v1/sales", Some(sale("s")), 201).await;
    check(&app, "post", "/v1/sales", "/v1/sales", Some(json!({"sale": "x"})), 422).await;
    let orders = "/v1/sales/{sale}/orders";
    let placed = check(&app, "post", orders, "/v1/sales/s/orders?wait_ms=5000", Some(buy.clone()), 201).await;
    let gid = placed["gid"].as_str().unwrap();
    for (template, path, status) in [
        ("/v1/sales", "/v1/sales".to_owned(), 200),
        ("/v1/sales/{sale}", "/v1/sales/s".into(), 200),
        ("/v1/sales/{sale}", "/v1/sales/none".into(), 404),
        ("/v1/sales/{sale}/audit", "/v1/sales/s/audit?wait_ms=5000".into(), 200),
        (orders, "/v1/sales/s/orders".into(), 200),
        (orders, "/v1/sales/s/orders?limit=0".into(), 422),
        ("/v1/sales/{sale}/lost", "/v1/sales/s/lost".into(), 200),
        ("/v1/sales/{sale}/records", "/v1/sales/s/records".into(), 200),
        ("/v1/sales/{sale}/buyers/{buyer}", "/v1/sales/s/buyers/u1".into(), 200),
        ("/v1/orders/{gid}", format!("/v1/orders/{gid}"), 200),
        ("/v1/orders/{gid}/why", format!("/v1/orders/{gid}/why"), 200),
        ("/v1/overview", "/v1/overview".into(), 200),
        ("/v1/whoami", "/v1/whoami".into(), 200),
        ("/readyz", "/readyz".into(), 200),
    ] {
        check(&app, "get", template, &path, None, status).await;
    }
    let change = json!({"limit_per_buyer": null, "request_id": "r1", "reason": "plenty"});
    check(&app, "patch", "/v1/sales/{sale}", "/v1/sales/s", Some(change), 200).await;
    check(&app, "post", "/v1/sales/{sale}/repair", "/v1/sales/s/repair", None, 200).await;
    let stock = json!({"sku": "a", "units": 3, "request_id": "r2"});
    check(&app, "post", "/v1/sales/{sale}/stock", "/v1/sales/s/stock", Some(stock), 200).await;
    check(&app, "get", "/v1/sales/{sale}/changes", "/v1/sales/s/changes", None, 200).await;
    let back = json!({"items": [{"sku": "a", "quantity": 1}], "request_id": "r3"});
    check(&app, "post", "/v1/orders/{gid}/return", &format!("/v1/orders/{gid}/return"), Some(back), 200).await;

    check(&app, "post", "/v1/orders/{gid}/retry", &format!("/v1/orders/{gid}/retry"), None, 409).await;

    let mut held = sale("held");
    held["reserve_for_ms"] = json!(600_000);
    check(&app, "post", "/v1/sales", "/v1/sales", Some(held), 201).await;
    let placed = check(&app, "post", orders, "/v1/sales/held/orders?wait_ms=5000", Some(buy), 201).await;
    let gid = placed["gid"].as_str().unwrap();
    let more = json!({"reserve_for_ms": 700_000});
    check(&app, "post", "/v1/orders/{gid}/extend", &format!("/v1/orders/{gid}/extend"), Some(more), 200).await;
    check(&app, "post", "/v1/orders/{gid}/confirm", &format!("/v1/orders/{gid}/confirm"), Some(json!({})), 200).await;
    check(&app, "post", "/v1/orders/{gid}/cancel", &format!("/v1/orders/{gid}/cancel"), Some(json!({})), 409).await;

    let submitted = json!({"gid": "t1", "trans_type": "tcc", "timeout_to_fail": 600});
    assert_eq!(app.post("/api/dtmsvr/prepare", &[], &submitted).await.status, 200);
    check(&app, "get", "/v1/transactions", "/v1/transactions", None, 200).await;
    check(&app, "get", "/v1/transactions/{gid}", "/v1/transactions/t1", None, 200).await;
    check(&app, "get", "/v1/transactions/{gid}", "/v1/transactions/t2", None, 404).await;
    let why = Some(json!({"reason": "by hand"}));
    check(&app, "post", "/v1/transactions/{gid}/retry", "/v1/transactions/t1/retry", why.clone(), 200).await;
    check(&app, "post", "/v1/transactions/{gid}/stop", "/v1/transactions/t1/stop", why.clone(), 200).await;
    check(&app, "post", "/v1/transactions/{gid}/stop", "/v1/transactions/t1/stop", why, 409).await;
}
