//! `rushline-loadtest run SCENARIO`: starts what is needed, lets the buyers in, lets things go wrong, and has the oracle
//! judge it.

pub mod events;
pub mod fault;
mod judge;
mod parts;
pub mod proxy;
mod sale;
mod target;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, ensure};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::engine::crowd::{Crowd, phases};
use crate::engine::schedule::Phase;
use crate::engine::{Drive, Effort};
use crate::ledger::{Plan, Recorder};
use crate::processes::fresh_directory;
use crate::scenario::{Scenario, seconds};
use fault::Fault;
use parts::Parts;

/// Between the last preparation and the first buyer; each connection takes its time on top.
const LEAD: Duration = Duration::from_secs(1);
const LEAD_PER_CONNECTION: Duration = Duration::from_micros(200);
/// Answers that one thread keeps: 48 bytes each and the gids.
const ROWS_MAX: usize = 20_000_000;

#[derive(Debug, Args)]
pub struct Settings {
    /// A ready scenario (see `rushline-loadtest scenarios`), or a TOML file.
    scenario: String,
    /// Whom to ask: `http://HOST:PORT` of rushline; `dtm:http://HOST:PORT` of anything that speaks dtm's protocol;
    /// `template:FILE` of any shop described in TOML. With --start: `rushline` or `dtm`, one protocol or the other.
    #[arg(long, default_value = "http://127.0.0.1:36789")]
    target: String,
    /// Start Redis and rushline for this run, and stop them after it.
    #[arg(long)]
    start: bool,
    /// Connections of all threads together.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    connections: u32,
    /// Threads of the generator; one offers 100,000 requests a second.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    threads: u8,
    /// Speak HTTP/2, with this many requests at once on each connection.
    #[arg(long, value_name = "STREAMS", num_args = 0..=1, default_missing_value = "100")]
    http2: Option<usize>,
    /// Multiplies buyers, rates and units: 0.01 tries a scenario, 10 finds the limit.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Other chances for the same buyers.
    #[arg(long)]
    seed: Option<u64>,
    /// Something that goes wrong, beside what the scenario says: `stop orders at=3s for=2s`; may be repeated.
    #[arg(long = "fault", value_name = "FAULT")]
    faults: Vec<String>,
    /// An order service that runs already and keeps a list for the oracle, instead of the bundled one.
    #[arg(long, value_name = "URL")]
    order_service: Option<String>,
    /// Redis of the stock, for a dtm target: HOST:PORT or unix:PATH.
    #[arg(long, value_name = "REDIS")]
    stock: Option<String>,
    /// Name of the sale; by default the scenario's with the time.
    #[arg(long)]
    sale: Option<String>,
    /// With --start: the server's program; beside this one by default.
    #[arg(long)]
    rushline: Option<PathBuf>,
    /// With --start: Redis's program.
    #[arg(long, env = "REDIS_SERVER", default_value = "redis-server")]
    redis_server: PathBuf,
    /// Directory of data and logs of what is started; its old content goes.
    #[arg(long, default_value = "target/loadtest")]
    directory: PathBuf,
}

/// Runs the scenario. The exit code is the verdict.
pub async fn run(settings: Settings) -> anyhow::Result<ExitCode> {
    let scenario = prepare(&settings)?;
    fresh_directory(&settings.directory)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut parts = Parts::default();
    let ran = tokio::select! {
        ran = play(&settings, &scenario, &mut parts) => ran,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted; nothing was judged")),
        _ = terminate.recv() => Err(anyhow::anyhow!("terminated; nothing was judged")),
    };
    let stopped = parts.stop().await;
    let code = ran?;
    stopped?;
    Ok(code)
}

fn prepare(settings: &Settings) -> anyhow::Result<Scenario> {
    let mut scenario = Scenario::load(&settings.scenario)?;
    ensure!(settings.scale.is_finite() && settings.scale > 0.0, "--scale: must be more than 0");
    scenario.scale(settings.scale);
    scenario.seed = settings.seed.unwrap_or(scenario.seed);
    Ok(scenario)
}

