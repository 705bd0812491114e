//! An error with the two things a command line needs beside its words: an exit code and a hint.
//!
//! Modules keep their own error types; whoever knows what the person should do next wraps one in a [`Fault`], or adds
//! it as `anyhow` context. `cli/` prints it and turns its class into the exit code.

use std::error::Error as StdError;
use std::fmt;

/// What kind of failure it is. The number is the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The thing asked for did not work, or an audit found a difference.
    Failed = 1,
    Usage = 2,
    Config = 3,
    /// Something that is needed (the server, Redis, the records) cannot be reached. Trying again may help.
    Unreachable = 4,
}

/// A failure as a person should hear of it.
#[derive(Debug)]
pub struct Fault {
    pub class: Class,
    pub what: String,
    /// What to do about it, best with one command in it.
    pub hints: Vec<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Fault {
    pub fn new(class: Class, what: impl Into<String>) -> Self {
        Self { class, what: what.into(), hints: Vec::new(), source: None }
    }

    pub fn failed(what: impl Into<String>) -> Self {
        Self::new(Class::Failed, what)
    }

    pub fn unreachable(what: impl Into<String>) -> Self {
        Self::new(Class::Unreachable, what)
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The fault in `error`, whether it is the error, a context of it, or a cause.
    pub fn in_error(error: &anyhow::Error) -> Option<&Fault> {
        error.downcast_ref().or_else(|| error.chain().find_map(|cause| cause.downcast_ref()))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl StdError for Fault {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
