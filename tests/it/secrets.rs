//! Threats T11 and T16: what is secret is shown nowhere, payloads stand in no log, metric, trace or alert, and no caller can
//! make the metrics grow.

use crate::support::app::{App, AppOptions, eventually};
use crate::support::collector::Collector;
use crate::support::crowd::ask_redis_at;
use crate::support::process::free_port;
use crate::support::servers::{Redis, RedisVersion};
use crate::support::services::Service;
use crate::support::shop::{Answer, Shop};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
/// What every secret holds; the rest says whose it is.
const SECRET: &str = "canary7f3a";
/// The base64 of such a secret.
const SIGNING: &str = "whsec_Y2FuYXJ5N2YzYS1jYW5hcnk3ZjNhLWNhbmFyeQ==";
const SIGNING_PART: &str = "Y2FuYXJ5N2YzYS1jYW5h";
const PAYLOAD: &str = "canary-of-a-payload";

/// All settings that hold secrets, with one in each.
fn secrets(redis: &Redis, records: &str, collector: &str) -> Vec<(&'static str, String)> {
    // Who looks for a MongoDB that is away looks for half a minute.
    let quickly = if records == "mongodb" { "serverSelectionTimeoutMS=300" } else { "" };
    let away = || format!("127.0.0.1:{}", free_port());
    vec![
        ("RUSHLINE_REDIS_URL", format!("redis://:{SECRET}-redis@127.0.0.1:{}", redis.port())),
        ("RUSHLINE_RECORDS_URL", format!("{records}://user:{SECRET}-records@{}/db?{quickly}", away())),
        ("RUSHLINE_REGISTRY_TARGET", format!("etcd://{}/svc?user=u&password={SECRET}-etcd", away())),
        ("RUSHLINE_TRANS_ALERT_URL", format!("http://u:{SECRET}-alert@{}/hook?token={SECRET}-token", away())),
        ("RUSHLINE_ALERTS_URL", format!("http://u:{SECRET}-alerts@{}/hook?secret={SECRET}-query", away())),
        ("RUSHLINE_ALERTS_SECRET", SIGNING.to_owned()),
        ("RUSHLINE_TELEMETRY_OTLP_ENDPOINT", collector.replacen("http://", &format!("http://u:{SECRET}-otlp@"), 1)),
        ("RUSHLINE_TELEMETRY_OTLP_HEADERS", format!("authorization=Bearer {SECRET}-collector")),
    ]
}

fn no_secret(what: &str, text: &str) {
    for secret in [SECRET, SIGNING_PART] {
        let found = text.find(secret).map(|at| text[..at].lines().last().unwrap_or_default().to_owned());
        assert_eq!(found, None, "{what} shows a secret in the line that begins so");
    }
}

fn no_payload(what: &str, text: &str) {
    no_secret(what, text);
    let found = text.lines().find(|line| line.contains(PAYLOAD));
    assert_eq!(found, None, "{what} shows a payload");
}

