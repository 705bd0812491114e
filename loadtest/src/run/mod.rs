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
use crate::report::{About, Live, Output, Run, show};
use crate::scenario::{Arrivals, Scenario, seconds};
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
    /// [default: http://127.0.0.1:36789, or `rushline` with --start]
    #[arg(long)]
    target: Option<String>,
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
    #[command(flatten)]
    output: Output,
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

impl Settings {
    fn target(&self) -> &str {
        self.target.as_deref().unwrap_or(if self.start { "rushline" } else { "http://127.0.0.1:36789" })
    }
}

fn prepare(settings: &Settings) -> anyhow::Result<Scenario> {
    let target = settings.target();
    ensure!(
        !settings.start || matches!(target, "rushline" | "dtm"),
        "--start starts a rushline of its own, and --target {target} is another shop\nhint: leave one of them out, or use --target dtm"
    );
    ensure!(settings.start || target.contains(':'), "--target {target}: only --start knows where that is");
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
    let live = Live {
        recorder: recorder.clone(),
        began,
        lasts: (!closed_loop).then_some(lasts),
        units: plan.sales[0].stock.iter().map(|stock| stock.units).sum(),
        quiet: settings.output.quiet(),
    };
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
        () = show(live) => unreachable!("it shows until it is dropped"),
        () = judge::sample(shop_api, &sale_name, began, &recorder) => unreachable!("it samples until it is dropped"),
    };
    parts.mend().await?;
    plan.sales[0].restocks = restocks;
    let (mut ledger, _, verdict) = judge::judge(parts, scenario.work, plan, &recorder, !faults.is_empty()).await?;
    // Who waited for a connection was late by the server's doing and not by the harness's.
    ledger.lateness = effort.schedule_error.clone();
    let code = verdict.exit_code();
    let run = Run::new(about(settings, scenario, &faults, &effort), &ledger, verdict);
    settings.output.publish(&run, &ledger)?;
    Ok(code)
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

/// What the run was, for whoever reads its results later.
fn about(settings: &Settings, scenario: &Scenario, faults: &[Fault], effort: &Effort) -> About {
    let mut said = std::collections::BTreeMap::new();
    let mut say = |name: &str, value: String| _ = said.insert(name.to_owned(), value);
    say("connections", settings.connections.to_string());
    say("threads", settings.threads.to_string());
    say("scale", settings.scale.to_string());
    say("http", settings.http2.map_or("1".into(), |streams| format!("2, {streams} streams a connection")));
    say("waited for a connection", effort.waited.to_string());
    if !faults.is_empty() {
        let words = scenario.faults.iter().chain(&settings.faults);
        say("faults", words.cloned().collect::<Vec<_>>().join("; "));
    }
    let mut warnings = Vec::new();
    if effort.cut_short {
        warnings.push(format!("cut short {} s after the last arrival: not all buyers were done", scenario.patience_s));
    }
    // In a flash everybody waits: that is what it is.
    let flash = scenario.arrivals.iter().any(|phase| matches!(phase, Arrivals::Burst { .. }));
    if effort.waited * 100 > effort.requests && !flash {
        let share = effort.waited as f64 * 100.0 / effort.requests as f64;
        warnings.push(format!(
            "{share:.0} % of the requests waited for a free connection, and their latency contains it (--connections)"
        ));
    }
    let target = match (settings.start, settings.target()) {
        (true, "dtm") => "a rushline of its own, by dtm's protocol",
        (true, _) => "a rushline of its own",
        (false, target) => target,
    };
    About {
        name: format!("{}-{}", jiff::Zoned::now().date(), scenario.name),
        scenario: scenario.name.clone(),
        about: scenario.about.clone(),
        target: target.into(),
        seed: scenario.seed,
        settings: said,
        warnings,
    }
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
