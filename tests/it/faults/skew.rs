//! F39: old and new programs side by side. What a node cannot read it leaves alone, for whoever can.

use super::{BUYERS, SOON, start};
use crate::support::app::{App, AppOptions};
use crate::support::crowd::{Crowd, SALE, ask_redis};
use crate::support::servers::{Redis, RedisVersion};
use crate::support::shop::Shop;
use serde_json::json;

/// An entry as a later program might write it, and its outcome.
const LATER: &str = "1000-0";

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_of_a_later_form_is_left_alone() {
    let redis = Redis::start(RedisVersion::V7, &[]).await;
    let shop = Shop::start().await;
    let app = start(&redis.url(), &shop, 3_000).await;
    let key = |name: &str| format!("rl:{{{SALE}/0}}:{name}");
    let _: String = ask_redis(&redis, &["XADD", &key("intake"), LATER, "v9", "in a form that is yet to come"]).await;
    let _: i64 = ask_redis(&redis, &["HSET", &key("outcome"), LATER, "."]).await;
    // The later program took it and died: whoever is there takes it over.
    let group = ["XREADGROUP", "GROUP", "delivery", "later", "COUNT", "1", "STREAMS", &key("intake"), ">"];
    let _: redis::Value = ask_redis(&redis, &group).await;
    let buyers = Crowd::start(&[app.http()], BUYERS);
    buyers.wait_for_more(60, SOON).await;
    let other = App::start(AppOptions::default().quick().beside(&app)).await;
    buyers.wait_for_more(60, SOON).await;
    let heard = buyers.stop().await;
    assert_eq!(heard.put_off(), 0, "{:?}", heard.codes);
    let kept: redis::Value = ask_redis(&redis, &["XRANGE", &key("intake"), LATER, LATER]).await;
    assert!(format!("{kept:?}").contains("a form that is yet to come"), "{kept:?}");
    let outcome: String = ask_redis(&redis, &["HGET", &key("outcome"), LATER]).await;
    assert_eq!(outcome, ".");
    // Everybody else's orders have ended all the same.
    crate::support::app::eventually("all others are recorded", SOON, || async {
        let entries: u64 = ask_redis(&redis, &["XLEN", &key("intake")]).await;
        entries == 1
    })
    .await;
    let report = app.audit(SALE, std::time::Duration::ZERO).await;
    assert_eq!(report["settled"], json!(false), "an order that nobody can read is not over: {report}");
    drop(other);
}
