//! The same over gRPC: coordinator, branches, check-backs and callbacks.

use super::{SOON, serve_router};
use crate::support::app::{App, AppOptions, eventually};
use rushline::client::{
    BranchCall, BranchError, Bytes, Client, Error, Outcome, Payload, Tcc, Workflow, WorkflowServer,
};
use rushline::proto::dtmgimp::DtmGidReply;
use rushline::proto::workflow::WorkflowData;
use rushline::proto::workflow::workflow_server::Workflow as Service;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tonic::{Request, Response, Status};

/// A gRPC service that notes who calls, and answers as it is told. Its one method takes bytes and answers nothing.
#[derive(Clone, Default)]
struct Remote {
    calls: Arc<Mutex<Vec<(String, String)>>>,
    /// By `op/branch_id`; told once.
    answers: Arc<Mutex<HashMap<String, BranchError>>>,
}

#[tonic::async_trait]
impl Service for Remote {
    async fn execute(&self, request: Request<WorkflowData>) -> Result<Response<()>, Status> {
        let (metadata, _, message) = request.into_parts();
        let call = BranchCall::from_headers(&metadata.into_headers()).map_err(BranchError::from)?;
        let step = format!("{}/{}", call.op, call.branch_id);
        let told = self.answers.lock().unwrap().remove(&step);
        let noted = format!("{step} {}", String::from_utf8_lossy(&message.data));
        self.calls.lock().unwrap().push((call.gid, noted.trim_end().to_owned()));
        told.map_or(Ok(Response::new(())), |error| Err(error.into()))
    }
}

impl Remote {
    fn answers(&self, step: &str, error: BranchError) {
        self.answers.lock().unwrap().insert(step.to_owned(), error);
    }

    fn steps(&self, gid: &str) -> Vec<String> {
        self.calls.lock().unwrap().iter().filter(|(called, _)| called == gid).map(|(_, step)| step.clone()).collect()
    }
}

struct Stage {
    _app: App,
    client: Client,
    /// To ask how it stands: dtm's gRPC interface has no word for that.
    over_http: Client,
    server: String,
    remote: Remote,
    /// The method of `remote`.
    url: String,
}

fn method(address: std::net::SocketAddr) -> String {
    format!("{address}/workflow.Workflow/Execute")
}

fn data(text: &str) -> Payload {
    Payload::message(&WorkflowData { data: Bytes::from(text.to_owned()) })
}

impl Stage {
    async fn new() -> Self {
        let app = App::start(AppOptions::default().quick_trans()).await;
        let remote = Remote::default();
        let routes = tonic::service::Routes::new(WorkflowServer::new(remote.clone()));
        let url = method(serve_router(routes.into_axum_router()).await);
        let server = app.base().trim_start_matches("http://").to_owned();
        let over_http = Client::http(app.base()).unwrap();
        Self { client: Client::grpc(&server).unwrap(), over_http, _app: app, server, remote, url }
    }

