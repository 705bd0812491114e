//! Flag over variable over file over default, and where each value came from.

use super::file;
use super::problem::{Error, Problem};
use super::secret_url::SecretUrl;
use super::settings::{Config, SETTINGS};
use super::suggest::closest;
use super::table::Setting;
use crate::http1::Address;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Flag(String),
    Environment(String),
    File { path: PathBuf, line: u64 },
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "flag --{flag}"),
            Self::Environment(variable) => write!(f, "environment {variable}"),
            Self::File { path, line } => write!(f, "file {}:{line}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

impl Origin {
    /// As a problem names it.
    fn place(&self, setting: &Setting) -> String {
        match self {
            Self::Flag(flag) => format!("--{flag}"),
            Self::Environment(variable) => variable.clone(),
            Self::File { path, line } => format!("{}:{line}", path.display()),
            Self::Default => format!("default of {}", setting.name),
        }
    }
}

/// What settings are read from, so that a test can hand in its own.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Setting name and text, as the command line gave them.
    pub flags: Vec<(&'static str, String)>,
    /// All variables of the process; only those that start with `RUSHLINE_` are looked at.
    pub environment: Vec<(OsString, OsString)>,
    /// `--config`.
    pub config_flag: Option<PathBuf>,
    /// Read when it exists and nothing else names a file.
    pub file_default: Option<PathBuf>,
}

/// The file that is read without `--config` and `RUSHLINE_CONFIG`, if it exists.
const FILE_DEFAULT: &str = "rushline.yaml";
/// Variables that are no settings. `RUSHLINE_TEST_…` belongs to the tests.
const OTHER_VARIABLES: [&str; 5] =
    ["RUSHLINE_CONFIG", "RUSHLINE_SERVER", "RUSHLINE_TOKEN", "RUSHLINE_CA", "RUSHLINE_OPERATOR"];
const TEST_VARIABLES: &str = "RUSHLINE_TEST_";

impl Sources {
    /// This process's environment and working directory, with the flags given.
    pub fn of_process(flags: Vec<(&'static str, String)>, config_flag: Option<PathBuf>) -> Self {
        Self { flags, environment: std::env::vars_os().collect(), config_flag, file_default: Some(FILE_DEFAULT.into()) }
    }
}

/// A configuration and the origin of each of its values.
#[derive(Debug, Clone)]
pub struct Resolved {
    pub config: Config,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// In the order of [`SETTINGS`].
    origins: Vec<Origin>,
}

impl Resolved {
    pub fn origin(&self, setting: &str) -> Option<&Origin> {
        SETTINGS.iter().zip(&self.origins).find(|(row, _)| row.name == setting).map(|(_, origin)| origin)
    }

    /// Every setting with its origin.
    pub fn rows(&self) -> impl Iterator<Item = (&'static Setting, &Origin)> {
        SETTINGS.iter().zip(&self.origins)
    }
}

/// Reads all sources. Fails with everything that is wrong in any of them, also what a stronger source overrides:
/// a broken line in the file waits for the day the flag is dropped.
pub fn resolve(sources: Sources) -> Result<Resolved, Error> {
    let mut work = Work::new();
    // From the weakest to the strongest: the later overwrites the earlier.
    work.read_file(&sources);
    work.read_environment(&sources.environment);
    for (name, text) in &sources.flags {
        match Setting::find(name) {
            Some(setting) => work.set(setting, text, Origin::Flag(setting.flag())),
            None => work.problem(name.to_string(), None, "is no setting".into(), Some(file::hint_for(name))),
        }
    }
    work.check_together();
    if work.problems.is_empty() { Ok(work.resolved) } else { Err(Error { problems: work.problems }) }
}

/// Reads a file of this text, over the defaults alone.
pub fn resolve_text(text: &str) -> Result<Resolved, Error> {
    let mut work = Work::new();
    let path = PathBuf::from(FILE_DEFAULT);
    let (entries, problems) = file::parse(FILE_DEFAULT, text);
    work.take(entries, problems, path);
    work.check_together();
    if work.problems.is_empty() { Ok(work.resolved) } else { Err(Error { problems: work.problems }) }
}

struct Work {
    resolved: Resolved,
    problems: Vec<Problem>,
}

impl Work {
    fn new() -> Self {
        let origins = vec![Origin::Default; SETTINGS.len()];
        Self { resolved: Resolved { config: Config::default(), file: None, origins }, problems: Vec::new() }
    }

    fn problem(&mut self, place: String, setting: Option<&'static str>, what: String, hint: Option<String>) {
        self.problems.push(Problem { place, setting, what, hint });
    }

    fn set(&mut self, setting: &'static Setting, text: &str, origin: Origin) {
        match (setting.set)(&mut self.resolved.config, text) {
            Ok(()) => {
                let at =
                    SETTINGS.iter().position(|row| row.name == setting.name).expect("a setting is a row of the table");
                self.resolved.origins[at] = origin;
            }
            Err(wrong) => {
                let hint = wrong.hint.unwrap_or_else(|| format!("allowed: {}", (setting.allowed)()));
                self.problem(origin.place(setting), Some(setting.name), wrong.what, Some(hint));
            }
        }
    }

    fn read_file(&mut self, sources: &Sources) {
        let variable = sources.environment.iter().find(|(name, value)| name == "RUSHLINE_CONFIG" && !value.is_empty());
        let named = sources.config_flag.clone().or_else(|| variable.map(|(_, value)| PathBuf::from(value)));
        let Some(path) = named.or_else(|| sources.file_default.clone().filter(|path| path.exists())) else { return };
        let (entries, problems) = file::read(&path);
        self.take(entries, problems, path);
    }

    fn take(&mut self, entries: Vec<file::Entry>, problems: Vec<Problem>, path: PathBuf) {
        self.problems.extend(problems);
        for entry in entries {
            self.set(entry.setting, &entry.text, Origin::File { path: path.clone(), line: entry.line });
        }
        self.resolved.file = Some(path);
    }

    fn read_environment(&mut self, environment: &[(OsString, OsString)]) {
        let mut ours: Vec<(&str, &OsString)> = environment
            .iter()
            .filter_map(|(name, value)| Some((name.to_str()?, value)))
            .filter(|(name, _)| name.starts_with("RUSHLINE_"))
            .collect();
        // The system lists variables in no order; problems should come in one.
        ours.sort();
        for (name, value) in ours {
            if OTHER_VARIABLES.contains(&name) || name.starts_with(TEST_VARIABLES) {
                continue;
            }
            let Some(setting) = SETTINGS.iter().find(|setting| setting.variable() == name) else {
                let variables: Vec<String> =
                    SETTINGS.iter().map(Setting::variable).chain(OTHER_VARIABLES.map(String::from)).collect();
                let hint = match closest(name, variables.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("unset {name}, or see   rushline config show"),
                };
                self.problem(name.to_owned(), None, "is no setting of rushline".into(), Some(hint));
                continue;
            };
            match value.to_str() {
                // Compose files and unit files pass a variable on as empty when it is not set.
                Some("") => {}
                Some(text) => self.set(setting, text, Origin::Environment(name.to_owned())),
                None => self.problem(name.to_owned(), Some(setting.name), "is not UTF-8".into(), None),
            }
        }
    }

    /// Rules that tie two settings together.
    fn check_together(&mut self) {
        self.check_registry();
        self.check_security();
        self.check_own_calls();
        let (admission, delivery) = (&self.resolved.config.admission, &self.resolved.config.delivery);
        let mut broken = Vec::new();
        if delivery.retry_base > delivery.retry_max {
            broken.push(("delivery.retry_base_ms", "delivery.retry_max_ms"));
        }
        if admission.batch_max > admission.queue_max {
            broken.push(("admission.batch_max", "admission.queue_max"));
        }
        for (smaller, larger) in broken {
            let named = self
                .resolved
                .rows()
                .find(|(setting, origin)| [smaller, larger].contains(&setting.name) && **origin != Origin::Default);
            let Some((setting, origin)) = named else { continue };
            let (place, config) = (origin.place(setting), &self.resolved.config);
            let text = |name| Setting::find(name).map(|setting| setting.text(config)).unwrap_or_default();
            let what = format!("{smaller} ({}) must not be above {larger} ({})", text(smaller), text(larger));
            self.problem(place, None, what, Some(format!("lower {smaller} or raise {larger}")));
        }
    }

    /// The alert hook and a set of keys are called the way that services are: better known now than when there is something
    /// to tell.
    fn check_own_calls(&mut self) {
        let config = &self.resolved.config;
        let (alert, keys) = (config.trans.alert_url.as_ref().map(SecretUrl::expose), config.jwt.keys.as_deref());
        let mut refused = Vec::new();
        for (name, url) in [("trans.alert_url", alert), ("jwt.keys", keys)] {
            // Keys may also be in a file, which is no URL.
            let Some(address) = url.and_then(Address::parse) else { continue };
            let Err(error) = config.calls.allow.check(address.place()) else { continue };
            let Some((setting, origin)) = self.resolved.rows().find(|(row, _)| row.name == name) else { continue };
            refused.push((origin.place(setting), name, format!("cannot be called: {error}")));
        }
        for (place, name, what) in refused {
            let hint = "add its host to calls.allow, or name another one".to_owned();
            self.problem(place, Some(name), what, Some(hint));
        }
    }

    fn check_registry(&mut self) {
        let registry = &self.resolved.config.registry;
        let (ca, certificate, key) = ("registry.ca_file", "registry.cert_file", "registry.key_file");
        let given = [&registry.ca_file, &registry.cert_file, &registry.key_file].map(Option::is_some);
        let (name, missing) = match given {
            [_, true, false] => (certificate, key),
            [_, false, true] => (key, certificate),
            [false, true, true] => (certificate, ca),
            _ => return,
        };
        self.lacks(name, missing);
    }

    fn check_security(&mut self) {
        let (tls, jwt) = (&self.resolved.config.tls, &self.resolved.config.jwt);
        let needs = [
            (tls.cert.is_some(), "tls.cert", tls.key.is_some(), "tls.key"),
            (tls.key.is_some(), "tls.key", tls.cert.is_some(), "tls.cert"),
            (tls.client_ca.is_some(), "tls.client_ca", tls.cert.is_some(), "tls.cert"),
            (tls.require_client, "tls.require_client", tls.client_ca.is_some(), "tls.client_ca"),
            // Without them a token that was made for somebody else would do here.
            (jwt.keys.is_some(), "jwt.keys", jwt.issuer.is_some(), "jwt.issuer"),
            (jwt.keys.is_some(), "jwt.keys", jwt.audience.is_some(), "jwt.audience"),
            (jwt.issuer.is_some() || jwt.audience.is_some(), "jwt.issuer", jwt.keys.is_some(), "jwt.keys"),
        ];
        for (given, name, there, missing) in needs {
            if given && !there {
                self.lacks(name, missing);
            }
        }
    }

    /// A setting does nothing, or worse, without another.
    fn lacks(&mut self, name: &'static str, missing: &str) {
        let Some((setting, origin)) = self.resolved.rows().find(|(row, _)| row.name == name) else { return };
        let place = origin.place(setting);
        self.problem(place, Some(name), format!("needs {missing} beside it"), Some(format!("set {missing} as well")));
    }
}
