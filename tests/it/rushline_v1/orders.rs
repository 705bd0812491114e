//! Orders: from placing to paying, what is refused and how, one answer for one key on either door.

use super::*;
use crate::support::app::eventually;
use crate::support::shop::Answer;
use rushline::proto::rushline::v1::place_orders_reply::result::Result as Said;
use rushline::proto::rushline::v1::{
    CancelOrderRequest, ConfirmOrderRequest, ExtendOrderRequest, GetOrderRequest, ListOrdersRequest, Order,
    OrderStatus, PlaceOrdersRequest, RefusalReason, ReturnUnitsRequest, WatchOrderRequest,
};
use serde_json::json;
use tonic::{Request, Streaming};

async fn next(stream: &mut Streaming<Order>) -> Option<Result<OrderStatus, Status>> {
    let message = tokio::time::timeout(SOON, stream.message()).await.expect("a message soon");
    message.map(|order| order.map(|order| order.status())).transpose()
}

/// One pays while somebody watches, one gives up, one is told of what is over; then the books of all agree.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_placed_watched_paid_and_returned() {
    let stage = Stage::new().await;
    stage.create(|sale| sale.reserve_for_ms = Some(LONG_MS)).await;
    let mut orders = stage.orders.clone();
    let ask = |buyer: &str, quantity| PlaceOrderRequest {
        payload: r#"{"note":  1}"#.into(),
        wait_ms: 20_000,
        ..buy(buyer, &[item("a", quantity)])
    };
    let paid = placed(stage.place(ask("u1", 2)).await.unwrap());
    assert_eq!(
        (paid.status(), paid.items.as_slice(), paid.replayed),
        (OrderStatus::Reserved, &[item("a", 2)][..], false)
    );
    let given_up = placed(stage.place(ask("u2", 3)).await.unwrap()).gid;
    assert_eq!((stage.stock("a").await.available, stage.stock("a").await.reserved), (5, 5));

    let watch = WatchOrderRequest { gid: paid.gid.clone(), ..Default::default() };
    let mut events = orders.watch_order(watch.clone()).await.unwrap().into_inner();
    assert_eq!(next(&mut events).await.unwrap().unwrap(), OrderStatus::Reserved);
    let gid = paid.gid;
    let extended = ExtendOrderRequest { gid: gid.clone(), reserve_for_ms: LONG_MS + 1_000 };
    let extended = orders.extend_order(extended).await.unwrap().into_inner();
    let shown = orders.get_order(GetOrderRequest { gid: gid.clone(), wait_ms: 0 }).await.unwrap().into_inner();
    assert_eq!((extended.reserved_until.is_some(), extended.reserved_until), (true, shown.reserved_until));
    assert_eq!((shown.buyer.as_str(), shown.payload.as_str()), ("u1", r#"{"note":  1}"#));

    let confirm = ConfirmOrderRequest { gid: gid.clone(), items: Vec::new() };
    for replayed in [false, true] {
        let answer = orders.confirm_order(confirm.clone()).await.unwrap().into_inner();
        assert_eq!((answer.status(), answer.replayed), (OrderStatus::Succeed, replayed));
    }
    assert_eq!(next(&mut events).await.unwrap().unwrap(), OrderStatus::Succeed);
    assert!(next(&mut events).await.is_none(), "the order is over, and so is its stream");
    let heard = WatchOrderRequest { heard: OrderStatus::Succeed.into(), ..watch };
    assert!(next(&mut orders.watch_order(heard).await.unwrap().into_inner()).await.is_none(), "nothing is new");

    let cancel = |gid: &str| CancelOrderRequest { gid: gid.into() };
    let answer = orders.cancel_order(cancel(&given_up)).await.unwrap().into_inner();
    assert_eq!(answer.status(), OrderStatus::Cancelled);
    assert_eq!(reason(orders.cancel_order(cancel(&gid)).await), (Code::FailedPrecondition, "confirmed".into()));
    let late = ConfirmOrderRequest { gid: given_up.clone(), items: Vec::new() };
    assert_eq!(reason(orders.confirm_order(late).await), (Code::FailedPrecondition, "cancelled".into()));

    stage.settled().await;
    let back = ReturnUnitsRequest { gid: gid.clone(), items: vec![item("a", 1)], request_id: "r1".into() };
    for replayed in [false, true] {
        let answer = orders.return_units(back.clone()).await.unwrap().into_inner();
        assert_eq!((answer.returned, answer.replayed), (vec![item("a", 1)], replayed));
    }
    let stock = stage.stock("a").await;
    assert_eq!((stock.available, stock.reserved, stock.sold), (9, 0, 1));

    let list = |status: OrderStatus, limit| ListOrdersRequest {
        sale: SALE.into(),
        status: status.into(),
        limit,
        ..Default::default()
    };
    let all = orders.list_orders(list(OrderStatus::Unspecified, 1)).await.unwrap().into_inner();
    assert_eq!((all.orders.len(), all.orders[0].gid.as_str()), (1, given_up.as_str()), "newest first");
    let rest = ListOrdersRequest { after: all.next, ..list(OrderStatus::Unspecified, 1) };
    assert_eq!(orders.list_orders(rest).await.unwrap().into_inner().orders[0].gid, gid);
    let cancelled = orders.list_orders(list(OrderStatus::Cancelled, 0)).await.unwrap().into_inner().orders;
    assert_eq!(cancelled.len(), 1);
    assert_eq!(reason(orders.list_orders(list(OrderStatus::Failed, 5_000)).await).1, "invalid_query");
    stage.settled().await;
}

/// What a sale decides is a value; what keeps it from deciding is a status that says what to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_a_value_and_a_mistake_is_a_status() {
    let stage = Stage::new().await;
    stage.create(|sale| sale.limit_per_buyer = Some(8)).await;
    let kind = async |request| {
        let refused = refused(stage.place(request).await.unwrap());
        (refused.reason(), refused.code)
    };
    assert_eq!(kind(buy("u1", &[item("b", 6)])).await, (RefusalReason::SoldOut, "sold_out".into()));
    assert_eq!(kind(buy("u1", &[item("a", 9)])).await, (RefusalReason::LimitReached, "limit_reached".into()));
    stage.shop.always(Answer::Refused("card declined".into()));
    let no = PlaceOrderRequest { wait_ms: 20_000, ..buy("u1", &[item("a", 1)]) };
    let no = refused(stage.place(no).await.unwrap());
    assert_eq!(no.reason(), RefusalReason::OrderRefused);
    assert!(no.detail.contains("card declined") && no.gid.starts_with("s."), "{no:?}");
    stage.shop.always(Answer::Created);

    let app = &stage.app;
    app.patch("/v1/sales/s", &json!({"status": "paused"})).await;
    assert_eq!(kind(buy("u2", &[item("a", 1)])).await.0, RefusalReason::Paused);
    let far = "2100-01-01T00:00:00Z";
    app.patch("/v1/sales/s", &json!({"status": "open", "opens_at": far})).await;
    let early = refused(stage.place(buy("u2", &[item("a", 1)])).await.unwrap());
    assert_eq!(early.reason(), RefusalReason::NotOpen);
    assert!(early.retry_after_s > 1_000_000, "{early:?}");
    app.patch("/v1/sales/s", &json!({"status": "closed"})).await;
    assert_eq!(kind(buy("u2", &[item("a", 1)])).await.0, RefusalReason::Closed);

    let status = async |request| reason(stage.place(request).await);
    let elsewhere = PlaceOrderRequest { sale: "nowhere".into(), ..buy("u1", &[item("a", 1)]) };
    assert_eq!(status(elsewhere).await, (Code::NotFound, "unknown_sale".into()));
    let invalid = (Code::InvalidArgument, "invalid_order".to_owned());
    assert_eq!(status(buy("", &[item("a", 1)])).await, invalid);
    assert_eq!(status(buy("u1", &[])).await, invalid);
    assert_eq!(status(buy("u1", &[item("a", 0)])).await, invalid);
    assert_eq!(status(PlaceOrderRequest { payload: "{".into(), ..buy("u1", &[item("a", 1)]) }).await, invalid);
    let large = PlaceOrderRequest { payload: format!("\"{}\"", "x".repeat(70_000)), ..buy("u1", &[item("a", 1)]) };
    assert_eq!(status(large).await, (Code::ResourceExhausted, "body_too_large".into()));
    let none = PlaceOrdersRequest { orders: vec![buy("u1", &[item("a", 1)]); 101] };
    assert_eq!(reason(stage.orders.clone().place_orders(none).await), invalid);
    let unknown = (Code::NotFound, "unknown_order".to_owned());
    let gid = || "s.1-0.0".to_owned();
    let mut orders = stage.orders.clone();
    assert_eq!(reason(orders.get_order(GetOrderRequest { gid: gid(), wait_ms: 0 }).await), unknown);
    assert_eq!(reason(orders.watch_order(WatchOrderRequest { gid: gid(), heard: 0 }).await), unknown);
    assert_eq!(reason(orders.cancel_order(CancelOrderRequest { gid: gid() }).await), unknown);
    stage.settled().await;
}

