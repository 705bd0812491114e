//! The image and the compose file. Nothing is built or pulled here: there is no engine to do it.

use super::{assert_good_configuration, assert_may_listen, at, read, root, run, tool};
use serde_json::Value;
use std::process::Command;

/// Instructions of a Dockerfile as `(word, rest)`, joined where a line goes on.
fn instructions() -> Vec<(String, String)> {
    let text = read("deploy/docker/Dockerfile");
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let joined = lines.join("\n").replace("\\\n", " ");
    let instruction = |line: &str| {
        let (word, rest) = line.split_once(' ')?;
        Some((word.to_owned(), rest.split_whitespace().collect::<Vec<_>>().join(" ")))
    };
    joined.lines().filter_map(instruction).collect()
}

fn all(word: &str) -> Vec<String> {
    instructions().into_iter().filter(|(found, _)| found == word).map(|(_, rest)| rest).collect()
}

#[test]
fn the_image_runs_as_nobody_and_says_how_it_is() {
    let stages = all("FROM");
    assert_eq!(stages.len(), 2, "one to build, one to run");
    for stage in &stages {
        let image = stage.split(' ').next().unwrap();
        let tag = image.split_once(':').unwrap_or_else(|| panic!("{image} is not pinned")).1;
        assert!(
            tag.contains(|c: char| c.is_ascii_digit()),
            "{image}: a tag without a version is another image tomorrow"
        );
    }
    let user = all("USER").pop().expect("a USER");
    let uid: u32 =
        user.split(':').next().unwrap().parse().expect("by number, so that a cluster can see that it is not root");
    assert!(uid >= 10_000, "{uid} may be somebody on the host");
    for word in ["ENTRYPOINT", "CMD"] {
        let command: Vec<String> =
            serde_json::from_str(&all(word)[0]).expect("a list: without a shell, signals arrive");
        assert!(!command.is_empty());
    }
    let check = all("HEALTHCHECK").pop().expect("a health check");
    assert!(check.ends_with(r#"CMD ["/usr/bin/rushline", "ready"]"#), "{check}");
    assert!(all("ADD").is_empty());
    assert!(all("RUN").iter().any(|run| run.contains("--locked")), "what is built is what Cargo.lock says");
    // Both layers build the same thing, or the first one is for nothing.
    let builds: Vec<String> = all("RUN")
        .iter()
        .filter_map(|run| Some(run.split("&&").find(|step| step.contains("cargo build"))?.trim().to_owned()))
        .collect();
    assert_eq!(builds.len(), 2);
    assert_eq!(builds[0], builds[1]);
}

/// What is copied is there, and the context lets it through.
#[test]
fn the_image_is_built_from_what_there_is() {
    let ignored = read(".dockerignore");
    let let_in: Vec<&str> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    for copy in all("COPY").iter().filter(|copy| !copy.starts_with("--from")) {
        let mut words: Vec<&str> = copy.split(' ').collect();
        words.pop();
        for source in words {
            assert!(root().join(source).exists(), "COPY {copy}: there is no {source}");
            assert!(let_in.contains(&source), "COPY {copy}: .dockerignore keeps {source} away");
        }
    }
    // The sources include these at build time.
    for directory in ["lua", "proto"] {
        assert!(let_in.contains(&directory));
    }
}

/// The layer of dependencies: every program that the manifests name has a stub, or cargo refuses to begin.
#[test]
fn the_layer_of_dependencies_has_all_that_cargo_asks_for() {
    let scratch = tempfile::tempdir().unwrap();
    for copy in all("COPY") {
        let words: Vec<&str> = copy.split(' ').collect();
        if words[0] == "src" {
            break; // from here on it is no longer only dependencies
        }
        let (target, sources) = words.split_last().unwrap();
        for source in sources {
            let to = scratch.path().join(target.trim_start_matches('/'));
            if target.ends_with('/') {
                std::fs::create_dir_all(&to).unwrap();
            }
            assert!(Command::new("cp").arg("-r").arg(root().join(source)).arg(to).status().unwrap().success());
        }
    }
    let (good, said) = run(Command::new("sh").arg("stubs.sh").current_dir(&scratch));
    assert!(good, "{said}");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut metadata = Command::new(cargo);
    metadata.args(["metadata", "--format-version", "1", "--locked", "--offline", "--no-deps"]).current_dir(&scratch);
    let output = metadata.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    for target in
        metadata["packages"].as_array().unwrap().iter().flat_map(|package| package["targets"].as_array().unwrap())
    {
        let source = target["src_path"].as_str().unwrap();
        assert!(std::path::Path::new(source).exists(), "stubs.sh makes no {source}");
    }
}

#[test]
fn hadolint_has_nothing_to_say() {
    let Some(hadolint) = tool("hadolint") else { return };
    let (good, said) = run(Command::new(hadolint).arg(root().join("deploy/docker/Dockerfile")));
    assert!(good, "{said}");
}

fn compose() -> Option<Value> {
    let mut command = Command::new(tool("docker-compose")?);
    command.arg("-f").arg(root().join("deploy/compose.yaml")).args(["config", "--format", "json"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn every_service_of_the_compose_file_is_shut_in() {
    let Some(compose) = compose() else { return };
    let services = compose["services"].as_object().unwrap();
    assert_eq!(services.len(), 7, "{:?}", services.keys().collect::<Vec<_>>());
    for (name, service) in services {
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(at(service, "cap_drop.0"), "ALL", "{name}");
        assert_eq!(at(service, "security_opt.0"), "no-new-privileges:true", "{name}");
        let image = service["image"].as_str().unwrap();
        assert!(image.rsplit_once(':').is_some_and(|(_, tag)| tag.contains(|c: char| c.is_ascii_digit())), "{image}");
        let own_check = service["image"] == "rushline:0.1.0"; // the image has it
        assert!(own_check || service["healthcheck"]["test"].is_array(), "{name} has no health check");
        for port in service["ports"].as_array().into_iter().flatten() {
            assert_eq!(port["host_ip"], "127.0.0.1", "{name} is open to the network: {port}");
        }
        for volume in service["volumes"].as_array().into_iter().flatten().filter(|volume| volume["type"] == "bind") {
            let source = volume["source"].as_str().unwrap();
            assert!(std::path::Path::new(source).exists(), "{name} mounts {source}, which is not there");
            assert_eq!(volume["read_only"], true, "{name}: {source}");
        }
    }
    let redis = at(&compose, "services.redis.command").to_string();
    for flag in ["--appendonly yes", "--appendfsync always", "--maxmemory-policy noeviction", "--maxmemory "] {
        assert!(redis.contains(flag), "{redis}");
    }
    assert!(at(&compose, "services.mongo.command").to_string().contains("--replSet"));
    for (file, target) in [("prometheus.yaml", "prometheus"), ("rushline.json", "grafana"), ("rushline.conf", "nginx")]
    {
        let volumes = at(&compose, &format!("services.{target}.volumes")).to_string();
        assert!(volumes.contains(file), "{target} does not get {file}");
    }
}

#[test]
fn the_nodes_of_the_compose_file_have_settings_that_there_are() {
    let Some(compose) = compose() else { return };
    for node in ["rushline-1", "rushline-2"] {
        let service = at(&compose, &format!("services.{node}"));
        let mut variables: Vec<(String, String)> = variables_of_the_image();
        let given = service["environment"].as_object().unwrap().iter();
        variables.extend(given.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())));
        assert_good_configuration(&[], &variables);
        assert_may_listen(&variables);
        let number =
            |name: &str| -> u64 { variables.iter().find(|(found, _)| found == name).unwrap().1.parse().unwrap() };
        let needed = number("RUSHLINE_SHUTDOWN_PAUSE_MS") + number("RUSHLINE_SHUTDOWN_GRACE_MS") + 5_000;
        let granted = service["stop_grace_period"].as_str().unwrap().trim_end_matches('s').parse::<u64>().unwrap();
        assert!(granted * 1000 >= needed, "{node} is killed after {granted} s and needs {needed} ms");
        assert!(service["stop_signal"].is_null(), "SIGTERM");
    }
}

fn variables_of_the_image() -> Vec<(String, String)> {
    let pairs = all("ENV").join(" ");
    pairs.split(' ').map(|pair| pair.split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap()).collect()
}
