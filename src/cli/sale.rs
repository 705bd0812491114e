//! `rushline sale …`: create, watch and steer sales on the running server.

use super::client::{self, ServerArgs};
use super::query;
use super::sale_changes::{self, NoteArgs};
use super::terminal::{self, grouped, plain};
use crate::domain::ids::{SaleName, Sku};
use crate::domain::sale::Durability;
use crate::fault::Fault;
use anyhow::Context;
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Create a sale, from flags or from a file.
    #[command(after_help = "\
Examples:
  rushline sale create nov22 --item sku-1=1000 --limit-per-buyer 2 --order-endpoint http://127.0.0.1:8080/orders
  rushline sale create nov22 --item sku-1=1000 --opens-at +10m --order-endpoint http://shop/orders
  rushline sale create --file sale.json")]
    Create(Box<CreateArgs>),
    /// List the sales.
    #[command(after_help = "Example:\n  rushline sale list --json")]
    List {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show one sale: units per SKU, refusals, settings.
    #[command(after_help = "Example:\n  rushline sale show nov22")]
    Show(OneSale),
    /// Refuse orders for now (423); what is admitted is delivered.
    #[command(after_help = "Example:\n  rushline sale pause nov22")]
    Pause(OneChange),
    /// Sell again after a pause.
    #[command(after_help = "Example:\n  rushline sale resume nov22")]
    Resume(OneChange),
    /// End a sale for good.
    #[command(after_help = "Example:\n  rushline sale close nov22\n  rushline audit nov22 --wait 60        (then)")]
    Close(OneChange),
    /// Add units to a SKU, or withdraw unsold ones with a negative number.
    #[command(
        after_help = "Examples:\n  rushline sale restock nov22 sku-1 500\n  rushline sale restock nov22 sku-1 -20 --request-id return-7"
    )]
    Restock {
        #[arg(value_name = "SALE", value_parser = sale_name)]
        sale: SaleName,
        #[arg(value_name = "SKU", value_parser = sku)]
        sku: Sku,
        /// Units to add; negative ones are withdrawn, down to zero available.
        #[arg(value_name = "UNITS", allow_negative_numbers = true)]
        units: i64,
        /// Names this change: repeated with the same id it happens once. Made up when not given.
        #[arg(long, value_name = "ID")]
        request_id: Option<String>,
        #[command(flatten)]
        note: NoteArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Change the limit or the window while it sells.
    #[command(
        after_help = "Examples:\n  rushline sale update nov22 --limit-per-buyer 3 --reason 'plenty left'\n  rushline sale update nov22 --closes-at +10m"
    )]
    Update(UpdateArgs),
    /// Who changed a sale, when and why; the last changes first.
    #[command(after_help = "Example:\n  rushline sale changes nov22 --limit 20")]
    Changes {
        #[arg(value_name = "SALE", value_parser = sale_name)]
        sale: SaleName,
        /// How many.
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        #[command(flatten)]
        server: ServerArgs,
    },
}

#[derive(Debug, clap::Args)]
pub struct OneChange {
    #[arg(value_name = "SALE", value_parser = sale_name)]
    sale: SaleName,
    /// Names this change: repeated with the same id it happens once. Made up when not given.
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    #[command(flatten)]
    note: NoteArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub struct UpdateArgs {
    /// Most units that one buyer gets, over all SKUs.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), group = "what")]
    limit_per_buyer: Option<u32>,
    /// No limit per buyer any more.
    #[arg(long, conflicts_with = "limit_per_buyer", group = "what")]
    no_limit: bool,
    /// When it opens: 2026-11-22T10:00:00Z, or +10m from now.
    #[arg(long, value_name = "TIME", value_parser = time, group = "what")]
    opens_at: Option<jiff::Timestamp>,
    /// When it closes.
    #[arg(long, value_name = "TIME", value_parser = time, group = "what")]
    closes_at: Option<jiff::Timestamp>,
    #[command(flatten)]
    change: OneChange,
}

#[derive(Debug, clap::Args)]
pub struct OneSale {
    #[arg(value_name = "SALE", value_parser = sale_name)]
    sale: SaleName,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, clap::Args)]
