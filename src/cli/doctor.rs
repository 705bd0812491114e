//! `rushline doctor`: configuration in, the library does the rest.

use super::flags::SettingFlags;
use crate::config::Config;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    settings: SettingFlags,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    check(&args.settings.resolve()?.config)
}

/// CALL SITE: `crate::store::doctor::run(config)` goes here once it exists.
fn check(config: &Config) -> anyhow::Result<()> {
    let _ = config;
    anyhow::bail!("doctor is not built in yet")
}
