//! The scenarios that rushline is for, each with real services, real databases and, with `--crash`, a process killed
//! at the worst moment. `make example NAME=bank-transfer` runs one; `make example` lists them.

mod bank_transfer;
mod cache;
mod flash_sale;
mod follow;
mod lab;
mod order_system;
mod scenario;
mod serving;
mod several_stores;
mod travel;
mod verdict;

use clap::{Parser, Subcommand};
use scenario::Scenario;
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "Scenarios with real services and databases; each ends with a look into all books")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What there is to run.
    List,
    /// Runs one scenario to its end. Exit code 1: the books do not agree.
    Run {
        scenario: Scenario,
        /// Kills a process in the middle, and goes on.
        #[arg(long)]
        crash: bool,
    },
    /// A service of a scenario; `run` starts these.
    #[command(hide = true)]
    Service(serving::Role),
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::List => {
            for scenario in Scenario::all() {
                println!("{:<18} {}", scenario.name(), scenario.about());
            }
            Ok(true)
        }
        Command::Run { scenario, crash } => run(scenario, crash).await,
        Command::Service(role) => role.scenario.serve(&role).await.map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(scenario: Scenario, crash: bool) -> anyhow::Result<bool> {
    println!("{}: {}{}\n", scenario.name(), scenario.about(), if crash { ", with a crash" } else { "" });
    let verdict = tokio::select! {
        verdict = scenario.run(crash) => verdict?,
        // Not by the signal: what the scenario started must end with it.
        _ = tokio::signal::ctrl_c() => anyhow::bail!("stopped before its end"),
    };
    println!("\n{verdict}");
    Ok(verdict.is_good())
}
