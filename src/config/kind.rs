//! The kinds of value: how each is read, shown and described.

use super::secret_url::{SecretUrl, redact};
use super::suggest::closest;
use super::table::Unwritten;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What is wrong with a value, without its place and name.
#[derive(Debug)]
pub struct Wrong {
    pub what: String,
    /// In place of "allowed: …".
    pub hint: Option<String>,
}

impl Wrong {
    fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), hint: None }
    }

    /// `…, got "…"`, with a password in it masked: people do put a URL where a number belongs.
    pub(super) fn got(rule: &str, text: &str) -> Self {
        let shown: String = redact(text).chars().take(80).collect();
        Self::new(format!("{rule}, got {shown:?}"))
    }
}

/// How a value of type `T` is read and shown.
pub trait Kind<T> {
    fn default(&self) -> T;
    fn read(&self, text: &str) -> Result<T, Wrong>;
    fn show(&self, value: &T) -> Value;
    fn allowed(&self) -> String;
    fn unwritten(&self) -> Option<Unwritten> {
        None
    }
}

/// A whole number of something.
pub struct Count {
    pub default: u64,
    pub min: u64,
    pub max: u64,
    pub unit: &'static str,
}

fn whole(text: &str, min: u64, max: u64) -> Result<u64, Wrong> {
    let digits = text.trim().replace('_', "");
    let number = digits.parse::<u64>().map_err(|_| Wrong::got("must be a whole number", text))?;
    if (min..=max).contains(&number) { Ok(number) } else { Err(Wrong::got("is out of range", text)) }
}

impl Kind<u64> for Count {
    fn default(&self) -> u64 {
        self.default
    }

    fn read(&self, text: &str) -> Result<u64, Wrong> {
        whole(text, self.min, self.max)
    }

    fn show(&self, value: &u64) -> Value {
        (*value).into()
    }

    fn allowed(&self) -> String {
        format!("{} to {} {}", self.min, self.max, self.unit)
    }
}

impl Kind<usize> for Count {
    fn default(&self) -> usize {
        usize::try_from(self.default).unwrap_or(usize::MAX)
    }

    fn read(&self, text: &str) -> Result<usize, Wrong> {
        let number = Kind::<u64>::read(self, text)?;
        usize::try_from(number).map_err(|_| Wrong::new("is too large for this machine"))
    }

    fn show(&self, value: &usize) -> Value {
        (*value).into()
    }

    fn allowed(&self) -> String {
        Kind::<u64>::allowed(self)
    }
}

