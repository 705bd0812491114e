//! The Helm charts, rendered by Helm and read as a cluster would.

use super::{assert_good_configuration, assert_may_listen, at, documents, root, run, tool};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

const CHARTS: [&str; 2] = ["rushline", "example-shop"];

/// Helm, with nothing of this machine's.
fn helm(program: &Path, directory: &Path) -> Command {
    let mut helm = Command::new(program);
    helm.current_dir(directory);
    for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        helm.env(name, directory.join(name));
    }
    helm
}

/// Copies of the charts, for Helm puts one into the other.
fn copies(program: &Path) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let (good, said) = run(Command::new("cp")
        .arg("-r")
        .args(CHARTS.map(|chart| root().join("deploy/helm").join(chart)))
        .arg(directory.path()));
    assert!(good, "{said}");
    let (good, said) = run(helm(program, directory.path()).args(["dependency", "build", "example-shop"]));
    assert!(good, "{said}");
    directory
}

/// The manifests of a chart with these values; what is wrong with them otherwise.
fn render(chart: &str, values: &Value) -> Option<Result<Vec<Value>, String>> {
    let program = tool("helm")?;
    let directory = copies(&program);
    std::fs::write(directory.path().join("values.yaml"), values.to_string()).unwrap(); // JSON is YAML
    let mut template = helm(&program, directory.path());
    let (good, said) = run(template.args(["template", "shop", chart, "--values", "values.yaml"]));
    Some(if good { Ok(documents(&said)) } else { Err(said) })
}

#[test]
fn helm_finds_nothing_wrong_with_the_charts() {
    let Some(program) = tool("helm") else { return };
    let directory = copies(&program);
    let (good, said) = run(helm(&program, directory.path()).args(["lint", "--strict"]).args(CHARTS));
    assert!(good && said.contains("2 chart(s) linted, 0 chart(s) failed"), "{said}");
}

fn kinds(manifests: &[Value]) -> Vec<&str> {
    let mut kinds: Vec<&str> = manifests.iter().map(|manifest| manifest["kind"].as_str().unwrap()).collect();
    kinds.sort_unstable();
    kinds
}

fn of<'a>(manifests: &'a [Value], kind: &str) -> &'a Value {
    manifests.iter().find(|manifest| manifest["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

fn container<'a>(manifests: &'a [Value], name: &str) -> &'a Value {
    let containers = at(of(manifests, "Deployment"), "spec.template.spec.containers").as_array().unwrap();
    containers.iter().find(|container| container["name"] == name).unwrap()
}

/// Of a container: the variables that are given by value, as pairs.
fn variables(container: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
    let all = container["env"].as_array().unwrap();
    all.iter().filter_map(|variable| Some((text(&variable["name"])?, text(&variable["value"])?))).collect()
}

fn assert_shut_in(container: &Value) {
    let security = &container["securityContext"];
    assert_eq!(security["runAsNonRoot"], true);
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(at(security, "capabilities.drop"), &json!(["ALL"]));
    assert_eq!(at(security, "seccompProfile.type"), "RuntimeDefault");
    assert!(security["runAsUser"].as_u64().unwrap() >= 10_000);
    assert!(
        at(container, "resources.requests.memory").is_string() && at(container, "resources.limits.memory").is_string()
    );
}

/// The pod is given as long as its node may take to leave.
fn assert_has_time_to_leave(manifests: &[Value]) {
    let granted = at(of(manifests, "Deployment"), "spec.template.spec.terminationGracePeriodSeconds").as_u64().unwrap();
    let node = container(manifests, "rushline");
    let ms = |name: &str| -> u64 {
        variables(node)
            .iter()
            .find(|(found, _)| found == name)
            .unwrap_or_else(|| panic!("no {name}"))
            .1
            .parse()
            .unwrap()
    };
    let command = at(node, "lifecycle.preStop.exec.command.1").as_str().unwrap_or("0");
    let needed =
        command.parse::<u64>().unwrap() * 1000 + ms("RUSHLINE_SHUTDOWN_PAUSE_MS") + ms("RUSHLINE_SHUTDOWN_GRACE_MS");
    assert!(granted * 1000 >= needed + 5_000, "killed after {granted} s, and it may take {needed} ms");
}

