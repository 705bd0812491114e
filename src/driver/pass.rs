//! One pass at one transaction: asks the rules what is next, and does it.
//!
//! A common transaction costs two writes: its creation and its end. In between only what must be written is: a
//! decision before anything is done because of it, the note that a saga runs ahead of its record, and every second of
//! a long pass what has come in.

use super::lease::Sure;
use super::{Driver, Ended, Phase};
use crate::alerts;
use crate::branch::{Context, host_of};
use crate::domain::trans::drive::waited;
use crate::domain::trans::{
    BranchResult, CallSpec, Called, Global, GlobalStatus, Pass, Step, TransType, apply, apply_move, next_step,
};
use crate::store::trans::{Due, Saved};
use crate::store::trans_form::Loaded;
use crate::telemetry::trace;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long results may stay unwritten while a pass goes on. A crash costs the calls of that time once more.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// Why a pass cannot go on.
enum Stop {
    Lost,
    Store(crate::store::Error),
}

struct Work<'a> {
    driver: &'a Arc<Driver>,
    global: Global,
    /// As Redis has it.
    status: GlobalStatus,
    version: u64,
    has_rows: bool,
    /// The stored form says that more may have been done than it tells.
    says_ahead: bool,
    /// Results have come in that are not written.
    unwritten: bool,
    /// Its end was written, by this pass.
    over: bool,
    written_at: Instant,
    /// When it was certain that nobody else works on it.
    sure: Sure,
}

/// Works on it until there is nothing to do now.
pub async fn run(driver: &Arc<Driver>, loaded: Loaded, sure: Sure) -> Ended {
    let work = Work {
        driver,
        status: loaded.global.status,
        says_ahead: loaded.says_ahead,
        global: loaded.global,
        version: loaded.version,
        has_rows: loaded.has_rows,
        unwritten: false,
        over: false,
        written_at: Instant::now(),
        sure,
    };
    match work.go().await {
        Ok(ended) => ended,
        Err(Stop::Lost) => Ended::Lost,
        Err(Stop::Store(error)) => {
            tracing::warn!(%error, "a transaction cannot be written; it is taken up again when its lease runs out");
            Ended::Store(error)
        }
    }
}

