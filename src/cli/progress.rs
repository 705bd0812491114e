//! Progress of what takes longer than a second: a bar on a terminal, a line now and then elsewhere.

use super::terminal;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// What is over sooner needs no bar.
const SILENT: Duration = Duration::from_secs(1);
/// Without a terminal, how often a line is said.
const LINE_EVERY: Duration = Duration::from_secs(5);

pub struct Progress {
    what: &'static str,
    total: u64,
    started: Instant,
    said: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// `total` 0: nobody knows.
    pub fn new(what: &'static str, total: u64) -> Self {
        let now = Instant::now();
        Self { what, total, started: now, said: now, bar: None }
    }

    pub fn at(&mut self, done: u64) {
        if std::io::stderr().is_terminal() {
            if self.bar.is_none() && self.started.elapsed() >= SILENT {
                let (bar, template) = match self.total {
                    0 => (ProgressBar::no_length(), "{msg} {human_pos}, {per_sec}"),
                    total => {
                        (ProgressBar::new(total), "{msg} [{bar:30}] {human_pos} of {human_len}, {per_sec}, {eta} left")
                    }
                };
                let style = ProgressStyle::with_template(template);
                bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("##·"));
                bar.set_message(self.what);
                self.bar = Some(bar);
            }
            if let Some(bar) = &self.bar {
                bar.set_position(done);
            }
        } else if self.said.elapsed() >= LINE_EVERY {
            self.said = Instant::now();
            let of = if self.total == 0 { String::new() } else { format!(" of {}", self.total) };
            terminal::say(&format!("{}: {done}{of}", self.what));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
