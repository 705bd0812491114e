//! `rushline import --from-dtm`: takes over what another dtm server has not finished, from its Redis store.
//!
//! Reads that Redis and hands what it finds to a running server, batch by batch, which says of each what can be done with
//! it. A transaction is taken out of dtm's reach before it is handed over, so that never two drive it; one that is refused
//! is put back. Whatever breaks off in between is gone on with by the next run.

use super::client::{self, Server, ServerArgs};
use super::progress::Progress;
use super::terminal::{self, grouped, safe};
use crate::config::SecretUrl;
use crate::fault::{Class, Fault};
use crate::server::IMPORT_MAX;
use crate::store::dtms::{DtmStore, Take, Theirs, Unfinished};
use http::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

pub const EXAMPLES: &str = "\
Examples:
  rushline import --from-dtm redis://127.0.0.1:6379          what would be taken; nothing is changed
  rushline import --from-dtm redis://127.0.0.1:6379 --yes    (with dtm stopped)
How to go about it: docs/migrate-from-dtm.md";

/// Bytes of one request; the server takes 4 MiB, and one transaction alone may be larger than this.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Bytes of one transaction.
const ONE_BYTES_MAX: usize = 4_000_000;
/// Refusals that are written out; all are in the JSON.
const SHOWN_MAX: usize = 20;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// dtm's Redis, the one that its Store.Host names: redis://[USER:PASSWORD@]HOST:PORT, or rediss://
    #[arg(long, value_name = "URL")]
    from_dtm: String,
    /// dtm's Store.RedisPrefix.
    #[arg(long, value_name = "PREFIX", default_value = "{a}")]
    prefix: String,
    /// Do it. Without this it is only looked at what would be taken.
    #[arg(long)]
    yes: bool,
    /// How long it is watched whether dtm still writes. Its own look at what is due comes every 3 seconds, unless its
    /// TransCronInterval says otherwise.
    #[arg(long, value_name = "SECONDS", default_value_t = 4, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    watch: u64,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let server = args.server.connect()?;
    let url = SecretUrl::new(args.from_dtm.as_str());
    let away = |error: redis::RedisError| {
        Fault::unreachable(format!("dtm's Redis cannot be used at {url}")).because(error).hint(
            "is it the address of dtm's Store.Host? of a Redis Cluster, name the server that has the slot of the prefix",
        )
    };
    let mut store = DtmStore::open(&args.from_dtm, &args.prefix).await.map_err(away)?;
    let found = store.unfinished().await.map_err(away)?;
    tokio::time::sleep(Duration::from_secs(args.watch)).await;
    let still = store.unfinished().await.map_err(away)?;
    let running = still != found;
    if running && args.yes {
        return Err(Fault::new(Class::Failed, "dtm still works on these transactions; nothing was taken")
            .hint("stop every dtm server that uses this Redis, and run this again")
            .into());
    }
    let mut import = Import { server, away: Box::new(away), yes: args.yes, results: Vec::new() };
    let mut progress = Progress::new("transactions", still.len() as u64);
    // What an earlier run took and could not hand over comes first: nobody else works on it.
    let begun = store.taking().await.map_err(&import.away)?;
    import.all(&mut store, begun, true, &mut progress).await?;
    import.all(&mut store, still, false, &mut progress).await?;
    drop(progress);
    let report = report(&import.results, args.yes, running);
    client::show(&args.server, &report, text)?;
    let refused = report["refused"].as_u64().unwrap_or_default();
    match refused {
        0 => Ok(()),
        _ if !args.yes => Ok(()),
        count => Err(Fault::failed(format!("{count} of them were not taken over; they are where they were"))
            .hint("start dtm again for these, or end them by hand")
            .into()),
    }
}

struct Import<'a> {
    server: Server,
    away: Box<dyn Fn(redis::RedisError) -> Fault + 'a>,
    yes: bool,
    /// What was said of each.
    results: Vec<Value>,
}

