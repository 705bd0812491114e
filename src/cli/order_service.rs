//! `rushline order-service`, hidden: the shop's side of the demo, in a process of its own.

use crate::demo::order_service::Settings;
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

pub fn run(args: Args) -> anyhow::Result<()> {
    let settings = Settings {
        listen: args.listen,
        db: args.db,
        refuse_percent: args.refuse_percent,
        delay_ms: args.delay_ms,
        lose_replies_percent: args.lose_replies_percent,
    };
    super::client::block_on(crate::demo::order_service::run(settings))
}
