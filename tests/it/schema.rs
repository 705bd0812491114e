//! The description of the HTTP interface against strangers: schemathesis reads it, asks a real server thousands of things that
//! it allows and that it does not, and compares each answer with what is described. `api.rs` asks what we thought of.
//!
//! `tests/book/install.sh` gets it. To ask more: `RUSHLINE_TEST_EXAMPLES=500 cargo test --test it -- schema`, and
//! `RUSHLINE_TEST_SEED` for other questions.

use crate::book::tool;
use crate::support::app::{App, AppOptions};
use crate::support::shop::Shop;
use serde_json::{Value, json};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// Questions about one request, in each phase; the whole takes about half a minute.
const EXAMPLES: &str = "15";
const SEED: &str = "20261122";
const WAIT_MAX: Duration = Duration::from_secs(300);
/// What is compared. Left out is what the description does not say: which of the requests that have the right form are
/// accepted, since that depends on what there is.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
    response_schema_conformance,negative_data_rejection,unsupported_method,allow_header_conformance";
/// They end when the client goes; `http/events.rs` and `queries/` read them.
const STREAMS: [&str; 2] = ["/v1/live", "/v1/orders/{gid}/events"];

/// The description without `default`: an answer that a stranger can bring about is described by its own status.
fn strict() -> Value {
    let mut description: Value = serde_json::from_str(include_str!("../../src/server/openapi.json")).unwrap();
    for path in description["paths"].as_object_mut().unwrap().values_mut() {
        for operation in path.as_object_mut().unwrap().values_mut() {
            operation["responses"].as_object_mut().unwrap().remove("default");
        }
    }
    description
}

/// Sales, orders and transactions in every state that somebody could ask about; their names, for the questions.
async fn fill(app: &App, shop: &Shop) -> Value {
    let sale = |name: &str| {
        json!({"sale": name, "items": [{"sku": "sku-1", "units": 1_000_000}], "durability": "memory",
            "order_endpoint": {"url": shop.url()}})
    };
    let mut held = sale("held");
    held["reserve_for_ms"] = json!(3_600_000);
    app.create_sale(&sale("nov22")).await;
    app.create_sale(&held).await;
    let order = json!({"buyer": "u1", "items": [{"sku": "sku-1", "quantity": 2}], "payload": {"x": 1}});
    let mut gids = Vec::new();
    for (sale, orders) in [("nov22", 3), ("held", 6)] {
        for number in 0..orders {
            let placed = app.order(sale, &format!("k{number}"), &order).await;
            gids.push(placed.gid().unwrap().to_owned());
        }
    }
    app.wait_until_settled("nov22").await;
    let transactions: Vec<String> = (0..4).map(|number| format!("t{number}")).collect();
    for gid in &transactions {
        let prepared = json!({"gid": gid, "trans_type": "tcc", "timeout_to_fail": 3_600});
        assert_eq!(app.post("/api/dtmsvr/prepare", &[], &prepared).await.status, 200);
    }
    let gids = [gids, transactions].concat();
    json!({"sales": ["nov22", "held"], "gids": gids, "buyers": ["u1"]})
}

/// Where a name belongs, one that there is stands more often than not.
fn settings(names: &Value) -> String {
    let dictionaries =
        ["sales", "gids", "buyers"].map(|name| format!("[dictionaries.{name}]\nvalues = {}\n", names[name]));
    let parameters =
        [("path.sale", "sales"), ("path.gid", "gids"), ("path.buyer", "buyers"), ("query.buyer", "buyers")]
            .map(|(parameter, name)| format!("\"{parameter}\" = {{ dictionary = \"{name}\", probability = 0.7 }}\n"));
    format!("{}[parameters]\n{}", dictionaries.concat(), parameters.concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_to_a_stranger_is_as_it_is_described() {
    let Some(packages) = tool("schemathesis") else { return };
    // A stranger may ask to wait for a day.
    let (app, shop) = (App::start(AppOptions::default().setting("http.wait_ms_max", 20)).await, Shop::start().await);
    let names = fill(&app, &shop).await;
    let directory = tempfile::tempdir().unwrap();
    let [description, config] = ["openapi.json", "schemathesis.toml"].map(|name| directory.path().join(name));
    std::fs::write(&description, strict().to_string()).unwrap();
    std::fs::write(&config, settings(&names)).unwrap();
    let asked = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());

    let mut command = Command::new("python3");
    command.args(["-m", "schemathesis.cli", "--config-file"]).arg(&config).arg("run").arg(&description);
    command.args([
        "--url",
        &app.base(),
        "--no-color",
        "--warnings",
        "off",
        "--continue-on-failure",
        "--checks",
        CHECKS,
    ]);
    command.args([
        "--phases",
        "examples,coverage,fuzzing",
        "--suppress-health-check",
        "all",
        "--request-timeout",
        "20",
    ]);
    command.args(["--generation-database", "none", "--no-shrink"]);
    command.args(["--seed", &asked("RUSHLINE_TEST_SEED", SEED)]);
    command.args(["--max-examples", &asked("RUSHLINE_TEST_EXAMPLES", EXAMPLES)]);
    for stream in STREAMS {
        command.args(["--exclude-path", stream]);
    }
    command.current_dir(directory.path()).env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let output = tokio::time::timeout(WAIT_MAX, command.spawn().unwrap().wait_with_output()).await;
    let output = output.unwrap_or_else(|_| panic!("no end within {WAIT_MAX:?}")).unwrap();
    let [said, wrong] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{}\n{said}{wrong}", output.status);
    // It must have asked, and have been answered in earnest.
    println!("{said}");
    let orders = app.get("/v1/sales/nov22").await.json;
    assert_eq!(orders["status"].as_str().map(str::is_empty), Some(false), "{orders}");
    assert_eq!(app.metric("rushline_redis_usable").await, 1.0);
}
