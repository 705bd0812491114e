//! The systemd unit and the Debian package.

use super::{assert_good_configuration, read, root, run, tool};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// systemd's own measure of how far a unit is shut in, from 0 (best) to 100.
const EXPOSURE_MAX: u32 = 15;

/// `(name, value)` of all settings of the unit, comments left out.
fn unit() -> Vec<(String, String)> {
    let text = read("deploy/systemd/rushline.service");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn value(name: &str) -> String {
    unit().into_iter().find(|(found, _)| found == name).unwrap_or_else(|| panic!("no {name}=")).1
}

#[test]
fn systemd_understands_the_unit_and_finds_it_shut_in() {
    let Some(analyze) = tool("systemd-analyze") else { return };
    // What it starts must be there to be looked at.
    let scratch = tempfile::tempdir().unwrap();
    let program = scratch.path().join("rushline");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_rushline"), &program).unwrap();
    let file = scratch.path().join("rushline.service");
    let text = read("deploy/systemd/rushline.service");
    std::fs::write(&file, text.replace("/usr/bin/rushline", program.to_str().unwrap())).unwrap();
    let (good, said) = run(Command::new(&analyze).args(["verify", "--man=no"]).arg(&file));
    // It looks at the machine's other units as well, and has things to say about those.
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("rushline")).collect();
    assert!(good && ours.is_empty(), "{said}");
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    let (good, said) = run(Command::new(&analyze).args(["security", "--offline=true", &threshold]).arg(&file));
    assert!(good, "{said}");
}

#[test]
fn the_unit_gives_the_server_time_to_leave() {
    let seconds = |name: &str| value(name).trim_end_matches('s').parse::<u64>().unwrap();
    let configuration: serde_json::Value = serde_saphyr::from_str(&read("deploy/debian/rushline.yaml")).unwrap();
    let ms = |name: &str| configuration["shutdown"][name].as_u64().unwrap();
    assert!(seconds("TimeoutStopSec") * 1000 >= ms("pause_ms") + ms("grace_ms") + 5_000);
    assert_eq!(value("Type"), "notify", "the server says when it is ready");
    assert_eq!(value("KillMode"), "mixed", "a private Redis is ended by the server");
    for name in ["DynamicUser", "NoNewPrivileges", "PrivateDevices", "ProtectHome", "MemoryDenyWriteExecute"] {
        assert_eq!(value(name), "yes", "{name}");
    }
    assert_eq!((value("CapabilityBoundingSet").as_str(), value("ProtectSystem").as_str()), ("", "strict"));
}

#[test]
fn the_packages_own_configuration_is_a_good_one() {
    assert_good_configuration(&["--config", root().join("deploy/debian/rushline.yaml").to_str().unwrap()], &[]);
    // Its commented lines are settings as well.
    let text = read("deploy/debian/rushline.yaml");
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("rushline.yaml");
    std::fs::write(&file, text.replace("  #url:", "  url:")).unwrap();
    assert_good_configuration(&["--config", file.to_str().unwrap()], &[]);
}

/// The `assets` of the package: where from, where to, mode.
fn assets() -> Vec<(String, String, u32)> {
    let manifest = read("Cargo.toml");
    let (_, rest) = manifest.split_once("\nassets = [\n").expect("the package has assets");
    let (list, _) = rest.split_once("\n]").unwrap();
    let asset = |line: &str| {
        let words: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
        (words[0].to_owned(), words[1].to_owned(), u32::from_str_radix(words[2], 8).unwrap())
    };
    list.lines().map(asset).collect()
}

