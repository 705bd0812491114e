//! What is remembered of a transaction that is over and has left the store, and what a call about it hears.
//!
//! It is little, and enough: nothing can change any more, so a call needs to know only how it ended, of which mode it
//! was and whether the steps are the same. [`moves`](super::moves) asks here too once a transaction is over, so that a
//! call hears the same words before it leaves and after.

use super::gid::TransGid;
use super::global::{Global, StepUrls};
use super::refusal::Refusal;
use super::request::TransRequest;
use super::status::{GlobalStatus, TransType};
use crate::domain::ids::Invalid;
use bytes::Bytes;

/// A transaction that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    pub gid: TransGid,
    pub trans_type: TransType,
    /// `succeed` or `failed`.
    pub status: GlobalStatus,
    /// Of the steps and their payloads: tells an exact repeat from another request under the same gid.
    pub steps_digest: u64,
}

impl Remembered {
    /// `None`: it is not over.
    pub fn of(global: &Global) -> Option<Self> {
        global.status.is_final().then(|| Self {
            gid: global.gid.clone(),
            trans_type: global.trans_type,
            status: global.status,
            steps_digest: steps_digest(&global.steps, &global.payloads),
        })
    }

    /// Tells whether two transactions have the same steps.
    pub fn steps_digest_of(global: &Global) -> u64 {
        steps_digest(&global.steps, &global.payloads)
    }

    /// A prepare never finds it prepared.
    pub fn prepare(&self) -> Result<(), Refusal> {
        Err(Refusal::CannotPrepare(self.status))
    }

    /// `Ok`: it ended as this submit wants it.
    pub fn submit(&self, request: &TransRequest) -> Result<(), Refusal> {
        self.check_same(request)?;
        let wanted = match self.trans_type {
            TransType::Workflow => workflow_end(request)?,
            TransType::Msg | TransType::Saga | TransType::Tcc | TransType::Xa => GlobalStatus::Succeed,
        };
        if self.status == wanted { Ok(()) } else { Err(Refusal::CannotSubmit(self.status)) }
    }

    /// `Ok`: it failed, which is what an abort wants.
    pub fn abort(&self, request: &TransRequest) -> Result<(), Refusal> {
        let other_type = request.trans_type()?.is_some_and(|asked| asked != self.trans_type);
        let takes_none = matches!(self.trans_type, TransType::Saga | TransType::Workflow);
        match self.status {
            GlobalStatus::Failed if !other_type && !takes_none => Ok(()),
            status => Err(Refusal::CannotAbort(self.trans_type, status)),
        }
    }

    pub fn force_stop(&self) -> Result<(), Refusal> {
        Err(Refusal::CannotForceStop(self.status))
    }

    /// `Ok`: the answer is its record, which is not here.
    pub fn prepare_workflow(&self, request: &TransRequest) -> Result<(), Refusal> {
        match request.trans_type()? {
            Some(TransType::Workflow) => self.check_same(request),
            _ => Err(Invalid::new("trans_type", "must be workflow").into()),
        }
    }

    fn check_same(&self, request: &TransRequest) -> Result<(), Refusal> {
        let gid = || self.gid.clone();
        if let Some(asked) = request.trans_type()?
            && asked != self.trans_type
        {
            return Err(Refusal::OtherTransType { gid: gid(), stored: self.trans_type, asked });
        }
        let takes_steps = matches!(self.trans_type, TransType::Msg | TransType::Saga);
        let payloads = &request.payloads[..request.payloads.len().min(request.steps.len())];
        let same = || steps_digest(&request.steps, payloads) == self.steps_digest;
        if takes_steps && !request.steps.is_empty() && !same() {
            return Err(Refusal::OtherSteps(gid()));
        }
        Ok(())
    }
}

/// How the client says that its workflow ended.
pub(super) fn workflow_end(request: &TransRequest) -> Result<GlobalStatus, Invalid> {
    match request.req_extra.get("status").map_or("", String::as_str) {
        "succeed" => Ok(GlobalStatus::Succeed),
        "failed" => Ok(GlobalStatus::Failed),
        _ => Err(Invalid::new("req_extra", "must have the status succeed or failed")),
    }
}

/// FNV-1a over every text with its length in front. It is stored, so it must be the same in every version; it guards
/// against mistakes of clients and not against anybody who looks for a collision.
fn steps_digest(steps: &[StepUrls], payloads: &[Bytes]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut take = |bytes: &[u8]| {
        for byte in (bytes.len() as u64).to_le_bytes().iter().chain(bytes) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for step in steps {
        take(step.action.as_bytes());
        take(step.compensate.as_bytes());
    }
    payloads.iter().for_each(|payload| take(payload));
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(urls: &[(&str, &str)]) -> Vec<StepUrls> {
        urls.iter().map(|(a, c)| StepUrls { action: (*a).into(), compensate: (*c).into() }).collect()
    }

    #[test]
    fn the_digest_tells_steps_apart_and_never_changes() {
        let one = steps_digest(&steps(&[("http://a", "b")]), &[Bytes::from_static(b"{}")]);
        assert_eq!(one, 0x418e_8ebf_d459_a51d, "{one:#x}: it is in every Redis");
        for (urls, payload) in [
            (("http://a", "c"), "{}"),
            (("http://ab", ""), "{}"),
            (("http://a", "b"), "{} "),
            (("", "http://ab"), "{}"),
        ] {
            assert_ne!(one, steps_digest(&steps(&[urls]), &[Bytes::from(payload)]));
        }
    }
}
