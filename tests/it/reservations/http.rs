//! Through the whole server: what shops ask, what they hear, and what the order service is told.

use super::*;
use crate::support::app::AppOptions;
use crate::support::shop::Answer;

/// From the first request to the records: each end once, told once, and the books agree.
#[tokio::test(flavor = "multi_thread")]
async fn a_reservation_is_paid_given_up_or_out_of_time() {
    let shop = Shop::start().await;
    let app = App::start(AppOptions::default().quick()).await;
    app.create_sale(&sale(&shop, 2_500)).await;
    let paid = reserve(&app, "u1", json!([{"sku": "a", "quantity": 2}])).await;
    let given_up = reserve(&app, "u1", json!([{"sku": "a", "quantity": 1}, {"sku": "b", "quantity": 1}])).await;
    let late = reserve(&app, "u2", json!([{"sku": "a", "quantity": 3}])).await;
    assert_eq!(units(&app, "a").await, "4/6/0");
    let shown = app.get(&format!("/v1/orders/{paid}")).await.json;
    assert!(shown["reserved_until"].is_string(), "{shown}");
    let (code, answer) = ask(&app, &paid, "confirm", json!({})).await;
    assert_eq!((code, &answer["status"], &answer["replayed"]), (200, &json!("succeed"), &json!(false)), "{answer}");
    let (code, answer) = ask(&app, &given_up, "cancel", json!({})).await;
    assert_eq!((code, &answer["status"]), (200, &json!("cancelled")), "{answer}");
    eventually("the third expires", SOON, || async { status(&app, &late).await == "expired" }).await;
    assert_eq!(units(&app, "a").await, "8/0/2");
    assert_eq!(units(&app, "b").await, "5/0/0");
    let report = app.wait_until_settled(SALE).await;
    assert_eq!(report["drift"], 0, "{report}");
    assert_eq!(report["records"], json!({"succeed": 1, "failed": 2}), "{report}");
    // The same verdicts, from the records.
    for _ in 0..2 {
        let (code, answer) = ask(&app, &paid, "confirm", json!({})).await;
        assert_eq!((code, &answer["replayed"]), (200, &json!(true)), "{answer}");
        assert_eq!(ask(&app, &paid, "cancel", json!({})).await.1["code"], "confirmed");
        assert_eq!(ask(&app, &given_up, "cancel", json!({})).await.0, 200);
        assert_eq!(ask(&app, &given_up, "confirm", json!({})).await.1["code"], "cancelled");
        assert_eq!(ask(&app, &late, "confirm", json!({})).await.1["code"], "expired");
        assert_eq!(ask(&app, &late, "extend", json!({"reserve_for_ms": 2600})).await.1["code"], "expired");
    }
    assert_eq!(status(&app, &given_up).await, "cancelled");
    assert_eq!(ops(&shop, &paid), ["try", "confirm"]);
    assert_eq!(ops(&shop, &given_up), ["try", "cancel"]);
    assert_eq!(ops(&shop, &late), ["try", "cancel"]);
    let call = &shop.calls(&paid)[1];
    assert_eq!(call.query["trans_type"], "tcc");
    assert_eq!(call.query["gid"], paid);
    assert_eq!(call.headers["idempotency-key"], format!("{paid}-confirm"));
    assert_eq!((call.order["end"].as_str(), call.order["items"][0]["quantity"].as_u64()), (Some("confirmed"), Some(2)));
    assert_eq!(shop.calls(&late)[1].order["end"], "expired");
    // The limit is 6: one who gave up may buy again, one who paid has that much less.
    reserve(&app, "u1", json!([{"sku": "a", "quantity": 4}])).await;
    let over = app.order(SALE, "", &json!({"buyer": "u1", "items": [{"sku": "a", "quantity": 1}]})).await;
    assert_eq!(over.code(), "limit_reached");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_is_paid_and_the_rest_goes_back() {
    let shop = Shop::start().await;
    let app = App::start(AppOptions::default().quick()).await;
    app.create_sale(&sale(&shop, LONG_MS)).await;
    let gid = reserve(&app, "u1", json!([{"sku": "a", "quantity": 3}, {"sku": "b", "quantity": 2}])).await;
    for (items, field) in [
        (json!([]), "items"),
        (json!([{"sku": "a", "quantity": 4}]), "quantity"),
        (json!([{"sku": "a", "quantity": 0}]), "quantity"),
        (json!([{"sku": "c", "quantity": 1}]), "sku"),
        (json!([{"sku": "a", "quantity": 1}, {"sku": "a", "quantity": 1}]), "items"),
    ] {
        let (code, answer) = ask(&app, &gid, "confirm", json!({ "items": items })).await;
        assert_eq!((code, &answer["field"]), (422, &json!(field)), "{answer}");
    }
    let part = json!({"items": [{"sku": "a", "quantity": 2}]});
    let (code, answer) = ask(&app, &gid, "confirm", part.clone()).await;
    assert_eq!((code, &answer["items"]), (200, &part["items"]), "{answer}");
    assert_eq!(units(&app, "a").await, "8/0/2");
    assert_eq!(units(&app, "b").await, "5/0/0");
    assert_eq!(ask(&app, &gid, "confirm", part.clone()).await.0, 200);
    assert_eq!(ask(&app, &gid, "confirm", json!({})).await.1["code"], "confirmed_otherwise");
    until_told(&shop, &gid, "confirm").await;
    let report = app.wait_until_settled(SALE).await;
    assert_eq!(report["drift"], 0, "{report}");
    assert_eq!(shop.units()["a"], 2, "the order service keeps what is paid");
    let record = app.get(&format!("/v1/orders/{gid}")).await.json;
    assert_eq!(record["items"], part["items"], "{record}");
    assert_eq!(record["last_error"], "paid in part; ordered: a 3 b 2", "{record}");
    assert_eq!(ask(&app, &gid, "confirm", part).await.0, 200);
    let other = json!({"items": [{"sku": "a", "quantity": 1}]});
    assert_eq!(ask(&app, &gid, "confirm", other).await.1["code"], "confirmed_otherwise");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extended_reservation_outlives_the_others() {
    let shop = Shop::start().await;
    let app = App::start(AppOptions::default().quick()).await;
    app.create_sale(&sale(&shop, 2_000)).await;
    let longer = reserve(&app, "u1", json!([{"sku": "a", "quantity": 1}])).await;
    let other = reserve(&app, "u2", json!([{"sku": "a", "quantity": 1}])).await;
    let (code, first) = ask(&app, &longer, "extend", json!({"reserve_for_ms": 4_000})).await;
    assert_eq!((code, &first["status"]), (200, &json!("reserved")), "{first}");
    // Said again it is the same, and it is never made shorter.
    for for_ms in [4_000, 3_000] {
        let (_, again) = ask(&app, &longer, "extend", json!({ "reserve_for_ms": for_ms })).await;
        assert_eq!(again["reserved_until"], first["reserved_until"], "{again}");
    }
    for for_ms in [1_999, 4_001] {
        let (code, answer) = ask(&app, &longer, "extend", json!({ "reserve_for_ms": for_ms })).await;
        assert_eq!((code, &answer["field"]), (422, &json!("reserve_for_ms")), "{answer}");
    }
    eventually("the other one expires", SOON, || async { status(&app, &other).await == "expired" }).await;
    assert_eq!(status(&app, &longer).await, "reserved");
    eventually("then the longer one", SOON, || async { status(&app, &longer).await == "expired" }).await;
    assert_eq!(units(&app, "a").await, "10/0/0");
    let report = app.wait_until_settled(SALE).await;
    assert_eq!(report["drift"], 0, "{report}");
}

/// The end comes while the order service has not answered if it makes the order: it hears of it after that.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_waits_for_the_creation_to_be_over() {
    let shop = Shop::start().await;
    let app = App::start(AppOptions::default().quick()).await;
    app.create_sale(&sale(&shop, LONG_MS)).await;
    for (answer, then) in [(Answer::Created, "made"), (Answer::Refused("no".into()), "refused")] {
        for what in ["confirm", "cancel"] {
            let refused = then == "refused";
            shop.always(Answer::Status(503, "away".into()));
            let body = json!({"buyer": format!("u-{then}-{what}"), "items": [{"sku": "a", "quantity": 1}]});
            let gid = app.order(SALE, "", &body).await.gid().unwrap().to_owned();
            eventually("it was tried", SOON, || async { !shop.calls(&gid).is_empty() }).await;
            assert_eq!(ask(&app, &gid, what, json!({})).await.0, 200);
            assert_eq!(ask(&app, &gid, what, json!({})).await.1["replayed"], json!(true));
            assert!(!ops(&shop, &gid).contains(&what.to_owned()), "told before it was made");
            let reply = answer.clone();
            shop.behave(move |asked| if asked.op == "try" { reply.clone() } else { Answer::Created });
            let end = match (what, refused) {
                ("confirm", true) => "failed",
                ("confirm", false) => "succeed",
                _ => "cancelled",
            };
            eventually(&format!("{what} of an order that is {then}"), SOON, || async {
                let report = app.audit(SALE, Duration::ZERO).await;
                status(&app, &gid).await == end && report["settled"] == true
            })
            .await;
            assert_eq!(ops(&shop, &gid).contains(&what.to_owned()), !refused, "{:?}", ops(&shop, &gid));
        }
    }
    assert_eq!(units(&app, "a").await, "9/0/1");
    let report = app.wait_until_settled(SALE).await;
    assert_eq!(report["drift"], 0, "{report}");
}

/// What an order service says to an end changes nothing: it is asked until it has heard.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_service_cannot_undo_an_end() {
    let shop = Shop::start().await;
    let app = App::start(AppOptions::default().quick()).await;
    app.create_sale(&sale(&shop, LONG_MS)).await;
    let gid = reserve(&app, "u1", json!([{"sku": "a", "quantity": 1}])).await;
    shop.always(Answer::Refused("I would rather not".into()));
    assert_eq!(ask(&app, &gid, "confirm", json!({})).await.0, 200);
    eventually("it was asked several times", SOON, || async { ops(&shop, &gid).len() >= 4 }).await;
    assert_eq!(status(&app, &gid).await, "succeed");
    assert_eq!(app.get(&format!("/v1/orders/{gid}")).await.json["end_told"], false);
    assert!(app.metric("rushline_reservation_ends_refused_total").await >= 2.0);
    assert!(app.log().contains("refuses an end that is decided"), "{}", app.log());
    shop.always(Answer::Created);
    app.wait_until_settled(SALE).await;
    assert_eq!(units(&app, "a").await, "9/0/1");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_said_so() {
    let shop = Shop::start().await;
    let app = App::start(AppOptions::default().quick()).await;
    app.create_sale(&sale(&shop, LONG_MS)).await;
    let mut plain = sale(&shop, LONG_MS);
    plain["sale"] = json!("plain");
    plain.as_object_mut().unwrap().remove("reserve_for_ms");
    app.create_sale(&plain).await;
    let reply = app.order("plain", "", &json!({"buyer": "u1", "items": [{"sku": "a", "quantity": 1}]})).await;
    let final_order = reply.gid().unwrap().to_owned();
    let gid = reserve(&app, "u1", json!([{"sku": "a", "quantity": 1}])).await;
    for what in ["confirm", "cancel"] {
        for unknown in ["nonsense", "s.0.1-1.0", "s.7.1-1.0", "nosale.0.1-1.0"] {
            let (code, answer) = ask(&app, unknown, what, json!({})).await;
            assert_eq!((code, &answer["code"]), (404, &json!("unknown_order")), "{unknown} {answer}");
        }
        let (code, answer) = ask(&app, &final_order, what, json!({})).await;
        assert_eq!((code, &answer["code"]), (409, &json!("not_reserved")), "{answer}");
        let (code, answer) = ask(&app, &gid, what, json!({"itmes": []})).await;
        assert_eq!((code, &answer["field"]), (422, &json!("itmes")), "{answer}");
    }
    let (code, answer) = ask(&app, &gid, "extend", json!({})).await;
    assert_eq!((code, &answer["field"]), (422, &json!("reserve_for_ms")), "{answer}");
    let bad = |fields: Value| {
        let mut body = sale(&shop, LONG_MS);
        body["sale"] = json!("bad");
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        body
    };
    for (fields, field) in [
        (json!({"reserve_for_ms": 99}), "reserve_for_ms"),
        (json!({"reserve_max_ms": 1000}), "reserve_max_ms"),
        (json!({"reserve_for_ms": null, "reserve_max_ms": 1000}), "reserve_max_ms"),
        (json!({"order_endpoint": {"url": "http://127.0.0.1/", "end_url": "nowhere"}}), "order_endpoint.end_url"),
    ] {
        let reply = app.post("/v1/sales", &[], &bad(fields)).await;
        assert_eq!((reply.status, &reply.json["field"]), (422, &json!(field)), "{}", reply.json);
    }
    assert_eq!(ask(&app, &gid, "cancel", json!({})).await.0, 200);
}

/// Payment meets expiry, each order on both nodes: one verdict, whoever is asked and however often.
#[tokio::test(flavor = "multi_thread")]
async fn payment_races_expiry_on_two_nodes_with_one_verdict() {
    const ORDERS: usize = 120;
    let shop = Shop::start().await;
    let a = App::start(AppOptions::default().quick()).await;
    let b = App::start(AppOptions::default().quick().beside(&a)).await;
    let mut body = sale(&shop, 3_000);
    body["items"] = json!([{"sku": "a", "units": 1000}]);
    a.create_sale(&body).await;
    let placed = futures_util::future::join_all(
        (0..ORDERS)
            .map(|n| async move { (n, json!({"buyer": format!("u{n}"), "items": [{"sku": "a", "quantity": 1}]})) }),
    )
    .await;
    let gids: Vec<String> = futures_util::future::join_all(placed.iter().map(async |(n, order)| {
        let app = if n % 2 == 0 { &a } else { &b };
        app.order(SALE, "", order).await.gid().unwrap().to_owned()
    }))
    .await;
    // The deadline of each is in its gid; a payment is sent a little before, or a little after.
    let pay = async |n: usize, gid: &String| {
        let admitted_ms: i64 = gid.split('.').nth(2).unwrap().split('-').next().unwrap().parse().unwrap();
        let aim = admitted_ms + 3_000 - 40 + (n as i64 % 80);
        let wait = aim - jiff::Timestamp::now().as_millisecond();
        tokio::time::sleep(Duration::from_millis(wait.max(0) as u64)).await;
        let (one, other) =
            futures_util::future::join(ask(&a, gid, "confirm", json!({})), ask(&b, gid, "confirm", json!({}))).await;
        let word = |answer: &(u16, Value)| {
            if answer.0 == 200 { "succeed".to_owned() } else { answer.1["code"].as_str().unwrap().to_owned() }
        };
        assert_eq!(word(&one), word(&other), "{gid}: {one:?} {other:?}");
        word(&one)
    };
    let verdicts: Vec<String> =
        futures_util::future::join_all(gids.iter().enumerate().map(|(n, gid)| pay(n, gid))).await;
    let paid = verdicts.iter().filter(|verdict| *verdict == "succeed").count();
    eprintln!("{paid} of {ORDERS} were paid in time");
    let report = a.wait_until_settled(SALE).await;
    assert_eq!(report["drift"], 0, "{report}");
    assert_eq!(report["records"], json!({"succeed": paid, "failed": ORDERS - paid}), "{report}");
    for (gid, verdict) in gids.iter().zip(&verdicts) {
        for app in [&a, &b] {
            assert_eq!(status(app, gid).await, *verdict, "{gid}");
            let (code, answer) = ask(app, gid, "confirm", json!({})).await;
            assert_eq!(code == 200, verdict == "succeed", "{answer}");
        }
        let told = if verdict == "succeed" { "confirm" } else { "cancel" };
        let ops = ops(&shop, gid);
        assert!(ops[1..].iter().all(|op| op == told), "{gid} {verdict}: {ops:?}");
    }
    assert_eq!(shop.order_count(), paid);
    assert!(shop.orders().values().all(|order| order.paid));
}