    async fn wait_for(&self, gid: &str, status: &str) {
        eventually(&format!("{gid} is {status}"), SOON, || async {
            self.over_http.query(gid).await.unwrap().is_some_and(|found| found.status == status)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_over_grpc_succeeds_is_refused_or_goes_on() {
    let stage = Stage::new().await;
    let gid = stage.client.new_gid().await.unwrap();
    let saga = |gid: &str| {
        let saga = stage.client.saga(gid).step(&stage.url, &stage.url, data("one"));
        saga.step(&stage.url, &stage.url, data("two")).wait_result()
    };
    assert_eq!(saga(&gid).submit().await.unwrap(), Outcome::Succeed);
    assert_eq!(stage.remote.steps(&gid), ["action/01 one", "action/02 two"]);

    stage.remote.answers("action/02", BranchError::failure("no room"));
    let error = saga("g2").submit().await.unwrap_err();
    assert!(matches!(&error, Error::Failure { reason } if reason.contains("no room")), "{error:?}");
    assert_eq!(stage.remote.steps("g2")[2..], ["compensate/02 two", "compensate/01 one"]);

    stage.remote.answers("action/01", BranchError::ongoing("not yet"));
    let error = saga("g3").submit().await.unwrap_err();
    assert!(matches!(error, Error::NotFinished { .. }), "{error:?}");
    stage.wait_for("g3", "succeed").await;
    assert_eq!(saga("g3").submit().await.unwrap(), Outcome::Succeed, "asked again, it is over");
    assert!(matches!(saga("g2").submit().await, Err(Error::Failure { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_over_grpc_follows_its_local_part() {
    let stage = Stage::new().await;
    let message = |gid: &str| stage.client.msg(gid).step(&stage.url, data("paid")).wait_result();
    let done = message("m1").do_and_submit(&stage.url, |_| async { Ok(1) }).await.unwrap();
    assert_eq!((done.outcome, done.value), (Outcome::Succeed, Some(1)));
    let lost = || async { Err::<u32, _>(BranchError::other("the line broke")) };
    let done = message("m2").do_and_submit(&stage.url, |_| lost()).await.unwrap();
    assert_eq!(done.value, None);
    assert_eq!(stage.remote.steps("m2"), ["msg/00", "action/01 paid"]);
    stage.remote.answers("msg/00", BranchError::failure("never happened"));
    assert!(matches!(message("m3").do_and_submit(&stage.url, |_| lost()).await, Err(Error::Failure { .. })));
    stage.wait_for("m3", "failed").await;
    // Nobody submits: the coordinator asks.
    let left = message("m4").timeout_to_fail(Duration::from_millis(300)).prepare(&stage.url).await.unwrap();
    drop(left);
    stage.wait_for("m4", "succeed").await;
    assert_eq!(stage.remote.steps("m4"), ["msg/00", "action/01 paid"]);
    stage.client.subscribe("points", &stage.url, "").await.unwrap();
    stage.client.msg("m5").topic("points", data("7")).wait_result().submit().await.unwrap();
    assert_eq!(stage.remote.steps("m5"), ["action/01 7"]);
    stage.client.delete_topic("points").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tries_over_grpc_are_confirmed_or_cancelled() {
    let stage = Stage::new().await;
    let url = stage.url.clone();
    let tries = |tcc: Tcc| async move {
        tcc.call_branch(&url, &url, &url, data("a")).await?;
        tcc.call_branch(&url, &url, &url, data("b")).await?;
        Ok(())
    };
    stage.client.tcc("t1").wait_result().run(tries.clone()).await.unwrap();
    assert_eq!(stage.remote.steps("t1"), ["try/01 a", "try/02 b", "confirm/02 b", "confirm/01 a"]);
    stage.remote.answers("try/02", BranchError::failure("full"));
    let error = stage.client.tcc("t2").run(tries).await.unwrap_err();
    assert!(matches!(&error, Error::Failure { reason } if reason.contains("full")), "{error:?}");
    stage.wait_for("t2", "failed").await;
    assert_eq!(stage.remote.steps("t2")[2..], ["cancel/02 b", "cancel/01 a"]);
}

/// The first run stops at its second step; the callback, over gRPC too, has it finished.
#[tokio::test(flavor = "multi_thread")]
async fn a_workflow_over_grpc_is_continued_by_its_callback() {
    let stage = Stage::new().await;
    let (server, url) = (stage.server.clone(), stage.url.clone());
    stage.remote.answers("action/02", BranchError::other("away"));
    let handler = move |wf: Workflow, input: Bytes| {
        let (server, url) = (server.clone(), url.clone());
        async move {
            // Any unary method will do; this one answers something.
            let made: DtmGidReply = wf.branch()?.call(format!("{server}/dtmgimp.Dtm/NewGid"), &()).await?;
            let commit = url.clone();
            let branch =
                wf.branch()?.on_commit(move |step| async move { step.post(&commit, data("kept")).await.map(|_| ()) });
            branch.call::<()>(&url, &WorkflowData { data: input }).await?;
            Ok(Bytes::from(made.gid))
        }
    };
    // The address must be known before the workflows are, and they before their service.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let callback = method(listener.local_addr().unwrap());
    let workflows = stage.client.workflows(callback).retry_interval(Duration::from_secs(1));
    let workflows = workflows.register("w", handler).unwrap();
    let routes = tonic::service::Routes::new(WorkflowServer::new(workflows.clone()));
    super::serve_on(listener, routes.into_axum_router());

    let error = workflows.execute("w", "w1", "in").await.unwrap_err();
    assert!(matches!(error, Error::Interrupted { .. }), "{error:?}");
    stage.wait_for("w1", "succeed").await;
    assert_eq!(stage.remote.steps("w1"), ["action/02 in", "action/02 in", "commit/02 kept"]);
    let result = workflows.execute("w", "w1", "in").await.unwrap();
    assert!(!result.is_empty(), "dtm forgets the result of a gRPC workflow; rushline does not");
}
