//! `/api/dtmsvr/*`: dtm's routes and words.

use super::operations::{self, Refused};
use super::view::{KeyValue, Page, Progresses, Query, Transaction};
use super::{answer_of, gid, json, lookup, not_found, parameter, refused, topics, view};
use crate::domain::ids::{Gid, Invalid};
use crate::domain::trace::TraceContext;
use crate::domain::trans::{GlobalStatus, RegisterBranch, TransGid, TransRequest, TransType};
use crate::server::deed::Deed;
use crate::server::{App, orders};
use crate::store::trans::Filter;
use axum::response::Response;
use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::json;
use std::sync::Arc;

/// Page size of lists when none is asked for.
const LIMIT_DEFAULT: usize = 100;
/// Largest page that is given.
const LIMIT_MAX: usize = 1_000;

type Answer = Result<Response, Refused>;

/// What dtm changes by GET. Any page, and any link in a message, makes a browser send one: beyond this machine POST does it.
const GET_CHANGES: [&str; 3] = ["subscribe", "unsubscribe", "resetCronTime"];

pub async fn answer(
    app: &Arc<App>,
    method: &Method,
    route: &str,
    query: &str,
    deed: &Deed,
    body: &Bytes,
    trace: Option<TraceContext>,
) -> Response {
    if method == Method::GET && GET_CHANGES.contains(&route) && !app.settings.dtm_get_changes {
        return by_post_only(route);
    }
    let read = |body: &[u8]| Ok(TransRequest { trace: trace.clone(), ..TransRequest::from_json(body)? });
    let answer = match (method.as_str(), route) {
        ("POST", "submit") => done(submit(app, read(body)).await),
        ("POST", "prepare") => done(prepare(app, read(body)).await),
        ("POST", "abort") => done(Box::pin(abort(app, body)).await),
        ("POST", "registerBranch" | "registerXaBranch" | "registerTccBranch") => {
            done(Box::pin(register(app, body)).await)
        }
        ("POST", "prepareWorkflow") => Box::pin(prepare_workflow(app, read(body))).await,
        ("POST", "forceStop") => done(Box::pin(force_stop(app, deed, body)).await),
        ("POST", "resetNextCronTime") => done(Box::pin(reset_next_cron(app, deed, body)).await),
        ("GET" | "POST", "resetCronTime") => Box::pin(reset_cron(app, query)).await,
        ("GET", "newGid") => Ok(json(StatusCode::OK, &json!({ "dtm_result": "SUCCESS", "gid": gid::new() }))),
        ("GET", "version") => {
            Ok(json(StatusCode::OK, &json!({ "version": concat!("rushline-v", env!("CARGO_PKG_VERSION")) })))
        }
        ("GET", "query") => Box::pin(show(app, query)).await,
        ("GET", "all") => Box::pin(list(app, query)).await,
        ("GET" | "POST", "subscribe") => done(Box::pin(subscribe(app, deed, query)).await),
        ("GET" | "POST", "unsubscribe") => done(Box::pin(unsubscribe(app, deed, query)).await),
        ("GET", "scanKV") => Box::pin(scan_kv(app, query)).await,
        ("GET", "queryKV") => Box::pin(query_kv(app, query)).await,
        ("DELETE", route) => match route.strip_prefix("topic/").filter(|name| !name.contains('/')) {
            Some(name) => {
                let name = percent_decoded(name);
                done(Box::pin(topics::delete(&app.driver, &name)).await)
            }
            None => return not_found(),
        },
        _ => return not_found(),
    };
    answer.unwrap_or_else(|error| refused(&error))
}

fn by_post_only(route: &str) -> Response {
    let message = format!(
        "{route} changes something, and this server is reached from other machines: ask with POST, the parameters as they are (or set security.dtm_get_changes to true, for dtm's way); nothing was changed"
    );
    let mut response = json(StatusCode::METHOD_NOT_ALLOWED, &json!({ "message": message }));
    response.headers_mut().insert(http::header::ALLOW, http::HeaderValue::from_static("POST"));
    response
}

