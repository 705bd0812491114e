//! `rushline import --from-dtm`: the real dtm server is stopped in the middle of its work, and rushline goes on with it.
//!
//! What a branch did is not done again, what was to be done is; a second import finds nothing, and dtm neither.

use crate::dtm_http::wait_for;
use crate::sdk::packages;
use crate::support::app::{App, AppOptions, Http, eventually};
use crate::support::process::{Process, free_port};
use crate::support::servers::{Redis, RedisVersion};
use crate::support::services::Service;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// The real dtm server, on a Redis of its own.
struct Dtm {
    process: Process,
    redis: Redis,
    http: Http,
}

impl Dtm {
    async fn start(program: PathBuf) -> Self {
        let redis = Redis::start(RedisVersion::V7, &[]).await;
        let port = free_port();
        let mut process = Process::new("dtm", PathBuf::from("env"), None);
        process.arguments(["STORE_DRIVER=redis".to_owned(), "STORE_HOST=127.0.0.1".into()]);
        process.arguments([format!("STORE_PORT={}", redis.port()), format!("HTTP_PORT={port}")]);
        process.arguments([
            format!("GRPC_PORT={}", free_port()),
            "TRANS_CRON_INTERVAL=1".into(),
            "LOG_LEVEL=error".into(),
        ]);
        process.arguments([program]);
        let http = Http::new(format!("http://127.0.0.1:{port}"));
        let asked = http.clone();
        process
            .start(|| async {
                let reply = asked.ask(http::Method::GET, "/api/dtmsvr/newGid", &[], None).await?;
                if reply.status == 200 { Ok(()) } else { Err(format!("{}", reply.status)) }
            })
            .await;
        Self { process, redis, http }
    }

    async fn ask(&self, call: &str, body: &Value) {
        let path = format!("/api/dtmsvr/{call}");
        let reply = self.http.ask(http::Method::POST, &path, &[], Some(body)).await.unwrap();
        assert_eq!(reply.status, 200, "{call} {body}: {}", reply.json);
    }

