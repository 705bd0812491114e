//! `rushline config …`: every setting, its value and where that came from.

use super::flags::SettingFlags;
use super::terminal;
use crate::config::{self, Resolved};
use clap::Subcommand;
use serde_json::{Value, json};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print every setting, its value and where it came from.
    #[command(after_help = "Example:\n  RUSHLINE_LOG_LEVEL=debug rushline config show")]
    Show {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: SettingFlags,
    },
    /// Read the configuration and say what is wrong with it; nothing is started or connected to.
    #[command(after_help = "Example:\n  rushline config check --config rushline.yaml")]
    Check {
        #[command(flatten)]
        settings: SettingFlags,
    },
    /// Print a commented file with every setting and its default.
    #[command(after_help = "Example:\n  rushline config sample > rushline.yaml")]
    Sample,
}

pub fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Show { json, settings } => {
            let resolved = settings.resolve()?;
            if json { terminal::print_json(&as_json(&resolved)) } else { terminal::print(&as_table(&resolved)) }
        }
        Command::Check { settings } => {
            let resolved = settings.resolve()?;
            let set = resolved.rows().filter(|(_, origin)| **origin != config::Origin::Default).count();
            let file = resolved.file.map_or("no file".to_owned(), |file| file.display().to_string());
            terminal::say(&format!(
                "configuration is good: {file}, {set} settings differ from their defaults or repeat them"
            ));
            terminal::say("next: rushline doctor   checks the connections as well");
            Ok(())
        }
        Command::Sample => terminal::print(&config::sample()),
    }
}

fn as_table(resolved: &Resolved) -> String {
    let rows = resolved
        .rows()
        .map(|(setting, origin)| vec![setting.name.into(), setting.text(&resolved.config), origin.to_string()]);
    terminal::table(&["setting", "value", "origin"], 3, rows)
}

fn as_json(resolved: &Resolved) -> Value {
    let settings: Vec<Value> = resolved
        .rows()
        .map(|(setting, origin)| {
            json!({
                "name": setting.name,
                "value": setting.value(&resolved.config),
                "origin": origin.to_string(),
                "flag": format!("--{}", setting.flag()),
                "environment": setting.variable(),
                "allowed": (setting.allowed)(),
            })
        })
        .collect();
    json!({ "file": resolved.file.as_ref().map(|file| file.display().to_string()), "settings": settings })
}
