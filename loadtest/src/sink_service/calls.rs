//! What the order service remembers for the oracle: every order of every call, in the order of coming.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::http::Api;
use crate::ledger::{Called, ServiceAnswer};

/// Calls in one page of the list.
pub const PAGE_MAX: usize = 5_000;
/// Calls kept; a sale of ten million orders has its own books. What comes after is only counted.
const KEPT_MAX: usize = 4_000_000;

/// The list. Times are microseconds since 1970 in here: who asks knows when the run began.
#[derive(Default)]
pub struct Calls {
    kept: Vec<Called>,
    left_out: u64,
    /// A line of JSON for each call, written before the call is answered: what was heard survives a kill.
    journal: Option<File>,
}

/// One page, as it goes over the wire.
#[derive(Debug, Serialize, Deserialize)]
pub struct Page {
    pub calls: Vec<Called>,
    /// Calls that the service could not keep.
    pub left_out: u64,
}

impl Calls {
    /// As it was left: a line that a kill cut short was answered to nobody, and goes.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let what = || format!("the order service's journal {}", path.display());
        let file = File::options().create(true).append(true).read(true).open(path).with_context(what)?;
        let text = std::fs::read(path).with_context(what)?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        file.set_len(whole as u64).with_context(what)?;
        let lines = text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let kept = lines.map(serde_json::from_slice).collect::<Result<_, _>>().with_context(what)?;
        Ok(Self { kept, left_out: 0, journal: Some(file) })
    }

    pub fn all(&self) -> &[Called] {
        &self.kept
    }

    pub fn note(&mut self, call: Called) {
        if let Some(journal) = &mut self.journal {
            let mut line = serde_json::to_vec(&call).expect("a call is plain data");
            line.push(b'\n');
            // Without its journal the books would be wrong after the next kill: better no service than a wrong one.
            journal.write_all(&line).expect("the journal of the order service can be written");
        }
        if self.kept.len() < KEPT_MAX { self.kept.push(call) } else { self.left_out += 1 }
    }

    pub fn page(&self, from: usize, limit: usize) -> Page {
        let calls = self.kept.iter().skip(from).take(limit.min(PAGE_MAX)).cloned().collect();
        Page { calls, left_out: self.left_out }
    }
}

pub fn now_unix_us() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Every call that the service at `api` got since it started, with times of a run that began at `began_unix_us`.
pub async fn fetch(api: Api, began_unix_us: u64) -> anyhow::Result<Vec<Called>> {
    let mut all: Vec<Called> = Vec::new();
    loop {
        let page = api.expect("GET", &format!("/calls?from={}&limit={PAGE_MAX}", all.len()), None).await?;
        let page: Page = serde_json::from_value(page)?;
        anyhow::ensure!(page.left_out == 0, "the order service had no room for {} of its calls", page.left_out);
        if page.calls.is_empty() {
            return Ok(all);
        }
        all.extend(page.calls.into_iter().map(|call| Called {
            at_us: call.at_us.saturating_sub(began_unix_us),
            answered_us: call.answered_us.saturating_sub(began_unix_us),
            ..call
        }));
    }
}

/// What the service does badly, on purpose. Which orders it hits follows from the gid, so a repeated call hears the same.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Habits {
    /// Of 1000 orders, how many are refused for good.
    #[arg(long, default_value_t = 0)]
    pub refuse_permille: u64,
    /// Of 1000 orders, how many are made while the first reply is lost.
    #[arg(long, default_value_t = 0)]
    pub lose_permille: u64,
    /// Milliseconds before each call is looked at.
    #[arg(long, default_value_t = 0)]
    pub delay_ms: u64,
    /// Keep every call for the oracle: `GET /calls`.
    #[arg(long)]
    pub record: bool,
    /// Keep every call in this file, and go on from it after a kill.
    #[arg(long, value_name = "FILE")]
    pub journal: Option<PathBuf>,
}

impl Habits {
    /// What happens to the order `gid`, of which there is nothing yet.
    pub fn answer(&self, gid: &str) -> ServiceAnswer {
        if self.refuse_permille + self.lose_permille == 0 {
            return ServiceAnswer::Made; // the bench's path
        }
        // FNV-1a: the same in every process.
        let hash = gid
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let lot = (hash >> 20) % 1000;
        if lot < self.refuse_permille {
            ServiceAnswer::Refused
        } else if lot < self.refuse_permille + self.lose_permille {
            ServiceAnswer::Lost
        } else {
            ServiceAnswer::Made
        }
    }
}
