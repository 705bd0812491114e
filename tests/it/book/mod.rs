//! The book (docs/) and README.md tell the truth: what can be typed is typed, on the real programs, and must print what the
//! page quotes; links lead somewhere; what can be made from the code is (`reference.rs`).
//!
//! `RUSHLINE_TEST_PAGE=docs/cli.md` tells one page only.

mod built;
mod page;
mod reference;
mod story;

pub use built::tool;

use page::{Mark, Page};
use std::collections::BTreeSet;
use std::sync::Mutex;

/// Pages told at the same time: each has servers of its own.
const PAGES_AT_ONCE: usize = 3;
/// Commands that no test runs. One more is to be thought about before this grows.
const NOT_TRIED_MAX: usize = 24;

fn readme_and_book() -> Vec<Page> {
    [Page::read("README.md")].into_iter().chain(page::of_the_book()).collect()
}

/// Programs of this workspace that only `cargo test --workspace` builds, and `make test` does.
fn is_missing(page: &Page) -> Option<&'static str> {
    let runs = |program: &str| {
        let tried = |mark: &Option<Mark>| matches!(mark, Some(Mark::Tried { .. } | Mark::Terminal { .. }));
        page.blocks.iter().any(|block| tried(&block.mark) && block.text.contains(program))
    };
    ["rushline-loadtest", "rushline-simulate"]
        .into_iter()
        .find(|program| runs(program) && !story::programs().join(program).exists())
}

#[test]
fn the_commands_of_the_pages_do_what_they_say() {
    let wanted = std::env::var("RUSHLINE_TEST_PAGE").ok();
    let mut pages = readme_and_book();
    pages.retain(|page| page.is_a_story() && wanted.as_ref().is_none_or(|wanted| *wanted == page.name));
    assert!(!pages.is_empty(), "there is no story to tell");
    let (left, failed) = (Mutex::new(pages), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..PAGES_AT_ONCE {
            scope.spawn(|| {
                while let Some(page) = { left.lock().unwrap().pop() } {
                    if let Some(program) = is_missing(&page) {
                        assert!(std::env::var_os("CI").is_none(), "{}: {program} is not built", page.name);
                        eprintln!("{} is left out: {program} is not built\nhint: cargo build --workspace", page.name);
                        continue;
                    }
                    let started = std::time::Instant::now();
                    // A page that fails has said why already; the others are told all the same.
                    let told = std::panic::catch_unwind(|| story::tell(&page));
                    eprintln!("{} took {:.1} s", page.name, started.elapsed().as_secs_f64());
                    if told.is_err() {
                        failed.lock().unwrap().push(page.name.clone());
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "these pages do not keep what they promise: {failed:?}");
}

#[test]
fn every_command_is_tried_or_says_why_not() {
    let mut not_tried = Vec::new();
    for page in readme_and_book() {
        for block in page.blocks.iter().filter(|block| block.is_command()) {
            let place = format!("{}:{}", page.name, block.line);
            assert_eq!(block.language, "sh", "{place}: a command is written as `sh`, without the prompt");
            match &block.mark {
                None => {
                    panic!("{place}: neither `<!-- tried -->` nor `<!-- not tried: WHY -->` (tests/it/book/page.rs)")
                }
                Some(Mark::NotTried { why }) => not_tried.push(format!("{place}: {why}")),
                Some(_) => {}
            }
        }
    }
    println!("commands that no test runs:\n{}", not_tried.join("\n"));
    assert!(not_tried.len() <= NOT_TRIED_MAX, "too many commands that no test runs:\n{}", not_tried.join("\n"));
}

/// Of the pages outside the book, those that link into it or among themselves.
const OTHER_PAGES: [&str; 8] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "lua/README.md",
    "deploy/README.md",
    "examples/README.md",
    "proto/README.md",
    "tests/sdk/README.md",
];

#[test]
fn links_lead_to_pages_and_headings_that_there_are() {
    let mut dead = Vec::new();
    let book = page::of_the_book();
    for page in OTHER_PAGES.map(Page::read).iter().chain(&book) {
        let folder = page::root().join(&page.name).parent().unwrap().to_owned();
        for link in page.links().iter().filter(|link| !link.contains("://")) {
            let (path, anchor) = link.split_once('#').map_or((link.as_str(), None), |(path, rest)| (path, Some(rest)));
            let target = if path.is_empty() { page::root().join(&page.name) } else { folder.join(path) };
            let is_there = match anchor {
                _ if !target.exists() => false,
                Some(anchor) if target.extension().is_some_and(|extension| extension == "md") => {
                    Page::read(target.to_str().unwrap()).anchors().iter().any(|there| there == anchor)
                }
                _ => true,
            };
            if !is_there {
                dead.push(format!("{} links to {link}", page.name));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
}

#[test]
fn the_summary_has_every_page_once() {
    let summary = Page::read("docs/SUMMARY.md");
    let listed: Vec<String> = summary.links().iter().map(|link| format!("docs/{link}")).collect();
    let once: BTreeSet<&String> = listed.iter().collect();
    assert_eq!(once.len(), listed.len(), "docs/SUMMARY.md lists a page twice");
    let book = page::of_the_book();
    let there: BTreeSet<&String> = book.iter().map(|page| &page.name).collect();
    assert_eq!(once, there, "left: docs/SUMMARY.md, right: the pages in docs/");
}
