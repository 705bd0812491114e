//! `make bench`: the figures that the project promises, each beside what a bare HTTP server does on this machine.
//!
//! The floor is measured before, between and after the figures, and the median is B: a machine whose speed changes
//! during the run then changes both. Only ratios and Redis's own counts are compared with goals.

mod figures;
mod floor;
mod lab;
mod load;
mod observability;
mod open_loop;
mod refusals;
mod reservations;
mod steady;
mod summary;
mod transactions;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::processes::{Process, fresh_directory, sibling};
use floor::Floor;
use lab::{Class, Lab, Mode, Plan};
pub use load::{PAYLOAD, Template};
use summary::{Figure, Summary};
use transactions::Kind;

/// Requests of one floor measurement: about two seconds.
const FLOOR_REQUESTS: u64 = 200_000;
/// Bulk rate as a part of the floor, for a sustained run whose bulk rate was not measured: the goal.
const SUSTAINED_GUESS: f64 = 0.35;
/// `--quick` runs this part of everything.
const QUICK: u64 = 10;

#[derive(Args)]
pub struct Settings {
    /// Orders of the sustained run.
    #[arg(long, env = "ORDERS", default_value_t = 1_000_000)]
    orders: u64,
    /// Connections of the generator.
    #[arg(long, default_value_t = 256)]
    connections: usize,
    /// Calls at the order endpoint at once.
    #[arg(long, default_value_t = 64)]
    max_concurrency: u32,
    /// A tenth of everything: to see that it works, not for figures.
    #[arg(long)]
    quick: bool,
    /// Only figures whose name contains this.
    #[arg(long, default_value = "", hide_default_value = true)]
    only: String,
    /// The server's program; beside this one by default.
    #[arg(long)]
    rushline: Option<PathBuf>,
    /// Redis's program.
    #[arg(long, env = "REDIS_SERVER", default_value = "redis-server")]
    redis_server: PathBuf,
    /// Directory of data, logs and summary; its old content goes.
    #[arg(long, default_value = "target/bench")]
    directory: PathBuf,
}

/// What all figures share.
pub struct Bench {
    settings: Settings,
    rushline: PathBuf,
    pub connections: usize,
    pub sustained_orders: u64,
    floor: Floor,
    floors: Vec<f64>,
    /// The figure being measured; kept here so that it is closed whatever happens.
    lab: Option<Lab>,
    redis_version: String,
}

impl Bench {
    /// `full`, or what `--quick` makes of it.
    pub fn orders(&self, full: u64) -> u64 {
        if self.settings.quick { full / QUICK } else { full }
    }

    /// Is it only to be seen that all of it works?
    pub fn quick(&self) -> bool {
        self.settings.quick
    }

    /// A new lab for the figure `name`.
    pub async fn open(
        &mut self,
        name: &str,
        class: Class,
        mode: Mode,
        orders: u64,
        backlog_max: Option<u64>,
    ) -> anyhow::Result<&mut Lab> {
        self.open_with(name, class, mode, orders, backlog_max, 1).await
    }

    /// The same with a sale of many SKUs.
    pub async fn open_with(
        &mut self,
        name: &str,
        class: Class,
        mode: Mode,
        orders: u64,
        backlog_max: Option<u64>,
        skus: u64,
    ) -> anyhow::Result<&mut Lab> {
        self.open_lab(name, class, mode, orders, (backlog_max, skus, &[])).await
    }

    /// The same with variables of the server's.
    pub async fn open_as(
        &mut self,
        name: &str,
        class: Class,
        mode: Mode,
        orders: u64,
        envs: &[(&str, &str)],
    ) -> anyhow::Result<&mut Lab> {
        self.open_lab(name, class, mode, orders, (None, 1, envs)).await
    }

    async fn open_lab(
        &mut self,
        name: &str,
        class: Class,
        mode: Mode,
        orders: u64,
        (backlog_max, skus, envs): (Option<u64>, u64, &[(&str, &str)]),
    ) -> anyhow::Result<&mut Lab> {
        let plan = Plan {
            skus,
            envs,
            class,
            mode,
            orders,
            backlog_max,
            rushline: &self.rushline,
            redis_server: &self.settings.redis_server,
            max_concurrency: self.settings.max_concurrency,
            directory: self.settings.directory.join(name),
        };
        let lab = self.lab.insert(Lab::open(&plan).await?);
        let server = lab.redis.info("server").await?;
        if let Some((_, version)) = server.into_iter().find(|(name, _)| name == "redis_version") {
            self.redis_version = version;
        }
        Ok(lab)
    }

