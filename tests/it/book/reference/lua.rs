//! docs/reference/lua.md: what the header of each script says. tests/it/tidy.rs holds headers against bodies.

use super::{begin, cell};
use rushline::store::scripts;
use std::fmt::Write;

const ABOUT: &str = "\
Every change of state in Redis is one of these scripts: one file, one atomic step, all keys in one slot. How they fit together,
with all keys and the state diagrams, is in [lua/README.md](../../lua/README.md), and each file begins with its whole contract.";

/// The part of a header that begins with this word, up to the next part.
fn part(header: &str, word: &str) -> String {
    let mut lines = header.lines().skip_while(|line| !line.starts_with(word));
    let first = lines.next().unwrap_or_default().strip_prefix(word).unwrap_or_default();
    let more = lines.take_while(|line| line.starts_with(' '));
    cell(&[first].into_iter().chain(more).collect::<Vec<_>>().join(" ")).replace('<', "&lt;")
}

pub fn page() -> String {
    let mut page = begin("Lua", ABOUT);
    for script in scripts::all() {
        let (header, _) = script.source.split_once("]]").expect("a script begins with its header");
        let does = header.split_once(&format!("--[[ {}: ", script.name)).expect("its name comes first").1;
        let does = cell(does.split("\n\n").next().unwrap_or_default()).replace('<', "&lt;");
        let memory = script.source.lines().next().is_some_and(|line| line.contains("allow-oom"));
        let _ = write!(page, "\n## {}\n\n{}\n\n| | |\n| --- | --- |\n", script.name, sentence(&does));
        for name in ["Why", "Slot", "Returns", "Errors", "Cost"] {
            let text = part(header, name);
            if !text.is_empty() {
                let _ = writeln!(page, "| {name} | {} |", text);
            }
        }
        let word = if memory { "yes: it ends something, and makes room" } else { "no: it takes something on" };
        let _ = writeln!(page, "| Runs when memory is out | {word} |");
    }
    page
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}
