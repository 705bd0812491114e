//! Every answer and every call as CSV: for questions that nobody thought of before the run.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Context;

use crate::ledger::{Ledger, Outcome, buyer_name, key_text};

/// Answers written; a run of many millions is in its run.json, second by second.
const ROWS_MAX: usize = 2_000_000;

fn create(path: &Path) -> anyhow::Result<BufWriter<File>> {
    Ok(BufWriter::new(File::create(path).with_context(|| format!("cannot write {}", path.display()))?))
}

/// What buyers were told, in the order of noting.
pub fn told(path: &Path, ledger: &Ledger) -> anyhow::Result<()> {
    let mut out = create(path)?;
    writeln!(
        out,
        "kind,intended_us,sent_us,answered_us,buyer,sale,key,basket,attempt,status,replayed,outcome,gid,reason"
    )?;
    for told in ledger.told().take(ROWS_MAX) {
        let (outcome, reason) = match told.outcome {
            Outcome::Admitted { .. } => ("admitted", ""),
            Outcome::Created { .. } => ("created", ""),
            Outcome::Done { .. } => ("done", ""),
            Outcome::Refused { reason } => ("refused", reason),
            Outcome::Unknown { error } => ("unknown", error),
        };
        let gid = told.gid().or(told.about).unwrap_or_default();
        writeln!(
            out,
            "{:?},{},{},{},{},{},{},{},{},{},{},{outcome},{},{}",
            told.kind,
            told.intended_us,
            told.sent_us,
            told.answered_us,
            buyer_name(told.buyer),
            told.sale,
            key_text(told.key),
            told.basket,
            told.attempt,
            told.status,
            told.replayed,
            field(gid),
            field(reason)
        )?;
    }
    out.flush().with_context(|| format!("cannot write {}", path.display()))
}

/// What the order service was called with.
pub fn called(path: &Path, ledger: &Ledger) -> anyhow::Result<()> {
    let mut out = create(path)?;
    writeln!(out, "at_us,answered_us,op,answer,gid,sale,buyer,items")?;
    for call in ledger.called.iter().take(ROWS_MAX) {
        let items: Vec<String> = call.items.iter().map(|item| format!("{}x{}", item.quantity, item.sku)).collect();
        writeln!(
            out,
            "{},{},{},{:?},{},{},{},{}",
            call.at_us,
            call.answered_us,
            field(&call.op),
            call.answer,
            field(&call.gid),
            field(&call.sale),
            field(&call.buyer),
            field(&items.join(" "))
        )?;
    }
    out.flush().with_context(|| format!("cannot write {}", path.display()))
}

/// Quoted where it must be.
fn field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.into() }
}