impl Work<'_> {
    async fn go(mut self) -> Result<Ended, Stop> {
        let driver = self.driver;
        let limits = *driver.limits();
        let mut span = self.span();
        let context = Context::new(&self.global, &limits, driver.settings.credentials);
        let context = Arc::new(match &span {
            Some(span) => context.below(span),
            None => context,
        });
        let mut phase = driver.phase.subscribe();
        let mut letting_go = std::pin::pin!(super::reached(&mut phase, Phase::LettingGo));
        let mut pass = Pass::default();
        let mut calls = FuturesUnordered::new();
        loop {
            match next_step(&self.global, &mut pass, self.driver.now_ms(), &limits) {
                Step::Call(specs) => {
                    // A lease that may have run out: STALE says if it has, before anybody is called.
                    if self.must_tell_ahead() || driver.kept.is_in_doubt(&self.sure, std::time::Instant::now()) {
                        self.write(Due::Leased(driver.lease_until_ms())).await?;
                    }
                    for spec in specs {
                        let (context, caller) = (context.clone(), driver.caller.clone());
                        calls.push(async move {
                            crate::crash::point("trans.before_call");
                            let result = caller.call(&context, &spec).await;
                            crate::crash::point("trans.after_call");
                            (spec, result)
                        });
                    }
                }
                Step::Await => {
                    let write_by = self.written_at + WRITE_EVERY;
                    let (spec, result) = tokio::select! {
                        biased;
                        result = calls.next() => match result {
                            Some(result) => result,
                            None => return Err(Stop::Store(crate::store::Error::Unexpected {
                                what: "the rules of a transaction",
                                reply: "they wait for a call, and none is under way".into(),
                            })),
                        },
                        () = tokio::time::sleep_until(write_by), if self.unwritten => {
                            self.write(Due::Leased(driver.lease_until_ms())).await?;
                            continue;
                        }
                        () = &mut letting_go => {
                            // Calls under way may have had their effect; the next node repeats them.
                            self.global.ahead |= self.runs_ahead();
                            self.write(Due::At(self.driver.now_ms())).await?;
                            return Ok(Ended::HandedOver);
                        }
                    };
                    if matches!(spec.called, Called::Workflow) {
                        self.reload().await?; // its client registers what it did, and may end it, meanwhile
                    }
                    self.take(&mut pass, &spec, result);
                }
                Step::Move { to, reason } => {
                    if self.global.needs_attention(&limits) {
                        alerts::resolve(alerts::Kind::TransactionStuck, self.global.gid.as_str());
                    }
                    apply_move(&mut self.global, to, reason.as_deref(), self.driver.now_ms());
                    let due = if to.is_final() { Due::Never } else { Due::Leased(driver.lease_until_ms()) };
                    crate::crash::point("trans.before_save");
                    self.save(due).await?;
                    crate::crash::point("trans.after_save");
                }
                Step::Wait { until_ms } => {
                    self.write(Due::At(until_ms)).await?;
                    driver.due_at(until_ms);
                    return Ok(Ended::Over(waited(&self.global, &pass)));
                }
                Step::Done => {
                    driver.counts.end(&self.global);
                    if let Some(span) = &mut span {
                        span.set("rushline.status", self.global.status.as_str());
                    }
                    let answer = waited(&self.global, &pass);
                    if self.over {
                        driver.finished.push(Arc::new(self.global), self.version);
                    }
                    return Ok(Ended::Over(answer));
                }
            }
        }
    }

    /// The span of this pass: below the call that submitted it, also when another node goes on.
    fn span(&self) -> Option<trace::Span> {
        let mut span = trace::child("drive transaction", trace::Kind::Internal, self.global.options.trace.as_ref())?;
        span.set("rushline.gid", self.global.gid.as_str());
        span.set("rushline.trans_type", self.global.trans_type.as_str());
        Some(span)
    }

    fn take(&mut self, pass: &mut Pass, spec: &CallSpec, result: BranchResult) {
        let called = spec.called;
        // A workflow's op is its client's own name for it: no label.
        let op = if matches!(called, Called::Workflow) { "workflow" } else { &spec.op };
        self.driver.counts.call(op, &result);
        if let BranchResult::Failure(error) | BranchResult::Unknown(error) | BranchResult::NotCalled(error) = &result {
            self.driver.errors.note(&self.global.gid, &spec.branch_id, &spec.op, error, self.driver.now_ms());
        }
        let stuck = self.global.needs_attention(self.driver.limits());
        let applied = apply(&mut self.global, pass, called, result, self.driver.now_ms(), self.driver.limits());
        self.unwritten = true;
        if let Some(alert) = applied.alert {
            let text = || {
                format!(
                    "a branch at {} has not answered clearly, {} times in a row",
                    host_of(&spec.url),
                    alert.retry_count
                )
            };
            alerts::raise(alerts::Kind::TransactionStuck, self.global.gid.as_str(), text);
            self.driver.alert(alert);
        } else if stuck && !self.global.needs_attention(self.driver.limits()) {
            alerts::resolve(alerts::Kind::TransactionStuck, self.global.gid.as_str());
        }
    }

    /// A saga that may turn back: what was called and is not written must be undone all the same.
    fn runs_ahead(&self) -> bool {
        self.global.trans_type == TransType::Saga && self.global.status == GlobalStatus::Submitted
    }

    fn must_tell_ahead(&self) -> bool {
        self.runs_ahead() && self.unwritten && !self.says_ahead
    }

    async fn reload(&mut self) -> Result<(), Stop> {
        match self.driver.redis.load_trans(&self.global.gid).await {
            Ok(Some(loaded)) => {
                self.status = loaded.global.status;
                self.global = loaded.global;
                (self.version, self.has_rows) = (loaded.version, loaded.has_rows);
                Ok(())
            }
            Ok(None) => Err(Stop::Lost),
            Err(error) => Err(Stop::Store(error)),
        }
    }

    /// Writes how far it is; the status stays.
    async fn write(&mut self, due: Due) -> Result<(), Stop> {
        crate::crash::point("trans.before_note");
        self.save(due).await?;
        crate::crash::point("trans.after_note");
        Ok(())
    }

    async fn save(&mut self, due: Due) -> Result<(), Stop> {
        let remembered = self.global.ahead;
        self.global.ahead |= matches!(due, Due::Leased(_)) && self.runs_ahead();
        let sure = self.driver.kept.sure(std::time::Instant::now());
        let saved = self.driver.writer.save(&self.global, self.status, self.version, self.has_rows, due).await;
        self.says_ahead = self.global.ahead;
        self.global.ahead = remembered;
        match saved {
            Ok(Saved::Saved(version)) => {
                (self.version, self.sure) = (version, sure);
                self.over = due == Due::Never;
                self.status = self.global.status;
                self.unwritten = false;
                self.written_at = Instant::now();
                Ok(())
            }
            Ok(Saved::Stale | Saved::Gone) => Err(Stop::Lost),
            Err(error) => Err(Stop::Store(error)),
        }
    }
}
