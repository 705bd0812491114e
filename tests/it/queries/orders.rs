//! Orders of a sale, live and finished, and why a buyer got one or not.

use super::{SOON, all_pages, begun, buy, column, sale, start};
use crate::support::app::eventually;
use crate::support::shop::Answer;
use serde_json::{Value, json};

/// Some orders are in the records, some in Redis, over three partitions: a list knows no difference.
#[tokio::test]
async fn live_and_finished_orders_are_one_list() {
    let (app, shop) = start().await;
    sale(&app, &shop, "s", 60, json!({"partitions": 3})).await;
    shop.behave(|asked| match asked.order["buyer"].as_str() {
        Some("bad") => Answer::Refused("card declined".into()),
        _ => Answer::Created,
    });
    for n in 0..20 {
        assert_eq!(app.order("s", &format!("k{n}"), &buy(&format!("u{n}"), "SPRING")).await.status, 201);
    }
    assert_eq!(app.order("s", "bad", &buy("bad", "none")).await.status, 201);
    app.wait_until_settled("s").await;
    shop.always(Answer::Ongoing);
    for n in 20..30 {
        assert_eq!(app.order("s", &format!("k{n}"), &buy(&format!("u{n}"), "autumn")).await.status, 201);
    }
    for limit in [1, 7, 1000] {
        assert_eq!(all_pages(&app, "/v1/sales/s/orders", "orders", limit).await.len(), 31, "pages of {limit}");
    }
    let list = async |filter: &str| all_pages(&app, &format!("/v1/sales/s/orders?{filter}"), "orders", 4).await;
    assert_eq!(list("status=submitted").await.len(), 10);
    assert_eq!(list("status=succeed").await.len(), 20);
    assert_eq!(column(&list("status=failed").await, "last_error"), ["card declined"]);
    assert_eq!(column(&list("buyer=u3").await, "buyer"), ["u3"]);
    assert_eq!(column(&list("buyer=u23").await, "status"), ["submitted"]);
    assert_eq!(list("q=autumn").await.len(), 10);
    assert_eq!(list("q=spring").await.len(), 20, "upper and lower case are one");
    assert_eq!(column(&list("q=DECLINED").await, "buyer"), ["bad"]);
    assert_eq!(list("q=%25").await.len(), 0, "no character means any");

    let all = list("").await;
    let middle = all[12]["admitted_at"].as_str().unwrap();
    let (before, from) = (list(&format!("to={middle}")).await, list(&format!("from={middle}")).await);
    assert!(before.len() + from.len() > all.len() && before.len() < all.len(), "{} {}", before.len(), from.len());
    assert!(before.iter().all(|one| begun(one) <= begun(&all[12])));

    for query in ["status=no", "buyer=%00", "from=yesterday", "after=x", "limit=0", "sort=up"] {
        let reply = app.get(&format!("/v1/sales/s/orders?{query}")).await;
        assert_eq!((reply.status, reply.code()), (422, "invalid_query"), "{query}");
    }
}

/// One who got it, one who came too late, one whom the order service refused, and one who was never there.
#[tokio::test]
async fn why_a_buyer_got_one_or_not() {
    let (app, shop) = start().await;
    sale(&app, &shop, "s", 1, json!({})).await;
    let ask = async |buyer: &str| app.get(&format!("/v1/sales/s/buyers/{buyer}")).await.json;
    let has = |json: &Value, word: &str| json["evidence"].to_string().contains(word);

    shop.always(Answer::Refused("card declined".into()));
    let refused = app.order("s", "k0", &buy("refused", "")).await;
    let gid = refused.gid().unwrap().to_owned();
    app.wait_until_settled("s").await;
    let why = ask("refused").await;
    assert_eq!((&why["verdict"], &why["units_held"]), (&json!("lost"), &json!(0)), "{why}");
    assert!(why["summary"].as_str().unwrap().contains("card declined"), "{why}");

    shop.always(Answer::Created);
    assert_eq!(app.order("s", "k1", &buy("winner", "")).await.status, 201);
    for _ in 0..3 {
        assert_eq!(app.order("s", "", &buy("late", "")).await.status, 409);
    }
    let why = ask("winner").await;
    assert_eq!((&why["verdict"], &why["units_held"]), (&json!("got"), &json!(1)), "{why}");
    let why = ask("late").await;
    assert_eq!(why["verdict"], "refused", "{why}");
    assert!(why["summary"].as_str().unwrap().contains("not enough units were left"), "{why}");
    assert!(has(&why, "sold_out") && has(&why, "3 times in all") && has(&why, "0 of 1 units available"), "{why}");
    let why = ask("nobody").await;
    assert_eq!(why["verdict"], "no_trace", "{why}");

    let why = app.get(&format!("/v1/orders/{gid}/why")).await.json;
    assert!(why["summary"].as_str().unwrap().contains("card declined"), "{why}");
    assert!(has(&why, "script reply A") && has(&why, "not in Redis any more"), "{why}");
    assert_eq!(app.get("/v1/orders/s.0.1-1.0/why").await.status, 404);
    assert_eq!(app.get("/v1/sales/none/buyers/u").await.status, 404);
}

/// Of an order that is on its way: its tries, what was said, when the next one is due, and who has it.
#[tokio::test]
async fn why_an_order_is_not_over_yet() {
    let (app, shop) = start().await;
    sale(&app, &shop, "s", 5, json!({})).await;
    shop.always(Answer::Status(500, "no disk".into()));
    let gid = app.order("s", "k", &buy("u1", "")).await.gid().unwrap().to_owned();
    eventually("a second try", SOON, || async { shop.call_count() >= 2 }).await;
    let why = app.get(&format!("/v1/orders/{gid}/why")).await.json;
    let evidence = why["evidence"].to_string();
    assert!(evidence.contains("has the batch") && evidence.contains("stands in Redis as `.`"), "{why}");
    assert!(evidence.contains("calls of the order service"), "{why}");
}