pub struct CreateArgs {
    /// The sale's name: A-Z a-z 0-9 _ -
    #[arg(value_name = "NAME", value_parser = sale_name, required_unless_present = "file")]
    name: Option<SaleName>,
    /// The whole sale as the JSON body of POST /v1/sales; `-` reads standard input.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["name", "items", "order_endpoint", "limit_per_buyer", "opens_at", "closes_at",
        "durability", "partitions", "timeout_ms", "max_concurrency", "mode", "count_url", "list_url"])]
    file: Option<PathBuf>,

    /// Units of a SKU; once per SKU.
    #[arg(long = "item", value_name = "SKU=UNITS", value_parser = item, required_unless_present = "file", help_heading = "What and when")]
    items: Vec<(Sku, u64)>,
    /// Most units that one buyer gets, over all SKUs.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "What and when")]
    limit_per_buyer: Option<u32>,
    /// When it opens: 2026-11-22T10:00:00Z, or +10m from now. Without it: at once.
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = "What and when")]
    opens_at: Option<jiff::Timestamp>,
    /// When it closes. Without it: when it is closed by hand.
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = "What and when")]
    closes_at: Option<jiff::Timestamp>,
    /// What must have happened before a buyer hears of an order: memory, fsync or replica:N.
    #[arg(long, value_name = "CLASS", value_parser = durability, help_heading = "What and when")]
    durability: Option<Durability>,
    /// Spread it over so many partitions, for one hot SKU on a Redis Cluster.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64), help_heading = "What and when")]
    partitions: Option<u16>,

    /// Where orders are made.
    #[arg(long, value_name = "URL", required_unless_present = "file", help_heading = "Order endpoint")]
    order_endpoint: Option<String>,
    /// Longest time of one call.
    #[arg(long, value_name = "N", help_heading = "Order endpoint")]
    timeout_ms: Option<u64>,
    /// Most calls at once.
    #[arg(long, value_name = "N", help_heading = "Order endpoint")]
    max_concurrency: Option<u32>,
    /// One order a call, or up to a hundred.
    #[arg(long, value_name = "MODE", value_parser = ["single", "bulk"], help_heading = "Order endpoint")]
    mode: Option<String>,
    /// Answers how many orders there are; the audit compares.
    #[arg(long, value_name = "URL", help_heading = "Order endpoint")]
    count_url: Option<String>,
    /// Lists the gids of orders; the audit names what differs.
    #[arg(long, value_name = "URL", help_heading = "Order endpoint")]
    list_url: Option<String>,

    #[command(flatten)]
    server: ServerArgs,
}

fn sale_name(text: &str) -> Result<SaleName, String> {
    SaleName::parse(text).map_err(|invalid| invalid.rule)
}

fn sku(text: &str) -> Result<Sku, String> {
    Sku::parse(text).map_err(|invalid| invalid.rule)
}

fn durability(text: &str) -> Result<Durability, String> {
    text.parse::<Durability>().map_err(|invalid| invalid.rule)
}

fn item(text: &str) -> Result<(Sku, u64), String> {
    let (name, units) = text.rsplit_once('=').ok_or("must be SKU=UNITS, such as sku-1=1000")?;
    Ok((sku(name)?, units.parse().map_err(|_| format!("units must be a whole number, got {units:?}"))?))
}

fn time(text: &str) -> Result<jiff::Timestamp, String> {
    let rule = "must be a time such as 2026-11-22T10:00:00Z, or a span from now such as +10m";
    match text.strip_prefix('+') {
        // The server counts in milliseconds.
        Some(_) => {
            let time = query::time(text).map_err(|_| rule.to_owned())?;
            time.round(jiff::Unit::Millisecond).map_err(|_| rule.to_owned())
        }
        None => text.parse().map_err(|_| rule.to_owned()),
    }
}

