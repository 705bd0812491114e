//! Whom buyers ask. A target knows how a [`Step`] is worded and how an answer is to be read; it decides nothing.

pub mod dtm;
mod fixed;
mod rushline;
mod template;

use std::net::SocketAddr;
use std::time::Duration;

use crate::engine::crowd::Verdict;
use crate::engine::line::{Line, Wire};
use crate::engine::queue::Step;

pub use dtm::Dtm;
pub use fixed::Fixed;
pub use rushline::Rushline;
pub use template::Template;

/// See the module.
pub enum Target {
    Rushline(Rushline),
    Dtm(Dtm),
    Template(Box<Template>),
    Fixed(Fixed),
}

/// What one connection needs to ask.
pub struct Caller {
    pub line: Line,
    pub wire: Wire,
    /// The gid, reason or error of the last answer.
    pub text: String,
    /// A target's own, for each connection.
    pub own: Own,
}

/// See [`Caller::own`].
#[derive(Default)]
pub struct Own {
    pub redis: Option<dtm::Stock>,
    pub template: Option<Box<crate::bench::Template>>,
}

/// How a step was answered; the words are in [`Caller::text`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    pub verdict: Verdict,
    /// 0 if there was no answer.
    pub status: u16,
    pub replayed: bool,
    pub retry_after: Option<Duration>,
}

impl Reply {
    pub fn silence() -> Self {
        Self { verdict: Verdict::Unknown, status: 0, replayed: false, retry_after: None }
    }
}

impl Caller {
    pub fn new(line: Line) -> Self {
        Self { line, wire: Wire::default(), text: String::new(), own: Own::default() }
    }

    fn say(&mut self, text: &str) {
        self.text.clear();
        self.text.push_str(text);
    }

    /// No answer, and why.
    pub fn no_answer(&mut self, error: &std::io::Error) -> Reply {
        self.line.give_up();
        self.say(match error.kind() {
            std::io::ErrorKind::ConnectionRefused => "connection refused",
            std::io::ErrorKind::InvalidData => "no HTTP",
            _ => "connection broken",
        });
        Reply::silence()
    }
}

impl Target {
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Rushline(target) => target.address,
            Self::Dtm(target) => target.address,
            Self::Template(target) => target.address,
            Self::Fixed(target) => target.address,
        }
    }

    /// Asks and reads the answer. May be dropped at any time; the caller's line is then given up.
    pub async fn ask(&self, caller: &mut Caller, step: &Step) -> Reply {
        match self {
            Self::Dtm(target) => return target.ask(caller, step).await,
            Self::Fixed(target) => target.write(caller),
            _ => self.write(caller, step),
        }
        let Caller { line, wire, text, .. } = caller;
        match line.call(wire).await {
            Ok(answer) => match self {
                Self::Rushline(_) => rushline::read(&answer, step.kind, text),
                Self::Template(target) => target.read(&answer, step.kind, text),
                Self::Fixed(_) | Self::Dtm(_) => fixed::read(&answer, text),
            },
            Err(error) => caller.no_answer(&error),
        }
    }

    /// Asks and leaves before the answer is read.
    pub async fn ask_and_leave(&self, caller: &mut Caller, step: &Step, wait_for_answer: bool) -> Reply {
        self.write(caller, step);
        let Caller { line, wire, .. } = caller;
        match line.send_and_leave(wire, wait_for_answer).await {
            Ok(()) => {
                caller.say("hung up");
                Reply::silence()
            }
            Err(error) => caller.no_answer(&error),
        }
    }

    fn write(&self, caller: &mut Caller, step: &Step) {
        caller.wire.clear();
        match self {
            Self::Rushline(target) => target.write(&mut caller.wire, step),
            Self::Template(target) => target.write(&mut caller.wire, step),
            Self::Dtm(target) => target.write_first(&mut caller.wire, step),
            Self::Fixed(target) => target.write(caller),
        }
    }
}
