//! rushline: a coordinator in front of flash-sale order endpoints. Units taken equal orders made, exactly.
//!
//! The map, from the rules outwards:
//!
//! - [`domain`]: the rules, pure.
//! - [`store`]: Redis. Keys, scripts (`lua/`), replies.
//! - [`sale`]: the path of an order through a node: admission, delivery, finishing, taking over.
//! - [`driver`]: global transactions: claims those that are due and moves them on; [`branch`] calls their branches.
//! - [`dial`], [`http1`]: how services of the shop are connected to and called.
//! - [`registry`]: etcd, where services find this server and it finds theirs.
//! - `alerts`: tells somebody, once, that something needs a person.
//! - [`reconciler`]: drains finished orders to the records, and audits.
//! - [`server`]: the doors, HTTP and gRPC; they only translate. [`proto`]: the messages of gRPC.
//! - [`access`]: who may do what: tokens, roles, the table of routes.
//! - `dashboard`: the page at `/`, which asks the HTTP interface like anybody else.
//! - [`config`], [`cli`], [`serve`]: how it is set up and started.
//! - [`outside`], [`zoo`]: where `simulate/` takes hold: what is around a node, and errors planted on purpose.
//! - [`demo`]: a small real order service, for a first look.
//! - `client`: taking part in global transactions and placing orders, from Rust.
//! - [`branch_call`], [`branch_error`]: what a service that is a branch reads and answers, whatever else it uses.
//! - `barrier` (features `barrier-sql`, `barrier-mongo`, `barrier-redis`): lets each branch call take effect once.

#[cfg(feature = "server")]
pub mod access;
#[cfg(feature = "server")]
mod alerts;
#[cfg(any(feature = "barrier-redis", feature = "barrier-mongo", feature = "barrier-sql"))]
pub mod barrier;
#[cfg(feature = "server")]
pub mod branch;
pub mod branch_call;
pub mod branch_error;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod crash;
#[cfg(feature = "server")]
mod dashboard;
#[cfg(feature = "server")]
pub mod demo;
#[cfg(any(feature = "server", feature = "client"))]
pub mod dial;
#[cfg(feature = "server")]
pub mod doctor;
#[cfg(feature = "server")]
pub mod domain;
#[cfg(feature = "server")]
pub mod driver;
#[cfg(feature = "server")]
pub mod fault;
#[cfg(feature = "server")]
pub mod http1;
#[cfg(feature = "server")]
pub mod outside;
#[cfg(any(feature = "server", feature = "client"))]
pub mod proto;
#[cfg(any(feature = "server", feature = "client"))]
mod raw_codec;
#[cfg(feature = "server")]
pub mod reconciler;
#[cfg(feature = "server")]
pub mod registry;
#[cfg(feature = "server")]
pub mod sale;
#[cfg(feature = "server")]
pub mod serve;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod store;
#[cfg(feature = "server")]
pub mod telemetry;
#[cfg(feature = "server")]
pub mod webhook;
#[cfg(feature = "server")]
pub mod zoo;
