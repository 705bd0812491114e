//! Finished transactions leave Redis for the records, and whoever asks about one notices nothing.
//!
//! "Before" and "after" are made by holding the leases on the drain, as another node would.

mod faults;
mod lists;
mod repeats;

pub use faults::the_records_are_away_for_a_while;

use super::{ask, must, query, saga, wait_for, waiting, with};
use crate::support::app::{App, AppOptions, eventually};
use crate::support::crowd::ask_redis_at;
use crate::support::services::Service;
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
const PARTITIONS: u16 = 16;

fn lease_key(partition: u16) -> String {
    format!("rl:{{T/{partition}}}:drain")
}

/// Nothing is drained from here on until [`let_drain`].
async fn hold(app: &App) {
    eventually("nobody drains", SOON, || async {
        for partition in 0..PARTITIONS {
            let taken = ["SET", &lease_key(partition), "the test", "NX"];
            let _: Option<String> = ask_redis_at(&app.redis_url(), &taken).await;
        }
        let keys: Vec<String> = (0..PARTITIONS).map(lease_key).collect();
        let ask: Vec<&str> = std::iter::once("MGET").chain(keys.iter().map(String::as_str)).collect();
        let held: Vec<Option<String>> = ask_redis_at(&app.redis_url(), &ask).await;
        held.iter().all(|holder| holder.as_deref() == Some("the test"))
    })
    .await;
}

async fn let_drain(app: &App) {
    let keys: Vec<String> = (0..PARTITIONS).map(lease_key).collect();
    let ask: Vec<&str> = std::iter::once("DEL").chain(keys.iter().map(String::as_str)).collect();
    let _: u64 = ask_redis_at(&app.redis_url(), &ask).await;
}

async fn keys(app: &App, pattern: &str) -> Vec<String> {
    let mut keys: Vec<String> = ask_redis_at(&app.redis_url(), &["KEYS", pattern]).await;
    keys.sort();
    keys
}

/// Waits until no finished transaction is listed in Redis.
async fn wait_until_drained(app: &App) {
    eventually("all are drained", SOON, || async {
        keys(app, "rl:{T/*}:i:succeed:*").await.is_empty() && keys(app, "rl:{T/*}:i:failed:*").await.is_empty()
    })
    .await;
}

fn begin(gid: &str, trans_type: &str) -> Value {
    json!({ "gid": gid, "trans_type": trans_type, "concurrent": false, "protocol": "", "timeout_to_fail": 20 })
}

fn workflow(service: &Service, gid: &str) -> Value {
    json!({ "gid": gid, "trans_type": "workflow", "protocol": "http", "query_prepared": service.url("/wf"),
        "custom_data": "{\"name\":\"w\",\"data\":\"aGVsbG8=\"}", "concurrent": false })
}

fn workflow_end(gid: &str, status: &str) -> Value {
    json!({ "gid": gid, "trans_type": "workflow",
        "req_extra": { "status": status, "rollback_reason": "because", "result": "cmVz" } })
}

