//! The command line: what can be typed, and how results, errors and exit codes look.
//!
//! `serve`, `dev` and `doctor` run the library in this process; all others are clients of a running server and know it
//! only by its HTTP interface. Data goes to standard output, talk to standard error.
//! Exit codes: 0 good, 1 failed (an audit's difference too), 2 usage, 3 configuration, 4 a dependency out of reach.

mod audit;
pub(crate) mod client;
mod config;
mod connect;
mod doctor;
mod export;
mod flags;
mod manual;
mod order;
mod order_retry;
mod order_service;
mod orders_file;
mod progress;
mod query;
mod repair;
mod sale;
mod sale_changes;
mod serve;
mod terminal;
#[cfg(test)]
mod tests;
mod token;
mod top;
mod txn;
mod why;

use clap::{CommandFactory, Parser, Subcommand};
use std::process::ExitCode;

/// A coordinator in front of flash-sale order endpoints: units taken equal orders made, exactly.
#[derive(Debug, Parser)]
#[command(
    name = "rushline",
    bin_name = "rushline",
    version,
    disable_help_subcommand = true,
    after_help = "\
Exit codes: 0 good, 1 failed or drift, 2 usage, 3 configuration, 4 a dependency cannot be reached.
`-h` is short, `--help` is long."
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    #[command(
        after_help = "Example:\n  rushline serve --redis-url redis://127.0.0.1:6379 --records-url postgres://shop@db/orders"
    )]
    Serve(serve::Args),
    /// Run the server with a demo sale and a demo order service, for a first look.
    #[command(after_help = "Example:\n  rushline dev\n  rushline sale show demo        (in another terminal)")]
    Dev(serve::Args),
    /// Check configuration and connections, and what Redis can promise.
    #[command(after_help = "Example:\n  rushline doctor --config rushline.yaml")]
    Doctor(doctor::Args),
    /// Show, check or write the configuration.
    #[command(subcommand)]
    Config(config::Command),
    /// Make tokens that say who may do what.
    #[command(subcommand)]
    Token(token::Command),
    /// Create, watch and steer sales.
    #[command(subcommand)]
    Sale(sale::Command),
    /// Look up orders.
    #[command(subcommand)]
    Order(order::Command),
    /// Prove that units taken equal orders made; exits with 1 when they do not.
    #[command(after_help = audit::EXAMPLES)]
    Audit(audit::Args),
    /// Why an order, a buyer or a transaction came out as it did, with the evidence.
    #[command(after_help = why::EXAMPLES)]
    Why(why::Args),
    /// List, show, retry and stop global transactions.
    #[command(subcommand)]
    Txn(txn::Command),
    /// Watch sales and transactions live in the terminal.
    #[command(after_help = top::EXAMPLES)]
    Top(top::Args),
    /// Write orders or transactions as CSV or NDJSON.
    #[command(subcommand, after_help = export::EXAMPLES)]
    Export(export::Command),
    /// Print completions for a shell.
    #[command(after_help = "Example:\n  rushline completions bash > /etc/bash_completion.d/rushline")]
    Completions(manual::CompletionsArgs),
    /// Print the manual page, or write one per command.
    #[command(after_help = "Example:\n  rushline man --out /usr/local/share/man/man1")]
    Man(manual::ManArgs),
    /// Bring back what Redis lost of a sale that is fenced, name it, and open the sale again.
    #[command(after_help = repair::EXAMPLES)]
    Repair(repair::Args),
    /// The order service of `dev` and of the demo.
    #[command(hide = true)]
    OrderService(order_service::Args),
}

const OVERVIEW: &str = "\
Try first:
  rushline dev                  a server with a demo sale, nothing to set up
  rushline sale show demo       what it sells; in another terminal

Commands:
  serve      run the server                     sale     create, watch and steer sales
  dev        the same with a demo sale          order    look up orders
  doctor     check connections and promises     audit    prove units taken = orders made
  txn        list, show, retry, stop            why      why a gid or buyer@sale came out so
  top        watch it all, live                 export   orders and transactions as CSV or NDJSON
  config     show, check or write settings      help     rushline --help, rushline COMMAND --help
  repair     bring back what Redis lost         token    make tokens: who may do what
  completions, man   for shells and manuals
";

/// Reads the command line, does it, and says how it went.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors" of clap with exit code 0.
            terminal::report_usage(&error);
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if terminal::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::report(&error);
            ExitCode::from(terminal::exit_code(&error))
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        None => {
            let about = "a coordinator in front of flash-sale order endpoints";
            terminal::print(&format!("rushline {} · {about}\n\n{OVERVIEW}", env!("CARGO_PKG_VERSION")))
        }
        Some(Command::Serve(args)) => serve::run(args, false),
        Some(Command::Dev(args)) => serve::run(args, true),
        Some(Command::Doctor(args)) => doctor::run(args),
        Some(Command::Config(command)) => config::run(command),
        Some(Command::Sale(command)) => client::block_on(sale::run(command)),
        Some(Command::Order(command)) => client::block_on(order::run(command)),
        Some(Command::Audit(args)) => client::block_on(audit::run(args)),
        Some(Command::Why(args)) => client::block_on(why::run(args)),
        Some(Command::Txn(command)) => client::block_on(txn::run(command)),
        Some(Command::Top(args)) => client::block_on(top::run(args)),
        Some(Command::Export(command)) => client::block_on(export::run(command)),
        Some(Command::Completions(args)) => manual::completions(&args, Cli::command()),
        Some(Command::Token(command)) => token::run(command),
        Some(Command::Man(args)) => manual::man(&args, Cli::command()),
        Some(Command::Repair(args)) => client::block_on(repair::run(args)),
        Some(Command::OrderService(args)) => order_service::run(args),
    }
}
