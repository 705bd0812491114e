//! `rushline serve` and `rushline dev`: configuration in, the library does the rest.

use super::flags::SettingFlags;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    settings: SettingFlags,
}

pub fn run(args: Args, dev: bool) -> anyhow::Result<()> {
    crate::serve::run(args.settings.resolve()?.config, dev)
}