#[test]
fn the_chart_as_a_service() {
    let Some(manifests) = render("rushline", &json!({})) else { return };
    let manifests = manifests.unwrap();
    assert_eq!(kinds(&manifests), ["ConfigMap", "Deployment", "PodDisruptionBudget", "Service", "ServiceAccount"]);
    let node = container(&manifests, "rushline");
    assert_shut_in(node);
    assert_has_time_to_leave(&manifests);
    assert_eq!(at(node, "readinessProbe.httpGet.path"), "/readyz", "it sees the store");
    assert_eq!(at(node, "livenessProbe.httpGet.path"), "/healthz", "it does not: starting again brings no Redis back");
    assert_eq!(at(node, "lifecycle.preStop.exec.command.0"), "/bin/sleep");
    // Everything selects the same pods.
    let labels = at(of(&manifests, "Deployment"), "spec.template.metadata.labels");
    for selector in [
        at(of(&manifests, "Deployment"), "spec.selector.matchLabels"),
        at(of(&manifests, "Service"), "spec.selector"),
        at(of(&manifests, "PodDisruptionBudget"), "spec.selector.matchLabels"),
    ] {
        for (label, value) in selector.as_object().unwrap() {
            assert_eq!(&labels[label], value);
        }
    }
    let pod = at(of(&manifests, "Deployment"), "spec.template.spec");
    assert_eq!(pod["enableServiceLinks"], false, "or a service named rushline sets our settings");
    let mounted = |name: &str| pod["volumes"].as_array().unwrap().iter().any(|volume| volume["name"] == name);
    for mount in node["volumeMounts"].as_array().unwrap() {
        assert!(mounted(mount["name"].as_str().unwrap()), "{mount}");
    }
    assert_may_listen(&settings(node));
    let tokens = settings(node).into_iter().find(|(name, _)| name == "RUSHLINE_SECURITY_TOKENS_FILE").unwrap().1;
    let mounts = node["volumeMounts"].as_array().unwrap();
    let mounted_at = |mount: &&Value| tokens.starts_with(mount["mountPath"].as_str().unwrap());
    assert_eq!(mounts.iter().find(mounted_at).expect("the tokens are mounted")["readOnly"], true);
    // No password but out of a Secret.
    assert!(variables(node).iter().all(|(name, _)| !name.ends_with("_URL")), "{:?}", variables(node));
}

#[test]
fn what_the_chart_configures_is_understood() {
    let config =
        json!({ "config": { "redis": { "prefix": "shop:", "connections": 4 }, "http": { "wait_ms_max": 5000 } } });
    let Some(manifests) = render("rushline", &config) else { return };
    let manifests = manifests.unwrap();
    let text = at(of(&manifests, "ConfigMap"), "data")["rushline.yaml"].as_str().unwrap();
    assert!(
        text.contains("prefix: 'shop:'") || text.contains("prefix: \"shop:\"") || text.contains("prefix: shop:"),
        "{text}"
    );
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rushline.yaml");
    std::fs::write(&file, text).unwrap();
    assert_good_configuration(&["--config", file.to_str().unwrap()], &settings(container(&manifests, "rushline")));
}

fn settings(container: &Value) -> Vec<(String, String)> {
    variables(container).into_iter().filter(|(name, _)| name.starts_with("RUSHLINE_")).collect()
}

