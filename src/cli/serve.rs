//! `rushline serve` and `rushline dev`: configuration in, the library does the rest.

use super::flags::SettingFlags;
use crate::config::Config;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    settings: SettingFlags,
}

pub fn run(args: Args, dev: bool) -> anyhow::Result<()> {
    serve(args.settings.resolve()?.config, dev)
}

/// CALL SITE: `crate::serve::run(config, dev)` goes here once it exists.
fn serve(config: Config, dev: bool) -> anyhow::Result<()> {
    let _ = (config, dev);
    anyhow::bail!("serve is not built in yet")
}
