//! The same by the command line: for people and, with `--json`, for programs.

use super::{SOON, buy, sale, start};
use crate::dtm_http::wait_for;
use crate::support::app::{App, eventually};
use crate::support::services::Service;
use crate::support::shop::Answer;
use serde_json::{Value, json};
use std::process::Output;

async fn run(app: &App, arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_rushline"));
    command.args(arguments).env("RUSHLINE_SERVER", app.base()).env("RUSHLINE_OPERATOR", "anna").kill_on_drop(true);
    tokio::time::timeout(SOON, command.output()).await.expect("it ends").unwrap()
}

async fn said(app: &App, arguments: &[&str]) -> String {
    let output = run(app, arguments).await;
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

async fn json_of(app: &App, arguments: &[&str]) -> Value {
    serde_json::from_str(&said(app, &[arguments, &["--json"]].concat()).await).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_became_of_a_buyer_is_told_at_the_command_line() {
    let (app, shop) = start().await;
    sale(&app, &shop, "s", 1, json!({})).await;
    let gid = app.order("s", "k", &buy("u1", "=1+1")).await.gid().unwrap().to_owned();
    assert_eq!(app.order("s", "", &buy("u2", "")).await.status, 409);
    app.wait_until_settled("s").await;
    let why = said(&app, &["why", "u2@s"]).await;
    assert!(why.contains("was refused: not enough units were left") && why.contains("memory of node"), "{why}");
    let why = said(&app, &["why", &gid]).await;
    assert!(why.contains("sold: the order service made the order") && why.contains("script reply A"), "{why}");
    assert_eq!(json_of(&app, &["why", "u1@s"]).await["verdict"], "got");
    let unknown = run(&app, &["why", "nothing-like-this"]).await;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("hint: rushline why BUYER@SALE"));

    let list = said(&app, &["order", "list", "s", "--buyer", "u1"]).await;
    assert!(list.contains(&gid) && list.contains("1 × sku-1"), "{list}");
    assert!(said(&app, &["order", "list", "s", "--to", "-1h"]).await.contains("no orders"));
    let top = said(&app, &["top", "--once"]).await;
    assert!(top.contains("adds up") && top.contains("admitted –/s"), "{top}");
    assert_eq!(json_of(&app, &["top", "--once"]).await["sales"][0]["sale"], "s");
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_are_steered_at_the_command_line() {
    let (app, _) = start().await;
    let service = Service::start().await;
    service.answers("/stuck", &[(500, "\u{1b}[31mno disk"), (200, "")]);
    for gid in ["t1", "t2"] {
        let body = json!({"gid": gid, "trans_type": "saga", "payloads": ["{}"],
            "steps": [{"action": service.url("/stuck"), "compensate": ""}]});
        assert_eq!(app.post("/api/dtmsvr/submit", &[], &body).await.status, 200);
    }
    // One of them met the answer that fails.
    eventually("one waits", SOON, || async {
        !json_of(&app, &["txn", "list", "--attention"]).await["transactions"].as_array().unwrap().is_empty()
    })
    .await;
    let list = json_of(&app, &["txn", "list", "--attention"]).await;
    let gid = list["transactions"][0]["gid"].as_str().unwrap().to_owned();
    let shown = said(&app, &["txn", "show", &gid]).await;
    assert!(
        shown.contains("·[31mno disk") && !shown.contains('\u{1b}'),
        "a branch's words cannot steer a terminal: {shown}"
    );
    let refused = run(&app, &["txn", "stop", &gid]).await;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--yes"), "it asks first");
    let retried = json_of(&app, &["txn", "retry", "--attention", "--reason", "disk is back"]).await;
    assert_eq!(retried, json!({"tried": [gid], "failed": []}));
    wait_for(&app, "t1", "succeed").await;
    wait_for(&app, "t2", "succeed").await;
    let over = run(&app, &["txn", "stop", &gid, "--yes"]).await;
    assert!(String::from_utf8_lossy(&over.stderr).contains("is over: succeed"), "{over:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_exported_page_by_page() {
    let (app, shop) = start().await;
    sale(&app, &shop, "s", 3_000, json!({})).await;
    shop.always(Answer::Created);
    let crowd = (0..1_200).map(|n| {
        let http = app.http();
        async move { http.try_order("s", "", &buy(&format!("u{n}"), "=cmd()")).await.unwrap().status }
    });
    let answers = futures_util::future::join_all(crowd).await;
    assert!(answers.iter().all(|status| *status == 201));
    app.wait_until_settled("s").await;
    let file = tempfile::tempdir().unwrap().path().join("orders.csv");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    said(&app, &["export", "orders", "s", "--out", file.to_str().unwrap()]).await;
    let csv = std::fs::read_to_string(&file).unwrap();
    let mut lines = csv.lines();
    assert!(lines.next().unwrap().starts_with("gid,sale,buyer,status,items"));
    let gids: std::collections::BTreeSet<&str> = lines.map(|line| line.split(',').next().unwrap()).collect();
    assert_eq!(gids.len(), 1_200, "each once");
    let ndjson = said(&app, &["export", "orders", "s", "--buyer", "u7", "--format", "ndjson"]).await;
    let one: Value = serde_json::from_str(ndjson.trim()).unwrap();
    assert_eq!((&one["buyer"], &one["payload"]["coupon"]), (&json!("u7"), &json!("=cmd()")));
    let _ = std::fs::remove_dir_all(file.parent().unwrap());
}

#[tokio::test]
async fn completions_and_manuals_know_every_command() {
    let (app, _) = start().await;
    for shell in ["bash", "zsh", "fish"] {
        assert!(said(&app, &["completions", shell]).await.contains("retry"), "{shell}");
    }
    let directory = tempfile::tempdir().unwrap();
    said(&app, &["man", "--out", directory.path().to_str().unwrap()]).await;
    for page in ["rushline.1", "rushline-sale-create.1", "rushline-txn-retry.1", "rushline-why.1"] {
        let text = std::fs::read_to_string(directory.path().join(page)).unwrap();
        assert!(text.starts_with(".ie") || text.contains(".TH"), "{page}: {text}");
    }
}
