//! What is shipped to run it with does what it says: the image and the compose file, the chart, the unit and the Debian
//! package, nginx in front, and what may be built in at all.
//!
//! `tests/deploy/install.sh` gets the programs that look at them. What it could not get is left out; in CI it fails.

mod chart;
mod host;
mod image;
mod nginx;
mod supply;
mod unit;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Where install.sh put a program; none if it is left out here.
fn tool(name: &str) -> Option<PathBuf> {
    let place =
        std::env::var_os("RUSHLINE_TEST_DEPLOY").map_or_else(|| root().join("target/test-deploy"), PathBuf::from);
    let why = std::fs::read_to_string(place.join(format!("{name}.left_out")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = [place.join("bin")].into_iter().chain(std::env::split_paths(&path)).chain(["/usr/sbin".into()]);
    if let Some(found) = directories.map(|directory| directory.join(name)).find(|path| path.is_file())
        && why.is_err()
    {
        return Some(found);
    }
    let why = why.unwrap_or_else(|_| String::from("nobody has looked for it\nhint: sh tests/deploy/install.sh"));
    assert!(std::env::var_os("CI").is_none(), "there is no {name}, and CI tries all: {why}");
    eprintln!("checks with {name} are left out: {why}");
    None
}

/// Runs it to its end; what it said, on both outputs.
fn run(command: &mut Command) -> (bool, String) {
    let Output { status, stdout, stderr } = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    (status.success(), [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat())
}

/// The settings that a shipped file or a list of variables makes are good ones.
fn assert_good_configuration(arguments: &[&str], variables: &[(String, String)]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rushline"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RUSHLINE_")) {
        command.env_remove(name);
    }
    let directory = tempfile::tempdir().unwrap();
    command.current_dir(&directory).args(["config", "check"]).args(arguments);
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    let (good, said) = run(&mut command);
    assert!(good, "{arguments:?} {variables:?}\n{said}");
}

/// Beyond its own machine the server listens only with tokens, or where somebody says that it may be open: without either it
/// would not start.
fn assert_may_listen(variables: &[(String, String)]) {
    let value = |name: &str| variables.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value.as_str());
    let loopback =
        ["RUSHLINE_HTTP_LISTEN", "RUSHLINE_GRPC_LISTEN"].iter().all(|name| value(name).starts_with("127.0.0.1:"));
    let guarded = !value("RUSHLINE_SECURITY_TOKENS_FILE").is_empty() || value("RUSHLINE_SECURITY_ALLOW_OPEN") == "true";
    assert!(loopback || guarded, "{variables:?}");
}

/// Every YAML document of a text.
fn documents(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// `values["a"]["b"]` by "a.b"; numbers are places in lists.
fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(value, |inner, key| match key.parse::<usize>() {
        Ok(place) if inner.is_array() => &inner[place],
        _ => &inner[key],
    })
}
