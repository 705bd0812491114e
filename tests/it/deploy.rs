//! What is shipped to watch it with names only metrics and labels that are there.

use std::collections::BTreeSet;
use std::path::Path;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The names of metrics in a text, as Prometheus would ask for them.
fn named(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let starts = text.match_indices("rushline_").map(|(at, _)| &text[at..]);
    starts.map(|rest| rest[..rest.find(|c| !word(c)).unwrap_or(rest.len())].to_owned()).collect()
}

#[test]
fn alerts_and_panels_ask_for_metrics_that_there_are() {
    let described = named(&read("src/server/metrics.rs"));
    for file in ["deploy/prometheus/alerts.yaml", "deploy/grafana/rushline.json"] {
        for name in named(&read(file)) {
            let bare = name.strip_suffix("_bucket").unwrap_or(&name);
            assert!(described.contains(bare), "{file} asks for {name}, which is not there");
        }
    }
    let dashboard: serde_json::Value = serde_json::from_str(&read("deploy/grafana/rushline.json")).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() > 15);
}

/// An alert that does not say what to do wakes somebody for nothing.
#[test]
fn every_alert_says_what_to_do() {
    let rules = read("deploy/prometheus/alerts.yaml");
    let rules: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    assert!(rules.len() > 10);
    for rule in rules {
        for part in ["expr: ", "severity: ", "summary: ", "description: "] {
            assert!(rule.contains(part), "no {part} in\n{rule}");
        }
    }
}
