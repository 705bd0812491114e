//! Completions for shells and manual pages, made from the commands themselves.

use crate::fault::Fault;
use clap::Command;
use clap_complete::Shell;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// A directory for a page per command; without it the first page is printed.
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
}

pub fn completions(args: &CompletionsArgs, mut command: Command) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "rushline", &mut script);
    super::terminal::print(&String::from_utf8_lossy(&script))
}

pub fn man(args: &ManArgs, command: Command) -> anyhow::Result<()> {
    let Some(directory) = &args.out else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        return super::terminal::print(&String::from_utf8_lossy(&page));
    };
    let write = || -> io::Result<()> {
        std::fs::create_dir_all(directory)?;
        pages(&command, "rushline", directory)
    };
    write().map_err(|error| Fault::failed(format!("cannot write to {}", directory.display())).because(error).into())
}

/// `rushline.1`, `rushline-sale.1`, `rushline-sale-create.1` …
fn pages(command: &Command, name: &str, directory: &Path) -> io::Result<()> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone().name(name.to_owned())).render(&mut page)?;
    std::fs::write(directory.join(format!("{name}.1")), page)?;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        pages(sub, &format!("{name}-{}", sub.get_name()), directory)?;
    }
    Ok(())
}
