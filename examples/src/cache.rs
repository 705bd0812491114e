//! Not there yet.

use crate::serving::Role;
use crate::verdict::Verdict;

pub const ABOUT: &str = "not there yet";

pub async fn run(_crash: bool) -> anyhow::Result<Verdict> {
    anyhow::bail!("not there yet")
}

pub async fn serve(_role: &Role) -> anyhow::Result<()> {
    anyhow::bail!("not there yet")
}