#[tokio::test]
async fn what_is_secret_is_shown_nowhere_and_payloads_only_to_who_asks_for_them() {
    let redis = Redis::start(RedisVersion::V8, &["--appendonly", "no"]).await;
    let password = format!("{SECRET}-redis");
    ask_redis_at::<()>(&redis.url(), &["CONFIG", "SET", "requirepass", &password]).await;
    let (shop, service, collector) = (Shop::start().await, Service::start().await, Collector::start().await);
    for (at, records) in ["postgres", "mysql", "mongodb"].into_iter().enumerate() {
        let variables = secrets(&redis, records, &collector.endpoint());
        let mut options = AppOptions::default().quick().quick_trans();
        for (name, value) in &variables {
            options = options.environment(name, value);
        }
        let options = options
            .setting("redis.prefix", format!("{records}:"))
            .setting("log.level", "trace")
            .setting("log.format", if at == 0 { "json" } else { "pretty" })
            .setting("telemetry.sample_share", 1)
            .setting("delivery.attention_after", 2)
            .setting("trans.alert_after", 1);
        let app = App::start(options).await;
        let webhook = json!({"url": format!("http://127.0.0.1:{}/?token={SECRET}", free_port()), "secret": SIGNING});
        let items = json!([{"sku": "a", "units": 5}]);
        let sale = json!({
            "sale": "s", "items": items, "durability": "memory", "order_endpoint": shop.endpoint(), "webhook": webhook,
        });
        assert_eq!(app.post("/v1/sales", &[], &sale).await.status, 201);
        // The services repeat what they were sent, as error pages do.
        shop.script((0..3).map(|_| Answer::Status(500, format!("cannot insert {PAYLOAD}"))));
        let order = json!({"buyer": "u1", "items": [{"sku": "a", "quantity": 1}], "payload": {"card": PAYLOAD}});
        let gid = app.post("/v1/sales/s/orders?wait_ms=10000", &[], &order).await.gid().unwrap().to_owned();
        for wrong in [
            json!({"buyer": "u1", "items": [{"sku": "none", "quantity": 1}], "payload": {"card": PAYLOAD}}),
            json!({"buyer": "u1", "items": [{"sku": "a", "quantity": 9}], "payload": {"card": PAYLOAD}}),
            json!({"buyer": "u1", "items": [], "payload": {"card": PAYLOAD}}),
        ] {
            let refused = app.post("/v1/sales/s/orders", &[], &wrong).await;
            assert!(refused.status >= 400);
            no_payload("a refusal", &refused.json.to_string());
        }
        let saga_gid = format!("g-{records}");
        service.answers("/out", &[(500, PAYLOAD), (500, PAYLOAD), (200, "")]);
        let saga = json!({
            "gid": saga_gid, "trans_type": "saga", "payloads": [json!({"card": PAYLOAD}).to_string()],
            "steps": [{"action": service.url(&format!("/out?token={SECRET}-branch"))}],
            "branch_headers": {"authorization": format!("Bearer {SECRET}-header")},
        });
        assert_eq!(app.post("/api/dtmsvr/submit", &[], &saga).await.status, 200);
        service.wait_for_calls(&saga_gid, 3).await;
        eventually("the records are missed", SOON, || async {
            app.metric("rushline_records_errors_total").await > 0.0
        })
        .await;

        for path in [
            "/metrics",
            "/v1/overview",
            "/readyz",
            "/v1/sales",
            "/v1/sales/s",
            "/v1/sales/s/changes",
            "/v1/sales/s/records",
        ] {
            no_payload(path, &app.http().text(path).await);
        }
        for path in [
            format!("/v1/orders/{gid}"),
            format!("/v1/orders/{gid}/why"),
            "/v1/sales/s/buyers/u1".into(),
            "/v1/sales/s/orders".into(),
            "/v1/sales/s/audit".into(),
        ] {
            no_secret(&path, &app.http().text(&path).await);
        }
        let elsewhere = tempfile::tempdir().unwrap();
        for command in
            [vec!["config", "show"], vec!["config", "show", "--json"], vec!["doctor"], vec!["config", "sample"]]
        {
            let mut run = Command::new(env!("CARGO_BIN_EXE_rushline"));
            run.args(&command).envs(variables.iter().map(|(name, value)| (*name, value.as_str())));
            let output = run.current_dir(elsewhere.path()).output().unwrap();
            let text = [output.stdout, output.stderr].concat();
            no_payload(&command.join(" "), &String::from_utf8_lossy(&text));
        }
        let log = app.log();
        assert!(log.len() > 1_000, "it logs everything it has: {log}");
        no_payload("the log", &log);
        collector_heard(&collector, &gid).await;
    }
    no_payload("a trace", &collector.text());
    let told: Vec<String> =
        ask_redis_at(&format!("redis://:{password}@127.0.0.1:{}", redis.port()), &["KEYS", "*alert:*"]).await;
    no_payload("the alerts that were told", &told.join("\n"));
}

async fn collector_heard(collector: &Collector, gid: &str) {
    eventually("the order's spans", SOON, || async { collector.text().contains(gid) }).await;
}

