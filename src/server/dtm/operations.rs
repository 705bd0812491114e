//! What every door of the dtm-compatible part can do. A door reads a request, calls one of these, and words the answer.
//!
//! The rules ([`crate::domain::trans::moves`]) say what a call changes; here it is written if the record still is what
//! the rules saw, and otherwise read and asked again.

use super::{lookup, topics};
use crate::alerts;
use crate::branch::{self, Uncallable};
use crate::domain::ids::Invalid;
use crate::domain::trace::TraceContext;
use crate::domain::trans::drive::waited;
use crate::domain::trans::{
    Change, Class, Global, Op, Pass, Protocol, Refusal, RegisterBranch, Remembered, TransGid, TransRequest, TransType,
    check, moves, run_uncalled,
};
use crate::driver::{Driver, Ended, Told};
use crate::store;
use crate::store::trans::{Appended, Created, Due, Saved};
use crate::store::trans_drain::Found;
use crate::store::trans_form::Loaded;
use crate::telemetry::trace;
use http::StatusCode;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

/// How often a call is tried anew because somebody else wrote the record meanwhile. Each time one of them got on.
const TRIES_MAX: u32 = 16;
/// How long a repeated call waits for a pass that another node makes.
const FOLLOW_MAX: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Why a call was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error(transparent)]
    Refusal(#[from] Refusal),
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Nothing that this server can do yet.
    #[error("{0}")]
    NotYet(String),
    /// dtm's 500 with a text.
    #[error("{0}")]
    Other(String),
}

impl Refused {
    /// The HTTP status and `dtm_result`.
    pub fn status(&self) -> (StatusCode, Option<&'static str>) {
        match self.class() {
            Some(Class::Failure) => (StatusCode::CONFLICT, Some("FAILURE")),
            Some(Class::Ongoing) => (StatusCode::TOO_EARLY, Some("ONGOING")),
            Some(Class::Invalid) => (StatusCode::BAD_REQUEST, None),
            Some(Class::Other) => (StatusCode::INTERNAL_SERVER_ERROR, None),
            None => (StatusCode::NOT_IMPLEMENTED, None),
        }
    }

    /// `None`: not there yet.
    pub fn class(&self) -> Option<Class> {
        match self {
            Refused::Refusal(refusal) => Some(refusal.class()),
            Refused::Store(_) | Refused::Other(_) => Some(Class::Other),
            Refused::NotYet(_) => None,
        }
    }
}

impl From<Invalid> for Refused {
    fn from(invalid: Invalid) -> Self {
        Refused::Refusal(invalid.into())
    }
}

/// Refuses what cannot, or must not, be called, with the name of the field that has it.
pub fn check_url(field: &'static str, protocol: Protocol, url: &str) -> Result<(), Refused> {
    branch::check(protocol, url).map_err(|uncallable| match uncallable {
        Uncallable::Registry(ref error) if error.is_unknown_kind() => Refused::NotYet(uncallable.to_string()),
        _ => Invalid::new(field, uncallable.to_string()).into(),
    })
}

/// The subscribers of the topics that a request names.
pub type Subscribers = HashMap<String, Vec<String>>;

/// Does the call set the driver going (`Some`), and is there room for it on this node?
type Drive = Option<Option<OwnedSemaphorePermit>>;

/// What a call did.
enum Written {
    /// The record as it is now, with the pass that works on it; a new one that is worked on is only with that.
    Done(Option<Arc<Global>>, Option<Told>),
    Nothing(Option<Arc<Global>>),
    /// Somebody else was faster; there is this now.
    Meanwhile(Found),
}

/// What came of a call.
enum Outcome {
    /// The record now, if it was needed, and the pass at it.
    There(Option<Arc<Global>>, Option<Told>),
    /// It was over and has left Redis, and this call is content with how it ended.
    Left,
}

pub async fn prepare(driver: &Arc<Driver>, mut request: TransRequest) -> Result<(), Refused> {
    let span = span_of("prepare transaction", &mut request);
    note_end(span, prepared(driver, request).await)
}

/// The span of a call about a transaction; what happens to the transaction goes on below it.
fn span_of(name: &'static str, request: &mut TransRequest) -> Option<trace::Span> {
    if trace::is_on() && request.trace.is_none() {
        // Clients hand a trace on as a header of the branches, too.
        let named = |name| request.branch_headers.get(name).map(String::as_bytes);
        request.trace = named("traceparent").and_then(|parent| TraceContext::read(parent, named("tracestate")));
    }
    let mut span = trace::begin(name, trace::Kind::Server, request.trace.as_ref())?;
    span.set("rushline.gid", request.gid.as_str());
    span.set("rushline.trans_type", request.trans_type.as_str());
    request.trace = Some(span.context());
    Some(span)
}

