//! `rushline order retry`: orders that wait for their next call are called now.

use super::client::{self, Server, ServerArgs};
use super::progress::Progress;
use super::query::{self, Query};
use super::sale_changes::NoteArgs;
use super::terminal::plain;
use crate::domain::ids::{Gid, SaleName};
use crate::fault::Fault;
use http::Method;
use serde_json::{Value, json};
use std::time::Duration;

/// Most orders that one command hurries; more are for another call of it.
const BULK_MAX: usize = 10_000;

#[derive(Debug, clap::Args)]
pub struct RetryArgs {
    /// An order's id, or a sale, of which all that wait and that the filter finds are tried.
    #[arg(value_name = "GID|SALE")]
    what: String,
    /// Of a sale: only those that were called so often without a verdict that somebody should look.
    #[arg(long)]
    attention: bool,
    /// Of a sale: only this buyer's.
    #[arg(long, value_name = "BUYER")]
    buyer: Option<String>,
    /// Of a sale: only those with this text in gid, buyer, payload or the order service's words.
    #[arg(long, value_name = "TEXT")]
    q: Option<String>,
    #[command(flatten)]
    span: query::Span,
    #[command(flatten)]
    note: NoteArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(args: RetryArgs) -> anyhow::Result<()> {
    let server = args.server.connect()?;
    if args.what.parse::<Gid>().is_ok() {
        let body = ask(&server, &args.what, &args.note).await?;
        return client::show(&args.server, &body, |body| format!("{} is tried now\n", plain(&body["gid"])));
    }
    let sale = SaleName::parse(&args.what).map_err(|invalid| {
        Fault::failed(format!("`{}` is neither an order's id nor a sale", args.what)).because(invalid.rule)
    })?;
    let gids = found(&server, &sale, &args).await?;
    let mut progress = Progress::new("orders tried again", gids.len() as u64);
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for gid in gids {
        match ask(&server, &gid, &args.note).await {
            Ok(_) => done.push(gid),
            Err(error) => failed.push(json!({ "gid": gid, "error": error.to_string() })),
        }
        progress.at((done.len() + failed.len()) as u64);
    }
    drop(progress);
    let body = json!({ "tried": done, "failed": failed });
    client::show(&args.server, &body, |_| format!("{} tried again, {} could not be\n", done.len(), failed.len()))?;
    match failed.is_empty() {
        true => Ok(()),
        false => Err(Fault::failed(format!("{} could not be tried again; the rest was", failed.len())).into()),
    }
}

/// All are found before any is hurried: hurrying changes what a filter finds.
async fn found(server: &Server, sale: &SaleName, args: &RetryArgs) -> anyhow::Result<Vec<String>> {
    let (mut gids, mut after) = (Vec::new(), None::<String>);
    while gids.len() < BULK_MAX {
        let query = args.span.of(Query::default().with("status", Some("submitted")).with("buyer", args.buyer.as_ref()));
        let query = query.with("q", args.q.as_ref()).with("attention", args.attention.then_some(true));
        let query = query.with("limit", Some(1000)).with("after", after.take());
        let page = server.get(&format!("/v1/sales/{sale}/orders{query}")).await?;
        gids.extend(
            page["orders"].as_array().into_iter().flatten().filter_map(|one| Some(one["gid"].as_str()?.to_owned())),
        );
        after = page["next"].as_str().map(str::to_owned);
        if after.is_none() {
            break;
        }
    }
    Ok(gids)
}

async fn ask(server: &Server, gid: &str, note: &NoteArgs) -> anyhow::Result<Value> {
    let operator = note.operator();
    let headers = [("rushline-operator", operator.as_str())];
    let (path, body) = (format!("/v1/orders/{}/retry", query::segment(gid)), json!({ "reason": note.reason }));
    Ok(server.send_with(Method::POST, &path, &headers, Some(&body), Duration::ZERO).await?.body)
}
