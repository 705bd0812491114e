//! A YAML file that says everything and changes nothing.

use super::settings::{Config, SECTIONS, SETTINGS};
use super::table::Setting;
use std::fmt::Write;

/// Widest comment line.
const WIDTH: usize = 110;

/// Every setting with its default, commented out: take the `#` from `#key:` to change one.
pub fn sample() -> String {
    let mut out = String::from(
        "# Settings of rushline. Every line below shows a default: take the # from a `#key:` line to change it.\n\
         # A flag (--redis-url) goes over a variable (RUSHLINE_REDIS_URL), and that over this file.\n\
         # rushline config show   tells every value and where it came from.\n",
    );
    let config = Config::default();
    for setting in SETTINGS.iter().filter(|setting| setting.section().is_none()) {
        out.push('\n');
        write_setting(&mut out, setting, &config, "");
    }
    for (section, about) in SECTIONS {
        let _ = write!(out, "\n#{about}\n{section}:\n");
        for setting in SETTINGS.iter().filter(|setting| setting.section() == Some(section)) {
            write_setting(&mut out, setting, &config, "  ");
        }
    }
    out
}

/// Writing to a `String` cannot fail, so the results are dropped.
fn write_setting(out: &mut String, setting: &Setting, config: &Config, indent: &str) {
    let unwritten = (setting.unwritten)();
    let note = match &unwritten {
        Some(unwritten) => format!("Default: {}. ", unwritten.meaning),
        None => String::new(),
    };
    let text: String = setting.doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
    for line in wrap(&format!("{text} {note}Allowed: {}.", (setting.allowed)()), WIDTH - indent.len() - 2) {
        let _ = writeln!(out, "{indent}# {line}");
    }
    let value = unwritten.map_or_else(|| quoted(&setting.text(config)), |unwritten| unwritten.example.to_owned());
    let _ = writeln!(out, "{indent}#{}: {value}", setting.key());
}

/// Quotes what YAML would read as something other than this text.
fn quoted(text: &str) -> String {
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"./:_-".contains(&b)) && !text.ends_with(':');
    if plain { text.to_owned() } else { format!("{text:?}") }
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always a line");
        if !line.is_empty() && line.len() + 1 + word.len() > width {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}
