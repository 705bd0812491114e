//! One HTML file with everything in it: no network, no library, light and dark, and readable on a phone.
//!
//! The data is the runs' JSON; `page/plots.js` draws it as inline SVG. Two runs are drawn over one another.

use super::run::Run;

const HTML: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/style.css");
const SCRIPT: &str = include_str!("page/plots.js");

/// The page of one run, or of two side by side.
pub fn of(runs: &[&Run]) -> anyhow::Result<String> {
    // In a script element only `<` can end it; in JSON it stands in strings only, where it may be escaped.
    let data = serde_json::to_string(runs)?.replace('<', "\\u003c");
    let names: Vec<&str> = runs.iter().map(|run| &*run.about.name).collect();
    let title = escape(&names.join(" and "));
    // In this order: no part's marks are looked for in what was put in before.
    let [head, rest] = split(HTML, "{{title}}");
    let [style, rest] = split(rest, "{{style}}");
    let [body, rest] = split(rest, "{{data}}");
    let [script, end] = split(rest, "{{script}}");
    Ok([head, &title, style, STYLE, body, &data, script, SCRIPT, end].concat())
}

fn split<'a>(text: &'a str, mark: &str) -> [&'a str; 2] {
    let (before, after) = text.split_once(mark).expect("page.html has each mark once, in order");
    [before, after]
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
