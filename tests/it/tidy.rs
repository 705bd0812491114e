//! The house rules that a machine can read.

use rushline::store::scripts;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file that grows beyond this has two subjects.
const SOURCE_LINES_MAX: usize = 600;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(directory: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(directory)];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// `(header, body)` of a script: the header is the long comment at its top.
fn parts(source: &str) -> (&str, &str) {
    source.split_once("]]").expect("a script begins with its header")
}

/// The numbers of `KEYS[n]` (or ARGV) in a text, and the first of an open range `ARGV[n..]`.
fn numbers(text: &str, array: &str) -> (BTreeSet<usize>, Option<usize>) {
    let (mut single, mut range) = (BTreeSet::new(), None);
    for found in text.split(&format!("{array}[")).skip(1) {
        let index = found.split(']').next().unwrap();
        if let Some(first) = index.strip_suffix("..") {
            range = Some(first.parse().unwrap());
        } else if let Ok(number) = index.parse() {
            single.insert(number);
        }
    }
    (single, range)
}

/// Every script as `(name, source)`: the coordinator's, and those that run in a business service's Redis.
fn all_scripts() -> Vec<(&'static str, &'static str)> {
    #[cfg_attr(not(feature = "barrier-redis"), allow(unused_mut))]
    let mut all: Vec<_> = scripts::all().iter().map(|script| (script.name, script.source)).collect();
    #[cfg(feature = "barrier-redis")]
    all.extend(rushline::barrier::redis::SCRIPTS);
    all
}

#[test]
fn every_script_has_a_header_that_tells_the_truth() {
    for (name, source) in all_scripts() {
        let (header, body) = parts(source);
        let mut lines = source.lines();
        let first = lines.next().unwrap();
        assert!(first == "#!lua" || first.starts_with("#!lua flags="), "{name}: line 1 is {first}");
        assert!(lines.next().unwrap().starts_with(&format!("--[[ {name}: ")), "{name}: line 2 names the script");
        for part in ["Why ", "KEYS[1] ", "Slot ", "Returns ", "Cost "] {
            assert!(header.lines().any(|line| line.starts_with(part)), "{name}: no line `{part}` in the header");
        }
        for array in ["KEYS", "ARGV"] {
            // At the start of a line is where the header names them.
            let declared: String = header.lines().filter(|line| line.starts_with(array)).collect();
            let (named, range) = numbers(&declared, array);
            let (used, _) = numbers(body, array);
            for number in &named {
                assert!(used.contains(number), "{name}: {array}[{number}] is in the header and is not used");
            }
            for number in &used {
                let known = named.contains(number) || range.is_some_and(|first| *number >= first);
                assert!(known, "{name}: {array}[{number}] is used and is not in the header");
            }
            let by_number = |index: &str| index.split(']').next().unwrap().bytes().all(|byte| byte.is_ascii_digit());
            let computed =
                body.contains(&format!("unpack({array}")) || !body.split(&format!("{array}[")).skip(1).all(by_number);
            assert_eq!(computed, range.is_some(), "{name}: a range of {array} is named if and only if one is read");
        }
    }
}

/// A key that is not in KEYS may be in another slot; numbers that pass through JSON lose their last digits.
#[test]
fn no_script_glues_keys_or_reads_json() {
    for (name, source) in all_scripts() {
        let (_, body) = parts(source);
        for word in ["cjson", "cmsgpack", "loadstring", "redis.pcall", "RANDOMKEY", "'KEYS'", "'SCAN'", "'EVAL"] {
            assert!(!body.contains(word), "{name}: {word}");
        }
        for call in body.split("redis.call(").skip(1) {
            let mut arguments = call.split(',').map(str::trim);
            let command = arguments.next().unwrap().trim_end_matches([')', '\n']);
            if command.starts_with("'TIME'") {
                continue;
            }
            let first = if ["'XGROUP'", "'XINFO'"].contains(&command) { arguments.nth(1) } else { arguments.next() };
            let first = first.unwrap_or_default();
            assert!(first.starts_with("KEYS[") && !first.contains(".."), "{name}: redis.call({command}, {first} …");
        }
    }
}

#[test]
fn every_script_is_registered() {
    let registered: BTreeSet<String> = all_scripts().iter().map(|(name, _)| format!("{name}.lua")).collect();
    let there: BTreeSet<String> =
        files_below("lua", "lua").iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    #[cfg(not(feature = "barrier-redis"))]
    let there: BTreeSet<String> = there.into_iter().filter(|name| !name.starts_with("barrier_")).collect();
    assert_eq!(registered, there, "store/scripts.rs, barrier/redis.rs and lua/");
}