/// A wrong password is a common reason not to start, and the worst moment to print it.
#[test]
fn a_store_that_cannot_be_used_is_named_without_its_password() {
    for (name, value) in [
        ("RUSHLINE_REDIS_URL", format!("redis://:{SECRET}@127.0.0.1:{}", free_port())),
        ("RUSHLINE_REDIS_URL", format!("http://:{SECRET}@127.0.0.1:1")),
        ("RUSHLINE_RECORDS_URL", format!("oracle://u:{SECRET}@127.0.0.1:1/x")),
        ("RUSHLINE_ALERTS_SECRET", SECRET.to_owned()),
        ("RUSHLINE_ALERTS_URL", format!("ftp://u:{SECRET}@h/")),
        ("RUSHLINE_TELEMETRY_OTLP_ENDPOINT", format!("u:{SECRET}@h")),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let mut run = Command::new(env!("CARGO_BIN_EXE_rushline"));
        let output = run.arg("doctor").env(name, &value).current_dir(directory.path()).output().unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!output.status.success() && !text.is_empty(), "{name}={value}: {text}");
        no_secret(name, &text);
    }
}

/// The names and labels of all series.
async fn series(app: &App) -> BTreeSet<String> {
    let text = app.http().text("/metrics").await;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.rsplit_once(' ')).map(|(name, _)| name.to_owned()).collect()
}

/// Some of everything that a caller can name: buyers, keys, gids, branch ids, hosts, topics, ops, routes.
async fn name_many(app: &App, service: &Service, from: u32, to: u32) {
    let port = service.address().rsplit_once(':').unwrap().1.to_owned();
    for n in from..to {
        let order = json!({"buyer": format!("u{n}"), "items": [{"sku": "a", "quantity": 1}]});
        app.order("s", &format!("k{n}"), &order).await;
        app.order("s", &format!("none{n}"), &json!({"buyer": "u", "items": [{"sku": format!("s{n}"), "quantity": 1}]}))
            .await;
        app.get(&format!("/v1/nowhere/{n}")).await;
        app.get(&format!("/v1/sales/x{n}")).await;
        let wait = |mut body: Value| {
            body["wait_result"] = json!(true);
            body
        };
        // 127.0.0.0/8 is all this machine: every transaction has a host of its own.
        let host = format!("http://127.0.1.{}:{port}", n % 200);
        let (gid, step) =
            (format!("g{n}"), json!([{"action": format!("{host}/a{n}"), "compensate": format!("{host}/c{n}")}]));
        app.post(
            "/api/dtmsvr/submit",
            &[],
            &wait(json!({"gid": gid, "trans_type": "saga", "steps": step, "payloads": ["{}"]})),
        )
        .await;
        let tcc = format!("t{n}");
        app.post("/api/dtmsvr/prepare", &[], &json!({"gid": tcc, "trans_type": "tcc"})).await;
        let branch = json!({"gid": tcc, "trans_type": "tcc", "branch_id": format!("b{n}"), "confirm": format!("{}/x", service.base), "cancel": ""});
        app.post("/api/dtmsvr/registerBranch", &[], &branch).await;
        app.post("/api/dtmsvr/submit", &[], &wait(json!({"gid": tcc, "trans_type": "tcc"}))).await;
        app.post("/api/dtmsvr/submit", &[], &json!({"gid": format!("w{n}"), "trans_type": format!("type{n}")})).await;
    }
}

#[tokio::test]
async fn no_caller_makes_the_metrics_grow() {
    let (shop, service) = (Shop::start().await, Service::start_at("0.0.0.0:0").await);
    let app = App::start(AppOptions::default().quick_trans()).await;
    let items = json!([{"sku": "a", "units": 1_000}]);
    app.create_sale(&json!({"sale": "s", "items": items, "durability": "memory", "order_endpoint": shop.endpoint()}))
        .await;
    name_many(&app, &service, 0, 10).await;
    app.wait_until_settled("s").await;
    // Refusals are added up once a second.
    let refused = r#"rushline_orders_refused_total{reason="unknown_sku"}"#;
    eventually("refusals are counted", SOON, || async { series(&app).await.contains(refused) }).await;
    let before = series(&app).await;
    assert!(before.len() > 50, "{before:?}");
    name_many(&app, &service, 10, 70).await;
    app.wait_until_settled("s").await;
    let after = series(&app).await;
    let new: Vec<&String> = after.difference(&before).collect();
    assert!(new.is_empty(), "{new:?}");
}
