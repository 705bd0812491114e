//! `rushline why`: an outcome, in a sentence, and what it rests on.

use super::client::{self, ServerArgs};
use super::query;
use super::terminal::{self, plain};
use crate::domain::ids::Gid;
use crate::fault::{Class, Fault};
use serde_json::Value;
use std::fmt::Write;

pub const EXAMPLES: &str = "\
Examples:
  rushline why nov22.0.1763800000000-3.17      an order, by the id it was answered with
  rushline why u1@nov22                        a buyer in a sale: why did u1 not get one?
  rushline why tuSmAjMEkG2bVaBTsS6xJC          a global transaction";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// An order's or a transaction's gid, or BUYER@SALE.
    #[arg(value_name = "WHAT")]
    what: String,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let server = args.server.connect()?;
    // The last @: a buyer may be an address, a sale's name has none.
    let (body, show): (Value, fn(&Value) -> String) = if let Some((buyer, sale)) = args.what.rsplit_once('@') {
        let path = format!("/v1/sales/{}/buyers/{}", query::segment(sale), query::segment(buyer));
        (server.get(&path).await?, of_buyer)
    } else if args.what.parse::<Gid>().is_ok() {
        (server.get(&format!("/v1/orders/{}/why", args.what)).await?, of_order)
    } else {
        let found = server.get(&format!("/v1/transactions/{}", query::segment(&args.what))).await;
        let body = found.map_err(|error| match Fault::in_error(&error).map(|fault| fault.class) {
            Some(Class::Failed) => Fault::failed(format!("`{}` is known as nothing", args.what))
                .because(error)
                .hint("rushline why BUYER@SALE   asks about a buyer")
                .into(),
            _ => error,
        })?;
        (body, of_transaction)
    };
    client::show(&args.server, &body, show)
}

fn of_order(body: &Value) -> String {
    format!("{}\n{}\n{}", plain(&body["order"]["gid"]), sentence(&body["summary"]), evidence(&body["evidence"]))
}

fn of_buyer(body: &Value) -> String {
    let mut out = format!("{} in {}\n{}\n", plain(&body["buyer"]), plain(&body["sale"]), sentence(&body["summary"]));
    let limit = if body["limit_per_buyer"].is_null() { "none".into() } else { plain(&body["limit_per_buyer"]) };
    let _ = writeln!(out, "units held: {}, limit per buyer: {limit}", plain(&body["units_held"]));
    out + &evidence(&body["evidence"])
}

fn of_transaction(body: &Value) -> String {
    let status = plain(&body["status"]);
    let reason = body["reason"].as_str().filter(|reason| !reason.is_empty());
    let trouble = body["last_error"]["error"].as_str();
    let why = match (status.as_str(), reason, trouble) {
        ("succeed", ..) => "all its branches did their part".to_owned(),
        ("failed", Some(reason), _) => format!("it was undone: {reason}"),
        ("failed", None, Some(error)) => format!("it was undone, or stopped; a branch said: {error}"),
        ("failed", ..) => "it was undone, or stopped".to_owned(),
        (_, _, Some(error)) => format!("it is tried until every branch answers; one said last: {error}"),
        _ => "it is not over yet".to_owned(),
    };
    format!(
        "{}\n{status}: {}\n\nrushline txn show {}   shows its branches\n",
        plain(&body["gid"]),
        terminal::safe(&why, 500),
        plain(&body["gid"])
    )
}

fn sentence(value: &Value) -> String {
    terminal::safe(&plain(value), 1_000)
}

fn evidence(list: &Value) -> String {
    let row = |line: &Value| {
        let at = if line["at"].is_null() { String::new() } else { plain(&line["at"]) };
        vec![at, terminal::safe(&plain(&line["what"]), 300), plain(&line["source"])]
    };
    let lines = list.as_array().map(Vec::as_slice).unwrap_or_default();
    terminal::table(&["when", "what", "said by"], 3, lines.iter().map(row))
}
