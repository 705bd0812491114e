//! `/v1/transactions`: global transactions, newest first; one with all that is known of it; retry now, stop.

use super::{limit, pairs, text, time_ms, unknown, wrong};
use crate::domain::trans::{Branch, BranchStatus, Global, GlobalStatus, Op, TransGid, TransType};
use crate::server::App;
use crate::server::changes::{self, Done};
use crate::server::deed::Deed;
use crate::server::dtm::{lookup, operations, refused_as_problem};
use crate::server::problem::Problem;
use crate::server::wire::time;
use crate::store::trans::Filter;
use axum::Json;
use axum::extract::{Path, RawQuery, State};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Transactions that one page looks at when a text is searched for; behind that it says where to go on.
const LOOK_AT_MAX: usize = 2_000;
/// Read at once while searching.
const READ_AT_ONCE: usize = 200;

const KNOWN: &str = "status, type, from, to, q, attention, after, limit";

#[derive(Serialize)]
pub struct TransactionsPage {
    /// Newest first.
    pub transactions: Vec<Row>,
    /// To be asked for with `after=`; null when there are no more.
    pub next: Option<String>,
}

/// A transaction in a list.
#[derive(Serialize)]
pub struct Row {
    pub gid: String,
    #[serde(rename = "type")]
    pub trans_type: &'static str,
    pub status: &'static str,
    pub protocol: &'static str,
    pub created_at: Option<Timestamp>,
    pub updated_at: Option<Timestamp>,
    /// When it succeeded or was undone.
    pub ended_at: Option<Timestamp>,
    /// Branches that are done or, once it is undone, undone; of all there are.
    pub done: usize,
    pub branches: usize,
    /// When it is tried again, if it waits.
    pub next_try_at: Option<Timestamp>,
    /// Passes in a row that ended without a clear answer.
    pub failed_passes: u32,
    /// It has failed so often that somebody should look.
    pub attention: bool,
    /// It is tried again only when somebody asks for it.
    pub paused: bool,
    pub reason: String,
    /// What a branch said last, as far as the node that was asked heard it.
    pub last_error: Option<Trouble>,
}

#[derive(Serialize)]
pub struct Trouble {
    pub at: Option<Timestamp>,
    pub branch_id: String,
    pub op: String,
    pub error: String,
    pub times: u64,
    /// Who heard it.
    pub node: String,
}

/// All that is known of one.
#[derive(Serialize)]
pub struct Detail {
    #[serde(flatten)]
    pub row: Row,
    /// `redis` or `records`.
    pub held_in: &'static str,
    /// Somebody works on it now.
    pub in_work: bool,
    pub query_prepared: String,
    pub custom_data: String,
    pub result: String,
    pub retry_interval_ms: u64,
    pub options: serde_json::Value,
    pub branch_list: Vec<BranchDetail>,
}

#[derive(Serialize)]
pub struct BranchDetail {
    pub branch_id: String,
    pub op: &'static str,
    pub status: &'static str,
    pub url: String,
    pub finished_at: Option<Timestamp>,
    pub refused_at: Option<Timestamp>,
    pub payload: Payload,
}

/// Text as it is; what is none in base64.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    Text(String),
    Base64(String),
}

#[derive(Default)]
struct Wanted {
    filter: Filter,
    text: String,
    attention: bool,
}

