//! rushline: a coordinator in front of flash-sale order endpoints. Units taken equal orders made, exactly.
//!
//! The map, from the rules outwards:
//!
//! - [`domain`]: the rules, pure.
//! - [`store`]: Redis. Keys, scripts (`lua/`), replies.
//! - [`sale`]: the path of an order through a node: admission, delivery, finishing, taking over.
//! - [`driver`]: global transactions: claims those that are due and moves them on; [`branch`] calls their branches.
//! - [`dial`]: how services of the shop are connected to.
//! - [`reconciler`]: drains finished orders to the records, and audits.
//! - [`server`]: the HTTP interface; it only translates.
//! - [`config`], [`cli`], [`serve`]: how it is set up and started.
//! - [`demo`]: a small real order service, for a first look.

pub mod branch;
pub mod cli;
pub mod config;
pub mod crash;
pub mod demo;
pub mod dial;
pub mod doctor;
pub mod domain;
pub mod driver;
pub mod fault;
pub mod reconciler;
pub mod sale;
pub mod serve;
pub mod server;
pub mod store;
pub mod telemetry;
