//! Two-phase messages: what the local part says decides, whoever is asked.

use super::Stage;
use rushline::client::{BranchError, Error, Msg, Outcome};
use std::time::Duration;

impl Stage {
    fn message(&self, gid: &str) -> Msg {
        self.client.msg(gid).step(self.url("/one"), &1).step(self.url("/two"), &2)
    }

    /// The calls but those of the check-back.
    fn carried_out(&self, gid: &str) -> Vec<String> {
        self.service.steps(gid).into_iter().filter(|step| step != "msg/00").collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_local_part_decides_over_the_message() {
    let stage = Stage::new().await;
    let back = stage.url("/back");
    let done = stage
        .message("m1")
        .wait_result()
        .do_and_submit(&back, |call| async move {
            assert_eq!((call.gid.as_str(), call.branch_id.as_str(), call.op.as_str()), ("m1", "00", "msg"));
            Ok(42)
        })
        .await
        .unwrap();
    assert_eq!((done.outcome, done.value), (Outcome::Succeed, Some(42)));
    assert_eq!(stage.service.steps("m1"), ["action/01", "action/02"]);

    let refused = stage.message("m2").do_and_submit(&back, |_| async { Err::<(), _>(BranchError::failure("no")) });
    assert!(matches!(refused.await, Err(Error::Failure { reason }) if reason == "no"));
    stage.wait_for("m2", "failed").await;
    assert!(stage.service.calls("m2").is_empty());

    let unasked = stage.message("m3").do_and_submit("", |_| async { Ok(()) }).await;
    assert!(matches!(unasked, Err(Error::Invalid(_))), "it would be taken for committed");
    let plain = stage.message("m4").submit().await.unwrap();
    assert_eq!(plain, Outcome::Submitted);
    stage.wait_for("m4", "succeed").await;
}

/// A commit whose answer was lost: the local part says neither yes nor no, so its barrier is asked.
#[tokio::test(flavor = "multi_thread")]
async fn an_unclear_local_part_is_asked_back() {
    let stage = Stage::new().await;
    let lost = || async { Err::<u32, _>(BranchError::other("the line broke during the commit")) };

    let done = stage.message("q1").do_and_submit(stage.url("/yes"), |_| lost()).await.unwrap();
    assert_eq!(done.value, None, "it happened, and what it returned is lost");
    stage.wait_for("q1", "succeed").await;
    assert_eq!(stage.carried_out("q1"), ["action/01", "action/02"]);

    stage.service.answers("/no", &[(409, "")]);
    let error = stage.message("q2").do_and_submit(stage.url("/no"), |_| lost()).await.unwrap_err();
    assert!(matches!(error, Error::Failure { .. }), "{error:?}");
    stage.wait_for("q2", "failed").await;

    stage.service.answers("/later", &[(500, ""), (425, ""), (200, "")]);
    let error = stage.message("q3").do_and_submit(stage.url("/later"), |_| lost()).await.unwrap_err();
    assert!(matches!(error, Error::Undecided { .. }), "{error:?}");
    stage.wait_for("q3", "succeed").await;
    assert_eq!(stage.carried_out("q3"), ["action/01", "action/02"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_dies_before_the_submit_leaves_it_to_the_check_back() {
    let stage = Stage::new().await;
    let (reached, at_work) = tokio::sync::oneshot::channel();
    let message = stage.message("d1").timeout_to_fail(Duration::from_millis(300));
    let back = stage.url("/back");
    let dies = tokio::spawn(message.do_and_submit(back, |_| async {
        reached.send(()).unwrap();
        std::future::pending::<Result<(), BranchError>>().await
    }));
    at_work.await.unwrap();
    dies.abort();
    stage.wait_for("d1", "succeed").await;
    assert_eq!(stage.service.steps("d1"), ["msg/00", "action/01", "action/02"]);

    // One that comes too late hears so.
    stage.service.answers("/rolled-back", &[(409, "")]);
    let late = stage.message("d2").timeout_to_fail(Duration::from_millis(300));
    let late = late.prepare(stage.url("/rolled-back")).await.unwrap();
    stage.wait_for("d2", "failed").await;
    assert!(matches!(late.submit().await, Err(Error::Refused(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_reaches_its_subscribers_and_a_delay_holds_back() {
    let stage = Stage::new().await;
    stage.client.subscribe("points", &stage.url("/points"), "loyalty").await.unwrap();
    let error = stage.client.subscribe("points", &stage.url("/points"), "").await.unwrap_err();
    assert!(matches!(&error, Error::Unexpected { message, .. } if message.contains("exists")), "{error:?}");
    stage.client.msg("t1").topic("points", &7).wait_result().submit().await.unwrap();
    assert_eq!(stage.service.calls("t1")[0].path, "/points");

    let delayed = stage.message("t2").delay(Duration::from_secs(600)).concurrent().submit().await.unwrap();
    assert_eq!(delayed, Outcome::Submitted);
    let found = stage.app.get("/api/dtmsvr/query?gid=t2").await.json;
    assert!(found["transaction"]["custom_data"].as_str().unwrap().contains("\"delay\":600"), "{found}");
    assert!(stage.service.calls("t2").is_empty());

    stage.client.unsubscribe("points", &stage.url("/points")).await.unwrap();
    stage.client.delete_topic("points").await.unwrap();
    assert!(stage.client.msg("t3").topic("points", &7).submit().await.is_err());
}
