//! docs/reference/http.md: every request of src/server/openapi.json on one page.

use super::{begin, cell};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write;

const ABOUT: &str = "\
JSON in and out; fields that are not known are refused. This is the list; the forms of bodies and answers are in the description
itself, OpenAPI 3.1, which a server has at `/v1/openapi.json` and shows at `/docs`, without asking anybody else. Refusals and
errors are problem documents with a `code`: [errors](errors.md). dtm's interface, below `/api/dtmsvr`, is dtm's own:
[beside dtm](../dtm-parity.md).";

fn description() -> Value {
    serde_json::from_str(include_str!("../../../../src/server/openapi.json")).unwrap()
}

pub fn page() -> String {
    let root = description();
    let mut page = begin("HTTP", ABOUT);
    let mut tags = BTreeSet::new();
    let mut operations = Vec::new();
    for (path, methods) in root["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let tag = operation["tags"][0].as_str().unwrap();
            tags.insert(tag);
            operations.push((tag, path, method.to_uppercase(), operation));
        }
    }
    operations.sort_by_key(|(_, path, method, _)| (path.as_str(), method.clone()));
    for tag in tags {
        let _ = write!(
            page,
            "\n## {tag}\n\n| request | does | parameters | body | answers |\n| --- | --- | --- | --- | --- |\n"
        );
        for (_, path, method, operation) in operations.iter().filter(|(found, ..)| *found == tag) {
            let parameters = operation["parameters"].as_array().into_iter().flatten().map(|parameter| {
                let parameter = resolved(&root, parameter);
                let name = parameter["name"].as_str().unwrap();
                if parameter["in"] == "header" { format!("`{name}` (header)") } else { format!("`{name}`") }
            });
            let in_path = |name: &String| path.contains(&format!("{{{}}}", name.trim_matches('`')));
            let parameters: Vec<String> = parameters.filter(|name| !in_path(name)).collect();
            let body = &operation["requestBody"]["content"]["application/json"]["schema"]["$ref"];
            let body = body
                .as_str()
                .and_then(|name| name.rsplit('/').next())
                .map_or(String::new(), |name| format!("`{name}`"));
            let answers = operation["responses"].as_object().unwrap().keys().filter(|status| *status != "default");
            let answers: BTreeSet<&str> = answers.map(String::as_str).collect();
            let answers: Vec<&str> = answers.into_iter().collect();
            let does = cell(operation["summary"].as_str().unwrap());
            let _ = writeln!(
                page,
                "| `{method} {path}` | {does} | {} | {body} | {} |",
                parameters.join(", "),
                answers.join(", ")
            );
        }
    }
    page
}

fn resolved<'a>(root: &'a Value, value: &'a Value) -> &'a Value {
    value["$ref"].as_str().map_or(value, |name| root.pointer(name.trim_start_matches('#')).unwrap())
}
