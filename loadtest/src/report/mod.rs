//! What a run looks like: live in the terminal, as a summary, as JSON, as one HTML page, and beside another run.
//!
//! | file | what it is |
//! | --- | --- |
//! | `live` | the view while it runs; a line a second where there is no terminal |
//! | `run` | everything about a run, as JSON keeps it |
//! | `summary` | the end of a run, for eyes |
//! | `page` | the same as one HTML file without any network |
//! | `raw` | every answer and every call as CSV |
//! | `compare` | two runs side by side |

mod compare;
mod live;
mod page;
mod raw;
mod run;
mod summary;

pub use compare::Settings as CompareSettings;
pub use compare::run as compare;
pub use live::{Live, show};
pub use run::{About, Run};

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use crate::ledger::Ledger;

/// Where the results of a run go.
#[derive(Debug, Clone, Args)]
pub struct Output {
    /// Print everything as JSON and nothing else; with a file, write it there too.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    pub json: Option<PathBuf>,
    /// Write the HTML page here too.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Directory of the raw results: one directory a run, with run.json, report.html, told.csv and called.csv.
    #[arg(long, default_value = "loadtest/runs")]
    pub runs: PathBuf,
    /// Keep no raw results.
    #[arg(long)]
    pub no_runs: bool,
}

impl Output {
    /// JSON alone goes to stdout: nothing else may.
    pub fn quiet(&self) -> bool {
        self.json.as_deref() == Some(Path::new("-"))
    }

    /// Writes and prints the results of a run.
    pub fn publish(&self, run: &Run, ledger: &Ledger) -> anyhow::Result<()> {
        let json = run.to_json()?;
        let mut written = Vec::new();
        if !self.no_runs {
            let directory = fresh(&self.runs, &run.about.name)?;
            write(&directory.join("run.json"), &json)?;
            write(&directory.join("report.html"), &page::of(&[run])?)?;
            raw::told(&directory.join("told.csv"), ledger)?;
            raw::called(&directory.join("called.csv"), ledger)?;
            written.push(directory.display().to_string());
        }
        if let Some(path) = &self.html {
            write(path, &page::of(&[run])?)?;
            written.push(path.display().to_string());
        }
        if let Some(path) = self.json.as_ref().filter(|_| !self.quiet()) {
            write(path, &json)?;
            written.push(path.display().to_string());
        }
        if self.quiet() {
            println!("{json}");
        } else {
            print!("{}", summary::of(run));
            if !written.is_empty() {
                println!("  results     {}", written.join(", "));
            }
        }
        Ok(())
    }
}

/// A run that was kept, to be seen again.
#[derive(Debug, Args)]
pub struct Show {
    /// Its run.json.
    run: PathBuf,
    /// Write the HTML page here.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Shows it. The exit code is that of its verdict.
pub fn show_again(settings: &Show) -> anyhow::Result<ExitCode> {
    let run = Run::read(&settings.run)?;
    print!("{}", summary::of(&run));
    if let Some(path) = &settings.html {
        write(path, &page::of(&[&run])?)?;
    }
    Ok(run.verdict.exit_code())
}

/// A directory for the run `name`; with a number if there is one of that name.
fn fresh(runs: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let name: String = name.trim_start_matches('.').chars().map(safe).collect();
    std::fs::create_dir_all(runs).with_context(|| format!("cannot make {}", runs.display()))?;
    for n in 1..10_000 {
        let path = runs.join(if n == 1 { name.clone() } else { format!("{name}-{n}") });
        match std::fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("cannot make {}", path.display())),
        }
    }
    anyhow::bail!("{} has 10,000 runs of the name {name}\nhint: --runs another directory", runs.display())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests;
