//! Searching finished orders in the records, newest first, without an index of their own.
//!
//! A sale's gids are one range of the primary key, and within a partition they stand in the order of their admission. So a
//! time is a part of that range too, and whatever else is asked for is compared row by row in there.

use super::sink::{Error, Sink};
use crate::domain::ids::{Gid, SaleName};
use crate::domain::order::{Record, Status};
use std::cmp::Reverse;

/// Which orders are wanted; what is `None` or empty is not asked about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    pub buyer: Option<String>,
    pub status: Option<Status>,
    /// Time of admission, ms since 1970, both ends included.
    pub from_ms: Option<u64>,
    pub to_ms: Option<u64>,
    /// Somewhere in gid, buyer, payload or reason; upper and lower case are one, of ASCII letters.
    pub text: String,
    /// Only what was called so often without a verdict that somebody should look: none of it is in the records.
    pub attention: bool,
    /// Only what stands behind this place.
    pub before: Option<Place>,
}

/// A place in a sale, newest first: time of admission, then gid. An empty gid is before all gids of that time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub ms: u64,
    pub gid: String,
}

impl Place {
    pub fn of(gid: &Gid) -> Self {
        Self { ms: gid.entry.ms, gid: gid.to_string() }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}~{}", self.ms, self.gid)
    }
}

impl std::str::FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (ms, gid) = text.split_once('~').ok_or(())?;
        let gid_is_one = gid.is_empty() || gid.parse::<Gid>().is_ok();
        if gid_is_one { Ok(Self { ms: ms.parse().map_err(|_| ())?, gid: gid.to_owned() }) } else { Err(()) }
    }
}

impl Wanted {
    pub fn matches(&self, gid: &Gid, buyer: &str, status: Status, texts: [&str; 2]) -> bool {
        let at = gid.entry.ms;
        self.buyer.as_deref().is_none_or(|wanted| wanted == buyer)
            && self.status.is_none_or(|wanted| wanted == status)
            && self.from_ms.is_none_or(|from| at >= from)
            && self.to_ms.is_none_or(|to| at <= to)
            && self.before.as_ref().is_none_or(|before| Place::of(gid) < *before)
            && (self.text.is_empty() || self.has_text(&[&gid.to_string(), buyer, texts[0], texts[1]]))
    }

    fn has_text(&self, texts: &[&str]) -> bool {
        let wanted = self.text.to_ascii_lowercase();
        texts.iter().any(|text| text.to_ascii_lowercase().contains(&wanted))
    }

    /// The latest time of admission that can match.
    pub fn latest_ms(&self) -> Option<u64> {
        let before = self.before.as_ref().map(|place| place.ms);
        [self.to_ms, before].into_iter().flatten().min()
    }

    /// The gids of a partition that can match lie between these two, in byte order.
    pub(super) fn range(&self, sale: &SaleName, partition: u16) -> (String, String) {
        let start = format!("{sale}.{partition}.");
        let low = self.from_ms.map_or_else(|| start.clone(), |from| format!("{start}{from}"));
        // What follows the digits of a time is `-`, which is less than any digit.
        let behind = |ms: u64| format!("{start}{}", ms.saturating_add(1));
        let mut high = self.to_ms.map_or_else(|| format!("{sale}.{partition}/"), behind);
        if let Some(before) = &self.before {
            let bound = match &before.gid {
                gid if gid.starts_with(&start) => gid.clone(),
                gid if *gid > start => behind(before.ms),
                _ => format!("{start}{}", before.ms),
            };
            high = high.min(bound);
        }
        (low, high)
    }
}

/// One range of the primary key, and what its rows must have; empty texts are not asked about.
pub(super) struct Range<'a> {
    pub low: &'a str,
    pub high: &'a str,
    pub buyer: &'a str,
    pub status: &'a str,
    /// In lower case.
    pub text: &'a str,
    pub limit: u32,
}

