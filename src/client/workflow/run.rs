//! One run: read the progress, run the function, commit or roll back, tell the coordinator.

use super::Handler;
use super::branch::{Branch, Callback};
use crate::branch_call::op;
use crate::branch_error::BranchError;
use crate::client::call::BranchIds;
use crate::client::error::Error;
use crate::client::options::Options;
use crate::client::wire::{self, Trans};
use crate::client::{Client, Step};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    pub options: Options,
    pub compensate_failed: bool,
}

/// One run of a workflow. Cheap to clone; the clones count their branches together.
#[derive(Clone)]
pub struct Workflow {
    pub(super) run: Arc<Run>,
}

pub(super) struct Run {
    pub client: Client,
    pub gid: String,
    pub settings: Settings,
    /// What is known to have ended, by branch id and op.
    progress: HashMap<(String, String), Recorded>,
    state: Mutex<State>,
}

struct State {
    ids: BranchIds,
    callbacks: Vec<Callback>,
}

#[derive(Clone)]
struct Recorded {
    succeed: bool,
    data: Bytes,
}

impl Workflow {
    pub fn gid(&self) -> &str {
        &self.run.gid
    }

    /// The next step. Steps are known by their number, so take them in the same order in every run.
    pub fn branch(&self) -> Result<Branch, BranchError> {
        let id = self.run.state().ids.next()?;
        Ok(Branch::new(self.clone(), id))
    }

    /// The next step, run here: short for `branch()?.run(work)`.
    pub async fn do_branch<F, Fut>(&self, work: F) -> Result<Bytes, BranchError>
    where
        F: FnOnce(Step) -> Fut,
        Fut: Future<Output = Result<Bytes, BranchError>>,
    {
        self.branch()?.run(work).await
    }
}

impl Run {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add_callback(&self, callback: Callback) {
        self.state().callbacks.push(callback);
    }

    /// The rollback of a step that did not happen.
    pub fn drop_rollback(&self, branch_id: &str) {
        self.state().callbacks.retain(|callback| !(callback.op == op::ROLLBACK && callback.branch_id == branch_id));
    }

    /// Runs one op of a branch, unless it has ended in an earlier run; keeps what it came to, if that is final.
    pub async fn recorded<Fut>(
        &self,
        branch_id: &str,
        op: &str,
        work: impl FnOnce() -> Fut,
    ) -> Result<Bytes, BranchError>
    where
        Fut: Future<Output = Result<Bytes, BranchError>>,
    {
        if let Some(known) = self.progress.get(&(branch_id.to_owned(), op.to_owned())) {
            return match known.succeed {
                true => Ok(known.data.clone()),
                false => Err(BranchError::failure(String::from_utf8_lossy(&known.data))),
            };
        }
        let result = work().await;
        let (status, data) = match &result {
            Ok(data) => ("succeed", data.clone()),
            Err(BranchError::Failure(reason)) => ("failed", Bytes::from(reason.clone())),
            Err(_) => return result, // not final: the next run tries again
        };
        let fields = BTreeMap::from([("op", op.to_owned()), ("status", status.to_owned())]);
        let branch = wire::Branch {
            gid: self.gid.clone(),
            trans_type: "workflow",
            branch_id: branch_id.to_owned(),
            data,
            fields,
        };
        // Somebody else may have got further with this run meanwhile: then this one stops.
        self.client.register(&branch).await?;
        result
    }
}

pub(super) async fn execute(
    client: &Client,
    callback: &str,
    settings: &Settings,
    name: &str,
    handler: &Handler,
    gid: String,
    input: Bytes,
) -> Result<Bytes, Error> {
    let custom_data = serde_json::json!({ "data": BASE64.encode(&input), "name": name }).to_string();
    let mut trans = Trans {
        gid: gid.clone(),
        trans_type: "workflow",
        query_prepared: callback.to_owned(),
        custom_data,
        options: settings.options.clone(),
        ..Trans::default()
    };
    let known = client.prepare_workflow(&trans).await?;
    match known.transaction.status.as_str() {
        "succeed" => return Ok(known.transaction.result),
        "failed" => return Err(Error::Failure { reason: known.transaction.rollback_reason }),
        _ => {}
    }
    let progress = known
        .progresses
        .into_iter()
        .map(|known| ((known.branch_id, known.op), Recorded { succeed: known.status == "succeed", data: known.data }));
    let run = Arc::new(Run {
        client: client.clone(),
        gid: gid.clone(),
        settings: settings.clone(),
        progress: progress.collect(),
        state: Mutex::new(State { ids: BranchIds::below(""), callbacks: Vec::new() }),
    });
    let ended = handler(Workflow { run: run.clone() }, input).await;
    let interrupted = |cause| Error::Interrupted { gid: gid.clone(), cause };
    let result = match ended {
        Ok(result) => Ok(result),
        Err(BranchError::Failure(reason)) => Err(reason),
        Err(cause) => return Err(interrupted(cause)),
    };
    let op = if result.is_ok() { op::COMMIT } else { op::ROLLBACK };
    second_phase(&run, op).await.map_err(interrupted)?;
    trans.req_extra = match &result {
        Ok(result) => BTreeMap::from([("status", "succeed".to_owned()), ("result", BASE64.encode(result))]),
        Err(reason) => BTreeMap::from([("status", "failed".to_owned()), ("rollback_reason", reason.clone())]),
    };
    client.submit(&trans).await?;
    result.map_err(|reason| Error::Failure { reason })
}

/// Last registered first. None of them may refuse: it has been decided.
async fn second_phase(run: &Arc<Run>, op: &'static str) -> Result<(), BranchError> {
    let callbacks = std::mem::take(&mut run.state().callbacks);
    for callback in callbacks.into_iter().rev().filter(|callback| callback.op == op) {
        let branch_id = callback.branch_id.clone();
        let step = Step::new(&Workflow { run: run.clone() }, &branch_id, op)?;
        let id = &branch_id;
        let done = run.recorded(id, op, || async move {
            match (callback.work)(step).await {
                Ok(()) => Ok(Bytes::new()),
                Err(BranchError::Failure(reason)) => {
                    Err(BranchError::other(format!("{op} of branch {id} refused, which it may not: {reason}")))
                }
                Err(error) => Err(error),
            }
        });
        done.await?;
    }
    Ok(())
}
