//! Whole runs of the harness: real Redis, real rushline, real order service, and the oracle's word in the exit code.
//!
//! They need `rushline` beside this package's program, as `cargo test --workspace` leaves it.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn loadtest() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_rushline-loadtest"))
}

/// A directory of this test's own, under TMPDIR.
fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("loadtest-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// Runs `scenario`; everything that is started is started and stopped by the harness itself.
fn run(name: &str, scenario: &str, args: &[&str]) -> (Output, serde_json::Value) {
    let scratch = scratch(name);
    let file = scratch.join(format!("{name}.toml"));
    std::fs::write(&file, scenario).unwrap();
    let json = scratch.join("run.json");
    let output = Command::new(loadtest())
        .arg("run")
        .arg(&file)
        .args(args)
        .args(["--no-runs", "--json"])
        .arg(&json)
        .arg("--directory")
        .arg(scratch.join("data"))
        .output()
        .unwrap();
    let run = std::fs::read(&json).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    // Kept if the test fails: the logs are in there.
    if output.status.success() {
        std::fs::remove_dir_all(&scratch).unwrap();
    }
    (output, run)
}

fn text(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{}\n{out}\n{err}", output.status)
}

const FLASH: &str = r#"
[sale]
units = 200
limit_per_buyer = 2
[order_service]
refuse_percent = 2
lose_replies_percent = 2
[[arrivals]]
kind = "burst"
buyers = 500
[[arrivals]]
kind = "poisson"
rate = 100
lasts_s = 3
[[buyers]]
weight = 3
tries = 60
come_back = 3
[[buyers]]
tries = 60
clicks = 2
polls = 3
[[buyers]]
tries = 60
lose_percent = 100
[[events]]
at_s = 2
restock = 100
"#;

/// The server is killed and comes back, connections are cut, the order service hangs: nothing may be lost or sold twice.
#[test]
fn a_sale_under_faults_is_judged_clean() {
    let faults = ["kill rushline at=700ms for=200ms", "cut buyers at=1500ms", "stop orders at=2s for=500ms"];
    let faults: Vec<&str> = faults.iter().flat_map(|fault| ["--fault", fault]).collect();
    let (output, run) = run("faults", FLASH, &[&["--start", "--target", "rushline"], &faults[..]].concat());
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(run["verdict"]["charges"], serde_json::json!({}), "{}", text(&output));
    assert!(run["counts"]["unknown"]["connection broken"].as_u64() > Some(0), "nothing was cut: {run}");
    assert!(run["counts"]["refused"]["sold_out"].as_u64() > Some(0), "{run}");
}

/// Buyers on streams of a few connections; who leaves resets a stream, and the connection goes on.
#[test]
fn a_sale_over_http2_is_judged_clean() {
    let http2 = ["--start", "--target", "rushline", "--http2", "16", "--connections", "64"];
    let (output, run) = run("http2", FLASH, &http2);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(run["verdict"]["charges"], serde_json::json!({}), "{}", text(&output));
    assert!(run["counts"]["unknown"]["hung up"].as_u64() > Some(0), "nobody left: {run}");
    assert!(run["counts"]["admitted"].as_u64() > Some(200), "{run}");
}

/// The same sale as dtm's recipe has it, through rushline's door for dtm's SDKs.
#[test]
fn a_sale_by_dtms_protocol_is_judged_clean() {
    let scenario = FLASH.replace("refuse_percent = 2\n", "").replace("limit_per_buyer = 2\n", "");
    let (output, run) = run("dtm", &scenario, &["--start", "--target", "dtm"]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(run["verdict"]["looked_at"]["orders that stand"].as_u64() > Some(200), "{run}");
}

/// A run against a shop that lies ends with the exit code that says so, and one against an honest shop does not.
#[test]
fn a_shop_that_is_wrong_is_found_out() {
    for (fault, code, charge) in [("none", 0, ""), ("oversell", 3, "oversold")] {
        let mut shop = Command::new(loadtest())
            .args(["bad-shop", "--fault", fault])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufReader::new(shop.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = format!("http://{}", line.trim().strip_prefix("listening on ").unwrap());
        let scenario = FLASH.replace("rate = 100", "rate = 50");
        let (output, run) = run(fault, &scenario, &["--target", &url]);
        shop.kill().unwrap();
        shop.wait().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", text(&output));
        let charges = run["verdict"]["charges"].as_object().unwrap();
        assert_eq!(charges.contains_key(charge), code == 3, "{charges:?}");
    }
}

#[test]
fn what_cannot_run_says_why_and_ends_with_one() {
    let error = |scenario: &str, args: &[&str]| {
        let (output, _) = run("wrong", scenario, args);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(
        error(&FLASH.replace("clicks = 2", "clicks = 0"), &[]).contains("buyers[1].clicks: must be 1 to 100, got 0")
    );
    let fault = ["--fault", "stop redis at=1s"];
    assert!(error(FLASH, &fault).contains("hint: add --start"));
    let nobody = ["--target", "http://127.0.0.1:1"];
    assert!(error(FLASH, &nobody).contains("POST http://127.0.0.1:1/v1/sales"));
    assert!(error(FLASH, &["--fault", "burn orders at=1s"]).contains("`burn` is none of stop"));
    assert!(error(FLASH, &["--start", "--target", "http://127.0.0.1:1"]).contains("is another shop"));
    let limit = error(FLASH, &["--target", "dtm:http://127.0.0.1:1"]);
    assert!(limit.contains("--stock"), "{limit}");
}
