//! Taking over what another dtm server began: `POST /v1/transactions/import[?dry_run=true]`.
//!
//! Each gid is taken once, whoever asks how often: what is here already, or was and is over, is known and stays as it is.
//! What cannot be driven here is refused with its reason, and nothing of it is kept.

use super::operations::Refused;
use super::{lookup, refused_as_problem};
use crate::branch;
use crate::domain::trans::{BranchStatus, Global, Remembered, adopted};
use crate::driver::Driver;
use crate::server::App;
use crate::server::deed::Deed;
use crate::server::json;
use crate::server::problem::Problem;
use crate::store::trans::{Created, Due};
use crate::store::trans_drain::Found;
use axum::Json;
use axum::extract::{RawQuery, State};
use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::sync::Arc;

/// Most transactions of one request.
pub const TRANSACTIONS_MAX: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Import {
    transactions: Vec<Theirs>,
}

/// As dtm's store has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Theirs {
    gid: String,
    record: Box<RawValue>,
    #[serde(default)]
    branches: Vec<Box<RawValue>>,
}

#[derive(Debug, Serialize)]
pub struct Imported {
    /// In the order of the request.
    results: Vec<Taken>,
}

#[derive(Debug, Serialize)]
struct Taken {
    gid: String,
    /// `imported`, `importable` (of a dry run), `known` or `refused`.
    outcome: &'static str,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "str::is_empty")]
    trans_type: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    status: &'static str,
    /// Branch rows, and how many of them are settled and are not called again.
    branches: usize,
    settled: usize,
}

pub async fn import(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    deed: Deed,
    body: Bytes,
) -> Result<Json<Imported>, Problem> {
    let invalid = |field: &str, rule: String| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_import", format!("{field}: {rule}")).field(field)
    };
    let mut dry_run = false;
    for (name, value) in url::form_urlencoded::parse(query.as_deref().unwrap_or_default().as_bytes()) {
        match name.as_ref() {
            "dry_run" => {
                dry_run = value.parse().map_err(|_| invalid("dry_run", "must be true or false".into()))?;
            }
            other => return Err(invalid(other, "is not a parameter here: dry_run".into())),
        }
    }
    let import: Import = json::parse(&body, "invalid_import")?;
    let count = import.transactions.len();
    deed.target(&format!("{count} transactions{}", if dry_run { ", only looked at" } else { "" }));
    if count > TRANSACTIONS_MAX {
        return Err(invalid("transactions", format!("may be {TRANSACTIONS_MAX} at most, got {count}")));
    }
    let mut results = Vec::with_capacity(count);
    for theirs in import.transactions {
        results.push(take(&app.driver, theirs, dry_run).await.map_err(refused_as_problem)?);
    }
    Ok(Json(Imported { results }))
}

/// An error only when nothing can be said: Redis or the records do not answer.
async fn take(driver: &Driver, theirs: Theirs, dry_run: bool) -> Result<Taken, Refused> {
    let rows: Vec<&str> = theirs.branches.iter().map(|row| row.get()).collect();
    let refused = |reason: String| Taken {
        gid: theirs.gid.clone(),
        outcome: "refused",
        reason: Some(reason),
        trans_type: "",
        status: "",
        branches: rows.len(),
        settled: 0,
    };
    let global = match adopted::read(theirs.record.get(), &rows, driver.now_ms(), driver.limits()) {
        Ok(global) if global.gid.as_str() == theirs.gid => global,
        Ok(global) => return Ok(refused(format!("its record is that of {}", global.gid))),
        Err(invalid) => return Ok(refused(invalid.to_string())),
    };
    let urls = global.branches.iter().map(|branch| &branch.url).chain([&global.query_prepared]);
    for url in urls {
        if let Err(uncallable) = branch::check(global.protocol, url) {
            return Ok(refused(uncallable.to_string()));
        }
    }
    let taken = |outcome| Taken {
        gid: theirs.gid.clone(),
        outcome,
        reason: None,
        trans_type: global.trans_type.as_str(),
        status: global.status.as_str(),
        branches: global.branches.len(),
        settled: global.branches.iter().filter(|branch| branch.status != BranchStatus::Prepared).count(),
    };
    let mut known = known(driver, &global).await?;
    if known.is_none() && dry_run {
        return Ok(taken("importable"));
    }
    if known.is_none() {
        driver.redis.has_room_for(&global.gid)?;
        let due_ms = global.due_ms(driver.limits()).unwrap_or_else(|| driver.now_ms());
        match driver.writer.create(&global, Due::At(due_ms)).await? {
            Created::New => {
                driver.due_at(due_ms);
                return Ok(taken("imported"));
            }
            Created::Exists => known = self::known(driver, &global).await?, // by another, a moment ago
        }
    }
    Ok(match known {
        Some(true) => taken("known"),
        _ => refused("there is another transaction of this gid here; it stays as it is".into()),
    })
}

/// Is it here, or was it? `Some(false)`: another has its gid.
async fn known(driver: &Driver, theirs: &Global) -> Result<Option<bool>, Refused> {
    // dtm forgets of some when they were created; they count as created now.
    let dated = theirs.create_ms != theirs.update_ms;
    let same = |ours: &Global| {
        let digest = Remembered::steps_digest_of;
        ours.trans_type == theirs.trans_type
            && digest(ours) == digest(theirs)
            && (!dated || ours.create_ms == theirs.create_ms)
    };
    let ours = match driver.redis.find_trans(&theirs.gid).await? {
        Found::There(loaded) => Some(loaded.global),
        Found::Left(past) => {
            let same = past.trans_type == theirs.trans_type && past.steps_digest == Remembered::steps_digest_of(theirs);
            return Ok(Some(same));
        }
        Found::Nothing => Box::pin(lookup::transaction(driver, &theirs.gid)).await?,
    };
    Ok(ours.as_ref().map(same))
}
