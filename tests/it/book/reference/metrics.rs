//! docs/reference/metrics.md: what the server says of its metrics when it starts, and the labels that the code gives them.

use super::{begin, cell};
use crate::book::page::root;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;
use std::sync::Mutex;

const ABOUT: &str = "\
`GET /metrics`, in the format of Prometheus (`/api/metrics` is the same). Counters only grow, and begin at 0 with each start of
a server; add them up over all nodes. What says \"as this node sees it\" is not to be added up. A histogram is there as
`_bucket`, `_sum` and `_count`. Alert rules and a Grafana dashboard that use them are in [deploy/](../../deploy/README.md).";

/// Hears the descriptions.
#[derive(Default)]
struct Described(Mutex<BTreeMap<String, (&'static str, String)>>);

impl Described {
    fn note(&self, kind: &'static str, key: &KeyName, description: &SharedString) {
        self.0.lock().unwrap().insert(key.as_str().to_owned(), (kind, description.to_string()));
    }
}

impl Recorder for Described {
    fn describe_counter(&self, key: KeyName, _: Option<Unit>, description: SharedString) {
        self.note("counter", &key, &description);
    }
    fn describe_gauge(&self, key: KeyName, _: Option<Unit>, description: SharedString) {
        self.note("gauge", &key, &description);
    }
    fn describe_histogram(&self, key: KeyName, _: Option<Unit>, description: SharedString) {
        self.note("histogram", &key, &description);
    }
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// Of each metric the labels that any place in `folder` gives it.
fn labels(folder: &Path, found: &mut BTreeMap<String, BTreeSet<String>>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            labels(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = std::fs::read_to_string(&path).unwrap();
            let uses =
                ["counter!(", "gauge!(", "histogram!("].map(|made| source.split(made).skip(1).collect::<Vec<_>>());
            for used in uses.concat() {
                // Up to the end of the macro; a label's value holds no semicolon.
                let used = used.split(';').next().unwrap_or_default();
                let words: Vec<&str> = used.split('"').collect();
                let Some(name) = words.get(1) else { continue };
                let labelled = words.windows(2).skip(1).filter(|pair| pair[1].trim_start().starts_with("=>"));
                found.entry((*name).to_owned()).or_default().extend(labelled.map(|pair| pair[0].to_owned()));
            }
        }
    }
}

pub fn page() -> String {
    let described = Described::default();
    metrics::with_local_recorder(&described, rushline::server::describe_metrics);
    let mut labelled = BTreeMap::new();
    labels(&root().join("src"), &mut labelled);
    let mut page = begin("Metrics", ABOUT);
    page.push_str("\n| metric | kind | labels | |\n| --- | --- | --- | --- |\n");
    for (name, (kind, description)) in described.0.into_inner().unwrap() {
        let labels: Vec<String> = labelled.get(&name).into_iter().flatten().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(page, "| `{name}` | {kind} | {} | {} |", labels.join(", "), cell(&description));
    }
    page
}