fn note_end<T>(span: Option<trace::Span>, result: Result<T, Refused>) -> Result<T, Refused> {
    if let (Some(mut span), Err(refused)) = (span, &result) {
        let (status, _) = refused.status();
        span.set("http.response.status_code", u64::from(status.as_u16()));
        if status.is_server_error() {
            span.fail("server error");
        }
    }
    result
}

async fn prepared(driver: &Arc<Driver>, request: TransRequest) -> Result<(), Refused> {
    check_calls(driver, &request)?;
    let gid = request.gid()?;
    let topics = Box::pin(topics::of_request(driver, &request)).await?;
    let subscribers = |name: &str| topics.get(name).cloned();
    let change = |existing: Option<&Global>| {
        moves::prepare(existing, request.clone(), driver.now_ms(), driver.limits(), &subscribers)
    };
    perform(driver, &gid, true, None, change, Remembered::prepare).await.map(|_| ())
}

pub async fn submit(driver: &Arc<Driver>, mut request: TransRequest) -> Result<(), Refused> {
    let span = span_of("submit transaction", &mut request);
    note_end(span, submitted(driver, request).await)
}

async fn submitted(driver: &Arc<Driver>, request: TransRequest) -> Result<(), Refused> {
    check_calls(driver, &request)?;
    let gid = request.gid()?;
    let topics = Box::pin(topics::of_request(driver, &request)).await?;
    let subscribers = |name: &str| topics.get(name).cloned();
    // A saga, or a message that was never prepared, is mostly new: no look before the leap.
    let new = request.trans_type == TransType::Saga.as_str()
        || (request.trans_type == TransType::Msg.as_str() && request.query_prepared.is_empty());
    let room = if request.wait_result { driver.wait_for_room().await } else { driver.room() };
    let change = |existing: Option<&Global>| {
        let (now, limits) = (driver.now_ms(), driver.limits());
        let mut change = moves::submit(existing, request.clone(), now, limits, &subscribers)?;
        if let Change::Create(global) | Change::Replace(global) = &mut change {
            run_uncalled(global, now, limits);
        }
        Ok(change)
    };
    match perform(driver, &gid, new, Some(room), change, |past| past.submit(&request)).await? {
        Outcome::There(global, told) if request.wait_result && request.trans_type != TransType::Workflow.as_str() => {
            wait(driver, &gid, global, told).await
        }
        Outcome::There(..) | Outcome::Left => Ok(()),
    }
}

pub async fn abort(driver: &Arc<Driver>, request: TransRequest) -> Result<(), Refused> {
    let gid = request.gid()?;
    let change = |existing: Option<&Global>| moves::abort(existing, &request, driver.now_ms());
    let outcome = perform(driver, &gid, false, Some(driver.room()), change, |past| past.abort(&request)).await?;
    let Outcome::There(global, told) = outcome else { return Ok(()) };
    if !global.as_ref().is_some_and(|global| global.options.wait_result) {
        return Ok(());
    }
    match wait(driver, &gid, global, told).await {
        // It was to fail, and a pass was made at it: that is all a waiting abort asks for.
        Err(Refused::Refusal(Refusal::Reason(_) | Refusal::WaitNotSuccess)) => Ok(()),
        other => other,
    }
}

pub async fn force_stop(driver: &Arc<Driver>, gid: &TransGid) -> Result<(), Refused> {
    let change = |existing: Option<&Global>| moves::force_stop(existing, gid, driver.now_ms());
    perform(driver, gid, false, None, change, Remembered::force_stop).await?;
    alerts::resolve(alerts::Kind::TransactionStuck, gid.as_str());
    Ok(())
}

pub async fn reset_next_cron(driver: &Arc<Driver>, gid: &TransGid) -> Result<(), Refused> {
    if driver.redis.is_leased(gid, driver.now_ms()).await? {
        return Ok(()); // it is being worked on now, which is what was asked for
    }
    let change = |existing: Option<&Global>| moves::reset_next_cron(existing, gid, driver.now_ms());
    perform(driver, gid, false, None, change, |_| Ok(())).await.map(|_| ())
}

