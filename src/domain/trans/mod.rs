//! Global transactions: the rules of dtm's five modes, pure.
//!
//! Three groups of functions, each from values to values:
//!
//! - **What came in**: [`request::TransRequest`] and [`request::RegisterBranch`] are dtm's bodies, read as leniently as
//!   Go reads them and then checked for good; [`TransGid`] is parsed once.
//! - **What the API does**: [`moves`] answers each call with a [`moves::Change`] (what to write) or a [`Refusal`] (dtm's
//!   exact words and its class). The caller writes the change under compare-and-set on the record it gave in.
//! - **What the driver does**: [`drive::next_step`] says what to do with a due transaction, [`drive::apply`] takes a
//!   call's result in. One file per mode: [`msg`], [`saga`], [`tcc`], [`xa`], [`workflow`].
//!
//! Time comes in as `now_ms`, milliseconds since 1970. [`Limits`] carries the server's settings.

pub mod adopted;
pub mod check;
pub mod drive;
pub mod gid;
pub mod global;
mod json;
pub mod moves;
pub mod msg;
pub mod refusal;
pub mod remembered;
pub mod request;
pub mod rows;
pub mod saga;
pub mod status;
mod stored;
pub mod tcc;
pub mod timing;
pub mod topic;
pub mod workflow;
pub mod xa;

pub use drive::{
    Alert, Applied, BranchResult, CallSpec, Called, Pass, Step, apply, apply_move, next_step, run_uncalled, waited,
};
pub use gid::TransGid;
pub use global::{Branch, Global, Options, StepUrls};
pub use moves::Change;
pub use refusal::{Class, Refusal};
pub use remembered::Remembered;
pub use request::{RegisterBranch, TransRequest};
pub use status::{BranchStatus, GlobalStatus, Op, Protocol, TransType};
pub use timing::Limits;

#[cfg(test)]
mod tests;
