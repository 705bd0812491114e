//! A buyer's token for some sales is no key to others, nor to what they hold.

use super::{Tokens, ask_as};
use crate::support::app::App;
use crate::support::shop::Shop;
use rushline::access::tokens::Token;
use rushline::access::{Role, Roles};
use rushline::proto::rushline::v1::orders_client::OrdersClient;
use rushline::proto::rushline::v1::place_orders_reply::result::Result as Said;
use rushline::proto::rushline::v1::{
    CancelOrderRequest, ConfirmOrderRequest, ExtendOrderRequest, GetOrderRequest, Item, PlaceOrderRequest,
    PlaceOrdersRequest, WatchOrderRequest,
};
use serde_json::json;
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_one_sale_does_nothing_in_another() {
    let tokens = Tokens::new();
    let (secret, narrow) =
        Token::new("narrow", Roles::of(&[Role::Buyer]), vec!["nov22".into(), "spring-*".into()]).unwrap();
    let options = tokens.options().setting("security.tokens", format!("{},{}", tokens.setting, narrow.line()));
    let (app, shop) = (App::start(options).await, Shop::start().await);
    let (operator, narrow) = (tokens.bearer(Role::Operator), format!("Bearer {secret}"));
    for sale in ["nov22", "spring-1", "dec"] {
        let body = json!({"sale": sale, "items": [{"sku": "a", "units": 5}], "durability": "memory",
            "order_endpoint": {"url": shop.url()}, "reserve_for_ms": 600_000});
        assert_eq!(ask_as(&app, &operator, "POST", "/v1/sales", Some(&body)).await.status, 201);
    }
    let buy = json!({"buyer": "u1", "items": [{"sku": "a", "quantity": 1}]});
    for sale in ["nov22", "spring-1"] {
        let placed = ask_as(&app, &narrow, "POST", &format!("/v1/sales/{sale}/orders"), Some(&buy)).await;
        assert_eq!(placed.status, 201, "{}", placed.json);
        let gid = placed.gid().unwrap();
        assert_eq!(ask_as(&app, &narrow, "GET", &format!("/v1/orders/{gid}"), None).await.status, 200);
    }
    let refused = ask_as(&app, &narrow, "POST", "/v1/sales/dec/orders", Some(&buy)).await;
    assert_eq!((refused.status, refused.code()), (403, "other_sale"));
    let placed = ask_as(&app, &operator, "POST", "/v1/sales/dec/orders", Some(&buy)).await;
    let theirs = placed.gid().unwrap().to_owned();
    // An order that is there and one that is not look alike, however they are spelled.
    let spelled = theirs.replacen("dec", "%64ec", 1);
    for gid in [theirs.as_str(), "dec.0.1-0.0", &spelled, "x"] {
        for (method, what) in [("GET", ""), ("GET", "/events"), ("POST", "/confirm"), ("POST", "/cancel")] {
            let answer = ask_as(&app, &narrow, method, &format!("/v1/orders/{gid}{what}"), None).await;
            assert_eq!((answer.status, answer.code()), (403, "other_sale"), "{method} {gid}{what}");
        }
    }
    assert_eq!(ask_as(&app, &operator, "GET", "/v1/sales/dec", None).await.json["items"][0]["reserved"], 1);
}

/// Over gRPC the sale stands in the message, so it is asked about later, and by another hand.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_one_sale_does_nothing_in_another_over_grpc() {
    let tokens = Tokens::new();
    let (secret, narrow) = Token::new("narrow", Roles::of(&[Role::Buyer]), vec!["nov22".into()]).unwrap();
    let options = tokens.options().setting("security.tokens", format!("{},{}", tokens.setting, narrow.line()));
    let (app, shop) = (App::start(options).await, Shop::start().await);
    let operator = tokens.bearer(Role::Operator);
    for sale in ["nov22", "dec"] {
        let body = json!({"sale": sale, "items": [{"sku": "a", "units": 5}], "durability": "memory",
            "order_endpoint": {"url": shop.url()}, "reserve_for_ms": 600_000});
        assert_eq!(ask_as(&app, &operator, "POST", "/v1/sales", Some(&body)).await.status, 201);
    }
    let buy = json!({"buyer": "u1", "items": [{"sku": "a", "quantity": 1}]});
    let placed = ask_as(&app, &operator, "POST", "/v1/sales/dec/orders", Some(&buy)).await;
    let theirs = placed.gid().unwrap().to_owned();

    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", app.grpc())).unwrap();
    let channel = channel.connect().await.unwrap();
    let bearer: tonic::metadata::AsciiMetadataValue = format!("Bearer {secret}").parse().unwrap();
    let mut client = OrdersClient::with_interceptor(channel, move |mut request: tonic::Request<()>| {
        request.metadata_mut().insert("authorization", bearer.clone());
        Ok(request)
    });
    let order = |sale: &str| PlaceOrderRequest {
        sale: sale.into(),
        buyer: "u1".into(),
        items: vec![Item { sku: "a".into(), quantity: 1 }],
        ..Default::default()
    };
    let both = PlaceOrdersRequest { orders: vec![order("nov22"), order("dec")] };
    let results = client.place_orders(both).await.unwrap().into_inner().results;
    assert!(matches!(results[0].result, Some(Said::Reply(_))), "{:?}", results[0]);
    assert!(matches!(&results[1].result, Some(Said::Error(error)) if error.code == Code::PermissionDenied as i32));
    assert_eq!(client.place_order(order("dec")).await.unwrap_err().code(), Code::PermissionDenied);
    for gid in [theirs, "dec.0.1-0.0".into(), "x".into()] {
        let refused = [
            client.get_order(GetOrderRequest { gid: gid.clone(), wait_ms: 0 }).await.err(),
            client.watch_order(WatchOrderRequest { gid: gid.clone(), heard: 0 }).await.err(),
            client.confirm_order(ConfirmOrderRequest { gid: gid.clone(), items: Vec::new() }).await.err(),
            client.cancel_order(CancelOrderRequest { gid: gid.clone() }).await.err(),
            client.extend_order(ExtendOrderRequest { gid, reserve_for_ms: 600_000 }).await.err(),
        ];
        for status in refused {
            assert_eq!(status.map(|status| status.code()), Some(Code::PermissionDenied));
        }
    }
    assert_eq!(ask_as(&app, &operator, "GET", "/v1/sales/dec", None).await.json["items"][0]["reserved"], 1);
}
