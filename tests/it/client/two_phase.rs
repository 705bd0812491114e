//! TCC and XA: first phases by the client, second ones by the server.

use super::{Stage, serve};
use rushline::client::{BranchCall, BranchError, Error, Outcome, Tcc, answer, op};
use serde_json::json;
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_tried_is_confirmed() {
    let stage = Stage::new().await;
    stage.service.answers("/try", &[(200, "{\"seat\":7}")]);
    let [first, confirm, cancel] = ["/try", "/confirm", "/cancel"].map(|path| stage.url(path));
    let tcc = stage.client.tcc("t1").branch_header("x-shop", "s1").wait_result();
    let done = tcc
        .run(|tcc| async move {
            let reply = tcc.call_branch(&first, &confirm, &cancel, &json!({ "n": 1 })).await?;
            tcc.call_branch(&first, &confirm, &cancel, &json!({ "n": 2 })).await?;
            let seat: serde_json::Value = reply.json()?;
            Ok(seat["seat"].as_u64())
        })
        .await
        .unwrap();
    assert_eq!((done.outcome, done.value), (Outcome::Succeed, Some(7)));
    assert_eq!(stage.service.steps("t1"), ["try/01", "try/02", "confirm/02", "confirm/01"]);
    let calls = stage.service.calls("t1");
    assert_eq!(calls[0].param("dtm"), format!("{}/api/dtmsvr", stage.app.base()));
    assert!(calls.iter().all(|call| call.headers["x-shop"] == "s1"));
    assert_eq!((&calls[1].body[..], &calls[2].body[..]), (&b"{\"n\":2}"[..], &b"{\"n\":2}"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_try_cancels_all_of_them() {
    let stage = Stage::new().await;
    stage.service.answers("/no", &[(409, "full")]);
    let [yes, no, confirm, cancel] = ["/yes", "/no", "/confirm", "/cancel"].map(|path| stage.url(path));
    let tries = |tcc: Tcc| async move {
        tcc.call_branch(&yes, &confirm, &cancel, &1).await?;
        tcc.call_branch(&no, &confirm, &cancel, &2).await?;
        Ok(())
    };
    let error = stage.client.tcc("t2").run(tries).await.unwrap_err();
    assert!(matches!(&error, Error::Failure { reason } if reason.contains("full")), "{error:?}");
    stage.wait_for("t2", "failed").await;
    assert_eq!(stage.service.steps("t2"), ["try/01", "try/02", "cancel/02", "cancel/01"]);
    assert!(stage.client.query("t2").await.unwrap().unwrap().rollback_reason.contains("full"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_dies_between_tries_has_them_cancelled() {
    let stage = Stage::new().await;
    let [first, confirm, cancel] = ["/try", "/confirm", "/cancel"].map(|path| stage.url(path));
    let (reached, at_work) = tokio::sync::oneshot::channel();
    let tcc = stage.client.tcc("t3").timeout_to_fail(Duration::from_millis(300));
    let dies = tokio::spawn(tcc.run(|tcc| async move {
        tcc.call_branch(&first, &confirm, &cancel, &1).await?;
        reached.send(()).unwrap();
        std::future::pending::<Result<(), BranchError>>().await
    }));
    at_work.await.unwrap();
    dies.abort();
    stage.wait_for("t3", "failed").await;
    assert_eq!(stage.service.steps("t3"), ["try/01", "cancel/01"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_try_can_have_branches_of_its_own() {
    let stage = Stage::new().await;
    let [leaf, confirm, cancel] = ["/leaf", "/confirm", "/cancel"].map(|path| stage.url(path));
    let client = stage.client.clone();
    let (leaf_confirm, leaf_cancel) = (confirm.clone(), cancel.clone());
    let middle = serve(move |query, _| {
        let (client, leaf, confirm, cancel) = (client.clone(), leaf.clone(), leaf_confirm.clone(), leaf_cancel.clone());
        async move {
            let tried = async {
                let tcc = Tcc::nested(&client, &BranchCall::from_query(&query)?)?;
                tcc.call_branch(&leaf, &confirm, &cancel, &1).await?;
                Ok(())
            };
            answer(tried.await)
        }
    })
    .await;
    let tcc = stage.client.tcc("t4").wait_result();
    tcc.run(|tcc| async move { tcc.call_branch(&middle, &confirm, &cancel, &1).await.map(|_| ()) }).await.unwrap();
    assert_eq!(stage.service.steps("t4"), ["try/0101", "confirm/0101", "confirm/01"]);
}

/// A branch with no database behind it: what it is asked, in which order.
#[tokio::test(flavor = "multi_thread")]
async fn an_xa_branch_registers_and_hears_its_second_phase() {
    let stage = Stage::new().await;
    let phases = Arc::new(Mutex::new(Vec::new()));
    let (client, noted) = (stage.client.clone(), phases.clone());
    let bank = serve(move |query, _| {
        let (client, noted) = (client.clone(), noted.clone());
        async move {
            let asked = async {
                let call = BranchCall::from_query(&query)?;
                if call.op == op::ACTION {
                    client.register_xa_branch(&call).await?;
                }
                noted.lock().unwrap().push(format!("{}/{}", call.op, call.branch_id));
                Ok(())
            };
            answer(asked.await)
        }
    })
    .await;
    let url = bank.clone();
    let work = |xa: rushline::client::Xa| async move { xa.call_branch(&url, &1).await.map(|_| ()) };
    stage.client.xa("x1").wait_result().run(work).await.unwrap();
    assert_eq!(*phases.lock().unwrap(), ["action/01", "commit/01"]);

    phases.lock().unwrap().clear();
    let fails = |xa: rushline::client::Xa| async move {
        xa.call_branch(&bank, &1).await?;
        Err::<(), _>(BranchError::failure("changed my mind"))
    };
    assert!(matches!(stage.client.xa("x2").run(fails).await, Err(Error::Failure { .. })));
    stage.wait_for("x2", "failed").await;
    assert_eq!(*phases.lock().unwrap(), ["action/01", "rollback/01"]);
}