pub async fn list(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Result<Json<TransactionsPage>, Problem> {
    let wanted = read(query.as_deref())?;
    page(&app, wanted).await.map(Json)
}

fn read(query: Option<&str>) -> Result<Wanted, Problem> {
    let mut wanted = Wanted::default();
    let mut page = super::PAGE_DEFAULT;
    for (key, value) in pairs(query) {
        match key.as_str() {
            "status" => {
                let words = "prepared, submitted, aborting, succeed, failed";
                let status = GlobalStatus::parse(&value);
                wanted.filter.status =
                    Some(status.ok_or_else(|| wrong("status", format_args!("must be one of {words}")))?);
            }
            "type" => {
                let words = "msg, saga, tcc, xa, workflow";
                let kind = TransType::parse(&value);
                wanted.filter.trans_type =
                    Some(kind.ok_or_else(|| wrong("type", format_args!("must be one of {words}")))?);
            }
            "from" => wanted.filter.created.0 = Some(time_ms("from", &value)?),
            "to" => wanted.filter.created.1 = Some(time_ms("to", &value)?),
            "q" => wanted.text = text(value)?.to_ascii_lowercase(),
            "attention" => {
                wanted.attention = value.parse().map_err(|_| wrong("attention", "must be true or false"))?;
            }
            "after" => {
                let place = value.split_once('~').and_then(|(ms, gid)| Some((ms.parse().ok()?, gid.to_owned())));
                let place = place.ok_or_else(|| wrong("after", "must be `next` of the page before"))?;
                wanted.filter.after = Some(place);
            }
            "limit" => page = limit(&value)?,
            other => return Err(unknown(other, KNOWN)),
        }
    }
    wanted.filter.limit = page;
    Ok(wanted)
}

async fn page(app: &App, mut wanted: Wanted) -> Result<TransactionsPage, Problem> {
    let limit = wanted.filter.limit;
    let chooses = wanted.attention || !wanted.text.is_empty();
    if chooses {
        wanted.filter.limit = READ_AT_ONCE;
    }
    let (mut transactions, mut looked_at) = (Vec::new(), 0);
    loop {
        let page = lookup::page(&app.driver, &wanted.filter).await.map_err(refused_as_problem)?;
        looked_at += wanted.filter.limit;
        for global in &page.transactions {
            if wanted.matches(app, global) {
                transactions.push(row(app, global));
            }
            if transactions.len() == limit {
                let next = (chooses || page.next.is_some()).then(|| format!("{}~{}", global.create_ms, global.gid));
                return Ok(TransactionsPage { transactions, next });
            }
        }
        let Some((ms, gid)) = page.next else { return Ok(TransactionsPage { transactions, next: None }) };
        if looked_at >= LOOK_AT_MAX {
            return Ok(TransactionsPage { transactions, next: Some(format!("{ms}~{gid}")) });
        }
        wanted.filter.after = Some((ms, gid));
    }
}

impl Wanted {
    fn matches(&self, app: &App, global: &Global) -> bool {
        if self.attention && !needs_attention(app, global) {
            return false;
        }
        let has = |text: &str| text.to_ascii_lowercase().contains(&self.text);
        let has_bytes = |bytes: &Bytes| std::str::from_utf8(bytes).is_ok_and(has);
        self.text.is_empty()
            || [global.gid.as_str(), &global.query_prepared, &global.custom_data, &global.rollback_reason]
                .into_iter()
                .any(has)
            || global.branches.iter().any(|branch| has(&branch.url) || has_bytes(&branch.payload))
            || global.payloads.iter().any(has_bytes)
            || app.driver.errors.of(&global.gid).is_some_and(|trouble| has(&trouble.error))
    }
}

fn needs_attention(app: &App, global: &Global) -> bool {
    global.needs_attention(app.driver.limits())
}

fn when(ms: u64) -> Option<Timestamp> {
    time((ms > 0).then_some(ms))
}

fn row(app: &App, global: &Global) -> Row {
    let over = global.status.is_final();
    let (done, branches) = progress(global);
    Row {
        gid: global.gid.to_string(),
        trans_type: global.trans_type.as_str(),
        status: global.status.as_str(),
        protocol: global.protocol.as_str(),
        created_at: when(global.create_ms),
        updated_at: when(global.update_ms.max(global.create_ms)),
        ended_at: when(global.finish_ms.max(global.rollback_ms)).filter(|_| over),
        done,
        branches,
        next_try_at: when(global.next_cron_ms).filter(|_| !over && !global.is_paused()),
        paused: !over && global.is_paused(),
        failed_passes: global.failed_passes,
        attention: needs_attention(app, global),
        reason: global.rollback_reason.clone(),
        last_error: app.driver.errors.of(&global.gid).map(|trouble| Trouble {
            at: when(trouble.at_ms),
            branch_id: trouble.branch_id,
            op: trouble.op,
            error: trouble.error,
            times: trouble.times,
            node: app.node.name.to_string(),
        }),
    }
}

/// By branch, not by row: an action and its compensation are one branch.
fn progress(global: &Global) -> (usize, usize) {
    let undoing = matches!(global.status, GlobalStatus::Aborting | GlobalStatus::Failed);
    let counts = |branch: &&Branch| {
        let undoes = matches!(branch.op, Op::Compensate | Op::Cancel | Op::Rollback);
        branch.status == BranchStatus::Succeed && undoes == undoing
    };
    let names = |branches: &mut dyn Iterator<Item = &Branch>| -> usize {
        branches.map(|branch| branch.branch_id.as_str()).collect::<BTreeSet<_>>().len()
    };
    (names(&mut global.branches.iter().filter(counts)), names(&mut global.branches.iter()))
}

fn payload(bytes: &Bytes) -> Payload {
    match std::str::from_utf8(bytes) {
        Ok(text) => Payload::Text(text.to_owned()),
        Err(_) => Payload::Base64(BASE64.encode(bytes)),
    }
}

/// `GET /v1/transactions/{gid}`
pub async fn show(State(app): State<Arc<App>>, Path(text): Path<String>) -> Result<Json<Detail>, Problem> {
    let gid = parse(&text)?;
    let global = lookup::transaction(&app.driver, &gid).await.map_err(refused_as_problem)?;
    let global = global.ok_or_else(|| unknown_transaction(&text))?;
    let in_redis = app.driver.redis.load_trans(&gid).await?.is_some();
    let in_work = !global.status.is_final() && app.driver.redis.is_leased(&gid, app.driver.now_ms()).await?;
    let branch = |branch: &Branch| BranchDetail {
        branch_id: branch.branch_id.clone(),
        op: branch.op.as_str(),
        status: branch.status.as_str(),
        url: branch.url.clone(),
        finished_at: when(branch.finish_ms),
        refused_at: when(branch.rollback_ms),
        payload: payload(&branch.payload),
    };
    let options = &global.options;
    Ok(Json(Detail {
        row: row(&app, &global),
        held_in: if in_redis { "redis" } else { "records" },
        in_work,
        query_prepared: global.query_prepared.clone(),
        custom_data: global.custom_data.clone(),
        result: global.result.clone(),
        retry_interval_ms: global.interval_ms,
        options: serde_json::json!({
            "wait_result": options.wait_result,
            "timeout_to_fail_s": options.timeout_to_fail_s,
            "request_timeout_s": options.request_timeout_s,
            "retry_interval_s": options.retry_interval_s,
            "retry_limit": options.retry_limit,
            "concurrent": options.concurrent,
            // Their values may be secrets of the services.
            "branch_headers": options.branch_headers.keys().collect::<Vec<_>>(),
        }),
        branch_list: global.branches.iter().map(branch).collect(),
    }))
}

fn parse(text: &str) -> Result<TransGid, Problem> {
    TransGid::parse(text).map_err(|_| unknown_transaction(text))
}

fn unknown_transaction(gid: &str) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "unknown_transaction",
        format!("there is no global transaction `{gid}`, neither in Redis nor in the records"),
    )
}

