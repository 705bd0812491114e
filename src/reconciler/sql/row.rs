//! A record on its way into a row and back.

use crate::domain::ids::{Buyer, Gid, SaleName, Sku};
use crate::domain::order::{Item, Record, Status};
use crate::reconciler::sink::Error;

/// The last millisecond of the year 9999. What lies behind does not fit MySQL's DATETIME, and must not make a write
/// fail for ever: it is kept as this.
pub(super) const CLOCK_MS_MAX: u64 = 253_402_300_799_999;
/// Binds a row in the order of columns that SQLite and MySQL have: each database has a type of query of its own.
macro_rules! bind_order {
    ($query:expr, $row:expr) => {
        $query
            .bind(&$row.gid)
            .bind($row.sale())
            .bind($row.record.buyer.as_str())
            .bind(&$row.items)
            .bind(&$row.record.payload)
            .bind($row.record.status.as_str())
            .bind($row.record.reason.as_deref())
            .bind($row.attempts())
            .bind($row.admitted_ms())
            .bind($row.finished_ms())
    };
}
pub(super) use bind_order;

/// What a row takes beside its texts, for the sums that keep a statement below the servers' limits.
const ROW_BYTES: usize = 256;

/// A record with the columns that take some making. The others are borrowed.
pub(super) struct Row<'a> {
    pub gid: String,
    pub items: String,
    pub record: &'a Record,
}

impl<'a> Row<'a> {
    /// The rows of `records` in the order of the primary key: two writers that overlap then take their locks in the
    /// same order, and the index grows at its end.
    pub fn sorted(records: &'a [Record]) -> Vec<Self> {
        let mut rows: Vec<Self> = records.iter().map(Self::new).collect();
        rows.sort_unstable_by(|a, b| a.gid.cmp(&b.gid));
        rows
    }

    fn new(record: &'a Record) -> Self {
        let items = serde_json::to_string(&record.items).expect("items are strings and numbers");
        Self { gid: record.gid.text(), items, record }
    }

    pub fn sale(&self) -> &str {
        self.record.gid.sale.as_str()
    }

    pub fn admitted_ms(&self) -> i64 {
        clock(self.record.admitted_ms)
    }

    pub fn finished_ms(&self) -> i64 {
        clock(self.record.finished_ms)
    }

    pub fn attempts(&self) -> i64 {
        i64::from(self.record.attempts)
    }

    pub fn bytes(&self) -> usize {
        let reason = self.record.reason.as_ref().map_or(0, String::len);
        ROW_BYTES + self.items.len() + self.record.payload.len() + reason
    }
}

pub(super) fn clock(ms: u64) -> i64 {
    i64::try_from(ms.min(CLOCK_MS_MAX)).expect("the year 9999 fits")
}

/// Cuts rows into parts of at most `bytes_max`; a row that is larger by itself makes a part of its own.
pub(super) fn parts<R>(rows: &[R], bytes_max: usize, bytes_of: impl Fn(&R) -> usize) -> impl Iterator<Item = &[R]> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fitting = rest.iter().take_while(|row| {
            bytes += bytes_of(row);
            bytes <= bytes_max
        });
        let (part, behind) = rest.split_at(fitting.count().max(1).min(rest.len()));
        rest = behind;
        (!part.is_empty()).then_some(part)
    })
}

/// Cuts rows into statements of a few sizes only, largest first, so that each size is prepared once per connection.
pub(super) fn statements<'r, R>(rows: &'r [R], sizes: &'static [usize]) -> impl Iterator<Item = &'r [R]> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        let size = sizes.iter().copied().find(|size| *size <= rest.len())?;
        let (statement, behind) = rest.split_at(size);
        rest = behind;
        Some(statement)
    })
}

/// A row as all three databases give it back:
/// gid, buyer, items, payload, status, reason, attempts, admitted_ms, finished_ms.
pub(super) type Stored = (String, String, String, String, String, Option<String>, i64, i64, i64);

