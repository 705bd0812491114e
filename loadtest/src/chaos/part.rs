//! One process of the world: killed, put to sleep, and started again as it was.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use tokio::process::Command;

use crate::processes::Process;

/// Dropping it kills the process.
pub struct Part {
    pub name: String,
    program: PathBuf,
    pub args: Vec<String>,
    envs: Vec<(String, String)>,
    /// Each start has a log of its own.
    logs: PathBuf,
    starts: u32,
    process: Option<Process>,
}

impl Part {
    pub fn new(name: &str, program: &Path, args: Vec<String>, envs: Vec<(String, String)>, logs: &Path) -> Self {
        Self { name: name.into(), program: program.into(), args, envs, logs: logs.into(), starts: 0, process: None }
    }

    pub fn runs(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| !process.has_ended())
    }

    /// Starts it unless it runs.
    pub fn start(&mut self) -> anyhow::Result<()> {
        if self.runs() {
            return Ok(());
        }
        self.starts += 1;
        let log = self.logs.join(format!("{}.{}.log", self.name, self.starts));
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        self.process = Some(Process::start(&self.name, &self.program, &args, &self.envs, &log)?);
        Ok(())
    }

    /// As `kill -9`. False if it did not run.
    pub async fn kill(&mut self) -> anyhow::Result<bool> {
        let ran = self.runs();
        match self.process.take() {
            Some(process) if ran => process.kill().await.map(|()| true),
            _ => Ok(false),
        }
    }

    /// `STOP` and `CONT`; nothing happens to a process that is not there.
    pub async fn signal(&mut self, signal: &str) -> anyhow::Result<()> {
        let Some(pid) = self.process.as_ref().and_then(Process::pid) else { return Ok(()) };
        if !self.runs() {
            return Ok(());
        }
        let status = Command::new("kill").args(["-s", signal, &pid.to_string()]).status().await;
        ensure!(status.context("cannot run `kill`")?.success(), "kill -s {signal} {pid} ({}) failed", self.name);
        Ok(())
    }

    /// Wakes it, tells it to stop, and waits; an error if it ends badly. What does not run has ended already.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        if !self.runs() {
            return Ok(());
        }
        self.signal("CONT").await?;
        match self.process.take() {
            Some(process) => process.stop().await,
            None => Ok(()),
        }
    }

    /// The end of its newest log.
    pub fn log_tail(&self, lines: usize) -> String {
        let path = self.logs.join(format!("{}.{}.log", self.name, self.starts));
        let text = std::fs::read(path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let tail: Vec<&str> = text.lines().rev().take(lines).collect();
        tail.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}
