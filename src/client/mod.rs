//! The client: taking part in global transactions, and placing orders of flash sales, from Rust.
//!
//! ```toml
//! rushline = { version = "0.1", default-features = false, features = ["client"] }
//! ```
//!
//! # Which mode
//!
//! | you want | use |
//! | --- | --- |
//! | a local change, and calls that follow it for certain | [`Client::msg`] and [`Msg::do_and_submit`] |
//! | calls one after the other, undone if one refuses | [`Client::saga`] |
//! | to hold things first, and then take them all, or none | [`Client::tcc`] |
//! | rows in several databases, changed together | [`Client::xa`] |
//! | your own code with its own ifs, continued after a crash | [`Client::workflows`] |
//! | units of a flash sale | [`Client::sale`] |
//!
//! # The two sides
//!
//! Whoever begins a transaction has a [`Client`], over HTTP ([`Client::http`]) or gRPC ([`Client::grpc`]). A service that
//! is a branch needs none: it reads who calls with [`BranchCall`], keeps repeated and late calls out with a barrier (module
//! `barrier`), and says how it went: `Ok`, or a [`BranchError`], which [`answer`] turns into HTTP, and `?` into
//! [`tonic::Status`].
//!
//! ```
//! use rushline::client::{BranchCall, BranchError, StatusCode, answer};
//!
//! /// The handler of `POST /take?gid=…&trans_type=…&branch_id=…&op=…`.
//! fn take(query: &str) -> (StatusCode, String) {
//!     let take = || {
//!         let call = BranchCall::from_query(query)?;
//!         match call.op.as_str() {
//!             "action" => Err(BranchError::failure("nothing left")),
//!             _ => Ok("undone"),
//!         }
//!     };
//!     answer(take())
//! }
//!
//! let (status, _) = take("gid=g1&trans_type=saga&branch_id=01&op=action");
//! assert_eq!(status.as_u16(), 409); // the saga will be rolled back
//! ```
//!
//! # What an error means
//!
//! An error of a coordinator never means "rolled back", except for [`Error::Failure`], which always does. The variants of
//! [`Error`] say what may be concluded; [`Error::is_retryable`] if the same call should be made again, with the same gid;
//! [`Client::query`] tells the truth at any time. A global transaction that was accepted goes on without its client.
//!
//! `docs/client.md` has one example of each mode on a page.
//!
//! Everything has a time limit ([`Client::with_timeout`], [`Client::with_wait_max`]), nothing is global, nothing panics.

mod answer;
mod call;
#[expect(clippy::module_inception, reason = "the module's main type")]
mod client;
mod coordinator;
mod error;
mod grpc;
mod grpc_coordinator;
mod http;
mod msg;
mod options;
mod orders;
mod payload;
mod saga;
mod tcc;
mod wire;
mod workflow;
mod xa;

pub use answer::{Reply, answer, read_answer};
pub use client::Client;
pub use error::{Done, Error, Outcome};
pub use msg::{Msg, Prepared};
pub use orders::{NewOrder, Order, OrderItem, OrderStatus, Placed, Refusal, Sale};
pub use payload::Payload;
pub use saga::Saga;
pub use tcc::{Tcc, TccBuilder};
pub use wire::{Transaction, TransactionBranch};
pub use workflow::{Branch, Step, Workflow, WorkflowServer, Workflows};
pub use xa::{Xa, XaBuilder};

pub use crate::branch_call::{BranchCall, NoBranchCall, op};
pub use crate::branch_error::BranchError;
pub use ::http::{HeaderMap, StatusCode};
pub use bytes::Bytes;

/// Its examples are compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/client.md")]
struct Guide;