    /// A bare HTTP server, which says 200 to whatever it is sent.
    pub fn floor_address(&self) -> std::net::SocketAddr {
        self.floor.address
    }

    async fn close(&mut self) -> anyhow::Result<()> {
        match self.lab.take() {
            Some(lab) => lab.close().await,
            None => Ok(()),
        }
    }

    /// Requests a second of the bare server, once more.
    async fn measure_floor(&mut self) -> anyhow::Result<()> {
        self.floors.push(self.floor.measure().await?.per_second);
        Ok(())
    }

    /// The median of all floors so far.
    fn floor_per_s(&self) -> f64 {
        let mut floors = self.floors.clone();
        floors.sort_by(f64::total_cmp);
        let middle = |at: usize| floors.get(at).copied().unwrap_or(f64::NAN);
        (middle(floors.len().saturating_sub(1) / 2) + middle(floors.len() / 2)) / 2.0
    }

    /// Measures one part after the other into `figures`, the floor between them.
    async fn measure(&mut self, figures: &mut Vec<Figure>) -> anyhow::Result<()> {
        let mut parts = PARTS.to_vec();
        parts.retain(|part| part.name().contains(&self.settings.only));
        self.measure_floor().await?;
        for part in parts {
            eprintln!("measuring {} …", part.name());
            let before = figures.len();
            match part {
                Part::Admitted(class) => figures.extend(figures::admitted(self, class).await?),
                Part::Delivered(class, mode) => figures.push(figures::delivered(self, class, mode).await?),
                Part::RedisMicros(clients) => figures.push(figures::redis_micros(self, clients).await?),
                Part::RedisBytes => figures.push(figures::redis_bytes(self).await?),
                Part::Sustained => {
                    let bulk = Part::Delivered(Class::Fsync, Mode::Bulk).name();
                    let bulk = figures.iter().find(|figure| figure.name == bulk);
                    let bulk_per_s = bulk.map_or(SUSTAINED_GUESS * self.floor_per_s(), |figure| figure.value);
                    figures.extend(figures::sustained(self, bulk_per_s).await?);
                }
                Part::Refusals { keyed } => figures.extend(refusals::after_sell_out(self, keyed).await?),
                Part::NextWin => figures.push(refusals::next_win(self).await?),
                Part::OpenLoop => figures.extend(open_loop::at_half(self).await?),
                Part::StartToReady => figures.push(steady::start_to_ready(self).await?),
                Part::ResidentMemory => figures.push(steady::resident_memory(self).await?),
                Part::Flatness => figures.extend(steady::flatness(self).await?),
                Part::Reservations => figures.extend(reservations::open_and_released(self).await?),
                Part::TransRate(kind) => figures.push(transactions::rate(self, kind).await?),
                Part::TransRedis(kind) => figures.extend(transactions::redis(self, kind).await?),
                Part::TransBytes => figures.push(transactions::bytes(self).await?),
                Part::Observability => figures.push(observability::cost(self).await?),
                Part::TransOutage => figures.extend(transactions::outage(self).await?),
            }
            self.close().await?;
            for figure in &figures[before..] {
                eprintln!("  {:.1} {}   {}", figure.value, figure.unit, figure.detail);
            }
            self.measure_floor().await?;
            // The machine is shared: a figure is compared with what the machine did just before and just after it.
            let neighbours = &self.floors[self.floors.len() - 2..];
            for figure in &mut figures[before..] {
                figure.floor_per_s = (neighbours[0] + neighbours[1]) / 2.0;
            }
        }
        Ok(())
    }
}

/// Everything that can be measured.
#[derive(Clone, Copy)]
enum Part {
    Admitted(Class),
    Delivered(Class, Mode),
    RedisMicros(usize),
    RedisBytes,
    Sustained,
    Refusals { keyed: bool },
    NextWin,
    OpenLoop,
    StartToReady,
    ResidentMemory,
    Flatness,
    Reservations,
    TransRate(Kind),
    TransRedis(Kind),
    TransBytes,
    TransOutage,
    Observability,
}

