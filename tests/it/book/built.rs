//! The book is built by mdbook, and what it built hangs together: no warning, every page, no dead link.
//!
//! `tests/book/install.sh` gets mdbook, in the wheel that PyPI has of it: it is one program, and takes minutes to compile.

use super::page::{self, root};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What install.sh got under this name; none if it is left out here.
pub fn tool(name: &str) -> Option<PathBuf> {
    let place = std::env::var_os("RUSHLINE_TEST_BOOK").map_or_else(|| root().join("target/test-book"), PathBuf::from);
    if place.join(format!("{name}.ready")).exists() {
        return Some(place.join(name));
    }
    let why = std::fs::read_to_string(place.join(format!("{name}.left_out")));
    let why = why.unwrap_or_else(|_| String::from("nobody has looked for it\nhint: sh tests/book/install.sh"));
    assert!(std::env::var_os("CI").is_none(), "there is no {name}, and CI tries all: {why}");
    eprintln!("{name} is left out: {why}");
    None
}

/// The values of these attributes in a page, as they stand there.
fn values<'a>(html: &'a str, attributes: &[&str]) -> Vec<&'a str> {
    let found = attributes.iter().flat_map(|name| html.split(&format!(" {name}=\"")).skip(1).collect::<Vec<_>>());
    found.filter_map(|rest| rest.split('"').next()).collect()
}

/// The files of the book that a reader sees, by their paths.
fn html_below(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut pages = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "html") {
                let html = std::fs::read_to_string(&path).unwrap();
                pages.insert(path, html);
            }
        }
    }
    pages
}

#[test]
fn the_book_is_built_and_hangs_together() {
    let Some(mdbook) = tool("mdbook") else { return };
    let built = tempfile::tempdir().unwrap();
    let output = Command::new(mdbook.join("bin/mdbook"))
        .args(["build", "--dest-dir"])
        .arg(built.path())
        .arg(root().join("docs"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("WARN") && !said.contains("ERROR"), "mdbook build docs\n{said}");

    let mut pages = html_below(built.path());
    for page in page::of_the_book() {
        let name = page.name.strip_prefix("docs/").unwrap().replace("README.md", "index.md").replace(".md", ".html");
        assert!(pages.contains_key(&built.path().join(&name)), "{} is not in the book", page.name);
    }
    // These two are made of the others, or for addresses that are not there.
    pages.retain(|path, _| !path.ends_with("print.html") && !path.ends_with("404.html"));
    let ids: BTreeMap<&PathBuf, BTreeSet<&str>> =
        pages.iter().map(|(path, html)| (path, values(html, &["id"]).into_iter().collect())).collect();
    let mut dead = Vec::new();
    for (path, html) in &pages {
        for link in values(html, &["href", "src"]) {
            if link.contains(':') || link.is_empty() {
                continue; // another site, or a picture in the page itself
            }
            let (target, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if target.is_empty() { path.clone() } else { path.parent().unwrap().join(target) };
            let there = target.canonicalize().is_ok_and(|target| {
                let known = ids.iter().find(|(path, _)| path.canonicalize().unwrap() == target);
                anchor.is_empty() || known.is_none_or(|(_, ids)| ids.contains(anchor))
            });
            if !there {
                dead.push(format!("{} links to {link}", path.strip_prefix(built.path()).unwrap().display()));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
}
