//! `rushline order-service`, hidden: the shop's side of the demo, in a process of its own.

use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address to listen on; port 0 takes a free one and prints it.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// The SQLite file, made if missing.
    #[arg(long)]
    pub db: PathBuf,
    /// Of 100 orders, how many are refused.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub refuse_percent: u8,
    /// How long each call is kept waiting.
    #[arg(long, default_value_t = 0)]
    pub delay_ms: u64,
    /// Of 100 new orders, how many are made while the connection is cut instead of answered.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub lose_replies_percent: u8,
}

/// CALL SITE: `crate::demo::order_service::run(Settings { … })` on a runtime goes here once it exists.
pub fn run(args: Args) -> anyhow::Result<()> {
    let _ = args;
    anyhow::bail!("the order service is not built in yet")
}
