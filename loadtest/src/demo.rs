//! `make demo`: a whole sale, from an empty data directory to books that agree.
//!
//! Starts the server and the order service, lets the [`Crowd`] in, waits until everything is settled, and then holds
//! three accounts against each other: what buyers were told, what the server's audit says, and what the order service
//! has in its table. Exit code 1 if they differ anywhere.

mod report;

use std::cell::RefCell;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use crate::audit::Audit;
use crate::buyers::{Book, Crowd, buyer_name};
use crate::http::Api;
use crate::processes::{Process, free_port, fresh_directory, sibling};
use crate::progress;
use report::{Report, Timing};

/// A name of its own for each run: records that an earlier run left in the same database are not this one's.
static SALE: LazyLock<String> = LazyLock::new(|| format!("demo-{}", jiff::Timestamp::now().as_second()));
const SKU: &str = "sku-1";
const LIMIT_PER_BUYER: u32 = 2;
/// The order service's habits, of 100 orders.
const REFUSE_PERCENT: &str = "2";
const LOSE_REPLIES_PERCENT: &str = "2";
/// Keys asked once more when all is over.
const ASKED_AGAIN_MAX: usize = 1000;
/// Retries with backoff after lost replies end within a few seconds.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(60);
/// Gids in one page of the order service's listing.
const PAGE: usize = 5000;

#[derive(Args)]
pub struct Settings {
    /// Units on sale.
    #[arg(long, env = "UNITS", default_value_t = 20_000)]
    units: u32,
    /// Buyers; more than units, so that it sells out.
    #[arg(long, env = "BUYERS", default_value_t = 60_000)]
    buyers: u32,
    /// Where records go, as `mongodb://…`, `postgres://…`, `mysql://…` or `sqlite:…`; the server's default if empty.
    #[arg(long, env = "RECORDS", default_value = "", hide_default_value = true)]
    records: String,
    /// Buyers at the counter at the same time.
    #[arg(long, default_value_t = 64)]
    at_once: u32,
    /// What the buyers do follows from this number.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The server's program; beside this one by default.
    #[arg(long)]
    rushline: Option<PathBuf>,
    /// Directory of data, logs and report; its old content goes.
    #[arg(long, default_value = "target/demo")]
    directory: PathBuf,
    /// Print the report as JSON and nothing else.
    #[arg(long)]
    json: bool,
}