macro_rules! duration_kind {
    ($(#[$doc:meta])* $name:ident, $unit:literal, $from:ident, $to:ident) => {
        $(#[$doc])*
        pub struct $name {
            pub default: u64,
            pub min: u64,
            pub max: u64,
        }

        impl Kind<Duration> for $name {
            fn default(&self) -> Duration {
                Duration::$from(self.default)
            }

            fn read(&self, text: &str) -> Result<Duration, Wrong> {
                whole(text, self.min, self.max).map(Duration::$from)
            }

            fn show(&self, value: &Duration) -> Value {
                u64::try_from(value.$to()).unwrap_or(u64::MAX).into()
            }

            fn allowed(&self) -> String {
                format!("{} to {} {}", self.min, self.max, $unit)
            }
        }
    };
}

duration_kind!(
    /// A duration written as a number of milliseconds.
    Millis, "milliseconds", from_millis, as_millis
);
duration_kind!(
    /// A duration written as a number of seconds.
    Seconds, "seconds", from_secs, as_secs
);

/// An address to listen on.
pub struct Address(pub &'static str);

impl Kind<SocketAddr> for Address {
    fn default(&self) -> SocketAddr {
        self.0.parse().expect("the table's own default is an address; a test reads every default")
    }

    fn read(&self, text: &str) -> Result<SocketAddr, Wrong> {
        let text = text.trim();
        let spelled = match text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => text.to_owned(),
        };
        spelled.parse().map_err(|_| Wrong::got("must be an IP address with a port", text))
    }

    fn show(&self, value: &SocketAddr) -> Value {
        value.to_string().into()
    }

    fn allowed(&self) -> String {
        "ADDRESS:PORT, such as 0.0.0.0:36789 or [::1]:36789".into()
    }
}

/// An address to listen on, or one that follows from something else.
pub struct OptionalAddress {
    pub example: &'static str,
    /// What it is when none is given.
    pub unset: &'static str,
}

impl Kind<Option<SocketAddr>> for OptionalAddress {
    fn default(&self) -> Option<SocketAddr> {
        None
    }

    fn read(&self, text: &str) -> Result<Option<SocketAddr>, Wrong> {
        Address(self.example).read(text).map(Some)
    }

    fn show(&self, value: &Option<SocketAddr>) -> Value {
        value.map_or(Value::Null, |address| address.to_string().into())
    }

    fn allowed(&self) -> String {
        Address(self.example).allowed()
    }

    fn unwritten(&self) -> Option<Unwritten> {
        Some(Unwritten { meaning: self.unset, example: self.example })
    }
}

/// A path; relative ones start where the program was started.
pub struct Path(pub &'static str);

impl Kind<PathBuf> for Path {
    fn default(&self) -> PathBuf {
        self.0.into()
    }

    fn read(&self, text: &str) -> Result<PathBuf, Wrong> {
        if text.is_empty() || text.contains('\0') { Err(Wrong::got("must be a path", text)) } else { Ok(text.into()) }
    }

    fn show(&self, value: &PathBuf) -> Value {
        value.display().to_string().into()
    }

    fn allowed(&self) -> String {
        "a path".into()
    }
}

/// Text without control characters.
pub struct Text {
    pub default: &'static str,
    pub bytes_max: usize,
}

impl Kind<String> for Text {
    fn default(&self) -> String {
        self.default.into()
    }

    fn read(&self, text: &str) -> Result<String, Wrong> {
        let fits = !text.is_empty() && text.len() <= self.bytes_max && !text.chars().any(char::is_control);
        if fits { Ok(text.into()) } else { Err(Wrong::got("is not allowed", text)) }
    }

    fn show(&self, value: &String) -> Value {
        redact(value).into()
    }

    fn allowed(&self) -> String {
        format!("1 to {} bytes without control characters", self.bytes_max)
    }
}

/// A URL of one of some schemes, or nothing.
pub struct OptionalUrl {
    pub schemes: &'static [&'static str],
    pub example: &'static str,
    /// What happens without one.
    pub unset: &'static str,
}

impl Kind<Option<SecretUrl>> for OptionalUrl {
    fn default(&self) -> Option<SecretUrl> {
        None
    }

    fn read(&self, text: &str) -> Result<Option<SecretUrl>, Wrong> {
        // Never shows `text` itself: what is no URL may still be a password.
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(Wrong { what: "must be a URL".into(), hint: Some(format!("for example {}", self.example)) });
        };
        if !self.schemes.contains(&scheme) {
            // A scheme is a short word; anything else before a colon might be part of a secret.
            let is_word = scheme.len() <= 20
                && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+')
                && rest.starts_with("//");
            let got = if is_word { format!(", got {scheme}:") } else { String::new() };
            return Err(Wrong::new(format!("must be a URL that starts with one of the schemes below{got}")));
        }
        let bad = |what: &str| Wrong { what: what.into(), hint: Some(format!("for example {}", self.example)) };
        if rest.is_empty() || rest == "//" {
            return Err(bad("is a URL without an address"));
        }
        // sqlite: takes a bare path, and a list of hosts is no URL to the standard; whoever connects reads those.
        let several_hosts =
            scheme.starts_with("mongodb") || scheme.ends_with("+sentinel") || scheme.ends_with("+cluster");
        let standard = !scheme.starts_with("sqlite") && !several_hosts && !scheme.ends_with("unix");
        if standard {
            let parsed = url::Url::parse(text).map_err(|error| bad(&format!("is no URL: {error}")))?;
            if parsed.host_str().is_none_or(str::is_empty) {
                return Err(bad("is a URL without a host"));
            }
        }
        Ok(Some(SecretUrl::new(text)))
    }

    fn show(&self, value: &Option<SecretUrl>) -> Value {
        value.as_ref().map_or(Value::Null, |url| url.to_string().into())
    }

    fn allowed(&self) -> String {
        let spelled: Vec<String> = self.schemes.iter().map(|scheme| format!("{scheme}:")).collect();
        format!("a URL: {}", spelled.join(" "))
    }

    fn unwritten(&self) -> Option<Unwritten> {
        Some(Unwritten { meaning: self.unset, example: self.example })
    }
}

/// One of a few words.
pub struct Words<T: 'static> {
    pub default: T,
    pub words: &'static [(&'static str, T)],
}

