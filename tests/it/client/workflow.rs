//! Workflows: run to the end, undone, continued after a death.

use super::{SOON, Stage, serve};
use crate::support::app::eventually;
use rushline::client::{BranchError, Bytes, Client, Error, Workflows};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// Later than any test lasts: nobody calls back.
const LATER_S: u64 = 600;

type Notes = Arc<Mutex<Vec<String>>>;

/// A process with workflows: its callback URL is served as long as the test runs, and called after `again_s`.
async fn workflows(client: &Client, again_s: u64, register: impl FnOnce(Workflows) -> Workflows) -> Workflows {
    let known: Arc<OnceLock<Workflows>> = Arc::default();
    let callback = known.clone();
    let url = serve(move |query, body| {
        let known = callback.clone();
        async move { known.get().expect("set before anything runs").resume(&query, body).await }
    })
    .await;
    let workflows = register(client.workflows(url).retry_interval(Duration::from_secs(again_s)));
    known.set(workflows.clone()).ok();
    workflows
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workflow_runs_its_steps_and_keeps_its_result() {
    let stage = Stage::new().await;
    stage.service.answers("/out", &[(200, "{\"left\":70}")]);
    let (out, notes) = (stage.url("/out"), Notes::default());
    let noted = notes.clone();
    let workflows = workflows(&stage.client, LATER_S, |workflows| {
        let transfer = move |wf: rushline::client::Workflow, input: Bytes| {
            let (out, notes) = (out.clone(), noted.clone());
            async move {
                assert_eq!(&input[..], b"30");
                let confirmed = notes.clone();
                let branch = wf.branch()?.on_commit(move |step| async move {
                    confirmed.lock().unwrap().push(format!("{}/{}", step.call().op, step.call().branch_id));
                    Ok(())
                });
                let left: serde_json::Value = branch.post(&out, &30).await?.json()?;
                let local = wf.do_branch(|step| async move {
                    notes.lock().unwrap().push(format!("{}/{}", step.call().op, step.call().branch_id));
                    Ok(Bytes::from_static(b"local"))
                });
                assert_eq!(local.await?, "local");
                Ok(Bytes::from(left["left"].to_string()))
            }
        };
        workflows.register("transfer", transfer).unwrap()
    })
    .await;
    assert_eq!(workflows.execute("transfer", "w1", "30").await.unwrap(), "70");
    assert_eq!(*notes.lock().unwrap(), ["action/02", "commit/01"]);
    // The result is read back; nothing runs again.
    assert_eq!(workflows.execute("transfer", "w1", "30").await.unwrap(), "70");
    assert_eq!((stage.service.calls("w1").len(), notes.lock().unwrap().len()), (1, 2));
    stage.wait_for("w1", "succeed").await;
    assert!(matches!(workflows.execute("nobody", "w2", "").await, Err(Error::Invalid(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_step_undoes_those_before_it_last_first() {
    let stage = Stage::new().await;
    stage.service.answers("/c", &[(409, "no room")]);
    let base = stage.url("");
    let workflows = workflows(&stage.client, LATER_S, |workflows| {
        let book = move |wf: rushline::client::Workflow, _| {
            let base = base.clone();
            async move {
                for name in ["a", "b", "c"] {
                    let undo = format!("{base}/{name}-undo");
                    let branch =
                        wf.branch()?.on_rollback(move |step| async move { step.post(&undo, &0).await.map(|_| ()) });
                    branch.post(format!("{base}/{name}"), &1).await?;
                }
                Ok(Bytes::new())
            }
        };
        workflows.register("book", book).unwrap()
    })
    .await;
    for _ in 0..2 {
        match workflows.execute("book", "f1", "").await {
            Err(Error::Failure { reason }) => assert!(reason.contains("no room"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
    // Nothing of `c` is undone: it refused, so it did not happen.
    let paths: Vec<String> = stage.service.calls("f1").iter().map(|call| call.path.clone()).collect();
    assert_eq!(paths, ["/a", "/b", "/c", "/b-undo", "/a-undo"]);
    assert_eq!(stage.service.steps("f1")[3], "rollback/02");
    stage.wait_for("f1", "failed").await;
}

/// The process dies in the middle; the callback reaches another one, which goes on where this one was.
#[tokio::test(flavor = "multi_thread")]
async fn a_workflow_whose_process_died_is_continued() {
    let stage = Stage::new().await;
    let (first, last) = (stage.url("/first"), stage.url("/last"));
    let runs: Notes = Notes::default();
    let (reached, mut at_work) = tokio::sync::mpsc::unbounded_channel();
    let noted = runs.clone();
    let workflows = workflows(&stage.client, 1, |workflows| {
        let handler = move |wf: rushline::client::Workflow, input: Bytes| {
            let (first, last, runs, reached) = (first.clone(), last.clone(), noted.clone(), reached.clone());
            async move {
                wf.branch()?.post(&first, &1).await?;
                let run = {
                    let mut runs = runs.lock().unwrap();
                    runs.push(String::from_utf8_lossy(&input).into_owned());
                    runs.len()
                };
                if run == 1 {
                    reached.send(()).unwrap();
                    std::future::pending::<()>().await; // the death comes here
                }
                if run == 2 {
                    return Err(BranchError::other("a database is away"));
                }
                wf.branch()?.post(&last, &2).await?;
                Ok(Bytes::from_static(b"made it"))
            }
        };
        workflows.register("long", handler).unwrap()
    })
    .await;
    let running = workflows.clone();
    let dies = tokio::spawn(async move { running.execute("long", "l1", "in").await });
    at_work.recv().await.unwrap();
    dies.abort();
    stage.wait_for("l1", "succeed").await;
    assert_eq!(*runs.lock().unwrap(), ["in", "in", "in"], "the input came back with the callback");
    assert_eq!(stage.service.steps("l1"), ["action/01", "action/02"], "what had ended was read back");
    assert_eq!(workflows.execute("long", "l1", "in").await.unwrap(), "made it");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_workflow_says_that_it_goes_on() {
    let stage = Stage::new().await;
    stage.service.answers("/busy", &[(425, "still at it"), (200, "")]);
    let busy = stage.url("/busy");
    let workflows = workflows(&stage.client, 1, |workflows| {
        let handler = move |wf: rushline::client::Workflow, _| {
            let busy = busy.clone();
            async move { wf.branch()?.post(&busy, &1).await.map(|reply| reply.into_bytes()) }
        };
        workflows.register("busy", handler).unwrap()
    })
    .await;
    let error = workflows.execute("busy", "i1", "").await.unwrap_err();
    assert!(matches!(&error, Error::Interrupted { cause: BranchError::Ongoing(_), .. }), "{error:?}");
    stage.wait_for("i1", "succeed").await;
    eventually("called twice", SOON, || async { stage.service.calls("i1").len() == 2 }).await;
}