/// `POST /v1/transactions/{gid}/retry`: tried again now, not when its pause is over.
pub async fn retry(
    State(app): State<Arc<App>>,
    Path(text): Path<String>,
    headers: HeaderMap,
    deed: Deed,
    body: Bytes,
) -> Result<Json<Done>, Problem> {
    by_hand(&app, &text, &headers, &deed, &body, "retried").await
}

/// `POST /v1/transactions/{gid}/stop`: over now, as failed; no branch is called any more, not even to undo.
pub async fn stop(
    State(app): State<Arc<App>>,
    Path(text): Path<String>,
    headers: HeaderMap,
    deed: Deed,
    body: Bytes,
) -> Result<Json<Done>, Problem> {
    by_hand(&app, &text, &headers, &deed, &body, "stopped").await
}

async fn by_hand(
    app: &App,
    text: &str,
    headers: &HeaderMap,
    deed: &Deed,
    body: &[u8],
    what: &'static str,
) -> Result<Json<Done>, Problem> {
    let gid = parse(text)?;
    let note = changes::by_hand(headers, deed, body)?;
    let found = lookup::transaction(&app.driver, &gid).await.map_err(refused_as_problem)?;
    let global = found.ok_or_else(|| unknown_transaction(text))?;
    if global.status.is_final() {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "over",
            format!("{gid} is over: {}. Nothing was changed", global.status),
        ));
    }
    match what {
        "stopped" => operations::force_stop(&app.driver, &gid).await,
        _ => operations::reset_next_cron(&app.driver, &gid).await,
    }
    .map_err(refused_as_problem)?;
    tracing::info!(%gid, who = note.who, why = note.why, "a transaction was {what} by hand");
    let now = lookup::transaction(&app.driver, &gid).await.map_err(refused_as_problem)?;
    let status = now.map_or(global.status, |now| now.status).as_str();
    Ok(Json(Done { gid: gid.to_string(), status }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_is_refused_with_its_name() {
        let wanted = read(Some("status=submitted&type=saga&attention=true&after=17~g1&limit=7&q=X")).unwrap();
        assert_eq!(wanted.filter.status, Some(GlobalStatus::Submitted));
        assert_eq!((wanted.filter.after, wanted.filter.limit), (Some((17, "g1".to_owned())), 7));
        assert_eq!((wanted.text.as_str(), wanted.attention), ("x", true));
        for (query, field) in [("status=no", "status"), ("type=x", "type"), ("after=x", "after"), ("gid=x", "gid")] {
            assert_eq!(read(Some(query)).err().unwrap().field.as_deref(), Some(field));
        }
    }
}
