//! This server's own entry: there, kept, written again, taken back.

use super::{entries, redis, registered};
use crate::support::app::{App, AppOptions, eventually};
use crate::support::etcd::Etcd;
use crate::support::process::free_port;
use crate::support::servers::PASSWORD;
use rushline::registry::etcd::{Client, Keys};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A start, a lease and a busy machine.
const WITHIN: Duration = Duration::from_secs(60);

/// The keys of `dtmservice`, once there are as many as wanted.
async fn wait_for(client: &Client, count: usize) -> Vec<(String, String)> {
    let found: Mutex<Vec<(String, String)>> = Mutex::default();
    eventually("the entries that should be there", WITHIN, async || {
        let now = entries(client, "dtmservice").await;
        let there = now.as_ref().is_ok_and(|now| now.len() == count);
        *found.lock().unwrap() = now.unwrap_or_default();
        there
    })
    .await;
    found.into_inner().unwrap()
}

#[tokio::test]
async fn a_server_is_found_in_the_form_of_go_zero_and_gone_after_sigterm() {
    let (etcd, redis) = (Etcd::start().await, redis().await);
    let client = etcd.client();
    let started = Instant::now();
    let mut app = App::start(registered(&etcd).redis(&redis.url())).await;
    let found = wait_for(&client, 1).await;
    println!("registered {} ms after the start of the process", started.elapsed().as_millis());
    let (key, value) = &found[0];
    let lease: i64 = key.strip_prefix("dtmservice/").unwrap().parse().unwrap();
    assert!(lease > 0, "{key}");
    assert_eq!(value, "127.0.0.1:36790", "exactly as configured");
    let doctor = tokio::process::Command::new(env!("CARGO_BIN_EXE_rushline"))
        .args(["doctor", "--redis-url", &redis.url(), "--records-url", "sqlite::memory:"])
        .args(["--registry-target", &format!("etcd://{}/dtmservice", etcd.address())])
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned() + &String::from_utf8_lossy(&doctor.stderr);
    assert!(said.contains("has 1 of `dtmservice`"), "{said}");
    // A second server has an entry of its own.
    let mut second = App::start(registered(&etcd).redis(&redis.url()).setting("registry.endpoint", "h:2")).await;
    assert_eq!(wait_for(&client, 2).await.len(), 2);

    assert!(second.terminate().await.success());
    assert_eq!(entries(&client, "dtmservice").await.unwrap(), found, "gone before the process is");
    assert!(app.terminate().await.success());
    assert_eq!(entries(&client, "dtmservice").await.unwrap(), []);
    assert!(app.log().contains("no longer registered"));
}

#[tokio::test]
async fn an_entry_is_written_again_after_etcd_was_away_or_somebody_deleted_it() {
    let (mut etcd, redis) = (Etcd::start().await, redis().await);
    let client = etcd.client();
    // Written as dtm's file has it.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("dtm.yaml");
    let target = format!("etcd://{}/dtmservice", etcd.address());
    let text = format!("MicroService:\n  Driver: dtm-driver-gozero\n  Target: {target}\n  EndPoint: 127.0.0.1:36790\n");
    std::fs::write(&file, text).unwrap();
    let options = AppOptions::default().environment("RUSHLINE_CONFIG", file.to_str().unwrap());
    let _app = App::start(options.redis(&redis.url())).await;
    let first = wait_for(&client, 1).await;

    // Deleted: the same key again, under the same lease.
    let session = client.session().await.unwrap();
    assert_eq!(session.delete(&Keys::One(first[0].0.clone())).await.unwrap(), 1);
    let again = wait_for(&client, 1).await;
    assert_eq!(again, first);

    // Away for a moment: etcd still has the lease, so the key stays what it is.
    etcd.kill9();
    etcd.restart().await;
    assert_eq!(wait_for(&client, 1).await, first);

    // An etcd that has lost everything: a new lease.
    etcd.forget();
    etcd.restart().await;
    let anew = wait_for(&client, 1).await;
    assert_ne!(anew[0].0, first[0].0);
    assert_eq!(anew[0].1, first[0].1);
}