/// Whoever lost the answer may ask on the other door, and hears it there.
#[tokio::test(flavor = "multi_thread")]
async fn one_key_is_one_order_on_both_doors() {
    let stage = Stage::new().await;
    stage.create(|_| ()).await;
    let keyed = |key: &str, payload: &str| PlaceOrderRequest {
        idempotency_key: key.into(),
        payload: payload.into(),
        ..buy("u1", &[item("a", 1), item("b", 1)])
    };
    let body = json!({"buyer": "u1", "items": [{"sku": "a", "quantity": 1}, {"sku": "b", "quantity": 1}]});
    let mut with_payload = body.clone();
    with_payload["payload"] = json!({"n": 1});

    let by_http = stage.app.order(SALE, "k1", &with_payload).await;
    let again = placed(stage.place(keyed("k1", r#"{"n":1}"#)).await.unwrap());
    assert_eq!((Some(again.gid.as_str()), again.replayed), (by_http.gid(), true));
    let by_grpc = placed(stage.place(keyed("k2", "")).await.unwrap());
    let again = stage.app.order(SALE, "k2", &body).await;
    assert_eq!((again.gid(), again.replayed()), (Some(by_grpc.gid.as_str()), true));
    assert_eq!(reason(stage.place(keyed("k2", "2")).await), (Code::AlreadyExists, "idempotency_key_reused".into()));

    // Two of one key in one call, and the answer of before the sale was sold out.
    let two = vec![keyed("k3", ""), keyed("k3", ""), keyed("k1", r#"{"n":1}"#)];
    let results = stage.orders.clone().place_orders(PlaceOrdersRequest { orders: two }).await.unwrap().into_inner();
    let replies: Vec<Placed> = results.results.into_iter().map(|one| placed(reply(one.result))).collect();
    assert_eq!(replies[0].gid, replies[1].gid);
    assert_eq!(replies.iter().map(|one| one.replayed).collect::<Vec<_>>(), [false, true, true]);
    assert_eq!(Some(replies[2].gid.as_str()), by_http.gid());
    eventually("all are sold", SOON, || async { stage.stock("a").await.sold == 3 }).await;
    stage.settled().await;
}

fn reply(result: Option<Said>) -> PlaceOrderReply {
    match result {
        Some(Said::Reply(reply)) => reply,
        other => panic!("no reply: {other:?}"),
    }
}

/// More buyers than units, a hundred a call: as many orders as units, and every other one hears why.
#[tokio::test(flavor = "multi_thread")]
async fn many_orders_of_one_call_are_decided_one_by_one() {
    let stage = Stage::new().await;
    stage.create(|sale| sale.items[0].units = 60).await;
    let mut orders: Vec<_> = (0..99).map(|n| buy(&format!("u{n}"), &[item("a", 1)])).collect();
    orders.insert(50, buy("somebody", &[item("no-such", 1)]));
    let results = stage.orders.clone().place_orders(PlaceOrdersRequest { orders }).await.unwrap().into_inner().results;
    assert_eq!(results.len(), 100);
    let (mut won, mut lost) = (0, 0);
    for (at, one) in results.into_iter().enumerate() {
        match one.result.unwrap() {
            Said::Error(error) => assert_eq!((at, error.code), (50, Code::NotFound as i32), "{error:?}"),
            Said::Reply(PlaceOrderReply { outcome: Some(Outcome::Placed(_)) }) => won += 1,
            Said::Reply(other) => {
                assert_eq!(refused(other).reason(), RefusalReason::SoldOut);
                lost += 1;
            }
        }
    }
    assert_eq!((won, lost), (60, 39));
    stage.settled().await;
    assert_eq!(stage.shop.order_count(), 60);
}

/// A wait longer than its caller's patience ends before that: the caller has the gid, and the order is made later.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_is_answered_in_time() {
    let stage = Stage::new().await;
    stage.create(|_| ()).await;
    stage.shop.always(Answer::Ongoing);
    let mut request = Request::new(PlaceOrderRequest { wait_ms: 25_000, ..buy("u1", &[item("a", 1)]) });
    request.set_timeout(Duration::from_secs(4)); // tonic's client hangs up after it
    let order = placed(stage.orders.clone().place_order(request).await.unwrap().into_inner());
    assert_eq!(order.status(), OrderStatus::Submitted);
    stage.shop.always(Answer::Created);
    let wait = GetOrderRequest { gid: order.gid, wait_ms: 20_000 };
    let made = stage.orders.clone().get_order(wait).await.unwrap().into_inner();
    assert_eq!(made.status(), OrderStatus::Succeed);
    stage.settled().await;
}

/// Whoever watches is told to go elsewhere, and does not hold up the end of the server.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_hears_that_the_server_stops() {
    let mut stage = Stage::new().await;
    stage.create(|sale| sale.reserve_for_ms = Some(LONG_MS)).await;
    let order = PlaceOrderRequest { wait_ms: 20_000, ..buy("u1", &[item("a", 1)]) };
    let gid = placed(stage.place(order).await.unwrap()).gid;
    let mut events = stage.orders.watch_order(WatchOrderRequest { gid, heard: 0 }).await.unwrap().into_inner();
    assert_eq!(next(&mut events).await.unwrap().unwrap(), OrderStatus::Reserved);
    stage.app.signal("TERM");
    assert_eq!(next(&mut events).await.unwrap().unwrap_err().code(), Code::Unavailable);
    assert!(stage.app.wait_for_end(SOON).await.success());
}
