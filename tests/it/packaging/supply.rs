//! T18 and T19: what is built in. Nothing unsafe of ours; of others only what deny.toml allows, as Cargo.lock has it.

use super::{read, root, run, tool};
use std::path::Path;
use std::process::Command;

/// `forbid` cannot be taken back further down, as `deny` can.
#[test]
fn no_crate_of_ours_may_be_unsafe() {
    assert!(read("Cargo.toml").contains("[workspace.lints.rust]\nunsafe_code = \"forbid\""));
    let manifest = read("Cargo.toml");
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = ")).unwrap();
    let members: Vec<&str> = members.split('"').skip(1).step_by(2).collect();
    assert!(members.len() >= 4, "{members:?}");
    for member in members {
        let manifest = read(&format!("{member}/Cargo.toml"));
        let forbids = manifest.contains("[lints]\nworkspace = true")
            || manifest.contains("[lints.rust]\nunsafe_code = \"forbid\"");
        assert!(forbids, "{member} may be unsafe: [lints] workspace = true");
    }
}

fn deny(directory: &Path) -> Option<(bool, String)> {
    let mut command = Command::new(tool("cargo-deny")?);
    command.args(["--offline", "--all-features", "--config"]).arg(root().join("deny.toml"));
    command.args(["check", "--hide-inclusion-graph", "bans", "licenses", "sources"]);
    Some(run(command.current_dir(directory)))
}

#[test]
fn everything_that_is_built_in_is_allowed() {
    let Some((good, said)) = deny(root()) else { return };
    assert!(good, "{said}");
}

/// What a gate is worth is seen when somebody tries to get through.
#[test]
fn a_bad_crate_is_found() {
    let plant = |name: &str, license: &str| {
        let scratch = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = scratch.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let package = |name: &str, license: &str| {
            format!("[package]\nname = \"{name}\"\nversion = \"1.0.0\"\nedition = \"2024\"\nlicense = \"{license}\"\n")
        };
        let dependency = format!("[dependencies]\n{name} = {{ path = \"bad\", version = \"1\" }}\n");
        write("Cargo.toml", &format!("{}{dependency}", package("planted", "Apache-2.0")));
        write("src/lib.rs", "");
        write("bad/Cargo.toml", &package(name, license));
        write("bad/src/lib.rs", "");
        deny(scratch.path())
    };
    let Some((good, said)) = plant("harmless", "MIT") else { return };
    assert!(good, "{said}");
    for (name, license, says) in
        [("harmless", "GPL-3.0-only", "rejected"), ("openssl-sys", "MIT", "banned"), ("chrono", "MIT", "banned")]
    {
        let (good, said) = plant(name, license).unwrap();
        assert!(!good && said.contains(says), "{name}, {license}:\n{said}");
    }
}

/// A dependency out of a repository can be anything tomorrow.
#[test]
fn every_crate_comes_from_the_registry_with_its_checksum() {
    let lock = read("Cargo.lock");
    let ours = ["rushline", "rushline-examples", "rushline-loadtest", "rushline-simulate"];
    for package in lock.split("[[package]]").skip(1) {
        let field =
            |name: &str| package.lines().find_map(|line| line.strip_prefix(&format!("{name} = \""))?.strip_suffix('"'));
        let name = field("name").unwrap();
        if ours.contains(&name) {
            continue;
        }
        assert!(
            field("source").is_some_and(|source| source.starts_with("registry+")),
            "{name} is not from the registry"
        );
        assert!(field("checksum").is_some(), "{name} has no checksum");
    }
}
