//! `rushline doctor`: prints what [`crate::doctor`] finds.

use super::flags::SettingFlags;
use super::terminal;
use crate::doctor::{Check, Health, examine};
use crate::fault::Fault;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    settings: SettingFlags,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let config = args.settings.resolve()?.config;
    super::client::block_on(async {
        let checks = examine(&config).await;
        if args.json {
            terminal::print_json(&serde_json::to_value(&checks)?)?;
        } else {
            terminal::print(&checks.iter().map(line).collect::<String>())?;
        }
        let bad = checks.iter().filter(|check| check.health == Health::Bad).count();
        match bad {
            0 => Ok(()),
            n => Err(Fault::unreachable(format!("{n} of {} checks are bad", checks.len())).into()),
        }
    })
}

fn line(check: &Check) -> String {
    let mark = match check.health {
        Health::Good => '✓',
        Health::Warning => '!',
        Health::Bad => '✗',
    };
    let hint = check.hint.as_ref().map_or_else(String::new, |hint| format!("      hint: {hint}\n"));
    format!("  {mark} {:<22} {}\n{hint}", check.what, check.found)
}
