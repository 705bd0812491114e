//! The dashboard in a real Chromium: tests/browser/stories.mjs, against a real server. Pictures of every page, wide and
//! narrow, light and dark, are left in `dashboard/` of the target directory.
//!
//! `tests/browser/install.sh` gets the browser and what drives it. Where it could not, the stories are left out; in CI they
//! fail.

use crate::support::app::{App, AppOptions};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// All stories take well under a minute; one that hangs must say so before the run is given up.
const STORIES_WAIT_MAX: Duration = Duration::from_secs(240);

/// Where install.sh put what drives the browser, and the browser; none if it is left out here.
pub fn browser() -> Option<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let place =
        std::env::var_os("RUSHLINE_TEST_BROWSER").map_or_else(|| root.join("target/test-browser"), PathBuf::from);
    if let Ok(program) = std::fs::read_to_string(place.join("ready")) {
        return Some((place, program.trim().to_owned()));
    }
    let why = std::fs::read_to_string(place.join("left_out"));
    let why = why.unwrap_or_else(|_| String::from("nobody has looked for it\nhint: sh tests/browser/install.sh"));
    assert!(std::env::var_os("CI").is_none(), "the dashboard cannot be tried, and CI tries all: {why}");
    eprintln!("the dashboard's stories are left out: {why}");
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_and_every_action_of_the_dashboard() {
    let Some((place, program)) = browser() else { return };
    // A failed transaction waits until somebody retries it by hand, and counts as one for somebody to look at.
    let options = AppOptions::default()
        .setting("trans.retry_interval_ms", 60_000)
        .setting("trans.retry_max_ms", 60_000)
        .setting("trans.alert_after", 1);
    let app = App::start(options).await;
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("dashboard");
    let mut stories = tokio::process::Command::new("node");
    stories.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/stories.mjs")).args([
        app.base().as_ref(),
        program.as_ref(),
        place.as_os_str(),
        pictures.as_os_str(),
    ]);
    run(stories).await;
}

/// To its end, which must be a good one.
pub async fn run(mut stories: tokio::process::Command) {
    stories.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(STORIES_WAIT_MAX, stories.output()).await;
    let output = output.expect("the stories take too long").expect("node runs");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    assert!(output.status.success(), "{said}");
}

/// What stands between a buyer's words and an operator's browser.
#[tokio::test]
async fn the_browser_is_told_to_run_nothing_else() {
    let app = App::start(AppOptions::default()).await;
    for path in ["/", "/ui/app.js", "/ui/style.css"] {
        let reply = app.get(path).await;
        assert_eq!(reply.status, 200, "{path}");
        let policy = reply.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        let tag = reply.header("etag").unwrap().to_owned();
        let again = app.http().ask(http::Method::GET, path, &[("if-none-match", &tag)], None).await.unwrap();
        assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
    }
    for nothing in ["/ui/nothing.js", "/ui/..%2fmod.rs", "/ui/%2e%2e"] {
        assert_eq!(app.get(nothing).await.status, 404, "{nothing}");
    }
    assert_eq!(app.get("/admin").await.header("location"), Some("/"));
}
