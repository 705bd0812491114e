//! The shop's own list of orders, held against the records: which order is missing, which should not be there.

use crate::domain::ids::Gid;
use crate::fault::Fault;
use anyhow::Context;
use std::io::{BufRead, Read};
use std::path::Path;

/// Longest line: one order as JSON with its payload.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// Most orders in a file; each takes about 60 bytes here.
const ORDERS_MAX: usize = 20_000_000;
/// How many differing gids are named; the rest is counted.
const NAMED_MAX: usize = 20;

/// The gids of a file, in byte order.
#[derive(Debug)]
pub struct OrdersFile {
    gids: Vec<String>,
    /// Gids that stand in the file more than once: orders made twice, or a list that was put together twice.
    pub twice: Differing,
}

/// Gids that differ: all are counted, the first are named.
#[derive(Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Differing {
    pub count: u64,
    pub first: Vec<String>,
}

impl Differing {
    fn add(&mut self, gid: &str) {
        self.count += 1;
        if self.first.len() < NAMED_MAX {
            self.first.push(gid.to_owned());
        }
    }
}

impl OrdersFile {
    /// Reads one gid a line, CSV whose first column is the gid, or NDJSON with a field `gid`. `-` is standard input.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display().to_string();
        if path.as_os_str() == "-" {
            return Self::parse(&shown, std::io::stdin().lock());
        }
        let file = std::fs::File::open(path).with_context(|| format!("cannot read {shown}"))?;
        Self::parse(&shown, std::io::BufReader::new(file))
    }

    pub fn parse(shown: &str, mut reader: impl BufRead) -> anyhow::Result<Self> {
        let mut gids = Vec::new();
        let mut line = Vec::new();
        for number in 1u64.. {
            line.clear();
            reader
                .by_ref()
                .take(LINE_BYTES_MAX)
                .read_until(b'\n', &mut line)
                .with_context(|| format!("cannot read {shown}"))?;
            if line.is_empty() {
                break;
            }
            let bad = |what: &str| {
                Fault::failed(format!("{shown}:{number}: {what}"))
                    .hint("one gid a line, CSV with the gid first, or NDJSON with a field \"gid\"")
            };
            let text = std::str::from_utf8(&line)
                .map_err(|_| bad("is not UTF-8, or is longer than 1 MiB"))?
                .trim()
                .trim_start_matches('\u{feff}');
            if text.is_empty() {
                continue;
            }
            match gid_of(text) {
                Some(gid) => gids.push(gid),
                // A CSV's header names its columns; a gid always has dots.
                None if number == 1 && !text.starts_with('{') && !first_column(text).contains('.') => {}
                None => return Err(bad("has no gid").into()),
            }
            if gids.len() > ORDERS_MAX {
                return Err(bad("more orders than can be compared at once; split the file by sale").into());
            }
        }
        gids.sort_unstable();
        let mut twice = Differing::default();
        gids.dedup_by(|later, earlier| {
            let same = later == earlier;
            if same {
                twice.add(later);
            }
            same
        });
        Ok(Self { gids, twice })
    }

    /// The orders of one sale: those whose gid starts with its name and a dot.
    pub fn of_sale(&self, sale: &str) -> &[String] {
        let prefix = format!("{sale}.");
        let from = self.gids.partition_point(|gid| gid.as_str() < prefix.as_str());
        let len = self.gids[from..].partition_point(|gid| gid.starts_with(&prefix));
        &self.gids[from..from + len]
    }

    /// Orders of sales that are none of `sales`.
    pub fn of_other_sales(&self, sales: &[String]) -> Differing {
        let mut others = Differing::default();
        for gid in &self.gids {
            let sale = gid.split('.').next().unwrap_or_default();
            if !sales.iter().any(|known| known == sale) {
                others.add(gid);
            }
        }
        others
    }
}

fn first_column(line: &str) -> &str {
    line.split([',', ';', '\t']).next().unwrap_or_default().trim().trim_matches('"')
}

fn gid_of(line: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Order<'a> {
        #[serde(borrow)]
        gid: std::borrow::Cow<'a, str>,
    }
    let text =
        if line.starts_with('{') { serde_json::from_str::<Order>(line).ok()?.gid } else { first_column(line).into() };
    text.parse::<Gid>().is_ok().then(|| text.into_owned())
}

/// The records walked beside the orders of one sale, both in the byte order of the gid.
pub struct Comparison<'a> {
    orders: std::iter::Peekable<std::slice::Iter<'a, String>>,
    last: String,
    found: Differences,
}

/// What a comparison found.
#[derive(Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Differences {
    /// In the records as made and in the file.
    pub matched: u64,
    /// In the records as made, and not in the file.
    pub missing: Differing,
    /// In the file, and not in the records as made.
    pub extra: Differing,
}

impl<'a> Comparison<'a> {
    pub fn new(orders: &'a [String]) -> Self {
        Self { orders: orders.iter().peekable(), last: String::new(), found: Differences::default() }
    }

    /// The next record; `made` when the order service made the order. Fails if it is not after the one before.
    pub fn record(&mut self, gid: &str, made: bool) -> anyhow::Result<()> {
        anyhow::ensure!(
            gid > self.last.as_str(),
            "the server lists its records out of order: {gid} after {}",
            self.last
        );
        gid.clone_into(&mut self.last);
        while let Some(order) = self.orders.next_if(|order| order.as_str() < gid) {
            self.found.extra.add(order);
        }
        let listed = self.orders.next_if(|order| order.as_str() == gid).is_some();
        match (made, listed) {
            (true, true) => self.found.matched += 1,
            (true, false) => self.found.missing.add(gid),
            // Refused, and its units went back; yet the shop lists it.
            (false, true) => self.found.extra.add(gid),
            (false, false) => {}
        }
        Ok(())
    }

    pub fn finish(mut self) -> Differences {
        for order in self.orders {
            self.found.extra.add(order);
        }
        self.found
    }
}