/// From nothing to the verdict. What is started is in `parts`, also if this fails or is dropped.
async fn play(settings: &Settings, scenario: &Scenario, parts: &mut Parts) -> anyhow::Result<ExitCode> {
    let faults: Vec<Fault> =
        scenario.faults.iter().chain(&settings.faults).map(|text| Fault::parse(text)).collect::<anyhow::Result<_>>()?;
    let (phases, closed_loop) = phases(scenario)?;
    let (_, baskets) = crowd(scenario, &phases, closed_loop);
    parts.start(settings, scenario, &faults).await?;

    let connections = settings.connections;
    let lead = LEAD + LEAD_PER_CONNECTION * connections;
    let began = Instant::now() + lead;
    let began_unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)? + lead;
    let sale = parts.open_sale(scenario, began_unix).await?;
    let mut plan = Plan { began_unix_us: u64::try_from(began_unix.as_micros())?, sales: vec![sale], baskets };
    let make = target::maker(settings, scenario, parts, &plan).await?;
    let shop = events::Shop::of(parts);

    let lasts: Duration = phases.iter().map(Phase::lasts).sum();
    let drive = Drive {
        threads: settings.threads.into(),
        connections: connections as usize,
        streams: settings.http2.unwrap_or(0),
        began,
        until: began + if closed_loop { Duration::from_secs(86_400) } else { lasts + seconds(scenario.patience_s) },
    };
    let recorder = Recorder::new(ROWS_MAX);
    let stop = Arc::new(AtomicBool::new(false));
    let _stop = StopOnDrop(stop.clone());
    let supply = {
        let (scenario, phases) = (scenario.clone(), phases.clone());
        Arc::new(move |_| Ok((crowd(&scenario, &phases, closed_loop).0, make()?)))
    };
    let engine = crate::engine::run(drive, phases, supply, &recorder, stop);
    let mut restocks = Vec::new();
    let (shop_api, sale_name) = (parts.audited(), parts.sale().to_owned());
    let effort = tokio::select! {
        effort = engine => effort?,
        failed = async {
            let events = shop.play(scenario, began, &mut restocks);
            let (events, faults) = tokio::join!(events, parts.break_things(&faults, began));
            match events.and(faults) {
                Ok(()) => std::future::pending().await,
                Err(error) => error,
            }
        } => return Err(failed),
        () = judge::sample(shop_api, &sale_name, began, &recorder) => unreachable!("it samples until it is dropped"),
    };
    parts.mend().await?;
    plan.sales[0].restocks = restocks;
    let (ledger, _, verdict) = judge::judge(parts, scenario.work, plan, &recorder).await?;
    print(&effort, &ledger);
    print!("{verdict}");
    Ok(verdict.exit_code())
}

fn crowd(scenario: &Scenario, phases: &[Phase], closed_loop: bool) -> (Crowd, Vec<crate::ledger::Basket>) {
    Crowd::new(scenario.seed, scenario.buyers.clone(), scenario.sale.skus, phases, closed_loop)
}

/// Threads look at it: a run that is dropped ends them.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn print(effort: &Effort, ledger: &crate::ledger::Ledger) {
    let q = |histogram: &hdrhistogram::Histogram<u64>, q: f64| histogram.value_at_quantile(q) as f64 / 1000.0;
    println!(
        "{} requests in {:.1} s ({:.0}/s), {} waited for a connection; schedule error p50 {:.3} p99 {:.3} ms",
        effort.requests,
        effort.elapsed.as_secs_f64(),
        effort.requests as f64 / effort.elapsed.as_secs_f64(),
        effort.waited,
        q(&effort.schedule_error, 0.5),
        q(&effort.schedule_error, 0.99),
    );
    println!(
        "latency p50 {:.2} p99 {:.2} p99.9 {:.2} ms",
        q(&ledger.latency, 0.5),
        q(&ledger.latency, 0.99),
        q(&ledger.latency, 0.999)
    );
    println!("{:#?}", ledger.counts);
}

/// `http://host:port` as an address; a host's first.
pub fn address_of(url: &str) -> anyhow::Result<SocketAddr> {
    let rest = url.strip_prefix("http://").with_context(|| format!("`{url}` is no http:// address"))?;
    let authority = rest.split('/').next().unwrap_or_default();
    resolve(&if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") })
}

pub fn resolve(authority: &str) -> anyhow::Result<SocketAddr> {
    let mut found = authority.to_socket_addrs().with_context(|| format!("`{authority}` is no host:port"))?;
    found.next().with_context(|| format!("`{authority}` has no address"))
}