#[test]
fn all_that_can_be_turned_on_is_well_formed() {
    let values = json!({
        "replicas": 3,
        "image": { "repository": "registry.example/rushline", "tag": "1.2.3" },
        "imagePullSecrets": [{ "name": "registry" }],
        "serviceMonitor": { "enabled": true, "labels": { "release": "prometheus" }, "authorization": { "credentials": { "name": "t", "key": "k" } } },
        "networkPolicy": { "enabled": true, "from": [{ "podSelector": { "matchLabels": { "app": "shop" } } }] },
        "files": { "tls": { "secretName": "rushline-tls" } },
        "podAnnotations": { "a": "b" }, "podLabels": { "c": "d" }, "nodeSelector": { "disk": "fast" },
        "tolerations": [{ "key": "sale", "operator": "Exists" }],
        "affinity": { "podAntiAffinity": {} },
        "security": { "tokens": { "secretName": "" }, "allowOpen": true },
        "shutdown": { "preStopSeconds": 0, "pauseSeconds": 60, "graceSeconds": 120 },
        "serviceAccount": { "create": true, "name": "seller", "annotations": { "e": "f" } },
        "service": { "annotations": { "g": "h" } },
    });
    let Some(manifests) = render("rushline", &values) else { return };
    let manifests = manifests.unwrap();
    assert_eq!(manifests.len(), 7, "{:?}", kinds(&manifests));
    assert_has_time_to_leave(&manifests);
    let node = container(&manifests, "rushline");
    assert_eq!(node["image"], "registry.example/rushline:1.2.3");
    assert!(node["lifecycle"].is_null());
    assert_may_listen(&settings(node));
    let pod = at(of(&manifests, "Deployment"), "spec.template.spec");
    assert_eq!(pod["serviceAccountName"], "seller");
    assert!(pod["volumes"].to_string().contains("rushline-tls"));
    assert_eq!(at(of(&manifests, "ServiceMonitor"), "spec.endpoints.0.path"), "/metrics");
    for manifest in &manifests {
        assert!(manifest["apiVersion"].is_string() && at(manifest, "metadata.name").is_string(), "{manifest}");
    }
}

#[test]
fn a_misspelt_value_is_refused() {
    for (wrong, says) in [
        (json!({ "replica": 2 }), "replica"),
        (json!({ "shutdown": { "pauseSeconds": "5" } }), "pauseSeconds"),
        (json!({ "config": { "shutdown": { "pause_ms": 5 } } }), "shutdown"),
        (json!({ "secrets": { "REDIS_URL": { "name": "a", "key": "b" } } }), "REDIS_URL"),
        (json!({ "secrets": { "RUSHLINE_SPARE_URL": { "name": "a" } } }), "key"),
        (json!({ "replicas": 0 }), "replicas"),
        (json!({ "security": { "tokens": { "secretName": "" } } }), "security.tokens"),
    ] {
        let Some(rendered) = render("rushline", &wrong) else { return };
        let said = rendered.expect_err(&wrong.to_string());
        assert!(said.contains(says), "{wrong}: {said}");
    }
}

#[test]
fn the_chart_as_a_sidecar() {
    let Some(manifests) = render("example-shop", &json!({})) else { return };
    let manifests = manifests.unwrap();
    assert_eq!(kinds(&manifests), ["Deployment"], "nothing of the other chart's own");
    let node = container(&manifests, "rushline");
    assert_shut_in(node);
    assert_has_time_to_leave(&manifests);
    assert!(node["readinessProbe"].is_null(), "the shop's own matter");
    assert_eq!(at(node, "startupProbe.exec.command"), &json!(["/usr/bin/rushline", "ready"]));
    let settings = settings(node);
    for name in ["RUSHLINE_HTTP_LISTEN", "RUSHLINE_GRPC_LISTEN"] {
        let (_, address) = settings.iter().find(|(found, _)| found == name).unwrap();
        assert!(address.starts_with("127.0.0.1:"), "{address} is reached from outside the pod");
    }
    assert_may_listen(&settings);
    assert_good_configuration(&[], &settings);
}