fn done(result: Result<(), Refused>) -> Answer {
    result.map(|()| answer_of(StatusCode::OK, Bytes::from_static(br#"{"dtm_result":"SUCCESS"}"#)))
}

fn percent_decoded(text: &str) -> String {
    // A `+` is itself in a path; in a query it would be a space.
    let text = text.replace('+', "%2B");
    let pair = format!("x={text}");
    url::form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned()).unwrap_or_default()
}

async fn submit(app: &App, request: Result<TransRequest, Invalid>) -> Result<(), Refused> {
    operations::submit(&app.driver, request?).await
}

async fn prepare(app: &App, request: Result<TransRequest, Invalid>) -> Result<(), Refused> {
    operations::prepare(&app.driver, request?).await
}

async fn abort(app: &App, body: &[u8]) -> Result<(), Refused> {
    operations::abort(&app.driver, TransRequest::from_json(body)?).await
}

async fn register(app: &App, body: &[u8]) -> Result<(), Refused> {
    operations::register_branch(&app.driver, RegisterBranch::from_json(body)?).await
}

async fn prepare_workflow(app: &App, request: Result<TransRequest, Invalid>) -> Answer {
    let global = operations::prepare_workflow(&app.driver, request?).await?;
    Ok(json(StatusCode::OK, &Progresses::from(&global)))
}

async fn force_stop(app: &App, deed: &Deed, body: &[u8]) -> Result<(), Refused> {
    let gid = TransRequest::from_json(body)?.gid()?;
    deed.target(gid.as_str());
    operations::force_stop(&app.driver, &gid).await
}

async fn reset_next_cron(app: &App, deed: &Deed, body: &[u8]) -> Result<(), Refused> {
    let gid = TransRequest::from_json(body)?.gid()?;
    deed.target(gid.as_str());
    operations::reset_next_cron(&app.driver, &gid).await
}

/// Makes due now what would be looked at only after `timeout` seconds from now.
async fn reset_cron(app: &App, query: &str) -> Answer {
    let timeout_ms = match number(query, "timeout")? {
        Some(seconds) => seconds.saturating_mul(1000),
        None => app.driver.limits().timeout_to_fail_ms.saturating_mul(3),
    };
    let limit = limit(query)?;
    let now = app.driver.now_ms();
    let (count, more) = app.driver.redis.reset_due(now, now.saturating_add(timeout_ms), limit).await?;
    if count > 0 {
        crate::crash::point("trans.after_reset");
        app.driver.due_at(now);
    }
    Ok(json(StatusCode::OK, &json!({ "has_remaining": more, "succeed_count": count })))
}

async fn show(app: &Arc<App>, query: &str) -> Answer {
    let gid = parameter(query, "gid").unwrap_or_default();
    if gid.is_empty() {
        return Err(Refused::Other("no gid specified".into()));
    }
    Ok(json(StatusCode::OK, &find(app, &gid).await?))
}

/// A global transaction, or a flash-sale order by its gid.
async fn find(app: &Arc<App>, gid: &str) -> Result<Query, Refused> {
    let found = match TransGid::parse(gid) {
        Ok(gid) => lookup::transaction(&app.driver, &gid).await,
        Err(_) => Ok(None),
    };
    let Ok(order_gid) = gid.parse::<Gid>() else {
        return Ok(found?.as_ref().map_or(Query::NONE, Query::from));
    };
    if let Ok(Some(global)) = &found {
        return Ok(Query::from(global));
    }
    let order = orders::look_up(app, &order_gid).await.map_err(|problem| Refused::Other(problem.detail))?;
    let Some(order) = order else { return Ok(Query::NONE) };
    let open = app.node.open(&order_gid.sale).await?;
    let endpoint = open.map(|open| open.sale.settings().endpoint.url).unwrap_or_default();
    Ok(view::order(order, endpoint))
}

async fn list(app: &Arc<App>, query: &str) -> Answer {
    let limit = limit(query)?;
    let position = parameter(query, "position").unwrap_or_default();
    if let Some(gid) = parameter(query, "gid").filter(|gid| !gid.is_empty()) {
        let found = find(app, &gid).await?.transaction;
        let page = Page { next_position: position, transactions: found.map(|one| vec![one]) };
        return Ok(json(StatusCode::OK, &page));
    }
    let mut filter = Filter {
        created: (number(query, "createTimeStart")?, number(query, "createTimeEnd")?),
        after: position.split_once('-').and_then(|(ms, gid)| Some((ms.parse().ok()?, gid.to_owned()))),
        limit,
        ..Filter::default()
    };
    let given = |name: &str| parameter(query, name).filter(|text| !text.is_empty());
    let (status, trans_type) = (given("status"), given("transType"));
    filter.status = status.as_deref().and_then(GlobalStatus::parse);
    filter.trans_type = trans_type.as_deref().and_then(TransType::parse);
    // A word that nothing can match matches nothing; it must not mean all.
    let none = (status.is_some() && filter.status.is_none())
        || (trans_type.is_some() && filter.trans_type.is_none())
        || (!position.is_empty() && filter.after.is_none());
    let page = if none { lookup::Page::default() } else { lookup::page(&app.driver, &filter).await? };
    let next_position = page.next.map_or_else(String::new, |(ms, gid)| format!("{ms}-{gid}"));
    let transactions = page.transactions.iter().map(Transaction::from).collect();
    Ok(json(StatusCode::OK, &Page { next_position, transactions: Some(transactions) }))
}

async fn subscribe(app: &App, deed: &Deed, query: &str) -> Result<(), Refused> {
    let given = |name| parameter(query, name).unwrap_or_default();
    deed.target(&given("topic"));
    topics::subscribe(&app.driver, &given("topic"), &given("url"), &given("remark")).await
}

async fn unsubscribe(app: &App, deed: &Deed, query: &str) -> Result<(), Refused> {
    let given = |name| parameter(query, name).unwrap_or_default();
    deed.target(&given("topic"));
    topics::unsubscribe(&app.driver, &given("topic"), &given("url")).await
}

/// In the order of the keys; the position is the last key of the page before.
async fn scan_kv(app: &App, query: &str) -> Answer {
    let category = parameter(query, "cat").unwrap_or_default();
    let position = parameter(query, "position").unwrap_or_default();
    let limit = limit(query)?;
    let all = app.driver.redis.kv_all(&category).await?;
    let page: Vec<KeyValue> = all
        .into_iter()
        .filter(|(key, _)| position.is_empty() || *key > position)
        .take(limit)
        .map(|(key, stored)| key_value(&category, key, stored))
        .collect();
    let next_position = match page.last() {
        Some(last) if page.len() == limit => last.k.clone(),
        _ => String::new(),
    };
    Ok(json(StatusCode::OK, &json!({ "kv": page, "next_position": next_position })))
}

async fn query_kv(app: &App, query: &str) -> Answer {
    let category = parameter(query, "cat").unwrap_or_default();
    let found: Vec<KeyValue> = match parameter(query, "key").filter(|key| !key.is_empty()) {
        Some(key) => {
            let stored = app.driver.redis.kv_read(&category, &key).await?;
            stored.map(|stored| key_value(&category, key, stored)).into_iter().collect()
        }
        None => {
            let all = app.driver.redis.kv_all(&category).await?;
            all.into_iter().map(|(key, stored)| key_value(&category, key, stored)).collect()
        }
    };
    Ok(json(StatusCode::OK, &json!({ "kv": found })))
}

fn key_value(category: &str, key: String, stored: crate::store::kv::Versioned) -> KeyValue {
    KeyValue {
        id: 0,
        create_time: None,
        update_time: None,
        cat: category.to_owned(),
        k: key,
        v: stored.value,
        version: stored.version,
    }
}

fn number(query: &str, name: &str) -> Result<Option<u64>, Refused> {
    match parameter(query, name).filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => match text.parse::<i64>() {
            // A negative one is before anything that is there.
            Ok(number) => Ok(Some(u64::try_from(number).unwrap_or(0))),
            Err(_) => Err(Refused::Other(format!("convert to int error: {text}"))),
        },
    }
}

fn limit(query: &str) -> Result<usize, Refused> {
    let asked = number(query, "limit")?.and_then(|limit| usize::try_from(limit).ok());
    Ok(asked.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX))
}
