//! `rushline txn …`: global transactions on the running server.

use super::client::{self, Server, ServerArgs};
use super::progress::Progress;
use super::query::{self, Query};
use super::terminal::{self, plain};
use crate::fault::Fault;
use http::Method;
use serde_json::{Value, json};
use std::fmt::Write;
use std::time::Duration;

/// Most transactions that one command hurries; more are for another call of it.
const BULK_MAX: usize = 10_000;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List transactions, newest first.
    #[command(
        after_help = "Examples:\n  rushline txn list --status submitted --type saga\n  rushline txn list --attention            those that failed again and again\n  rushline txn list --q 'card declined' --from -1h"
    )]
    List {
        #[command(flatten)]
        filter: FilterArgs,
        /// How many.
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Where the page before ended: its `next`.
        #[arg(long, value_name = "PLACE")]
        after: Option<String>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show one with its branches, payloads and what went wrong.
    #[command(after_help = "Example:\n  rushline txn show tuSmAjMEkG2bVaBTsS6xJC")]
    Show {
        #[arg(value_name = "GID")]
        gid: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Try again now: one, or all that a filter finds.
    #[command(
        after_help = "Examples:\n  rushline txn retry GID\n  rushline txn retry --attention --reason 'payment service is back'"
    )]
    Retry {
        #[arg(value_name = "GID", required_unless_present_any = ["attention", "q", "trans_type", "status"])]
        gid: Option<String>,
        #[command(flatten)]
        filter: FilterArgs,
        #[command(flatten)]
        note: super::sale_changes::NoteArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// End one now, as failed. No branch is called any more, not even to undo what was done.
    #[command(after_help = "Example:\n  rushline txn stop GID --yes --reason 'undone by hand, ticket 42'")]
    Stop {
        #[arg(value_name = "GID")]
        gid: String,
        /// Yes, leave what its branches did as it is.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        note: super::sale_changes::NoteArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
}

#[derive(Debug, Clone, clap::Args)]
pub struct FilterArgs {
    /// prepared, submitted, aborting, succeed or failed.
    #[arg(long, value_name = "WORD")]
    status: Option<String>,
    /// msg, saga, tcc, xa or workflow.
    #[arg(long = "type", value_name = "WORD")]
    trans_type: Option<String>,
    #[command(flatten)]
    span: query::Span,
    /// A text in its gid, addresses, payloads, reason or last error.
    #[arg(long, value_name = "TEXT")]
    q: Option<String>,
    /// Those that failed so often that somebody should look (setting trans.alert_after).
    #[arg(long)]
    attention: bool,
}

impl FilterArgs {
    fn query(&self) -> Query {
        self.span
            .of(Query::default().with("status", self.status.as_ref()).with("type", self.trans_type.as_ref()))
            .with("q", self.q.as_ref())
            .with("attention", self.attention.then_some(true))
    }
}

pub async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::List { filter, limit, after, server } => {
            let query = filter.query().with("limit", Some(limit)).with("after", after);
            let body = server.connect()?.get(&format!("/v1/transactions{query}")).await?;
            client::show(&server, &body, list)
        }
        Command::Show { gid, server } => {
            let body = server.connect()?.get(&format!("/v1/transactions/{}", query::segment(&gid))).await?;
            client::show(&server, &body, detail)
        }
        Command::Retry { gid: Some(gid), note, server, .. } => {
            let body = by_hand(&server.connect()?, &gid, "retry", &note).await?;
            client::show(&server, &body, |body| {
                format!("{} is tried now: {}\n", plain(&body["gid"]), plain(&body["status"]))
            })
        }
        Command::Retry { gid: None, filter, note, server } => retry_all(&filter, &note, &server).await,
        Command::Stop { gid, yes, note, server } => {
            if !yes {
                return Err(Fault::failed("stopping leaves what its branches did as it is, for good")
                    .hint(format!("rushline txn show {gid}   says what was done"))
                    .hint(format!("rushline txn stop {gid} --yes   stops it"))
                    .into());
            }
            let body = by_hand(&server.connect()?, &gid, "stop", &note).await?;
            client::show(&server, &body, |body| {
                format!("{} is stopped: {}\n", plain(&body["gid"]), plain(&body["status"]))
            })
        }
    }
}