/// Runs the demo. The exit code says whether everything adds up; an error, that it could not be found out.
pub async fn run(settings: Settings) -> anyhow::Result<ExitCode> {
    ensure!(
        settings.buyers > settings.units,
        "{} buyers cannot buy {} units out\nhint: BUYERS must be greater than UNITS",
        settings.buyers,
        settings.units
    );
    fresh_directory(&settings.directory)?;
    let rushline = settings.rushline.clone().map_or_else(|| sibling("rushline"), Ok)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut started = Vec::new();
    let sale = tokio::select! {
        sale = sell(&settings, &rushline, &mut started) => sale,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted; nothing was checked")),
        _ = terminate.recv() => Err(anyhow::anyhow!("terminated; nothing was checked")),
    };
    // In the order in which they need each other: the server last started is the one that calls the order service.
    let mut stopped = Ok(());
    for process in started.into_iter().rev() {
        stopped = stopped.and(process.stop().await);
    }
    let mut report = sale?;
    if let Err(error) = stopped {
        report.faults.push(format!("{error:#}"));
    }
    let path = settings.directory.join("report.json");
    let text = serde_json::to_string_pretty(&report.to_json())?;
    std::fs::write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    if settings.json {
        println!("{text}");
    } else {
        report.print(&path);
    }
    Ok(if report.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Starts what is needed (into `started`, also when it fails later) and runs the sale to its report.
async fn sell(settings: &Settings, rushline: &Path, started: &mut Vec<Process>) -> anyhow::Result<Report> {
    let say = |text: String| {
        if !settings.json {
            println!("{text}");
        }
    };
    let directory = &settings.directory;
    let shop = start_order_service(rushline, directory, started).await?;
    let server = start_server(rushline, settings, started).await?;
    say(format!(
        "rushline on http://{}, order service on http://{}, logs in {}",
        server.address,
        shop.address,
        directory.display()
    ));
    let sale = json!({
        "sale": *SALE,
        "items": [{"sku": SKU, "units": settings.units}],
        "limit_per_buyer": LIMIT_PER_BUYER,
        "order_endpoint": {
            "url": format!("http://{}/orders", shop.address),
            "count_url": format!("http://{}/count", shop.address),
            "list_url": format!("http://{}/gids", shop.address),
            "timeout_ms": 3000,
            "max_concurrency": 64,
            "mode": "single",
        },
    });
    server.expect("POST", "/v1/sales", Some(&sale)).await?;
    say(format!(
        "sale {}: {} units of {SKU}, {} buyers, at most {LIMIT_PER_BUYER} each",
        *SALE, settings.units, settings.buyers
    ));

    let crowd = Rc::new(Crowd {
        address: server.address,
        sale: SALE.clone(),
        sku: SKU.into(),
        buyers: settings.buyers,
        at_once: settings.at_once,
        seed: settings.seed,
    });
    let book = Rc::new(RefCell::new(Book::new()));
    let began = Instant::now();
    tokio::select! {
        () = crowd.clone().run(book.clone()) => {}
        () = progress::show(book.clone(), settings.buyers, settings.json) => {}
    }
    let selling = began.elapsed();
    say("sold out; waiting until every order has ended and is in the records".into());
    let audit = Audit::settled(server, &SALE, SETTLE_TIME_MAX).await?;
    let settled = began.elapsed();
    let asked_again = crowd.ask_again(&book, ASKED_AGAIN_MAX).await;
    let at_service = list_gids(shop).await?;
    let refused_by_service = compare(server, &book, &at_service).await?;

    let sale = server.expect("GET", &format!("/v1/sales/{}", *SALE), None).await.unwrap_or(Value::Null);
    let book = book.borrow();
    let mut faults = book.faults_named.clone();
    if book.faults > faults.len() as u64 {
        faults.push(format!("and {} more of this kind", book.faults - faults.len() as u64));
    }
    faults.extend(audit.faults());
    let sold: i64 = audit.items.iter().map(|item| item.sold).sum();
    if sold > i64::from(settings.units) {
        faults.push(format!("oversold: {sold} of {} units", settings.units));
    }
    let timing = Timing { selling, settled };
    Ok(Report::new(&book, audit, sale, timing, asked_again, refused_by_service, faults))
}

async fn start_order_service(rushline: &Path, directory: &Path, started: &mut Vec<Process>) -> anyhow::Result<Api> {
    let db = directory.join("order-service.db");
    let db = db.to_str().context("the directory's name must be UTF-8")?;
    let args = [
        "order-service",
        "--listen=127.0.0.1:0",
        "--db",
        db,
        "--refuse-percent",
        REFUSE_PERCENT,
        "--lose-replies-percent",
        LOSE_REPLIES_PERCENT,
    ];
    let log = directory.join("order-service.log");
    let (process, address) = Process::start_listening("order service", rushline, &args, &log).await?;
    started.push(process);
    Ok(Api { address })
}

async fn start_server(rushline: &Path, settings: &Settings, started: &mut Vec<Process>) -> anyhow::Result<Api> {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
    let data = settings.directory.join("data");
    let mut envs = vec![
        ("RUSHLINE_HTTP_LISTEN".into(), address.to_string()),
        ("RUSHLINE_GRPC_LISTEN".into(), "127.0.0.1:0".into()),
        ("RUSHLINE_DATA_DIR".into(), data.display().to_string()),
    ];
    if !settings.records.is_empty() {
        envs.push(("RUSHLINE_RECORDS_URL".into(), settings.records.clone()));
    }
    let api = Api { address };
    let process =
        Process::start("rushline serve", rushline, &["serve"], &envs, &settings.directory.join("server.log"))?;
    started.push(process);
    started.last_mut().expect("pushed above").ready(api, "/readyz").await?;
    Ok(api)
}

/// Every gid that the order service has.
async fn list_gids(shop: Api) -> anyhow::Result<HashSet<String>> {
    let mut all = HashSet::new();
    let mut after = String::new();
    loop {
        let page = shop.expect("GET", &format!("/gids?sale={}&after={after}&limit={PAGE}", *SALE), None).await?;
        let page: Vec<String> = serde_json::from_value(page["gids"].clone())?;
        let Some(last) = page.last() else { return Ok(all) };
        ensure!(*last > after, "the order service lists its gids out of order");
        after.clone_from(last);
        all.extend(page);
    }
}

/// What buyers were told, against what the order service has; faults go into the book.
/// Answers how many orders that buyers were told of were refused by the order service.
async fn compare(server: Api, book: &Rc<RefCell<Book>>, at_service: &HashSet<String>) -> anyhow::Result<u64> {
    let told: Vec<String> = book.borrow().told.keys().filter(|gid| !at_service.contains(*gid)).cloned().collect();
    let mut refused = HashSet::new();
    for gid in told {
        let order = server.expect("GET", &format!("/v1/orders/{gid}"), None).await?;
        if order["status"] == "failed" {
            refused.insert(gid);
        } else {
            book.borrow_mut().fault(format!("{gid} was promised to a buyer and is not at the order service: {order}"));
        }
    }
    let untold: Vec<String> = at_service.iter().filter(|gid| !book.borrow().told.contains_key(*gid)).cloned().collect();
    for gid in untold {
        let order = server.expect("GET", &format!("/v1/orders/{gid}"), None).await?;
        let Some(buyer) = order["buyer"].as_str() else { bail!("order {gid} has no buyer: {order}") };
        if !book.borrow_mut().lost_for_good.contains(buyer) {
            book.borrow_mut().fault(format!("{gid} of {buyer} exists and nobody was told: {order}"));
        }
    }
    let mut units = std::collections::HashMap::<u32, u32>::new();
    for (gid, told) in &book.borrow().told {
        if !refused.contains(gid) {
            *units.entry(told.buyer).or_default() += told.order.quantity;
        }
    }
    for (buyer, units) in units.into_iter().filter(|&(_, units)| units > LIMIT_PER_BUYER) {
        book.borrow_mut()
            .fault(format!("{} has {units} units, over the limit of {LIMIT_PER_BUYER}", buyer_name(buyer)));
    }
    Ok(refused.len() as u64)
}
