//! docs/reference/settings.md: the table that flags, variables and the file are made of.

use super::{begin, cell};
use rushline::config::{Config, SECTIONS, SETTINGS, Setting};
use std::fmt::Write;

const ABOUT: &str = "\
It runs with none of them. A setting is a flag, a variable or a line in a YAML file, and a flag goes over a variable, and that
over the file: `redis.url` is `--redis-url`, `RUSHLINE_REDIS_URL`, and `url` under `redis` in the file that `--config` or
`RUSHLINE_CONFIG` names. What is not understood stops the start, and its name is said.

`rushline config sample` writes this list as a file, `rushline config show` says every value and where it came from, and
`rushline config check` reads them and starts nothing.";

pub fn page() -> String {
    let mut page = begin("Settings", ABOUT);
    let without_section: Vec<&Setting> = SETTINGS.iter().filter(|setting| setting.section().is_none()).collect();
    rows(&mut page, &without_section);
    for (section, about) in SECTIONS {
        let _ = write!(page, "\n## {section}\n\n{}\n", about.trim());
        let settings: Vec<&Setting> = SETTINGS.iter().filter(|setting| setting.section() == Some(section)).collect();
        rows(&mut page, &settings);
    }
    page
}

fn rows(page: &mut String, settings: &[&Setting]) {
    page.push_str("\n| setting | default | allowed | |\n| --- | --- | --- | --- |\n");
    let config = Config::default();
    for setting in settings {
        let default = match (setting.unwritten)() {
            Some(unwritten) => cell(unwritten.meaning),
            None => format!("`{}`", setting.text(&config)),
        };
        let doc = cell(&setting.doc.join(" "));
        let _ = writeln!(page, "| `{}` | {default} | {} | {doc} |", setting.name, cell(&(setting.allowed)()));
    }
}