/// In this order: the sustained run takes its pace from the delivered bulk rate.
const PARTS: [Part; 26] = [
    Part::Admitted(Class::Memory),
    Part::Admitted(Class::Fsync),
    Part::Delivered(Class::Memory, Mode::Single),
    Part::Delivered(Class::Memory, Mode::Bulk),
    Part::Delivered(Class::Fsync, Mode::Single),
    Part::Delivered(Class::Fsync, Mode::Bulk),
    Part::RedisMicros(64),
    Part::RedisMicros(256),
    Part::RedisBytes,
    Part::Sustained,
    Part::Refusals { keyed: false },
    Part::Refusals { keyed: true },
    Part::NextWin,
    Part::OpenLoop,
    Part::StartToReady,
    Part::ResidentMemory,
    Part::Flatness,
    Part::Reservations,
    Part::TransRate(Kind::EmptySaga),
    Part::TransRate(Kind::Message),
    Part::TransRate(Kind::Saga),
    Part::TransRedis(Kind::EmptySaga),
    Part::TransRedis(Kind::Saga),
    Part::TransBytes,
    Part::TransOutage,
    Part::Observability,
];

impl Part {
    fn name(self) -> String {
        match self {
            Part::Admitted(Class::Memory) => "admitted_orders_memory".into(),
            Part::Admitted(Class::Fsync) => "admitted_orders_fsync".into(),
            Part::Delivered(class, Mode::Single) => format!("delivered_orders_single_{}", class.name()),
            Part::Delivered(class, Mode::Bulk) => format!("delivered_orders_bulk_{}", class.name()),
            Part::RedisMicros(clients) => format!("redis_time_per_order_{clients}_clients"),
            Part::RedisBytes => "redis_bytes_per_order_in_flight_beyond_payload".into(),
            Part::Sustained => "sustained".into(),
            Part::Refusals { keyed: false } => "refusals_after_sell_out".into(),
            Part::Refusals { keyed: true } => "refusals_after_sell_out_keyed".into(),
            Part::NextWin => "restock_to_next_win".into(),
            Part::OpenLoop => "open_loop".into(),
            Part::StartToReady => "start_to_ready".into(),
            Part::ResidentMemory => "resident_memory_50000_in_flight".into(),
            Part::Flatness => "flatness".into(),
            Part::Reservations => "reservations".into(),
            Part::TransRate(kind) => format!("transactions_{}", kind.name()),
            Part::TransRedis(kind) => format!("transactions_redis_{}", kind.name()),
            Part::TransBytes => "transactions_redis_bytes".into(),
            Part::TransOutage => "transactions_outage".into(),
            Part::Observability => "observability".into(),
        }
    }
}

/// Runs the bench. Exit code 0 if all was measured and exact; a goal that does not hold is shown, and is no failure of
/// the run, since it may be the machine's.
pub async fn run(settings: Settings) -> anyhow::Result<ExitCode> {
    fresh_directory(&settings.directory)?;
    if cfg!(debug_assertions) {
        eprintln!("warning: this is a debug build; its figures mean nothing\nhint: cargo build --release --workspace");
    }
    let rushline = settings.rushline.clone().map_or_else(|| sibling("rushline"), Ok)?;
    let ours = sibling("rushline-loadtest")?;
    let log = settings.directory.join("floor-server.log");
    let (floor_server, address) = Process::start_listening("floor server", &ours, &["floor-server"], &log).await?;
    let floor = Floor {
        address,
        clock: floor_server.clock()?,
        connections: settings.connections,
        requests: if settings.quick { FLOOR_REQUESTS / QUICK } else { FLOOR_REQUESTS },
    };
    let mut bench = Bench {
        connections: settings.connections,
        sustained_orders: if settings.quick { settings.orders / QUICK } else { settings.orders },
        settings,
        rushline,
        floor,
        floors: Vec::new(),
        lab: None,
        redis_version: "unknown".into(),
    };
    let mut figures = Vec::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let measured = tokio::select! {
        measured = bench.measure(&mut figures) => measured,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow::anyhow!("terminated")),
    };
    let closed = bench.close().await;
    let stopped = floor_server.stop().await;
    // What was measured before a failure is worth keeping.
    Summary::new(&bench, &figures).await.publish(&bench.settings.directory.join("summary.json"))?;
    measured.and(closed).and(stopped)?;
    Ok(ExitCode::SUCCESS)
}