/// One of every mode and end. Their gids begin with `name`.
async fn finish_one_of_each(app: &App, service: &Service, name: &str) -> Vec<String> {
    let gid = |kind: &str| format!("{name}-{kind}");
    service.answers("/no", &[(409, "no \u{0} way")]);
    service.answers("/later", &[(500, ""), (200, "")]);
    let body = with(saga(service, &gid("saga"), &["a", "later"]), "branch_headers", json!({ "X-Tenant": "7" }));
    must(app, "submit", &with(body, "retry_interval", json!(1))).await;
    must(app, "submit", &saga(service, &gid("undone"), &["a", "no", "b"])).await;
    let message = with(saga(service, &gid("msg"), &["a", "b"]), "trans_type", json!("msg"));
    must(app, "submit", &waiting(message)).await;
    let message = with(saga(service, &gid("aborted"), &["a"]), "trans_type", json!("msg"));
    must(app, "prepare", &message).await;
    must(app, "abort", &with(message, "rollback_reason", json!("no money"))).await;
    for (kind, trans_type, end) in
        [("tcc", "tcc", "submit"), ("cancelled", "tcc", "abort"), ("xa", "xa", "submit"), ("xa-back", "xa", "abort")]
    {
        must(app, "prepare", &begin(&gid(kind), trans_type)).await;
        for branch_id in ["01", "0101"] {
            let branch = json!({ "gid": gid(kind), "trans_type": trans_type, "branch_id": branch_id,
                "data": "{\"n\":1}", "url": service.url("/xa"), "confirm": service.url("/confirm"),
                "cancel": service.url("/cancel") });
            must(app, "registerBranch", &branch).await;
        }
        must(app, end, &begin(&gid(kind), trans_type)).await;
    }
    for (kind, end) in [("done", "succeed"), ("given-up", "failed")] {
        assert_eq!(ask(app, "prepareWorkflow", &workflow(service, &gid(kind))).await.status, 200);
        let step = json!({ "gid": gid(kind), "trans_type": "workflow", "branch_id": "01", "op": "action",
            "status": "succeed", "data": "d\u{0}ne" });
        must(app, "registerBranch", &step).await;
        must(app, "submit", &workflow_end(&gid(kind), end)).await;
    }
    let ends = [
        ("saga", "succeed"),
        ("undone", "failed"),
        ("msg", "succeed"),
        ("aborted", "failed"),
        ("tcc", "succeed"),
        ("cancelled", "failed"),
        ("xa", "succeed"),
        ("xa-back", "failed"),
        ("done", "succeed"),
        ("given-up", "failed"),
    ];
    for (kind, end) in ends {
        wait_for(app, &gid(kind), end).await;
    }
    ends.iter().map(|(kind, _)| gid(kind)).collect()
}

/// Told on each database: what `query`, `all` and `prepareWorkflow` say of every mode, with branches and results, is the
/// same word for word when it comes from there.
pub async fn every_mode_reads_the_same_from(records: &str) {
    let service = Service::start().await;
    let app = App::start(AppOptions::default().quick_trans().records(records)).await;
    hold(&app).await;
    let gids = finish_one_of_each(&app, &service, "each").await;
    let look = async || {
        let mut seen = Vec::new();
        for gid in &gids {
            let found = query(&app, gid).await;
            assert!(!found["branches"].as_array().unwrap().is_empty(), "{gid}: {found}");
            seen.push(found);
        }
        seen.push(app.get("/api/dtmsvr/all?limit=50").await.json);
        seen.push(ask(&app, "prepareWorkflow", &workflow(&service, "each-done")).await.json);
        seen
    };
    let before = look().await;
    assert_eq!(before[gids.len()]["transactions"].as_array().unwrap().len(), gids.len());
    let_drain(&app).await;
    wait_until_drained(&app).await;
    for (before, after) in before.iter().zip(look().await) {
        assert_eq!(*before, after);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_stays_in_redis() {
    let service = Service::start().await;
    let options = AppOptions::default().quick_trans();
    let app = App::start(options.setting("trans.remember_finished_ms", 0)).await;
    // A node that has just begun has not said yet that it is there; that stays.
    eventually("the node is known", SOON, || async { !keys(&app, "rl:nodes").await.is_empty() }).await;
    let empty = keys(&app, "*").await;
    let gids = finish_one_of_each(&app, &service, "none").await;
    for i in 0..300 {
        must(&app, "submit", &saga(&service, &format!("none-{i}"), &["a", "b"])).await;
    }
    eventually("Redis is as it was", SOON, || async { keys(&app, "*").await == empty }).await;
    for gid in &gids {
        assert_eq!(query(&app, gid).await["transaction"]["gid"], gid.as_str());
    }
    assert_eq!(app.get("/api/dtmsvr/all?limit=1000").await.json["transactions"].as_array().unwrap().len(), 310);
}
