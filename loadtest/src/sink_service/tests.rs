//! The order service's books, calls and habits.

use super::*;
use crate::http::Api;
use std::time::Duration;
use tokio::time::timeout;

async fn sink() -> Api {
    sink_with(Habits::default()).await
}

async fn sink_with(habits: Habits) -> Api {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve_on(listener, habits));
    Api { address }
}

fn order(gid: &str) -> serde_json::Value {
    json!({"gid": gid, "sale": "s", "buyer": "b", "items": [{"sku": "a", "quantity": 2}], "payload": null, "admitted_at": 1})
}

#[tokio::test]
async fn a_gid_that_comes_again_is_counted_as_double_and_not_as_order() {
    let sink = sink().await;
    assert_eq!(sink.call("POST", "/orders?gid=g1", Some(&order("g1"))).await.unwrap().0, 201);
    assert_eq!(sink.call("POST", "/orders?gid=g1", Some(&order("g1"))).await.unwrap().0, 200);
    let bulk = json!({"orders": [order("g1"), order("g2")]});
    let answer = sink.expect("POST", "/orders", Some(&bulk)).await.unwrap();
    assert_eq!(answer["results"][1], json!({"gid": "g2", "result": "SUCCESS"}));
    let count = sink.expect("GET", "/count?sale=s", None).await.unwrap();
    assert_eq!(count, json!({"orders": 2, "units": {"a": 4}, "calls": 3, "doubles": 2}));
}

#[tokio::test]
async fn gids_are_listed_in_byte_order_page_by_page() {
    let sink = sink().await;
    for gid in ["g9", "g10", "g1"] {
        sink.expect("POST", "/orders", Some(&order(gid))).await.unwrap();
    }
    let page = async |after: &str| {
        sink.expect("GET", &format!("/gids?sale=s&after={after}&limit=2"), None).await.unwrap()["gids"].clone()
    };
    assert_eq!(page("").await, json!(["g1", "g10"]));
    assert_eq!(page("g10").await, json!(["g9"]));
    assert_eq!(page("g9").await, json!([]));
}

#[tokio::test]
async fn while_held_a_call_hangs_and_after_the_release_it_is_answered() {
    let sink = sink().await;
    sink.expect("POST", "/hold", None).await.unwrap();
    let body = order("g1");
    let mut call = std::pin::pin!(sink.call("POST", "/orders", Some(&body)));
    assert!(timeout(Duration::from_millis(50), &mut call).await.is_err(), "answered while held");
    assert_eq!(sink.expect("GET", "/count?sale=s", None).await.unwrap()["orders"], 0);
    sink.expect("POST", "/release", None).await.unwrap();
    assert_eq!(call.await.unwrap().0, 201);
}

#[tokio::test]
async fn a_body_that_is_no_order_is_refused() {
    assert_eq!(sink().await.call("POST", "/orders", Some(&json!({"gid": 1}))).await.unwrap().0, 400);
}

#[tokio::test]
async fn every_call_is_kept_for_the_oracle() {
    let sink = sink_with(Habits { record: true, ..Habits::default() }).await;
    let began = now_unix_us();
    sink.expect("POST", "/orders?gid=g1&op=action", Some(&order("g1"))).await.unwrap();
    let bulk = json!({"orders": [order("g1"), order("g2")]});
    sink.expect("POST", "/orders", Some(&bulk)).await.unwrap();
    sink.expect("POST", "/orders?gid=g2&op=cancel", Some(&order("g2"))).await.unwrap();
    let calls = fetch(sink, began).await.unwrap();
    let told: Vec<_> = calls.iter().map(|call| (&*call.gid, &*call.op, call.answer)).collect();
    assert_eq!(
        told,
        [
            ("g1", "action", ServiceAnswer::Made),
            ("g1", "action", ServiceAnswer::Again),
            ("g2", "action", ServiceAnswer::Made),
            ("g2", "cancel", ServiceAnswer::Made),
        ]
    );
    assert_eq!((&*calls[0].buyer, &*calls[0].sale, calls[0].items[0].quantity), ("b", "s", 2));
    assert!(calls.is_sorted_by_key(|call| call.at_us) && calls[0].at_us < 60_000_000, "counted from the beginning");
    let count = sink.expect("GET", "/count?sale=s", None).await.unwrap();
    assert_eq!((&count["orders"], &count["units"]), (&json!(1), &json!({"a": 2})));
    assert_eq!(sink.call("POST", "/orders", Some(&order("g2"))).await.unwrap().0, 409, "cancelled is cancelled");
}

#[tokio::test]
async fn a_habit_hits_the_same_orders_each_time() {
    let sink = sink_with(Habits { refuse_permille: 300, lose_permille: 300, ..Habits::default() }).await;
    let (mut refused, mut lost) = (0, 0);
    for n in 0..200 {
        let order = order(&format!("g{n}"));
        match sink.call("POST", "/orders", Some(&order)).await {
            Ok((409, _)) => {
                refused += 1;
                assert_eq!(sink.call("POST", "/orders", Some(&order)).await.unwrap().0, 409);
            }
            Ok((status, _)) => assert_eq!(status, 201),
            Err(_) => {
                lost += 1;
                assert_eq!(sink.call("POST", "/orders", Some(&order)).await.unwrap().0, 200, "it was made");
            }
        }
    }
    assert!((30..90).contains(&refused) && (30..90).contains(&lost), "{refused} refused, {lost} lost");
}

#[tokio::test]
async fn of_a_reservation_what_is_confirmed_stays() {
    let sink = sink().await;
    let tell = async |op: &str, quantity: u64| {
        let mut body = order("g1");
        body["items"][0]["quantity"] = quantity.into();
        sink.expect("POST", &format!("/orders?gid=g1&op={op}"), Some(&body)).await.unwrap();
        sink.expect("GET", "/count?sale=s", None).await.unwrap()["units"]["a"].clone()
    };
    assert_eq!(tell("try", 5).await, 5);
    assert_eq!(tell("confirm", 3).await, 3);
    assert_eq!(tell("confirm", 3).await, 3, "once is enough");
    assert_eq!(tell("cancel", 3).await, 0);
}
