//! What comes along with the feature `client`, and what must not.

use std::process::Command;

/// What only the server needs: stores, web framework, command line.
const FORBIDDEN: &[&str] = &[
    "arc-swap",
    "async-channel",
    "axum",
    "bson",
    "clap",
    "comfy-table",
    "deadpool",
    "deadpool-redis",
    "indicatif",
    "jiff",
    "metrics",
    "mimalloc",
    "mongodb",
    "redis",
    "rusqlite",
    "libsqlite3-sys",
    "serde-saphyr",
    "sha2",
    "sqlx",
    "sqlx-core",
    "tonic-health",
    "tonic-reflection",
    "tracing-subscriber",
    "openssl",
    "native-tls",
];

fn tree(arguments: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "-p", "rushline", "--locked", "--no-default-features", "--features", "client"])
        .args(["-e", "normal", "--prefix", "none"])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_client_brings_no_part_of_the_server_along() {
    let tree = tree(&["--format", "{p}|{f}"]);
    let mut names = Vec::new();
    for line in tree.lines().filter(|line| !line.is_empty()) {
        let name = line.split(' ').next().unwrap();
        names.push(name);
        if matches!(name, "hyper" | "tonic") {
            let features = line.split('|').next_back().unwrap();
            let serves = features.trim_end_matches(" (*)").split(',').any(|feature| feature == "server");
            assert!(!serves, "{line}: a client serves nobody");
        }
    }
    assert!(names.contains(&"tonic") && names.contains(&"hyper-util"), "this is the client's tree: {tree}");
    for forbidden in FORBIDDEN {
        assert!(!names.contains(forbidden), "{forbidden} came along with the client");
    }
}
