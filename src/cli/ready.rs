//! `rushline ready`: is the running server ready? For health checks of containers, which have no other program to ask with.

use super::client::{ServerArgs, show};

pub const EXAMPLES: &str = "\
Example:
  rushline ready && echo sell
Exit code 0: ready. 4: Redis cannot be used, the server is about to stop, or nobody answers.";

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let answer = args.server.connect()?.get("/readyz").await?;
    show(&args.server, &answer, |answer| format!("ready: Redis {}\n", answer["redis"].as_str().unwrap_or_default()))
}
