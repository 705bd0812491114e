//! Sagas: accepted, waited for, refused, unfinished.

use super::Stage;
use crate::support::process::free_port;
use rushline::client::{Client, Error, HeaderMap, Outcome};
use serde_json::json;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_is_carried_out_step_by_step() {
    let stage = Stage::new().await;
    let gid = stage.client.new_gid().await.unwrap();
    let headers = HeaderMap::from_iter([("x-tenant".parse().unwrap(), "t1".parse().unwrap())]);
    let outcome = stage
        .client
        .saga(&gid)
        .step(stage.url("/out"), stage.url("/out-undo"), &json!({ "amount": 30 }))
        .step(stage.url("/in"), stage.url("/in-undo"), &json!({ "amount": 30 }))
        .branch_header("x-shop", "s1")
        .passthrough(&headers, &["x-tenant", "x-absent"])
        .wait_result()
        .submit()
        .await
        .unwrap();
    assert_eq!(outcome, Outcome::Succeed);
    assert_eq!(stage.service.steps(&gid), ["action/01", "action/02"]);
    let call = &stage.service.calls(&gid)[0];
    assert_eq!(&call.body[..], b"{\"amount\":30}");
    assert_eq!((call.headers["x-shop"].to_str().unwrap(), call.headers["x-tenant"].to_str().unwrap()), ("s1", "t1"));
    let found = stage.client.query(&gid).await.unwrap().unwrap();
    assert!(found.is_final());
    let ops: Vec<&str> = found.branches.iter().map(|branch| branch.op.as_str()).collect();
    assert_eq!(ops, ["compensate", "action", "compensate", "action"]);
    assert!(stage.client.query("nobody").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_step_rolls_back_and_says_why() {
    let stage = Stage::new().await;
    stage.service.answers("/in", &[(409, "account closed")]);
    let saga = stage.client.saga("r1").step(stage.url("/out"), stage.url("/out-undo"), &1).step(
        stage.url("/in"),
        stage.url("/in-undo"),
        &1,
    );
    match saga.clone().wait_result().submit().await {
        Err(Error::Failure { reason }) => assert!(reason.contains("account closed"), "{reason}"),
        other => panic!("{other:?}"),
    }
    stage.wait_for("r1", "failed").await;
    assert_eq!(stage.service.steps("r1"), ["action/01", "action/02", "compensate/02", "compensate/01"]);
    // Asked again, it is over; it is not done again.
    assert!(matches!(saga.clone().submit().await, Err(Error::Refused(_))));
    assert!(matches!(saga.wait_result().submit().await, Err(Error::Failure { .. })));
    assert_eq!(stage.service.calls("r1").len(), 4);
}

/// dtm answers 409 to a waiting submit whose saga goes on: that must not be taken for a rollback.
#[tokio::test(flavor = "multi_thread")]
async fn unfinished_is_not_failed() {
    let stage = Stage::new().await;
    stage.service.answers("/slow", &[(425, "not yet"), (425, "not yet"), (200, "")]);
    let saga = stage.client.saga("o1").step(stage.url("/slow"), "", &1).wait_result();
    match saga.submit().await {
        Err(Error::NotFinished { gid, status }) => assert_eq!((gid.as_str(), status.as_str()), ("o1", "submitted")),
        other => panic!("{other:?}"),
    }
    stage.wait_for("o1", "succeed").await;
    // The gid means that saga now.
    let other = stage.client.saga("o1").step(stage.url("/other"), "", &1).wait_result().submit().await;
    assert!(matches!(other, Err(Error::Refused(_) | Error::Failure { .. })), "{other:?}");
    assert!(stage.service.calls("o1").iter().all(|call| call.path == "/slow"));
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_run_at_once_save_for_their_order() {
    let stage = Stage::new().await;
    stage.service.slow("/first", Duration::from_millis(150));
    let outcome = stage
        .client
        .saga("c1")
        .step(stage.url("/first"), "", &1)
        .step(stage.url("/second"), "", &2)
        .step(stage.url("/after-first"), "", &3)
        .concurrent()
        .order(2, [0])
        .retry_limit(2)
        .wait_result()
        .submit()
        .await;
    assert_eq!(outcome.unwrap(), Outcome::Succeed);
    let calls = stage.service.steps("c1");
    assert_eq!(calls.last().unwrap(), "action/03", "{calls:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_told_from_a_refusal() {
    let client = Client::http(format!("http://127.0.0.1:{}", free_port())).unwrap();
    let error = client.saga("n1").step("http://127.0.0.1:1/a", "", &1).submit().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }) && error.is_retryable(), "{error}");
    // One that accepts connections and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::http(format!("http://{}", silent.local_addr().unwrap())).unwrap();
    let error = client.with_timeout(Duration::from_millis(50)).new_gid().await.unwrap_err();
    assert!(error.to_string().contains("no answer within 50 ms"), "{error}");
    let stage = Stage::new().await;
    let error = stage.client.saga("n2").step("no url", "", &1).submit().await.unwrap_err();
    assert!(matches!(error, Error::Invalid(_)), "{error:?}");
}
