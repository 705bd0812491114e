//! docs/reference/errors.md is written by hand, since what to do about an error is nowhere in the code; that it has every code
//! with its status, and no other, is read from the sources.

use crate::book::page::root;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Where problem documents are made. dtm's clients hear dtm's own words instead: docs/dtm-parity.md.
const MADE_IN: &str = "src/server";

/// `(status, code)` of every problem that the sources make; the status is 0 where it stands elsewhere.
fn made(folder: &Path, found: &mut BTreeSet<(u16, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            made(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = std::fs::read_to_string(&path).unwrap();
            let product = source.split("#[cfg(test)]").next().unwrap();
            for used in product.split("StatusCode::").skip(1) {
                let (name, rest) =
                    used.split_at(used.find(|c: char| !c.is_ascii_uppercase() && c != '_').unwrap_or(used.len()));
                if let Some(code) = rest.strip_prefix(',').and_then(code) {
                    found.insert((number(name), code));
                }
            }
            for (closure, status) in [(" unavailable(", 503), (" conflict(", 409)] {
                found.extend(product.split(closure).skip(1).filter_map(code).map(|code| (status, code)));
            }
            // What is wrong with a request is handed to whoever reads it: the codes begin alike, and all are 422.
            let literals = product.split('"').skip(1).step_by(2).filter(|text| text.starts_with("invalid_"));
            found.extend(literals.filter(|code| *code != "invalid_json").map(|code| (422, code.to_owned())));
        }
    }
}

/// The text in quotes that comes next.
fn code(text: &str) -> Option<String> {
    let code = text.trim_start().strip_prefix('"')?.split('"').next()?;
    let is_code = !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    is_code.then(|| code.to_owned())
}

/// `NOT_FOUND` as 404.
fn number(name: &str) -> u16 {
    let named = |status: &u16| {
        let reason = http::StatusCode::from_u16(*status).ok().and_then(|status| status.canonical_reason());
        reason.is_some_and(|reason| reason.to_uppercase().replace([' ', '-'], "_") == name)
    };
    (100..600).find(named).unwrap_or_else(|| panic!("nobody knows the status {name}"))
}

/// The rows of the page: code to statuses.
fn listed() -> BTreeMap<String, Vec<u16>> {
    let text = std::fs::read_to_string(root().join("docs/reference/errors.md")).unwrap();
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        let statuses = cells.next()?.split(", ").map(|status| status.parse().ok()).collect::<Option<Vec<u16>>>()?;
        Some((cells.next()?.trim_matches('`').to_owned(), statuses))
    });
    rows.collect()
}

#[test]
fn every_code_of_an_error_is_on_its_page_with_its_status() {
    let mut found = BTreeSet::new();
    made(&root().join(MADE_IN), &mut found);
    let refusals = rushline::sale::Refusal::ALL;
    let listed = listed();
    let mut codes: BTreeSet<&str> = refusals.iter().map(|refusal| refusal.code()).collect();
    for (status, code) in &found {
        codes.insert(code);
        let there = listed.get(code).unwrap_or_else(|| panic!("docs/reference/errors.md lacks `{code}` ({status})"));
        assert!(there.contains(status), "`{code}` is {status}, and docs/reference/errors.md says {there:?}");
    }
    assert_eq!(listed.keys().map(String::as_str).collect::<BTreeSet<_>>(), codes, "left: docs/reference/errors.md");
}
