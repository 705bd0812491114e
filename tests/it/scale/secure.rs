//! TLS with certificates both ways, and an account that may do what docs/redis.md lists and nothing else.

use crate::dtm_http::wait_for;
use crate::support::app::{App, AppOptions};
use crate::support::certificates::make_certificates;
use crate::support::crowd::{self, Crowd, ask_redis_at, assert_exact};
use crate::support::process::free_port;
use crate::support::servers::{Redis, RedisVersion};
use crate::support::services::Service;
use crate::support::shop::Shop;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

fn file(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The rule on the page, in words after `ACL SETUSER rushline`.
fn rule() -> Vec<String> {
    let page = file("docs/redis.md");
    let line = page.lines().find_map(|line| line.strip_prefix("ACL SETUSER rushline ")).unwrap();
    line.split(' ').map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_runs_over_tls_as_a_user_who_may_only_touch_the_prefix() {
    let mut redis = Redis::start(RedisVersion::V7, &[]).await;
    make_certificates(redis.process());
    let (tls, directory) = (free_port(), redis.process().directory().to_owned());
    let path = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    redis.kill9();
    redis.arguments(&[
        "--tls-port",
        &tls.to_string(),
        "--tls-auth-clients",
        "yes",
        "--tls-ca-cert-file",
        &path("ca.pem"),
    ]);
    redis.arguments(&["--tls-cert-file", &path("server.pem"), "--tls-key-file", &path("server.key")]);
    redis.restart().await;

    let plain = redis.url();
    let _: () = ask_redis_at(&plain, &["ACL", "SETUSER", "admin", "on", ">a", "~*", "+@all"]).await;
    let rule = rule();
    let mut command = vec!["ACL", "SETUSER", "rushline"];
    command.extend(rule.iter().map(String::as_str));
    let _: () = ask_redis_at(&plain, &command).await;
    let _: () = ask_redis_at(&plain, &["ACL", "SETUSER", "default", "off"]).await;
    let admin = plain.replace("redis://", "redis://admin:a@");

    let shop = Shop::start().await;
    crowd::trying_shop(&shop);
    let url = format!("rediss://rushline:PASSWORD@127.0.0.1:{tls}/");
    let options = AppOptions::default().quick().redis(&url).setting("redis.ca_file", path("ca.pem"));
    let options = options.setting("redis.cert_file", path("client.pem")).setting("redis.key_file", path("client.key"));
    let app = App::start(options).await;
    app.create_sale(&crowd::sale(shop.endpoint())).await;
    let buyers = Crowd::start(&[app.http()], 4);
    buyers.wait_for_more(60, Duration::from_secs(60)).await;
    let heard = buyers.stop().await;
    assert_exact(&app, &shop, &heard).await;
    // Global transactions of every kind of end, a topic, and the drain of what is over.
    let service = Service::start().await;
    service.answers("/no", &[(409, "FAILURE")]);
    let subscribed = format!("/api/dtmsvr/subscribe?topic=orders&url={}", service.url("/a"));
    assert_eq!(app.get(&subscribed).await.status, 200);
    for (gid, body, status) in [
        (
            "good",
            json!({ "trans_type": "saga", "steps": [{ "action": service.url("/a"), "compensate": "" }] }),
            "succeed",
        ),
        (
            "bad",
            json!({ "trans_type": "saga", "steps": [{ "action": service.url("/no"), "compensate": "" }] }),
            "failed",
        ),
        ("told", json!({ "trans_type": "msg", "steps": [{ "action": "topic://orders" }] }), "succeed"),
        ("tcc", json!({ "trans_type": "tcc" }), "succeed"),
    ] {
        let mut body = body;
        (body["gid"], body["payloads"]) = (json!(gid), json!([""]));
        if gid == "tcc" {
            assert_eq!(app.post("/api/dtmsvr/prepare", &[], &body).await.status, 200);
            let branch = json!({ "gid": gid, "trans_type": "tcc", "branch_id": "01", "data": "", "confirm": service.url("/a"),
                "cancel": service.url("/a") });
            assert_eq!(app.post("/api/dtmsvr/registerBranch", &[], &branch).await.status, 200);
        }
        let reply = app.post("/api/dtmsvr/submit", &[], &body).await;
        assert_eq!(reply.status, 200, "{gid}: {}", reply.json);
        wait_for(&app, gid, status).await;
    }
    assert_eq!(app.get("/v1/transactions?limit=10").await.status, 200);
    let refused: Vec<redis::Value> = ask_redis_at(&admin, &["ACL", "LOG"]).await;
    assert!(refused.is_empty(), "{refused:?}");
    assert!(!app.log().contains("PASSWORD"));

    // The rule holds inside of scripts as well: what the account may not touch, none of its scripts can.
    let account = plain.replace("redis://", "redis://rushline:PASSWORD@");
    let _: () = ask_redis_at(&admin, &["SET", "others:secret", "s"]).await;
    let foreign = "return redis.call('GET', 'others:secret')";
    let load = ask_redis_raw(&account, &["SCRIPT", "LOAD", foreign]).await.unwrap();
    let denied = ask_redis_raw(&account, &["EVALSHA", &load, "0"]).await.unwrap_err();
    assert!(denied.contains("NOPERM") || denied.contains("can't"), "{denied}");
    for command in [
        &["GET", "others:secret"][..],
        &["KEYS", "*"],
        &["FLUSHALL"],
        &["CONFIG", "SET", "dir", "/"],
        &["EVAL", "return 1", "0"],
    ] {
        let denied = ask_redis_raw(&account, command).await.unwrap_err();
        assert!(denied.contains("NOPERM"), "{command:?}: {denied}");
    }
    let refused: Vec<redis::Value> = ask_redis_at(&admin, &["ACL", "LOG"]).await;
    assert!(refused.len() >= 5, "each is in the log: {refused:?}");
}

/// The answer as text, or the refusal.
async fn ask_redis_raw(url: &str, words: &[&str]) -> Result<String, String> {
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query_async(&mut connection).await.map_err(|error| format!("{:?} {error}", error.code()))
}

/// Also of what the story above does not come by.
#[test]
fn the_rule_has_every_command_of_every_script() {
    let rule: BTreeSet<String> = rule().into_iter().collect();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("lua")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !name.ends_with(".lua") || name.starts_with("barrier_") {
            continue; // barriers run in the services' own Redis
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for call in text.split("redis.call('").skip(1) {
            let (command, rest) = call.split_once('\'').unwrap();
            let command = command.to_lowercase();
            let listed = match command.as_str() {
                "xgroup" => rest.starts_with(", 'CREATE'") && rule.contains("+xgroup|create"),
                "xinfo" => rest.starts_with(", 'STREAM'") && rule.contains("+xinfo|stream"),
                command => rule.contains(&format!("+{command}")),
            };
            assert!(listed, "{name} calls {command}, which docs/redis.md does not list");
        }
    }
}
