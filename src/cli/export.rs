//! `rushline export`: orders or transactions as CSV or NDJSON, page by page, in a file or to standard output.

use super::client::ServerArgs;
use super::progress::Progress;
use super::query::{self, Query};
use super::terminal;
use crate::domain::ids::SaleName;
use crate::fault::Fault;
use anyhow::Context;
use serde_json::Value;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

pub const EXAMPLES: &str = "\
Examples:
  rushline export orders nov22 > orders.csv
  rushline export orders nov22 --status failed --format ndjson --out refused.ndjson
  rushline export transactions --from -24h --out today.csv";

/// Rows of one question.
const PAGE: u32 = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Csv,
    Ndjson,
}

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Live and finished orders of a sale, newest first.
    #[command(
        after_help = "Examples:\n  rushline export orders nov22 > orders.csv\n  rushline export orders nov22 --status failed --format ndjson --out refused.ndjson"
    )]
    Orders {
        #[arg(value_name = "SALE", value_parser = |text: &str| SaleName::parse(text).map_err(|invalid| invalid.rule))]
        sale: SaleName,
        /// submitted, reserved, succeed, failed, cancelled or expired.
        #[arg(long, value_name = "WORD")]
        status: Option<String>,
        #[arg(long, value_name = "BUYER")]
        buyer: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Global transactions, newest first.
    #[command(after_help = "Example:\n  rushline export transactions --from -24h --out today.csv")]
    Transactions {
        /// prepared, submitted, aborting, succeed or failed.
        #[arg(long, value_name = "WORD")]
        status: Option<String>,
        /// msg, saga, tcc, xa or workflow.
        #[arg(long = "type", value_name = "WORD")]
        trans_type: Option<String>,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, clap::Args)]
pub struct Common {
    #[command(flatten)]
    span: query::Span,
    /// A text that each has somewhere.
    #[arg(long, value_name = "TEXT")]
    q: Option<String>,
    #[arg(long, value_enum, default_value_t = Format::Csv)]
    format: Format,
    /// A file in place of standard output; it is there only when the export is whole.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
}

const ORDER: &[&str] =
    &["gid", "sale", "buyer", "status", "items", "attempts", "last_error", "admitted_at", "finished_at", "payload"];
const TRANSACTION: &[&str] = &[
    "gid",
    "type",
    "status",
    "protocol",
    "created_at",
    "updated_at",
    "ended_at",
    "done",
    "branches",
    "failed_passes",
    "attention",
    "reason",
];

pub async fn run(command: Command) -> anyhow::Result<()> {
    let (path, list, columns, query, common) = match command {
        Command::Orders { sale, status, buyer, common } => {
            let query = Query::default().with("status", status).with("buyer", buyer);
            (format!("/v1/sales/{sale}/orders"), "orders", ORDER, query, common)
        }
        Command::Transactions { status, trans_type, common } => {
            let query = Query::default().with("status", status).with("type", trans_type);
            ("/v1/transactions".to_owned(), "transactions", TRANSACTION, query, common)
        }
    };
    let query = common.span.of(query).with("q", common.q.as_ref()).with("limit", Some(PAGE));
    // --json is what `--format ndjson` is called everywhere else.
    let format = if common.server.json { Format::Ndjson } else { common.format };
    let mut target = Target::open(common.out.as_deref())?;
    let server = common.server.connect()?;
    let mut progress = Progress::new(list, 0);
    let (mut rows, mut after) = (0, None::<String>);
    if format == Format::Csv {
        target.line(&columns.join(","))?;
    }
    loop {
        let page = server.get(&format!("{path}{}", query.clone().with("after", after.take()))).await?;
        for row in page[list].as_array().into_iter().flatten() {
            match format {
                Format::Csv => target.line(&csv(row, columns))?,
                Format::Ndjson => target.line(&row.to_string())?,
            }
            rows += 1;
        }
        progress.at(rows);
        after = page["next"].as_str().map(str::to_owned);
        if after.is_none() {
            break;
        }
    }
    drop(progress);
    target.finish()?;
    if common.out.is_some() {
        terminal::say(&format!("{rows} {list}"));
    }
    Ok(())
}

/// Standard output, or a file beside the one that is wanted, which gets its name when it is whole.
struct Target {
    writer: Box<dyn Write>,
    renamed: Option<(PathBuf, PathBuf)>,
}

impl Target {
    fn open(out: Option<&Path>) -> anyhow::Result<Self> {
        let Some(out) = out else { return Ok(Self { writer: Box::new(BufWriter::new(io::stdout())), renamed: None }) };
        let mut name = out.file_name().context("--out names no file")?.to_owned();
        name.push(".part");
        let part = out.with_file_name(name);
        let file = File::create(&part)
            .map_err(|error| Fault::failed(format!("cannot write {}", part.display())).because(error))?;
        Ok(Self { writer: Box::new(BufWriter::new(file)), renamed: Some((part, out.to_owned())) })
    }

    fn line(&mut self, text: &str) -> io::Result<()> {
        self.writer.write_all(text.as_bytes())?;
        self.writer.write_all(b"\n")
    }

    fn finish(mut self) -> anyhow::Result<()> {
        self.writer.flush()?;
        drop(self.writer);
        if let Some((part, out)) = self.renamed {
            std::fs::rename(&part, &out).with_context(|| format!("cannot rename to {}", out.display()))?;
        }
        Ok(())
    }
}

fn csv(row: &Value, columns: &[&str]) -> String {
    columns.iter().map(|column| field(column, &row[*column])).collect::<Vec<_>>().join(",")
}

fn field(column: &str, value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        // As a person writes it, and as a spreadsheet can be searched for: `2 x sku-1; 1 x sku-2`.
        Value::Array(items) if column == "items" => {
            let item = |item: &Value| format!("{} x {}", item["quantity"], item["sku"].as_str().unwrap_or_default());
            items.iter().map(item).collect::<Vec<_>>().join("; ")
        }
        other => other.to_string(),
    };
    // A buyer's words must not be a formula in the spreadsheet of whoever opens it.
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']) && !value.is_number();
    let text = if formula { format!("'{text}") } else { text };
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_row_of_csv_holds_whatever_a_buyer_wrote() {
        let row = json!({
            "gid": "s.0.1-1.0", "buyer": "=HYPERLINK(\"http://x\")", "items": [{"sku": "a", "quantity": 2}, {"sku": "b", "quantity": 1}],
            "attempts": -3, "last_error": "two\nlines, and \"quotes\"", "payload": {"a": 1}, "finished_at": null,
        });
        let line = csv(&row, &["gid", "buyer", "items", "attempts", "last_error", "finished_at", "payload"]);
        assert_eq!(
            line,
            "s.0.1-1.0,\"'=HYPERLINK(\"\"http://x\"\")\",2 x a; 1 x b,-3,\"two\nlines, and \"\"quotes\"\"\",,\"{\"\"a\"\":1}\""
        );
    }
}