/// Nobody is refused while a partition has a unit: the proof of that looks at how often `available` grew, so a script that
/// raises it must say so.
#[test]
fn whoever_raises_what_is_available_counts_it() {
    for script in scripts::all() {
        let (_, body) = parts(script.source);
        let only_takes =
            ["order_admit", "stock_debit", "sale_create", "order_restore", "sale_recount"].contains(&script.name);
        if body.contains(":available'") && !only_takes {
            assert!(body.contains(":grown'"), "{} changes what is available and does not count growth", script.name);
        }
    }
}

/// Ending orders frees memory, so it must go on when memory is short (law L8); taking them on must not.
#[test]
fn only_what_takes_on_nothing_new_runs_without_memory() {
    for script in scripts::all() {
        let allowed = script.source.starts_with("#!lua flags=allow-oom");
        let takes_on = [
            "order_admit",
            "sale_create",
            "sale_grow",
            "stock_add",
            "stock_debit",
            "trans_create",
            "trans_append",
            "kv_save",
        ]
        .contains(&script.name);
        assert_eq!(allowed, !takes_on, "{}", script.name);
    }
}

#[test]
fn every_metric_is_described() {
    let described = std::fs::read_to_string(root().join("src/server/metrics.rs")).unwrap();
    for path in files_below("src", "rs") {
        let source = std::fs::read_to_string(&path).unwrap();
        for kind in ["counter", "gauge", "histogram"] {
            for used in source.split(&format!("{kind}!(\"")).skip(1) {
                let name = used.split('"').next().unwrap();
                let one_line = described.contains(&format!("describe_{kind}!(\"{name}\""));
                let several = described.contains(&format!("describe_{kind}!(\n        \"{name}\""));
                assert!(one_line || several, "{}: {kind} {name} is not described", path.display());
            }
        }
    }
}

#[test]
fn no_source_file_has_grown_two_subjects() {
    let written = |path: &PathBuf| !path.starts_with(root().join("src/proto")); // not by us: made from proto/
    for path in files_below("src", "rs").into_iter().filter(written) {
        let source = std::fs::read_to_string(&path).unwrap();
        let lines = source.lines().count();
        assert!(lines <= SOURCE_LINES_MAX, "{}: {lines} lines, at most {SOURCE_LINES_MAX}", path.display());
    }
}

/// `domain/` decides; it asks nobody, waits for nobody and knows no clock.
#[test]
fn the_rules_are_pure() {
    for path in files_below("src/domain", "rs") {
        let source = std::fs::read_to_string(&path).unwrap();
        for word in
            ["tokio::", "redis::", "hyper::", "std::fs", "std::net", "async fn", ".await", "::now()", "fastrand"]
        {
            assert!(!source.contains(word), "{}: {word}", path.display());
        }
    }
}

#[test]
fn the_sources_are_formatted() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo).args(["fmt", "--check", "--all"]).current_dir(root()).output().unwrap();
    let differences = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "cargo fmt\n{differences}{}", String::from_utf8_lossy(&output.stderr));
}

/// What is committed works on every machine: no path of the author's, no address of a private package registry.
#[test]
fn tracked_files_name_no_machine() {
    let output = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output();
    let Some(listed) = output.ok().filter(|output| output.status.success()) else { return }; // an unpacked package
    // Put together here, so that this file does not find itself.
    let homes = ["home", "Users", "root", "work"].map(|directory| format!("/{directory}/"));
    let registries = ["artifact", "nexus", "mirror", "index.crates"].map(|word| format!("://{word}"));
    for name in String::from_utf8(listed.stdout).unwrap().split('\0').filter(|name| !name.is_empty()) {
        let Ok(text) = std::fs::read_to_string(root().join(name)) else { continue };
        for (at, line) in text.lines().enumerate() {
            for start in &homes {
                let found = line.match_indices(start.as_str()).any(|(at, _)| {
                    // Part of a longer path or of an address is another thing.
                    at == 0 || !line[..at].ends_with(|c: char| c.is_alphanumeric() || "./-_}".contains(c))
                });
                assert!(!found, "{name}:{}: a path of some machine: {line}", at + 1);
            }
            for word in &registries {
                assert!(!line.contains(word.as_str()), "{name}:{}: a private registry: {line}", at + 1);
            }
        }
    }
}

/// The pages say which test breaks when a promise does; a renamed test must take its mention along.
#[test]
fn the_tests_that_the_pages_name_exist() {
    let tests = [files_below("tests/it", "rs"), files_below("src", "rs")].concat();
    let sources: String = tests.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    for page in ["ARCHITECTURE.md", "docs/reliability.md"] {
        let text = std::fs::read_to_string(root().join(page)).unwrap();
        let quoted = text.split('`').skip(1).step_by(2);
        // A test's name is a sentence: several words, joined by underscores, and nothing else.
        let named = quoted
            .filter(|name| name.matches('_').count() >= 3 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        for name in named {
            assert!(sources.contains(&format!("fn {name}(")), "{page} names a test that is not there: {name}");
        }
    }
}