pub async fn register_branch(driver: &Arc<Driver>, request: RegisterBranch) -> Result<(), Refused> {
    let gid = request.gid()?;
    let existing = driver.redis.load_trans(&gid).await?;
    let protocol = existing.as_ref().map_or(Protocol::Http, |loaded| loaded.global.protocol);
    match moves::register_branch(existing.as_ref().map(|loaded| &loaded.global), &request, driver.now_ms())? {
        Change::Append(branches) => {
            for branch in &branches {
                let field = match branch.op {
                    Op::Confirm => "confirm",
                    Op::Cancel => "cancel",
                    _ => "url",
                };
                check_url(field, protocol, &branch.url)?;
            }
            crate::crash::point("trans.before_append");
            let appended = driver.redis.append_branches(&gid, &branches).await?;
            crate::crash::point("trans.after_append");
            match appended {
                Appended::Done | Appended::Same => Ok(()),
                Appended::Conflict => Err(Refusal::UniqueKeyConflict.into()),
                Appended::NotPrepared | Appended::Gone => Err(Refusal::NotPrepared(gid).into()),
            }
        }
        Change::Nothing => Ok(()),
        change @ (Change::Create(_) | Change::Replace(_)) => {
            Err(Refused::Other(format!("registering a branch asks for what it cannot do: {change:?}")))
        }
    }
}

/// The record, new or as it was, with its rows.
pub async fn prepare_workflow(driver: &Arc<Driver>, mut request: TransRequest) -> Result<Global, Refused> {
    let span = span_of("prepare workflow", &mut request);
    note_end(span, workflow_prepared(driver, request).await)
}

async fn workflow_prepared(driver: &Arc<Driver>, request: TransRequest) -> Result<Global, Refused> {
    check_calls(driver, &request)?;
    let gid = request.gid()?;
    let change = |existing: Option<&Global>| {
        moves::prepare_workflow(existing, request.clone(), driver.now_ms(), driver.limits())
    };
    match perform(driver, &gid, true, None, change, |past| past.prepare_workflow(&request)).await? {
        Outcome::There(Some(global), _) => Ok(Arc::unwrap_or_clone(global)),
        Outcome::There(None, _) | Outcome::Left => match Box::pin(lookup::transaction(driver, &gid)).await? {
            Some(global) => Ok(global),
            None => Err(Refused::Other(format!("the workflow {gid} vanished while it was prepared"))),
        },
    }
}

/// What the rules cannot know: whom this server calls for others, and what it tells them.
fn check_calls(driver: &Driver, request: &TransRequest) -> Result<(), Refused> {
    // An unknown protocol is for the rules to refuse.
    let protocol = Protocol::parse(&request.protocol).unwrap_or(Protocol::Http);
    check_url("query_prepared", protocol, &request.query_prepared)?;
    for step in &request.steps {
        check_url("action", protocol, &step.action)?;
        check_url("compensate", protocol, &step.compensate)?;
    }
    let credentials = |name: &&String| !driver.settings.credentials && !check::is_own_header(name, false);
    match request.branch_headers.keys().find(credentials) {
        None => Ok(()),
        Some(name) => {
            let rule = format!("may not have {}: the setting calls.credentials refuses it", check::cut(name, 64));
            Err(Invalid::new("branch_headers", rule).into())
        }
    }
}

/// Asks the rules, writes what they say, and asks again if somebody else was faster. `new`: begin without a look.
/// `over` are the rules for what has left Redis.
async fn perform(
    driver: &Arc<Driver>,
    gid: &TransGid,
    new: bool,
    mut room: Drive,
    change: impl Fn(Option<&Global>) -> Result<Change, Refusal>,
    over: impl Fn(&Remembered) -> Result<(), Refusal>,
) -> Result<Outcome, Refused> {
    let mut found = if new { Found::Nothing } else { driver.redis.find_trans(gid).await? };
    for _ in 0..TRIES_MAX {
        let mut existing = match found {
            Found::There(loaded) => Some(loaded),
            Found::Nothing => None,
            Found::Left(past) => {
                over(&past)?;
                return Ok(Outcome::Left);
            }
        };
        let change = match change(existing.as_ref().map(|loaded| &loaded.global)) {
            Err(Refusal::NotFound(_) | Refusal::StorageNotFound) if existing.is_none() => {
                // Too long ago for Redis to remember, perhaps.
                return match Box::pin(lookup::remembered(driver, gid)).await? {
                    Some(past) => Ok(over(&past).map(|()| Outcome::Left)?),
                    None => Ok(change(None).map(|_| Outcome::Left)?),
                };
            }
            change => change?,
        };
        let written = match change {
            Change::Nothing => Written::Nothing(existing.take().map(|loaded| Arc::new(loaded.global))),
            Change::Create(global) => create(driver, global, &mut room).await?,
            Change::Replace(global) => match existing.take() {
                Some(loaded) => replace(driver, *loaded, global, &mut room).await?,
                None => return Err(Refused::Other(format!("{gid}: nothing there to replace"))),
            },
            change @ Change::Append(_) => return Err(Refused::Other(format!("{gid}: unexpected {change:?}"))),
        };
        match written {
            Written::Done(global, told) => return Ok(Outcome::There(global, told)),
            Written::Nothing(global) => return Ok(Outcome::There(global, None)),
            Written::Meanwhile(there) => found = there,
        }
    }
    Err(Refused::Other(format!("{gid} is written by too many at once; ask again")))
}

