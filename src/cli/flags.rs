//! One flag per setting, made from the table of settings.

use crate::config::{self, Config, Resolved, SETTINGS, Setting, Sources};
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use std::path::PathBuf;

/// The flags that `-h` shows; `--help` shows all.
const COMMON: [&str; 4] = ["data_dir", "http.listen", "redis.url", "records.url"];
const CONFIG_ID: &str = "config_file";

/// The settings that were given as flags, and `--config`.
#[derive(Debug, Clone, Default)]
pub struct SettingFlags {
    values: Vec<(&'static str, String)>,
    config: Option<PathBuf>,
}

impl SettingFlags {
    /// Flags, environment and file together.
    pub fn resolve(self) -> Result<Resolved, config::Error> {
        config::resolve(Sources::of_process(self.values, self.config))
    }
}

impl FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        let given = SETTINGS
            .iter()
            .filter_map(|setting| Some((setting.name, matches.get_one::<String>(setting.name)?.clone())));
        self.values.extend(given);
        self.config = matches.get_one::<PathBuf>(CONFIG_ID).cloned().or(self.config.take());
        Ok(())
    }
}

impl Args for SettingFlags {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new(CONFIG_ID)
            .long("config")
            .value_name("PATH")
            .value_parser(clap::value_parser!(PathBuf))
            .help("The YAML file [env: RUSHLINE_CONFIG] [default: ./rushline.yaml, if it exists]");
        let defaults = Config::default();
        SETTINGS.iter().fold(command.arg(config), |command, setting| command.arg(flag(setting, &defaults)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn flag(setting: &'static Setting, defaults: &Config) -> Arg {
    let doc: String = setting.doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
    let default =
        (setting.unwritten)().map_or_else(|| setting.text(defaults), |unwritten| unwritten.meaning.to_owned());
    let common = COMMON.contains(&setting.name);
    let heading = match setting.section() {
        _ if common => "Settings (all of them: --help)".to_owned(),
        Some(section) => format!("Settings: {section}"),
        None => "Settings".to_owned(),
    };
    Arg::new(setting.name)
        .long(setting.flag())
        .value_name(value_name(setting))
        .help(format!("{doc} [env: {}] [default: {default}]", setting.variable()))
        .help_heading(heading)
        .hide_short_help(!common)
}

fn value_name(setting: &Setting) -> &'static str {
    match setting.key() {
        "url" | "target" => "URL",
        "listen" => "ADDRESS",
        "data_dir" | "ca_file" | "cert_file" | "key_file" | "tokens_file" | "cert" | "key" | "client_ca" => "PATH",
        key if key.ends_with("_ms") || key.ends_with("_s") || key.ends_with("_ms_max") => "TIME",
        "program" | "prefix" | "name" | "endpoint" | "tokens" | "keys" | "issuer" | "audience" => "TEXT",
        "rewrite_after_load" | "level" | "format" | "driver" | "allow_open" | "dtm_get_changes" | "require_client" => {
            "WORD"
        }
        _ => "N",
    }
}
