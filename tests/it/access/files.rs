//! Tokens in a file: given, taken back and broken while the server runs.

use super::{SOON, ask_as};
use crate::support::app::{App, AppOptions, eventually};
use serde_json::Value;
use std::process::Command;

/// What `rushline token new` prints: the token, and the line for the server.
fn token(name: &str, role: &str) -> (String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_rushline"))
        .args(["token", "new", name, "--role", role, "--json"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    (format!("Bearer {}", made["token"].as_str().unwrap()), made["line"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_given_and_taken_back_while_it_runs() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tokens");
    let (ops, ops_line) = token("ops", "operator");
    let (prometheus, line) = token("prometheus", "reader");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    write(&format!("# who may\n{ops_line}\n"));
    let app = App::start(AppOptions::default().setting("security.tokens_file", file.display())).await;
    let status = async |token: &str| ask_as(&app, token, "GET", "/v1/sales", None).await.status;
    assert_eq!((status(&ops).await, status(&prometheus).await), (200, 401));

    write(&format!("{ops_line}\n{line}\n"));
    eventually("the new token is known", SOON, async || status(&prometheus).await == 200).await;
    // What cannot be read changes nothing, and is said.
    write("prometheus:reader:hunter2\n");
    app.signal("HUP");
    eventually("the log says so", SOON, async || app.log().contains("the tokens read before stay in use")).await;
    assert_eq!((status(&ops).await, status(&prometheus).await), (200, 200));
    assert!(!app.log().contains("hunter2"), "what stands there may be a token");
    write(&format!("{line}\n"));
    app.signal("HUP");
    eventually("the other is taken back", SOON, async || status(&ops).await == 401).await;
    // An emptied file opens nothing.
    write("");
    eventually("nobody is known", SOON, async || status(&prometheus).await == 401).await;
    assert_eq!(app.get("/v1/sales").await.status, 401);
    assert_eq!(app.get("/healthz").await.status, 200);
}
