//! Buyers, an order service and an oracle: `demo` shows a whole sale, `bench` measures one, and both end by proving
//! that what buyers were told, what Redis says and what the order service holds are the same.
//!
//! | file | what it is |
//! | --- | --- |
//! | `http` | the sparing client that all load goes through |
//! | `oracle/` | holds the two against each other, and says what is wrong |
//! | `report/` | what a run looks like: live, as a summary, JSON, an HTML page, beside another run |
//! | `bad_shop/` | a shop that is wrong on purpose: what the oracle is tried on |
//! | `demo`, `buyers`, `progress`, `audit` | the sale of `make demo` |
//! | `bench/` | the figures of `make bench` |
//! | `run/` | a scenario: what is started, what goes wrong, the verdict |
//! | `chaos/` | rounds of faults on real servers, out of a seed |
//! | `scenario/`, `engine/`, `target/` | what buyers do, when they do it, and whom they ask |
//! | `offer` | what the generator itself can do |
//! | `floor`, `sink_service`, `branches` | servers that the bench measures against |
//! | `ledger` | what a run knows of itself: what buyers were told, what the order service was called with |
//! | `processes`, `resp` | what a run starts, and what it asks Redis |

mod audit;
mod bad_shop;
mod bench;
mod branches;
mod buyers;
mod chaos;
mod demo;
mod engine;
mod floor;
mod http;
mod ledger;
mod offer;
mod oracle;
mod processes;
mod progress;
mod redis_server;
mod report;
mod resp;
mod run;
mod scenario;
mod sink_service;
mod target;

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(name = "rushline-loadtest", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A whole sale in the terminal, with everything that goes wrong in one, and the proof that it adds up.
    Demo(demo::Settings),
    /// Measures what the project promises, beside the floor of this machine.
    Bench(bench::Settings),
    /// Buyers of a scenario against a shop, with everything that goes wrong, and a verdict.
    Run(Box<run::Settings>),
    /// Kills, cuts off, fills up and lies to real servers while buyers buy, round after round, each with a verdict.
    Chaos(chaos::Settings),
    /// Lists the ready scenarios.
    Scenarios,
    /// What the generator itself can do, against a bare server.
    Offer(offer::Settings),
    /// The least an HTTP server can do: 100 fixed bytes to every POST.
    FloorServer(Server),
    /// The order service of benches and runs, in memory, with exact books.
    SinkService(Service),
    /// Shows a run that was kept once more.
    Report(report::Show),
    /// Two runs side by side.
    Compare(report::CompareSettings),
    /// A shop that is wrong on purpose: to see the oracle find it.
    BadShop(bad_shop::Settings),
}

#[derive(Args)]
struct Server {
    /// Address; port 0 takes a free one. The first line of stdout says which.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Threads of the runtime; 1 leaves the other core to the generator.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

#[derive(Args)]
struct Service {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    habits: sink_service::Habits,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Demo(settings) => {
            let local = tokio::task::LocalSet::new();
            return runtime(1)?.block_on(local.run_until(demo::run(settings)));
        }
        Command::Bench(settings) => return runtime(1)?.block_on(bench::run(settings)),
        Command::Run(settings) => return runtime(1)?.block_on(run::run(*settings)),
        Command::Chaos(settings) => return runtime(1)?.block_on(chaos::run(settings)),
        Command::Scenarios => scenario::list(),
        Command::Offer(settings) => runtime(1)?.block_on(offer::run(settings))?,
        Command::FloorServer(server) => runtime(server.threads)?.block_on(floor::run(server.listen))?,
        Command::Report(settings) => return report::show_again(&settings),
        Command::Compare(settings) => return report::compare(&settings),
        Command::BadShop(settings) => runtime(1)?.block_on(bad_shop::run(settings))?,
        Command::SinkService(Service { server, habits }) => {
            runtime(server.threads)?.block_on(sink_service::run(server.listen, habits))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn runtime(threads: usize) -> std::io::Result<tokio::runtime::Runtime> {
    match threads {
        0 | 1 => tokio::runtime::Builder::new_current_thread().enable_all().build(),
        n => tokio::runtime::Builder::new_multi_thread().worker_threads(n).enable_all().build(),
    }
}
