//! What a handler behind a barrier may rely on, one story each.

use super::shop::{Heard, Shop};
use crate::support::shared::unique;
use rushline::barrier::{BranchBarrier, Outcome};
use rushline::branch_call::BranchCall;
use rushline::branch_error::BranchError;
use std::collections::BTreeSet;
use std::time::Duration;

async fn expect_marks(shop: &Shop, gid: &str, marks: &[(&str, &str, &str, &str)]) {
    let expected: BTreeSet<_> = marks.iter().map(|mark| shop.as_kept(*mark)).collect();
    assert_eq!(shop.marks(gid).await, expected, "{gid}");
}

/// Quotes, spaces and braces are usual in gids.
async fn account(shop: &Shop, balance: i64) -> String {
    let gid = unique("it's \"{a}\" barrier");
    shop.open(&gid, balance).await;
    gid
}

pub async fn an_action_and_its_compensation(shop: &Shop) {
    let gid = account(shop, 100).await;
    assert_eq!(shop.call(&gid, "01", "action", -30).await, Heard::Ran);
    assert_eq!(shop.call(&gid, "01", "action", -30).await, Heard::Repeated);
    assert_eq!(shop.balance(&gid).await, 70);
    expect_marks(shop, &gid, &[("01", "action", "01", "action")]).await;
    assert_eq!(shop.call(&gid, "01", "compensate", 30).await, Heard::Ran);
    assert_eq!(shop.call(&gid, "01", "compensate", 30).await, Heard::Repeated);
    assert_eq!(shop.balance(&gid).await, 100);
    expect_marks(shop, &gid, &[("01", "action", "01", "action"), ("01", "compensate", "01", "compensate")]).await;
}

pub async fn an_empty_compensation_keeps_the_late_action_out(shop: &Shop) {
    let gid = account(shop, 100).await;
    assert_eq!(shop.call(&gid, "01", "compensate", 30).await, Heard::Empty);
    assert_eq!(shop.call(&gid, "01", "compensate", 30).await, Heard::Repeated);
    assert_eq!(shop.call(&gid, "01", "action", -30).await, Heard::Repeated);
    assert_eq!(shop.balance(&gid).await, 100);
    expect_marks(shop, &gid, &[("01", "action", "01", "compensate"), ("01", "compensate", "01", "compensate")]).await;
    // Other branches have nothing to do with it.
    assert_eq!(shop.call(&gid, "02", "action", -30).await, Heard::Ran);
}

/// A roll-back of a workflow too, which dtm's barriers in Redis and MongoDB do not know.
pub async fn every_undoing_is_empty_without_what_it_undoes(shop: &Shop) {
    for (undoing, undone) in [("cancel", "try"), ("compensate", "action"), ("rollback", "action")] {
        let gid = account(shop, 100).await;
        assert_eq!(shop.call(&gid, "01", undoing, 30).await, Heard::Empty, "{undoing}");
        assert_eq!(shop.call(&gid, "01", undone, -30).await, Heard::Repeated, "{undone} after {undoing}");
        expect_marks(shop, &gid, &[("01", undone, "01", undoing), ("01", undoing, "01", undoing)]).await;
    }
    let gid = account(shop, 100).await;
    for onward in ["confirm", "commit"] {
        assert_eq!(shop.call(&gid, "01", onward, 30).await, Heard::Ran, "{onward} undoes nothing");
    }
}

/// dtm's script looks at the amount first, and refuses this repeat.
pub async fn a_repeat_for_the_last_unit_is_a_repeat(shop: &Shop) {
    let gid = account(shop, 1).await;
    assert_eq!(shop.call(&gid, "01", "action", -1).await, Heard::Ran);
    assert_eq!(shop.call(&gid, "01", "action", -1).await, Heard::Repeated);
    assert_eq!(shop.call(&gid, "02", "action", -1).await, Heard::Failure);
    assert_eq!(shop.balance(&gid).await, 0);
    // An undoing that takes away has nothing to take away, and that is no failure.
    assert_eq!(shop.call(&gid, "03", "compensate", -1).await, Heard::Empty);
}

pub async fn a_refused_call_leaves_no_mark(shop: &Shop) {
    let gid = account(shop, 10).await;
    assert_eq!(shop.call(&gid, "01", "action", -30).await, Heard::Failure);
    expect_marks(shop, &gid, &[]).await;
    assert_eq!(shop.call(&gid, "01", "action", -5).await, Heard::Ran, "afresh");
    assert_eq!(shop.balance(&gid).await, 5);
}

pub async fn a_message_is_asked_about_after_it_happened(shop: &Shop) {
    let gid = account(shop, 100).await;
    assert_eq!(shop.call(&gid, "00", "msg", -30).await, Heard::Ran);
    assert_eq!(shop.check_back(&gid).await, Heard::Ran);
    assert_eq!(shop.call(&gid, "00", "msg", -30).await, Heard::Duplicated, "never a success");
    assert_eq!(shop.check_back(&gid).await, Heard::Ran);
    assert_eq!(shop.balance(&gid).await, 70);
    expect_marks(shop, &gid, &[("00", "msg", "01", "msg")]).await;
}