async fn by_hand(
    server: &Server,
    gid: &str,
    what: &str,
    note: &super::sale_changes::NoteArgs,
) -> anyhow::Result<Value> {
    let operator = note.operator();
    let headers = [("rushline-operator", operator.as_str())];
    let path = format!("/v1/transactions/{}/{what}", query::segment(gid));
    let body = json!({ "reason": note.reason });
    Ok(server.send_with(Method::POST, &path, &headers, Some(&body), Duration::ZERO).await?.body)
}

async fn retry_all(filter: &FilterArgs, note: &super::sale_changes::NoteArgs, args: &ServerArgs) -> anyhow::Result<()> {
    let server = args.connect()?;
    let (mut gids, mut after) = (Vec::new(), None::<String>);
    // All are found before any is hurried: hurrying changes what a filter finds.
    while gids.len() < BULK_MAX {
        let query = filter.query().with("limit", Some(1000)).with("after", after.take());
        let page = server.get(&format!("/v1/transactions{query}")).await?;
        let open = page["transactions"].as_array().into_iter().flatten().filter(|one| one["ended_at"].is_null());
        gids.extend(open.filter_map(|one| one["gid"].as_str().map(str::to_owned)));
        after = page["next"].as_str().map(str::to_owned);
        if after.is_none() {
            break;
        }
    }
    let mut progress = Progress::new("transactions tried again", gids.len() as u64);
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for gid in gids {
        match by_hand(&server, &gid, "retry", note).await {
            Ok(_) => done.push(gid),
            Err(error) => failed.push(json!({ "gid": gid, "error": error.to_string() })),
        }
        progress.at((done.len() + failed.len()) as u64);
    }
    drop(progress);
    let body = json!({ "tried": done, "failed": failed });
    client::show(args, &body, |_| format!("{} tried again, {} could not be\n", done.len(), failed.len()))?;
    match failed.is_empty() {
        true => Ok(()),
        false => Err(Fault::failed(format!("{} could not be tried again; the rest was", failed.len())).into()),
    }
}

fn list(body: &Value) -> String {
    let rows = body["transactions"].as_array().map(Vec::as_slice).unwrap_or_default();
    if rows.is_empty() && body["next"].is_null() {
        return "no transactions\n".into();
    }
    let row = |one: &Value| {
        let trouble = one["last_error"]["error"].as_str().or(one["reason"].as_str()).unwrap_or_default();
        let flag = if one["attention"] == true { "!" } else { "" };
        vec![
            plain(&one["gid"]),
            plain(&one["type"]),
            format!("{}{flag}", plain(&one["status"])),
            plain(&one["created_at"]),
            format!("{}/{}", one["done"], one["branches"]),
            terminal::safe(trouble, 60),
        ]
    };
    let out = terminal::table(&["gid", "type", "status", "begun", "branches", "trouble"], 6, rows.iter().map(row));
    out + &query::more(body)
}

fn detail(one: &Value) -> String {
    let mut out = String::new();
    for name in [
        "gid",
        "type",
        "status",
        "protocol",
        "held_in",
        "in_work",
        "created_at",
        "updated_at",
        "ended_at",
        "next_try_at",
        "failed_passes",
        "attention",
        "reason",
        "query_prepared",
        "custom_data",
        "result",
    ] {
        let text = plain(&one[name]);
        if !text.is_empty() && text != "–" {
            let _ = writeln!(out, "{name:<15} {}", terminal::safe(&text, 500));
        }
    }
    let trouble = &one["last_error"];
    if trouble.is_object() {
        let _ = writeln!(
            out,
            "{:<15} {} ({} {} at {}, {} times, heard by {})",
            "last_error",
            terminal::safe(&plain(&trouble["error"]), 500),
            plain(&trouble["op"]),
            plain(&trouble["branch_id"]),
            plain(&trouble["at"]),
            plain(&trouble["times"]),
            plain(&trouble["node"])
        );
    }
    let row = |branch: &Value| {
        let payload = branch["payload"]["text"].as_str().or(branch["payload"]["base64"].as_str()).unwrap_or_default();
        let at = if branch["finished_at"].is_null() { &branch["refused_at"] } else { &branch["finished_at"] };
        vec![
            plain(&branch["branch_id"]),
            plain(&branch["op"]),
            plain(&branch["status"]),
            plain(at),
            plain(&branch["url"]),
            terminal::safe(payload, 60),
        ]
    };
    let branches = one["branch_list"].as_array().map(Vec::as_slice).unwrap_or_default();
    out.push_str(&terminal::table(
        &["branch", "op", "status", "when", "address", "payload"],
        6,
        branches.iter().map(row),
    ));
    out
}
