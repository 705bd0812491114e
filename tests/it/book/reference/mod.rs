//! The pages of docs/reference/ that are made from the code: a stale one fails here. `RUSHLINE_WRITE_DOCS=1` has them
//! written instead, as `make docs` does.

mod errors;
mod http;
mod lua;
mod metrics;
mod settings;

use super::page::root;

/// Makes a page.
type Made = fn() -> String;

const PAGES: &[(&str, Made)] =
    &[("settings", settings::page), ("http", http::page), ("metrics", metrics::page), ("lua", lua::page)];

#[test]
fn the_reference_is_what_the_code_says() {
    let write = std::env::var_os("RUSHLINE_WRITE_DOCS").is_some();
    for (name, page) in PAGES {
        let path = root().join(format!("docs/reference/{name}.md"));
        let page = page();
        if write {
            std::fs::write(&path, &page).unwrap();
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        let differs = there.lines().zip(page.lines()).find(|(there, made)| there != made);
        assert!(there == page, "docs/reference/{name}.md is not what the code says: run `make docs`\n{differs:#?}");
    }
}

/// A title, what the page is for, and where it comes from.
fn begin(title: &str, about: &str) -> String {
    format!(
        "# {title}\n\n<!-- made from the code by tests/it/book/reference/: `make docs` writes it anew -->\n\n{about}\n"
    )
}

/// Text in a cell of a table.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