pub async fn a_message_is_asked_about_before_it_happened(shop: &Shop) {
    let gid = account(shop, 100).await;
    assert_eq!(shop.check_back(&gid).await, Heard::Failure);
    assert_eq!(shop.call(&gid, "00", "msg", -30).await, Heard::Duplicated);
    assert_eq!(shop.check_back(&gid).await, Heard::Failure);
    assert_eq!(shop.balance(&gid).await, 100);
    expect_marks(shop, &gid, &[("00", "msg", "01", "rollback")]).await;
}

/// A handler of two databases, say: each of its calls is a mark of its own.
pub async fn the_calls_of_one_handler_are_counted(shop: &Shop) {
    let gid = account(shop, 100).await;
    for heard in [Heard::Ran, Heard::Repeated] {
        let mut barrier = BranchBarrier::new(BranchCall::new("saga", &gid, "01", "action").unwrap());
        assert_eq!(shop.call_with(&mut barrier, &gid, -1).await, heard);
        assert_eq!(shop.call_with(&mut barrier, &gid, -2).await, heard);
    }
    assert_eq!(shop.balance(&gid).await, 97);
    expect_marks(shop, &gid, &[("01", "action", "01", "action"), ("01", "action", "02", "action")]).await;
}

/// dtm's check-back looks into the default table, whatever the barrier's own is.
pub async fn another_table_serves_calls_and_check_backs(pool: &sqlx::SqlitePool) {
    let create = "CREATE TABLE marks (trans_type, gid, branch_id, op, barrier_id, reason, \
                  UNIQUE (gid, branch_id, op, barrier_id))";
    sqlx::query(create).execute(pool).await.unwrap();
    let call = BranchCall::new("msg", unique("elsewhere"), "00", "msg").unwrap();
    let mut barrier = BranchBarrier::new(call).with_table("marks").unwrap();
    let outcome = barrier.call(pool, async |_| Ok("done")).await.unwrap();
    assert_eq!(outcome, Outcome::Ran("done"));
    barrier.query_prepared(pool).await.expect("it happened");
    let rows: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM marks").fetch_one(pool).await.unwrap();
    assert_eq!(rows, 1);
}

/// `INSERT IGNORE` would cut it, and two transactions would share a mark.
pub async fn a_gid_that_would_be_cut_is_refused(pool: &sqlx::MySqlPool) {
    let call = |gid: String| BranchBarrier::new(BranchCall::new("saga", gid, "01", "action").unwrap());
    let error = call("g".repeat(129)).call(pool, async |_| Ok(())).await.unwrap_err();
    assert_eq!(error.to_string(), "the gid has 129 characters, and a barrier's row takes 128; nothing was done");
    assert_eq!(call("ä".repeat(128)).call(pool, async |_| Ok(())).await.unwrap(), Outcome::Ran(()));
    // The server's default collation would take these for one.
    assert_eq!(call("Case".into()).call(pool, async |_| Ok(())).await.unwrap(), Outcome::Ran(()));
    assert_eq!(call("case".into()).call(pool, async |_| Ok(())).await.unwrap(), Outcome::Ran(()));
}

pub async fn a_mark_expires_and_a_text_is_no_amount(mut redis: redis::aio::MultiplexedConnection) {
    let gid = unique("redis-only");
    let key = format!("amount:{gid}");
    let mark = format!("{gid}-01-action-01");
    let call = || BranchBarrier::new(BranchCall::new("saga", &gid, "01", "action").unwrap());
    let ttl = Duration::from_secs(100);
    let missing = call().redis_check_adjust_amount(&mut redis, &key, 1, ttl).await;
    assert!(missing.unwrap_err().is_failure(), "no such amount");
    redis::cmd("SET").arg(&key).arg("2.5").query_async::<()>(&mut redis).await.unwrap();
    let error = call().redis_check_adjust_amount(&mut redis, &key, 1, ttl).await.unwrap_err();
    assert!(matches!(error, BranchError::Other(_)), "{error}");
    let kept: Option<String> = redis::cmd("GET").arg(&mark).query_async(&mut redis).await.unwrap();
    assert_eq!(kept, None, "what changed nothing leaves no mark");
    redis::cmd("SET").arg(&key).arg("2").query_async::<()>(&mut redis).await.unwrap();
    assert_eq!(call().redis_check_adjust_amount(&mut redis, &key, 1, ttl).await.unwrap(), Outcome::Ran(3));
    let left: u64 = redis::cmd("TTL").arg(&mark).query_async(&mut redis).await.unwrap();
    assert!((1..=100).contains(&left), "{left} s");
}
