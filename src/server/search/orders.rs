//! `GET /v1/sales/{sale}/orders`: live and finished orders of a sale, newest first.

use super::{limit, pairs, text, time_ms, unknown, wrong};
use crate::domain::ids::{Buyer, Gid, SaleName};
use crate::domain::order::Status;
use crate::reconciler::search::{Place, Wanted};
use crate::sale::Part;
use crate::server::App;
use crate::server::orders::{view_in_redis, view_of_record};
use crate::server::problem::Problem;
use crate::server::wire::OrderView;
use crate::store::orders::{Address, Entry, status_of};
use axum::Json;
use axum::extract::{Path, RawQuery, State};
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Orders in Redis that one page looks at in one partition; behind that it says where to go on.
const LOOK_AT_MAX: usize = 20_000;
/// Batches read by one command.
const ENTRIES_AT_ONCE: usize = 200;

const KNOWN: &str = "buyer, status, from, to, q, attention, after, limit";

#[derive(Serialize)]
pub struct OrdersPage {
    /// Newest first.
    pub orders: Vec<OrderView>,
    /// To be asked for with `after=`; null when there are no more.
    pub next: Option<String>,
}

pub async fn list(
    State(app): State<Arc<App>>,
    Path(sale): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<OrdersPage>, Problem> {
    let name = SaleName::parse(&sale).map_err(|_| Problem::unknown_sale(&sale))?;
    let (wanted, limit) = read(query.as_deref())?;
    Ok(Json(page(&app, &name, &wanted, limit).await?))
}

fn read(query: Option<&str>) -> Result<(Wanted, usize), Problem> {
    let (mut wanted, mut page) = (Wanted::default(), super::PAGE_DEFAULT);
    for (key, value) in pairs(query) {
        match key.as_str() {
            "buyer" => {
                wanted.buyer = Some(Buyer::parse(value).map_err(|invalid| wrong("buyer", invalid.rule))?.to_string())
            }
            "status" => {
                let words = "submitted, reserved, succeed, failed, cancelled, expired";
                let status = Status::parse(&value);
                wanted.status = Some(status.ok_or_else(|| wrong("status", format_args!("must be one of {words}")))?);
            }
            "from" => wanted.from_ms = Some(time_ms("from", &value)?),
            "to" => wanted.to_ms = Some(time_ms("to", &value)?),
            "q" => wanted.text = text(value)?,
            "attention" => {
                wanted.attention = value.parse().map_err(|_| wrong("attention", "must be true or false"))?;
            }
            "after" => {
                let place = value.parse::<Place>().map_err(|()| wrong("after", "must be `next` of the page before"))?;
                wanted.before = Some(place);
            }
            "limit" => page = limit(&value)?,
            other => return Err(unknown(other, KNOWN)),
        }
    }
    Ok((wanted, page))
}

/// One page. `next` may be there with a page that is not full: there is more to look through.
pub async fn page(app: &App, sale: &SaleName, wanted: &Wanted, limit: usize) -> Result<OrdersPage, Problem> {
    let open = app.node.open(sale).await?;
    let mut found: BTreeMap<Reverse<Place>, OrderView> = BTreeMap::new();
    // Where the look was cut short: what is older is for the next page.
    let mut cut: Option<Place> = None;
    let mut partitions = 1;
    if let Some(open) = &open {
        let parts = open.parts();
        partitions = u16::try_from(parts.len()).unwrap_or(u16::MAX);
        for part in &parts {
            let seen = in_redis(app, part, wanted, limit + 1, &mut found).await?;
            cut = cut.max(seen);
        }
    }
    let only_in_redis = wanted.attention || matches!(wanted.status, Some(Status::Submitted | Status::Reserved));
    if !only_in_redis {
        let away = |error: crate::reconciler::sink::Error| Problem::records_away(&error);
        let sink = app.records.sink().await.map_err(away)?;
        let most = u32::try_from(limit + 1).unwrap_or(u32::MAX);
        for record in sink.search(sale, partitions, wanted, most).await.map_err(away)? {
            found.entry(Reverse(Place::of(&record.gid))).or_insert_with(|| view_of_record(record));
        }
    } else if open.is_none() {
        return Err(Problem::unknown_sale(sale.as_str()));
    }
    if let Some(cut) = &cut {
        found.retain(|place, _| place.0 >= *cut);
    }
    let more = found.len() > limit;
    let mut next = cut.map(|place| place.to_string());
    let mut orders = Vec::with_capacity(found.len().min(limit));
    for (place, view) in found.into_iter().take(limit) {
        if more {
            next = Some(place.0.to_string());
        }
        orders.push(view);
    }
    Ok(OrdersPage { orders, next })
}

/// Adds up to `most` orders of a partition. Answers where it stopped looking before the end; all that is newer was seen.
async fn in_redis(
    app: &App,
    part: &Part,
    wanted: &Wanted,
    most: usize,
    found: &mut BTreeMap<Reverse<Place>, OrderView>,
) -> Result<Option<Place>, Problem> {
    let (mut looked_at, mut hits, mut below) = (0, 0, None);
    loop {
        let (entries, read, last) = app
            .node
            .redis
            .entries_before(&part.keys, wanted.latest_ms(), below, wanted.from_ms.unwrap_or(0), ENTRIES_AT_ONCE)
            .await?;
        let Some(last) = last else { return Ok(None) };
        below = Some(last);
        for entry in entries {
            looked_at += entry.frames.len();
            let chosen = chosen(app, part, &entry, wanted).await?;
            hits += chosen.len();
            for (gid, view) in view_in_redis(app, part, &entry, &chosen).await? {
                found.insert(Reverse(Place::of(&gid)), view);
            }
        }
        if read < ENTRIES_AT_ONCE {
            return Ok(None);
        }
        let goes_on = wanted.before.as_ref().is_none_or(|before| last.ms + 1 < before.ms);
        if goes_on && (looked_at >= LOOK_AT_MAX || hits >= most) {
            // Batches of one millisecond are ordered otherwise here than in a place: the next look begins with all of them.
            return Ok(Some(Place { ms: last.ms + 1, gid: String::new() }));
        }
    }
}

async fn chosen(app: &App, part: &Part, entry: &Entry, wanted: &Wanted) -> Result<Vec<Gid>, Problem> {
    let addresses: Vec<Address> =
        (0..).take(entry.frames.len()).map(|index| Address { entry: entry.id, index }).collect();
    // What went wrong is a text to be found too, but few orders have any.
    let details = match wanted.text.is_empty() && !wanted.attention {
        true => Vec::new(),
        false => app.node.redis.details(&part.keys, &addresses).await?,
    };
    let said = |at: usize| details.get(at)?.0.as_ref()?.message.as_deref();
    let orders = addresses.iter().zip(&entry.frames).zip(entry.outcome.bytes()).enumerate();
    let chosen = orders.filter_map(|(at, ((address, frame), code))| {
        let gid = part.gid(*address);
        let texts = [frame.payload.as_deref().unwrap_or_default(), said(at).unwrap_or_default()];
        let attempts = details.get(at).and_then(|(detail, _)| Some(detail.as_ref()?.attempts)).unwrap_or_default();
        let waits = status_of(code) == Status::Submitted && attempts >= part.limits.attention_after;
        (!wanted.attention || waits).then_some(())?;
        wanted.matches(&gid, frame.buyer.as_str(), status_of(code), texts).then_some(gid)
    });
    Ok(chosen.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_is_refused_with_its_name() {
        let (wanted, limit) = read(Some("buyer=u1&status=failed&from=5&q=x&after=17~&limit=7&to=")).unwrap();
        assert_eq!((wanted.buyer.as_deref(), wanted.status, limit), (Some("u1"), Some(Status::Failed), 7));
        assert_eq!((wanted.from_ms, wanted.to_ms, wanted.text.as_str()), (Some(5), None, "x"));
        for (query, field) in [("status=no", "status"), ("after=x", "after"), ("by=x", "by"), ("limit=0", "limit")] {
            assert_eq!(read(Some(query)).unwrap_err().field.as_deref(), Some(field));
        }
    }
}