pub async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Create(args) => create(*args).await,
        Command::List { server } => client::show(&server, &server.connect()?.get("/v1/sales").await?, list),
        Command::Show(OneSale { sale, server }) => {
            let body = server.connect()?.get(&format!("/v1/sales/{sale}")).await?;
            client::show(&server, &body, one)
        }
        Command::Pause(one) => set_status(one, "paused", "rushline sale resume").await,
        Command::Resume(one) => set_status(one, "open", "rushline sale show").await,
        Command::Close(one) => set_status(one, "closed", "rushline audit").await,
        Command::Restock { sale, sku, units, request_id, note, server } => {
            restock(sale, sku, units, request_id, note, server).await
        }
        Command::Update(args) => update(args).await,
        Command::Changes { sale, limit, server } => sale_changes::list(sale, limit, server).await,
    }
}

async fn create(args: CreateArgs) -> anyhow::Result<()> {
    let body = match &args.file {
        Some(path) => from_file(path)?,
        None => from_flags(&args),
    };
    let answer = args.server.connect()?.send(Method::POST, "/v1/sales", Some(&body), Duration::ZERO).await?;
    client::show(&args.server, &answer.body, one)?;
    let sale = body.get("sale").and_then(Value::as_str).unwrap_or_default();
    let done = if answer.status == StatusCode::CREATED { "created" } else { "was there already, just the same" };
    terminal::say(&format!("sale {sale} {done}; next: rushline sale show {sale}"));
    Ok(())
}

/// The body of POST /v1/sales. What no flag says is left to the server's defaults.
fn from_flags(args: &CreateArgs) -> Value {
    let items: Vec<Value> = args.items.iter().map(|(sku, units)| json!({ "sku": sku, "units": units })).collect();
    let endpoint = given([
        ("url", args.order_endpoint.as_ref().map(|url| json!(url))),
        ("timeout_ms", args.timeout_ms.map(Value::from)),
        ("max_concurrency", args.max_concurrency.map(Value::from)),
        ("mode", args.mode.as_ref().map(|mode| json!(mode))),
        ("count_url", args.count_url.as_ref().map(|url| json!(url))),
        ("list_url", args.list_url.as_ref().map(|url| json!(url))),
    ]);
    given([
        ("sale", args.name.as_ref().map(|name| json!(name))),
        ("items", Some(items.into())),
        ("limit_per_buyer", args.limit_per_buyer.map(Value::from)),
        ("opens_at", args.opens_at.map(|time| time.to_string().into())),
        ("closes_at", args.closes_at.map(|time| time.to_string().into())),
        ("durability", args.durability.map(|class| class.to_string().into())),
        ("partitions", args.partitions.map(Into::into)),
        ("order_endpoint", Some(endpoint)),
    ])
}

fn given<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let fields: Map<String, Value> =
        fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    fields.into()
}

/// A sale of 10,000 SKUs is well under this.
const FILE_BYTES_MAX: u64 = 16 << 20;

fn from_file(path: &PathBuf) -> anyhow::Result<Value> {
    let shown = path.display();
    let reader: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).with_context(|| format!("cannot read {shown}"))?)
    };
    let mut text = String::new();
    reader.take(FILE_BYTES_MAX).read_to_string(&mut text).with_context(|| format!("cannot read {shown}"))?;
    serde_json::from_str(&text).map_err(|error| {
        let what = format!("{shown}:{} is not JSON", error.line());
        Fault::failed(what)
            .because(error)
            .hint("rushline sale create --help   shows the flags that need no file")
            .into()
    })
}

async fn set_status(change: OneChange, status: &str, next: &str) -> anyhow::Result<()> {
    let command = match status {
        "open" => "resume",
        "paused" => "pause",
        _ => "close",
    };
    let sale = change.sale.clone();
    patch(change, json!({ "status": status }), &format!("rushline sale {command} {sale}")).await?;
    terminal::say(&format!("sale {sale} is {status}; next: {next} {sale}"));
    Ok(())
}

async fn update(args: UpdateArgs) -> anyhow::Result<()> {
    let limit = if args.no_limit { Some(Value::Null) } else { args.limit_per_buyer.map(Value::from) };
    let body = given([
        ("limit_per_buyer", limit),
        ("opens_at", args.opens_at.map(|time| time.to_string().into())),
        ("closes_at", args.closes_at.map(|time| time.to_string().into())),
    ]);
    let sale = args.change.sale.clone();
    patch(args.change, body, &format!("rushline sale update {sale} …")).await?;
    terminal::say(&format!("sale {sale} is changed; next: rushline sale changes {sale}"));
    Ok(())
}