impl Sink {
    /// Up to `limit` orders of a sale's partitions, newest first.
    pub async fn search(
        &self,
        sale: &SaleName,
        partitions: u16,
        wanted: &Wanted,
        limit: u32,
    ) -> Result<Vec<Record>, Error> {
        let text = wanted.text.to_ascii_lowercase();
        let mut found = Vec::new();
        for partition in 0..partitions {
            let (low, high) = wanted.range(sale, partition);
            if low >= high {
                continue;
            }
            let range = Range {
                low: &low,
                high: &high,
                buyer: wanted.buyer.as_deref().unwrap_or_default(),
                status: wanted.status.map_or("", Status::as_str),
                text: &text,
                limit,
            };
            found.extend(match self {
                Self::Sql(sql) => sql.search(range).await?,
                Self::Mongo(mongo) => mongo.search(range).await?,
                Self::Given(_) => return Err(super::sink::only_takes()),
            });
        }
        found.sort_by_cached_key(|record: &Record| Reverse(Place::of(&record.gid)));
        found.truncate(limit as usize);
        self.add_returns_of(&mut found).await?;
        Ok(found)
    }

    /// What came back of records that stand in any order.
    async fn add_returns_of(&self, records: &mut [Record]) -> Result<(), Error> {
        records.sort_by_cached_key(|record| record.gid.to_string());
        self.add_returns(records).await?;
        records.sort_by_cached_key(|record| Reverse(Place::of(&record.gid)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gid(text: &str) -> Gid {
        text.parse().unwrap()
    }

    #[test]
    fn a_range_holds_what_matches_and_hardly_more() {
        let sale = SaleName::parse("s").unwrap();
        let all = [
            "s.0.1763800000000-0.0",
            "s.0.1763800000000-0.1",
            "s.0.1763800000005-12.3",
            "s.0.1763800000009-0.0",
            "s.1.1763800000000-0.0",
            "s.1.1763800000005-0.9",
            "s.10.1763800000005-0.0",
            "s.2.1763800000005-3.0",
        ];
        let before = |text: &str| Some(text.parse::<Place>().unwrap());
        let wanted = [
            Wanted::default(),
            Wanted { from_ms: Some(1763800000005), ..Wanted::default() },
            Wanted { to_ms: Some(1763800000005), ..Wanted::default() },
            Wanted { from_ms: Some(1763800000001), to_ms: Some(1763800000008), ..Wanted::default() },
            Wanted { before: before("1763800000005~"), ..Wanted::default() },
            Wanted { before: before("1763800000005~s.1.1763800000005-0.9"), ..Wanted::default() },
            Wanted { before: before("1763800000005~s.10.1763800000005-0.0"), ..Wanted::default() },
            Wanted { before: before("1763800000000~s.0.1763800000000-0.1"), ..Wanted::default() },
        ];
        for wanted in wanted {
            for text in all {
                let order = gid(text);
                let (low, high) = wanted.range(&sale, order.partition);
                let inside = *text > *low && *text < *high;
                let matches = wanted.matches(&order, "b", Status::Succeed, ["", ""]);
                assert_eq!(inside, matches, "{text} in {low}..{high} by {wanted:?}");
            }
        }
    }

    #[test]
    fn a_place_is_read_as_it_was_written() {
        for text in ["17~", "1763800000005~s.1.1763800000005-0.9"] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
        for text in ["", "~", "x~", "17~'; DROP", "17"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }

    #[test]
    fn text_is_found_in_either_case_in_any_of_the_texts() {
        let order = gid("s.0.1763800000000-0.0");
        let wanted = |text: &str| Wanted { text: text.into(), ..Wanted::default() };
        for text in ["", "S.0", "anna", "COUPON", "declined"] {
            assert!(
                wanted(text).matches(&order, "Anna", Status::Failed, ["{\"coupon\":1}", "card Declined"]),
                "{text}"
            );
        }
        assert!(!wanted("bob").matches(&order, "Anna", Status::Failed, ["", ""]));
    }
}
