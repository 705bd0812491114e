//! The account of a world: a digest that two runs of one seed must share, and the story if it is wanted.

use std::time::Duration;

pub struct Trace {
    digest: u64,
    events: u64,
    story: Option<Vec<String>>,
}

impl Trace {
    pub fn new(verbose: bool) -> Self {
        Self { digest: 0xcbf2_9ce4_8422_2325, events: 0, story: verbose.then(Vec::new) }
    }

    pub fn note(&mut self, at: Duration, line: impl FnOnce() -> String) {
        let line = format!("{:>9.3} s  {}", at.as_secs_f64(), line());
        self.add(line.as_bytes());
        if let Some(story) = &mut self.story {
            story.push(line);
        }
    }

    /// FNV-1a: stable, and quick enough for what is small.
    pub fn add(&mut self, bytes: &[u8]) {
        self.events += 1;
        for byte in bytes {
            self.digest = (self.digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub fn digest(&self) -> u64 {
        self.digest
    }

    pub fn events(&self) -> u64 {
        self.events
    }

    pub fn is_told(&self) -> bool {
        self.story.is_some()
    }

    pub fn story(&mut self) -> Vec<String> {
        self.story.take().unwrap_or_default()
    }
}