/// What the package is said to hold is there, or is made by collect.sh out of the program.
#[test]
fn the_package_holds_what_it_lists() {
    let scratch = tempfile::tempdir().unwrap();
    let release = scratch.path().join("target/release");
    std::fs::create_dir_all(&release).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_rushline"), release.join("rushline")).unwrap();
    let (good, said) = run(Command::new("sh").arg(root().join("deploy/debian/collect.sh")).arg(&release));
    assert!(good, "{said}");
    let mut targets = BTreeSet::new();
    for (from, to, mode) in assets() {
        let base = if from.starts_with("target/") { scratch.path() } else { root() };
        match from.strip_suffix("*.1") {
            Some(directory) => {
                let pages = std::fs::read_dir(base.join(directory)).unwrap().count();
                assert!(pages > 20, "{pages} manual pages");
            }
            None => {
                let length =
                    std::fs::metadata(base.join(&from)).unwrap_or_else(|error| panic!("{from}: {error}")).len();
                assert!(length > 0, "{from} is empty");
            }
        }
        assert_eq!(mode, if to.starts_with("usr/bin") { 0o755 } else { 0o644 }, "{to}");
        targets.insert(to);
    }
    let manifest = read("Cargo.toml");
    for file in
        manifest.lines().find_map(|line| line.strip_prefix("conf-files = ")).unwrap().split('"').skip(1).step_by(2)
    {
        assert!(targets.contains(file.trim_start_matches('/')), "{file} is no file of the package");
    }
    // What is made must be understood by those it is made for.
    let made = release.join("deb");
    let (good, said) = run(Command::new("bash").arg("-n").arg(made.join("completions/rushline")));
    assert!(good, "{said}");
    assert_good_configuration(&["--config", made.join("rushline.yaml").to_str().unwrap()], &[]);
}

/// The package itself, where there is a cargo-deb to build it (`make deb` installs one): with this test's own program.
#[test]
fn the_package_is_built_and_taken_apart() {
    let Ok((true, _)) = std::panic::catch_unwind(|| run(Command::new("cargo-deb").arg("--version"))) else { return };
    let scratch = tempfile::tempdir().unwrap();
    let release = scratch.path().join("release");
    std::fs::create_dir_all(&release).unwrap();
    let program = release.join("rushline");
    let strip = Command::new("strip").args(["-o"]).arg(&program).arg(env!("CARGO_BIN_EXE_rushline")).status();
    assert!(strip.unwrap().success());
    assert!(run(Command::new("sh").arg(root().join("deploy/debian/collect.sh")).arg(&release)).0);
    let package = scratch.path().join("rushline.deb");
    let mut build = Command::new("cargo-deb");
    build.args(["--no-build", "--no-strip", "--fast", "--locked", "--package", "rushline", "--output"]).arg(&package);
    let (good, said) = run(build.env("CARGO_TARGET_DIR", scratch.path()).current_dir(root()));
    assert!(good, "{said}");
    let unpacked = scratch.path().join("unpacked");
    let (good, said) = run(Command::new("dpkg-deb").arg("-R").arg(&package).arg(&unpacked));
    assert!(good, "{said}");
    for file in [
        "usr/bin/rushline",
        "etc/rushline/rushline.yaml",
        "usr/lib/systemd/system/rushline.service",
        "usr/share/bash-completion/completions/rushline",
    ] {
        let there = |file: &str| unpacked.join(file).exists();
        assert!(there(file) || there(file.trim_start_matches("usr/")), "{file} is not in the package");
    }
    let manual = |name: &str| {
        let path = unpacked.join("usr/share/man/man1").join(name);
        path.exists() || Path::new(&format!("{}.gz", path.display())).exists()
    };
    assert!(manual("rushline.1") && manual("rushline-sale-create.1"));
    let conffiles = std::fs::read_to_string(unpacked.join("DEBIAN/conffiles")).unwrap();
    assert_eq!(conffiles.trim(), "/etc/rushline/rushline.yaml");
    let (good, said) = run(Command::new(unpacked.join("usr/bin/rushline")).arg("--version"));
    assert!(good && said.contains(env!("CARGO_PKG_VERSION")), "{said}");
    let control = std::fs::read_to_string(unpacked.join("DEBIAN/control")).unwrap();
    assert!(control.contains("Package: rushline\n") && control.contains("libc6"), "{control}");
    let installed = unpacked.join("etc/rushline/rushline.yaml");
    assert_good_configuration(&["--config", installed.to_str().unwrap()], &[]);
}