async fn patch(change: OneChange, mut body: Value, again: &str) -> anyhow::Result<()> {
    let OneChange { sale, request_id, note, server } = change;
    if let Some(id) = request_id {
        body["request_id"] = json!(id);
    }
    let path = format!("/v1/sales/{sale}");
    let answer = sale_changes::send(&server, &note, Method::PATCH, &path, body, again).await?;
    client::show(&server, &answer.body, one)
}

async fn restock(
    sale: SaleName,
    sku: Sku,
    units: i64,
    request_id: Option<String>,
    note: NoteArgs,
    server: ServerArgs,
) -> anyhow::Result<()> {
    let mut body = json!({ "sku": sku, "units": units });
    if let Some(id) = request_id {
        body["request_id"] = json!(id);
    }
    let path = format!("/v1/sales/{sale}/stock");
    // A lost answer leaves open whether the units moved; the same id makes asking again safe.
    let again = format!("rushline sale restock {sale} {sku} {units}");
    let answer = sale_changes::send(&server, &note, Method::POST, &path, body, &again).await?;
    client::show(&server, &answer.body, |body| if body.get("items").is_some() { one(body) } else { fields(body) })?;
    let done = if units < 0 { "withdrawn from" } else { "added to" };
    terminal::say(&format!("{} {done} {sku}; next: rushline sale show {sale}", grouped(units.saturating_abs())));
    Ok(())
}

fn list(body: &Value) -> String {
    let sales = body.get("sales").unwrap_or(body).as_array().map(Vec::as_slice).unwrap_or_default();
    if sales.is_empty() {
        return "no sales yet; next: rushline sale create --help\n".into();
    }
    let rows = sales.iter().map(|sale| {
        let sum = |field: &str| grouped(items(sale).iter().filter_map(|item| item.get(field)?.as_i64()).sum());
        let mut row = vec![cell(sale, "sale"), cell(sale, "status"), items(sale).len().to_string()];
        row.extend(["loaded", "available", "reserved", "sold"].map(sum));
        row
    });
    terminal::table(&["sale", "status", "SKUs", "loaded", "available", "reserved", "sold"], 2, rows)
}

/// Settings a line each, then units per SKU, then why buyers were turned away.
fn one(sale: &Value) -> String {
    let mut out = fields(sale);
    if !items(sale).is_empty() {
        let rows = items(sale)
            .iter()
            .map(|item| ["sku", "loaded", "available", "reserved", "sold"].map(|field| cell(item, field)).into());
        out += &terminal::table(&["SKU", "loaded", "available", "reserved", "sold"], 1, rows);
    }
    let refused: Vec<String> = sale
        .get("refused")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(why, n)| format!("{why} {}", plain(n)))
        .collect();
    if !refused.is_empty() {
        let _ = writeln!(out, "refused: {}", refused.join(" · "));
    }
    out
}

/// The fields that are no tables, a line each; writing to a String cannot fail.
fn fields(sale: &Value) -> String {
    let mut out = String::new();
    let mut fields: Vec<_> = sale.as_object().into_iter().flatten().collect();
    // JSON objects come in the order of the alphabet; a person looks for these two.
    fields.sort_by_key(|(name, _)| !["sale", "status"].contains(&name.as_str()));
    for (name, value) in fields {
        match value {
            Value::Array(_) | Value::Null => {}
            Value::Object(inner) if name != "refused" => {
                let inner: Vec<String> =
                    inner.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| format!("{k} {}", plain(v))).collect();
                let _ = writeln!(out, "{name:<16} {}", inner.join(" · "));
            }
            Value::Object(_) => {}
            value => {
                let _ = writeln!(out, "{name:<16} {}", plain(value));
            }
        }
    }
    out
}

fn items(sale: &Value) -> &[Value] {
    sale.get("items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn cell(object: &Value, field: &str) -> String {
    plain(object.get(field).unwrap_or(&Value::Null))
}
