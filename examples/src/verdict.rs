//! What a scenario proves at its end: statements about the books, each true or false.

#[derive(Default)]
pub struct Verdict {
    lines: Vec<(bool, String)>,
}

impl Verdict {
    /// Notes whether `left` and `right`, read from two places, are the same.
    pub fn same<T: PartialEq + std::fmt::Display>(&mut self, what: &str, left: T, right: T) {
        let holds = left == right;
        let sign = if holds { "=" } else { "≠" };
        self.lines.push((holds, format!("{what}: {left} {sign} {right}")));
    }

    pub fn holds(&mut self, what: impl Into<String>, holds: bool) {
        self.lines.push((holds, what.into()));
    }

    pub fn is_good(&self) -> bool {
        !self.lines.is_empty() && self.lines.iter().all(|(holds, _)| *holds)
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (holds, line) in &self.lines {
            writeln!(to, "  {} {line}", if *holds { "✓" } else { "✗" })?;
        }
        write!(to, "{}", if self.is_good() { "The books agree." } else { "THE BOOKS DO NOT AGREE." })
    }
}
