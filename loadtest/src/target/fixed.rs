//! The same request over and over, but for a number: for floors and figures.

use std::cell::Cell;
use std::net::SocketAddr;

use super::{Caller, Reply};
use crate::bench::Template;
use crate::engine::crowd::Verdict;
use crate::http::Answer;

pub struct Fixed {
    pub address: SocketAddr,
    pub template: Template,
    /// Numbers of this thread: from here, in steps.
    pub next: Cell<u64>,
    pub every: u64,
}

impl Fixed {
    pub fn write(&self, caller: &mut Caller) {
        let number = self.next.replace(self.next.get() + self.every);
        let template = caller.own.template.get_or_insert_with(|| Box::new(self.template.clone()));
        let bytes = template.number(number);
        if caller.wire.bytes.len() == bytes.len() {
            caller.wire.bytes.copy_from_slice(bytes);
        } else {
            caller.wire.bytes = bytes.to_vec();
        }
    }
}

pub fn read(answer: &Answer<'_>, text: &mut String) -> Reply {
    let verdict = match answer.status {
        200..300 => Verdict::Created,
        429 | 500.. => Verdict::Unknown,
        _ => Verdict::Refused,
    };
    text.clear();
    if verdict != Verdict::Created {
        use std::fmt::Write;
        let _ = write!(text, "status {}", answer.status);
    }
    Reply { verdict, status: answer.status, replayed: answer.replayed, retry_after: None }
}
