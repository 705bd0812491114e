//! Where it listens: beyond this machine only with tokens, or when told so.

use super::{SOON, Tokens, ask_as};
use crate::support::app::{App, AppOptions};
use crate::support::process::free_port;
use rushline::access::Role;
use std::process::Output;

async fn run(arguments: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_rushline"));
    command.args(arguments).current_dir(directory.path()).kill_on_drop(true);
    tokio::time::timeout(SOON, command.output()).await.expect("it ends").unwrap()
}

#[tokio::test]
async fn it_does_not_listen_to_others_without_tokens() {
    for (setting, address) in [("--http-listen", "0.0.0.0:0"), ("--grpc-listen", "[::]:0")] {
        for command in ["serve", "dev"] {
            let output = run(&[command, setting, address]).await;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(3), "{said}");
            assert!(said.contains("will not listen on") && said.contains("--security-allow-open"), "{said}");
            assert!(output.stdout.is_empty(), "nothing was started");
        }
    }
    let output = run(&["doctor", "--http-listen", "0.0.0.0:0"]).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("✗ access") && said.contains("rushline token new"), "{said}");
}

/// Open on purpose it says so wherever somebody looks, and GET changes nothing any more, unless that is wanted too.
#[tokio::test(flavor = "multi_thread")]
async fn open_on_purpose_it_says_so_and_takes_changes_by_post_only() {
    let open = |change: &dyn Fn(AppOptions) -> AppOptions| {
        let options = AppOptions::default().setting("http.listen", format!("0.0.0.0:{}", free_port()));
        change(options.setting("grpc.listen", "127.0.0.1:0").setting("security.allow_open", true))
    };
    let app = App::start(open(&|options| options)).await;
    assert!(app.log().contains("security.allow_open"), "{}", app.log());
    for verb in
        ["subscribe?topic=t&url=http://127.0.0.1:1/x", "unsubscribe?topic=t&url=http://127.0.0.1:1/x", "resetCronTime"]
    {
        let path = format!("/api/dtmsvr/{verb}");
        let refused = app.get(&path).await;
        assert_eq!((refused.status, refused.header("allow")), (405, Some("POST")), "{verb}");
        assert!(refused.json["message"].as_str().unwrap().contains("security.dtm_get_changes"), "{}", refused.json);
        let asked = app.http().ask(http::Method::POST, &path, &[], None).await.unwrap();
        assert_eq!(asked.status, 200, "{verb}: {}", asked.json);
    }
    let as_dtm = App::start(open(&|options| options.setting("security.dtm_get_changes", true))).await;
    assert_eq!(as_dtm.get("/api/dtmsvr/subscribe?topic=t&url=http://127.0.0.1:1/x").await.status, 200);
    assert_eq!(as_dtm.get("/api/dtmsvr/resetCronTime").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tokens_it_listens_to_all_and_the_command_line_brings_one() {
    let tokens = Tokens::new();
    let options = tokens.options().setting("http.listen", format!("0.0.0.0:{}", free_port()));
    let app = App::start(options.setting("grpc.listen", "127.0.0.1:0")).await;
    let reader = tokens.bearer(Role::Reader);
    assert_eq!(ask_as(&app, &reader, "GET", "/v1/sales", None).await.status, 200);
    let run = async |token: Option<&str>, arguments: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_rushline"));
        command.args(arguments).env("RUSHLINE_SERVER", app.base()).env_remove("RUSHLINE_TOKEN").kill_on_drop(true);
        if let Some(token) = token {
            command.env("RUSHLINE_TOKEN", token);
        }
        let output = tokio::time::timeout(SOON, command.output()).await.expect("it ends").unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for arguments in [&["sale", "list"][..], &["txn", "list"], &["top", "--once"]] {
        assert_eq!(run(Some(tokens.of(Role::Reader)), arguments).await.0, Some(0), "{arguments:?}");
        let (code, said) = run(None, arguments).await;
        assert!(
            code == Some(1) && said.contains("(token_missing)") && said.contains("hint: "),
            "{arguments:?}: {said}"
        );
    }
    let token = tokens.of(Role::Reader).to_owned();
    let (code, said) = run(None, &["sale", "list", "--token", &token]).await;
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = run(Some(tokens.of(Role::Buyer)), &["sale", "list"]).await;
    assert!(code == Some(1) && said.contains("role_missing"), "{said}");
}