    /// Any command on its Redis.
    async fn redis<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let client = redis::Client::open(self.redis.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async(&mut connection).await.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// What its store says of a branch.
    async fn status_of(&self, gid: &str, branch: &str, op: &str) -> String {
        let rows: Vec<String> = self.redis(&["LRANGE", &format!("{{a}}_b_{gid}"), "0", "-1"]).await;
        let rows = rows.iter().map(|row| serde_json::from_str::<Value>(row).unwrap());
        let row = rows.into_iter().find(|row| row["branch_id"] == branch && row["op"] == op);
        row.map(|row| row["status"].as_str().unwrap().to_owned()).unwrap_or_default()
    }

    async fn unfinished(&self) -> Vec<String> {
        self.redis(&["ZRANGE", "{a}_u", "0", "-1"]).await
    }
}

async fn import(app: &App, dtm: &Dtm, arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_rushline"));
    command.args(["import", "--from-dtm", &dtm.redis.url()]).args(arguments);
    command.env("RUSHLINE_SERVER", app.base()).kill_on_drop(true);
    tokio::time::timeout(SOON, command.output()).await.expect("it ends").unwrap()
}

async fn report(app: &App, dtm: &Dtm, arguments: &[&str]) -> Value {
    let output = import(app, dtm, &[arguments, &["--json"]].concat()).await;
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn count(service: &Service, gid: &str, step: &str) -> usize {
    service.steps(gid).iter().filter(|called| *called == step).count()
}

/// Leaves `gid` with its first step done and its second one not, or not undone.
async fn begin(dtm: &Dtm, service: &Service) {
    let step = |gid: &str, n: u8| json!({"action": service.url(&format!("/{gid}-{n}")), "compensate": service.url(&format!("/{gid}-{n}-undo"))});
    let submit = |gid: &str, kind: &str| json!({"gid": gid, "trans_type": kind, "steps": [step(gid, 1), step(gid, 2)], "payloads": [r#"{"n":1}"#, r#"{"n":2}"#]});
    service.answers("/forward-2", &[(500, "away")]);
    dtm.ask("submit", &submit("forward", "saga")).await;
    service.answers("/message-2", &[(500, "away")]);
    dtm.ask("submit", &submit("message", "msg")).await;
    service.answers("/back-2", &[(409, "FAILURE")]);
    service.answers("/back-1-undo", &[(500, "away")]);
    dtm.ask("submit", &submit("back", "saga")).await;
    let mut sent = submit("asked", "msg");
    sent["query_prepared"] = service.url("/asked").into();
    dtm.ask("prepare", &sent).await;
    dtm.ask("prepare", &json!({"gid": "undecided", "trans_type": "tcc"})).await;
    let branch = json!({"gid": "undecided", "branch_id": "01", "trans_type": "tcc", "data": "{}",
        "confirm": service.url("/confirm"), "cancel": service.url("/cancel")});
    dtm.ask("registerBranch", &branch).await;
    for (gid, step) in [("forward", "action/02"), ("message", "action/02"), ("back", "compensate/01")] {
        eventually(&format!("{gid} gets stuck"), SOON, || async {
            count(service, gid, step) > 0 && dtm.status_of(gid, "01", "action").await == "succeed"
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_dtm_began_is_brought_to_its_end() {
    let Some(program) = packages("dtm") else { return };
    let mut dtm = Dtm::start(program).await;
    let service = Service::start().await;
    let app = App::start(AppOptions::default().quick_trans()).await;
    begin(&dtm, &service).await;

    // While it runs nothing is taken: it is seen to write.
    let busy = async {
        for n in 0.. {
            let step = json!({"action": service.url("/forward-2"), "compensate": ""});
            dtm.ask(
                "submit",
                &json!({"gid": format!("busy-{n}"), "trans_type": "saga", "steps": [step], "payloads": ["{}"]}),
            )
            .await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let refused = tokio::select! {
        output = import(&app, &dtm, &["--yes", "--watch", "2"]) => output,
        () = busy => unreachable!(),
    };
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        refused.status.code() == Some(1) && words.contains("dtm still works") && words.contains("hint: stop"),
        "{words}"
    );
    dtm.process.kill9();
    let there = dtm.unfinished().await;
    let all = there.len();
    assert!(all >= 6, "{there:?}");

    // A look changes nothing.
    let seen = report(&app, &dtm, &["--watch", "0"]).await;
    assert_eq!(
        (&seen["importable"], &seen["refused"], &seen["dry_run"]),
        (&json!(all), &json!(0), &json!(true)),
        "{seen}"
    );
    assert_eq!(dtm.unfinished().await, there);
    assert!(app.get("/v1/transactions").await.json["transactions"].as_array().unwrap().is_empty());
    let forward = seen["transactions"].as_array().unwrap().iter().find(|one| one["gid"] == "forward").unwrap();
    assert_eq!((&forward["branches"], &forward["settled"]), (&json!(4), &json!(1)), "{forward}");

    // What nobody could drive, and what an import before this one took and did not hand over.
    dtm.redis::<()>(&["SET", "{a}_g_odd", r#"{"gid":"odd","trans_type":"odd","status":"submitted"}"#]).await;
    dtm.redis::<()>(&["ZADD", "{a}_u", "1", "odd", "1", "ghost"]).await;
    dtm.redis::<()>(&["ZREM", "{a}_u", "message"]).await;
    dtm.redis::<()>(&["HSET", "{a}_rushline", "message", "1"]).await;
    for kind in ["g", "b", "s"] {
        dtm.redis::<()>(&["RENAME", &format!("{{a}}_{kind}_message"), &format!("{{a}}_rushline_{kind}_message")]).await;
    }
    let calls = service.all_calls().len();
    for path in ["/forward-2", "/message-2", "/back-1-undo"] {
        service.answers(path, &[(200, "")]);
    }
    let output = import(&app, &dtm, &["--yes", "--watch", "0", "--json"]).await;
    assert_eq!(output.status.code(), Some(1), "two of them stay: {output:?}");
    let done: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&done["imported"], &done["known"], &done["refused"]), (&json!(all), &json!(0), &json!(2)), "{done}");
    let refused = done["transactions"].as_array().unwrap().iter().filter(|one| one["outcome"] == "refused");
    let reasons: Vec<String> = refused.map(|one| format!("{}: {}", one["gid"], one["reason"])).collect();
    assert!(reasons[0].contains("ghost") && reasons[0].contains("gone"), "{reasons:?}");
    assert!(reasons[1].contains("odd") && reasons[1].contains("trans_type"), "{reasons:?}");
    assert_eq!(dtm.unfinished().await, ["ghost", "odd"], "what could not be taken is where it was");
    assert!(dtm.redis::<bool>(&["EXISTS", "{a}_g_odd"]).await);
    assert!(!dtm.redis::<bool>(&["EXISTS", "{a}_g_forward"]).await, "out of dtm's reach");
    assert!(!dtm.redis::<bool>(&["EXISTS", "{a}_rushline"]).await, "nothing is half done");

    for (gid, end) in [
        ("forward", "succeed"),
        ("message", "succeed"),
        ("asked", "succeed"),
        ("back", "failed"),
        ("undecided", "failed"),
    ] {
        wait_for(&app, gid, end).await;
    }
    assert!(service.all_calls().len() > calls);
    for gid in ["forward", "message", "back"] {
        assert_eq!(count(&service, gid, "action/01"), 1, "{gid}: what was done is not done again");
    }
    assert_eq!(count(&service, "back", "action/02"), 1, "nor what was refused");
    assert_eq!(count(&service, "undecided", "cancel/01"), 1);
    assert_eq!(count(&service, "undecided", "confirm/01"), 0);
    assert_eq!((count(&service, "asked", "msg/00"), count(&service, "asked", "action/01")), (1, 1));
    let body = service.calls("forward").last().unwrap().body.clone();
    assert_eq!(body, r#"{"n":2}"#, "the body that dtm was given");

    // Once more: nothing is left to take, and what dtm kept of one of them is known here.
    let again = report(&app, &dtm, &["--yes", "--watch", "0"]).await;
    assert_eq!((&again["imported"], &again["refused"]), (&json!(0), &json!(2)), "{again}");
    for kind in ["g", "b", "s"] {
        dtm.redis::<()>(&["RENAME", &format!("{{a}}_rushline_{kind}_forward"), &format!("{{a}}_{kind}_forward")]).await;
    }
    dtm.redis::<()>(&["ZADD", "{a}_u", "1", "forward"]).await;
    let again = report(&app, &dtm, &["--yes", "--watch", "0"]).await;
    assert_eq!((&again["imported"], &again["known"]), (&json!(0), &json!(1)), "{again}");
    assert_eq!(count(&service, "forward", "action/02"), service.steps("forward").len() - 1);
    assert_eq!(service.doubled(), Vec::<String>::new());
}