/// The due time to store, and whether this node drives it now.
fn plan(driver: &Driver, global: &Global, room: &Drive) -> (Due, bool) {
    let due_ms = global.due_ms(driver.limits());
    match (due_ms, room) {
        (None, _) => (Due::Never, false),
        (Some(ms), Some(Some(_))) if ms <= driver.now_ms() => (Due::Leased(driver.lease_until_ms()), true),
        (Some(ms), _) => (Due::At(ms), false),
    }
}

async fn create(driver: &Arc<Driver>, mut global: Box<Global>, room: &mut Drive) -> Result<Written, Refused> {
    let (due, drive) = plan(driver, &global, room);
    // Driven from memory, a saga goes on without writing each result.
    global.ahead = drive && global.trans_type == TransType::Saga;
    driver.redis.has_room_for(&global.gid)?;
    crate::crash::point("trans.before_create");
    match driver.writer.create(&global, due).await? {
        Created::Exists => Ok(Written::Meanwhile(Box::pin(driver.redis.find_trans(&global.gid)).await?)),
        Created::New => {
            crate::crash::point("trans.after_create");
            let says_ahead = std::mem::take(&mut global.ahead);
            if let Some(Some(room)) = room.take_if(|_| drive) {
                let now = Loaded { global: *global, version: 1, has_rows: false, says_ahead };
                return Ok(Written::Done(None, Some(driver.start(now, room))));
            }
            let global = Arc::from(global);
            note(driver, &global, 1, due);
            Ok(Written::Done(Some(global), None))
        }
    }
}

async fn replace(
    driver: &Arc<Driver>,
    loaded: Loaded,
    global: Box<Global>,
    room: &mut Drive,
) -> Result<Written, Refused> {
    let (due, drive) = plan(driver, &global, room);
    crate::crash::point("trans.before_replace");
    let saved = driver.writer.save(&global, loaded.global.status, loaded.version, loaded.has_rows, due).await?;
    crate::crash::point("trans.after_replace");
    match saved {
        Saved::Saved(version) => {
            let global: Arc<Global> = Arc::from(global);
            note(driver, &global, version, due);
            let told = room
                .take_if(|_| drive)
                .flatten()
                .map(|room| driver.start(Loaded { global: Global::clone(&global), version, ..loaded }, room));
            Ok(Written::Done(Some(global), told))
        }
        Saved::Stale | Saved::Gone => Ok(Written::Meanwhile(driver.redis.find_trans(&loaded.global.gid).await?)),
    }
}

/// Tells the driver what nobody works on now: when it is due, or that it is over.
fn note(driver: &Driver, global: &Arc<Global>, version: u64, due: Due) {
    match due {
        Due::At(ms) => driver.due_at(ms),
        Due::Never => {
            driver.counts.end(global);
            driver.finished.push(global.clone(), version);
        }
        Due::Leased(_) => {}
    }
}

/// Waits for the pass, or for the one that somebody else makes.
async fn wait(
    driver: &Arc<Driver>,
    gid: &TransGid,
    mut global: Option<Arc<Global>>,
    told: Option<Told>,
) -> Result<(), Refused> {
    let mut told = told.or_else(|| driver.running_pass(gid));
    let deadline = Instant::now() + FOLLOW_MAX;
    loop {
        if let Some(told) = told.take() {
            match ended(told).await {
                Some(Ended::Over(answer)) => return Ok(answer?),
                Some(Ended::Store(error)) => return Err(error.into()),
                Some(Ended::HandedOver) => {
                    return Err(Refused::Other("this server stops; the transaction goes on with another".into()));
                }
                Some(Ended::Lost) | None => {}
            }
            global = None;
        }
        let now = match global.take() {
            Some(global) => global,
            None => match Box::pin(lookup::transaction(driver, gid)).await? {
                Some(global) => Arc::new(global),
                None => return Err(Refused::Other(format!("{gid} is no longer there"))),
            },
        };
        let working = !now.status.is_final() && driver.redis.is_leased(gid, driver.now_ms()).await?;
        if !working || Instant::now() >= deadline {
            return Ok(waited(&now, &Pass::default())?);
        }
        tokio::time::sleep(LOOK_EVERY).await; // another node works on it; it cannot tell us
        told = driver.running_pass(gid);
    }
}

async fn ended(mut told: Told) -> Option<Ended> {
    told.wait_for(Option::is_some).await.ok()?.clone()
}
