//! The node dies at every point of a reservation's life, and another goes on: each order ends once, and its end is told.

use super::*;
use crate::support::app::AppOptions;
use futures_util::StreamExt;

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_step_of_a_reservation_loses_and_doubles_nothing() {
    let points = rushline::crash::RESERVATION_POINTS.into_iter().filter(|point| !point.starts_with("return"));
    futures_util::stream::iter(points)
        .map(|point| tokio::spawn(crash_and_take_over(point)))
        .buffer_unordered(3)
        .for_each(|ended| async { ended.unwrap() })
        .await;
}

async fn crash_and_take_over(point: &'static str) {
    let shop = Shop::start().await;
    let mut app = App::start(AppOptions::default().quick().crash_at(point)).await;
    app.create_sale(&sale(&shop, 2_000)).await;
    // u1 pays, u2 gives up, u3 waits; the server may be dead by now, and the answers lost.
    let http = app.http();
    let order = |buyer: &str| json!({"buyer": buyer, "items": [{"sku": "a", "quantity": 2}]});
    for (buyer, what) in [("u1", "confirm"), ("u2", "cancel"), ("u3", "")] {
        let placed = http.try_order(SALE, buyer, &order(buyer)).await;
        if let Some(gid) = placed.ok().and_then(|reply| reply.gid().map(str::to_owned)).filter(|_| !what.is_empty()) {
            let _ = http.ask(::http::Method::POST, &format!("/v1/orders/{gid}/{what}"), &[], Some(&json!({}))).await;
        }
    }
    app.wait_for_end(Duration::from_secs(30)).await;
    let other = App::start(AppOptions::default().quick().beside(&app)).await;
    let mut gids = Vec::new();
    for buyer in ["u1", "u2", "u3"] {
        gids.push(other.order(SALE, buyer, &order(buyer)).await.gid().unwrap().to_owned());
    }
    let (code, paid) = ask(&other, &gids[0], "confirm", json!({})).await;
    let (_, given_up) = ask(&other, &gids[1], "cancel", json!({})).await;
    let report = other.wait_until_settled(SALE).await;
    assert_eq!(report["drift"], 0, "{point}: {report}");
    let sold = if code == 200 { 2 } else { 0 };
    assert!(matches!(code, 200 | 409), "{point}: {paid}");
    assert_eq!(units(&other, "a").await, format!("{}/0/{sold}", 10 - sold), "{point}: {paid} {given_up}");
    for (gid, op) in gids.iter().zip([if code == 200 { "confirm" } else { "cancel" }, "cancel", "cancel"]) {
        let ops = ops(&shop, gid);
        let end = ops.iter().position(|called| called != "try").unwrap_or_else(|| panic!("{point}: {gid} {ops:?}"));
        assert!(ops[end..].iter().all(|called| called == op), "{point}: {gid} {ops:?}");
    }
    assert_eq!(shop.orders().len(), usize::from(code == 200), "{point}");
}