/// An item as it is spelled in the column `items`; parsed again on reading, like all else.
#[derive(serde::Deserialize)]
struct StoredItem {
    sku: String,
    quantity: u32,
}

pub(super) fn record(stored: Stored) -> Result<Record, Error> {
    let (gid, buyer, items, payload, status, reason, attempts, admitted_ms, finished_ms) = stored;
    let malformed = |problem: String| Error::Malformed { gid: gid.clone(), problem };
    let items = self::items(&items).map_err(malformed)?;
    let count = |column: &str, n: i64| u64::try_from(n).map_err(|_| malformed(format!("{column} is {n}")));
    Ok(Record {
        gid: gid.parse::<Gid>().map_err(|e| malformed(e.to_string()))?,
        buyer: Buyer::parse(buyer).map_err(|e| malformed(e.to_string()))?,
        items,
        payload,
        status: Status::parse(&status).ok_or_else(|| malformed(format!("status is {status}")))?,
        reason,
        attempts: u32::try_from(attempts).map_err(|_| malformed(format!("attempts is {attempts}")))?,
        admitted_ms: count("admitted_ms", admitted_ms)?,
        finished_ms: count("finished_ms", finished_ms)?,
        returned: Vec::new(),
    })
}

/// Items as the column `items` has them, or what is wrong with them.
pub(super) fn items(json: &str) -> Result<Vec<Item>, String> {
    let items = serde_json::from_str::<Vec<StoredItem>>(json).map_err(|e| format!("items: {e}"))?;
    let items: Result<_, crate::domain::ids::Invalid> =
        items.into_iter().map(|item| Ok(Item { sku: Sku::parse(item.sku)?, quantity: item.quantity })).collect();
    items.map_err(|e| e.to_string())
}

/// The gids of a sale lie between these two, in byte order: `/` follows `.`, and neither is a gid itself.
pub(in crate::reconciler) fn range(sale: &SaleName) -> (String, String) {
    (format!("{sale}."), format!("{sale}/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record_of(index: u16, payload_bytes: usize) -> Record {
        Record {
            gid: format!("s.0.1763800000000-0.{index}").parse().unwrap(),
            buyer: Buyer::parse("b").unwrap(),
            items: vec![Item { sku: Sku::parse("k").unwrap(), quantity: 1 }],
            payload: "x".repeat(payload_bytes),
            status: Status::Succeed,
            reason: None,
            attempts: 1,
            admitted_ms: 1,
            finished_ms: 2,
            returned: Vec::new(),
        }
    }

    #[test]
    fn parts_keep_every_row_and_the_limit() {
        let records: Vec<_> = [10, 5000, 10, 20_000, 10].iter().zip(0..).map(|(n, i)| record_of(i, *n)).collect();
        let rows = Row::sorted(&records);
        let sizes: Vec<_> = parts(&rows, 8000, Row::bytes).map(<[Row]>::len).collect();
        assert_eq!(sizes, [3, 1, 1]);
        assert_eq!(parts(&[], 8000, Row::bytes).count(), 0);
    }

    #[test]
    fn statements_come_in_few_sizes() {
        let records: Vec<_> = (0..123).map(|i| record_of(i, 0)).collect();
        let rows = Row::sorted(&records);
        let sizes: Vec<_> = statements(&rows, &[100, 10, 1]).map(<[Row]>::len).collect();
        assert_eq!(sizes, [100, 10, 10, 1, 1, 1]);
    }

    #[test]
    fn a_foreign_row_is_named_and_not_believed() {
        let stored = |items: &str, status: &str| -> Stored {
            ("s.0.1-0.0".into(), "b".into(), items.into(), "null".into(), status.into(), None, 1, 1, 1)
        };
        assert!(record(stored("[]", "succeed")).is_ok());
        for bad in [stored("[", "succeed"), stored("[]", "done"), stored(r#"[{"sku":"a b","quantity":1}]"#, "failed")] {
            assert!(matches!(record(bad), Err(Error::Malformed { gid, .. }) if gid == "s.0.1-0.0"));
        }
    }
}