impl Import<'_> {
    async fn all(
        &mut self,
        store: &mut DtmStore,
        due: Unfinished,
        taken: bool,
        progress: &mut Progress,
    ) -> anyhow::Result<()> {
        let gids: Vec<String> = due.keys().cloned().collect();
        for gids in gids.chunks(IMPORT_MAX) {
            let read = store.read(gids, taken).await.map_err(&self.away)?;
            let mut batch: Vec<Theirs> = Vec::new();
            let mut bytes = 0;
            for (gid, theirs) in gids.iter().zip(read) {
                let Some(theirs) = theirs else {
                    self.refuse(gid, "its record is gone: dtm's Redis keeps it for a week, and forgets it then");
                    continue;
                };
                let size = theirs.record.len() + theirs.branches.iter().map(String::len).sum::<usize>();
                if size > ONE_BYTES_MAX {
                    self.refuse(gid, "it is larger than what is handed over in one piece (4 MB)");
                    continue;
                }
                if bytes + size > BATCH_BYTES_MAX && !batch.is_empty() {
                    self.batch(store, std::mem::take(&mut batch), &due, taken).await?;
                    bytes = 0;
                }
                bytes += size;
                batch.push(theirs);
            }
            self.batch(store, batch, &due, taken).await?;
            progress.at(self.results.len() as u64);
        }
        Ok(())
    }

    fn refuse(&mut self, gid: &str, reason: &str) {
        self.results.push(json!({ "gid": gid, "outcome": "refused", "reason": reason }));
    }

    /// Asks what can be taken, takes it out of dtm's reach, and hands it over.
    async fn batch(
        &mut self,
        store: &mut DtmStore,
        batch: Vec<Theirs>,
        due: &Unfinished,
        taken: bool,
    ) -> anyhow::Result<()> {
        let score = |theirs: &Theirs| due.get(&theirs.gid).map_or("0", String::as_str);
        let asked = self.hand_over(&batch, true).await?;
        let mut going = Vec::new();
        for (theirs, result) in batch.into_iter().zip(asked) {
            let possible = matches!(result["outcome"].as_str(), Some("importable" | "known"));
            if !self.yes || !possible {
                if self.yes && taken {
                    store.give_back(&theirs, score(&theirs)).await.map_err(&self.away)?;
                }
                self.results.push(result);
            } else if taken || store.take(&theirs, score(&theirs)).await.map_err(&self.away)? == Take::Done {
                going.push(theirs);
            } else {
                self.refuse(&theirs.gid, "it was changed meanwhile: something still works with this Redis");
            }
        }
        let done = self.hand_over(&going, false).await?;
        for (theirs, result) in going.iter().zip(done) {
            match result["outcome"].as_str() {
                Some("imported" | "known") => store.taken(&theirs.gid).await,
                _ => store.give_back(theirs, score(theirs)).await,
            }
            .map_err(&self.away)?;
            self.results.push(result);
        }
        Ok(())
    }

    async fn hand_over(&self, batch: &[Theirs], dry_run: bool) -> anyhow::Result<Vec<Value>> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        // What is no JSON is said to be so by the server, as it is.
        let value = |text: &String| serde_json::from_str(text).unwrap_or_else(|_| Value::from(text.as_str()));
        let one = |theirs: &Theirs| {
            let branches: Vec<Value> = theirs.branches.iter().map(value).collect();
            json!({ "gid": theirs.gid, "record": value(&theirs.record), "branches": branches })
        };
        let body = json!({ "transactions": batch.iter().map(one).collect::<Vec<_>>() });
        let path = format!("/v1/transactions/import?dry_run={dry_run}");
        let answer = self.server.send(Method::POST, &path, Some(&body), client::ANSWER_MAX).await?;
        match answer.body["results"].as_array() {
            Some(results) if results.len() == batch.len() => Ok(results.clone()),
            _ => Err(Fault::failed("the server's answer is none that is known")
                .hint("is it of the same version?")
                .into()),
        }
    }
}

fn report(results: &[Value], yes: bool, running: bool) -> Value {
    let mut counts: BTreeMap<&str, u64> =
        ["imported", "importable", "known", "refused"].into_iter().map(|outcome| (outcome, 0)).collect();
    for result in results {
        *counts.entry(result["outcome"].as_str().unwrap_or("refused")).or_default() += 1;
    }
    let mut report = json!({ "dry_run": !yes, "dtm_is_running": running, "transactions": results });
    for (outcome, count) in counts {
        report[outcome] = count.into();
    }
    report
}

/// Writing to a String cannot fail, so its results are dropped.
fn text(report: &Value) -> String {
    let mut out = String::new();
    let results = report["transactions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut kinds: BTreeMap<(&str, &str), (u64, u64, u64)> = BTreeMap::new();
    let field = |result: &Value, name: &str| result[name].as_str().unwrap_or_default().to_owned();
    for result in results.iter().filter(|result| result["outcome"] != "refused") {
        let (kind, status) = (result["type"].as_str(), result["status"].as_str());
        let kind = kinds.entry((kind.unwrap_or_default(), status.unwrap_or_default())).or_default();
        kind.0 += 1;
        kind.1 += result["branches"].as_u64().unwrap_or_default();
        kind.2 += result["settled"].as_u64().unwrap_or_default();
    }
    if !kinds.is_empty() {
        let number = |number: u64| grouped(number.try_into().unwrap_or(i64::MAX));
        let rows = kinds.into_iter().map(|((kind, status), (count, branches, settled))| {
            vec![kind.to_owned(), status.to_owned(), number(count), number(branches), number(settled)]
        });
        out += &terminal::table(&["type", "status", "transactions", "branches", "done already"], 2, rows);
    }
    let count = |name: &str| report[name].as_i64().unwrap_or_default();
    for (name, what) in [
        ("importable", "would be taken over"),
        ("imported", "taken over: this server drives them to their end"),
        ("known", "here already"),
        ("refused", "cannot be taken over, and stay where they are"),
    ] {
        if count(name) > 0 {
            let _ = writeln!(out, "{} {what}", grouped(count(name)));
        }
    }
    let refused = || results.iter().filter(|result| result["outcome"] == "refused");
    for result in refused().take(SHOWN_MAX) {
        let _ = writeln!(out, "  {}: {}", safe(&field(result, "gid"), 128), safe(&field(result, "reason"), 200));
    }
    if let Some(more) = refused().count().checked_sub(SHOWN_MAX).filter(|more| *more > 0) {
        let _ = writeln!(out, "  … and {more} more; --json names all");
    }
    if results.is_empty() {
        out.push_str("dtm has nothing unfinished there\n");
    }
    if report["dtm_is_running"] == true {
        out.push_str("dtm still works on these transactions: stop it before --yes\n");
    } else if report["dry_run"] == true && count("importable") > 0 {
        out.push_str("nothing was changed; --yes does it\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_is_named_with_its_reason() {
        let results = [
            json!({"gid": "g1", "outcome": "imported", "type": "saga", "status": "submitted", "branches": 4, "settled": 1}),
            json!({"gid": "g2", "outcome": "imported", "type": "saga", "status": "submitted", "branches": 2, "settled": 0}),
            json!({"gid": "g3", "outcome": "refused", "reason": "branches: are odd"}),
        ];
        let report = report(&results, true, false);
        assert_eq!((&report["imported"], &report["refused"], &report["known"]), (&json!(2), &json!(1), &json!(0)));
        let text = text(&report);
        for line in ["saga", "2 taken over", "1 cannot be taken over", "  g3: branches: are odd"] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
}