impl<T: Copy + PartialEq> Kind<T> for Words<T> {
    fn default(&self) -> T {
        self.default
    }

    fn read(&self, text: &str) -> Result<T, Wrong> {
        if let Some((_, value)) = self.words.iter().find(|(word, _)| *word == text) {
            return Ok(*value);
        }
        let hint = closest(text, self.words.iter().map(|(word, _)| *word))
            .map(|word| format!("did you mean `{word}`? ({})", self.allowed()));
        Err(Wrong { hint, ..Wrong::got("has no such word", text) })
    }

    fn show(&self, value: &T) -> Value {
        self.words.iter().find(|(_, of)| of == value).map_or(Value::Null, |(word, _)| (*word).into())
    }

    fn allowed(&self) -> String {
        let words: Vec<&str> = self.words.iter().map(|(word, _)| *word).collect();
        words.join(" | ")
    }
}

/// Whether to have Redis rewrite an AOF that it loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RewriteAfterLoad {
    /// When Redis loaded an AOF since it started.
    Auto,
    Never,
}

impl RewriteAfterLoad {
    pub(super) const WORDS: &'static [(&'static str, Self)] = &[("auto", Self::Auto), ("never", Self::Never)];
}

/// Who mends a sale that was fenced because Redis lost what it had acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// `rushline repair`, when somebody calls it.
    Manual,
    /// This server, at once.
    Automatic,
}

impl Repair {
    pub(super) const WORDS: &'static [(&'static str, Self)] =
        &[("manual", Self::Manual), ("automatic", Self::Automatic)];
}

/// The least serious lines that are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    pub(super) const WORDS: &'static [(&'static str, Self)] = &[
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];

    /// As tracing's filters spell it.
    pub fn as_str(self) -> &'static str {
        Self::WORDS.iter().find(|(_, level)| *level == self).map_or("info", |(word, _)| word)
    }
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Pretty on a terminal, JSON otherwise.
    Auto,
    Pretty,
    Json,
}

impl LogFormat {
    pub(super) const WORDS: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("pretty", Self::Pretty), ("json", Self::Json)];
}

/// Worker threads: as many as there are cores, unless said otherwise.
pub struct Threads;

/// More threads than this only take turns.
const THREADS_MAX: u64 = 1_024;

impl Kind<usize> for Threads {
    fn default(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    fn read(&self, text: &str) -> Result<usize, Wrong> {
        let number = whole(text, 1, THREADS_MAX)?;
        usize::try_from(number).map_err(|_| Wrong::new("is too large for this machine"))
    }

    fn show(&self, value: &usize) -> Value {
        (*value).into()
    }

    fn allowed(&self) -> String {
        format!("1 to {THREADS_MAX} threads")
    }

    fn unwritten(&self) -> Option<Unwritten> {
        Some(Unwritten { meaning: "the number of cores", example: "4" })
    }
}

/// A node's name; without one, made of host, process and a random number, so that no two runs share it.
pub struct NodeName;

const NODE_NAME_BYTES_MAX: usize = 128;

impl Kind<String> for NodeName {
    fn default(&self) -> String {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| std::env::var("HOSTNAME").ok());
        let host: String = host.unwrap_or_default().trim().chars().filter(|c| is_name_char(*c)).take(60).collect();
        let host = if host.is_empty() { "node" } else { &host };
        format!("{host}-{}-{:08x}", std::process::id(), fastrand::u32(..))
    }

    fn read(&self, text: &str) -> Result<String, Wrong> {
        let fits = !text.is_empty() && text.len() <= NODE_NAME_BYTES_MAX && text.chars().all(is_name_char);
        if fits { Ok(text.into()) } else { Err(Wrong::got("is not allowed", text)) }
    }

    fn show(&self, value: &String) -> Value {
        value.as_str().into()
    }

    fn allowed(&self) -> String {
        format!("1 to {NODE_NAME_BYTES_MAX} of A-Z a-z 0-9 _ - .")
    }

    fn unwritten(&self) -> Option<Unwritten> {
        Some(Unwritten { meaning: "host name, process id and a random number", example: "shop-1" })
    }
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_-.".contains(c)
}
