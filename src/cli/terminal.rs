//! How the command line looks: output, errors, colours, tables.

use crate::config;
use crate::fault::{Class, Fault};
use comfy_table::{Cell, CellAlignment, ContentArrangement, LineStyle, Table, presets};
use serde_json::Value;
use std::io::{self, IsTerminal, Write};

/// Writes data to standard output.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Writes data as JSON, for programs.
pub fn print_json(value: &Value) -> anyhow::Result<()> {
    print(&(serde_json::to_string_pretty(value)? + "\n"))
}

/// Says something to the person, on standard error. Whether it can be heard changes nothing.
pub fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// `… | head` closes its end early; that is no failure of ours.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

pub fn exit_code(error: &anyhow::Error) -> u8 {
    let is_config = error.chain().any(|cause| cause.is::<config::Error>());
    let class =
        if is_config { Class::Config } else { Fault::in_error(error).map_or(Class::Failed, |fault| fault.class) };
    class as u8
}

/// Prints clap's error, help or version. An argument in the wrong place may be a URL with a password.
pub fn report_usage(error: &clap::Error) {
    let text = error.render().to_string();
    if text.contains("://") && text.contains('@') && error.use_stderr() {
        say(config::redact(&text).trim_end());
    } else {
        // If it cannot be printed there is nobody to tell.
        let _ = error.print();
    }
}

/// What went wrong, why, and what to do about it.
pub fn report(error: &anyhow::Error) {
    say(&rendered(error, colours(&io::stderr())));
}

pub fn rendered(error: &anyhow::Error, colours: bool) -> String {
    let (red, cyan, end) = if colours { ("\x1b[1;31m", "\x1b[36m", "\x1b[0m") } else { ("", "", "") };
    let mut lines = Vec::new();
    if let Some(config) = error.chain().find_map(|cause| cause.downcast_ref::<config::Error>()) {
        for problem in &config.problems {
            lines.push(format!("{red}error:{end} {problem}"));
            lines.extend(problem.hint.iter().map(|hint| format!("{cyan}hint:{end} {hint}")));
        }
        return lines.join("\n");
    }
    lines.push(format!("{red}error:{end} {error}"));
    let mut above = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Many errors repeat their cause in their own words.
        if !above.contains(&cause) {
            lines.push(format!("  because: {cause}"));
        }
        above = cause;
    }
    let hints = Fault::in_error(error).map_or(&[][..], |fault| &fault.hints);
    lines.extend(hints.iter().map(|hint| format!("{cyan}hint:{end} {hint}")));
    lines.join("\n")
}

/// Colours only for eyes, and only if they are wanted (no-color.org).
fn colours(stream: &impl IsTerminal) -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !unwanted && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// A narrower terminal breaks words into letters.
const COLUMNS_MIN: u16 = 40;

/// A table with its first column to the left and, from `numbers_from` on, columns to the right.
pub fn table(header: &[&str], numbers_from: usize, rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()));
    // A pipe has no width, and some terminals do not know theirs; there a row stays a line.
    let wrap = io::stdout().is_terminal() && table.width().is_some_and(|columns| columns >= COLUMNS_MIN);
    table.set_content_arrangement(if wrap { ContentArrangement::Dynamic } else { ContentArrangement::Disabled });
    let cell = |(column, text): (usize, String)| {
        let alignment = if column >= numbers_from { CellAlignment::Right } else { CellAlignment::Left };
        Cell::new(text).set_alignment(alignment)
    };
    table.set_header(header.iter().map(|text| text.to_string()).enumerate().map(cell));
    for row in rows {
        table.add_row(row.into_iter().enumerate().map(cell));
    }
    // Padding at the end of a line is of no use to `cut`, `diff` or a person.
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// Somebody else's words, for a terminal: no control characters, which could move its cursor, and not too long.
pub fn safe(text: &str, chars_max: usize) -> String {
    let mut out: String = text.chars().map(|c| if c.is_control() { '·' } else { c }).take(chars_max).collect();
    if text.chars().nth(chars_max).is_some() {
        out.push('…');
    }
    out
}

/// A number as people read it: `1 000 000`.
pub fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut out = String::from(if number < 0 { "-" } else { "" });
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// A JSON value as a person reads it in a cell.
pub fn plain(value: &Value) -> String {
    match value {
        Value::Null => "–".into(),
        Value::String(text) => text.clone(),
        Value::Number(number) => number.as_i64().map_or_else(|| number.to_string(), grouped),
        other => other.to_string(),
    }
}