/// dtm drops the error and runs unregistered for good.
#[tokio::test]
async fn an_etcd_that_is_away_at_the_start_is_asked_until_it_is_there() {
    let (mut etcd, redis) = (Etcd::at_rest(), redis().await);
    let target = format!("etcd://127.0.0.1:{},{}/dtmservice", free_port(), etcd.address());
    let app = App::start(registered(&etcd).redis(&redis.url()).setting("registry.target", target)).await;
    eventually("a warning", WITHIN, async || app.log().contains("not registered: services that look for")).await;
    assert!(app.http().text("/metrics").await.contains("rushline_registry_registered 0"));
    etcd.restart().await;
    assert_eq!(wait_for(&etcd.client(), 1).await[0].1, "127.0.0.1:36790");
    // Of two members the second answered.
    assert!(app.http().text("/metrics").await.contains("rushline_registry_registered 1"));
}

/// Nobody takes a crashed server's entry back: it lives as long as its lease, and not one renewal longer.
#[tokio::test]
async fn a_crashed_servers_entry_ends_with_its_lease() {
    let (etcd, redis) = (Etcd::start().await, redis().await);
    let client = etcd.client();
    let mut app = App::start(registered(&etcd).redis(&redis.url())).await;
    // Longer than a lease, so that it must have been renewed.
    let found = wait_for(&client, 1).await;
    let lease_over = Instant::now() + rushline::registry::register::LEASE + Duration::from_secs(2);
    tokio::time::sleep_until(lease_over.into()).await;
    assert_eq!(entries(&client, "dtmservice").await.unwrap(), found, "kept alive, under the same key");
    app.kill9();
    let killed = Instant::now();
    wait_for(&client, 0).await;
    println!("a crashed server was gone {} ms after the kill", killed.elapsed().as_millis());
}

#[tokio::test]
async fn an_etcd_may_want_an_account() {
    let (etcd, redis) = (Etcd::start().await, redis().await);
    etcd.want_account().await;
    let target = |password: &str| format!("etcd://{}/dtmservice?user=root&password={password}", etcd.address());
    let options = registered(&etcd).redis(&redis.url());
    let mut app = App::start(options.setting("registry.target", target("wrong-word"))).await;
    eventually("a refusal", WITHIN, async || app.log().contains("authentication failed")).await;
    assert!(!app.log().contains("wrong-word"), "no password in a log");

    app.restart(|options| options.setting("registry.target", target(PASSWORD))).await;
    let account = rushline::registry::target::Account { user: "root".into(), password: PASSWORD.into() };
    let client = Arc::new(Client::new(vec![etcd.address()], Some(account), None));
    assert_eq!(wait_for(&client, 1).await[0].1, "127.0.0.1:36790");
    assert!(!app.log().contains(PASSWORD), "no password in a log");
    assert!(app.terminate().await.success());
    assert_eq!(entries(&client, "dtmservice").await.unwrap(), []);
}

/// TLS both ways: the etcd shows a certificate, and wants one.
#[tokio::test]
async fn an_etcd_may_speak_tls() {
    let (etcd, redis) = (Etcd::start_with_tls().await, redis().await);
    let options = registered(&etcd).redis(&redis.url());
    let options = options.setting("registry.cert_file", etcd.file("client.pem").display());
    let options = options.setting("registry.key_file", etcd.file("client.key").display());
    let _app = App::start(options.clone().setting("registry.ca_file", etcd.file("ca.pem").display())).await;
    assert_eq!(wait_for(&etcd.client(), 1).await[0].1, "127.0.0.1:36790");

    // Whoever does not know the signer does not go on unchecked.
    let other = Etcd::start_with_tls().await;
    let distrusting = App::start(options.setting("registry.ca_file", other.file("ca.pem").display())).await;
    eventually("a refusal", WITHIN, async || distrusting.log().contains("cannot connect to etcd")).await;
    assert_eq!(entries(&etcd.client(), "dtmservice").await.unwrap().len(), 1);
}
